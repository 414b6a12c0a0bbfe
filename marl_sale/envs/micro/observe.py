"""Observations, state and available actions, as `smac` and `smacv2` lay them out by default."""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float32, Int64
from torch import Tensor
from torch.nn.functional import pad

from marl_sale.envs.micro.combat import FIRST_TARGET, Combat, cell_of, squared
from marl_sale.envs.micro.scenario import Scenario
from marl_sale.envs.micro.terrain import SIZE
from marl_sale.envs.micro.units import KINDS, MEDIVAC, column
from marl_sale.spec import Observation

_SIGHT, _RANGE = 9.0, 6.0
"""Of every agent in SMAC."""
_LEAST_RANGE = 2.0
"""Of agents in SMACv2, `min_attack_range`; else that of their kind, without the units' radii."""
NOBODY = -1


class Sizes(NamedTuple):
    """Numbers per unit in observations and state."""

    enemy: int
    ally: int
    own: int
    ally_state: int
    enemy_state: int
    obs: int
    state: int
    actions: int


def sizes(scenario: Scenario) -> Sizes:
    """Sizes of a scenario's observations, state and actions."""
    rules, agents, enemies = scenario.rules, len(scenario.agents), len(scenario.enemies)
    bits, (shield, enemy_shield) = len(rules.agent_bits), rules.shielded
    enemy, ally = 5 + enemy_shield + bits, 5 + shield + bits
    own = 1 + shield + bits + 2 * (rules.package == "smacv2")
    ally_state, enemy_state = 4 + shield + bits, 3 + enemy_shield + bits
    actions = FIRST_TARGET + enemies
    return Sizes(
        enemy,
        ally,
        own,
        ally_state,
        enemy_state,
        obs=4 + enemies * enemy + (agents - 1) * ally + own,
        state=agents * ally_state + enemies * enemy_state + agents * actions,
        actions=actions,
    )


class View(NamedTuple):
    """What is shown, and who sighted each enemy first (SMACv2)."""

    observation: Observation
    sighted_by: Int64[Tensor, "enemies envs"]


