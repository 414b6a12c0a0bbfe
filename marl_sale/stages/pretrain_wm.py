"""pretrain-wm: fit world model and embeddings on a fixed set of episodes, and say how good they are."""

import copy
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from marl_sale.algorithms._load import build_pretraining
from marl_sale.algorithms.pretraining import Part, Pretraining
from marl_sale.analysis.world_model_report import averaged, open_loop_errors
from marl_sale.artifacts.manifest import Input
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.config.recipe import Recipe
from marl_sale.data.batch import Batch
from marl_sale.data.collect import Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay, replay_of
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, StoppedError, UsageError
from marl_sale.nn.agent import Agent
from marl_sale.observer import Observer
from marl_sale.seeding import episode_seeds, torch_generator
from marl_sale.spec import EnvSpec, VectorEnv
from marl_sale.stages._artifacts import load_policy, recipe_of, require_same_task
from marl_sale.stages._machine import StopFlag, choose_device, stop_on_signal
from marl_sale.stages.result import StageResult

CHUNKS_PER_PASS = 64
"""Chunks of episodes (whole ones, where the recipe has no chunks) of one pass without gradient; bounds the
memory, not the result."""


def gather(
    env: VectorEnv,
    policy: Agent | None,
    epsilon: float,
    count: int,
    seed: int,
    observer: Observer,
    stop: StopFlag,
) -> Replay:
    """`count` episodes with random available actions, or ε-greedy ones of a policy; StoppedError."""
    spec = env.spec
    replay = Replay(spec, count, bootstrap_at_time_limit=False)
    observer.start("gather", count, "episodes")
    while replay.added < count:
        first = replay.added
        noise = Exploration.of_episodes(spec, epsilon, seed, first, env.num_envs, "pretraining")
        episodes = play(env, policy, episode_seeds(seed, first, env.num_envs, "pretraining"), noise)
        replay.add(episodes.take(slice(0, count - first)))
        observer.progress(replay.added, {"episode_return": float(episodes.episode_return.mean())})
        if stop:
            raise StoppedError(f"stopped by {stop.signal} after {replay.added} episodes", "start it again")
    return replay


@dataclass
class Split:
    """Whole episodes, some to fit and some held out; read in chunks, so that long ones need little memory."""

    replay: Replay
    fit: Tensor
    held_out: Tensor
    chunk_length: int
    burn_in: int

    def chunks(self, episodes: Tensor) -> Tensor:
        """Of some of the episodes: what `pack` takes."""
        return self.replay.chunks_of(episodes, self.chunk_length)

    def pack(self, chunks: Tensor, device: torch.device) -> Batch:
        place, start, stop = chunks.unbind(1)
        burn_in = self.burn_in if self.chunk_length else 0
        return self.replay.pack_chunks(place, start, stop, burn_in).to(device)

    def passes(self, episodes: Tensor, device: torch.device) -> Iterator[Batch]:
        """All steps of some of the episodes, a few chunks at a time."""
        return (self.pack(part, device) for part in self.chunks(episodes).split(CHUNKS_PER_PASS))


def split_episodes(
    replay: Replay, holdout: float, generator: torch.Generator, chunk_length: int = 0, burn_in: int = 0
) -> Split:
    """At least one episode on either side."""
    order = torch.randperm(len(replay), generator=generator)
    count = min(max(1, round(holdout * len(replay))), len(replay) - 1)
    return Split(replay, order[count:], order[:count], chunk_length, burn_in)


@torch.no_grad()
def held_out_losses(fit: Pretraining, batches: list[Batch]) -> dict[str, float]:
    """Each loss, averaged over held-out batches by their chunks; the latent noise is the same each time."""
    state = fit.mmsa.noise_generator.get_state()
    fit.mmsa.noise_generator.manual_seed(0)
    sums: dict[str, float] = {}
    episodes = sum(batch.n_episodes for batch in batches)
    for batch in batches:
        for name, value in fit.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * batch.n_episodes / episodes
    fit.mmsa.noise_generator.set_state(state)
    return sums


