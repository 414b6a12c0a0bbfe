"""Level-Based Foraging: the published package `lbforaging` behind our interface.

Rules, rewards and random draws are the package's own. Only what it spends four fifths of its time on is
built here instead, with equal results: observations, valid moves, and no self-checks of observations.
"""

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from lbforaging.foraging.environment import Action, ForagingEnv
from torch import Tensor

from marl_sale.config import schema
from marl_sale.envs._board import FOOD, Piece, agent_colour, draw_board
from marl_sale.errors import ConfigError
from marl_sale.spec import EnvSpec, Observation, Transition, VectorEnv

TIME_LIMIT = 50
"""Env steps of the longest episode, in every published task."""

_NUMBER = r"([1-9]\d?)"
_NAME = re.compile(
    rf"(?:Foraging-)?(?:{_NUMBER}s-)?{_NUMBER}x{_NUMBER}-{_NUMBER}p-{_NUMBER}f(-coop)?(?:-v([23]))?"
)
_GRAMMAR = "[<sight>s-]<rows>x<columns>-<players>p-<foods>f[-coop][-v2], numbers from 1 to 99"
_EXAMPLE = "for instance --set env.task=2s-8x8-2p-2f-coop, or the published id Foraging-2s-8x8-2p-2f-coop-v3"

_UNSEEN = [-1, -1, 0]
_FREE = [[action for bit, action in enumerate(Action) if code >> bit & 1] for code in range(64)]
"""Actions of each code; bit k of a code says that action k is valid."""
_AVAIL = (np.arange(64)[:, None] >> np.arange(6) & 1).astype(bool)


@dataclass(frozen=True)
class Task:
    """What the name of a task says. `str(task)` is its canonical name, which `parse` reads back."""

    rows: int
    cols: int
    players: int
    foods: int
    sight: int
    """Cells an agent sees in each direction; from the longer side of the grid on, everything."""
    coop: bool
    """Each food needs the three weakest agents together (or all, where there are fewer)."""
    version: int
    """3; or 2, where without `coop` no food needs the three weakest agents together."""

    @classmethod
    def parse(cls, name: str) -> "Task":
        """Read a short name (`2s-8x8-2p-2f-coop`) or a published id (`Foraging-…-v3`, `Foraging-…-v2`).

        Raises ConfigError with every problem of the name.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ConfigError([f"env.task: found {name!r}, allowed in family 'lbf': {_GRAMMAR}"], _EXAMPLE)
        sight, rows, cols, players, foods = (int(text or 99) for text in found.groups()[:5])
        inner = (rows - 2) * (cols - 2)
        problems = {
            f"{rows}x{cols}: the smallest grid is 5x5": min(rows, cols) < 5,
            f"{players}p: at most {inner} players have room on {rows}x{cols}": players > inner,
            f"{foods}f: at most {inner} foods have room on {rows}x{cols}": foods > inner,
        }
        if any(problems.values()):
            raise ConfigError(
                [f"env.task {name!r}: {text}" for text, bad in problems.items() if bad], _EXAMPLE
            )
        sight = min(sight, max(rows, cols))
        return cls(rows, cols, players, foods, sight, coop=bool(found[6]), version=int(found[7] or 3))

    def __str__(self) -> str:
        sight = f"{self.sight}s-" if self.sight < max(self.rows, self.cols) else ""
        size = f"{self.rows}x{self.cols}-{self.players}p-{self.foods}f"
        return f"{sight}{size}{'-coop' * self.coop}{'-v2' * (self.version == 2)}"


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the task `config.task`. Raises ConfigError for a wrong name or backend."""
    if config.backend == "native":
        raise ConfigError(
            ["env.backend: found 'native', allowed in family 'lbf': original (native is not available yet)"],
            "--set env.backend=original",
        )
    return Foraging(Task.parse(config.task), config.mask_actions, config.scale_obs, num_envs)


class Game(ForagingEnv):  # type: ignore[misc]  # the package has no types
    """One game with the package's rules; `reset` and `step` return no observations: `views` does.

    Attributes: `foods`, level of the food in each cell that has one, row by row; `codes`, per player, bit k
    set if action k is valid.
    """

    foods: dict[tuple[int, int], int]
    codes: list[int]

    def __init__(self, task: Task) -> None:
        self._v2 = task.version == 2
        super().__init__(
            players=task.players,
            min_player_level=1,
            max_player_level=2,
            min_food_level=1,
            max_food_level=None,
            field_size=(task.rows, task.cols),
            max_num_food=task.foods,
            sight=task.sight,
            max_episode_steps=TIME_LIMIT,
            force_coop=task.coop,
        )

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


class Foraging:
    """E games of one task."""

    def __init__(self, task: Task, mask_actions: bool, scale_obs: bool, num_envs: int) -> None:
        obs_size = 3 * (task.foods + task.players)
        self._scale = np.float32(max(task.rows, task.cols) if scale_obs else 1)
        notes = ["useless actions masked" if mask_actions else "every action available (published protocol)"]
        if scale_obs:
            notes.append(f"observations divided by {self._scale:g}")
        if task.version == 2:
            notes.append("levels of foods as in version 2" + " (with coop: as in version 3)" * task.coop)
        self.num_envs = num_envs
        self.spec = EnvSpec(
            family="lbf",
            task=str(task),
            backend="original",
            n_agents=task.players,
            n_actions=len(Action),
            obs_size=obs_size,
            state_size=task.players * obs_size,
            episode_limit=TIME_LIMIT,
            masks_actions=mask_actions,
            has_success=True,
            notes="; ".join(notes),
        )
        self._games = [Game(task) for _ in range(num_envs)]
        self._views = np.zeros((num_envs, task.players, obs_size), dtype=np.float32)
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
        foods = [Piece(r, c, str(level), FOOD, "square") for (r, c), level in game.foods.items()]
        agents = [
            Piece(p.position[0], p.position[1], str(p.level), agent_colour(i))
            for i, p in enumerate(game.players)
        ]
        left = sum(game.foods.values())
        caption = f"step {game.current_step} of {TIME_LIMIT}   ·   " + (
            f"food left {left} of {game._food_spawned}" if left else "all food collected"
        )
        return draw_board(game.rows, game.cols, foods + agents, caption)

    def close(self) -> None:
        pass

    def _look(self, index: int) -> None:
        self._views[index] = self._games[index].views()
        self._codes[index] = self._games[index].codes

    def _observation(self) -> Observation:
        obs = torch.from_numpy(self._views / self._scale)
        codes = self._codes if self.spec.masks_actions else np.full_like(self._codes, 63)
        return Observation(obs, obs.flatten(1).clone(), torch.from_numpy(_AVAIL[codes]))
