"""Battles of the stand-in: units walk, shoot, heal and die on a flat map, 16 game loops per second.

Agents' units obey; enemies walk towards their foe and attack what comes into sight.
"""

import math
import random
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, NamedTuple

from sc2_stand_in.scenarios import ALLIES_START, ENEMIES_START

SIZE = 32
UNIT_TYPES = 300
AGENTS, ENEMIES = 1, 2
_PAUSE = 4  # loops an empty map stays empty before units appear again: SMACv2 waits to see it empty
_LOOK = 4  # loops between two looks around


class Kind(NamedTuple):
    """A kind of unit. Speeds per loop, lengths in cells, `reload` in loops."""

    type_id: int
    health: float
    armour: float
    shield: float
    radius: float
    speed: float
    sight: float
    damage: float
    reach: float
    reload: float
    blast: float = 0.0
    heals: bool = False
    flies: bool = False


KINDS = {
    "Baneling": Kind(9, 30, 0, 0, 0.375, 0.156, 8, 16, 0.25, 1, blast=2.2),
    "Colossus": Kind(4, 200, 1, 150, 1.0, 0.141, 10, 20, 7, 24, blast=1.0),
    "Hydralisk": Kind(107, 80, 0, 0, 0.625, 0.141, 9, 12, 5, 13.2),
    "Marauder": Kind(51, 125, 1, 0, 0.5625, 0.141, 10, 10, 6, 24),
    "Marine": Kind(48, 45, 0, 0, 0.375, 0.141, 9, 6, 5, 13.7),
    "Medivac": Kind(54, 150, 1, 0, 0.75, 0.172, 11, 0, 4, 0, heals=True, flies=True),
    "SpineCrawler": Kind(98, 300, 2, 0, 1.125, 0.0, 11, 25, 7, 29.6),
    "Stalker": Kind(74, 80, 1, 80, 0.625, 0.185, 10, 13, 6, 30),
    "Zealot": Kind(73, 100, 1, 50, 0.5, 0.141, 9, 16, 0.1, 19.2),
    "Zergling": Kind(105, 35, 0, 0, 0.375, 0.185, 8, 5, 0.1, 11.1),
}


@dataclass(eq=False, slots=True)
class Unit:
    """One unit; `goal` is where it walks to, `target` whom it attacks or heals."""

    tag: int
    type_id: int
    kind: Kind
    owner: int
    x: float
    y: float
    health: float
    shield: float
    energy: float
    obeys: bool
    cooldown: float = 0.0
    goal: tuple[float, float] | None = None
    target: "Unit | None" = None
    hit_at: int = -1000

    def gap(self, other: "Unit") -> float:
        """Distance between the edges of two units."""
        return math.hypot(self.x - other.x, self.y - other.y) - self.kind.radius - other.kind.radius


