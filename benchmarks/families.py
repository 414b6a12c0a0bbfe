"""Random play in each environment family: steps with observations, resets and the choice of actions.

Rounds of `play`, as `marl-sale eval --random` plays them. Families that are not installed are left out.
"""

import sys
from collections.abc import Callable

from benchmarks.env import steps_per_second
from benchmarks.record import Record
from benchmarks.timing import QUICK, Effort, Lap, take_turns, timed
from marl_sale.config.recipe import load_recipe
from marl_sale.data.collect import Exploration, play
from marl_sale.envs._load import make_env
from marl_sale.errors import EnvironmentFault
from marl_sale.seeding import evaluation_seeds

RECIPES = {
    "lbf/8x8-2p-2f-coop": (8, 32, 512),
    "micro/3m": (8, 32, 512),
    "micro/2s3z": (8, 32, 512),
    "micro/3s5z": (8, 32, 512),
    "vmas/balance": (8, 32, 512),
    "vmas/transport": (8, 32, 512),
    "mamujoco/halfcheetah-2x3": (
        1,
    ),  # more would play in processes of their own, whose time is not seen here
}


def rounds(recipe: str, num_envs: int) -> Callable[[], Lap]:
    """A lap of one round of episodes; units are the steps of their real lengths."""
    env = make_env(load_recipe(recipe).config.env, num_envs)
    seeds = evaluation_seeds(0, num_envs)

    def round_of_episodes() -> int:
        noise = Exploration.of_episodes(env.spec, 1.0, 0, 0, num_envs, "evaluation")
        return play(env, None, seeds, noise).steps

    return timed(round_of_episodes)


def run(quick: bool) -> list[Record]:
    """Each recipe with each number of environments, in turn."""
    effort = QUICK if quick else Effort(rounds=5, seconds=20)
    records = []
    for recipe in list(RECIPES)[:2] if quick else RECIPES:
        sizes = RECIPES[recipe][:1] if quick else RECIPES[recipe]
        try:
            laps = take_turns({str(n): rounds(recipe, n) for n in sizes}, effort)
        except EnvironmentFault as fault:
            sys.stderr.write(f"{recipe}: left out: {fault.what}\n")
            continue
        for n in sizes:
            figures = {"steps per CPU second": steps_per_second(laps[str(n)])}
            records.append(
                Record("random play", recipe, "env step", laps[str(n)], {"environments": n}, figures)
            )
    return records
