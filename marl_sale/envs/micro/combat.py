"""What happens between two env steps: eight game loops of walking, shooting and healing.

Tensors have the battles last, so that operations on units, or on pairs of units, run along memory. Sums are
exact, as health, shields and damage are multiples of a power of two and pushes are rounded to one: no result
depends on how many battles are played together.
"""

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor

from marl_sale.envs.micro.scenario import Scenario, Start
from marl_sale.envs.micro.terrain import SIZE
from marl_sale.envs.micro.units import (
    BANELING,
    KINDS,
    LOOPS_PER_SECOND,
    MEDIVAC,
    NOTHING,
    UNITS,
    can_hit,
    column,
    has_trait,
    pair_tables,
)

LOOPS = 8
"""Game loops of an env step, SMAC's `step_mul`."""
_PHASES = 2
"""In each, enemies look for targets once, wounds heal once and crowds part once."""
MOVE = 2.0
"""Cells that an order to move leads, SMAC's `move_amount`."""
FIRST_TARGET = 6
"""Action of the first target."""
NOISE_PERIOD = 16
"""Env steps after which a battle's random numbers repeat."""
_FASTEST, _SLOWEST = -1.0, 2.0
"""Loops that chance adds to a cooldown."""
_CALM = 20
"""Env steps without damage after which shields recover, ten seconds."""
_RECOVERED = 1.0
"""Shield points per env step."""
_HEALED, _HEAL_COST, _ENERGY_GAINED = 2.25, 0.75, 0.140625
"""Health given, energy spent and energy gained by a medivac in one phase."""
START_ENERGY, _FULL_ENERGY = 50.0, 200.0
_PUSH = 0.35
"""Share of an overlap by which each of the two units gives way."""
_GRAIN = 2.0**16
_NO_BODY = -10.0
_EDGE = 1e-3
"""Units stay this far inside the open rectangle: its edge belongs to the next cell, or to none."""

X, Y, HEALTH, SHIELD, COOLDOWN, ENERGY, CALM = range(7)
_STEP_OF_ACTION = torch.tensor([[0, 0, 0, 0, 1, -1], [0, 0, 1, -1, 0, 0]]) * MOVE


