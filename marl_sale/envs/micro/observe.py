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


class _Features(NamedTuple):
    """Of the units of one side; shields and codes have size 0 where they are not shown."""

    health: Float32[Tensor, "side 1 envs"]
    shield: Float32[Tensor, "side shields envs"]
    code: Float32[Tensor, "side bits envs"]


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
        combat, agents = self._combat, self._agents
        living = combat.alive[:agents]
        sight, reach = self._ranges(combat.kind[:agents])
        way = combat.place[:, None] - combat.place[:, :agents, None]  # [2, agents, units, E]
        far = squared(way).sqrt_()
        both, sees = living[:, None] & combat.alive, far < sight
        shown = sees & both
        if self._rules.package == "smacv2":
            known, sighted_by = self._sighted((sees & living[:, None])[:, agents:], sighted_by, turns)
            shown[:, agents:] &= known

        avail = self._avail_actions((far <= reach) & both)
        seen = torch.stack([far, *way], 2).div_(sight[:, :, None])
        units = self._features()
        shown_to = self._obs(avail, seen, shown, units), self._state(last_actions, units), avail
        return View(Observation(*(_envs_first(part) for part in shown_to)), sighted_by)

    def _ranges(
        self, kind: Int64[Tensor, "agents envs"]
    ) -> tuple[Float32[Tensor, "#agents 1 #envs"], Float32[Tensor, "#agents 1 #envs"]]:
        """How far each agent sees, and up to where it may choose targets."""
        if self._rules.package == "smac":
            return torch.full((1, 1, 1), _SIGHT), torch.full((1, 1, 1), _RANGE)
        return self._sight_of[kind][:, None], self._range_of[kind][:, None]

    def _avail_actions(
        self, within_range: Bool[Tensor, "agents units envs"]
    ) -> Bool[Tensor, "agents actions envs"]:
        combat, agents = self._combat, self._agents
        living, targets = combat.alive[:agents], within_range[:, agents:]
        if self._heals:
            medivac = combat.kind[:agents] == MEDIVAC
            mates = pad(within_range[:, :agents] & ~medivac, (0, 0, 0, self._enemies - agents))
            targets = torch.where(medivac[:, None], mates, targets)
        moves = self._moves[:, cell_of(combat.place[:, :agents])].transpose(0, 1) & living[:, None]
        return torch.cat([~living[:, None], living[:, None], moves, targets], 1)

    def _features(self) -> tuple[_Features, _Features]:
        """Of agents and of enemies."""
        combat, sides = self._combat, self._agents
        health = (combat.health / combat.full_health)[:, None].tensor_split([sides])
        shield = (combat.shield / combat.full_shield.clamp(min=1))[:, None].tensor_split([sides])
        kind = combat.kind.tensor_split([sides])
        ours, theirs = (
            _Features(health[side], shield[side][:, : int(shielded)], codes[kind[side]].transpose(1, 2))
            for side, (shielded, codes) in enumerate(zip(self._rules.shielded, self._codes, strict=True))
        )
        return ours, theirs

    def _obs(
        self,
        avail: Bool[Tensor, "agents actions envs"],
        seen: Float32[Tensor, "agents units 3 envs"],
        shown: Bool[Tensor, "agents units envs"],
        units: tuple[_Features, _Features],
    ) -> Float32[Tensor, "agents obs envs"]:
        """Moves, enemies, other agents, the agent itself; `seen` is distance, dx, dy in shares of sight."""
        agents, sizes = self._agents, self._sizes
        ours, theirs = units
        obs = torch.ones(agents, sizes.obs, avail.shape[-1])
        moves, enemies, allies, own = obs.split(
            [4, self._enemies * sizes.enemy, (agents - 1) * sizes.ally, sizes.own], 1
        )
        moves.copy_(avail[:, 2:FIRST_TARGET])
        enemies = enemies.unflatten(1, (self._enemies, sizes.enemy))
        enemies[:, :, 0], enemies[:, :, 1:4] = avail[:, FIRST_TARGET:], seen[:, agents:]
        enemies[:, :, 4:] = torch.cat(theirs, 1)
        enemies.mul_(shown[:, agents:, None])
        allies = allies.unflatten(1, (agents - 1, sizes.ally))
        mates = (agents, agents - 1)
        allies[:, :, 1:4] = seen.flatten(0, 1)[self._pair].unflatten(0, mates)
        allies[:, :, 4:] = torch.cat(ours, 1)[self._other].unflatten(0, mates)
        allies.mul_(shown.flatten(0, 1)[self._pair].unflatten(0, mates)[:, :, None])
        place = (self._combat.place[:, :agents] / SIZE).transpose(0, 1)
        own_place = [place] if self._rules.package == "smacv2" else []
        itself = torch.cat([ours.health, ours.shield, *own_place, ours.code], 1)
        torch.mul(itself, self._combat.alive[:agents, None], out=own)
        return obs

    def _state(
        self, last_actions: Int64[Tensor, "agents envs"], units: tuple[_Features, _Features]
    ) -> Float32[Tensor, "state envs"]:
        """Agents, enemies, last actions."""
        combat, agents = self._combat, self._agents
        ours, theirs = units
        kind, wait = combat.kind[:agents], combat.cooldown[:agents]
        if self._heals:
            wait = torch.where(kind == MEDIVAC, combat.energy[:agents], wait)
        wait = (wait / self._scale_of[kind])[:, None]
        place = (combat.place / SIZE - 0.5).transpose(0, 1)
        alive = combat.alive[:, None]
        agent_rows = torch.cat([ours.health, wait, place[:agents], ours.shield, ours.code], 1)
        enemy_rows = torch.cat([theirs.health, place[agents:], theirs.shield, theirs.code], 1)
        done = last_actions[:, None] == torch.arange(self._sizes.actions)[:, None]
        rows = [agent_rows.mul_(alive[:agents]), enemy_rows.mul_(alive[agents:]), done.float()]
        return torch.cat([row.flatten(0, 1) for row in rows])

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


def _envs_first(part: Tensor) -> Tensor:
    return part.movedim(-1, 0).contiguous()


def _codes(kinds: tuple[str, ...]) -> Float32[Tensor, "all_kinds bits"]:
    """One-hot code of each kind."""
    codes = torch.zeros(len(KINDS) + 1, len(kinds))
    for bit, kind in enumerate(kinds):
        codes[KINDS.index(kind), bit] = 1.0
    return codes
