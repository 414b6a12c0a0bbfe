"""What two runs have to share to be the same run, bit for bit; and a kill without a process to lose."""

import random
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from marl_sale.artifacts.reader import Artifact, checkpoint_steps
from marl_sale.artifacts.store import Run
from marl_sale.data.replay import Replay
from marl_sale.envs._load import describe
from marl_sale.errors import MarlSaleError
from marl_sale.observer import Silent
from marl_sale.stages._artifacts import recipe_of
from marl_sale.stages._replay_files import REPLAY, ReplayFiles

Flat = dict[str, Any]


def contents(out: Path) -> Flat:
    """Everything of a finished run but clocks, dates and how its replay is cut into files; by name."""
    artifact = Artifact.open(out, kind=("agent", "world-model"))
    assert artifact.verify() == []
    found: Flat = {"counters": artifact.manifest.counters, "checkpoints": artifact.checkpoints()}
    for path in sorted((out / "metrics").glob("*.jsonl")):
        found[path.name] = artifact.rows(f"metrics/{path.name}")
    if artifact.manifest.kind == "world-model":
        found["report"] = artifact.json("report")
        found |= artifact.tensors("weights/world_model")
    else:
        for which in ("latest", "best"):
            checkpoint = artifact.checkpoint(which)
            for name in ("weights", "state"):
                tensors = checkpoint.tensors(name)
                found |= {f"{which} {name} {key}": value for key, value in tensors.items()}
            state = checkpoint.json("state")
            segments = state.pop("segments")
            found |= {f"{which} {key}": value for key, value in state.items()}
            if which == "latest":
                found |= {f"replay {key}": value for key, value in _replay(artifact, segments).items()}
    return {name: _timeless(value) for name, value in found.items()}


def _replay(artifact: Artifact, segments: list[dict[str, Any]]) -> dict[str, Tensor]:
    config = recipe_of(artifact).config
    replay = Replay(
        describe(config.env),
        config.replay.capacity_episodes,
        bootstrap_at_time_limit=False,
        observations=getattr(torch, config.replay.observations),
    )
    ReplayFiles(artifact.path / REPLAY, segments).load(replay)
    return {"added": torch.tensor(replay.added), **replay.newest(len(replay)).to_tensors()}


def _timeless(value: Any) -> Any:
    if isinstance(value, Mapping):
        clocks = ("seconds", "time_environment", "time_acting", "time_learning", "time_evaluation")
        return {key: _timeless(inner) for key, inner in value.items() if key not in clocks}
    return [_timeless(item) for item in value] if isinstance(value, list) else value


def differing(a: Flat, b: Flat) -> list[str]:
    """Names of what the two do not share."""

    def equal(x: Any, y: Any) -> bool:
        if isinstance(x, Tensor) and isinstance(y, Tensor):
            return x.dtype == y.dtype and torch.equal(x, y)
        return type(x) is type(y) and bool(x == y)

    return [name for name in {**a, **b} if name not in a or name not in b or not equal(a[name], b[name])]


class Killed(BaseException):
    """Stands for SIGKILL: nothing of the run may react to it."""


@contextmanager
def without_last_words(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Inside, a run that is left writes nothing more, as if its process had been killed."""

    def left(run: Run, *_: object) -> None:
        for stream in run._streams.values():
            with suppress(MarlSaleError):
                stream.close()
        run._release()

    with monkeypatch.context() as patched:
        patched.setattr(Run, "__exit__", left)
        with pytest.raises(Killed):
            yield


class KillAt(Silent):
    """Kills once `reached` says so of progress or of a row, and work would be lost."""

    def __init__(self, out: Path, reached: Callable[[int], bool]) -> None:
        self.out, self.reached = out, reached

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        if self.reached(done) and max(checkpoint_steps(self.out), default=0) < done:
            raise Killed


def disturb(seed: int) -> None:
    """Put every random generator that a process shares somewhere else: none of them may decide a result."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 — the legacy one is the shared one
    torch.manual_seed(seed)
