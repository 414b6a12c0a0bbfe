"""Where an evaluation or a report is to go and something is already: what that is, and what to type.

Neither is ever resumed: what was cut short is made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_sale.artifacts.manifest import Input, Manifest, differences, read_manifest
from marl_sale.artifacts.reader import Artifact, standing
from marl_sale.artifacts.store import Run, check_vacant
from marl_sale.errors import ArtifactError, RunExistsError


@dataclass(frozen=True)
class Asked:
    """An evaluation or a report, as far as two of its kind can differ."""

    kind: str
    seed: int
    fingerprint: str | None
    inputs: Sequence[Input]
    facts: Mapping[str, Any]
    """What its report.json says of the rest."""


def create(out: Path, asked: Asked, **more: Any) -> Run:
    """`Run.create`, whose RunExistsError says what there is in `out`."""
    try:
        return Run.create(
            out,
            kind=asked.kind,
            seed=asked.seed,
            fingerprint=asked.fingerprint,
            inputs=asked.inputs,
            **more,
        )
    except RunExistsError as error:
        raise _occupied(out, asked) or error from None


def require_vacant(out: Path, asked: Asked) -> None:
    """RunExistsError where `create` would raise it."""
    try:
        check_vacant(out)
    except RunExistsError as error:
        raise _occupied(out, asked) or error from None


def _occupied(out: Path, asked: Asked) -> RunExistsError | None:
    """None where there is nothing in `out` that could be read."""
    try:
        manifest, digest = read_manifest(out)
        problems = _differences(Artifact(out, manifest, digest), asked)
    except ArtifactError:
        return None
    found = f"{manifest.id}, {standing(out, manifest)}"
    if problems:
        what = f"{out}: holds another {manifest.kind} ({found}); nothing in it was touched"
        return RunExistsError("\n".join([what, *problems]), "choose another folder with --out")
    if manifest.status == "complete":
        return RunExistsError(
            f"{out}: this {asked.kind} was made before ({found}); nothing in it was touched",
            f"marl-sale runs show {out} shows it; choose another folder with --out to make it again",
        )
    return RunExistsError(
        f"{out}: this {asked.kind} was begun before and is not finished ({found}); nothing in it was touched",
        f"no {asked.kind} is resumed: delete this one and type the same command, or choose another folder"
        " with --out",
    )


def _differences(there: Artifact, asked: Asked) -> list[str]:
    manifest: Manifest = there.manifest
    if manifest.kind != asked.kind:
        return differences({"kind": manifest.kind}, {"kind": asked.kind})
    found: dict[str, Any] = {"seed": manifest.seed, "fingerprint": manifest.fingerprint}
    expected: dict[str, Any] = {"seed": asked.seed, "fingerprint": asked.fingerprint}
    found |= _inputs(asked.kind, manifest.inputs)
    expected |= _inputs(asked.kind, asked.inputs)
    if manifest.status == "complete":  # before, there is no report.json
        report = there.json("report")
        found |= {name: report.get(name) for name in asked.facts} if isinstance(report, dict) else {}
        expected |= asked.facts
    return differences(found, expected)


def _inputs(kind: str, inputs: Sequence[Input]) -> dict[str, str]:
    """A checkpoint stays what it is while its agent trains on; what is drawn of an agent does not."""
    if kind == "evaluation":
        return {entry.role: entry.id for entry in inputs}
    return {entry.id: f"manifest {entry.manifest_sha256[:12]}" for entry in inputs}
