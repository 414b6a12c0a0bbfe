"""`marl-sale runs`: which artifacts there are, what they say, whether they are intact."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from marl_sale.errors import ArtifactError

from ._console import complain, number, table
from ._errors import translated
from ._options import (
    Debug,
    ExpectSha256,
    Json,
    given_path,
)

if TYPE_CHECKING:
    from marl_sale.artifacts.lineage import Ancestor
    from marl_sale.artifacts.manifest import Manifest
    from marl_sale.artifacts.reader import Artifact

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, show and verify artifacts: the folders that the commands write.",
)

RESULTS = Path("results")
"""Where commands write by default."""

RunPath = Annotated[
    Path,
    typer.Argument(parser=given_path, metavar="ARTIFACT", show_default=False, help="An artifact folder."),
]


@app.command("ls")
@translated
def ls(
    root: Annotated[Path, typer.Argument(metavar="ROOT", help="Where to look, at any depth.")] = RESULTS,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List the artifacts below a folder.

    Reads: their manifests. Writes: nothing. A damaged one is listed as such; `runs show` says why.

    Example: marl-sale runs ls .
    """
    from marl_sale.artifacts.manifest import read_manifest
    from marl_sale.artifacts.reader import find_artifacts

    if not root.is_dir() and root != RESULTS:  # which is there once something has been written
        raise ArtifactError(f"{root}: no such folder", "name the folder in which the artifacts are")
    rows: list[dict[str, str | int | float | None]] = []
    for path in find_artifacts(root):
        try:
            rows.append(_summary(path, read_manifest(path)[0]))
        except ArtifactError:
            rows.append(dict.fromkeys(_COLUMNS) | {"status": "damaged", "path": str(path)})
    if as_json:
        typer.echo(json.dumps(rows))
    elif rows:
        now = datetime.now(UTC)
        shown = [
            (*map(_cell, list(row.values())[:-2]), _age(row["updated"], now), row["path"])
            for row in ({**row, "recipe": _short(row["recipe"])} for row in rows)
        ]
        typer.echo(table(shown, heading=("kind", "status", "recipe", "seed", "env steps", "age", "path")))
    else:
        complain(f"no artifact below {root}")


@app.command("show")
@translated
def show(path: RunPath, as_json: Json = False, debug: Debug = False) -> None:
    """Show what an artifact is, from what and with what it was made.

    Reads: its manifest and those of its checkpoints. Writes: nothing.

    Example: marl-sale runs show agent
    """
    artifact = _open(path)
    if as_json:
        typer.echo(artifact.manifest.model_dump_json())
    else:
        typer.echo(table(_lines(artifact)))


@app.command("verify")
@translated
def verify(path: RunPath, expect_sha256: ExpectSha256 = None, debug: Debug = False) -> None:
    """Check every file of an artifact against its hash.

    Reads: the whole artifact. Writes: nothing. Exit code 3 when anything is missing, changed or added.

    Example: marl-sale runs verify agent
    """
    from marl_sale.artifacts.reader import require_digest

    if expect_sha256 is not None:
        require_digest(path, expect_sha256)
    artifact = _open(path)
    if problems := artifact.verify():
        raise ArtifactError("\n".join(problems), "Do not use it; make it again.")
    complain(f"{artifact.manifest.kind}: {artifact.manifest.status}, every file is as listed")
    complain(f"sha256 {artifact.digest}")
    typer.echo(str(path))


