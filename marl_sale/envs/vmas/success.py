"""What success is, in scenarios that have one. The end of an episode is none: falling ends it too."""

from collections.abc import Callable
from typing import Any

from jaxtyping import Bool
from torch import Tensor

from marl_sale.envs.vmas.task import Task

Rule = Callable[[Any], Bool[Tensor, " envs"]]
"""From the package's scenario, after a step, to the worlds in which the task is done."""


def success_of(task: Task) -> Rule | None:
    """None where the scenario defines no success."""
    if task.scenario == "discovery" and task.options["targets_respawn"]:
        return None  # targets never run out
    return _RULES.get(task.scenario)


def _ended(scenario: Any) -> Tensor:
    """Where the package ends an episode for no other reason."""
    done: Tensor = scenario.done()
    return done


def _balanced(scenario: Any) -> Tensor:
    delivered = scenario.world.is_overlapping(scenario.package, scenario.package.goal)
    standing: Tensor = delivered & ~scenario.on_the_ground
    return standing


def _ball_at_goal(scenario: Any) -> Tensor:
    away = scenario.ball.state.pos - scenario.goal.state.pos
    there: Tensor = away.norm(dim=1) <= 0.01
    return there


_RULES: dict[str, Rule] = {
    "balance": _balanced,
    "ball_passage": _ball_at_goal,
    "discovery": _ended,
    "dispersion": _ended,
    "dropout": _ended,
    "give_way": lambda scenario: scenario.goal_reached,
    "multi_give_way": lambda scenario: scenario.all_goal_reached,
    "navigation": _ended,
    "passage": _ended,
    "reverse_transport": _ended,
    "transport": _ended,
}