class Combat:
    """E battles of one scenario; U units, agents first.

    `units` [7, U, E] holds x, y, health, shield, cooldown (loops until the next shot), energy, and env steps
    since the last damage; `kind`, `full_health`, `full_shield` [U, E] say what they are.
    """

    def __init__(self, scenario: Scenario, num_envs: int) -> None:
        kinds = (*scenario.agents, *scenario.enemies)
        self.agents, self.count = len(scenario.agents), len(kinds)
        self.scenario = scenario
        present = {name for each in kinds for name in each}
        self._shielded = any(UNITS[name].shield for name in present)
        self._heals = "medivac" in present
        self._splashers = torch.tensor(
            [row for row, each in enumerate(kinds) if any(UNITS[name].splash for name in each)],
            dtype=torch.int64,
        )
        self._reach_of, self._raw_of, self._net_of = pair_tables()
        self._hits = can_hit()
        self._columns = {
            name: column(name)
            for name in ("health", "shield", "radius", "speed", "sight", "cooldown", "splash")
        }
        self._columns["speed"] = self._columns["speed"] / LOOPS_PER_SECOND
        self._ways = scenario.terrain.ways()
        self._open = torch.from_numpy(scenario.terrain.open().ravel())

        # Rows from U on are the places that units walk to, so that "towards" always means towards a row.
        self._rows = torch.zeros(7, 2 * self.count, num_envs)
        self._health_of_row = self._rows[HEALTH]
        self._health_of_row[self.count :] = 1.0
        self._goals = self._rows[:2, self.count :]
        self.units = self._rows[:, : self.count]
        self.place = self.units[:2]
        self.health, self.shield, self.cooldown, self.energy, self._calm = self.units[HEALTH:].unbind()
        shape = (self.count, num_envs)
        self.kind = torch.zeros(shape, dtype=torch.int64)
        self._kind_of_row = torch.full((2 * self.count, num_envs), NOTHING)
        self.full_health, self.full_shield = torch.ones(shape), torch.zeros(shape)
        self._speed, self._sight2 = torch.zeros(shape), torch.zeros(self.count - self.agents, num_envs)
        self._cooldown, self._body = torch.zeros(shape), torch.zeros(shape)
        self._splash = torch.zeros(shape)
        self.noise = torch.zeros(NOISE_PERIOD, *shape)
        self._own_goal = torch.arange(self.count, 2 * self.count)[:, None].expand(shape)
        self._target = self._own_goal.clone()
        self._near = torch.zeros(shape, dtype=torch.bool)

    @property
    def alive(self) -> Bool[Tensor, "units envs"]:
        return self.health > 0

    def start(
        self, index: Int64[Tensor, " episodes"], start: Start, noise: Float32[Tensor, "n units episodes"]
    ) -> None:
        """Begin anew in the battles `index`; `noise` in [0, 1) is what chance adds to cooldowns."""
        kind, facts = start.kind, self._columns
        self.kind[:, index] = kind
        self._kind_of_row[: self.count, index] = kind
        self.full_health[:, index], self.full_shield[:, index] = facts["health"][kind], facts["shield"][kind]
        self._speed[:, index], self._cooldown[:, index] = facts["speed"][kind], facts["cooldown"][kind]
        self._sight2[:, index] = facts["sight"][kind[self.agents :]] ** 2
        self._splash[:, index] = facts["splash"][kind]
        self._body[:, index] = facts["radius"][kind].masked_fill(has_trait("flying")[kind], _NO_BODY)
        self.noise[..., index] = noise
        units = torch.zeros(7, *kind.shape)
        units[:2], units[HEALTH], units[SHIELD] = start.place, facts["health"][kind], facts["shield"][kind]
        units[ENERGY] = START_ENERGY * (kind == MEDIVAC)
        self.units[:, :, index] = units
        self._target[:, index] = self._own_goal[:, index]
        self._near = self._near.index_fill(1, index, False)
        goals = start.place.clone()
        if self.scenario.goal is not None:
            goals[:, self.agents :] = torch.tensor(self.scenario.goal)[:, None, None]
        self._goals[:, :, index] = goals

    def advance(
        self,
        actions: Int64[Tensor, "agents envs"],
        time: Int64[Tensor, " envs"],
        running: Bool[Tensor, " envs"],
    ) -> None:
        """One env step of the battles that are running, the others stay as they are.

        `actions` are SMAC's: 0 nothing (dead), 1 stop, 2 … 5 move north, south, east, west, then targets.
        """
        over = (~running).nonzero().squeeze(-1)
        kept = self._rows[:, :, over]
        place, before = self.place.clone(), self.health + self.shield
        chance = self.noise.gather(0, (time % NOISE_PERIOD).expand(1, self.count, -1)).squeeze(0)
        self._pause = chance.mul_(_SLOWEST - _FASTEST).add_(_FASTEST).add_(self._cooldown)
        self._order(actions)
        for phase in range(_PHASES):
            self._look()
            for loop in range(LOOPS // _PHASES):
                self._loop(phase * (LOOPS // _PHASES) + loop)
            if self._heals:
                self._heal()
            self._part()
        self.cooldown.sub_(LOOPS).clamp_(min=0)
        if self._shielded:
            self._recover(before)
        # The dead lie where they were last seen alive: SMAC is no longer told where they are.
        torch.where(self.alive, self.place, place, out=self.place)
        self._rows[:, :, over] = kept

    def _order(self, actions: Int64[Tensor, "agents envs"]) -> None:
        """Agents do as they are told: they walk, or turn to a target until told otherwise."""
        ours = self.agents
        aimed = actions >= FIRST_TARGET
        self._goals[:, :ours] = self._inside(
            self.place[:, :ours] + _STEP_OF_ACTION[:, actions.masked_fill(aimed, 0)]
        )
        target = actions + (ours - FIRST_TARGET)
        if self._heals:
            kind = self.kind[:ours]
            target = torch.where(kind == MEDIVAC, actions - FIRST_TARGET, target).clamp_(0, self.count - 1)
            aimed &= self._hits[kind, self.kind.gather(0, target)]
        self._target[:ours] = torch.where(aimed, target, self._own_goal[:ours])

    def _look(self) -> None:
        """Enemies keep a target within reach, else turn to the nearest they see, else walk to their goal."""
        ours = self.agents
        far2 = squared(self.place[:, None, :ours] - self.place[:, ours:, None])  # [enemies, agents, E]
        hidden = self.health[:ours] <= 0
        if self._heals:
            hidden = hidden | ~self._hits[self.kind[ours:, None], self.kind[None, :ours]]
        nearest2, nearest = far2.masked_fill_(hidden, torch.inf).min(1)
        if self.scenario.goal is None:
            self._goals[:, ours:] = self.place[:, :ours].gather(1, nearest.expand(2, -1, -1))
        held = self._target[ours:]
        keeps = self._near[ours:] & (self._health_of_row.gather(0, held) > 0)
        seen = torch.where(nearest2 < self._sight2, nearest, self._own_goal[ours:])
        target = torch.where(keeps, held, seen)
        if self._heals:
            target = torch.where(self.kind[ours:] == MEDIVAC, self._patient(), target)
        self._target[ours:] = target

        pair = self.kind * (len(KINDS) + 1) + self._kind_of_row.gather(0, self._target)
        self._reach, self._net, self._raw = self._reach_of[pair], self._net_of[pair], self._raw_of[pair]
        if len(self._splashers):  # their damage is not dealt to the target alone
            direct = self._splash == 0
            self._net, self._raw = self._net * direct, self._raw * direct

    def _patient(self) -> Int64[Tensor, "enemies envs"]:
        """For each enemy the nearest wounded mate that is no medivac, else its own goal."""
        ours, health = self.agents, self.health[self.agents :]
        far2 = squared(self.place[:, None, ours:] - self.place[:, ours:, None])
        wounded = (health > 0) & (health < self.full_health[ours:]) & (self.kind[ours:] != MEDIVAC)
        far2, nearest = far2.masked_fill_(~wounded, torch.inf).min(1)
        return torch.where(far2 < torch.inf, nearest + ours, self._own_goal[ours:])

    def _loop(self, clock: int) -> None:
        """One game loop: who has a target within reach shoots when it can, the others walk."""
        to = self._rows[:3].gather(1, self._target.expand(3, -1, -1))
        there, way = to[:2], to[:2] - self.place
        far = squared(way).sqrt_()
        active = (to[HEALTH] > 0) & (self.health > 0)
        near = self._near = (far <= self._reach) & active
        fires = near & (self.cooldown <= clock)
        torch.where(fires, self._pause + clock, self.cooldown, out=self.cooldown)
        self._strike(fires, there)
        if self._ways is not None:
            way, far = self._around(way, there)
        step = way.mul_((self._speed / far.clamp_(min=1e-6)).clamp_(max=1))
        step.masked_fill_(near | ~active, 0)
        if self.scenario.terrain.box is None:
            self._walk(step)
        else:  # nothing in an open rectangle leads out of it
            self.place.add_(step)

    def _strike(self, fires: Bool[Tensor, "units envs"], at: Float32[Tensor, "2 units envs"]) -> None:
        """Shields take a hit first, health takes the rest of it."""
        net, raw = self._received(self._net, fires), None
        if self._shielded:
            raw = self._received(self._raw, fires)
        if len(self._splashers) and fires[self._splashers].any():
            net += self._splashed(self._net_of, fires, at)
            if raw is not None:
                raw += self._splashed(self._raw_of, fires, at)
            self.health.masked_fill_(fires & (self.kind == BANELING), 0)
        if raw is not None:
            net = (net - self.shield).clamp_(min=0)
            self.shield.sub_(raw).clamp_(min=0)
        self.health.sub_(net).clamp_(min=0)

    def _received(
        self, given: Float32[Tensor, "units envs"], by: Bool[Tensor, "units envs"]
    ) -> Float32[Tensor, "units envs"]:
        """What each unit gets from those who have it for a target."""
        rows = torch.zeros_like(self._health_of_row)
        return rows.scatter_add_(0, self._target, given.masked_fill(~by, 0))[: self.count]

    def _splashed(
        self,
        damage: Float32[Tensor, " pairs"],
        fires: Bool[Tensor, "units envs"],
        at: Float32[Tensor, "2 units envs"],
    ) -> Float32[Tensor, "units envs"]:
        """What each unit gets from shots that hit every foe near their target."""
        rows = self._splashers
        width = self._splash[rows, None] + self._body
        foes = (rows < self.agents)[:, None] != (torch.arange(self.count) < self.agents)
        struck = (squared(at[:, rows, None] - self.place[:, None]) <= width * width) & (width > 0)
        struck &= foes[..., None] & (fires & (self._splash > 0))[rows, None]
        return (damage[self.kind[rows, None] * (len(KINDS) + 1) + self.kind] * struck).sum(0)

    def _around(
        self, way: Float32[Tensor, "2 units envs"], to: Float32[Tensor, "2 units envs"]
    ) -> tuple[Float32[Tensor, "2 units envs"], Float32[Tensor, "units envs"]]:
        """Where to walk instead, and how far, where walls are in the way."""
        assert self._ways is not None
        there = cell_of(to)
        via = self._ways[cell_of(self.place) * SIZE**2 + there]
        corner = torch.stack([via // SIZE, via % SIZE]) + 0.5
        way = torch.where(via == there, way, corner - self.place)
        return way, squared(way).sqrt_()

    def _walk(self, step: Float32[Tensor, "2 units envs"]) -> None:
        """Take a step; a wall stops the part of it that leads into the wall."""
        x, y = self.place
        east, north = (self.place + step).clamp_(_EDGE, SIZE - _EDGE)
        torch.where(self._open[cell_of((east, y))], east, x, out=x)
        torch.where(self._open[cell_of((x, north))], north, y, out=y)

    def _part(self) -> None:
        """Units that overlap push each other apart."""
        body = self._body.masked_fill(self.health <= 0, _NO_BODY)
        way = self.place[:, :, None] - self.place[:, None]  # [2, U, U, E]
        far = squared(way).sqrt_().clamp_(min=1e-3)
        push = (body[:, None] + body).sub_(far).clamp_(min=0).div_(far).mul_(_PUSH * _GRAIN)
        step = way.mul_(push).round_().sum(2).div_(_GRAIN).masked_fill_(self._speed == 0, 0)
        if self.scenario.terrain.box is None:
            self._walk(step)
        else:
            self._inside(self.place.add_(step))

    def _heal(self) -> None:
        """Medivacs within reach of a wounded mate give it health for energy."""
        medivac, alive = self.kind == MEDIVAC, self.alive
        missing = torch.zeros_like(self._health_of_row)
        missing[: self.count] = (self.full_health - self.health).masked_fill_(~alive, 0)
        able = self._near & medivac & alive & (self.energy >= _HEAL_COST)
        heals = able & (missing.gather(0, self._target) > 0)
        gained = _ENERGY_GAINED * medivac - _HEAL_COST * heals
        self.energy.add_(gained).clamp_(max=_FULL_ENERGY)
        given = self._received(torch.full_like(self.health, _HEALED), heals)
        self.health.add_(given.minimum(missing[: self.count]))

    def _recover(self, before: Float32[Tensor, "units envs"]) -> None:
        """Shields of the living recover once they have been left alone."""
        unhurt = self.health + self.shield >= before
        self._calm.add_(1).mul_(unhurt)
        recovered = self.shield + _RECOVERED * (self._calm > _CALM)
        torch.minimum(recovered, self.full_shield, out=self.shield)
        self.shield.mul_(self.alive)

    def _inside(self, place: Float32[Tensor, "2 units envs"]) -> Float32[Tensor, "2 units envs"]:
        """Moves places into the open rectangle (any other terrain: onto the map)."""
        left, bottom, right, top = self.scenario.terrain.box or (0, 0, SIZE, SIZE)
        place[X].clamp_(left + _EDGE, right - _EDGE)
        place[Y].clamp_(bottom + _EDGE, top - _EDGE)
        return place


def squared(way: Float32[Tensor, "2 *shape"]) -> Float32[Tensor, "*shape"]:
    """Squared length; not as a sum over an axis, whose last bits depend on the number of battles."""
    x, y = way.unbind()
    return (x * x).add_(y * y)


def cell_of(place: Float32[Tensor, "2 *shape"] | tuple[Tensor, Tensor]) -> Int64[Tensor, "..."]:
    """Number of the cell that a place is in."""
    x, y = place
    return x.long().mul_(SIZE).add_(y.long())
