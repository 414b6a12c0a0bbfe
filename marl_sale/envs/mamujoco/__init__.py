"""Multi-Agent MuJoCo: the joints of one simulated body shared out among agents, by `gymnasium_robotics`."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from marl_sale.config import schema
from marl_sale.envs._findings import Finding, graphics, package
from marl_sale.errors import ConfigError

if TYPE_CHECKING:
    import marl_sale.spec


def make(config: schema.Env, num_envs: int) -> "marl_sale.spec.VectorEnv":
    """Copies of the task `config.task`. Raises ConfigError for a wrong name or protocol."""
    problems = {
        "env.backend: found 'native', family 'mamujoco' has the published package only": (
            config.backend == "native"
        ),
        "env.mask_actions: found true, but no torque is useless: family 'mamujoco' masks no action": (
            config.mask_actions
        ),
    }
    if any(problems.values()):
        raise ConfigError(
            [text for text, wrong in problems.items() if wrong],
            "--set env.backend=original --set env.mask_actions=false",
        )
    # Not above: a worker process comes past here, and is to start without torch.
    from marl_sale.envs.mamujoco.env import copies
    from marl_sale.envs.mamujoco.task import Task

    return copies(Task.parse(config.task), num_envs)


def diagnose() -> Iterator[Finding]:
    """For `marl-sale doctor`."""
    yield package("gymnasium-robotics")
    yield from graphics()
