"""pretrain-wm: fit world model and embeddings on a fixed set of episodes, and say how good they are."""

import copy
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from marl_sale.algorithms._load import build_pretraining
from marl_sale.algorithms.pretraining import Pretraining
from marl_sale.analysis.world_model_report import open_loop_errors
from marl_sale.artifacts.manifest import Input
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.config.recipe import Recipe
from marl_sale.data.batch import Batch
from marl_sale.data.collect import Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, StoppedError, UsageError
from marl_sale.nn.agent import Agent
from marl_sale.observer import Observer
from marl_sale.seeding import episode_seeds, torch_generator
from marl_sale.spec import EnvSpec, VectorEnv
from marl_sale.stages._artifacts import load_policy, recipe_of, require_same_task
from marl_sale.stages._machine import StopFlag, choose_device, stop_on_signal
from marl_sale.stages.result import StageResult

HELD_OUT_CHUNK = 64
"""Episodes of one pass over held-out data; bounds the memory, not the result."""


def gather(
    env: VectorEnv, policy: Agent | None, epsilon: float, count: int, seed: int, observer: Observer
) -> Replay:
    """`count` episodes with random available actions, or ε-greedy ones of a policy."""
    spec = env.spec
    replay = Replay(spec, count, bootstrap_at_time_limit=False)
    observer.start("gather", count, "episodes")
    while replay.added < count:
        first = replay.added
        noise = Exploration.of_episodes(spec, epsilon, seed, first, env.num_envs, "pretraining")
        episodes = play(env, policy, episode_seeds(seed, first, env.num_envs, "pretraining"), noise)
        replay.add(episodes.take(slice(0, count - first)))
        observer.progress(replay.added, {"episode_return": float(episodes.episode_return.mean())})
    return replay


@dataclass
class Split:
    """Whole episodes, some to fit and some held out."""

    replay: Replay
    fit: Tensor
    held_out: Tensor

    def held_out_batches(self, device: torch.device) -> list[Batch]:
        return [self.replay.pack(part).to(device) for part in self.held_out.split(HELD_OUT_CHUNK)]


def split_episodes(replay: Replay, holdout: float, generator: torch.Generator) -> Split:
    """At least one episode on either side."""
    order = torch.randperm(len(replay), generator=generator)
    count = min(max(1, round(holdout * len(replay))), len(replay) - 1)
    return Split(replay, order[count:], order[:count])


@torch.no_grad()
def held_out_losses(fit: Pretraining, batches: list[Batch]) -> dict[str, float]:
    """Each loss, averaged over held-out batches by their episodes; the latent noise is the same each time."""
    state = fit.mmsa.noise_generator.get_state()
    fit.mmsa.noise_generator.manual_seed(0)
    sums: dict[str, float] = {}
    episodes = sum(batch.n_episodes for batch in batches)
    for batch in batches:
        for name, value in fit.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * batch.n_episodes / episodes
    fit.mmsa.noise_generator.set_state(state)
    return sums


