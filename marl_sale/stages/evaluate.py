"""eval: greedy episodes on the fixed seed bank."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from marl_sale.analysis.statistics import mean_interval, wilson_interval
from marl_sale.artifacts.manifest import Status
from marl_sale.artifacts.reader import Artifact, Checkpoint
from marl_sale.config.recipe import Recipe
from marl_sale.data.collect import Clock, Exploration, Policy, play
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, UsageError
from marl_sale.observer import Observer
from marl_sale.seeding import evaluation_seeds
from marl_sale.spec import VectorEnv
from marl_sale.stages._artifacts import as_artifact_error, load_policy, recipe_of, require_same_task
from marl_sale.stages._machine import choose_device
from marl_sale.stages._occupied import Asked, create
from marl_sale.stages._readable import require_rows
from marl_sale.stages._render import render_episode, require_gif
from marl_sale.stages.result import StageResult


@dataclass(frozen=True)
class EpisodeRow:
    """One evaluated episode; `success` is None where the task defines none."""

    episode: int
    seed: int
    episode_return: float
    episode_length: int
    success: bool | None


def evaluate_policy(
    env: VectorEnv, policy: Policy | None, episodes: int, *, bank: int = 0, clock: Clock | None = None
) -> Iterator[EpisodeRow]:
    """Greedy episodes 0 … `episodes − 1` of a seed bank; `policy` None plays random available actions.

    `clock` counts the rounds that were played again because an environment crashed.
    """
    for first in range(0, episodes, env.num_envs):
        seeds = evaluation_seeds(first, env.num_envs, bank)
        random = _random_play(env, bank, first) if policy is None else None
        played = play(env, policy, seeds, random, clock)
        for i in range(min(env.num_envs, episodes - first)):
            yield EpisodeRow(
                episode=first + i,
                seed=int(seeds[i]),
                episode_return=float(played.episode_return[i]),
                episode_length=int(played.length[i]),
                success=bool(played.success[i]) if env.spec.has_success else None,
            )


def _random_play(env: VectorEnv, bank: int, first: int) -> Exploration:
    """What random play does in the episodes from `first` on: the same whenever they are played."""
    return Exploration.of_episodes(env.spec, 1.0, bank, first, env.num_envs, "evaluation")


def summarise(rows: Sequence[EpisodeRow]) -> dict[str, Any]:
    """Means with their intervals: Student's t for the return, Wilson for the win rate (None: no success)."""
    returns = np.array([row.episode_return for row in rows])
    wins = [row.success for row in rows if row.success is not None]
    interval = mean_interval(returns)
    return {
        "episodes": len(rows),
        "win_rate": sum(wins) / len(wins) if wins else None,
        "win_rate_ci95": list(wilson_interval(sum(wins), len(wins))) if wins else None,
        "episode_return": float(returns.mean()),
        "episode_return_ci95": list(interval) if interval is not None else None,
        "episode_return_std": float(returns.std()),
        "episode_length": float(np.mean([row.episode_length for row in rows])),
    }


def open_agent(
    agent: Path, checkpoint: str, backend: str | None = None
) -> tuple[Artifact, Checkpoint, Recipe]:
    """An agent artifact, however it ended, the checkpoint asked for, and its recipe (with another backend).

    Raises ArtifactError, or UsageError for a checkpoint that is neither latest nor best nor a step.
    """
    artifact = Artifact.open(agent, kind="agent", status=get_args(Status))
    which: Literal["latest", "best"] | int
    match checkpoint:
        case "latest" | "best":
            which = checkpoint
        case step if step.isdecimal():
            which = int(step)
        case _:
            raise UsageError(f"--checkpoint {checkpoint}: neither latest nor best nor a step")
    chosen = artifact.checkpoint(which)
    changes = [] if backend is None else [f"env.backend={backend}"]
    return artifact, chosen, recipe_of(artifact, *changes)


def asked_for(
    recipe: Recipe, seed: int, episodes: int | None, agent: tuple[Artifact, Checkpoint] | None
) -> Asked:
    """The evaluation of an agent in the task of `recipe`, or (None) of random play.

    UsageError for more episodes than could be read again.
    """
    count = episodes or recipe.config.evaluation.episodes
    asked = f"--episodes {count}" if episodes else f"evaluation.episodes={count}"
    require_rows(asked, count, list(EpisodeRow.__annotations__))
    if agent is None:
        return Asked("evaluation", seed, recipe.fingerprint, [], {"policy": "random", "episodes": count})
    artifact, chosen = agent
    facts = {"policy": "agent", "checkpoint": chosen.step, "episodes": count}
    return Asked("evaluation", seed, recipe.fingerprint, [artifact.as_input("agent")], facts)