class Watcher:
    """Looks at the battles of one `Combat`.

    In SMACv2 an agent is shown an enemy only once the team has sighted it; an enemy that nobody has sighted
    wipes the features of all enemies with lower numbers. It is sighted for those agents who look after
    the first that sees it; in which order they look is random.
    """

    def __init__(self, combat: Combat) -> None:
        scenario = combat.scenario
        self._combat, self._rules, self._sizes = combat, scenario.rules, sizes(scenario)
        agents = self._agents = len(scenario.agents)
        self._enemies = len(scenario.enemies)
        self._heals = any("medivac" in kinds for kinds in scenario.agents)
        self._moves = scenario.terrain.moves()
        self._codes = [_codes(kinds) for kinds in (self._rules.agent_bits, self._rules.enemy_bits)]
        self._scale_of, self._sight_of = column("scale"), column("sight")
        self._range_of = column("range").clamp(min=_LEAST_RANGE)
        pairs = [(i, j) for i in range(agents) for j in range(agents) if i != j]
        self._pair = torch.tensor([i * (agents + self._enemies) + j for i, j in pairs], dtype=torch.int64)
        self._other = torch.tensor([j for _, j in pairs], dtype=torch.int64)

    def view(
        self,
        last_actions: Int64[Tensor, "agents envs"],
        sighted_by: Int64[Tensor, "enemies envs"],
        turns: Float32[Tensor, "agents envs"],
    ) -> View:
        """What the agents are shown; changes nothing.

        `last_actions` are −1 before the first; `sighted_by` is NOBODY where no living agent holds the enemy;
        agents look in the order of `turns`.
        """
        combat, agents, sizes = self._combat, self._agents, self._sizes
        alive, kind = combat.alive, combat.kind
        living = alive[:agents]
        sight, reach = self._ranges(kind[:agents])

        way = combat.place[:, None] - combat.place[:, :agents, None]  # [2, agents, units, E]
        far = squared(way).sqrt_()
        both = living[:, None] & alive
        targets = ((far <= reach) & both)[:, agents:]
        if self._heals:
            mates = (far <= reach)[:, :agents] & both[:, :agents] & (kind[:agents] != MEDIVAC)
            mates = pad(mates, (0, 0, 0, self._enemies - agents))
            targets = torch.where((kind[:agents] == MEDIVAC)[:, None], mates, targets)
        sees = far < sight
        shown = sees & both
        if self._rules.package == "smacv2":
            known, sighted_by = self._sighted((sees & living[:, None])[:, agents:], sighted_by, turns)
            shown[:, agents:] &= known

        envs = alive.shape[1]
        avail = torch.empty(agents, sizes.actions, envs, dtype=torch.bool)
        torch.logical_not(living, out=avail[:, 0])
        avail[:, 1] = living
        cell = cell_of(combat.place[:, :agents])
        avail[:, 2:FIRST_TARGET] = (self._moves[:, cell] & living).transpose(0, 1)
        avail[:, FIRST_TARGET:] = targets

        health = (combat.health / combat.full_health)[:, None]
        shield = (combat.shield / combat.full_shield.clamp(min=1))[:, None]
        our_code, their_code = (
            code[some].transpose(1, 2)
            for code, some in zip(self._codes, (kind[:agents], kind[agents:]), strict=True)
        )
        ours = [health[:agents], shield[:agents], our_code]
        theirs = [health[agents:], shield[agents:], their_code]
        if not self._rules.shielded[0]:
            ours[1] = ours[1][:, :0]
        if not self._rules.shielded[1]:
            theirs[1] = theirs[1][:, :0]
        place = (combat.place / SIZE).transpose(0, 1)  # [units, 2, E]

        seen = torch.stack([far, way[0], way[1]], 2).div_(sight[:, None] if sight.dim() == 3 else sight)
        obs = torch.zeros(agents, sizes.obs, envs)
        moves, enemies, allies, own = obs.split(
            [4, self._enemies * sizes.enemy, (agents - 1) * sizes.ally, sizes.own], 1
        )
        moves.copy_(avail[:, 2:FIRST_TARGET])
        enemies = enemies.unflatten(1, (self._enemies, sizes.enemy))
        enemies[:, :, 0], enemies[:, :, 1:4] = targets, seen[:, agents:]
        enemies[:, :, 4:] = torch.cat(theirs, 1)
        enemies.mul_(shown[:, agents:, None])
        if agents > 1:
            allies = allies.unflatten(1, (agents - 1, sizes.ally))
            allies[:, :, 0], mates = 1.0, (agents, agents - 1)
            allies[:, :, 1:4] = seen.flatten(0, 1)[self._pair].unflatten(0, mates)
            allies[:, :, 4:] = torch.cat(ours, 1)[self._other].unflatten(0, mates)
            allies.mul_(shown.flatten(0, 1)[self._pair].unflatten(0, mates)[:, :, None])
        own_place = [place[:agents]] if self._rules.package == "smacv2" else []
        torch.mul(torch.cat([*ours[:2], *own_place, ours[2]], 1), living[:, None], out=own)

        wait = combat.cooldown[:agents]
        if self._heals:
            wait = torch.where(kind[:agents] == MEDIVAC, combat.energy[:agents], wait)
        wait = (wait / self._scale_of[kind[:agents]])[:, None]
        centred = place - 0.5
        our_state = torch.cat([ours[0], wait, centred[:agents], *ours[1:]], 1).mul_(living[:, None])
        their_state = torch.cat([theirs[0], centred[agents:], *theirs[1:]], 1).mul_(alive[agents:, None])
        done = last_actions[:, None] == torch.arange(sizes.actions)[:, None]
        state = torch.cat([our_state.flatten(0, 1), their_state.flatten(0, 1), done.flatten(0, 1).float()])

        observation = Observation(
            obs.permute(2, 0, 1).contiguous(), state.T.contiguous(), avail.permute(2, 0, 1).contiguous()
        )
        return View(observation, sighted_by)

    def _ranges(
        self, kind: Int64[Tensor, "agents envs"]
    ) -> tuple[Float32[Tensor, "..."], Float32[Tensor, "..."]]:
        """How far each agent sees, and up to where it may choose targets."""
        if self._rules.package == "smac":
            return torch.tensor(_SIGHT), torch.tensor(_RANGE)
        return self._sight_of[kind][:, None], self._range_of[kind][:, None]

    def _sighted(
        self,
        sees: Bool[Tensor, "agents enemies envs"],
        sighted_by: Int64[Tensor, "enemies envs"],
        turns: Float32[Tensor, "agents envs"],
    ) -> tuple[Bool[Tensor, "agents enemies envs"], Int64[Tensor, "enemies envs"]]:
        """Which enemies' features survive the wiping, for each agent; who holds each enemy now.

        Agents see the dead too, where they fell, and the dead wipe like the living.
        """
        turn = turns[:, None].expand_as(sees)
        first, holder = turn.masked_fill(~sees, torch.inf).min(0)
        held = sighted_by != NOBODY
        unknown = ~held & (turn < first)
        wiped = unknown.flip(1).cummax(1).values.flip(1)
        holder = torch.where(first < torch.inf, holder, NOBODY)
        return ~wiped, torch.where(held, sighted_by, holder)


def _codes(kinds: tuple[str, ...]) -> Float32[Tensor, "all_kinds bits"]:
    """One-hot code of each kind."""
    codes = torch.zeros(len(KINDS) + 1, len(kinds))
    for bit, kind in enumerate(kinds):
        codes[KINDS.index(kind), bit] = 1.0
    return codes
