"""Replay: a ring of whole episodes, uniform and without repetition."""

from collections.abc import Callable

import pytest
import torch

from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay, replay_bytes
from marl_sale.errors import UsageError
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


def test_memory_is_never_more_than_announced(replay: Replay, spec: EnvSpec) -> None:
    stored = [*replay._rows.values(), *replay._places.values()]
    assert sum(x.nbytes for x in stored) <= replay_bytes(spec, 5) * 1.2  # steps lie in rows of observations


def test_rows_go_from_hand_to_hand(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    """However many episodes pass through, no more rows are ever touched than are in use at once."""
    replay, rng = Replay(spec, 4, bootstrap_at_time_limit=False), torch.Generator().manual_seed(0)
    most, touched = 0, set[int]()
    for first in range(0, 60, 3):
        lengths = torch.randint(1, 4, (3,), generator=rng).tolist()
        replay.add(random_episodes(spec, lengths, seed=first))
        kept = replay.newest(len(replay))
        in_use = replay._row_of[: len(replay)][kept.real()[1][torch.argsort(_places(replay))]].tolist()
        assert len(set(in_use)) == len(in_use) == int((kept.length + 1).sum())
        most, touched = max(most, len(in_use)), touched | set(in_use)
    assert len(touched) <= most + 3 * 4  # three episodes enter before three leave


def _places(replay: Replay) -> torch.Tensor:
    return torch.arange(replay.added - len(replay), replay.added) % replay.capacity


def test_more_episodes_than_places(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    replay = Replay(spec, 3, bootstrap_at_time_limit=False)
    replay.add(numbered(spec, 0, 8, random_episodes))
    assert replay.added == 8
    assert replay.newest(3).obs[:, 0, 0, 0].tolist() == [5, 6, 7]
    drawn = replay.sample(3, torch.Generator().manual_seed(0)).obs[:3, 0, 0]
    assert sorted(drawn.tolist()) == [5, 6, 7]


def test_half_precision_rounds_observations_only(
    spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    episodes = random_episodes(spec, [6, 3, 1])
    whole, half = (
        Replay(spec, 3, bootstrap_at_time_limit=False, observations=precision)
        for precision in (torch.float32, torch.float16)
    )
    batches = []
    for replay in (whole, half):
        replay.add(episodes)
        batches.append(replay.pack(torch.arange(3)))
    exact, rounded = batches
    assert exact.history is rounded.history is None
    for name, value in vars(exact).items():
        if name == "history":
            continue
        other = getattr(rounded, name)
        assert other.dtype == value.dtype
        if name in ("obs", "state"):
            assert torch.equal(other, value.half().float())
            assert not torch.equal(other, value)
        else:
            assert torch.equal(other, value)
    episodes.state[1, 0, 0] = 1e5
    whole.add(episodes)
    with pytest.raises(UsageError, match=r"float16: state reaches 1e\+05, .*65,504"):
        half.add(episodes)
    again = Episodes.from_tensors(spec, half.newest(3).to_tensors())
    assert again.obs.dtype == torch.float16
    assert torch.equal(again.obs[0], half.newest(3).obs[0])
