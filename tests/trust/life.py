"""A representative life of artifacts, and what must hold of their folders whenever it is cut short.

A training run with its metrics, replay, checkpoints and log; an evaluation; a report with pictures; a run
that diverges and leaves its bundle. They are written by what the stages use. Only the work is simpler:
episodes are functions of their number, so that every life ends with the same content.
"""

import shutil
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import torch

from marl_sale.algorithms._load import build
from marl_sale.algorithms.qmix import Qmix
from marl_sale.artifacts.manifest import MANIFEST, Status
from marl_sale.artifacts.reader import Artifact, Checkpoint
from marl_sale.artifacts.store import Run
from marl_sale.artifacts.weights import read_tensors
from marl_sale.config.recipe import Recipe
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.errors import MarlSaleError, NotFiniteError
from marl_sale.observer import Observer, Silent
from marl_sale.seeding import torch_generator
from marl_sale.spec import EnvSpec
from marl_sale.stages._progress import Averages, Counters, Progress
from marl_sale.stages._replay_files import ReplayFiles
from marl_sale.stages.diverged import TooManySkippedError, keep, noise_state
from marl_sale.stages.train import EVALUATION_COLUMNS, REPLAY, Training

Acknowledge = Callable[[str], None]
"""Told what has just been reported as saved: `agent 3` (its checkpoint), or `agent` (the whole artifact)."""

SPEC = EnvSpec(
    family="none",
    task="none",
    backend="none",
    n_agents=2,
    n_actions=3,
    obs_size=2,
    state_size=3,
    episode_limit=3,
    masks_actions=False,
    has_success=True,
)
SCORES = (1.0, 3.0, 2.0, None, 2.5)
"""Of the checkpoints: the second stays the best, those after it come and go."""
CAPACITY = 4
"""Episodes in the replay: it overflows in the third round, and segments of it go."""
ARTIFACTS = {"agent": "agent", "evaluation": "evaluation", "report": "report", "diverged": "agent"}
"""Folder and kind of what a life leaves."""


