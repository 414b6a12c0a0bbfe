"""How hard the micro tasks are: random play and scripted focus fire. `python -m benchmarks.micro [TASK …]`

By the script every agent attacks the weakest enemy in reach (a medivac heals the weakest mate); with none in
reach it walks to the nearest in sight, and waits where there is none. Where enemies have no place to walk to,
it walks to the nearest, wherever that is.
"""

import sys
from collections.abc import Callable

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from marl_sale.envs.micro import scenario_of
from marl_sale.envs.micro.battle import Battle
from marl_sale.envs.micro.combat import FIRST_TARGET
from marl_sale.envs.micro.maps import SMAC_MAPS
from marl_sale.envs.micro.smacv2 import RACES
from marl_sale.envs.micro.units import MEDIVAC
from marl_sale.seeding import evaluation_seeds
from marl_sale.spec import Observation

EPISODES = 64
_SIGHT = 9.0
_STOP = 1
Policy = Callable[[Battle, Observation, torch.Generator], Int64[Tensor, "envs agents"]]


def random_play(
    battle: Battle, shown: Observation, generator: torch.Generator
) -> Int64[Tensor, "envs agents"]:
    """Any available action."""
    weight = shown.avail_actions.flatten(0, 1).float()
    return torch.multinomial(weight, 1, generator=generator).view(shown.avail_actions.shape[:2])


def focus_fire(
    battle: Battle, shown: Observation, generator: torch.Generator
) -> Int64[Tensor, "envs agents"]:
    """Attack the weakest in reach, else walk to the nearest in sight."""
    combat, agents, avail = battle.combat, battle.combat.agents, shown.avail_actions
    strength = (combat.health + combat.shield).T  # [E, units]
    mates = torch.full((len(avail), avail.shape[-1] - FIRST_TARGET), torch.inf)
    width = min(agents, mates.shape[1])
    mates[:, :width] = (strength[:, :agents] + 1e3 * (combat.health >= combat.full_health)[:agents].T)[
        :, :width
    ]
    heals = (combat.kind[:agents] == MEDIVAC).T[..., None]
    weakness = torch.where(heals, mates[:, None], strength[:, None, agents:])
    target = weakness.masked_fill(~avail[..., FIRST_TARGET:], torch.inf).min(-1)

    way = combat.place[:, None, agents:] - combat.place[:, :agents, None]  # [2, agents, enemies, E]
    far = way.norm(dim=0).masked_fill(~combat.alive[agents:], torch.inf)
    near = far.min(1)
    dx, dy = way.gather(2, near.indices[None, :, None].expand(2, -1, -1, -1)).squeeze(2)
    north_or_south, east_or_west = torch.where(dy > 0, 2, 3), torch.where(dx > 0, 4, 5)
    walk = torch.where(dx.abs() > dy.abs(), east_or_west, north_or_south)
    if combat.scenario.goal is not None:  # they come by themselves
        walk = torch.where(near.values < _SIGHT, walk, _STOP)
    walk = walk.T
    action = torch.where(target.values < torch.inf, target.indices + FIRST_TARGET, walk)
    allowed = avail.gather(-1, action[..., None]).squeeze(-1)
    return torch.where(allowed, action, avail[..., _STOP].long())


def win_rate(task: str, policy: Policy, episodes: int = EPISODES) -> tuple[float, float, float]:
    """Win rate, mean return and mean length of episodes of the evaluation bank."""
    scenario = scenario_of(task)
    if scenario is None:
        raise SystemExit(f"no task {task!r}")
    battle, generator = Battle(scenario, episodes), torch.Generator().manual_seed(0)
    shown: Observation = battle.reset(np.asarray(evaluation_seeds(0, episodes)))
    total: Float32[Tensor, " envs"] = torch.zeros(episodes)
    length, over = torch.zeros(episodes), torch.zeros(episodes, dtype=torch.bool)
    while not over.all():
        length += ~over
        shown, reward, terminated, truncated, success = battle.step(policy(battle, shown, generator))
        total, over = total + reward, terminated | truncated
    return float(success.float().mean()), float(total.mean()), float(length.mean())


def main() -> None:
    """Print one row of a Markdown table for each task."""
    tasks = sys.argv[1:] or [*SMAC_MAPS, *(f"{race}_5_vs_5" for race in RACES)]
    torch.set_num_threads(1)
    for task in tasks:
        with torch.inference_mode():
            rows = [win_rate(task, policy) for policy in (random_play, focus_fire)]
        cells = [f"{won:.2f} | {total:.1f} | {length:.0f}" for won, total, length in rows]
        print(f"| `{task}` | {' | '.join(cells)} |", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
