"""The oracle of Level-Based Foraging: the package's own environment, with its own observations."""

from types import SimpleNamespace
from typing import Any

from lbforaging.foraging.environment import ForagingEnv

from marl_sale.envs.lbf.task import Task


def package_game(task: Task) -> Any:
    """The package's own environment, new, as its registry would make it."""
    game = ForagingEnv(
        players=task.players,
        min_player_level=task.min_player_level,
        max_player_level=task.max_player_level,
        field_size=(task.rows, task.cols),
        min_food_level=task.min_food_level,
        max_food_level=task.max_food_level,
        max_num_food=task.foods,
        sight=task.sight,
        max_episode_steps=50,
        force_coop=task.coop,
        grid_observation=False,
        penalty=task.penalty,
    )
    if task.rows != task.cols:  # its self-check of observations holds on squares only
        anything = SimpleNamespace(shape=(3 * (task.foods + task.players),), contains=lambda obs: True)
        game.observation_space = [anything] * task.players
    return game
