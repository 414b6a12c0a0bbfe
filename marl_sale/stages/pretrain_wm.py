"""pretrain-wm: fit world model and embeddings on a fixed set of episodes, and say how good they are.

Steps of its checkpoints: episodes gathered, then epochs on top.
"""

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import torch

from marl_sale.algorithms._load import build_pretraining
from marl_sale.artifacts.manifest import MANIFEST, Input
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.config.recipe import Recipe
from marl_sale.config.schema import Config
from marl_sale.data.collect import Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay, replay_of
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, RunExistsError, StoppedError, UsageError
from marl_sale.nn.agent import Agent
from marl_sale.observer import Observer
from marl_sale.seeding import episode_seeds, torch_generator
from marl_sale.spec import EnvSpec, VectorEnv
from marl_sale.stages import preflight
from marl_sale.stages._artifacts import load_policy, recipe_of, require_same_task, sound_state
from marl_sale.stages._fitting import Fitting, report, require_readable, split_episodes, summary
from marl_sale.stages._machine import Due, choose_device
from marl_sale.stages._replay_files import REPLAY, ReplayFiles
from marl_sale.stages._runs import CONTINUE, SAME_COMMAND, begin, progress_of, require_vacant
from marl_sale.stages.result import StageResult
from marl_sale.stop import StopFlag, stop_on_signal


def gather(
    env: VectorEnv, policy: Agent | None, epsilon: float, replay: Replay, seed: int, observer: Observer
) -> Iterator[bool]:
    """Fill a replay with random available actions, or ε-greedy ones of a policy.

    Yields after each round of episodes whether it is full.
    """
    spec, count = env.spec, replay.capacity
    observer.start("gather", count, "episodes")
    while replay.added < count:
        first = replay.added
        noise = Exploration.of_episodes(spec, epsilon, seed, first, env.num_envs, "pretraining")
        episodes = play(env, policy, episode_seeds(seed, first, env.num_envs, "pretraining"), noise)
        replay.add(episodes.take(slice(0, count - first)))
        observer.progress(replay.added, {"episode_return": float(episodes.episode_return.mean())})
        yield replay.added == count


def require_possible(recipe: Recipe, policy: Path | None, dataset: Path | None) -> None:
    """UsageError where the recipe has nothing to pre-train, or episodes are asked for twice."""
    config = recipe.config
    if not (config.with_world_model or config.with_sale):
        raise UsageError(
            f"{recipe.name}: has neither world model nor SALE, so there is nothing to pre-train",
            "use the mmsa recipe of the task",
        )
    if policy is not None and dataset is not None:
        raise UsageError("--policy and --dataset exclude each other: a dataset is not gathered again")


def require_room(
    recipe: Recipe,
    out: Path,
    save_dataset: Path | None,
    seed: int,
    spec: EnvSpec,
    *,
    resume: bool,
    command: str = SAME_COMMAND,
) -> None:
    """RunExistsError where either folder cannot be written in, UsageError where one is in the other's way:
    before the first is taken, as a run that fails at the second leaves it behind.
    """
    if not resume:
        require_vacant(out, "world-model", recipe, seed, spec, command)
    if save_dataset is None:
        return
    ours, theirs = out.resolve(), save_dataset.resolve()
    if theirs in (ours, *ours.parents) or ours in theirs.parents:
        raise UsageError(
            f"--save-dataset {save_dataset}: is, contains, or lies in the folder of the world model ({out})",
            "name another folder for the dataset",
        )
    if not (resume and (save_dataset / MANIFEST).exists()):
        require_vacant(save_dataset, "dataset", recipe, seed, spec, command, "--save-dataset")


