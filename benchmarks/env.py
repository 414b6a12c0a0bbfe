"""Steps of Level-Based Foraging: ours, natively and through the package, and the package on its own.

Random actions, drawn beforehand; observations are made and finished games reset within the time. The package
plays one game, with its own observations: it knows no other way.
"""

from collections.abc import Callable

import numpy as np
import torch
from lbforaging.foraging.environment import ForagingEnv

from benchmarks.record import Record
from benchmarks.timing import QUICK, Effort, Lap, paired_ratio, take_turns, timed
from marl_sale.config.recipe import load_recipe
from marl_sale.envs._load import make_env
from marl_sale.envs.lbf.original import package_arguments
from marl_sale.envs.lbf.task import N_ACTIONS, TIME_LIMIT, Task
from marl_sale.seeding import numpy_generator, torch_generator

TASKS = ("8x8-2p-2f-coop", "10x10-3p-5f", "15x15-4p-5f", "2s-8x8-2p-2f-coop")
NATIVE = (1, 8, 32, 512, 4096)
ORIGINAL = (8, 32)
LONGEST_EPISODES = 8
"""A lap has at least so many, and at least one in each game: that no reset for the time limit is left out."""


def ours(task: str, backend: str, num_envs: int) -> Callable[[], Lap]:
    """A lap of our interface; the more games at once, the fewer steps."""
    config = load_recipe("lbf/_family", [f"env.task={task}", f"env.backend={backend}"]).config
    env = make_env(config.env, num_envs)
    times = TIME_LIMIT * max(1, LONGEST_EPISODES // num_envs)
    shape = (times, num_envs, env.spec.n_agents)
    actions = torch.randint(N_ACTIONS, shape, generator=torch_generator(0, "benchmark actions"))
    seeds = np.arange(num_envs)
    env.reset(seeds)

    def play() -> int:
        nonlocal seeds
        for joint in actions:
            done = env.step(joint)
            over = done.terminated | done.truncated
            if over.any():
                seeds = seeds + num_envs
                env.reset(seeds, over)
        return times * num_envs

    return timed(play)


def package(task: str) -> Callable[[], Lap]:
    """A lap of the package's own environment."""
    game = ForagingEnv(**package_arguments(Task.parse(task)))
    shape = (TIME_LIMIT * LONGEST_EPISODES, len(game.players))
    actions = numpy_generator(0, "benchmark actions").integers(N_ACTIONS, size=shape).tolist()
    seed = 0
    game.reset(seed=seed)

    def play() -> int:
        nonlocal seed
        for joint in actions:
            _, _, terminated, truncated, _ = game.step(joint)
            if terminated or truncated:
                seed += 1
                game.reset(seed=seed)
        return len(actions)

    return timed(play)


def run(quick: bool) -> list[Record]:
    """Each task's backends, taking turns with the package."""
    effort = QUICK if quick else Effort(rounds=9, seconds=8)
    records = []
    for task in TASKS[:1] if quick else TASKS:
        games = [("native", n) for n in ((1, 32) if quick else NATIVE)]
        games += [("original", n) for n in (() if quick else ORIGINAL)]
        pieces = {f"{backend} {n}": ours(task, backend, n) for backend, n in games}
        laps = take_turns({"package": package(task), **pieces}, effort)
        for name, (backend, n) in zip(laps, [("package", 1), *games], strict=True):
            ratio = 1 / paired_ratio(laps[name], laps["package"])
            records.append(_record(task, backend, n, laps[name], ratio))
    return records


def _record(task: str, backend: str, num_envs: int, laps: tuple[Lap, ...], ratio: float) -> Record:
    figures = {"steps per CPU second": steps_per_second(laps), "x package": ratio}
    return Record(f"{backend} backend", task, "env step", laps, {"environments": num_envs}, figures)


def steps_per_second(laps: tuple[Lap, ...]) -> float:
    """Env steps in a second of the CPU."""
    return 1 / float(np.median([lap.cpu for lap in laps]))
