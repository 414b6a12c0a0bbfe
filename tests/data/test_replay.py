"""Replay: a ring of whole episodes, uniform and without repetition."""

from collections.abc import Callable

import pytest
import torch

from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay, replay_bytes
from marl_sale.spec import EnvSpec


def numbered(spec: EnvSpec, first: int, count: int, make: Callable[..., Episodes]) -> Episodes:
    """Episodes whose first observation entry and rewards are their number."""
    episodes = make(spec, [1 + (first + i) % spec.episode_limit for i in range(count)], seed=first)
    for i in range(count):
        episodes.obs[i, :, 0, 0] = first + i
        episodes.reward[i] = first + i
    return episodes


@pytest.fixture
def replay(spec: EnvSpec) -> Replay:
    return Replay(spec, 5, bootstrap_at_time_limit=False)


def test_the_newest_stay(replay: Replay, spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    for first, count in ((0, 3), (3, 1), (4, 4), (8, 4)):
        replay.add(numbered(spec, first, count, random_episodes))
        newest = range(max(0, first + count - 5), first + count)
        assert len(replay) == len(newest)
        assert replay.added == first + count
        stored = replay.newest(len(replay))
        assert stored.obs[:, 0, 0, 0].tolist() == list(newest)
        assert stored.length.tolist() == [1 + i % spec.episode_limit for i in newest]


def test_a_place_taken_again_keeps_nothing_of_before(
    spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    """A long episode, then a short one in its place: rows of the long one are never drawn."""
    replay = Replay(spec, 1, bootstrap_at_time_limit=False)
    replay.add(numbered(spec, 5, 1, random_episodes))  # six steps
    replay.add(numbered(spec, 7, 1, random_episodes))  # two steps
    batch = replay.pack(torch.tensor([0]))
    assert batch.obs[:, 0, 0].tolist() == [7, 7, 7]
    assert batch.reward.tolist() == [7, 7]


def test_what_is_stored_is_a_copy(
    replay: Replay, spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    episodes = numbered(spec, 0, 2, random_episodes)
    replay.add(episodes)
    episodes.obs.fill_(-1)
    assert replay.newest(2).obs[:, 0, 0, 0].tolist() == [0, 1]


def test_samples_are_different_episodes_and_uniform(
    replay: Replay, spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    replay.add(numbered(spec, 0, 7, random_episodes))
    generator = torch.Generator().manual_seed(0)
    counts = dict.fromkeys(range(2, 7), 0)
    for _ in range(500):
        batch = replay.sample(3, generator)
        drawn = batch.obs[: batch.n_episodes, 0, 0].tolist()
        assert len(set(drawn)) == 3
        for number in drawn:
            counts[int(number)] += 1
    assert sum(counts.values()) == 1500
    assert all(240 <= count <= 360 for count in counts.values())  # 300 ± 5 standard deviations


def test_samples_repeat_with_their_generator(
    replay: Replay, spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    replay.add(numbered(spec, 0, 5, random_episodes))
    draws = [replay.sample(2, torch.Generator().manual_seed(seed)).obs[:2, 0, 0].tolist() for seed in (1, 1)]
    assert draws[0] == draws[1]


def test_time_limits_are_the_replays_choice(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    episodes = random_episodes(spec, [6, 6])
    episodes.terminated[:] = torch.tensor([True, False])
    for bootstrap, ends in ((False, 2), (True, 1)):
        replay = Replay(spec, 2, bootstrap_at_time_limit=bootstrap)
        replay.add(episodes)
        assert int(replay.pack(torch.arange(2)).terminated.sum()) == ends


def test_memory_is_that_of_the_storage(replay: Replay, spec: EnvSpec) -> None:
    assert replay_bytes(spec, 5) == sum(x.nbytes for x in replay.storage.tensors().values())
