"""What a training run has done so far, and everything needed to go on from there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from marl_sale.algorithms.qmix import Qmix
from marl_sale.artifacts.reader import Checkpoint
from marl_sale.artifacts.writer import CheckpointWriter
from marl_sale.data.replay import Replay
from marl_sale.seeding import torch_generator
from marl_sale.stages._artifacts import sound_state
from marl_sale.stages._learner import below, learner_tensors, load_learner
from marl_sale.stages._replay_files import ReplayFiles
from marl_sale.stages.diverged import RATE_AFTER_ROLLBACK, Guard

_AGENT = "learner.agent."
"""Names of what acts: in a file of its own, which is all that executing a policy takes."""


@dataclass
class Counters:
    """What has been done, and where the time went (seconds)."""

    env_steps: int = 0
    episodes: int = 0
    updates: int = 0
    updates_skipped: int = 0
    """Of these, left out because their gradient was not finite."""
    imagined_steps: int = 0
    rounds_replayed: int = 0
    """Rounds of episodes, of training and evaluation, played again because an environment crashed."""
    seconds: float = 0.0
    time_environment: float = 0.0
    time_acting: float = 0.0
    time_learning: float = 0.0
    time_evaluation: float = 0.0


def _counters(values: dict[str, int | float]) -> Counters:
    """Counters as they were saved. TypeError where one is missing or of another type."""
    kinds = {name: type(value) for name, value in asdict(Counters()).items()}
    if {name: type(value) for name, value in values.items()} != kinds:
        raise TypeError("counters are not those of a run")
    return Counters(**values)  # type: ignore[arg-type]


@dataclass
class Averages:
    """Means over what happened since the last row of the training metrics."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, float | Tensor]) -> None:
        scalars = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        # All at once: each reading waits until the device has done what it was told.
        read = torch.stack(list(scalars.values())).tolist() if scalars else []
        for name, value in {**values, **dict(zip(scalars, read, strict=True))}.items():
            self.sums[name] = self.sums.get(name, 0.0) + float(value)
            self.counts[name] = self.counts.get(name, 0) + 1

    def mean(self, name: str) -> float | None:
        return self.sums[name] / self.counts[name] if self.counts.get(name) else None

    def clear(self) -> None:
        self.sums.clear()
        self.counts.clear()


@dataclass
class Progress:
    """The whole state of a training run, apart from the replay's episodes (see `ReplayFiles`)."""

    algorithm: Qmix
    replay: Replay
    sampling: torch.Generator
    counters: Counters
    averages: Averages
    best_score: float | None = None
    """Highest evaluated return of weights that were saved: better ones get a checkpoint."""
    evaluation: dict[str, float | None] = field(default_factory=dict)
    """Row of the latest evaluation."""
    guard: Guard = field(default_factory=Guard)
    rollbacks: int = 0
    """Returns to a checkpoint because too many updates had to be left out."""

    def save(self, writer: CheckpointWriter, files: ReplayFiles, *, scheduled: bool) -> None:
        """Write a checkpoint: the agents' weights, the rest of the learner, and its state."""
        tensors = learner_tensors(self.algorithm, self._generators())
        agent = below(_AGENT, tensors)
        writer.write_tensors("weights", agent)
        rest = {name: value for name, value in tensors.items() if not name.startswith(_AGENT)}
        writer.write_tensors("state", rest)
        writer.write_json(
            "state",
            {
                "counters": asdict(self.counters),
                "averages": asdict(self.averages),
                "best_score": self.best_score,
                "evaluation": self.evaluation,
                "guard": asdict(self.guard),
                "rollbacks": self.rollbacks,
                "segments": files.save(self.replay, drop=scheduled),
            },
        )

    def load(self, checkpoint: Checkpoint, replay_folder: Path) -> ReplayFiles:
        """Go on from a checkpoint. ArtifactError where it does not hold what a run of this recipe saves."""
        with sound_state(checkpoint.path):
            return self._load(checkpoint, replay_folder)

    def _load(self, checkpoint: Checkpoint, replay_folder: Path) -> ReplayFiles:
        state = checkpoint.json("state")
        weights = checkpoint.tensors("weights", self.algorithm.agent.state_dict())
        agent = {f"{_AGENT}{name}": value for name, value in weights.items()}
        load_learner({**checkpoint.tensors("state"), **agent}, self.algorithm, self._generators())
        self.counters = _counters(state["counters"])
        self.averages = Averages(**state["averages"])
        self.best_score, self.evaluation = state["best_score"], state["evaluation"]
        self.algorithm.updates = self.counters.updates - self.counters.updates_skipped
        self.guard, self.rollbacks = Guard(**state["guard"]), state["rollbacks"]
        self._set_rate()
        files = ReplayFiles(replay_folder, state["segments"])
        files.load(self.replay)
        return files

    def roll_back(self, number: int, seed: int) -> None:
        """After `load`: go on with a lower learning rate and other batches than the times before."""
        self.rollbacks = number
        self.guard = Guard()
        self.sampling = torch_generator(seed, f"replay after rollback {self.rollbacks}")
        self._set_rate()

    def _set_rate(self) -> None:
        for group in self.algorithm.optimiser.param_groups:
            group["lr"] = self.algorithm.config.optimiser.learning_rate * RATE_AFTER_ROLLBACK**self.rollbacks

    def _generators(self) -> dict[str, torch.Generator]:
        return {"sampling": self.sampling, **self.algorithm.generators()}
