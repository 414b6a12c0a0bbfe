"""The environment: battles, their rewards and their ends, as SMAC defines them."""

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

from marl_sale.envs.micro.combat import HEALTH, NOISE_PERIOD, SHIELD, Combat
from marl_sale.envs.micro.observe import NOBODY, Watcher, sizes
from marl_sale.envs.micro.render import picture
from marl_sale.envs.micro.scenario import Scenario
from marl_sale.envs.micro.units import MEDIVAC
from marl_sale.seeding import uniform_draws
from marl_sale.spec import EnvSpec, Observation, Transition

RULES_VERSION = 2
"""Raised with every change of what happens in a battle: results of two versions are not comparable."""
_KILL, _WIN, _FULL_RETURN = 10.0, 200.0, 20.0


class Battle:
    """E battles of one scenario, in lockstep; tensors inside have the battles last."""

    def __init__(self, scenario: Scenario, num_envs: int) -> None:
        self.num_envs, self._scenario = num_envs, scenario
        agents, enemies, size = len(scenario.agents), len(scenario.enemies), sizes(scenario)
        self.spec = EnvSpec(
            family="micro",
            task=scenario.name,
            backend="native",
            n_agents=agents,
            n_actions=size.actions,
            obs_size=size.obs,
            state_size=size.state,
            episode_limit=scenario.limit,
            masks_actions=True,
            has_success=True,
            notes=f"not StarCraft II; rules {RULES_VERSION}",
        )
        self.combat = Combat(scenario, num_envs)
        self._watcher = Watcher(self.combat)
        self._time = torch.zeros(num_envs, dtype=torch.int64)
        self._terminated = torch.zeros(num_envs, dtype=torch.bool)
        self._success = torch.zeros(num_envs, dtype=torch.bool)
        self._reward_scale = torch.ones(num_envs)
        self._last_actions = torch.full((agents, num_envs), -1)
        # Takes effect in the next step only, so that an episode that is over looks the same for ever.
        self._sighted_by = torch.full((enemies, num_envs), NOBODY)
        self._next_sighted_by = self._sighted_by

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = np.ones(self.num_envs, bool) if mask is None else mask.cpu().numpy()
        if chosen.any():
            index, seeds = torch.from_numpy(chosen.nonzero()[0]), seeds[chosen]
            start = self._scenario.start(seeds)
            self.combat.start(index, start, _noise(seeds, len(start.kind)))
            worth = (self.combat.full_health + self.combat.full_shield)[self.spec.n_agents :].sum(0)
            self._reward_scale = _FULL_RETURN / (worth + _KILL * len(self._scenario.enemies) + _WIN)
            self._time = self._time.index_fill(0, index, 0)
            self._terminated = self._terminated.index_fill(0, index, False)
            self._success = self._success.index_fill(0, index, False)
            self._last_actions = self._last_actions.index_fill(1, index, -1)
            self._sighted_by = self._sighted_by.index_fill(1, index, NOBODY)
        return self._observe()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        combat, agents = self.combat, self.spec.n_agents
        running = ~self._terminated & (self._time < self.spec.episode_limit)
        before, lived = self._strength(), combat.alive[agents:]
        orders = actions.T
        combat.advance(orders, self._time, running)
        self._time = self._time + running
        self._last_actions = torch.where(running, orders, self._last_actions)
        alive = combat.alive
        self._remember(alive, running)

        # Medivacs alone do not fight on.
        fighting = alive & (combat.kind != MEDIVAC)
        ours, theirs = fighting[:agents].any(0), fighting[agents:].any(0)
        won = running & ours & ~theirs
        self._success = self._success | won
        self._terminated = self._terminated | (running & ~(ours & theirs))
        truncated = ~self._terminated & (self._time >= self.spec.episode_limit)

        # SMAC rewards recovered shields of enemies as if they were damage; SMACv2 does not.
        gain = before - self._strength() + _KILL * (lived & ~alive[agents:]).sum(0)
        gain = gain.abs() if self._scenario.rules.package == "smac" else gain.clamp(min=0)
        reward = (gain + _WIN * won) * self._reward_scale
        return Transition(self._observe(), reward, self._terminated.clone(), truncated, self._success.clone())

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        return picture(self.combat, index, f"step {int(self._time[index])} of {self.spec.episode_limit}")

    def close(self) -> None:
        pass

    def _strength(self) -> Float32[Tensor, " envs"]:
        """Health and shields of the enemies together."""
        enemies = self.combat.units[HEALTH : SHIELD + 1, self.spec.n_agents :]
        return enemies.sum((0, 1))

    def _remember(self, alive: Bool[Tensor, "units envs"], running: Bool[Tensor, " envs"]) -> None:
        """Who sighted each enemy: forgotten when either of the two dies."""
        if self._scenario.rules.package == "smac":
            return
        agents = self.spec.n_agents
        seen = self._next_sighted_by
        holds = alive[agents:] & alive[:agents].gather(0, seen.clamp(min=0))
        seen = torch.where(holds, seen, NOBODY)
        self._sighted_by = torch.where(running, seen, self._sighted_by)

    def _observe(self) -> Observation:
        turns = self.combat.noise.gather(
            0, (self._time % NOISE_PERIOD).expand(1, self.spec.n_agents, -1)
        ).squeeze(0)
        shown, self._next_sighted_by = self._watcher.view(self._last_actions, self._sighted_by, turns)
        return shown


def _noise(seeds: Int64[np.ndarray, " episodes"], units: int) -> Float32[Tensor, "steps units episodes"]:
    """Numbers in [0, 1), other ones than those that the start is drawn from."""
    draws = uniform_draws(~seeds, NOISE_PERIOD * units).float()
    return draws.t().reshape(NOISE_PERIOD, units, len(seeds))
