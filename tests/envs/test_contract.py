"""The contract: every family keeps it, and every broken environment is caught."""

from collections.abc import Callable
from dataclasses import replace
from typing import Any, Literal

import numpy as np
import pytest
import torch

from marl_sale.config import schema
from marl_sale.envs._contract import ContractViolation, check_contract
from marl_sale.envs._load import families, make_env
from marl_sale.envs._pool import WORKERS
from marl_sale.envs.tiny import Match
from marl_sale.errors import ConfigError
from marl_sale.spec import Observation, Transition

TASKS = {
    "smac": ("3m",),
    "smacv2": ("terran_5_vs_5",),
    "tiny": ("match", "match-3"),
    "lbf": (
        "5x5-2p-1f-coop",
        "8x8-2p-2f-coop",
        "2s-8x8-2p-2f-coop",
        "8x8-2p-3f",
        "10x10-3p-5f",
        "10x10-4p-3f",
        "10x10-3p-3f",
        "15x15-4p-5f",
        "Foraging-2s-10x10-3p-3f-v2",
        "6x9-3p-2f",
    ),
    "vmas": (
        "balance,n_agents=4,limit=30",
        "navigation,n_agents=3,shared_rew=false,limit=8",
        "transport,limit=8",
        "wheel,line_length=1,limit=8",
        "sampling,shared_rew=false,limit=8",
        "discovery,shared_reward=true,covering_range=0.6,limit=8",
        "dispersion,food_radius=0.4,limit=8",
        "passage,shared_reward=true,limit=8",
        "give_way,limit=8",
        "reverse_transport,limit=8",
        "simple_spread,levels=5,limit=8",
        "ball_passage,limit=8",
        "dropout,limit=8",
        "flocking,limit=8",
        "multi_give_way,limit=8",
    ),
    "micro": (
        "3m",
        "5m_vs_6m",
        "2s3z",
        "MMM",
        "2m_vs_1z",
        "2s_vs_1sc",
        "6h_vs_8z",
        "corridor",
        "so_many_baneling",
        "bane_vs_bane",
        "terran_5_vs_5",
        "protoss_10_vs_11",
        "zerg_5_vs_5",
    ),
    "mamujoco": (
        "HalfCheetah-2x3,limit=8",
        "Hopper-3x1,limit=60",
        "Ant-4x2,heads=table,bins=3,limit=8",
        "Walker2d-2x3,agent_obsk=0,limit=30",
        "Humanoid-9|8,limit=6",
        "Pusher-3p,heads=table,bins=3,limit=8",
        "ManySegmentSwimmer-3x2,full_obs=true,limit=8",
    ),
}
NEEDS = {"vmas": "vmas", "mamujoco": "gymnasium_robotics"}
"""Packages of families that are extras."""
ONLY: dict[str, dict[str, Any]] = {
    "smac": {"backend": "original", "mask_actions": True},
    "smacv2": {"backend": "original", "mask_actions": True},
    "vmas": {"backend": "original", "mask_actions": False},
    "micro": {"backend": "native", "mask_actions": True},
    "mamujoco": {"backend": "original", "mask_actions": False},
}
"""Values that are the only ones a family honours; it refuses the others."""


def test_every_family_is_checked() -> None:
    assert set(TASKS) == set(families())


