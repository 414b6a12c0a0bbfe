"""Where units can walk: rectangles of open cells on a map of 32 by 32, and ways around corners."""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

SIZE = 32
"""Cells of a map in each direction, of every published task."""
_STEPS = 48
"""Points at which the straight way between two cells is tried."""


@dataclass(frozen=True)
class Terrain:
    """Open rectangles: first column, first row, column and row after the last; rows count from the south."""

    rooms: tuple[tuple[int, int, int, int], ...]

    @property
    def box(self) -> tuple[int, int, int, int] | None:
        """The one rectangle, if the terrain is no more than that."""
        return self.rooms[0] if len(self.rooms) == 1 else None

    def open(self) -> Bool[np.ndarray, "x y"]:
        cells = np.zeros((SIZE, SIZE), dtype=bool)
        for left, bottom, right, top in self.rooms:
            cells[left:right, bottom:top] = True
        return cells

    def moves(self) -> Bool[Tensor, "4 cells"]:
        """Where SMAC lets an agent move from each cell (x · SIZE + y): north, south, east, west.

        It looks at the cell one away. South of row 0 that is row 0 itself, as its numbers are cut towards 0.
        """
        cells = self.open()
        wide = np.pad(cells, 1, mode="edge")
        wide[:, -1] = wide[-1] = False
        moves = [wide[1:-1, 2:], wide[1:-1, :-2], wide[2:, 1:-1], wide[:-2, 1:-1]]
        return torch.from_numpy(np.stack([move.ravel() for move in moves]))

    def ways(self) -> Int64[Tensor, " pairs"] | None:
        """Cell to walk to next, from cell to cell, at from · SIZE² + to; None where straight ways do.

        The cell itself where the straight way is open, else the first corner of the shortest way.
        """
        return None if self.box else _ways(self)


@cache
def _ways(terrain: Terrain) -> Int64[Tensor, " pairs"] | None:
    cells = terrain.open()
    corner = np.argwhere(cells)
    centre, number = corner + 0.5, corner @ (SIZE, 1)
    along = np.linspace(0, 1, _STEPS)[:, None, None]
    straight = np.stack([_open_at(cells, here + (centre - here) * along).all(0) for here in centre])
    if straight.all():
        return None
    step = np.where(straight, np.linalg.norm(centre[:, None] - centre, axis=-1), np.inf)
    length = step.copy()
    for k in range(len(centre)):  # Floyd and Warshall: shortest ways through the first k cells
        np.minimum(length, length[:, k : k + 1] + length[k], out=length)
    np.fill_diagonal(step, np.inf)  # staying is no first step of a way, though none is shorter
    table = np.tile(np.arange(SIZE * SIZE), (SIZE * SIZE, 1))
    for i, here in enumerate(number):
        corners = (step[i, :, None] + length).argmin(0)
        table[here, number] = number[np.where(straight[i], np.arange(len(centre)), corners)]
    return torch.from_numpy(table.ravel())


def _open_at(
    cells: Bool[np.ndarray, "x y"], place: Float[np.ndarray, "*places 2"]
) -> Bool[np.ndarray, "*places"]:
    x, y = np.moveaxis(place.astype(int), -1, 0)
    found: np.ndarray = cells[x, y]
    return found
