"""Random play of a MuJoCo body in this process, and in worker processes.

Rounds of `play`, as in `families`. CPU seconds are those of this process and of its workers together.
"""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path
from time import perf_counter, process_time

import numpy as np

from benchmarks.record import Record
from benchmarks.timing import QUICK, Effort, Lap, take_turns
from marl_sale.config.recipe import load_recipe
from marl_sale.data.collect import Exploration, play
from marl_sale.envs._load import make_env
from marl_sale.envs._pool import WORKERS
from marl_sale.errors import EnvironmentFault
from marl_sale.seeding import evaluation_seeds

RECIPE = "mamujoco/halfcheetah-2x3"
LIMIT = 200
"""Of an episode, in env steps, in place of 1,000: nothing falls, so that every step costs the same."""
COPIES = (1, 8, 32)
PROCESSES = (1, 2)
"""One is this process itself."""


def rounds(num_envs: int, processes: int) -> Callable[[], Lap]:
    """A lap of one round of episodes with so many workers; one: no worker."""
    task = f"env.task={load_recipe(RECIPE).config.env.task},limit={LIMIT}"
    before = os.environ.get(WORKERS)
    os.environ[WORKERS] = str(processes)
    try:
        env = make_env(load_recipe(RECIPE, [task]).config.env, num_envs)
    finally:
        if before is None:
            del os.environ[WORKERS]
        else:
            os.environ[WORKERS] = before
    seeds = evaluation_seeds(0, num_envs)

    def lap() -> Lap:
        noise = Exploration.of_episodes(env.spec, 1.0, 0, 0, num_envs, "evaluation")
        cpu, wall = _cpu_seconds(), perf_counter()
        steps = play(env, None, seeds, noise).steps
        return Lap((_cpu_seconds() - cpu) / steps, (perf_counter() - wall) / steps)

    return lap


def _cpu_seconds() -> float:
    """Of this process and its children so far. The workers of other pieces wait, which takes none."""
    ticks = 0
    for child in multiprocessing.active_children():
        # After the name in brackets: state is field 3, user and system time are fields 14 and 15.
        fields = Path(f"/proc/{child.pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return process_time() + ticks / os.sysconf("SC_CLK_TCK")


def run(quick: bool) -> list[Record]:
    """Each number of copies, in this process and in two workers, in turn; nothing where there is no /proc."""
    if not Path("/proc/self/stat").exists():
        return []
    effort = QUICK if quick else Effort(rounds=7, seconds=60)
    records = []
    for num_envs in COPIES[1:2] if quick else COPIES:
        try:
            pieces = {str(n): rounds(num_envs, n) for n in PROCESSES if n <= num_envs}
            laps = take_turns(pieces, effort)
        except EnvironmentFault:
            return []
        for name, found in laps.items():
            figures = {
                "steps per second": 1 / float(np.median([lap.wall for lap in found])),
                "steps per CPU second": 1 / float(np.median([lap.cpu for lap in found])),
            }
            where = {"environments": num_envs, "workers": 0 if name == "1" else int(name)}
            records.append(Record("random play", RECIPE, "env step", found, where, figures))
    return records
