"""VMAS: continuous two-dimensional worlds of the published package, many at once, with discrete actions."""

from collections.abc import Iterator

from marl_sale.config import schema
from marl_sale.envs._findings import Finding, graphics, package
from marl_sale.envs.vmas.task import Task
from marl_sale.errors import ConfigError
from marl_sale.spec import VectorEnv


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the task `config.task`. Raises ConfigError for a wrong name or what VMAS cannot do."""
    problems = {
        "env.backend: found 'native', allowed in family 'vmas': original": config.backend == "native",
        "env.mask_actions: found true, allowed in family 'vmas': false": config.mask_actions,
    }
    if any(problems.values()):
        raise ConfigError(
            [text for text, wrong in problems.items() if wrong],
            "VMAS is already batched, and every action is always possible in it; "
            "see docs/env-vmas.md, or start from a recipe such as vmas/balance",
        )
    task = Task.parse(config.task)
    from marl_sale.envs.vmas.worlds import Worlds  # the package, for those who play

    return Worlds(task, num_envs)


def diagnose() -> Iterator[Finding]:
    """For `marl-sale doctor`."""
    yield package("vmas")
    yield from graphics()