class Life:
    """Lives with one recipe. Called again on a folder where one was cut short, it goes on to the end."""

    def __init__(
        self, recipe: Recipe, *, rounds: int = len(SCORES), observer: Observer | None = None
    ) -> None:
        self.recipe, self.rounds = recipe, rounds
        self.observer: Observer = observer or Silent()

    def __call__(self, root: Path, acknowledge: Acknowledge) -> None:
        self._train(root / "agent", acknowledge)
        self._evaluate(root / "evaluation", acknowledge)
        self._report(root / "report", acknowledge)
        self._diverge(root / "diverged", acknowledge)

    # --- the four artifacts

    def _train(self, out: Path, acknowledge: Acknowledge) -> None:
        if _status(out) == "complete":
            return
        progress = self._progress()
        with self._started(out) as written:
            checkpoint = written.latest_checkpoint()
            files = progress.load(checkpoint, out / REPLAY) if checkpoint else ReplayFiles(out / REPLAY, [])
            counters = progress.counters
            written.prune(REPLAY, files.names)
            training = Training(self.recipe.config, written, progress, files, self.observer)
            while counters.env_steps < self.rounds:
                self._work(progress)
                training.log()
                row = dict.fromkeys(EVALUATION_COLUMNS, float(counters.env_steps))
                training.evaluation_rows.append(row)
                is_last = counters.env_steps == self.rounds
                training.checkpoint(SCORES[counters.env_steps - 1], is_last=is_last)
                if not training.saves_failed:
                    acknowledge(f"agent {counters.env_steps}")
            written.finish("complete", counters=asdict(counters))
        acknowledge("agent")

    def _evaluate(self, out: Path, acknowledge: Acknowledge) -> None:
        if _status(out) == "complete":
            return
        with self._again(out, "evaluation") as written:
            rows = written.rows("episodes", ["episode", "episode_return"])
            for episode in range(3):
                rows.append({"episode": episode, "episode_return": episode / 3})
            written.write_json("report", {"episode_return": 1 / 3})
            written.finish("complete", counters={"episodes": 3})
        acknowledge("evaluation")

    def _report(self, out: Path, acknowledge: Acknowledge) -> None:
        if _status(out) == "complete":
            return
        with self._again(out, "report") as written:
            for kind in ("png", "svg"):
                written.write_bytes(f"figures/curve.{kind}", kind.encode() * 50)
            written.write_text("figures/curve.csv", "x,y\n1,2\n")
            written.write_json("report", {"notes": []})
            written.write_text("table.md", "| a |\n")
            written.finish("complete", counters={"figures": 1})
        acknowledge("report")

    def _diverge(self, out: Path, acknowledge: Acknowledge) -> None:
        if _has_diverged(out):
            return
        progress = self._progress()
        cause = NotFiniteError("the gradient is not finite", first="batch.reward")
        with suppress(TooManySkippedError), self._started(out) as written:
            self._work(progress)
            if written.latest_checkpoint() is None:
                training = Training(
                    self.recipe.config, written, progress, ReplayFiles(out / REPLAY, []), self.observer
                )
                training.checkpoint(SCORES[0], is_last=True)
                acknowledge("diverged 1")
            batch = progress.replay.sample(2, progress.sampling)
            bad = TooManySkippedError(
                cause, batch.with_reward(batch.reward * float("nan")), noise_state(progress.algorithm), 2
            )
            keep(written, progress.algorithm, bad)
            raise bad
        if _has_diverged(out):
            acknowledge("diverged")

    # --- how they begin, and the work between

    def _progress(self) -> Progress:
        algorithm: Qmix = build(self.recipe.config, SPEC)
        replay = Replay(SPEC, CAPACITY, bootstrap_at_time_limit=False)
        return Progress(algorithm, replay, torch_generator(0, "replay"), Counters(), Averages())

    def _identity(self, kind: str) -> dict[str, Any]:
        return {
            "kind": kind,
            "fingerprint": self.recipe.fingerprint,
            "seed": 0,
            "env_spec": SPEC.to_dict(),
        }

    def _create(self, out: Path, kind: str) -> Run:
        return Run.create(
            out,
            **self._identity(kind),
            recipe=self.recipe.name,
            overrides=self.recipe.overrides,
            config_text=self.recipe.text,
            inputs=(),
            command="test",
            device="cpu",
        )

    def _started(self, out: Path) -> Run:
        """Continued where there is something to continue, as with --resume; else new."""
        return Run.resume(out, **self._identity("agent")) if _status(out) else self._create(out, "agent")

    def _again(self, out: Path, kind: str) -> Run:
        """What cannot be continued is made again, in a new folder."""
        if _status(out):
            shutil.rmtree(out)
        return self._create(out, kind)

    def _work(self, progress: Progress) -> None:
        """Two episodes, an update, and their figures."""
        counters = progress.counters
        progress.replay.add(_episodes(counters.episodes))
        counters.episodes += 2
        counters.env_steps += 1
        batch = progress.replay.sample(2, progress.sampling)
        counters.updates += 1
        progress.averages.add(progress.algorithm.update(batch))


def _episodes(first: int) -> Episodes:
    """Episodes `first` and `first + 1`."""
    generator = torch.Generator().manual_seed(first)
    empty = Episodes.empty(SPEC, 2)
    floats = {
        name: torch.randn(value.shape, generator=generator)
        for name, value in empty.tensors().items()
        if value.is_floating_point()
    }
    return Episodes(
        **floats,
        avail_actions=torch.ones_like(empty.avail_actions),
        actions=torch.randint(SPEC.n_actions, empty.actions.shape, generator=generator).to(
            empty.actions.dtype
        ),
        terminated=torch.tensor([True, False]),
        success=torch.tensor([False, True]),
        length=torch.tensor([2, 3]),
    )


def _status(out: Path) -> str | None:
    return _open(out).manifest.status if (out / MANIFEST).exists() else None


def _has_diverged(out: Path) -> bool:
    """Ended as it is meant to; a disk that refuses also fails it, and then it goes on."""
    if _status(out) != "failed":
        return False
    return any(note.startswith(TooManySkippedError.__name__) for note in _open(out).manifest.notes)


