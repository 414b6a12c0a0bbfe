"""Packing: every row and step against a naive loop."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_of
from marl_sale.spec import EnvSpec


def naive_order(lengths: list[int]) -> list[tuple[int, int]]:
    longest_first = sorted(range(len(lengths)), key=lambda b: -lengths[b])
    return [(b, t) for t in range(max(lengths) + 1) for b in longest_first if t <= lengths[b]]


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("index", [[0], [2, 0], [1, 3, 4, 0, 2], [4, 4, 1]], ids=str)
def test_layout(
    index: list[int], bootstrap: bool, spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    episodes = random_episodes(spec, [3, 1, 6, 3, 5])
    lengths = [int(episodes.length[i]) for i in index]
    batch = replay_of(spec, episodes, bootstrap_at_time_limit=bootstrap).pack(torch.tensor(index))
    order = naive_order(lengths)
    steps = [(b, t) for b, t in order if t < lengths[b]]

    assert len(batch.obs) == len(order)
    assert batch.batch_sizes.tolist() == [sum(n >= t for n in lengths) for t in range(max(lengths) + 1)]
    assert batch.n_episodes == len(index)
    for row, (b, t) in enumerate(order):
        assert torch.equal(batch.obs[row], episodes.obs[index[b], t])
        assert torch.equal(batch.state[row], episodes.state[index[b], t])
        assert torch.equal(batch.avail_actions[row], episodes.avail_actions[index[b], t])
        before = episodes.actions[index[b], t - 1].tolist() if t else [spec.n_actions] * spec.n_agents
        assert batch.prev_actions[row].tolist() == before
    assert len(batch.actions) == len(steps)
    rows = torch.arange(len(order))
    for step, (b, t) in enumerate(steps):
        assert torch.equal(batch.actions[step], episodes.actions[index[b], t])
        assert batch.reward[step] == episodes.reward[index[b], t]
        ends = t == lengths[b] - 1 and (bool(episodes.terminated[index[b]]) or not bootstrap)
        assert bool(batch.terminated[step]) == ends
        assert batch.now(rows)[step] == order.index((b, t))
        assert batch.next(rows)[step] == order.index((b, t + 1))


@given(st.lists(st.integers(1, 6), min_size=1, max_size=8), st.booleans())
def test_no_step_crosses_an_episode_and_none_is_lost(lengths: list[int], bootstrap: bool) -> None:
    spec = EnvSpec("none", "none", "none", 1, 2, 2, 1, 6, False, False)
    episodes = Episodes.empty(spec, len(lengths))
    for b, length in enumerate(lengths):
        for t in range(length + 1):
            episodes.obs[b, t, 0] = torch.tensor([b, t])
    for field in (episodes.state, episodes.actions, episodes.reward, episodes.terminated):
        field.zero_()
    episodes.avail_actions[:] = True
    episodes.length[:] = torch.tensor(lengths)
    batch = replay_of(spec, episodes, bootstrap_at_time_limit=bootstrap).pack(torch.arange(len(lengths)))
    now, following = batch.now(batch.obs)[:, 0], batch.next(batch.obs)[:, 0]
    assert torch.equal(following - now, torch.tensor([[0.0, 1.0]]).expand_as(now))
    found = sorted((int(b), int(t)) for b, t in now)
    assert found == [(b, t) for b, length in enumerate(lengths) for t in range(length)]
    assert int(batch.terminated.sum()) == (0 if bootstrap else len(lengths))


def test_reward_can_be_replaced(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    batch = replay_of(spec, random_episodes(spec, [2, 1]), bootstrap_at_time_limit=False).pack(
        torch.arange(2)
    )
    other = batch.with_reward(batch.reward * 2)
    assert torch.equal(other.reward, batch.reward * 2)
    assert other.obs is batch.obs
    assert batch.to(torch.device("cpu")) is batch
