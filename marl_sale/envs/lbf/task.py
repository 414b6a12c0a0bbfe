"""What both backends of Level-Based Foraging share: names of tasks, their sizes, pictures."""

import re
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from jaxtyping import UInt8

from marl_sale.envs._board import FOOD, Piece, agent_colour, draw_board
from marl_sale.errors import ConfigError
from marl_sale.spec import EnvSpec

TIME_LIMIT = 50
"""Env steps of the longest episode, in every published task."""
N_ACTIONS = 6
"""None, north, south, west, east, load."""
LOAD = 5

_NUMBER = r"([1-9]\d?)"
_NAME = re.compile(
    rf"(?:Foraging-)?(?:{_NUMBER}s-)?{_NUMBER}x{_NUMBER}-{_NUMBER}p-{_NUMBER}f"
    r"(-coop)?(-ind)?(-pen)?(?:-v([23]))?"
)
_GRAMMAR = "[<sight>s-]<rows>x<columns>-<players>p-<foods>f[-coop][-ind][-pen][-v2], numbers from 1 to 99"
_EXAMPLE = "for instance --set env.task=2s-8x8-2p-2f-coop, or the published id Foraging-2s-8x8-2p-2f-coop-v3"
_PENALTY = 0.1

Cell = tuple[int, int, int]
"""Row, column and level of a food or an agent."""


@dataclass(frozen=True)
class Task:
    """What the name of a task says. `str(task)` is its canonical name, which `parse` reads back.

    The numbers that no name can change have the values of every published task.
    """

    rows: int
    cols: int
    players: int
    foods: int
    sight: int
    """Cells an agent sees in each direction; from the longer side of the grid on, everything."""
    coop: bool
    """Each food has the highest level it can have."""
    version: int
    """3; or 2, where without `coop` no food has the highest level it could have."""
    max_food_level: int | None = None
    """None: the sum of the three lowest levels of agents (of all, where there are fewer)."""
    penalty: float = 0.0
    """Taken from the reward of each agent that loads in vain."""
    min_player_level: int = 1
    max_player_level: int = 2
    min_food_level: int = 1

    @classmethod
    def parse(cls, name: str) -> "Task":
        """Read a short name (`2s-8x8-2p-2f-coop`) or a published id (`Foraging-…-v3`, `Foraging-…-v2`).

        Raises ConfigError with every problem of the name.
        """
        found = _NAME.fullmatch(name)
        if found is None:
            raise ConfigError([f"env.task: found {name!r}, allowed in family 'lbf': {_GRAMMAR}"], _EXAMPLE)
        sight, rows, cols, players, foods = (int(text or 99) for text in found.groups()[:5])
        coop, alone, penalised, version = found.groups()[5:]
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
        return cls(
            rows,
            cols,
            players,
            foods,
            sight=min(sight, max(rows, cols)),
            coop=bool(coop),
            version=int(version or 3),
            max_food_level=1 if alone else None,
            penalty=_PENALTY if penalised else 0.0,
        )

    def __str__(self) -> str:
        sight = f"{self.sight}s-" if self.sight < max(self.rows, self.cols) else ""
        size = f"{self.rows}x{self.cols}-{self.players}p-{self.foods}f"
        rules = "-coop" * self.coop + "-ind" * (self.max_food_level is not None) + "-pen" * bool(self.penalty)
        return f"{sight}{size}{rules}{'-v2' * (self.version == 2)}"

    @property
    def obs_size(self) -> int:
        """Row, column and level of each food, of the agent itself and of the others."""
        return 3 * (self.foods + self.players)

    @property
    def sees_everything(self) -> bool:
        return self.sight >= max(self.rows, self.cols)

    def obs_scale(self, scale_obs: bool) -> float:
        """What observations are divided by."""
        return float(max(self.rows, self.cols)) if scale_obs else 1.0

    def spec(self, backend: str, mask_actions: bool, scale_obs: bool) -> EnvSpec:
        """Sizes and rules, and what a reader of a result must know."""
        notes = ["useless actions masked" if mask_actions else "every action available (published protocol)"]
        if scale_obs:
            notes.append(f"observations divided by {self.obs_scale(scale_obs):g}")
        if self.version == 2:
            notes.append("levels of foods as in version 2" + " (with coop: as in version 3)" * self.coop)
        return EnvSpec(
            family="lbf",
            task=str(self),
            backend=backend,
            n_agents=self.players,
            n_actions=N_ACTIONS,
            obs_size=self.obs_size,
            state_size=self.players * self.obs_size,
            episode_limit=TIME_LIMIT,
            masks_actions=mask_actions,
            has_success=True,
            notes="; ".join(notes),
        )

    def picture(
        self, foods: Iterable[Cell], agents: Iterable[Cell], step: int, spawned: int
    ) -> UInt8[np.ndarray, "height width 3"]:
        """The grid, without a display; `spawned` is the sum of all foods' levels at the start."""
        squares = [Piece(r, c, str(level), FOOD, "square") for r, c, level in foods]
        discs = [Piece(r, c, str(level), agent_colour(i)) for i, (r, c, level) in enumerate(agents)]
        left = sum(int(piece.label) for piece in squares)
        state = f"food left {left} of {spawned}" if left else "all food collected"
        return draw_board(self.rows, self.cols, squares + discs, f"step {step} of {TIME_LIMIT}   ·   {state}")
