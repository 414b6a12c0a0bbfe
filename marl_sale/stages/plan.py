"""What a stage would do, without doing it: the checks it makes first, and what it will cost.

Each function mirrors the `run` of its stage, raises what that would raise before it starts, and writes
nothing. Counts that depend on how long episodes turn out to be are bounds, and their names say so.
"""

import math
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from marl_sale.algorithms._load import build, build_pretraining
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.analysis import runs as run_files
from marl_sale.analysis.figures import XAxis
from marl_sale.analysis.groups import group as group_runs
from marl_sale.artifacts.manifest import Input
from marl_sale.artifacts.reader import Artifact, checkpoint_steps
from marl_sale.config.recipe import Recipe
from marl_sale.data.replay import replay_bytes
from marl_sale.envs._load import describe
from marl_sale.spec import EnvSpec
from marl_sale.stages import _occupied, preflight
from marl_sale.stages import evaluate as eval_stage
from marl_sale.stages import plot as plot_stage
from marl_sale.stages._artifacts import as_artifact_error, load_policy, recipe_of, require_same_task
from marl_sale.stages._fitting import require_readable
from marl_sale.stages._machine import choose_device
from marl_sale.stages._readable import require_training
from marl_sale.stages._render import require_gif
from marl_sale.stages._runs import progress_of, require_same_inputs, require_unfinished, require_vacant
from marl_sale.stages.folders import finished_seconds
from marl_sale.stages.pretrain_wm import open_dataset, require_possible, require_room
from marl_sale.stages.result import StageResult
from marl_sale.stages.train import EVALUATION_COLUMNS, load_world_model, train_columns


def pretrain_wm(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: str,
    policy: Path | None = None,
    dataset: Path | None = None,
    save_dataset: Path | None = None,
    resume: bool = False,
    allow_overcommit: bool = False,
) -> StageResult:
    """Plan of `pretrain-wm`; a resumed run's counts are those of the whole run."""
    config = recipe.config
    require_possible(recipe, policy, dataset)
    where, spec = choose_device(device, config.train.threads), describe(config.env)
    stored, inputs = None, []
    if policy is not None:
        agent = Artifact.open(policy, kind="agent")
        require_same_task(agent, spec)
        load_policy(agent.checkpoint("latest"), recipe_of(agent).config, spec)
        inputs = [agent.as_input("policy")]
    if dataset is not None:
        episodes_of, stored = open_dataset(dataset, spec)
        inputs = [episodes_of.as_input("dataset")]
    reached = _begin(out, "world-model", recipe, seed, spec, inputs, resume=resume)
    require_room(recipe, out, save_dataset, seed, spec, resume=resume)
    algorithm = build_pretraining(config, spec, device=where)
    require_readable(algorithm)
    needs = preflight.pretraining(algorithm, saves_dataset=save_dataset is not None, stored=stored)
    preflight.require("pretrain-wm", needs, out, overcommit=allow_overcommit)
    episodes = needs.episodes
    fitted = episodes - min(max(1, round(config.pretrain.holdout * episodes)), episodes - 1)
    chunks = math.ceil(spec.episode_limit / (config.replay.chunk_length or spec.episode_limit))
    batches = math.ceil(fitted * chunks / config.replay.batch_episodes)
    epochs = len(algorithm.parts) * config.pretrain.max_epochs
    return _plan(
        out,
        "world-model",
        spec,
        device=str(where),
        **reached,
        parameters=algorithm.parameter_count(),
        replay_bytes=replay_bytes(spec, episodes),
        memory_bytes_at_most=needs.total,
        disk_bytes_at_most=needs.disk,
        episodes=episodes,
        env_steps_at_most=0 if dataset is not None else episodes * spec.episode_limit,
        epochs_at_most=epochs,
        updates_at_most=epochs * batches,
        expected_seconds=finished_seconds(recipe, "pretrain-wm", "world-model"),
    )


