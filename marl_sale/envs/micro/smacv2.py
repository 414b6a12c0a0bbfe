"""The tasks of SMACv2: teams and starting places drawn anew for every episode, with its distributions."""

import math
import re

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from marl_sale.envs.micro.maps import PLAIN
from marl_sale.envs.micro.scenario import Rules, Scenario, Start, numbered
from marl_sale.envs.micro.terrain import SIZE
from marl_sale.envs.micro.units import KINDS
from marl_sale.seeding import uniform_draws

RACES = {
    "terran": ("marine", "marauder", "medivac"),
    "protoss": ("stalker", "zealot", "colossus"),
    "zerg": ("zergling", "hydralisk", "baneling"),
}
"""Kinds of a race in the order of their bits; the last is rare."""
_SHARES = (0.45, 0.45, 0.1)
_NEVER_ALONE = ("medivac", "baneling")
"""No team is of these alone: the package draws again."""
_ATTEMPTS = 8
"""Draws of a team. If all are refused (of one extra enemy, one in 10⁸), the team is of the first kind."""
_LIMIT = 200
_OFFSET = 2.0
"""From the centre, of the point to which a group's diagonal leads."""
_SPREAD = 0.7
"""Of units that the package puts on one point: the game finds them places beside each other."""
_GOLDEN_ANGLE = math.pi * (3 - 5**0.5)
_MARGIN = 0.5
_SPIRAL = torch.tensor(
    [
        (_SPREAD * k**0.5 * math.cos(k * _GOLDEN_ANGLE), _SPREAD * k**0.5 * math.sin(k * _GOLDEN_ANGLE))
        for k in range(32)
    ],
    dtype=torch.float64,
)
"""Places around a point, one after the other outwards."""
SMACV2_NAME = re.compile(r"(terran|protoss|zerg)_(5_vs_5|10_vs_10|10_vs_11|20_vs_20|20_vs_23)")


def scenario(name: str) -> Scenario:
    """The task `<race>_<agents>_vs_<enemies>`."""
    race, agents, _, enemies = name.split("_")
    kinds, shielded = RACES[race], race == "protoss"
    teams = RandomTeams(race, int(agents), int(enemies))
    return Scenario(
        name,
        _LIMIT,
        (kinds,) * int(agents),
        (kinds,) * int(enemies),
        Rules("smacv2", (shielded, shielded), kinds, kinds),
        PLAIN,
        None,
        teams.start,
    )


class RandomTeams:
    """Draws the starts of one task."""

    def __init__(self, race: str, agents: int, enemies: int) -> None:
        self.n_agents, self.n_enemies = agents, enemies
        self._numbers = torch.tensor([KINDS.index(kind) for kind in RACES[race]])
        self._never_alone = RACES[race][-1] in _NEVER_ALONE

    def start(self, seeds: Int64[np.ndarray, " episodes"]) -> Start:
        """Enemies are the agents' team in the order drawn, and extra ones; agents are sorted as in SMAC."""
        agents, enemies = self.n_agents, self.n_enemies
        extra = enemies - agents
        counts = [_ATTEMPTS * agents, _ATTEMPTS * extra, 1, 2 * enemies, 10 + enemies, 2 * (agents + enemies)]
        for_team, for_extra, for_way, for_reflect, for_groups, for_jitter = uniform_draws(
            seeds, sum(counts)
        ).split(counts, 1)
        team = self._team(for_team.unflatten(1, (_ATTEMPTS, agents)))
        more = self._team(for_extra.unflatten(1, (_ATTEMPTS, extra)))
        surrounded = (for_way > 0.5)[..., None]
        place = torch.where(surrounded, self._surrounded(for_groups), self._reflected(for_reflect))
        place = place + (for_jitter.unflatten(1, (-1, 2)) - 0.5) * 0.2 * surrounded
        place = place.clamp(_MARGIN, SIZE - _MARGIN).float()

        return numbered(Start(torch.cat([team, team, more], 1).T, place.permute(2, 1, 0)), agents)

    def _team(self, draws: Float64[Tensor, "episodes attempts units"]) -> Int64[Tensor, "episodes units"]:
        """Kinds of the first attempt that is not of one of `_NEVER_ALONE` alone."""
        bounds = torch.tensor(_SHARES, dtype=torch.float64).cumsum(0)[:-1]
        bit = (draws[..., None] >= bounds).sum(-1)
        rare = len(_SHARES) - 1
        if self._never_alone:
            refused = (bit == rare).all(-1, keepdim=True)
            first = (~refused).byte().argmax(1, keepdim=True)
            bit = bit.masked_fill(refused, 0).gather(1, first.expand(-1, 1, bit.shape[-1]))
        return self._numbers[bit[:, 0]]

    def _reflected(self, draws: Float64[Tensor, "episodes xy"]) -> Float64[Tensor, "episodes units 2"]:
        """Agents anywhere in the western half, enemies mirrored; extra ones anywhere in the eastern half."""
        x, y = draws.unflatten(1, (2, -1)).unbind(1)
        ours, half = self.n_agents, SIZE / 2
        x = torch.cat([x[:, :ours] * (half - 1), half + x[:, ours:] * half], 1)
        place = torch.stack([x, y * SIZE], -1)
        mirrored = place[:, :ours] * torch.tensor([-1.0, 1.0]) + torch.tensor([float(SIZE), 0.0])
        return torch.cat([place[:, :ours], mirrored, place[:, ours:]], 1)

    def _surrounded(self, draws: Float64[Tensor, "episodes draws"]) -> Float64[Tensor, "episodes units 2"]:
        """Agents at the centre; enemies in one to four groups, each somewhere on a diagonal of its own."""
        for_number, for_side, along, for_group = draws.split([1, 4, 5, self.n_enemies], 1)
        groups = (for_number * 4).long() + 1
        group = (for_group * groups).long().sort(1).values
        side = for_side.argsort(1).gather(1, group)
        t = along.gather(1, group)[..., None]
        corner = torch.tensor([[0, 0], [0, 1], [1, 1], [1, 0]], dtype=torch.float64)[side]
        inner = SIZE / 2 + (2 * corner - 1) * _OFFSET
        enemies = inner * t + corner * SIZE * (1 - t)
        rank = torch.arange(self.n_enemies) - torch.searchsorted(group, group)
        agents = _SPIRAL[: self.n_agents].expand(len(draws), -1, -1) + SIZE / 2
        return torch.cat([agents, enemies + _SPIRAL[rank]], 1)
