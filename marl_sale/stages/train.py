"""train: collect, learn, evaluate, checkpoint — until the recipe's env steps are used up."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import asdict
from functools import partial
from pathlib import Path
from time import perf_counter

import torch

from marl_sale.algorithms._load import build
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.algorithms.qmix import Qmix
from marl_sale.artifacts.manifest import Input
from marl_sale.artifacts.reader import Artifact, checkpoint_steps
from marl_sale.artifacts.store import Run
from marl_sale.config.recipe import Recipe
from marl_sale.config.schema import Config
from marl_sale.data.collect import Clock
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.envs._load import make_env
from marl_sale.errors import DiskFullError, NotFiniteError, StoppedError, UsageError
from marl_sale.functional.schedules import linear
from marl_sale.observer import Observer
from marl_sale.seeding import torch_generator
from marl_sale.spec import VectorEnv
from marl_sale.stages import preflight
from marl_sale.stages._artifacts import require_same_sections, require_same_task
from marl_sale.stages._machine import Due, choose_device
from marl_sale.stages._progress import Averages, Counters, Progress
from marl_sale.stages._readable import require_training
from marl_sale.stages._replay_files import REPLAY, ReplayFiles
from marl_sale.stages._runs import CONTINUE, begin
from marl_sale.stages.diverged import (
    MOST_ROLLBACKS,
    RATE_AFTER_ROLLBACK,
    TooManySkippedError,
    keep,
    noise_state,
)
from marl_sale.stages.evaluate import evaluate_policy, summarise
from marl_sale.stages.result import StageResult
from marl_sale.stages.rollouts import Actors, InProcess, Ordered, Rollouts, Round
from marl_sale.stop import StopFlag, stop_on_signal

EVALUATION_COLUMNS = (
    "env_steps",
    "episodes",
    "updates",
    "seconds",
    "evaluation_episodes",
    "episode_return",
    "episode_return_std",
    "episode_length",
    "win_rate",
)
FROM_NOTHING = (
    "no --world-model: world model and embeddings start from nothing, and agents may not learn"
    " (docs/results.md); marl-sale pretrain-wm makes one"
)
NOT_SYNC = "played by actors one round behind the weights (--no-sync): not repeatable where it was resumed"
MOST_FAILED_SAVES = 3
"""In a row, because the disk is full, before a run ends; space may be freed until then."""
REUSED_SECTIONS = (
    "agent.core",
    "agent.hidden_size",
    "agent.previous_action",
    "agent.agent_id",
    "sale.enabled",
    "sale.size",
    "sale.hidden_size",
    "sale.global_state",
    "world_model.enabled",
    "world_model.latent_size",
    "world_model.hidden_size",
    "world_model.action_embedding_size",
)
"""What a world model and the training that starts from it must agree on."""


def train_columns(algorithm: Qmix) -> tuple[str, ...]:
    """Columns of metrics/train.jsonl."""
    losses = tuple(f"loss_{name}" for name in algorithm.loss_names)
    learned = ("loss", *losses, *algorithm.noted_names, "grad_norm")
    return (*asdict(Counters()), "epsilon", *learned, "episode_return", "episode_length", "win_rate")


def collect(
    config: Config, rollouts: Rollouts, progress: Progress, seed: int, *, sync: bool = True
) -> Iterator[tuple[Episodes, float]]:
    """Rounds of ε-greedy episodes, one in each environment, without end; and their ε.

    `sync` False: the next one begins before the caller has learned from this one.
    """
    counters, explore = progress.counters, config.exploration
    clock = Clock(counters.time_environment, counters.time_acting)

    def order() -> tuple[Ordered, float]:
        epsilon = linear(explore.start, explore.finish, explore.anneal_env_steps, counters.env_steps)
        played = Round(seed, counters.episodes, config.train.num_envs, epsilon)
        return rollouts.order(played, progress.algorithm.agent), epsilon

    ordered = None
    while True:
        finish, epsilon = ordered or order()
        episodes = finish(clock)
        counters.time_environment, counters.time_acting = clock.environment, clock.acting
        counters.rounds_replayed, clock.replayed = counters.rounds_replayed + clock.replayed, 0
        counters.episodes += len(episodes)
        counters.env_steps += episodes.steps
        is_last = counters.env_steps >= config.train.env_steps
        ordered = None if sync or is_last else order()
        yield episodes, epsilon


def learn(config: Config, progress: Progress, device: torch.device) -> None:
    """The updates that the episodes collected so far have earned; their number does not depend on E."""
    counters, replay = progress.counters, progress.replay
    size, chunk_length = config.replay.batch_episodes, config.replay.chunk_length
    earned = int(config.train.updates_per_episode * (counters.episodes - size + 1))
    while counters.updates < earned:
        if chunk_length:
            batch = replay.sample_chunks(size, chunk_length, config.replay.burn_in, progress.sampling)
        else:
            batch = replay.sample(size, progress.sampling)
        batch = batch.to(device)
        batch = batch.with_reward(batch.reward * config.train.reward_scale)
        noise = noise_state(progress.algorithm)
        counters.updates += 1
        try:
            progress.averages.add(progress.algorithm.update(batch))
        except NotFiniteError as error:
            counters.updates_skipped += 1
            if progress.guard.too_many(counters.updates):
                raise TooManySkippedError(error, batch, noise, progress.rollbacks) from error
        counters.imagined_steps += progress.algorithm.imagined_steps(batch)


class Training:
    """One run: the loop, and what happens periodically inside it."""

    def __init__(
        self, config: Config, written: Run, progress: Progress, files: ReplayFiles, observer: Observer
    ) -> None:
        self.config, self.written, self.progress = config, written, progress
        self.files, self.observer = files, observer
        self.train_rows = written.metrics("train", train_columns(progress.algorithm))
        self.evaluation_rows = written.metrics("evaluation", EVALUATION_COLUMNS)
        self.due = Due(config.train.checkpoint_minutes)
        self.saves_failed = 0
        """Checkpoints in a row, up to the last one, that the disk had no space for."""

    def run(
        self, rollouts: Rollouts, evaluation_env: VectorEnv, seed: int, stop: StopFlag, *, sync: bool
    ) -> None:
        """From where the progress stands to the last env step; StoppedError after a signal."""
        config, counters = self.config, self.progress.counters
        device = self.progress.algorithm.agent.core.input.bias.device
        started = perf_counter() - counters.seconds
        if counters.env_steps == 0:
            self.evaluate(evaluation_env)
            if stop:
                raise self.stopped(stop)
        rounds = collect(config, rollouts, self.progress, seed, sync=sync)
        while counters.env_steps < config.train.env_steps:
            before = counters.env_steps
            episodes, epsilon = next(rounds)
            self.progress.replay.add(episodes)
            for i in range(len(episodes)):
                self.progress.averages.add(
                    {
                        "episode_return": float(episodes.episode_return[i]),
                        "episode_length": float(episodes.length[i]),
                        "win_rate": float(episodes.success[i]),
                        "epsilon": epsilon,
                    }
                )
            learning = perf_counter()
            learn(config, self.progress, device)
            counters.time_learning += perf_counter() - learning
            counters.seconds = perf_counter() - started

            ended = counters.env_steps >= config.train.env_steps
            if ended or _crossed(before, counters.env_steps, config.train.log_period):
                self.log()
            score, improved = None, False
            if ended or _crossed(before, counters.env_steps, config.evaluation.period):
                score, improved = self.evaluate(evaluation_env)
                counters.seconds = perf_counter() - started
            period = _crossed(before, counters.env_steps, config.train.checkpoint_period)
            stopping = bool(stop)  # one that comes later finds nothing saved: it waits for the next round
            if ended or improved or period:
                self.checkpoint(score, is_last=ended or stopping)
            elif stopping or self.due:
                self.checkpoint(None, scheduled=False, is_last=stopping)
            self.observer.progress(counters.env_steps, self.figures())
            if stopping and not ended:
                raise self.stopped(stop)

    def log(self) -> None:
        """One row of the training metrics: counters, and means since the row before."""
        averages, row = self.progress.averages, dict[str, float | None](asdict(self.progress.counters))
        for column in self.train_rows.columns:
            if column not in row:
                row[column] = averages.mean(column)
        if not self.progress.replay.spec.has_success:
            row["win_rate"] = None
        self.train_rows.append(row)
        self.observer.row("train", row)
        averages.clear()

    def evaluate(self, env: VectorEnv) -> tuple[float, bool]:
        """One row of the evaluation metrics; its return, and whether that is above all that were saved."""
        counters, began = self.progress.counters, perf_counter()
        episodes = self.config.evaluation.episodes
        clock = Clock()
        summary = summarise(list(evaluate_policy(env, self.progress.algorithm.agent, episodes, clock=clock)))
        counters.rounds_replayed += clock.replayed
        counters.time_evaluation += perf_counter() - began
        row = {name: getattr(counters, name) for name in EVALUATION_COLUMNS[:4]}
        row |= {name: summary[name] for name in EVALUATION_COLUMNS[5:]}
        row["evaluation_episodes"] = episodes
        self.evaluation_rows.append(row)
        self.observer.row("evaluation", row)
        self.progress.evaluation = row
        score = float(summary["episode_return"])
        return score, self.is_best(score)

    def is_best(self, score: float) -> bool:
        best = self.progress.best_score
        return best is None or score > best

    def checkpoint(self, score: float | None, *, scheduled: bool = True, is_last: bool = False) -> None:
        """Everything a resumed run needs; `score` is the return of these very weights, if just evaluated.

        Only env steps schedule one: not where a run was interrupted or how fast it was, which would make a
        return to a scheduled checkpoint, or the best one, differ from run to run.

        Where the disk is full, training goes on from memory and the next checkpoint tries again. Raises
        DiskFullError for the third failure in a row, and where no other checkpoint follows (`is_last`).
        """
        counters, best_before = self.progress.counters, self.progress.best_score
        listed = list(self.files.segments)
        self.due.reset()
        if score is not None and self.is_best(score):
            self.progress.best_score = score  # part of what is saved, so it is said before
        try:
            with self.written.checkpoint(
                counters.env_steps,
                counters=asdict(counters),
                score=score,
                scheduled=scheduled,
            ) as writer:
                self.progress.save(writer, self.files, scheduled=scheduled)
        except DiskFullError as error:
            if counters.env_steps not in self.written.scheduled_steps:
                self.progress.best_score = best_before
                self.files.keep(listed)
            self.saves_failed += 1
            if is_last or self.saves_failed == MOST_FAILED_SAVES:
                raise
            self.observer.note(
                f"{error.what}; training goes on, the next checkpoint tries again"
                f" (failure {self.saves_failed} of {MOST_FAILED_SAVES})"
            )
            return
        self.saves_failed = 0
        self.written.prune(REPLAY, self.files.names)

    def stopped(self, stop: StopFlag) -> StoppedError:
        done = self.progress.counters.env_steps
        return StoppedError(f"{self.written.path}: stopped by {stop.signal} after {done} env steps", CONTINUE)

    def figures(self) -> dict[str, float]:
        """What a progress display shows."""
        counters = asdict(self.progress.counters)
        shown = {name: value for name, value in counters.items() if name.startswith("time_")}
        for name in ("episode_return", "win_rate"):
            value = self.progress.evaluation.get(name)
            if value is not None:
                shown[name] = value
        return {**shown, "updates": counters["updates"]}


def run(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: str,
    observer: Observer,
    command: str,
    world_model: Path | None = None,
    resume: bool = False,
    allow_overcommit: bool = False,
    actors: int = 0,
    sync: bool = True,
) -> StageResult:
    """Train the recipe's algorithm, from a pre-trained world model where one is given.

    `actors`: of Ray, that play the training episodes (0: this process does); their number changes no result.
    `sync` False: they play the next round while this one is learned from, with weights one round older.
    Where too many updates have to be left out, it goes back to its last scheduled checkpoint, at most twice.
    Raises UsageError where the algorithm reads no world model, ArtifactError where that does not fit,
    RunExistsError where `out` is in use, ResourceError where memory or disk will not do (unless
    `allow_overcommit`), StoppedError after a signal, DivergedError when it diverges.
    """
    attempt = partial(
        _run,
        recipe,
        out,
        seed=seed,
        device=device,
        observer=observer,
        command=command,
        world_model=world_model,
        allow_overcommit=allow_overcommit,
        actors=actors,
        sync=sync,
    )
    after: TooManySkippedError | None = None
    while True:
        try:
            return attempt(resume=resume or after is not None, after=after)
        except TooManySkippedError as error:
            if error.rollbacks == MOST_ROLLBACKS or not error.can_go_back:
                raise
            after = error.with_traceback(None)  # which holds the whole attempt: its replay, its networks
            after.__cause__ = after.__context__ = None


def _run(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: str,
    observer: Observer,
    command: str,
    world_model: Path | None,
    resume: bool,
    allow_overcommit: bool,
    actors: int,
    sync: bool,
    after: TooManySkippedError | None,
) -> StageResult:
    """`run` to its end, or to the next TooManySkippedError; `after` is the one it went back for."""
    config = recipe.config
    where = choose_device(device, config.train.threads)
    with ExitStack() as stack:
        evaluation_env = make_env(config.env, min(config.evaluation.num_envs, config.evaluation.episodes))
        spec = stack.enter_context(closing(evaluation_env)).spec
        algorithm = build(config, spec, seed=seed, device=where)
        require_training(config, train_columns(algorithm), EVALUATION_COLUMNS)
        inputs = [load_world_model(world_model, algorithm)] if world_model is not None else []
        if isinstance(algorithm, Mmsa) and algorithm.representation_loss_names and not (inputs or resume):
            observer.note(FROM_NOTHING)
        if after is None:  # the memory is still taken by the attempt before
            preflight.require("train", preflight.training(algorithm), out, overcommit=allow_overcommit)
        rollouts: Rollouts
        if actors:
            rollouts = Actors(config, spec, actors)
        else:
            rollouts = InProcess(make_env(config.env, config.train.num_envs))
        stack.enter_context(closing(rollouts))
        stack.callback(observer.finish)
        replay = Replay(
            spec,
            config.replay.capacity_episodes,
            bootstrap_at_time_limit=config.env.bootstrap_at_time_limit,
            observations=getattr(torch, config.replay.observations),
        )
        progress = Progress(algorithm, replay, torch_generator(seed, "replay"), Counters(), Averages())
        written = begin(
            out,
            kind="agent",
            recipe=recipe,
            seed=seed,
            spec=spec,
            inputs=inputs,
            command=command,
            device=str(where),
            keep=config.train.keep_checkpoints,
            resume=resume,
            from_scheduled=after is not None,
            inputs_needed=not checkpoint_steps(out),
        )
        with written, stop_on_signal() as stop:
            if not sync:
                written.note(NOT_SYNC)
            files = ReplayFiles(out / REPLAY, [])
            checkpoint = written.latest_checkpoint() if resume else None
            if checkpoint is not None:
                files = progress.load(checkpoint, out / REPLAY)
                observer.note(f"resumed at {progress.counters.env_steps} env steps")
            if after is not None:
                progress.roll_back(after.rollbacks + 1, seed)
                back = f"{after.what}: back at {progress.counters.env_steps:,} env steps"
                rate = f"learning rate × {RATE_AFTER_ROLLBACK**progress.rollbacks:g}"
                said = f"{back}, {progress.rollbacks} of {MOST_ROLLBACKS}, {rate}"
                written.note(said)
                observer.note(said)
            written.prune(REPLAY, files.names)
            observer.start("train", config.train.env_steps, "env steps")
            training = Training(config, written, progress, files, observer)
            try:
                training.run(rollouts, evaluation_env, seed, stop, sync=sync)
            except TooManySkippedError as error:
                if stop:  # a resumed run comes here again
                    raise training.stopped(stop) from error
                keep(written, algorithm, error)
                error.can_go_back = bool(written.scheduled_steps)
                raise
            counters = asdict(progress.counters)
            written.finish("complete", counters=counters)
    return StageResult.complete(out, "agent", {**counters, **progress.evaluation})


def load_world_model(path: Path, algorithm: Qmix) -> Input:
    """Start `algorithm` from a world-model artifact; returns the manifest's entry for it."""
    if not isinstance(algorithm, Mmsa) or not algorithm.representation_loss_names:
        raise UsageError(
            f"--world-model {path}: {algorithm.config.algorithm} here has neither world model nor SALE",
            "leave the option out, or use the mmsa recipe",
        )
    artifact = Artifact.open(path, kind="world-model")
    require_same_task(artifact, algorithm.spec)
    sale = algorithm.config.sale
    of_state = ("mixer.global_state",) if sale.enabled and sale.global_state else ()
    require_same_sections(artifact, algorithm.config, (*REUSED_SECTIONS, *of_state))
    state = algorithm.state_dict()
    expected = {name: state[name] for name in algorithm.pretrained_names}
    algorithm.load_pretrained(artifact.tensors("weights/world_model", expected))
    return artifact.as_input("world-model")


def _crossed(before: int, now: int, period: int) -> bool:
    return before // period != now // period
