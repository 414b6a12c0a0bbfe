"""The maps of SMAC: units, time limits and places as the published maps have them.

Terrain is what the maps' cliffs and path flags leave open. Where an episode starts is a seed's own: each unit
within a tenth of a cell of its place in the formation.
"""

from functools import cache, partial
from itertools import count

import numpy as np
import torch
from jaxtyping import Int64

from marl_sale.envs.micro.scenario import Rules, Scenario, Start, numbered
from marl_sale.envs.micro.terrain import Terrain
from marl_sale.envs.micro.units import KINDS, UNITS
from marl_sale.seeding import uniform_draws

_JITTER = 0.1
_SPREAD = 1.3
"""Of a formation, per mean radius: units stand side by side without overlap."""
_GOLDEN_ANGLE = np.pi * (3 - 5**0.5)
_SIDES = 2 * _JITTER * np.array([(-1, 0), (1, 0), (0, -1), (0, 1)])
"""A place is free if what lies this far from it is open."""

LANE = Terrain(((0, 8, 32, 24),))
PLAIN = Terrain(((0, 0, 32, 32),))
_ARENA = Terrain(((10, 6, 22, 26), (8, 8, 24, 24), (6, 10, 26, 22)))
_CRATER = Terrain(((8, 8, 20, 20), (10, 20, 18, 22), (12, 22, 16, 24)))
_BASIN = Terrain(((10, 8, 20, 20), (8, 10, 22, 18)))
_CORRIDOR = Terrain(
    (
        (2, 2, 12, 12),
        (10, 12, 15, 14),  # the mouth: on the map two cells wide and diagonal
        (12, 14, 26, 16),
        (14, 16, 28, 18),
        (12, 18, 30, 22),
        (14, 22, 30, 24),
        (16, 24, 30, 26),
        (18, 26, 30, 28),
        (20, 28, 30, 30),
    )
)
_VALLEY = Terrain(
    (
        (2, 2, 8, 8),
        (2, 4, 12, 8),
        (4, 8, 16, 12),
        (8, 12, 20, 16),
        (10, 16, 20, 18),
        (14, 18, 26, 22),
        (16, 22, 30, 24),
        (20, 24, 30, 28),
        (22, 28, 30, 30),
    )
)

Group = tuple[int, str, float, float]
"""Number, kind, x and y of units that are created together."""


def _start(
    ours: tuple[Group, ...],
    theirs: tuple[Group, ...],
    terrain: Terrain,
    seeds: Int64[np.ndarray, " episodes"],
) -> Start:
    """Agents as SMAC numbers them, enemies in the order in which they are created."""
    agents, enemies = _formation(ours, terrain), _formation(theirs, terrain)
    units = agents + enemies
    draws = uniform_draws(seeds, 2 * len(units)).float().unflatten(1, (2, -1))
    kind = torch.tensor([KINDS.index(name) for name, _, _ in units])
    place = torch.tensor([place for _, *place in units]).T
    jitter = (draws.permute(1, 2, 0) - 0.5) * (2 * _JITTER)
    start = Start(kind[:, None].expand(-1, len(seeds)), place[..., None] + jitter)
    return numbered(start, len(agents))


@cache
def _formation(groups: tuple[Group, ...], terrain: Terrain) -> list[tuple[str, float, float]]:
    """Kind and place of each unit; those of one point stand around it in a spiral, where there is room."""
    cells, units = terrain.open(), []
    points = [group[2:] for group in groups]
    for point in dict.fromkeys(points):
        kinds = _kinds(tuple(group for group in groups if group[2:] == point))
        spread = _SPREAD * sum(UNITS[kind].radius for kind in kinds) / len(kinds)
        places = (
            point + spread * k**0.5 * np.array([np.cos(k * _GOLDEN_ANGLE), np.sin(k * _GOLDEN_ANGLE)])
            for k in count()
        )
        free = (here for here in places if all(cells[tuple((here + side).astype(int))] for side in _SIDES))
        units += [(kind, float(x), float(y)) for kind, (x, y) in zip(kinds, free, strict=False)]
    return units


def _kinds(groups: tuple[Group, ...]) -> list[str]:
    return [kind for number, kind, _, _ in groups for _ in range(number)]


def _team(text: str, x: float, y: float) -> tuple[Group, ...]:
    """Groups of `2 stalker 3 zealot`, all created at one point."""
    words = text.split()
    return tuple((int(number), kind, x, y) for number, kind in zip(words[::2], words[1::2], strict=True))