class World:
    """The units on one map, and the time."""

    def __init__(self, scenario: dict[str, Any], seed: int, draws_go_on: bool) -> None:
        self.units: list[Unit] = []
        self.loop = 0
        self._scenario = scenario
        self._draws = random.Random(seed)
        self._draws_go_on = draws_go_on
        self._next_tag = 1 << 32
        self._empty, self._begun = 0, 0
        first = UNIT_TYPES - len(scenario["agents_of"])
        self._agent_types = {name: first + k for k, name in enumerate(scenario["agents_of"])}
        self._names = {kind.type_id: name for name, kind in KINDS.items()}
        self._names |= {type_id: name for name, type_id in self._agent_types.items()}
        self.populate()

    def populate(self) -> None:
        """Put the teams of the scenario in their places."""
        self._begin()
        for owner, team, (x, y) in (
            (AGENTS, self._scenario["allies"], ALLIES_START),
            (ENEMIES, self._scenario["enemies"], ENEMIES_START),
        ):
            names = [name for name, count in team.items() for _ in range(count)]
            side = math.ceil(math.sqrt(len(names)))
            for k, name in enumerate(names):
                type_id = self._agent_types[name] if owner == AGENTS else KINDS[name].type_id
                self.create(type_id, owner, x + k % side - side / 2, y + k // side - side / 2)

    def create(self, type_id: int, owner: int, x: float, y: float) -> None:
        if not self.units:
            self._begin()
        kind = KINDS[self._names[type_id]]
        x, y = (min(max(place, 0.5), SIZE - 0.5) for place in (x, y))
        energy = 50.0 if kind.heals else 0.0
        obeys = owner == AGENTS
        self.units.append(
            Unit(self._next_tag, type_id, kind, owner, x, y, kind.health, kind.shield, energy, obeys)
        )
        self._next_tag += 1

    def kill(self, tags: Iterable[int]) -> None:
        killed = set(tags)
        self.units = [unit for unit in self.units if unit.tag not in killed]

    def order(self, tag: int, goal: tuple[float, float] | None, target: int | None) -> bool:
        """Walk to `goal`, or deal with the unit `target`, or stop. False where there is no such unit."""
        units = {unit.tag: unit for unit in self.units}
        if tag not in units or (target is not None and target not in units):
            return False
        units[tag].goal, units[tag].target = goal, None if target is None else units[target]
        return True

    def advance(self) -> None:
        """One game loop."""
        self.loop += 1
        self._empty = 0 if self.units else self._empty + 1
        if self._empty > _PAUSE and self._scenario["allies"]:
            self.populate()  # they begin with the next loop, as after the start of the game
        else:
            for unit in self.units:
                if unit.health > 0:
                    self._act(unit)
            self.units = [unit for unit in self.units if unit.health > 0]

    def _begin(self) -> None:
        self._begun = self.loop
        if not self._draws_go_on:
            self._draws = random.Random(0)

    def _act(self, unit: Unit) -> None:
        kind = unit.kind
        unit.cooldown = max(0.0, unit.cooldown - 1)
        if unit.shield < kind.shield and self.loop - unit.hit_at > 160:
            unit.shield = min(kind.shield, unit.shield + 0.125)
        if kind.heals:
            unit.energy = min(200.0, unit.energy + 0.035)
        if unit.target is not None and unit.target.health <= 0:
            unit.target = None
        if not unit.obeys and (self.loop - self._begun) % _LOOK == 0:
            self._look_around(unit)
        if unit.target is None:
            if unit.goal is not None:
                self._walk(unit, *unit.goal)
        elif unit.gap(unit.target) > kind.reach:
            self._walk(unit, unit.target.x, unit.target.y)
        elif kind.heals:
            self._heal(unit, unit.target)
        elif unit.cooldown <= 0:
            self._fire(unit, unit.target)

    def _look_around(self, unit: Unit) -> None:
        """The next foe in sight is the target, the next of all the goal; for a healer, of friends hurt."""
        if unit.kind.heals:
            others = [u for u in self.units if u.owner == unit.owner and 0 < u.health < u.kind.health]
        else:
            others = [u for u in self.units if u.owner != unit.owner and u.health > 0]
            if unit.kind.reach < 1:
                others = [u for u in others if not u.kind.flies]
        nearest = min(others, key=unit.gap, default=None)
        if nearest is None:
            unit.target = unit.goal = None
            return
        if unit.target is None or unit.gap(unit.target) > unit.kind.reach:
            unit.target = nearest if unit.gap(nearest) <= unit.kind.sight else None
        unit.goal = (nearest.x, nearest.y)

    def _walk(self, unit: Unit, x: float, y: float) -> None:
        away = math.hypot(x - unit.x, y - unit.y)
        if away <= unit.kind.speed:
            unit.goal = None
        else:
            unit.x += (x - unit.x) / away * unit.kind.speed
            unit.y += (y - unit.y) / away * unit.kind.speed
        unit.x, unit.y = (min(max(place, 0.5), SIZE - 0.5) for place in (unit.x, unit.y))

    def _heal(self, healer: Unit, unit: Unit) -> None:
        given = min(0.5625, unit.kind.health - unit.health, 3 * healer.energy)
        unit.health += given
        healer.energy -= given / 3

    def _fire(self, unit: Unit, target: Unit) -> None:
        blast = unit.kind.blast
        for hit in self.units if blast else [target]:
            near = math.hypot(hit.x - target.x, hit.y - target.y) <= blast + hit.kind.radius
            if hit.owner != unit.owner and (hit is target or (near and not hit.kind.flies)):
                absorbed = min(hit.shield, unit.kind.damage)
                hit.shield -= absorbed
                if absorbed < unit.kind.damage:
                    hit.health -= max(0.5, unit.kind.damage - absorbed - hit.kind.armour)
                hit.hit_at = self.loop
        unit.cooldown = max(1.0, unit.kind.reload + self._draws.uniform(-1, 3))
        if unit.kind is KINDS["Baneling"]:
            unit.health = 0.0
