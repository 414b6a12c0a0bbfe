"""What happens between two env steps: eight game loops of walking, shooting and healing.

Tensors have the battles last, so that an operation on units, or on pairs of units, runs along memory. Sums are
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
"""Units stay this far inside the open rectangle, so that they stand on an open cell."""

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
        self._rows[HEALTH, self.count :] = 1.0
        self.units = self._rows[:, : self.count]
        self._goals = self._rows[:2, self.count :]
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
        return self.units[HEALTH] > 0

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
        over = None if running.all() else (~running).nonzero().squeeze(-1)
        kept = self._rows if over is None else self._rows[:, :, over]
        before = self.units[HEALTH] + self.units[SHIELD] if self._shielded else None
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
        self.units[COOLDOWN].sub_(LOOPS).clamp_(min=0)
        if before is not None:
            self._recover(before)
        if over is not None:
            self._rows[:, :, over] = kept

    def _order(self, actions: Int64[Tensor, "agents envs"]) -> None:
        """Agents do as they are told: they walk, or turn to a target until told otherwise."""
        ours, units = self.agents, self.units
        steps = _STEP_OF_ACTION[:, actions.clamp(max=FIRST_TARGET - 1)]
        steps = steps.masked_fill(actions >= FIRST_TARGET, 0)
        self._goals[:, :ours] = self._inside(units[:2, :ours] + steps)
        aimed = actions >= FIRST_TARGET
        target = actions + (ours - FIRST_TARGET)
        if self._heals:
            healer = self.kind[:ours] == MEDIVAC
            target = torch.where(healer, actions - FIRST_TARGET, target)
            target = target.clamp(0, self.count - 1)
            other = self.kind.gather(0, target)
            aimed &= self._hits[self.kind[:ours], other]
        self._target[:ours] = torch.where(aimed, target, self._own_goal[:ours])

    def _look(self) -> None:
        """Enemies keep a target within reach, else turn to the nearest they see, else walk to their goal."""
        ours, units = self.agents, self.units
        way = units[:2, None, :ours] - units[:2, ours:, None]  # [2, enemies, agents, E]
        far2 = way[0] * way[0] + way[1] * way[1]
        blocked = (units[HEALTH, :ours] <= 0).expand_as(far2)
        if self._heals:
            blocked = blocked | ~self._hits[self.kind[ours:, None], self.kind[None, :ours]]
        nearest2, nearest = far2.masked_fill_(blocked, torch.inf).min(1)
        if self.scenario.goal is None:
            self._goals[:, ours:] = units[:2, :ours].gather(1, nearest.expand(2, -1, -1))
        seen = torch.where(nearest2 < self._sight2, nearest, self._own_goal[ours:])
        held = self._target[ours:]
        keeps = self._near[ours:] & (self._rows[HEALTH].gather(0, held) > 0)
        target = torch.where(keeps, held, seen)
        if self._heals:
            target = torch.where(self.kind[ours:] == MEDIVAC, self._patient(), target)
        self._target[ours:] = target

        pair = self.kind * (len(KINDS) + 1) + self._kind_of_row.gather(0, self._target)
        self._reach, self._net = self._reach_of[pair], self._net_of[pair]
        self._raw = self._raw_of[pair] if self._shielded else self._net
        if len(self._splashers):
            direct = self._splash == 0
            self._net, self._raw = self._net * direct, self._raw * direct

    def _patient(self) -> Int64[Tensor, "enemies envs"]:
        """For each enemy the nearest wounded mate that is no medivac, else its own goal."""
        ours, units = self.agents, self.units
        way = units[:2, None, ours:] - units[:2, ours:, None]
        far2 = way[0] * way[0] + way[1] * way[1]
        health = units[HEALTH, ours:]
        wounded = (health > 0) & (health < self.full_health[ours:]) & (self.kind[ours:] != MEDIVAC)
        far2, nearest = far2.masked_fill_(~wounded, torch.inf).min(1)
        return torch.where(far2 < torch.inf, nearest + ours, self._own_goal[ours:])

    def _loop(self, clock: int) -> None:
        """One game loop: who has a target within reach shoots when it can, the others walk."""
        units, target = self.units, self._target
        to = self._rows[:3].gather(1, target.expand(3, -1, -1))
        way = to[:2] - units[:2]
        far = (way[0] * way[0] + way[1] * way[1]).sqrt_()
        active = (to[HEALTH] > 0) & (units[HEALTH] > 0)
        near = self._near = (far <= self._reach) & active
        fires = near & (units[COOLDOWN] <= clock)
        walks = active ^ near
        torch.where(fires, self._pause + clock, units[COOLDOWN], out=units[COOLDOWN])
        self._strike(fires, to[:2])
        if self._ways is not None:
            way, far = self._around(way, to[:2])
        pace = (self._speed / far.clamp_(min=1e-6)).clamp_(max=1).mul_(walks)
        if self.scenario.terrain.box is None:
            self._walk(way * pace)
        else:
            units[:2] += way * pace

    def _strike(self, fires: Bool[Tensor, "units envs"], at: Float32[Tensor, "2 units envs"]) -> None:
        """Shields take a hit first, health takes the rest of it."""
        target = self._target
        health, shield = self.units[HEALTH], self.units[SHIELD]
        net = torch.zeros_like(self._rows[HEALTH]).scatter_add_(0, target, self._net * fires)[: self.count]
        raw = net
        if self._shielded:
            raw = torch.zeros_like(self._rows[HEALTH]).scatter_add_(0, target, self._raw * fires)[
                : self.count
            ]
        if len(self._splashers) and fires[self._splashers].any():
            splash_net, splash_raw = self._splashed(fires, at)
            net, raw = net + splash_net, raw + splash_raw
            health.masked_fill_(fires & (self.kind == BANELING), 0)
        if self._shielded:
            net = (net - shield).clamp_(min=0)
            shield.sub_(raw).clamp_(min=0)
        health.sub_(net).clamp_(min=0)

    def _splashed(
        self, fires: Bool[Tensor, "units envs"], at: Float32[Tensor, "2 units envs"]
    ) -> tuple[Float32[Tensor, "units envs"], Float32[Tensor, "units envs"]]:
        """Damage of shots that hit all foes near their target: to health, to shields."""
        rows, units = self._splashers, self.units
        way = at[:, rows, None] - units[:2, None]
        far2 = way[0] * way[0] + way[1] * way[1]
        width = self._splash[rows, None] + self._body
        foe = (rows < self.agents)[:, None] != (torch.arange(self.count) < self.agents)
        covered = (far2 <= width * width) & (width > 0) & foe[..., None] & fires[rows, None]
        covered &= (self._splash[rows] > 0)[:, None]
        pair = self.kind[rows, None] * (len(KINDS) + 1) + self.kind
        return (self._net_of[pair] * covered).sum(0), (self._raw_of[pair] * covered).sum(0)

    def _around(
        self, way: Float32[Tensor, "2 units envs"], to: Float32[Tensor, "2 units envs"]
    ) -> tuple[Float32[Tensor, "2 units envs"], Float32[Tensor, "units envs"]]:
        """Where to walk instead, where walls are in the way."""
        assert self._ways is not None
        here, there = self._cell(self.units[:2]), self._cell(to)
        via = self._ways[here * SIZE**2 + there]
        corner = torch.stack([via // SIZE, via % SIZE]) + 0.5
        way = torch.where(via == there, way, corner - self.units[:2])
        return way, (way[0] * way[0] + way[1] * way[1]).sqrt_()

    def _walk(self, step: Float32[Tensor, "2 units envs"]) -> None:
        """Take a step; a wall stops the part of it that leads into the wall."""
        x, y = self.units[X], self.units[Y]
        east, north = (self.units[:2] + step).clamp_(0, SIZE - _EDGE)
        torch.where(self._open[self._cell((east, y))], east, x, out=x)
        torch.where(self._open[self._cell((x, north))], north, y, out=y)

    def _part(self) -> None:
        """Units that overlap push each other apart."""
        units = self.units
        body = self._body.masked_fill(units[HEALTH] <= 0, _NO_BODY)
        way = units[:2, :, None] - units[:2, None]  # [2, U, U, E]
        far = (way[0] * way[0] + way[1] * way[1]).sqrt_().clamp_(min=1e-3)
        push = (body[:, None] + body).sub_(far).clamp_(min=0).div_(far).mul_(_PUSH * _GRAIN)
        step = way.mul_(push).round_().sum(2).div_(_GRAIN).mul_(self._speed > 0)
        if self.scenario.terrain.box is None:
            self._walk(step)
        else:
            units[:2] = self._inside(units[:2] + step)

    def _heal(self) -> None:
        """Medivacs within reach of a wounded mate give it health for energy."""
        units, target = self.units, self._target
        healers = self._near & (self.kind == MEDIVAC) & (units[HEALTH] > 0) & (units[ENERGY] >= _HEAL_COST)
        missing = (self.full_health - units[HEALTH]) * (units[HEALTH] > 0)
        missing = torch.cat([missing, torch.zeros_like(missing)])
        healers &= missing.gather(0, target) > 0
        units[ENERGY].add_(_ENERGY_GAINED * (self.kind == MEDIVAC)).clamp_(max=_FULL_ENERGY)
        units[ENERGY].sub_(_HEAL_COST * healers)
        given = torch.zeros_like(missing).scatter_add_(0, target, _HEALED * healers)
        units[HEALTH].add_(given.minimum(missing)[: self.count])

    def _recover(self, before: Float32[Tensor, "units envs"]) -> None:
        """Shields of the living recover once they have been left alone."""
        units, alive = self.units, self.alive
        unhurt = units[HEALTH] + units[SHIELD] >= before
        units[CALM].add_(1).mul_(unhurt)
        recovered = units[SHIELD] + _RECOVERED * (units[CALM] > _CALM)
        units[SHIELD] = recovered.minimum(self.full_shield).mul_(alive)

    def _inside(self, place: Float32[Tensor, "2 units envs"]) -> Float32[Tensor, "2 units envs"]:
        left, bottom, right, top = self.scenario.terrain.box or (0, 0, SIZE, SIZE)
        place[0].clamp_(left, right - _EDGE)
        place[1].clamp_(bottom, top - _EDGE)
        return place

    @staticmethod
    def _cell(place: Tensor | tuple[Tensor, Tensor]) -> Int64[Tensor, "units envs"]:
        """Number of the cell that a place is in."""
        return place[0].long() * SIZE + place[1].long()
