"""Acting and stepping together: rounds of `play` with an untrained QMIX agent, as training collects them.

The exploration noise of a round is drawn within its time, as in training.
"""

from collections.abc import Callable

from benchmarks.env import steps_per_second
from benchmarks.record import Record
from benchmarks.shapes import QMIX
from benchmarks.timing import QUICK, Effort, Lap, take_turns, timed
from marl_sale.data.collect import Exploration, play
from marl_sale.envs._load import make_env
from marl_sale.seeding import episode_seeds

ENVIRONMENTS = (8, 32, 128, 512)
EPSILON = 0.05


def rounds(num_envs: int, episodes: int) -> Callable[[], Lap]:
    """A lap of whole rounds with at least so many episodes; units are the steps of their real lengths."""
    env = make_env(QMIX.config().env, num_envs)
    agent = QMIX.build(env.spec, "cpu").agent

    def collect() -> int:
        steps = 0
        for first in range(0, episodes, num_envs):
            noise = Exploration.of_episodes(env.spec, EPSILON, 0, first, num_envs)
            steps += play(env, agent, episode_seeds(0, first, num_envs), noise).steps
        return steps

    return timed(collect)


def run(quick: bool) -> list[Record]:
    """Each number of environments in turn, on the same episodes."""
    effort = QUICK if quick else Effort(rounds=7, seconds=10)
    sizes = ENVIRONMENTS[:2] if quick else ENVIRONMENTS
    config = QMIX.config().env
    laps = take_turns({str(n): rounds(n, max(32, n)) for n in sizes}, effort)
    return [
        Record(
            "acting and stepping",
            config.task,
            "env step",
            laps[str(n)],
            {"environments": n},
            {"steps per CPU second": steps_per_second(laps[str(n)])},
        )
        for n in sizes
    ]
