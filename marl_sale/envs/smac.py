"""SMAC: battles of StarCraft II, with the published package `smac` in worker processes."""

import difflib
from collections.abc import Iterator
from functools import partial

from marl_sale.config import schema
from marl_sale.envs._findings import Finding
from marl_sale.envs._options import join_task, split_task
from marl_sale.envs._sc2 import findings, smac_battles
from marl_sale.envs._sc2_pool import OPTIONS, battles
from marl_sale.errors import ConfigError
from marl_sale.spec import VectorEnv

MAPS = (
    *("2s_vs_1sc", "2s3z", "3s5z", "1c3s5z", "10m_vs_11m"),
    *("2c_vs_64zg", "bane_vs_bane", "5m_vs_6m", "3s_vs_5z"),
    *("3s5z_vs_3s6z", "6h_vs_8z", "27m_vs_30m", "MMM2", "corridor"),
    *("3m", "8m", "25m", "8m_vs_9m", "MMM", "2m_vs_1z", "3s_vs_3z", "3s_vs_4z", "so_many_baneling"),
)
"""Easy, hard and super-hard ones, as papers group them; those of the last line belong to no group."""


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the map `config.task`. Raises ConfigError; EnvironmentFault where something is missing."""
    name, values = split_task("smac", config.task, OPTIONS)
    if name not in MAPS:
        nearest = difflib.get_close_matches(name, MAPS, n=1)
        raise ConfigError(
            [f"env.task: found {name!r}, allowed in family 'smac': {', '.join(MAPS)}"],
            f"did you mean {nearest[0]}?" if nearest else "for instance --set env.task=3s5z,difficulty=7",
        )
    factory = partial(smac_battles, name, str(values["difficulty"]))
    return battles(config, join_task(name, values, OPTIONS), factory, num_envs)


def diagnose() -> Iterator[Finding]:
    """For `marl-sale doctor`."""
    yield from findings("smac")
