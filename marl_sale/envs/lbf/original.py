"""The published package `lbforaging` behind our interface.

Rules, rewards and random draws are the package's own. Only what it spends four fifths of its time on is
built here instead, with equal results: observations, valid moves, and no self-checks of observations.
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from lbforaging.foraging.environment import Action, ForagingEnv
from torch import Tensor

from marl_sale.envs.lbf.task import TIME_LIMIT, Task
from marl_sale.spec import Observation, Transition

_UNSEEN = [-1, -1, 0]
_FREE = [[action for bit, action in enumerate(Action) if code >> bit & 1] for code in range(64)]
"""Actions of each code; bit k of a code says that action k is valid."""
_AVAIL = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(bool)


def package_arguments(task: Task) -> dict[str, Any]:
    """What the package's environment is built with."""
    return {
        "players": task.players,
        "min_player_level": task.min_player_level,
        "max_player_level": task.max_player_level,
        "min_food_level": task.min_food_level,
        "max_food_level": task.max_food_level,
        "field_size": (task.rows, task.cols),
        "max_num_food": task.foods,
        "sight": task.sight,
        "max_episode_steps": TIME_LIMIT,
        "force_coop": task.coop,
        "penalty": task.penalty,
    }


class Game(ForagingEnv):  # type: ignore[misc]  # the package has no types
    """One game with the package's rules; `reset` and `step` return no observations: `views` does.

    Attributes: `foods`, level of the food in each cell that has one, row by row; `codes`, per player, bit k
    set if action k is valid.
    """

    foods: dict[tuple[int, int], int]
    codes: list[int]

    def __init__(self, task: Task) -> None:
        self._v2 = task.version == 2
        super().__init__(**package_arguments(task))

    def reset(self, seed: int | None = None, options: dict[str, Any] | None = None) -> Any:
        # The package keeps the last episode's positions while it places the players, so that an episode
        # would depend on the one before.
        for player in self.players:
            player.position = None
        return super().reset(seed=seed, options=options)

    def spawn_food(self, max_num_food: int, min_levels: Any, max_levels: Any) -> None:
        if self._v2 and not self.force_coop:
            max_levels = np.maximum(max_levels - 1, 1)  # version 2 drew below its upper bound
        super().spawn_food(max_num_food, min_levels, max_levels)
        for player in self.players:  # plain numbers: NumPy's scalars are slow
            player.position = (int(player.position[0]), int(player.position[1]))
            player.level = int(player.level)
        self._list_foods()

    def views(self) -> list[list[int]]:
        """Observation of each player, as the package defines it: foods, itself, then the others.

        Cells count from the upper left corner of what the player sees; (−1, −1, 0) stands for the unseen.
        """
        if self.sight >= max(self.rows, self.cols):
            return self._whole_views()
        sight, span = self.sight, 2 * self.sight
        rows = []
        for player in self.players:
            row, col = player.position
            top, left = max(row - sight, 0), max(col - sight, 0)
            foods: list[int] = []
            for (r, c), level in self.foods.items():
                if -sight <= r - row <= sight and -sight <= c - col <= sight:
                    foods += (r - top, c - left, level)
            agents = [row - top, col - left, player.level]
            for other in self.players:
                if other is not player:
                    r, c = other.position
                    if top <= r <= top + span and left <= c <= left + span:
                        agents += (r - top, c - left, other.level)
            unseen_foods = self.max_num_food - len(foods) // 3
            unseen_agents = len(self.players) - len(agents) // 3
            rows.append(foods + _UNSEEN * unseen_foods + agents + _UNSEEN * unseen_agents)
        return rows

    def _whole_views(self) -> list[list[int]]:
        """The same where everybody sees everything: the views differ in the order of the agents only."""
        foods = [number for (r, c), level in self.foods.items() for number in (r, c, level)]
        foods += _UNSEEN * (self.max_num_food - len(self.foods))
        agents = [number for player in self.players for number in (*player.position, player.level)]
        return [foods + agents[k : k + 3] + agents[:k] + agents[k + 3 :] for k in range(0, len(agents), 3)]

    def _list_foods(self) -> None:
        self.foods = {(r, c): int(self.field[r, c]) for r, c in np.argwhere(self.field).tolist()}

    def _gen_valid_moves(self) -> None:
        if any(player.reward > 0 for player in self.players):
            self._list_foods()
        foods, bottom, right = self.foods, self.rows - 1, self.cols - 1
        self.codes = []
        for player in self.players:
            row, col = player.position
            north, south = (row - 1, col) in foods, (row + 1, col) in foods
            west, east = (row, col - 1) in foods, (row, col + 1) in foods
            self.codes.append(
                1
                | (row > 0 and not north) << 1
                | (row < bottom and not south) << 2
                | (col > 0 and not west) << 3
                | (col < right and not east) << 4
                | (north or south or west or east) << 5
            )
        self._valid_actions = {
            player: _FREE[code] for player, code in zip(self.players, self.codes, strict=True)
        }

    def _make_gym_obs(self) -> tuple[()]:
        return ()


class OriginalForaging:
    """E games of one task."""

    def __init__(self, task: Task, mask_actions: bool, scale_obs: bool, num_envs: int) -> None:
        self.num_envs, self._task = num_envs, task
        self.spec = task.spec("original", mask_actions, scale_obs)
        self._scale = np.float32(task.obs_scale(scale_obs))
        self._games = [Game(task) for _ in range(num_envs)]
        self._views = np.zeros((num_envs, task.players, task.obs_size), dtype=np.float32)
        self._codes = np.full((num_envs, task.players), 63)
        self._success = np.zeros(num_envs, dtype=bool)
        self._truncated = np.zeros(num_envs, dtype=bool)

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = range(self.num_envs) if mask is None else mask.nonzero().flatten().tolist()
        for index in chosen:
            self._games[index].reset(seed=int(seeds[index]))
            self._look(index)
            self._success[index] = self._truncated[index] = False
        return self._observation()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        reward = np.zeros(self.num_envs, dtype=np.float32)
        over = (self._success | self._truncated).tolist()
        for index, joint_action in enumerate(actions.tolist()):
            if over[index]:
                continue
            game = self._games[index]
            _, rewards, ended, _, _ = game.step(joint_action)
            reward[index] = sum(rewards)
            if ended:  # by the last food or by the limit: the package does not say which
                self._success[index] = not game.foods
                self._truncated[index] = bool(game.foods)
            self._look(index)
        return Transition(
            self._observation(),
            torch.from_numpy(reward),
            torch.from_numpy(self._success.copy()),
            torch.from_numpy(self._truncated.copy()),
            torch.from_numpy(self._success.copy()),
        )

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        game = self._games[index]
        foods = [(r, c, level) for (r, c), level in game.foods.items()]
        agents = [(*p.position, p.level) for p in game.players]
        return self._task.picture(foods, agents, game.current_step, int(game._food_spawned))

    def close(self) -> None:
        pass

    def _look(self, index: int) -> None:
        self._views[index] = self._games[index].views()
        self._codes[index] = self._games[index].codes

    def _observation(self) -> Observation:
        obs = torch.from_numpy(self._views / self._scale)
        codes = self._codes if self.spec.masks_actions else np.full_like(self._codes, 63)
        return Observation(obs, obs.flatten(1).clone(), torch.from_numpy(_AVAIL[codes]))
