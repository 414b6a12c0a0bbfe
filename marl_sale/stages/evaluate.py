"""eval: greedy episodes on the fixed seed bank."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

from marl_sale.analysis.statistics import mean_interval, wilson_interval
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.data.collect import Exploration, Policy, play
from marl_sale.envs._load import make_env
from marl_sale.observer import Observer
from marl_sale.seeding import evaluation_seeds
from marl_sale.spec import VectorEnv
from marl_sale.stages._artifacts import load_policy, recipe_of, require_same_task
from marl_sale.stages._machine import choose_device
from marl_sale.stages._render import render_episode
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
    env: VectorEnv, policy: Policy | None, episodes: int, *, bank: int = 0
) -> Iterator[EpisodeRow]:
    """Greedy episodes 0 … `episodes − 1` of a seed bank; `policy` None plays random available actions."""
    for first in range(0, episodes, env.num_envs):
        seeds = evaluation_seeds(first, env.num_envs, bank)
        random = Exploration.of_episodes(env.spec, 1.0, bank, first, env.num_envs, "evaluation")
        played = play(env, policy, seeds, random if policy is None else None)
        for i in range(min(env.num_envs, episodes - first)):
            yield EpisodeRow(
                episode=first + i,
                seed=int(seeds[i]),
                episode_return=float(played.episode_return[i]),
                episode_length=int(played.length[i]),
                success=bool(played.success[i]) if env.spec.has_success else None,
            )


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
    render: Path | None = None,
) -> StageResult:
    """Evaluate the agent artifact at `agent`; `seed` chooses the bank (0 is the standard one).

    Raises ArtifactError where the agent cannot be read or its task has changed since it was trained.
    """
    artifact = Artifact.open(agent, kind="agent", status=("complete", "interrupted", "running"))
    recipe = recipe_of(artifact)
    config = recipe.config
    where = choose_device(device, config.train.threads)
    chosen = artifact.checkpoint(_which(checkpoint))
    count = episodes or config.evaluation.episodes
    env = make_env(config.env, min(config.evaluation.num_envs, count))
    try:
        require_same_task(artifact, env.spec)
        policy = load_policy(chosen, config, env.spec).to(where)
        with Run.create(
            out,
            kind="evaluation",
            recipe=recipe.name,
            overrides=recipe.overrides,
            config_text=recipe.text,
            fingerprint=recipe.fingerprint,
            seed=seed,
            env_spec=env.spec.to_dict(),
            inputs=[artifact.as_input("agent")],
            command=command,
            device=str(where),
        ) as written:
            observer.start("eval", count, "episodes")
            columns = list(EpisodeRow.__annotations__)
            stream, rows = written.rows("episodes", columns), []
            for row in evaluate_policy(env, policy, count, bank=seed):
                stream.append(asdict(row))
                rows.append(row)
                observer.progress(len(rows), {"episode_return": row.episode_return})
            summary = {
                **summarise(rows),
                "checkpoint": chosen.step,
                "bank": seed,
                "agent_seed": artifact.manifest.seed,
            }
            written.write_json("report", summary)
            if render is not None:
                render_episode(env, policy, evaluation_seeds(0, env.num_envs, seed), render)
                observer.note(f"rendered episode 0 to {render}")
            counters = {"episodes": len(rows), "env_steps": sum(row.episode_length for row in rows)}
            written.finish("complete", counters=counters)
    finally:
        env.close()
        observer.finish()
    return StageResult(out, "evaluation", "complete", summary)


def _which(checkpoint: str) -> Literal["latest", "best"] | int:
    if checkpoint == "latest":
        return "latest"
    if checkpoint == "best":
        return "best"
    return int(checkpoint)