class Pretrain:
    """One run: gathers, fits, and saves both on the way."""

    def __init__(self, config: Config, written: Run, observer: Observer, seed: int, stop: StopFlag) -> None:
        self.config, self.written, self.observer = config, written, observer
        self.seed, self.stop = seed, stop
        self.due = Due(config.train.checkpoint_minutes)
        self.checkpoint = written.latest_checkpoint()
        self.state: dict[str, Any] = {}
        if self.checkpoint is not None:
            self.state = self.checkpoint.json("state")
            observer.note(f"resumed {progress_of(self.checkpoint.counters)}")
        with sound_state(written.path):
            self.files = ReplayFiles(written.path / REPLAY, self.state.get("segments", []))
        written.prune(REPLAY, self.files.names)

    @property
    def figures(self) -> dict[str, Any] | None:
        """What the run reports, where nothing but the report was left to do."""
        return self.state.get("figures")

    def gather(self, env: VectorEnv, behaviour: Agent | None) -> Replay:
        """Episodes of random play or of a policy, those stored before first. StoppedError."""
        replay = Replay(env.spec, self.config.pretrain.episodes, bootstrap_at_time_limit=False)
        with sound_state(self.written.path):
            self.files.load(replay)
        epsilon = 1.0 if behaviour is None else self.config.exploration.finish
        for full in gather(env, behaviour, epsilon, replay, self.seed, self.observer):
            stopping = bool(self.stop)
            if full or stopping or self.due:
                self._save(replay.added, {"episodes": replay.added}, replay)
            if stopping:
                raise self._stopped(f"after {replay.added} episodes")
        return replay

    def fit(self, source: Replay, spec: EnvSpec, device: torch.device) -> dict[str, Any]:
        """Fit, write the weights, and return what the run reports. StoppedError."""
        fit = build_pretraining(self.config, spec, seed=self.seed, device=device)
        holdout, chunks = self.config.pretrain.holdout, self.config.replay
        chosen = torch_generator(self.seed, "holdout")
        data = split_episodes(source, holdout, chosen, chunks.chunk_length, chunks.burn_in)
        fitting = Fitting(fit, data, self.written, self.observer, self.seed)
        if self.checkpoint is not None and "fit" in self.state:
            with sound_state(self.checkpoint.path):
                fitting.load(self.checkpoint.tensors("fit"), self.state["fit"])
        for part_is_done in fitting.run():
            stopping = bool(self.stop)
            if part_is_done or stopping or self.due:
                counters = {"episodes": len(source), "epochs": fitting.epochs, "updates": fit.updates}
                self._save(len(source) + fitting.epochs, counters, fitting=fitting)
            if stopping:
                raise self._stopped(f"in epoch {fitting.epochs}")
        state = fit.mmsa.state_dict()
        weights = {name: state[name] for name in fit.mmsa.pretrained_names}
        fit.mmsa.load_pretrained(weights)  # report on what `train` starts from, where all copies are equal
        figures = {
            **fitting.figures(),
            **report(fit, data),
            "episodes": len(source),
            "env_steps": source.newest(len(source)).steps,
            "heldout_episodes": len(data.held_out),
        }
        self.written.write_tensors("weights/world_model", weights)
        self.written.write_json("report", figures)
        # From here on neither the episodes nor the optimiser are needed, and a finished artifact has neither.
        self._save(len(source) + fitting.epochs + 1, {}, figures=figures)
        return figures

    def _save(
        self,
        step: int,
        counters: Mapping[str, int],
        replay: Replay | None = None,
        fitting: Fitting | None = None,
        figures: Mapping[str, Any] | None = None,
    ) -> None:
        """A checkpoint of what is under way: gathering, fitting, or nothing but the end."""
        with self.written.checkpoint(step, counters=counters, score=None) as writer:
            state: dict[str, Any] = {"segments": [] if figures else self.files.save(replay)}
            if fitting is not None:
                state["fit"] = fitting.save(writer)
            if figures is not None:
                state["figures"] = dict(figures)
            writer.write_json("state", state)
        self.written.prune(REPLAY, () if figures else self.files.names)
        self.due.reset()

    def _stopped(self, when: str) -> StoppedError:
        return StoppedError(f"{self.written.path}: stopped by {self.stop.signal} {when}", CONTINUE)


