"""The rules of Level-Based Foraging for many games at once, as tensors on any device.

Rules, observations and rewards are those of `lbforaging` 2.0.0: tests/envs/test_lbf_native.py plays both from
the same positions. Starts have the package's distribution, but their own random draws: counted from the
episode's seed, so that an episode is the same in any batch.

Positions are numbers of cells, row by row. Foods keep a distance and stay off the border, so a cell has at
most one food beside it, and adding a cell's offset to its number never reaches a food around a corner.
"""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8
from torch import Tensor
from torch.nn.functional import pad

from marl_sale.envs.lbf.task import LOAD, N_ACTIONS, TIME_LIMIT, Task
from marl_sale.seeding import uniform_draws
from marl_sale.spec import Observation, Transition


class NativeForaging:
    """E games of one task.

    State: `cell`, `level` [E, N] of the agents; `food_cell`, `food_level` [E, F], row by row, then level 0
    nowhere for those collected; `spawned` [E], sum of all food levels at the start; `time` [E].
    """

    def __init__(
        self, task: Task, mask_actions: bool, scale_obs: bool, num_envs: int, device: str = "cpu"
    ) -> None:
        self.num_envs, self._task = num_envs, task
        self.spec = task.spec("native", mask_actions, scale_obs)
        self._scale = task.obs_scale(scale_obs)
        self._board = _Board(task, device)
        agents = (num_envs, task.players)
        self.cell = torch.zeros(agents, dtype=torch.int64, device=device)
        self.level = torch.ones(agents, device=device)
        self.food_cell = torch.full((num_envs, task.foods), self._board.nowhere, device=device)
        self.food_level = torch.zeros(num_envs, task.foods, device=device)
        self.spawned = torch.zeros(num_envs, device=device)
        self.time = torch.zeros(num_envs, dtype=torch.int64, device=device)
        self._all_available = torch.ones(*agents, N_ACTIONS, dtype=torch.bool, device=device)

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = np.ones(self.num_envs, bool) if mask is None else mask.cpu().numpy()
        if chosen.any():
            index = torch.from_numpy(chosen.nonzero()[0]).to(self.cell.device)
            start = self._board.start(seeds[chosen])
            before = (self.cell, self.level, self.food_cell, self.food_level)
            self.cell, self.level, self.food_cell, self.food_level = (
                old.index_put((index,), new) for old, new in zip(before, start, strict=True)
            )
            self.spawned = self.spawned.index_put((index,), start[3].sum(-1))
            self.time = self.time.index_fill(0, index, 0)
        return self._observe()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        running = self._left() & (self.time < TIME_LIMIT)
        useful = self._useful.gather(-1, actions.unsqueeze(-1)).squeeze(-1)
        actions = actions * (useful & running.unsqueeze(-1))  # everything else is action 0, none

        # Of those who want the same cell, and of those who want to stay in it, nobody moves.
        wanted = self.cell + self._board.offsets[actions]
        alone = (wanted.unsqueeze(-1) == wanted.unsqueeze(-2)).sum(-1) == 1
        self.cell = wanted.where(alone, self.cell)

        loads = (actions == LOAD).unsqueeze(-1) & self._beside  # [E, N, F]
        strength = (loads * self.level.unsqueeze(-1)).sum(1)
        collected = (strength >= self.food_level) & (strength > 0)
        reward = (self.food_level * collected).sum(-1).double() / self.spawned.clamp(min=1)
        if self._task.penalty:
            in_vain = loads & ~collected.unsqueeze(1)
            reward = reward - self._task.penalty * in_vain.any(-1).sum(-1)
        self.food_cell, order = self.food_cell.masked_fill(collected, self._board.nowhere).sort(-1)
        self.food_level = self.food_level.masked_fill(collected, 0).gather(-1, order)
        self.time = self.time + running

        success = ~self._left()
        truncated = (self.time >= TIME_LIMIT) & ~success
        # Two flags, two tensors: none that the caller keeps is shared.
        return Transition(self._observe(), reward.float(), success, truncated, success.clone())

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        cols = self._task.cols
        foods = zip(self.food_cell[index].tolist(), self.food_level[index].tolist(), strict=True)
        agents = zip(self.cell[index].tolist(), self.level[index].tolist(), strict=True)
        return self._task.picture(
            [(*divmod(cell, cols), int(level)) for cell, level in foods if level],
            [(*divmod(cell, cols), int(level)) for cell, level in agents],
            int(self.time[index]),
            int(self.spawned[index]),
        )

    def close(self) -> None:
        pass

    def _left(self) -> Bool[Tensor, " envs"]:
        """Whether any food is left."""
        return self.food_level.any(-1)

    def _observe(self) -> Observation:
        """What follows from the positions: observations, and what the next step asks of them."""
        board, task = self._board, self._task
        away = self.food_cell.unsqueeze(1) - self.cell.unsqueeze(2)  # [E, N, F]
        sides = away.unsqueeze(2) == board.offsets[1:LOAD].unsqueeze(-1)  # [E, N, 4, F]
        self._beside = sides.any(2)
        walks = board.inside[self.cell] > pad(sides.any(3), (1, 0))  # [E, N, 5]
        self._useful = torch.cat([walks, self._beside.any(2, keepdim=True)], 2)

        agents = torch.cat([board.places[self.cell], self.level.unsqueeze(-1)], -1)  # [E, N, 3]
        foods = torch.cat([board.places[self.food_cell], self.food_level.unsqueeze(-1)], -1)  # [E, F, 3]
        foods, seen = foods.unsqueeze(1).expand(-1, task.players, -1, -1), agents[:, board.self_first]
        if not task.sees_everything:
            place = agents[..., :2].unsqueeze(2)
            corner = pad((place - task.sight).clamp(min=0), (0, 1))
            in_sight = (foods[..., :2] - place).abs().amax(-1) <= task.sight
            foods = self._seen_first(foods - corner, in_sight & (foods[..., 2] > 0))
            seen = seen - corner
            in_sight = (seen[..., :2].amin(-1) >= 0) & (seen[..., :2].amax(-1) <= 2 * task.sight)
            seen = self._seen_first(seen, in_sight)
        obs = torch.cat([foods, seen], 2).flatten(2).div_(self._scale)
        avail = self._useful if self.spec.masks_actions else self._all_available
        return Observation(obs, obs.flatten(1).clone(), avail.clone())

    def _seen_first(
        self,
        cells: Float32[Tensor, "envs agents cells 3"],
        seen: Bool[Tensor, "envs agents cells"],
    ) -> Float32[Tensor, "envs agents cells 3"]:
        """The seen cells in their order, then (−1, −1, 0) for each unseen one."""
        order = seen.byte().argsort(stable=True, dim=-1, descending=True)
        cells = cells.where(seen.unsqueeze(-1), self._board.unseen)
        return cells.gather(2, order.unsqueeze(-1).expand_as(cells))


