"""Where a stage writes when it is not told where, and which artifacts lie below a folder."""

import hashlib
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from marl_sale.artifacts.manifest import read_manifest
from marl_sale.artifacts.reader import Artifact, find_artifacts
from marl_sale.config.recipe import Recipe
from marl_sale.errors import ArtifactError
from marl_sale.stages._artifacts import recipe_of

RESULTS = Path("results")
PLOTTED = ("agent", "evaluation")
"""Kinds of artifact that a plot is made from."""


def default_out(recipe: Recipe, stage: str, seed: int) -> Path:
    """`results/<recipe>/<stage>/seed<k>-<first 8 digits of the fingerprint>`."""
    return RESULTS / _safe(recipe.name) / stage / f"seed{seed}-{recipe.fingerprint[:8]}"


def default_eval_out(
    artifact: Artifact, step: int, seed: int, episodes: int | None, backend: str | None = None
) -> Path:
    """The agent's default folder with `eval` as stage, its id, the checkpoint and the episodes appended.

    The id, as two agents may share recipe and seed; the checkpoint by its env steps, so that an agent that
    trains on can be tested again. A seed other than 0 chooses another bank of evaluation episodes, and is
    appended too, as is a backend that was asked for. Raises ArtifactError where the agent cannot be read.
    """
    recipe = recipe_of(artifact)
    count = episodes or recipe.config.evaluation.episodes
    bank = f"-bank{seed}" if seed else ""
    played_in = f"-{backend}" if backend else ""
    trained = default_out(recipe, "eval", artifact.manifest.seed)
    who = artifact.manifest.id.removeprefix("agent-")[:10]
    return trained.with_name(f"{trained.name}-{who}-{step}steps-{count}episodes{bank}{played_in}")


def default_random_out(recipe: Recipe, seed: int, episodes: int | None, backend: str | None = None) -> Path:
    """Where random play on a recipe's task goes; a backend that was asked for is appended.

    The fingerprint, as a recipe of the user's own may have changed since its name was last read.
    """
    count = episodes or recipe.config.evaluation.episodes
    played_in = f"-{backend}" if backend else ""
    name = f"random-{recipe.fingerprint[:8]}-{count}episodes-bank{seed}{played_in}"
    return RESULTS / _safe(recipe.name) / "eval" / name


def default_plot_out(runs: Iterable[Path], x: str, seed: int) -> Path:
    """A name of its own for each set of runs as they are now, x axis and seed. Raises ArtifactError."""
    parts = [x, str(seed), *sorted(map(_state, runs))]
    return RESULTS / "plots" / hashlib.sha256("\n".join(parts).encode()).hexdigest()[:8]


def _state(run: Path) -> str:
    """What changes whenever there is more to draw. A run under way has new rows before a new manifest."""
    manifest, digest = read_manifest(run)
    rows = sorted((run / "metrics").glob("*.jsonl")) if manifest.status == "running" else []
    return " ".join([digest, *(str(file.stat().st_size) for file in rows)])


def runs_below(paths: Sequence[Path]) -> tuple[list[Path], set[Path]]:
    """The agents and evaluations named, or at any depth below a folder named, each once, in the order given;
    and which of them were not named.

    An artifact named itself is taken whatever it is: its reader says what is wrong with it. Raises
    ArtifactError for a folder without any, or with a damaged artifact.
    """
    found: dict[Path, None] = {}
    named: set[Path] = set()
    for path in paths:
        below = list(find_artifacts(path))
        if below == [path]:
            runs = below
            named.add(path)
        else:
            runs = [run for run in below if read_manifest(run)[0].kind in PLOTTED]
        if not runs:
            raise ArtifactError(
                f"{path}: no agent or evaluation here or below",
                "marl-sale train makes one; marl-sale runs ls shows the artifacts there are",
            )
        found.update(dict.fromkeys(runs))
    return list(found), found.keys() - named


def finished_seconds(recipe: Recipe, stage: str, kind: str) -> float | None:
    """Mean duration of the finished runs of exactly this recipe in their default place; None without any."""
    seconds = []
    for path in find_artifacts(default_out(recipe, stage, 0).parent):
        try:
            manifest = Artifact.open(path, kind=kind).manifest
        except ArtifactError:
            continue
        if manifest.fingerprint == recipe.fingerprint and "seconds" in manifest.counters:
            seconds.append(manifest.counters["seconds"])
    return sum(seconds) / len(seconds) if seconds else None


def _safe(name: str) -> str:
    """A recipe's name as folders. It may come out of an artifact of unknown origin, so it must not climb."""
    parts = [re.sub(r"[^A-Za-z0-9._+-]", "-", part).lstrip(".") for part in name.split("/")]
    return "/".join(part[:128] for part in parts if part) or "unnamed"