def _open(out: Path) -> Artifact:
    return Artifact.open(out, kind=ARTIFACTS[out.name], status=get_args(Status))


# --- what must hold


def content(root: Path) -> dict[str, Any]:
    """All that a finished life is meant to leave, without clocks, identities, and cuts of the replay."""
    found: dict[str, Any] = {}
    for name in ARTIFACTS:
        artifact = _open(root / name)
        found[name, "problems"] = artifact.verify()
        found[name, "status"] = artifact.manifest.status
        for file, entry in artifact.manifest.files.items():
            if not file.startswith((REPLAY, "checkpoints/")):
                found[name, file] = entry.sha256
        for step in artifact.checkpoints():
            found[name, step] = checkpoint_content(artifact.checkpoint(step))
        if artifact.checkpoints():
            latest = artifact.checkpoint()
            files = ReplayFiles(root / name / REPLAY, latest.json("state")["segments"])
            replay = Replay(SPEC, CAPACITY, bootstrap_at_time_limit=False)
            files.load(replay)
            stored = replay.newest(len(replay)).to_tensors()
            found[name, "replay"] = {key: value.tolist() for key, value in stored.items()}
            found[name, "replay files"] = files.names == {path.name for path in files.folder.iterdir()}
    return found


def checkpoint_content(checkpoint: Checkpoint) -> dict[str, Any]:
    """Of one checkpoint: the hashes of its tensors and its state, as above."""
    state = {name: value for name, value in checkpoint.json("state").items() if name != "segments"}
    tensors = {
        name: entry.sha256 for name, entry in checkpoint.manifest.files.items() if name != "state.json"
    }
    return {**state, **tensors, "score": checkpoint.score}


def violations(
    root: Path, acknowledged: Iterable[str], whole: Path, names: Iterable[str] = tuple(ARTIFACTS)
) -> list[str]:
    """What is wrong with a life that was cut short after it `acknowledged` so much.

    `whole` is the folder of one that was not cut short: no file that counts may differ from it.
    """
    saved: dict[str, list[int]] = {name: [] for name in ARTIFACTS}
    finished = set[str]()
    for text in acknowledged:
        name, *step = text.split()
        if step:
            saved[name].append(int(step[0]))
        else:
            finished.add(name)
    problems: list[str] = []
    for name in names:
        try:
            problems += _violations(root / name, saved[name], name in finished, whole / name)
        except (MarlSaleError, OSError) as error:
            problems.append(f"{name}: {error}")
    return problems


def _violations(out: Path, saved: Sequence[int], is_finished: bool, whole: Path) -> Sequence[str]:
    if not (out / MANIFEST).exists():
        return [f"{out.name}: acknowledged, and gone"] if saved or is_finished else []
    artifact = _open(out)
    problems = artifact.verify()
    if is_finished and artifact.manifest.status not in ("complete", "failed"):
        problems.append(f"{out.name}: acknowledged as finished, and {artifact.manifest.status}")
    steps = artifact.checkpoints()
    if max(steps, default=0) < max(saved, default=0):
        problems.append(f"{out.name}: acknowledged {saved}, there is {steps}")
    if _best(artifact.checkpoint(step).score for step in steps) < _best(SCORES[step - 1] for step in saved):
        problems.append(f"{out.name}: the best of the acknowledged {saved} is gone, there is {steps}")
    if steps:
        latest = artifact.checkpoint()
        for segment in latest.json("state")["segments"]:
            name = f"{segment['first']:012d}-{segment['count']}.safetensors"
            read_tensors(out / REPLAY / name, sha256=segment["sha256"])
        for name, size in latest.manifest.offsets.items():
            if (out / name).read_bytes()[:size] != (whole / name).read_bytes()[:size]:
                problems.append(f"{out.name}: {name} is not what it was at the latest checkpoint")
    return problems


def _best(scores: Iterable[float | None]) -> float:
    return max((score for score in scores if score is not None), default=0.0)