class Fitting:
    """Fits each part of a pre-training until its held-out loss stops falling, and logs every epoch."""

    def __init__(
        self, fit: Pretraining, data: Split, written: Run, observer: Observer, seed: int, stop: StopFlag
    ) -> None:
        self.fit, self.data, self.written, self.observer, self.stop = fit, data, written, observer, stop
        self.seed, self.generator = seed, torch.Generator()
        self.device = fit.agent.core.input.bias.device
        self.held_out = list(data.passes(data.held_out, self.device))
        core = ("core",) if "core" in fit.parts else ()
        names = (*core, *fit.mmsa.representation_loss_names)
        losses = [f"{kind}_{name}" for name in names for kind in ("train", "heldout")]
        self.rows = written.metrics("pretrain", ["epoch", "updates", "seconds", *losses])
        self.epoch, self.started = 0, perf_counter()

    def run(self) -> dict[str, Any]:
        """All parts; their figures, and the held-out losses of the weights that were kept."""
        parts = {part: self.until_plateau(part) for part in self.fit.parts}
        losses = {name: value for part in parts.values() for name, value in part["heldout_losses"].items()}
        return {
            "parts": parts,
            "epochs": self.epoch,
            "updates": self.fit.updates,
            "seconds": perf_counter() - self.started,
            "heldout_losses": losses,
        }

    def until_plateau(self, part: Part) -> dict[str, Any]:
        """Epochs until the held-out loss has not improved for `patience_epochs`; keeps the best weights."""
        fit, settings = self.fit, self.fit.config.pretrain
        fit.part = part
        self.generator = torch_generator(self.seed, f"pretraining batches ({part})")
        self.observer.start(f"pretrain-wm ({part})", settings.max_epochs, "epochs")
        best, best_epoch, best_state, losses = float("inf"), 0, fit.state_dict(), dict[str, float]()
        for epoch in range(1, settings.max_epochs + 1):
            trained, found = self._pass(), held_out_losses(fit, self.held_out)
            self._log(trained, found)
            total = sum(getattr(fit.config.loss_weights, name) * value for name, value in found.items())
            self.observer.progress(epoch, {"heldout_loss": total})
            if total < best * (1 - settings.min_improvement) or epoch == 1:
                best, best_epoch, best_state, losses = total, epoch, copy.deepcopy(fit.state_dict()), found
            if self.stop:
                raise StoppedError(
                    f"{self.written.path}: stopped by {self.stop.signal} in epoch {self.epoch}",
                    "start it again",
                )
            if epoch - best_epoch >= settings.patience_epochs:
                break
        fit.load_state_dict(best_state)
        return {
            "epochs": epoch,
            "best_epoch": best_epoch,
            "heldout_loss": best,
            "heldout_losses": losses,
            "stopped_on_plateau": epoch - best_epoch >= settings.patience_epochs,
        }

    def _pass(self) -> dict[str, float]:
        """One update on every batch of the episodes to fit; mean of each loss over episodes or chunks."""
        chunks = self.data.chunks(self.data.fit)
        order = chunks[torch.randperm(len(chunks), generator=self.generator)]
        sums = dict.fromkeys(self.fit.loss_names, 0.0)
        for part in order.split(self.fit.config.replay.batch_episodes):
            figures = self.fit.update(self.data.pack(part, self.device))
            for name in sums:
                sums[name] += float(figures[f"loss_{name}"]) * len(part) / len(order)
        return sums

    def _log(self, trained: dict[str, float], held_out: dict[str, float]) -> None:
        """A row of the metrics; losses of the other part are null."""
        self.epoch += 1
        row: dict[str, float | None] = dict.fromkeys(self.rows.columns)
        row |= {"epoch": self.epoch, "updates": self.fit.updates, "seconds": perf_counter() - self.started}
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"heldout_{name}": value for name, value in held_out.items()}
        self.rows.append(row)
        self.observer.row("pretrain", row)


@torch.no_grad()
def report(fit: Pretraining, data: Split) -> dict[str, Any]:
    """Open-loop errors on held-out episodes, against trivial predictors fitted on the others.

    Predictions do not reach beyond the chunk they start in.
    """
    device, model = fit.agent.core.input.bias.device, fit.mmsa.world_model
    if model is None:
        return {"open_loop": []}
    sums, rows = torch.zeros(fit.spec.n_agents, fit.config.agent.hidden_size, device=device), 0
    for batch in data.passes(data.fit, device):
        h = fit.unroll(batch)
        sums, rows = sums + h.sum(0), rows + len(h)
    depth = max(1, fit.mmsa.imagination_length)
    errors = [
        open_loop_errors(model, fit.agent, batch, fit.unroll(batch), sums / rows, depth)
        for batch in data.passes(data.held_out, device)
    ]
    return {"open_loop": [error.to_json() for error in averaged(errors)]}


def summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a good fit from a bad one; report.json has all the rest."""
    shown = {
        name: figures[name] for name in ("episodes", "heldout_episodes", "env_steps", "updates", "seconds")
    }
    for part, fitted in figures["parts"].items():
        end = "no longer improves" if fitted["stopped_on_plateau"] else "still improved"
        epochs = f"after epoch {fitted['best_epoch']} of {fitted['epochs']}; {end}"
        shown[f"heldout_loss ({part})"] = f"{fitted['heldout_loss']:.4g} {epochs}"
    for ahead in figures["open_loop"]:
        baselines = f"(repeat last: {ahead['repeat_last']:.4g}, mean: {ahead['mean']:.4g})"
        shown[f"error {ahead['steps']} ahead"] = f"{ahead['error']:.4g} {baselines}"
    return shown


def require_possible(recipe: Recipe, policy: Path | None, dataset: Path | None) -> None:
    """UsageError where the recipe has nothing to pre-train, or episodes are asked for twice."""
    config = recipe.config
    if config.algorithm != "mmsa" or not (config.world_model.enabled or config.sale.enabled):
        raise UsageError(
            f"{recipe.name}: has neither world model nor SALE, so there is nothing to pre-train",
            "use the mmsa recipe of the task",
        )
    if policy is not None and dataset is not None:
        raise UsageError("--policy and --dataset exclude each other: a dataset is not gathered again")


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
) -> StageResult:
    """Gather (or read) episodes, fit, report; writes a world-model artifact.

    Raises UsageError where the recipe has nothing to pre-train, ArtifactError where policy or dataset do
    not fit the task, RunExistsError where `out` or `save_dataset` is in use.
    """
    config = recipe.config
    require_possible(recipe, policy, dataset)
    where = choose_device(device, config.train.threads)
    env = make_env(config.env, config.train.num_envs)
    try:
        source, behaviour, inputs = _source(policy, dataset, env.spec)
        identity: dict[str, Any] = {
            "recipe": recipe.name,
            "overrides": recipe.overrides,
            "config_text": recipe.text,
            "fingerprint": recipe.fingerprint,
            "seed": seed,
            "env_spec": env.spec.to_dict(),
            "inputs": inputs,
            "command": command,
            "device": str(where),
        }
        with ExitStack() as stack:
            # Both folders are taken before the long work begins.
            written = stack.enter_context(Run.create(out, kind="world-model", **identity))
            saved = save_dataset and stack.enter_context(Run.create(save_dataset, kind="dataset", **identity))
            stop = stack.enter_context(stop_on_signal())
            if source is None:
                epsilon = 1.0 if behaviour is None else config.exploration.finish
                source = gather(env, behaviour, epsilon, config.pretrain.episodes, seed, observer, stop)
            steps = source.newest(len(source)).steps
            if saved:
                saved.write_tensors("episodes", source.newest(len(source)).to_tensors())
                saved.finish("complete", counters={"episodes": len(source), "env_steps": steps})
                observer.note(f"dataset saved to {save_dataset}")
            fit = build_pretraining(config, env.spec, seed=seed, device=where)
            chosen, chunks = torch_generator(seed, "holdout"), config.replay
            data = split_episodes(
                source, config.pretrain.holdout, chosen, chunks.chunk_length, chunks.burn_in
            )
            figures = Fitting(fit, data, written, observer, seed, stop).run()
            state = fit.mmsa.state_dict()
            weights = {name: state[name] for name in fit.mmsa.pretrained_names}
            fit.mmsa.load_pretrained(
                weights
            )  # report on what `train` starts from, where all copies are equal
            figures |= {
                **report(fit, data),
                "episodes": len(source),
                "env_steps": steps,
                "heldout_episodes": len(data.held_out),
            }
            written.write_tensors("weights/world_model", weights)
            written.write_json("report", figures)
            counters = {name: figures[name] for name in ("episodes", "env_steps", "updates", "seconds")}
            written.finish("complete", counters=counters)
    finally:
        observer.finish()
        env.close()
    return StageResult.complete(out, "world-model", figures, summary(figures))


def _source(
    policy: Path | None, dataset: Path | None, spec: EnvSpec
) -> tuple[Replay | None, Agent | None, list[Input]]:
    """Stored episodes, or who is to play new ones (None: random actions)."""
    if dataset is not None:
        artifact = Artifact.open(dataset, kind="dataset")
        require_same_task(artifact, spec)
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
