"""Chunks of episodes: what is in them, what is before them, and how they are drawn."""

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from marl_sale.algorithms._load import build
from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay, replay_of
from marl_sale.nn.agent import Core
from marl_sale.spec import EnvSpec

LENGTHS = (6, 1, 4, 6)


@pytest.fixture
def replay(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> Replay:
    """Observations, rewards and actions of the steps tell the episode and the time."""
    episodes = random_episodes(spec, LENGTHS)
    for b, length in enumerate(LENGTHS):
        for t in range(length + 1):
            episodes.obs[b, t, :, 0], episodes.obs[b, t, :, 1] = b, t
            if t < length:
                episodes.reward[b, t] = 10 * b + t
                episodes.actions[b, t] = (b + t) % spec.n_actions
    episodes.terminated[:] = torch.tensor([True, True, False, False])
    return replay_of(spec, episodes, bootstrap_at_time_limit=True)


def steps_of(batch: Batch) -> list[tuple[int, int]]:
    """Episode and time of each step of a batch of `replay`."""
    return [(int(b), int(t)) for b, t in batch.now(batch.obs)[:, 0, :2]]


def test_a_chunk_has_its_steps_and_what_follows_the_last(replay: Replay, spec: EnvSpec) -> None:
    chunks = [(0, 2, 5), (2, 0, 4), (3, 5, 6)]  # episode, first step, step after the last
    batch = replay.pack_chunks(*torch.tensor(chunks).unbind(1), burn_in=2)
    expected = [(b, t) for b, start, stop in chunks for t in range(start, stop)]
    assert sorted(steps_of(batch)) == expected
    assert batch.n_episodes == 3
    assert len(batch.obs) == len(expected) + 3
    assert torch.equal(batch.next(batch.obs)[:, 0, 1], batch.now(batch.obs)[:, 0, 1] + 1)
    assert torch.equal(batch.next(batch.obs)[:, 0, 0], batch.now(batch.obs)[:, 0, 0])
    for step, (b, t) in enumerate(steps_of(batch)):
        assert batch.reward[step] == 10 * b + t
        assert batch.actions[step].tolist() == [(b + t) % spec.n_actions] * spec.n_agents
    for row, (b, t) in enumerate(batch.obs[:, 0, :2].tolist()):
        before = (b + t - 1) % spec.n_actions if t else spec.n_actions
        assert batch.prev_actions[row].tolist() == [before] * spec.n_agents


def test_only_a_last_step_can_be_terminal(replay: Replay) -> None:
    chunks = torch.tensor([(0, 2, 5), (0, 3, 6), (2, 1, 4), (1, 0, 1)])
    batch = replay.pack_chunks(*chunks.unbind(1), burn_in=1)
    terminal = {step for step, over in zip(steps_of(batch), batch.terminated, strict=True) if over}
    assert terminal == {(0, 5), (1, 0)}  # episode 2 was cut off by the limit, and bootstraps


def test_history_is_the_burn_in_and_the_chunk(replay: Replay, spec: EnvSpec) -> None:
    batch = replay.pack_chunks(*torch.tensor([(0, 3, 5), (3, 1, 6)]).unbind(1), burn_in=2)
    assert batch.history is not None
    seen = sorted((int(b), int(t)) for b, t in batch.history.obs[:, 0, :2])
    assert seen == [(0, t) for t in range(1, 6)] + [(3, t) for t in range(7)]
    assert torch.equal(batch.history.obs[batch.history.chunk_rows], batch.obs)
    first = batch.history.prev_actions[: batch.n_episodes, 0].tolist()
    assert sorted(first) == sorted([0 % spec.n_actions, spec.n_actions])  # after step 0; none yet


def test_recurrent_states_are_those_of_the_whole_episode_where_the_burn_in_reaches_back(
    replay: Replay, spec: EnvSpec
) -> None:
    core = Core(5, 4, 3, 8, kind="gru", previous_action=True, agent_id=True)
    whole = replay.pack(torch.arange(4))
    of_whole = {
        tuple(view.tolist()): h
        for view, h in zip(whole.obs[:, 0, :2], whole.unroll(core.unroll), strict=True)
    }
    chunks = torch.tensor([(0, 3, 6), (2, 2, 4), (3, 1, 3)])
    batch = replay.pack_chunks(*chunks.unbind(1), burn_in=spec.episode_limit)
    for view, h in zip(batch.obs[:, 0, :2], batch.unroll(core.unroll), strict=True):
        torch.testing.assert_close(h, of_whole[tuple(view.tolist())])
    short = replay.pack_chunks(*chunks.unbind(1), burn_in=0)
    assert short.history is None
    assert not torch.allclose(short.unroll(core.unroll)[0], of_whole[(0.0, 3.0)])


def test_a_burn_in_takes_no_part_in_any_loss(
    replay: Replay, spec: EnvSpec, small_config: Callable[..., object]
) -> None:
    """What lies before the chunk may only act through the recurrent state: without memory, not at all."""
    algorithm = build(small_config(changes=["agent.core=feedforward"]), spec)
    chunks = torch.tensor([(0, 3, 6), (2, 2, 4)]).unbind(1)
    losses = []
    for burn_in in (0, 3):
        algorithm.noise_generator.manual_seed(0)
        losses.append(algorithm.losses(replay.pack_chunks(*chunks, burn_in=burn_in)))
    assert set(losses[0]) == set(algorithm.loss_names)
    for name, value in losses[0].items():
        torch.testing.assert_close(value, losses[1][name])


@given(st.integers(1, 9), st.integers(0, 4), st.integers(0, 10**6))
def test_no_chunk_leaves_its_episode(chunk_length: int, burn_in: int, seed: int) -> None:
    spec = EnvSpec("none", "none", "none", 1, 2, 2, 1, 6, False, False)
    episodes = Episodes.empty(spec, len(LENGTHS))
    for field in (episodes.state, episodes.actions, episodes.reward, episodes.terminated):
        field.zero_()
    episodes.avail_actions[:] = True
    episodes.length[:] = torch.tensor(LENGTHS)
    for b in range(len(LENGTHS)):
        for t in range(7):
            episodes.obs[b, t, 0] = torch.tensor([b, t])
    replay = replay_of(spec, episodes, bootstrap_at_time_limit=True)
    batch = replay.sample_chunks(5, chunk_length, burn_in, torch.Generator().manual_seed(seed))
    assert batch.n_episodes == 5
    assert len(batch.batch_sizes) <= chunk_length + 1
    assert torch.equal(
        batch.next(batch.obs)[:, 0] - batch.now(batch.obs)[:, 0],
        torch.tensor([[0.0, 1.0]]).expand(len(batch.actions), 2),
    )
    assert all(t < LENGTHS[int(b)] for b, t in batch.now(batch.obs)[:, 0].tolist())


def test_every_stored_step_is_drawn_as_often_as_any_other(replay: Replay) -> None:
    generator, counts = torch.Generator().manual_seed(0), dict[tuple[int, int], int]()
    for _ in range(100):
        for step in steps_of(replay.sample_chunks(40, 3, 1, generator)):
            counts[step] = counts.get(step, 0) + 1
    assert len(counts) == sum(LENGTHS)
    mean = sum(counts.values()) / len(counts)
    assert all(0.85 * mean < count < 1.15 * mean for count in counts.values())


@pytest.mark.parametrize("chunk_length", [1, 2, 3, 6, 9])
def test_consecutive_chunks_have_every_step_of_the_episodes_once(replay: Replay, chunk_length: int) -> None:
    chunks = replay.chunks_of(torch.tensor([3, 0, 1]), chunk_length)
    assert (chunks[:, 2] - chunks[:, 1]).max() == min(chunk_length, 6)
    steps = [(b, t) for b, start, stop in chunks.tolist() for t in range(start, stop)]
    assert steps == [(b, t) for b in (3, 0, 1) for t in range(LENGTHS[b])]


def test_whole_episodes_are_packed_alike_with_and_without_chunks(replay: Replay) -> None:
    places = torch.tensor([2, 0, 3, 1])
    whole = replay.pack_chunks(*replay.chunks_of(places, 0).unbind(1), burn_in=0).tensors()
    packed = replay.pack(places).tensors()
    assert whole.keys() == packed.keys()
    assert all(torch.equal(whole[name], packed[name]) for name in packed)


def test_chunks_repeat_with_their_generator(replay: Replay) -> None:
    one, other = (replay.sample_chunks(4, 3, 2, torch.Generator().manual_seed(3)) for _ in range(2))
    assert torch.equal(one.obs, other.obs)
    assert torch.equal(one.actions, other.actions)