def run(
    agent: Path,
    out: Path,
    *,
    seed: int,
    device: str,
    observer: Observer,
    command: str,
    episodes: int | None = None,
    checkpoint: str = "latest",
    backend: str | None = None,
    render: Path | None = None,
) -> StageResult:
    """Evaluate the agent artifact at `agent`; `seed` chooses the bank (0 is the standard one).

    `backend` None is the one the agent was trained in.

    Raises ArtifactError where the agent cannot be read or its task has changed since it was trained.
    """
    artifact, chosen, recipe = open_agent(agent, checkpoint, backend)
    where = choose_device(device, recipe.config.train.threads)
    if render is not None:
        require_gif(render, out)
    with as_artifact_error(artifact) if backend is None else nullcontext():
        env = _make_env(recipe, episodes)
    try:
        require_same_task(artifact, env.spec)
        with _still_there(chosen):
            policy = load_policy(chosen, recipe.config, env.spec).to(where)
        return _evaluate(
            env,
            policy,
            recipe,
            out,
            asked_for(recipe, seed, episodes, (artifact, chosen)),
            device=str(where),
            observer=observer,
            command=command,
            who={"agent_seed": artifact.manifest.seed},
            notes=list(_notes(artifact, chosen)),
            render=render,
        )
    finally:
        env.close()


@contextmanager
def _still_there(chosen: Checkpoint) -> Iterator[None]:
    """A run under way deletes its older checkpoints, while an environment takes its time to start."""
    try:
        yield
    except ArtifactError as error:
        if chosen.path.exists():
            raise
        raise ArtifactError(
            f"{chosen.path}: its run has gone on and deleted it", "the same command takes the newest one"
        ) from error


def _notes(artifact: Artifact, chosen: Checkpoint) -> Iterator[str]:
    """How the agent stood, where it was not complete: its checkpoints are whole all the same."""
    manifest = artifact.manifest
    if manifest.status != "complete":
        where = f"its checkpoint at {chosen.step:,} env steps was tested"
        why = " ".join(" ".join(manifest.notes[-1:]).split()) if manifest.status != "running" else ""
        yield f"{manifest.id} was not complete ({manifest.status}) when {where}" + (f": {why}" if why else "")


def run_random(
    recipe: Recipe,
    out: Path,
    *,
    seed: int,
    observer: Observer,
    command: str,
    episodes: int | None = None,
    render: Path | None = None,
) -> StageResult:
    """Evaluate random available actions on the task of a recipe: the floor under every result."""
    if render is not None:
        require_gif(render, out)
    env = _make_env(recipe, episodes)
    try:
        return _evaluate(
            env,
            None,
            recipe,
            out,
            asked_for(recipe, seed, episodes, None),
            device="cpu",
            observer=observer,
            command=command,
            who={},
            render=render,
        )
    finally:
        env.close()


def _make_env(recipe: Recipe, episodes: int | None) -> VectorEnv:
    evaluation = recipe.config.evaluation
    return make_env(recipe.config.env, min(evaluation.num_envs, episodes or evaluation.episodes))


def _evaluate(
    env: VectorEnv,
    policy: Policy | None,
    recipe: Recipe,
    out: Path,
    asked: Asked,
    *,
    device: str,
    observer: Observer,
    command: str,
    who: Mapping[str, Any],
    notes: Sequence[str] = (),
    render: Path | None,
) -> StageResult:
    """Play, and write the evaluation artifact."""
    seed, count = asked.seed, asked.facts["episodes"]
    with create(
        out,
        asked,
        recipe=recipe.name,
        overrides=recipe.overrides,
        config_text=recipe.text,
        env_spec=env.spec.to_dict(),
        command=command,
        device=device,
    ) as written:
        try:
            observer.start("eval", count, "episodes")
            stream, rows = written.rows("episodes", list(EpisodeRow.__annotations__)), []
            clock = Clock()
            for row in evaluate_policy(env, policy, count, bank=seed, clock=clock):
                stream.append(asdict(row))
                rows.append(row)
                observer.progress(len(rows), {"episode_return": row.episode_return})
        finally:
            observer.finish()
        summary = {**summarise(rows), "rounds_replayed": clock.replayed, **asked.facts, **who, "bank": seed}
        written.write_json("report", summary)
        counters = {"episodes": len(rows), "env_steps": sum(row.episode_length for row in rows)}
        written.finish("complete", counters=counters, notes=notes)
    for note in notes:
        observer.note(note)
    if render is not None:  # last: where nothing can be drawn, the figures are safe
        random = _random_play(env, seed, 0) if policy is None else None
        render_episode(env, policy, evaluation_seeds(0, env.num_envs, seed), render, random)
        observer.note(f"rendered episode 0 to {render}")
    return StageResult.complete(out, "evaluation", summary)