def train(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    device: str,
    world_model: Path | None = None,
    resume: bool = False,
    allow_overcommit: bool = False,
) -> StageResult:
    """Plan of `train`; a resumed run's counts are those of the whole run."""
    config = recipe.config
    where, spec = choose_device(device, config.train.threads), describe(config.env)
    algorithm = build(config, spec, device=where)
    require_training(config, train_columns(algorithm), EVALUATION_COLUMNS)
    inputs = [load_world_model(world_model, algorithm)] if world_model is not None else []
    needed = not checkpoint_steps(out)
    reached = _begin(out, "agent", recipe, seed, spec, inputs, resume=resume, inputs_needed=needed)
    needs = preflight.training(algorithm)
    preflight.require("train", needs, out, overcommit=allow_overcommit)
    steps, size = config.train.env_steps, config.replay.batch_episodes
    rounds = math.ceil(steps / (config.train.num_envs * spec.episode_limit))
    earning = max(0, rounds * config.train.num_envs - size + 1)
    updates = int(config.train.updates_per_episode * earning)
    rows = 2 if config.replay.chunk_length else spec.episode_limit + 1  # the shortest chunk has one step
    length = algorithm.imagination_length if isinstance(algorithm, Mmsa) else 0
    return _plan(
        out,
        "agent",
        spec,
        device=str(where),
        **reached,
        parameters=algorithm.parameter_count(),
        replay_bytes_at_most=needs.memory_with(needs.episodes)["replay"],
        memory_bytes_at_most=needs.total,
        disk_bytes_at_most=needs.disk,
        env_steps=steps,
        episodes_at_least=rounds * config.train.num_envs,
        updates_at_least=updates,
        imagined_steps_at_least=updates * size * rows * length,
        evaluations=1 + math.ceil(steps / config.evaluation.period),
        evaluation_episodes=config.evaluation.episodes,
        expected_seconds=finished_seconds(recipe, "train", "agent"),
    )


def evaluate(
    agent: Path,
    out: Path,
    *,
    seed: int,
    device: str,
    episodes: int | None = None,
    checkpoint: str = "latest",
    backend: str | None = None,
    render: Path | None = None,
) -> StageResult:
    """Plan of `eval`."""
    artifact, chosen, recipe = eval_stage.open_agent(agent, checkpoint, backend)
    config = recipe.config
    where = choose_device(device, config.train.threads)
    if render is not None:
        require_gif(render, out)
    with as_artifact_error(artifact) if backend is None else nullcontext():
        spec = describe(config.env)
    require_same_task(artifact, spec)
    policy = load_policy(chosen, config, spec)
    asked = eval_stage.asked_for(recipe, seed, episodes, (artifact, chosen))
    _occupied.require_vacant(out, asked)
    count = asked.facts["episodes"]
    return _plan(
        out,
        "evaluation",
        spec,
        device=str(where),
        parameters=sum(weight.numel() for weight in policy.parameters()),
        checkpoint=chosen.step,
        episodes=count,
        env_steps_at_most=count * spec.episode_limit,
    )


def evaluate_random(
    recipe: Recipe, out: Path, *, seed: int, episodes: int | None = None, render: Path | None = None
) -> StageResult:
    """Plan of `eval --random`."""
    if render is not None:
        require_gif(render, out)
    spec = describe(recipe.config.env)
    asked = eval_stage.asked_for(recipe, seed, episodes, None)
    _occupied.require_vacant(out, asked)
    count = asked.facts["episodes"]
    return _plan(out, "evaluation", spec, episodes=count, env_steps_at_most=count * spec.episode_limit)


def plot(
    runs: Sequence[Path], out: Path, *, seed: int, x: XAxis, below: Collection[Path] = ()
) -> StageResult:
    """Plan of `plot`."""
    agents, evaluations, left_out = run_files.read(runs, below=below)
    groups = group_runs(agents)
    _occupied.require_vacant(out, plot_stage.asked_for(agents, evaluations, seed, x))
    lines = [
        f"{group.task.name}: {group.label}, seeds {', '.join(str(run.seed) for run in group.runs)}"
        for group in groups
    ]
    counts = {"runs": len(agents), "evaluations": len(evaluations), "groups": lines, "left_out": left_out}
    return StageResult(out, "report", "dry-run", counts)


def _plan(out: Path, kind: str, spec: EnvSpec, **figures: Any) -> StageResult:
    task = {
        "task": f"{spec.family}/{spec.task}",
        "agents": spec.n_agents,
        "episode_limit": spec.episode_limit,
    }
    return StageResult(out, kind, "dry-run", {**task, **figures})


def _begin(
    out: Path,
    kind: str,
    recipe: Recipe,
    seed: int,
    spec: EnvSpec,
    inputs: Sequence[Input],
    *,
    resume: bool,
    inputs_needed: bool = True,
) -> dict[str, str]:
    """What there is to say of where a run starts."""
    if not resume:
        require_vacant(out, kind, recipe, seed, spec)
        return {}
    manifest = require_unfinished(out, kind, recipe, seed, spec)
    require_same_inputs(out, inputs, needed=inputs_needed)
    return {"goes_on": progress_of(manifest.counters)}