@pytest.mark.parametrize("backend", ["native", "original"])
@pytest.mark.parametrize("mask_actions", [False, True])
@pytest.mark.parametrize(("family", "task"), [(family, task) for family in TASKS for task in TASKS[family]])
def test_families_keep_the_contract(
    family: str,
    task: str,
    mask_actions: bool,
    backend: Literal["native", "original"],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    monkeypatch.setenv(WORKERS, "1")  # pools keep the contract by a test of their own
    config = schema.Env(
        family=family,
        task=task,
        backend=backend,
        mask_actions=mask_actions,
        scale_obs=True,
        bootstrap_at_time_limit=False,
    )
    if any(getattr(config, key) != value for key, value in ONLY.get(family, {}).items()):
        with pytest.raises(ConfigError):
            make_env(config, 1)
        return
    if family in NEEDS:
        pytest.importorskip(NEEDS[family], reason=f"the extra {family} is not installed")
    if family in ("smac", "smacv2"):
        request.getfixturevalue("stand_in")
    check_contract(lambda num_envs: make_env(config, num_envs), episodes=6)


class Broken(Match):
    """The tiny task with faults."""

    def __init__(self, num_envs: int, **spec: Any) -> None:
        super().__init__(3, True, num_envs)
        self.spec = replace(self.spec, **spec)
        self.steps = 0

    def reset(self, seeds: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        return self.after_reset(super().reset(self.choose_seeds(seeds), self.choose_mask(mask)))

    def step(self, actions: torch.Tensor) -> Transition:
        self.steps += 1
        over_before = self._success | (self._time == self.spec.episode_limit)
        return self.after_step(super().step(actions), over_before)

    def choose_seeds(self, seeds: np.ndarray) -> np.ndarray:
        return seeds

    def choose_mask(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        return mask

    def after_reset(self, shown: Observation) -> Observation:
        return shown

    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition


class IgnoresSeed(Broken):
    def choose_seeds(self, seeds: np.ndarray) -> np.ndarray:
        return seeds + id(self) % 1000 + self.steps


class DependsOnPosition(Broken):
    def choose_seeds(self, seeds: np.ndarray) -> np.ndarray:
        return seeds + np.arange(len(seeds))


class ResetsAll(Broken):
    def choose_mask(self, mask: torch.Tensor | None) -> torch.Tensor | None:
        return None


class ResetsItself(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        over = transition.terminated | transition.truncated
        Match.reset(self, np.full(self.num_envs, 1), over)
        return transition


class RewardAfterEnd(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(reward=transition.reward + over_before)


class ForgetsFlags(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(truncated=transition.truncated & ~over_before)


class ChangesObservationAfterEnd(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        shown = transition.observation
        return transition._replace(observation=shown._replace(obs=shown.obs + over_before[:, None, None]))


class NoAvailableAction(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        transition.observation.avail_actions[0, 1] = False
        return transition


class MasksNothing(Broken):
    def after_reset(self, shown: Observation) -> Observation:
        return shown._replace(avail_actions=torch.ones_like(shown.avail_actions))

    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(observation=self.after_reset(transition.observation))


class BothFlags(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        over = transition.terminated | transition.truncated
        return transition._replace(terminated=over, truncated=over.clone())


class NeverEnds(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(
            terminated=transition.terminated & False, truncated=transition.truncated & False
        )


class CutsShort(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        self._time[~self._success] = self.spec.episode_limit
        return transition._replace(truncated=~transition.terminated)


class EarlySuccess(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(success=~transition.success)


class DoubleReward(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(reward=transition.reward.double())


class NotFinite(Broken):
    def after_reset(self, shown: Observation) -> Observation:
        return shown._replace(state=shown.state / 0)


class ReusesBuffer(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        self.buffer = getattr(self, "buffer", transition.observation.obs)
        self.buffer[:] = transition.observation.obs
        return transition._replace(observation=transition.observation._replace(obs=self.buffer))


class SharesMemory(Broken):
    def after_step(self, transition: Transition, over_before: torch.Tensor) -> Transition:
        return transition._replace(success=transition.terminated)


class ChangesActions(Broken):
    def step(self, actions: torch.Tensor) -> Transition:
        transition = super().step(actions)
        actions += 1
        return transition


FAULTS: dict[str, tuple[Callable[[int], Broken], str]] = {
    "ignores the seed": (IgnoresSeed, "depends on its seed"),
    "depends on the position": (DependsOnPosition, "depends on its seed"),
    "resets all": (ResetsAll, "reset with a mask"),
    "resets itself": (ResetsItself, "stays as it is"),
    "reward after the end": (RewardAfterEnd, "gave reward 1 after its end"),
    "forgets its flags": (ForgetsFlags, "flags or observation"),
    "changes its observation": (ChangesObservationAfterEnd, "flags or observation"),
    "no available action": (NoAvailableAction, r"available action\s+found: none in .*\[0, 1\]"),
    "both flags": (BothFlags, "exclude each other"),
    "never ends": (NeverEnds, "over at episode_limit"),
    "cuts short": (CutsShort, "only the time limit truncates"),
    "early success": (EarlySuccess, "success is told at the end"),
    "undeclared success": (lambda n: Broken(n, has_success=False), "no success where"),
    "undeclared masks": (lambda n: Broken(n, masks_actions=False), "it is False, but actions were unavail"),
    "masks nothing": (MasksNothing, "it is True, but every action was always available"),
    "wrong size": (lambda n: Broken(n, obs_size=8), r"obs: \(3, 2, 6\) torch.float32, expected \(3, 2, 8\)"),
    "negative size": (lambda n: Broken(n, n_agents=0), "spec.n_agents is 0"),
    "wrong type": (DoubleReward, "reward: .* torch.float64"),
    "not finite": (NotFinite, "state is not"),
    "overwrites what it returned": (ReusesBuffer, "overwritten by a later call"),
    "shares memory": (SharesMemory, "two share memory"),
    "changes its argument": (ChangesActions, "the actions changed"),
}


def test_the_unbroken_double_keeps_the_contract() -> None:
    check_contract(Broken)


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_caught(fault: str) -> None:
    make, message = FAULTS[fault]
    with pytest.raises(ContractViolation, match=message):
        check_contract(make)
