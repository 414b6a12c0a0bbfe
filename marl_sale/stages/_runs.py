"""Starting a run and going on with one: what is done, or why not and what to type instead."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from marl_sale.artifacts.manifest import MANIFEST, Input, Manifest, differences, read_manifest
from marl_sale.artifacts.reader import Artifact, standing
from marl_sale.artifacts.store import Keep, Run, check_vacant
from marl_sale.config.recipe import Recipe
from marl_sale.config.schema import UNSEEN
from marl_sale.errors import ArtifactError, ConfigError, RunExistsError
from marl_sale.spec import EnvSpec
from marl_sale.stages._artifacts import recipe_of

SAME_COMMAND = "the same command"
CONTINUE = f"continue with {SAME_COMMAND} and --resume"


def begin(
    out: Path,
    *,
    kind: str,
    recipe: Recipe,
    seed: int,
    spec: EnvSpec,
    inputs: Sequence[Input],
    command: str,
    device: str,
    keep: Keep,
    resume: bool = False,
    from_scheduled: bool = False,
    inputs_needed: bool = True,
) -> Run:
    """A new run in `out`, or with `resume` the one that is there: unfinished, or asked to train for longer.

    `inputs_needed`: to go on, it has to be given the inputs it began with; where not, they may be left out.
    Raises RunExistsError, or ArtifactError for a resume, saying what there is in `out` and what to type.
    """
    if resume:
        there = require_unfinished(out, kind, recipe, seed, spec)
        require_same_inputs(out, inputs, needed=inputs_needed)
        return Run.resume(
            out,
            kind=kind,
            recipe=recipe.name,
            overrides=recipe.overrides,
            config_text=recipe.text,
            fingerprint=recipe.fingerprint,
            seed=seed,
            env_spec=spec.to_dict(),
            command=command,
            device=device,
            longer_than=there.fingerprint if there.fingerprint != recipe.fingerprint else None,
            keep=keep,
            from_scheduled=from_scheduled,
        )
    try:
        return Run.create(
            out,
            kind=kind,
            recipe=recipe.name,
            overrides=recipe.overrides,
            config_text=recipe.text,
            fingerprint=recipe.fingerprint,
            seed=seed,
            env_spec=spec.to_dict(),
            inputs=inputs,
            command=command,
            device=device,
            keep=keep,
        )
    except RunExistsError as error:
        raise occupied(out, kind, recipe, seed, spec, command) or error from None


def require_unfinished(out: Path, kind: str, recipe: Recipe, seed: int, spec: EnvSpec) -> Manifest:
    """The manifest of the run to go on with. ArtifactError where it is none, or another; RunExistsError
    where nothing is left to do. An agent may be asked to train for longer than it was at first.
    """
    if not (out / MANIFEST).exists():
        raise ArtifactError(
            f"{out}: there is no run to go on with (no {MANIFEST} here)",
            "start one with the same command without --resume, or name the folder of the run with --out",
        )
    manifest, _ = read_manifest(out)
    problems = _differences(out, manifest, kind, recipe, seed, spec)
    if problems and not _trains_longer(out, manifest, kind, recipe, seed, spec):
        raise ArtifactError(
            "\n".join([f"{out}: another run than the one asked for:", *problems]),
            "resume it with the recipe in its config.yaml and its seed, or start a new run with --out",
        )
    if manifest.status == "complete" and not problems:
        raise _complete(out, kind)
    return manifest


def _trains_longer(
    out: Path, manifest: Manifest, kind: str, recipe: Recipe, seed: int, spec: EnvSpec
) -> bool:
    """Whether what is asked for is the training in `out`, but for an end that it has not reached."""
    env_steps = recipe.config.train.env_steps
    if kind != "agent" or env_steps <= manifest.counters.get("env_steps", 0):
        return False
    try:
        longer = recipe_of(Artifact(out, manifest, ""), f"train.env_steps={env_steps}")
    except ArtifactError:
        return False
    asked_for = {"kind": kind, "seed": seed, "env_spec": spec.to_dict(), "fingerprint": recipe.fingerprint}
    found = manifest.model_dump(include={"kind", "seed", "env_spec"}) | {"fingerprint": longer.fingerprint}
    return not differences(found, asked_for)


def require_vacant(
    out: Path,
    kind: str,
    recipe: Recipe,
    seed: int,
    spec: EnvSpec,
    command: str = SAME_COMMAND,
    option: str = "--out",
) -> None:
    """RunExistsError or StoppedError where `begin` would raise it; `option` is the one that named `out`."""
    try:
        check_vacant(out, option=option)
    except RunExistsError as error:
        raise occupied(out, kind, recipe, seed, spec, command, option) or error from None


def occupied(
    out: Path,
    kind: str,
    recipe: Recipe,
    seed: int,
    spec: EnvSpec,
    command: str = SAME_COMMAND,
    option: str = "--out",
) -> RunExistsError | None:
    """Why a run cannot be started in `out`, and what to type; None where there is no run in it."""
    try:
        manifest, _ = read_manifest(out)
        problems = _differences(out, manifest, kind, recipe, seed, spec)
    except ArtifactError:
        return None
    if problems:
        found = f"{manifest.kind} of {manifest.recipe}, seed {manifest.seed}, {standing(out, manifest)}"
        hint = f"choose another folder with {option}"
        if _trains_longer(out, manifest, kind, recipe, seed, spec):
            hint += f"; or train this one for longer: {command} --resume"
        return RunExistsError(
            "\n".join([f"{out}: holds another run ({found}); nothing in it was touched", *problems]), hint
        )
    if manifest.status == "complete":
        return _complete(out, kind, option)
    reached = f"{standing(out, manifest)}, {progress_of(manifest.counters)}"
    return RunExistsError(
        f"{out}: this run was begun before and is not finished ({reached}); nothing in it was touched",
        f"go on with: {command} --resume",
    )


def progress_of(counters: Mapping[str, float]) -> str:
    """How far a run was at its latest checkpoint: `at 60,000 env steps`."""
    for name in ("epochs", "env_steps", "episodes"):
        if name in counters:
            return f"at {counters[name]:,} {name.replace('_', ' ')}"
    return "before its first checkpoint"


def _complete(out: Path, kind: str, option: str = "--out") -> RunExistsError:
    return RunExistsError(
        f"{out}: this run is complete; nothing is left to do, and nothing in it was touched",
        f"marl-sale runs show {out} shows it; choose another folder with {option} to make it again"
        + (", or train for longer: a larger train.env_steps and --resume" if kind == "agent" else ""),
    )


def _differences(
    out: Path, manifest: Manifest, kind: str, recipe: Recipe, seed: int, spec: EnvSpec
) -> list[str]:
    """What the run in `out` and the one asked for do not share."""
    found: dict[str, Any] = {"kind": manifest.kind, "seed": manifest.seed, "env_spec": manifest.env_spec}
    expected: dict[str, Any] = {"kind": kind, "seed": seed, "env_spec": spec.to_dict()}
    if manifest.fingerprint != recipe.fingerprint:
        found["fingerprint"], expected["fingerprint"] = manifest.fingerprint, recipe.fingerprint
        try:
            of_run = _seen(recipe_of(Artifact(out, manifest, "")))
        except (ConfigError, ArtifactError):
            pass  # by another version, or damaged: the fingerprints have to do
        else:
            found, expected = {**of_run, **found}, {**_seen(recipe), **expected}
    return differences(found, expected)


def _seen(recipe: Recipe) -> Mapping[str, Any]:
    """The configuration that the fingerprint covers."""
    values = recipe.config.model_dump()
    for key in UNSEEN:
        section, _, name = key.partition(".")
        del values[section][name]
    return values


def require_same_inputs(out: Path, inputs: Sequence[Input], *, needed: bool) -> None:
    """ArtifactError unless a run goes on from what it began from, which `needed` to be named again or not."""
    manifest, _ = read_manifest(out)
    began, given = (", ".join(each.id for each in some) for some in (manifest.inputs, inputs))
    if began != given and (given or needed):
        raise ArtifactError(
            f"{out}: began from {began or 'nothing'}, asked to go on from {given or 'nothing'}",
            "go on from the artifact it began with, named by the same option",
        )
    of_then = {each.id: each.manifest_sha256 for each in manifest.inputs}
    if changed := [each.id for each in inputs if each.manifest_sha256 != of_then[each.id]]:
        raise ArtifactError(
            f"{out}: began from {', '.join(changed)}, which has changed since (trained for longer, perhaps)",
            "go on from a copy of what it was, or start a new run with --out",
        )