def _face(
    name: str,
    limit: int,
    ours: str,
    theirs: str,
    terrain: Terrain = LANE,
    *,
    at: tuple[float, float] = (9.0, 16.0),
    against: tuple[float, float] = (23.0, 16.0),
    goal: tuple[float, float] | None = None,
) -> Scenario:
    """A map where each side starts at one point; enemies walk to `goal`, else to where the agents start."""
    return _map(name, limit, _team(ours, *at), _team(theirs, *against), terrain, goal or at)


def _map(
    name: str,
    limit: int,
    ours: tuple[Group, ...],
    theirs: tuple[Group, ...],
    terrain: Terrain,
    goal: tuple[float, float] | None,
) -> Scenario:
    kinds = tuple(sorted(set(_kinds(ours))))
    mixed = len(kinds) > 1
    # SMAC's code of enemies is that of agents, but for stalkers and zealots alone, where it is the reverse.
    enemy_bits = kinds[::-1] if kinds == ("stalker", "zealot") else kinds
    shielded = tuple(any(UNITS[kind].shield for kind in _kinds(side)) for side in (ours, theirs))
    return Scenario(
        name,
        limit,
        tuple((kind,) for kind in sorted(_kinds(ours))),
        tuple((kind,) for kind in _kinds(theirs)),
        Rules("smac", (shielded[0], shielded[1]), kinds * mixed, enemy_bits * mixed),
        terrain,
        goal,
        partial(_start, ours, theirs, terrain),
    )


_MMM = "7 marine 2 marauder 1 medivac"
SMAC_MAPS = {
    each.name: each
    for each in (
        _face("3m", 60, "3 marine", "3 marine"),
        _face("8m", 120, "8 marine", "8 marine"),
        _face("25m", 150, "25 marine", "25 marine"),
        _face("5m_vs_6m", 70, "5 marine", "6 marine"),
        _face("8m_vs_9m", 120, "8 marine", "9 marine"),
        _face("10m_vs_11m", 150, "10 marine", "11 marine"),
        _face("27m_vs_30m", 180, "27 marine", "30 marine"),
        _face("2s3z", 120, "2 stalker 3 zealot", "2 stalker 3 zealot"),
        _face("3s5z", 150, "3 stalker 5 zealot", "3 stalker 5 zealot"),
        _face("3s5z_vs_3s6z", 170, "3 stalker 5 zealot", "3 stalker 6 zealot"),
        _face("1c3s5z", 180, "1 colossus 3 stalker 5 zealot", "1 colossus 3 stalker 5 zealot"),
        _face("MMM", 150, _MMM, _MMM),
        _face("MMM2", 180, _MMM, "8 marine 3 marauder 1 medivac"),
        _face("3s_vs_3z", 150, "3 stalker", "3 zealot", PLAIN),
        _face("3s_vs_4z", 200, "3 stalker", "4 zealot", PLAIN),
        _face("3s_vs_5z", 250, "3 stalker", "5 zealot", PLAIN),
        _face("6h_vs_8z", 150, "6 hydralisk", "8 zealot", _BASIN, at=(14.6, 9.49), against=(14.41, 16.76)),
        _map(
            "2m_vs_1z",
            150,
            (*_team("1 marine", 13.0, 12.0), *_team("1 marine", 19.0, 12.0)),
            _team("1 zealot", 16.0, 19.0),
            _ARENA,
            (16.0, 12.0),
        ),
        _map(
            "2s_vs_1sc",
            300,
            (*_team("1 stalker", 11.12, 10.34), *_team("1 stalker", 16.98, 10.37)),
            _team("1 spine_crawler", 13.92, 20.04),
            _CRATER,
            None,
        ),
        _map(
            "bane_vs_bane",
            200,
            (*_team("20 zergling", 16.0, 11.0), *_team("4 baneling", 16.0, 8.0)),
            (*_team("20 zergling", 16.0, 21.0), *_team("4 baneling", 16.0, 24.0)),
            _ARENA,
            (16.0, 8.0),
        ),
        _face(
            "corridor",
            400,
            "6 zealot",
            "24 zergling",
            _CORRIDOR,
            at=(19.04, 19.12),
            against=(27.91, 28.24),
            goal=(4.47, 4.33),
        ),
        _face(
            "so_many_baneling",
            100,
            "7 zealot",
            "32 baneling",
            _VALLEY,
            at=(11.47, 12.02),
            against=(27.91, 28.24),
            goal=(4.47, 4.33),
        ),
    )
}