def fit_until_plateau(
    fit: Pretraining, data: Split, written: Run, observer: Observer, seed: int, stop: StopFlag
) -> dict[str, Any]:
    """Epochs until the held-out loss has not improved for `patience_epochs`; keeps the best weights."""
    config, generator = fit.config, torch_generator(seed, "pretraining batches")
    device = fit.agent.core.input.bias.device
    settings, size = config.pretrain, config.replay.batch_episodes
    held_out = data.held_out_batches(device)
    names = fit.loss_names
    columns = [
        "epoch",
        "updates",
        "seconds",
        *(f"{part}_{n}" for n in names for part in ("train", "heldout")),
    ]
    rows = written.metrics("pretrain", columns)
    observer.start("pretrain-wm", settings.max_epochs, "epochs")
    best, best_epoch, best_state = float("inf"), 0, copy.deepcopy(fit.state_dict())
    started, losses = perf_counter(), dict[str, float]()
    for epoch in range(1, settings.max_epochs + 1):
        order = data.fit[torch.randperm(len(data.fit), generator=generator)]
        sums = dict.fromkeys(names, 0.0)
        for index in order.split(size):
            figures = fit.update(data.replay.pack(index).to(device))
            for name in names:
                sums[name] += float(figures[f"loss_{name}"]) * len(index) / len(order)
        found = held_out_losses(fit, held_out)
        total = sum(getattr(config.loss_weights, name) * value for name, value in found.items())
        row: dict[str, float | None] = {
            "epoch": epoch,
            "updates": fit.updates,
            "seconds": perf_counter() - started,
            **{f"train_{name}": value for name, value in sums.items()},
            **{f"heldout_{name}": value for name, value in found.items()},
        }
        rows.append(row)
        observer.row("pretrain", row)
        observer.progress(epoch, {"heldout_loss": total})
        if total < best * (1 - settings.min_improvement) or epoch == 1:
            best, best_epoch, best_state, losses = total, epoch, copy.deepcopy(fit.state_dict()), found
        if stop:
            raise StoppedError(f"{written.path}: stopped by {stop.signal} in epoch {epoch}", "start it again")
        if epoch - best_epoch >= settings.patience_epochs:
            break
    fit.load_state_dict(best_state)
    return {
        "epochs": epoch,
        "best_epoch": best_epoch,
        "updates": fit.updates,
        "seconds": perf_counter() - started,
        "heldout_loss": best,
        "heldout_losses": losses,
        "stopped_on_plateau": epoch - best_epoch >= settings.patience_epochs,
    }


@torch.no_grad()
def report(fit: Pretraining, data: Split) -> dict[str, Any]:
    """Open-loop errors on held-out episodes, against trivial predictors fitted on the others."""
    device, model = fit.agent.core.input.bias.device, fit.mmsa.world_model
    if model is None:
        return {"open_loop": []}
    sums, rows = torch.zeros(fit.spec.n_agents, fit.config.agent.hidden_size, device=device), 0
    for index in data.fit.split(HELD_OUT_CHUNK):
        h = fit.unroll(data.replay.pack(index).to(device))
        sums, rows = sums + h.sum(0), rows + len(h)
    batch = data.replay.pack(data.held_out).to(device)
    depth = max(1, fit.mmsa.imagination_length)
    errors = open_loop_errors(model, fit.agent, batch, fit.unroll(batch), sums / rows, depth)
    return {"open_loop": [error.to_json() for error in errors]}


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
    if config.algorithm != "mmsa" or not (config.world_model.enabled or config.sale.enabled):
        raise UsageError(
            f"{recipe.name}: has neither world model nor SALE, so there is nothing to pre-train",
            "use the mmsa recipe of the task",
        )
    if policy is not None and dataset is not None:
        raise UsageError("--policy and --dataset exclude each other: a dataset is not gathered again")
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
                source = gather(env, behaviour, epsilon, config.pretrain.episodes, seed, observer)
            steps = source.newest(len(source)).steps
            if saved:
                saved.write_tensors("episodes", source.newest(len(source)).to_tensors())
                saved.finish("complete", counters={"episodes": len(source), "env_steps": steps})
                observer.note(f"dataset saved to {save_dataset}")
            fit = build_pretraining(config, env.spec, seed=seed, device=where)
            data = split_episodes(source, config.pretrain.holdout, torch_generator(seed, "holdout"))
            figures = fit_until_plateau(fit, data, written, observer, seed, stop)
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
    return StageResult(out, "world-model", "complete", figures)


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
        replay = Replay(spec, len(episodes), bootstrap_at_time_limit=False)
        replay.add(episodes)
        return replay, None, [artifact.as_input("dataset")]
    if policy is not None:
        artifact = Artifact.open(policy, kind="agent")
        require_same_task(artifact, spec)
        agent = load_policy(artifact.checkpoint("latest"), recipe_of(artifact).config, spec)
        return None, agent, [artifact.as_input("policy")]
    return None, None, []
