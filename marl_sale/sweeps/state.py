"""What has become of a step: read from the artifact it writes, and believed only when every hash agrees."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from marl_sale.artifacts.manifest import MANIFEST, Status, differences, read_manifest
from marl_sale.artifacts.reader import Artifact, checkpoint_steps
from marl_sale.artifacts.sweep import Cell, Step
from marl_sale.errors import ArtifactError, UnreachableError


@dataclass(frozen=True)
class Found:
    """What lies where a step writes."""

    state: Literal["nothing", "unfinished", "done", "damaged", "unreachable"]
    checkpoint: int = -1
    """Latest committed step: a try that moved it was not in vain."""
    problem: str = ""
    """Of a damaged one: what is wrong, with what to do."""


def look(folder: Path, cell: Cell, step: Step) -> Found:
    """Whether `step` of a cell of the sweep in `folder` is done: complete, of this configuration, intact."""
    out = folder / step.out
    if not (out / MANIFEST).exists():
        return Found("nothing")
    try:
        artifact = Artifact.open(out, kind=step.kind, status=get_args(Status))
        manifest = artifact.manifest
        wanted = {"fingerprint": cell.fingerprint, "seed": cell.seed}
        problems = differences({name: getattr(manifest, name) for name in wanted}, wanted)
        if not problems and manifest.status != "complete":
            return Found("unfinished", max(checkpoint_steps(out), default=-1))
        problems = problems or artifact.verify()
    except UnreachableError as error:
        return Found("unreachable", problem=error.what)
    except ArtifactError as error:
        problems = [error.what]
    if problems:
        more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
        return Found("damaged", problem=f"{problems[0]}{more}; move {out} away to have it made again")
    return Found("done")


@dataclass(frozen=True)
class Pace:
    """How far a training run is."""

    env_steps: int
    seconds: float


def pace_of(out: Path) -> Pace | None:
    """From the latest row of a run's training metrics; None before the first."""
    try:
        artifact = Artifact.open(out, kind="agent", status=get_args(Status))
        rows = artifact.rows("metrics/train")
        return Pace(int(rows[-1]["env_steps"] or 0), float(rows[-1]["seconds"] or 0)) if rows else None
    except (ArtifactError, KeyError, TypeError, ValueError):
        return None  # not there yet, or about to be replaced: the figures are for people


def digest(out: Path) -> str | None:
    """sha256 (hex) of a finished artifact's manifest; None where it cannot be read."""
    try:
        return read_manifest(out)[1]
    except ArtifactError:
        return None