@app.command("lineage")
@translated
def show_lineage(
    path: RunPath,
    root: Annotated[
        Path,
        typer.Option(
            "--root",
            metavar="ROOT",
            help="Where to look for what is no longer where it was.",
            show_default=True,
        ),
    ] = RESULTS,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Show from what an artifact was made, and whether that is still the same.

    Reads: manifests. Writes: nothing. Stale is what was made from something that has changed since.

    Example: marl-sale runs lineage evaluation --root .
    """
    from dataclasses import asdict

    from marl_sale.artifacts.lineage import lineage

    found = lineage(path, root)
    if as_json:
        typer.echo(json.dumps(asdict(found), default=str))
    else:
        typer.echo(table(_ancestry(found, 0), heading=("artifact", "made from", "state", "path")))


@app.command("diverged")
@translated
def diverged(path: RunPath, debug: Debug = False) -> None:
    """Repeat the update that ended a training run, and name the first tensor in it that is not finite.

    Reads: the agent artifact of a run that ended with exit code 6. Writes: nothing.

    Example: marl-sale runs diverged agent
    """
    from marl_sale.stages.diverged import repeat

    error = repeat(path)
    complain(error.what)
    typer.echo(error.first)


_COLUMNS = ("kind", "status", "recipe", "seed", "env_steps", "updated", "path")


def _summary(path: Path, manifest: "Manifest") -> dict[str, str | int | float | None]:
    from marl_sale.artifacts.reader import standing

    steps = manifest.counters.get("env_steps")
    values = (
        manifest.kind,
        standing(path, manifest),
        manifest.recipe,
        manifest.seed,
        steps,
        manifest.updated,
        str(path),
    )
    return dict(zip(_COLUMNS, values, strict=True))


def _cell(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) else str(value) if value is not None else "-"


def _short(recipe: object) -> object:
    """A report on many recipes names them all."""
    return recipe[:59] + "…" if isinstance(recipe, str) and len(recipe) > 60 else recipe


def _age(updated: object, now: datetime) -> str:
    """`5 min`, `3 h`, `2 d`: since the last change."""
    if not isinstance(updated, str):
        return "-"
    minutes = int((now - datetime.fromisoformat(updated)).total_seconds() // 60)
    return (
        f"{minutes} min"
        if minutes < 60
        else f"{minutes // 60} h"
        if minutes < 2880
        else f"{minutes // 1440} d"
    )


def _open(path: Path) -> "Artifact":
    """An artifact of any kind, in any state."""
    from marl_sale.artifacts.manifest import Kind, Status
    from marl_sale.artifacts.reader import Artifact

    return Artifact.open(path, kind=get_args(Kind), status=get_args(Status))


_STATES = {"same": "as it was", "changed": "changed: what was made from it is stale", "missing": "not found"}


def _ancestry(found: "Ancestor", depth: int) -> Iterator[tuple[str, str, str, str]]:
    state = _STATES[found.state] if found.role else ""
    yield "  " * depth + found.id, found.role, state, str(found.path or "-")
    for each in found.made_from:
        yield from _ancestry(each, depth + 1)


def _lines(artifact: "Artifact") -> Iterator[tuple[str, str]]:
    """Name and value of everything the manifest says, checkpoints included."""
    from marl_sale.artifacts.reader import checkpoint_steps

    manifest = artifact.manifest
    for name in ("kind", "status", "id", "recipe", "seed", "fingerprint", "created", "updated", "device"):
        yield name, str(getattr(manifest, name) if getattr(manifest, name) is not None else "-")
    for override in manifest.overrides:
        yield "override", override
    if manifest.git is not None:
        yield "commit", manifest.git.commit + (" with local changes" if manifest.git.dirty else "")
    for role in manifest.inputs:
        yield f"input {role.role}", f"{role.id}  {role.path or ''}".rstrip()
    for prefix, values in (
        ("", manifest.counters),
        ("env ", manifest.env_spec or {}),
        ("version ", manifest.versions),
    ):
        for name, value in values.items():
            yield f"{prefix}{name}", number(value)
    for step in artifact.checkpoints():
        try:
            score = artifact.checkpoint(step).score
        except ArtifactError:
            if step in checkpoint_steps(artifact.path):
                raise
            continue  # of a run under way: deleted in the meantime, as a later one was saved
        yield f"checkpoint {step}", "not scored" if score is None else f"score {number(score)}"
    yield "files", f"{len(manifest.files)}, {sum(f.bytes for f in manifest.files.values()):,} bytes"
    for note in manifest.notes:
        yield "note", note
