"""Micro-management battles with the interface of SMAC and SMACv2, played by our own batched rules.

Not StarCraft II: agents see, choose and are rewarded as in `smac` and `smacv2`, but what units do
is decided in `combat.py`. Results are not comparable with those of the game.
"""

import difflib

from marl_sale.config import schema
from marl_sale.envs.micro.battle import Battle
from marl_sale.envs.micro.maps import SMAC_MAPS
from marl_sale.envs.micro.scenario import Scenario
from marl_sale.envs.micro.smacv2 import SMACV2_NAME, scenario
from marl_sale.errors import ConfigError
from marl_sale.spec import VectorEnv

_RANDOM_TEAMS = "{terran,protoss,zerg}_{5_vs_5,10_vs_10,10_vs_11,20_vs_20,20_vs_23}"


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Battles of the task `config.task`. Raises ConfigError for a wrong name, backend or mask."""
    problems, hints = [], []
    if config.backend != "native":
        problems.append(f"env.backend: found {config.backend!r}, allowed in family 'micro': native")
        hints.append("the game itself is in the families smac and smacv2")
    if not config.mask_actions:
        problems.append("env.mask_actions: found false, allowed in family 'micro': true")
        hints.append("SMAC accepts available actions only")
    found = scenario_of(config.task)
    if found is None:
        problems.append(
            f"env.task: found {config.task!r}, allowed in family 'micro': "
            f"{', '.join(SMAC_MAPS)}, {_RANDOM_TEAMS}"
        )
        near = difflib.get_close_matches(config.task, SMAC_MAPS, n=1)
        hints.append(f"did you mean {near[0]!r}?" if near else "for instance --set env.task=3m")
    if found is None or problems:
        raise ConfigError(problems, "; ".join(hints))
    return Battle(found, num_envs)


def scenario_of(task: str) -> Scenario | None:
    """The scenario with this name."""
    return scenario(task) if SMACV2_NAME.fullmatch(task) else SMAC_MAPS.get(task)
