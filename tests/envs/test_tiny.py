"""The built-in task."""

import numpy as np
import pytest
import torch

from marl_sale.config import schema
from marl_sale.envs._load import make_env
from marl_sale.envs.tiny import LEFT, PRESS, RIGHT, STAY
from marl_sale.errors import ConfigError
from marl_sale.spec import VectorEnv


def build(task: str = "match", num_envs: int = 1, mask_actions: bool = True) -> VectorEnv:
    return make_env(
        schema.Env(
            family="tiny",
            task=task,
            backend="native",
            mask_actions=mask_actions,
            scale_obs=False,
            bootstrap_at_time_limit=False,
        ),
        num_envs,
    )


def joint(*actions: int) -> torch.Tensor:
    return torch.tensor([actions])


def test_every_seed_places_the_agents_on_different_cells() -> None:
    env = build(num_envs=20)
    cells = env.reset(np.arange(20)).state.unflatten(1, (2, 5)).argmax(dim=2)
    assert len({tuple(pair) for pair in cells.tolist()}) == 20  # all 5 × 4 ordered pairs
    assert bool((cells[:, 0] != cells[:, 1]).all())


def test_meeting_and_pressing_together_wins() -> None:
    env = build()
    env.reset(np.array([0]))  # cells 0 and 1
    met = env.step(joint(RIGHT, STAY))
    assert met.observation.avail_actions[0].tolist() == [[True, True, True, True]] * 2
    alone = env.step(joint(PRESS, STAY))
    assert not bool(alone.terminated)
    assert float(alone.reward) == 0.0
    won = env.step(joint(PRESS, PRESS))
    assert (float(won.reward), bool(won.terminated), bool(won.truncated), bool(won.success)) == (1, 1, 0, 1)


def test_time_limit_truncates_without_success() -> None:
    env = build("match-3")
    env.reset(np.array([0]))
    for _ in range(5):
        assert not bool(env.step(joint(STAY, STAY)).truncated)
    last = env.step(joint(STAY, STAY))
    assert bool(last.truncated)
    assert not bool(last.terminated)
    assert not bool(last.success)


def test_masks_follow_the_rules_and_can_be_switched_off() -> None:
    # Seed 0: agents on cells 0 and 1; the first cannot go left, and apart nobody can press.
    shown = build().reset(np.array([0]))
    assert shown.avail_actions[0].tolist() == [[True, False, True, False], [True, True, True, False]]
    env = build(mask_actions=False)
    assert bool(env.reset(np.array([0])).avail_actions.all())
    moved = env.step(joint(LEFT, PRESS))  # useless actions do nothing
    assert torch.equal(moved.observation.state, build().reset(np.array([0])).state)


def test_a_mate_three_cells_away_is_not_seen() -> None:
    env = build(num_envs=2)
    near, far = env.reset(np.array([1, 2])).obs[:, 0, 5:]  # cells (0, 2) and (0, 3)
    assert near.tolist() == [0, 0, 1]
    assert far.tolist() == [0, 0, 0]


def test_task_names() -> None:
    assert build("match-9").spec.obs_size == 12
    assert build("match-5").spec == build("match").spec
    with pytest.raises(ConfigError, match=r"found 'match-2'.*match-3"):
        build("match-2")


def test_render() -> None:
    env = build()
    env.reset(np.array([0]))
    before = env.render(0)
    env.step(joint(RIGHT, STAY))
    assert before.shape == (112, 400, 3)
    assert before.dtype == np.uint8
    assert not np.array_equal(before, env.render(0))