class _Board:
    """What is fixed for a task: tables by cell, and how an episode starts."""

    def __init__(self, task: Task, device: str) -> None:
        self.task, self.device = task, device
        rows, cols = task.rows, task.cols
        place = torch.cartesian_prod(torch.arange(rows), torch.arange(cols))
        self.row, self.col = place.to(device).unbind(1)
        self.nowhere = (rows + 2) * cols
        """Cell of a food that was collected, or never placed: beside no other."""
        self.unseen = torch.tensor([-1.0, -1.0, 0.0], device=device)
        off_board = self.unseen[:2].expand(self.nowhere + 1 - len(place), 2)
        self.places = torch.cat([place.to(device), off_board])
        inside = [self.row >= 0, self.row > 0, self.row < rows - 1, self.col > 0, self.col < cols - 1]
        self.inside = torch.stack(inside, 1)
        """Actions none, north, south, west, east that stay on the board."""
        self.inner = self.inside.all(1)
        self.offsets = torch.tensor([0, -cols, cols, -1, 1, 0], device=device)
        players = range(task.players)
        order = [[i, *(j for j in players if j != i)] for i in players]
        self.self_first = torch.tensor(order, device=device)

    def start(
        self, seeds: Int64[np.ndarray, " games"]
    ) -> tuple[
        Int64[Tensor, "games agents"],
        Float32[Tensor, "games agents"],
        Int64[Tensor, "games foods"],
        Float32[Tensor, "games foods"],
    ]:
        """Cells and levels of the agents, cells and levels of the foods."""
        task, games = self.task, len(seeds)
        draws = uniform_draws(seeds, 2 * (task.players + task.foods)).to(self.device)
        for_cells, for_levels, for_foods, for_food_levels = draws.split(
            [task.players, task.players, task.foods, task.foods], 1
        )
        free = torch.ones(games, task.rows * task.cols, dtype=torch.bool, device=self.device)
        cell = torch.empty(games, task.players, dtype=torch.int64, device=self.device)
        for i in range(task.players):
            cell[:, i] = _pick(free, for_cells[:, i])
            free.scatter_(1, cell[:, i : i + 1], False)
        level = _between(task.min_player_level, task.max_player_level, for_levels)

        free &= self.inner
        food_cell = torch.full((games, task.foods), self.nowhere, device=self.device)
        for i in range(task.foods):
            room = free.any(1)
            chosen = _pick(free, for_foods[:, i])
            food_cell[:, i] = chosen.where(room, food_cell[:, i])
            row, col = self.row[chosen], self.col[chosen]
            apart = (self.row - row.unsqueeze(1)).abs() + (self.col - col.unsqueeze(1)).abs()
            free &= apart > 2
        food_cell = food_cell.sort(1).values

        highest = level.sort(1).values[:, :3].sum(1, keepdim=True)
        if task.max_food_level is not None:
            highest = torch.full_like(highest, task.max_food_level)
        if task.version == 2 and not task.coop:
            highest = (highest - 1).clamp(min=1)
        lowest = highest if task.coop else torch.full_like(highest, task.min_food_level)
        food_level = _between(lowest, highest, for_food_levels).where(food_cell < self.nowhere, 0)
        return cell, level.float(), food_cell, food_level.float()


def _pick(free: Bool[Tensor, "games cells"], u: Float64[Tensor, " games"]) -> Int64[Tensor, " games"]:
    """One free cell of each game, uniform if u is uniform in [0, 1); cell 0 where none is free."""
    rank = free.cumsum(1)
    wanted = (u * rank[:, -1]).long() + 1
    return (rank == wanted.unsqueeze(1)).byte().argmax(1)


def _between(
    lowest: int | Int64[Tensor, "games 1"],
    highest: int | Int64[Tensor, "games 1"],
    u: Float64[Tensor, "games draws"],
) -> Int64[Tensor, "games draws"]:
    """Whole numbers from lowest to highest, uniform if u is uniform in [0, 1)."""
    return lowest + (u * (highest - lowest + 1)).long()
