"""A built-in task for tests and smoke runs: microseconds per step, learnable in a few thousand steps.

`match` (or `match-<cells>`): two agents stand on different cells of a line and must press in the same step
while on the same cell. An agent sees its own cell, and on which side its mate is if at most two cells away.
Reward 1 and success when they do; the time limit is twice the number of cells.
"""

import re

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor
from torch.nn.functional import one_hot

from marl_sale.config import schema
from marl_sale.envs._board import Piece, agent_colour, draw_board
from marl_sale.errors import ConfigError
from marl_sale.spec import EnvSpec, Observation, Transition, VectorEnv

STAY, LEFT, RIGHT, PRESS = range(4)
_SIGHT = 2


def make(config: schema.Env, num_envs: int) -> VectorEnv:
    """Copies of the task `config.task`. Backend and scaling do not apply: there is one of each."""
    name = re.fullmatch(r"match(?:-([3-9]|[1-5]\d|6[0-4]))?", config.task)
    if name is None:
        raise ConfigError(
            [f"env.task: found {config.task!r}, allowed in family 'tiny': match, match-3 … match-64"],
            "for instance --set env.task=match-7 (a line of 7 cells)",
        )
    return Match(int(name[1] or 5), config.mask_actions, num_envs)


class Match:
    """E copies of the task on a line of `cells` cells, as one batch of tensors."""

    def __init__(self, cells: int, mask_actions: bool, num_envs: int) -> None:
        self.num_envs = num_envs
        self.spec = EnvSpec(
            family="tiny",
            task="match" if cells == 5 else f"match-{cells}",
            backend="native",
            n_agents=2,
            n_actions=4,
            obs_size=cells + 3,
            state_size=2 * cells,
            episode_limit=2 * cells,
            masks_actions=mask_actions,
            has_success=True,
        )
        self._cells = cells
        self._place = torch.zeros(num_envs, dtype=torch.int64)  # both cells as one number, and the key of:
        self._cell = torch.cartesian_prod(torch.arange(cells), torch.arange(cells))
        self._views = _views(self._cell, cells, mask_actions)
        moved = (torch.arange(cells)[:, None] + torch.tensor([0, -1, 1, 0])).clamp(0, cells - 1)
        self._next = moved[self._cell[:, 0], :, None] * cells + moved[self._cell[:, 1], None, :]
        self._time = torch.zeros(num_envs, dtype=torch.int64)
        self._success = torch.zeros(num_envs, dtype=torch.bool)

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask
        # The seed numbers the ordered pairs of different cells; nothing else is random.
        pair = torch.from_numpy(seeds % (self._cells * (self._cells - 1)))
        first, second = pair // (self._cells - 1), pair % (self._cells - 1)
        start = first * self._cells + second + (second >= first)
        self._place = torch.where(chosen, start, self._place)
        self._time = self._time.masked_fill(chosen, 0)
        self._success = self._success & ~chosen
        return self._observe()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        live = ~self._success & (self._time < self.spec.episode_limit)
        together = self._place % (self._cells + 1) == 0
        matched = live & together & (actions == PRESS).all(dim=1)
        self._place = torch.where(live, self._next[self._place, actions[:, 0], actions[:, 1]], self._place)
        self._time = self._time + live
        self._success = self._success | matched
        truncated = ~self._success & (self._time == self.spec.episode_limit)
        # Two flags, two tensors: none that the caller keeps is shared.
        return Transition(
            self._observe(), matched.float(), self._success.clone(), truncated, self._success.clone()
        )

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        agents = [
            Piece(0, int(c), "AB"[i], agent_colour(i)) for i, c in enumerate(self._cell[self._place[index]])
        ]
        outcome = ", matched" if self._success[index] else ""
        return draw_board(1, self._cells, agents, f"step {int(self._time[index])}{outcome}")

    def close(self) -> None:
        pass

    def _observe(self) -> Observation:
        return Observation(*(view[self._place] for view in self._views))


def _views(cell: Int64[Tensor, "places 2"], cells: int, mask_actions: bool) -> Observation:
    """What is shown in every place (pair of cells)."""
    own = one_hot(cell, cells)
    away = cell.flip(1) - cell
    side = one_hot(away.sign() + 1, 3) * (away.abs() <= _SIGHT)[..., None]
    avail = torch.ones(len(cell), 2, 4, dtype=torch.bool)
    if mask_actions:
        avail[..., LEFT] = cell > 0
        avail[..., RIGHT] = cell < cells - 1
        avail[..., PRESS] = away == 0
    return Observation(torch.cat([own, side], dim=2).float(), own.flatten(1).float(), avail)