def run(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: str,
    observer: Observer,
    command: str,
    policy: Path | None = None,
    dataset: Path | None = None,
    save_dataset: Path | None = None,
    resume: bool = False,
    allow_overcommit: bool = False,
) -> StageResult:
    """Gather (or read) episodes, fit, report; writes a world-model artifact.

    Raises UsageError where the recipe has nothing to pre-train, ArtifactError where policy or dataset do
    not fit the task, RunExistsError where `out` or `save_dataset` is in use, ResourceError where memory or
    disk will not do (unless `allow_overcommit`), StoppedError after a signal.
    """
    config = recipe.config
    require_possible(recipe, policy, dataset)
    where = choose_device(device, config.train.threads)
    env = make_env(config.env, config.train.num_envs)
    try:
        algorithm = build_pretraining(config, env.spec, device=where)
        require_readable(algorithm)
        stored = None if dataset is None else open_dataset(dataset, env.spec)[1]
        needs = preflight.pretraining(algorithm, saves_dataset=save_dataset is not None, stored=stored)
        preflight.require("pretrain-wm", needs, out, overcommit=allow_overcommit)
        source, behaviour, inputs = _source(policy, dataset, env.spec)
        require_room(recipe, out, save_dataset, seed, env.spec, resume=resume, command=command)
        start = partial(
            begin,
            recipe=recipe,
            seed=seed,
            spec=env.spec,
            inputs=inputs,
            command=command,
            device=str(where),
            keep="latest",
        )
        with ExitStack() as stack:
            # Both folders are taken before the long work begins.
            written = stack.enter_context(start(out, kind="world-model", resume=resume))
            saved = _dataset(start, save_dataset, resume=resume)
            if saved is not None:
                stack.enter_context(saved)
            stop = stack.enter_context(stop_on_signal())
            work = Pretrain(config, written, observer, seed, stop)
            figures = work.figures
            if figures is None:
                if source is None:
                    source = work.gather(env, behaviour)
                if saved is not None:
                    episodes = source.newest(len(source))
                    saved.write_tensors("episodes", episodes.to_tensors())
                    saved.finish("complete", counters={"episodes": len(source), "env_steps": episodes.steps})
                    observer.note(f"dataset saved to {save_dataset}")
                figures = work.fit(source, env.spec, where)
            counters = {name: figures[name] for name in ("episodes", "env_steps", "updates", "seconds")}
            written.finish("complete", counters=counters)
    finally:
        observer.finish()
        env.close()
    return StageResult.complete(out, "world-model", figures, summary(figures))


def _dataset(start: Callable[..., Run], out: Path | None, *, resume: bool) -> Run | None:
    """The dataset artifact to be written; None where none is asked for, or a resumed run has written it."""
    if out is None:
        return None
    try:
        return start(out, kind="dataset", resume=resume and (out / MANIFEST).exists())
    except RunExistsError:
        if resume:
            return None
        raise


def open_dataset(path: Path, spec: EnvSpec) -> tuple[Artifact, int]:
    """A dataset of this task, and how many episodes it says it has. Raises ArtifactError."""
    artifact = Artifact.open(path, kind="dataset")
    require_same_task(artifact, spec)
    try:
        return artifact, int(artifact.manifest.counters["episodes"])
    except KeyError:
        raise ArtifactError(f"{path}: damaged: its manifest does not count its episodes") from None


def _source(
    policy: Path | None, dataset: Path | None, spec: EnvSpec
) -> tuple[Replay | None, Agent | None, list[Input]]:
    """Stored episodes, or who is to play new ones (None: random actions)."""
    if dataset is not None:
        artifact, _ = open_dataset(dataset, spec)
        try:
            episodes = Episodes.from_tensors(spec, artifact.tensors("episodes"))
        except ValueError as error:
            raise ArtifactError(f"{dataset}: not episodes of this task: {error}") from error
        return replay_of(spec, episodes, bootstrap_at_time_limit=False), None, [artifact.as_input("dataset")]
    if policy is not None:
        artifact = Artifact.open(policy, kind="agent")
        require_same_task(artifact, spec)
        agent = load_policy(artifact.checkpoint("latest"), recipe_of(artifact).config, spec)
        return None, agent, [artifact.as_input("policy")]
    return None, None, []
