"""Agent and evaluation artifacts as a figure or a table needs them: read and checked."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import UnionType
from typing import Any

import numpy as np
from jaxtyping import Float64

from marl_sale.analysis.curves import SeedCurve, seed_curve
from marl_sale.artifacts.manifest import Input, Manifest
from marl_sale.artifacts.reader import Artifact, standing
from marl_sale.config import strict_yaml
from marl_sale.config.library import flatten
from marl_sale.errors import ArtifactError, ConfigError, UsageError

Rows = Sequence[Mapping[str, Any]]

STATUS = ("complete", "running", "interrupted", "failed")


@dataclass(frozen=True)
class Task:
    """What makes results comparable. Two that differ in any of it never share a panel or a rank.

    Sizes of observations are left out: an agent may see the same task scaled or cut.
    """

    family: str
    task: str
    backend: str
    n_agents: int
    n_actions: int
    episode_limit: int
    masks_actions: bool
    has_success: bool

    @property
    def name(self) -> str:
        return f"{self.family}/{self.task}"

    @property
    def protocol(self) -> str:
        """Masking useless actions makes a task far easier, so no name or title goes without this."""
        protocol = "masked actions" if self.masks_actions else "all actions available"
        return protocol if self.backend == "original" else f"{protocol}, {self.backend} backend"


Kind = tuple[str, Task, tuple[str, ...]]


@dataclass(frozen=True)
class TrainingRun:
    """One recipe trained with one seed."""

    id: str
    seed: int
    status: str
    folder: str
    recipe: str
    overrides: tuple[str, ...]
    fingerprint: str
    input_roles: tuple[str, ...]
    """Roles of the artifacts it started from, for instance a pre-trained world model."""
    algorithm: str
    settings: Mapping[str, Any]
    """Dotted key → value of its whole configuration."""
    evaluation_period: int
    log_period: int
    task: Task
    train: Rows
    evaluation: Rows
    as_input: Input
    notes: tuple[str, ...]
    """What its manifest says that is worth knowing: with what it went on, that it went back."""

    @property
    def kind(self) -> Kind:
        """Runs that differ in nothing of it are seeds of one recipe."""
        return self.fingerprint, self.task, self.input_roles

    def curve(self, stream: str, x: str, y: str) -> SeedCurve | None:
        """Column `y` over `x` of the stream "train" or "evaluation". ArtifactError where it is damaged."""
        try:
            return seed_curve(self.id, self.seed, self.train if stream == "train" else self.evaluation, x, y)
        except (ValueError, OverflowError) as error:
            raise ArtifactError(f"{self.folder}/metrics/{stream}.jsonl: damaged: {error}") from None

    def reached(self, column: str) -> float:
        """Largest value of `env_steps` or `seconds` in any row."""
        curves = [self.curve(stream, column, column) for stream in ("train", "evaluation")]
        return max((float(curve.x[-1]) for curve in curves if curve is not None), default=0.0)


@dataclass(frozen=True)
class EvaluationRun:
    """The greedy episodes of one agent, or those of random play."""

    id: str
    agent: str
    """Id of the agent artifact; empty for random play."""
    checkpoint: int | None
    """Env steps the agent had been trained for; None for random play."""
    bank: int
    """Bank of evaluation seeds; 0 is the standard one."""
    recipe: str
    task: Task
    returns: Float64[np.ndarray, " episodes"]
    successes: int | None
    """None where the family defines no success."""
    as_input: Input


def read(
    paths: Sequence[Path], *, below: Collection[Path] = ()
) -> tuple[list[TrainingRun], list[EvaluationRun], list[str]]:
    """The agents and the evaluations among the artifacts at `paths`, and what was left out.

    Agents need not be complete, nor have ended well: without those that failed, the others would be the
    survivors. Of `below`, the paths that nobody named, evaluations that are not finished, agents that have no
    evaluation yet and unfinished ones that were made again to the end are left out, and said.

    Raises UsageError for an artifact given twice, ArtifactError for what cannot be drawn; both name all.
    """
    artifacts, left_out = [], []
    for path in paths:
        found = Artifact.open(path, kind=("agent", "evaluation"), status=STATUS)
        if found.manifest.kind == "evaluation" and found.manifest.status != "complete":
            if path in below:
                left_out.append(f"{found.manifest.id} is not finished ({found.manifest.status}): left out")
                continue
            found = Artifact.open(path, kind="evaluation")  # refused: half of one would be a biased sample
        artifacts.append(found)
    seen: dict[str, Artifact] = {}
    twice = []
    for artifact in artifacts:
        first = seen.setdefault(artifact.manifest.id, artifact)
        if first is not artifact:
            twice.append(f"{artifact.path}: {artifact.manifest.id} is given twice (also as {first.path})")
    if twice:
        raise UsageError("\n".join(twice), "name each run once: a repeated run would count as another seed")
    agents, empty = [], []
    for artifact in (artifact for artifact in artifacts if artifact.manifest.kind == "agent"):
        run = _training_run(artifact)
        if run.curve("evaluation", "env_steps", "episode_return") is not None:
            agents.append(run)
        elif artifact.path in below:
            left_out.append(
                f"{run.id} ({run.recipe}, seed {run.seed}, {run.status}) has no evaluation yet: left out"
            )
        else:
            empty.append(run.folder)
    whole = {(run.kind, run.seed): run.id for run in agents if run.status == "complete"}
    for run in [run for run in agents if run.status != "complete" and Path(run.folder) in below]:
        if again := whole.get((run.kind, run.seed)):
            agents.remove(run)
            left_out.append(f"{run.id} ({run.status}) was made again to the end ({again}): left out")
    evaluations = [_evaluation_run(artifact) for artifact in artifacts if artifact.manifest.kind != "agent"]
    problems = [f"{folder}: no evaluation in it yet: nothing to draw" for folder in empty]
    if problems or (left_out and not agents and not evaluations):
        raise ArtifactError(
            "\n".join([*problems, *left_out]),
            "train longer (train.env_steps ≥ evaluation.period), continue it with marl-sale train --resume, "
            "or leave it out",
        )
    return agents, evaluations, left_out


def _task(artifact: Artifact) -> Task:
    spec = artifact.manifest.env_spec or {}
    try:
        # Manifests are written from an EnvSpec; what is missing or of another type is damage.
        return Task(**{name: _typed(spec[name], kind) for name, kind in Task.__annotations__.items()})
    except (KeyError, TypeError) as error:
        raise ArtifactError(f"{artifact.path}: damaged: env_spec in its manifest: {error}") from None


def _typed(value: object, kind: type | UnionType) -> Any:
    if not isinstance(value, kind) or (isinstance(value, bool) and kind not in (bool, bool | None)):
        raise TypeError(f"{value!r} is no {kind}")
    return value


def _setting(artifact: Artifact, settings: Mapping[str, Any], key: str, kind: type) -> Any:
    """A value of an artifact's config.yaml. Read leniently: an older version's recipe had fewer keys."""
    value = settings.get(key)
    if type(value) is not kind:
        raise ArtifactError(f"{artifact.path}: damaged: no {key} in its config.yaml")
    return value


def _period(artifact: Artifact, settings: Mapping[str, Any], key: str) -> int:
    period: int = _setting(artifact, settings, key, int)
    if period < 1:
        raise ArtifactError(f"{artifact.path}: damaged: {key} is {period} in its config.yaml")
    return period


def _training_run(artifact: Artifact) -> TrainingRun:
    manifest: Manifest = artifact.manifest
    if manifest.fingerprint is None or artifact.config_text is None:
        raise ArtifactError(f"{artifact.path}: damaged: an agent without a recipe")
    try:
        config = strict_yaml.parse(artifact.config_text, str(artifact.path / "config.yaml")).value
        settings = flatten(config) if isinstance(config, dict) else {}
    except ConfigError as error:
        raise ArtifactError(f"{artifact.path}: damaged: {error.what}") from error
    return TrainingRun(
        id=manifest.id,
        seed=manifest.seed,
        status=standing(artifact.path, manifest),
        folder=artifact.path.as_posix(),
        recipe=manifest.recipe,
        overrides=manifest.overrides,
        fingerprint=manifest.fingerprint,
        input_roles=tuple(sorted({entry.role for entry in manifest.inputs})),
        algorithm=_setting(artifact, settings, "algorithm", str),
        settings=settings,
        evaluation_period=_period(artifact, settings, "evaluation.period"),
        log_period=_period(artifact, settings, "train.log_period"),
        task=_task(artifact),
        train=_stream(artifact, "train"),
        evaluation=_stream(artifact, "evaluation"),
        as_input=artifact.as_input("agent"),
        notes=tuple(manifest.notes),
    )


def _stream(artifact: Artifact, name: str) -> Rows:
    """Rows of a metrics stream; none where the run ended (or was killed) before it began."""
    file = f"metrics/{name}.jsonl"
    if file not in artifact.manifest.files and not (artifact.path / file).exists():
        return []
    return artifact.rows(f"metrics/{name}")


def _evaluation_run(artifact: Artifact) -> EvaluationRun:
    rows, summary = artifact.rows("episodes"), artifact.json("report")
    try:
        random = summary["policy"] == "random"
        checkpoint = None if random else _typed(summary["checkpoint"], int)
        returns = np.array([float(_typed(row["episode_return"], int | float)) for row in rows])
        wins = [_typed(row["success"], bool | None) for row in rows]
    except (KeyError, TypeError, OverflowError) as error:
        raise ArtifactError(f"{artifact.path}: damaged: episodes.jsonl or report.json: {error}") from None
    if not rows:
        raise ArtifactError(f"{artifact.path}: no episode in it", "make it again: marl-sale eval")
    agents = [entry.id for entry in artifact.manifest.inputs if entry.role == "agent"]
    known = all(win is not None for win in wins)
    played = "random play" if random else artifact.manifest.recipe
    return EvaluationRun(
        id=artifact.manifest.id,
        agent=agents[0] if agents else "",
        checkpoint=checkpoint,
        bank=artifact.manifest.seed,
        recipe=" ".join([played, *artifact.manifest.overrides]),
        task=_task(artifact),
        returns=returns,
        successes=sum(map(bool, wins)) if known else None,
        as_input=artifact.as_input("evaluation"),
    )
