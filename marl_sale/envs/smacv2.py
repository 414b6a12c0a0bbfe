"""SMACv2: battles of StarCraft II between drawn teams, with the published package `smacv2` in workers."""

import re
from collections.abc import Iterator
from functools import partial

from marl_sale.config import schema
from marl_sale.envs._findings import Finding
from marl_sale.envs._options import join_task, split_task
from marl_sale.envs._sc2 import findings, smacv2_battles, smacv2_max_reward
from marl_sale.envs._sc2_pool import OPTIONS, battles
from marl_sale.errors import ConfigError
from marl_sale.spec import VectorEnv

_NAME = re.compile(r"(terran|protoss|zerg)_([1-9]\d?)_vs_([1-9]\d?)")


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the task `config.task`. Raises ConfigError; EnvironmentFault where something is missing."""
    name, values = split_task("smacv2", config.task, OPTIONS)
    found = _NAME.fullmatch(name)
    if found is None:
        raise ConfigError(
            [f"env.task: found {name!r}, allowed in family 'smacv2': <race>_<agents>_vs_<enemies>"],
            "for instance --set env.task=terran_5_vs_5; races: terran, protoss, zerg",
        )
    race, agents, enemies = found[1], int(found[2]), int(found[3])
    factory = partial(smacv2_battles, race, agents, enemies, str(values["difficulty"]))
    scale = f"rewards scaled by {smacv2_max_reward(race, enemies):g} / 20 (the package: by its first team)"
    return battles(config, join_task(name, values, OPTIONS), factory, num_envs, scale)


def diagnose() -> Iterator[Finding]:
    """For `marl-sale doctor`."""
    yield from findings("smacv2")
