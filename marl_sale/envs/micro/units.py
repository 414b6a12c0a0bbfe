"""The kinds of unit, as published facts of the game (patch 4.10), and what they do to one another.

Lengths are map cells, times are game loops. 16 loops are a second of the game's "normal" clock; lists for the
"faster" clock say 1.4 times the speed and 1/1.4 of the cooldown.
"""

from dataclasses import dataclass, fields

import torch

LOOPS_PER_SECOND = 16


@dataclass(frozen=True)
class Unit:
    """Facts of one kind of unit."""

    health: float
    shield: float
    armour: float
    radius: float
    speed: float
    """Cells per second."""
    sight: float
    damage: float
    """Of one hit."""
    hits: int
    bonus: float
    """Added to each hit on a unit with the trait `against`."""
    against: str
    range: float
    """Between the edges of the two units."""
    cooldown: float
    """Loops between two shots."""
    scale: float
    """What SMAC divides an agent's cooldown by; for a medivac, its energy."""
    traits: str
    """Of `light`, `armored`; `flying`; `ground`: hits no flyer."""
    splash: float = 0.0
    """What has its edge this near to the centre of the target is hit as well."""


UNITS = {
    #             health shield armour radius speed sight damage×hits bonus        range cooldown scale
    "baneling": Unit(30, 0, 0, 0.375, 2.5, 8, 16, 1, 19, "light", 0.25, 1.0, 1, "ground", 2.2),
    "colossus": Unit(200, 150, 1, 1.0, 2.25, 10, 10, 2, 5, "light", 7, 24.0, 24, "armored ground", 1.0),
    "hydralisk": Unit(80, 0, 0, 0.625, 2.25, 9, 12, 1, 0, "", 5, 13.2, 10, "light"),
    "marauder": Unit(125, 0, 1, 0.5625, 2.25, 10, 10, 1, 10, "armored", 6, 24.0, 25, "armored ground"),
    "marine": Unit(45, 0, 0, 0.375, 2.25, 9, 6, 1, 0, "", 5, 13.7, 15, "light"),
    "medivac": Unit(150, 0, 1, 0.75, 2.5, 11, 0, 1, 0, "", 4, 1.0, 200, "armored flying"),
    "spine_crawler": Unit(300, 0, 2, 1.125, 0.0, 11, 25, 1, 5, "armored", 7, 29.6, 1, "armored ground"),
    "stalker": Unit(80, 80, 1, 0.625, 2.9531, 10, 13, 1, 5, "armored", 6, 30.0, 35, "armored"),
    "zealot": Unit(100, 50, 1, 0.5, 2.25, 9, 8, 2, 0, "", 0.1, 19.2, 22, "light ground"),
    "zergling": Unit(35, 0, 0, 0.375, 2.9531, 8, 5, 1, 0, "", 0.1, 11.1, 11, "light ground"),
}
KINDS = tuple(UNITS)
"""A kind's number is its place here: alphabetical, the order in which SMAC sorts agents."""
NOTHING = len(KINDS)
"""Kind of a place that somebody walks to."""
BANELING, COLOSSUS, MEDIVAC = (KINDS.index(name) for name in ("baneling", "colossus", "medivac"))

_COLUMNS = [field.name for field in fields(Unit) if field.type is float]


def column(name: str) -> torch.Tensor:
    """One fact of all kinds, and 0 for NOTHING; float32 [kinds + 1]."""
    return torch.tensor([*(getattr(unit, name) for unit in UNITS.values()), 0.0])


def has_trait(trait: str) -> torch.Tensor:
    """Which kinds have a trait, NOTHING has none; bool [kinds + 1]."""
    return torch.tensor([*(trait in unit.traits.split() for unit in UNITS.values()), False])


def pair_tables() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each pair (unit, target): reach between centres, damage to shields, damage to health.

    Each float32 [(kinds + 1)²], entry unit · (kinds + 1) + target. Health loses at least 0.5 a hit, however
    strong the armour; shields have none. Whoever has NOTHING for a target reaches nothing.
    """
    reach = column("range")[:, None] + column("radius")[:, None] + column("radius")
    reach[:, NOTHING] = -1.0
    bonus = torch.zeros(len(KINDS) + 1, len(KINDS) + 1)
    for number, unit in enumerate(UNITS.values()):
        if unit.against:
            bonus[number] = unit.bonus * has_trait(unit.against)
    hit = column("damage")[:, None] + bonus
    raw = hit * column("hits")[:, None]
    net = (hit - column("armour")).clamp(min=0.5) * column("hits")[:, None]
    harmless = raw == 0
    return reach.flatten(), raw.flatten(), net.masked_fill(harmless, 0.0).flatten()


def can_hit() -> torch.Tensor:
    """Whether a kind can hit another at all; bool [kinds + 1, kinds + 1]."""
    return ~(has_trait("ground")[:, None] & has_trait("flying"))
