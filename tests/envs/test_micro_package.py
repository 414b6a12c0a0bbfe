"""What micro shows, rewards and ends, against the packages `smac` and `smacv2` on the same units."""

from pathlib import Path

import numpy as np
import pytest
import torch

from marl_sale.envs.micro import scenario_of
from marl_sale.envs.micro.combat import Combat
from marl_sale.envs.micro.maps import SMAC_MAPS
from marl_sale.envs.micro.observe import Watcher
from marl_sale.envs.micro.scenario import Start

STORED = np.load(Path(__file__).parent / "data" / "micro.npz")
STATES = 100
"""Compared for each task below, at least."""
SMALL_TEAMS = ("terran_5_vs_5", "protoss_5_vs_5", "zerg_5_vs_5", "terran_10_vs_11", "zerg_10_vs_11")


@pytest.mark.parametrize("task", [*SMAC_MAPS, *SMALL_TEAMS])
def test_equals_the_package(task: str) -> None:
    for package in ("marl_sale.envs._sc2_protobuf", "smac", "smacv2"):
        pytest.importorskip(package)
    from micro_package import played

    states = seed = 0
    while states < STATES:
        for _, ours, theirs, done, reward, ended, won in played(task, seed):
            for mine, other in zip(ours, theirs, strict=True):
                np.testing.assert_allclose(mine[0].numpy(), other, rtol=0, atol=1e-6)
            if done is not None:
                assert float(done.reward) == pytest.approx(reward, abs=1e-5)
                assert bool(done.terminated | done.truncated) == ended
                assert bool(done.success) == won
            states += 1
        seed += 1


def test_states_compared_are_two_thousand() -> None:
    assert len(SMAC_MAPS) * STATES >= 2_000


@pytest.mark.parametrize("task", sorted({name.split("/")[0] for name in STORED.files}))
def test_equals_what_the_package_showed(task: str) -> None:
    """The same where the packages are not installed: states and views kept by micro_package.py."""
    scenario = scenario_of(task)
    assert scenario is not None
    numbers = sorted({name.split("/")[1] for name in STORED.files if name.startswith(f"{task}/")})
    assert len(numbers) >= 2
    for number in numbers:
        kept = {
            key: torch.from_numpy(STORED[f"{task}/{number}/{key}"])
            for key in (
                "units",
                "kind",
                "last_actions",
                "sighted_by",
                "turns",
                "obs",
                "state",
                "avail_actions",
            )
        }
        combat = Combat(scenario, 1)
        units = kept["units"][..., None]
        start = Start(kept["kind"][:, None], units[:2])
        combat.start(torch.tensor([0]), start, torch.zeros(combat.noise.shape))
        combat.units[:] = units
        view = Watcher(combat).view(*(kept[key][:, None] for key in ("last_actions", "sighted_by", "turns")))
        for ours, name in zip(view.observation, ("obs", "state", "avail_actions"), strict=True):
            torch.testing.assert_close(ours[0].float(), kept[name].float(), rtol=0, atol=1e-6)


def test_masks_of_the_kept_states_differ() -> None:
    """Agents within reach of enemies, dead ones and walls all occur."""
    masks = [STORED[name] for name in STORED.files if name.endswith("avail_actions")]
    assert any(mask[:, 6:].any() for mask in masks)
    assert any(mask[:, 0].any() for mask in masks)
    assert any((mask[:, 1] & ~mask[:, 2:6].all(1)).any() for mask in masks)
