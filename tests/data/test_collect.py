"""Playing episodes: what is called in which order, and what an episode depends on."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marl_sale.algorithms._load import build
from marl_sale.config.schema import Config
from marl_sale.data.collect import Clock, Exploration, play, random_available
from marl_sale.data.episodes import Episodes
from marl_sale.envs._load import make_env
from marl_sale.errors import EpisodeLost
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec, Observation, Transition

Tape = list[tuple[str, object]]
SPEC = EnvSpec("dummy", "dummy", "none", 2, 3, 1, 1, 5, True, True)


class DummyEnv:
    """Environment e terminates after 2 + e steps, at most five; observations count steps and name e."""

    spec = SPEC

    def __init__(self, tape: Tape, num_envs: int) -> None:
        self.tape, self.num_envs = tape, num_envs
        self.time = torch.zeros(num_envs, dtype=torch.int64)

    def _observe(self) -> Observation:
        who = torch.arange(self.num_envs)
        obs = (10 * who + self.time).float().view(-1, 1, 1).expand(-1, 2, 1)
        avail = torch.ones(self.num_envs, 2, 3, dtype=torch.bool)
        avail[:, 1, 2] = False
        return Observation(obs.clone(), -obs[:, 0].clone(), avail)

    def reset(self, seeds: np.ndarray, mask: Tensor | None = None) -> Observation:
        self.tape.append(("reset", seeds.tolist()))
        self.time.zero_()
        return self._observe()

    def step(self, actions: Tensor) -> Transition:
        self.tape.append(("step", actions.tolist()))
        end = 2 + torch.arange(self.num_envs)
        live = self.time < end.clamp(max=5)
        self.time += live
        terminated = (self.time == end) & (end < 5)
        truncated = (self.time == 5) & (end >= 5)
        reward = (self.time + 100 * torch.arange(self.num_envs)).float() * live
        return Transition(self._observe(), reward, terminated, truncated, terminated.clone())

    def render(self, index: int) -> np.ndarray:
        return np.zeros((1, 1, 3), np.uint8)

    def close(self) -> None: ...


class DummyPolicy:
    """Prefers action 2, then 1; its memory counts the calls."""

    def __init__(self, tape: Tape) -> None:
        self.tape = tape

    def initial_memory(self, num_envs: int) -> Tensor:
        self.tape.append(("memory", num_envs))
        return torch.zeros(num_envs, 2, 1)

    def act(self, observation: Observation, prev_actions: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        self.tape.append(
            ("act", (observation.obs[:, 0, 0].tolist(), prev_actions.tolist(), memory[0, 0].item()))
        )
        return 2 - observation.avail_actions.flip(-1).int().argmax(-1), memory + 1


def test_tape() -> None:
    """Two environments, of two and three steps: every call and every stored value."""
    tape: Tape = []
    clock = Clock()
    episodes = play(DummyEnv(tape, 2), DummyPolicy(tape), np.array([7, 8]), clock=clock)
    greedy = [[2, 1], [2, 1]]  # action 2 is not available to the second agent
    assert tape == [
        ("memory", 2),
        ("reset", [7, 8]),
        ("act", ([0, 10], [[3, 3], [3, 3]], 0)),  # three actions: 3 stands for "none yet"
        ("step", greedy),
        ("act", ([1, 11], greedy, 1)),
        ("step", greedy),
        ("act", ([2, 12], greedy, 2)),  # the first is over, and frozen
        ("step", greedy),
    ]
    assert episodes.length.tolist() == [2, 3]
    assert episodes.terminated.tolist() == [True, True]
    assert episodes.success.tolist() == [True, True]
    assert episodes.reward[:, :3].tolist() == [[1, 2, 0], [101, 102, 103]]
    assert episodes.episode_return.tolist() == [3, 306]
    assert episodes.obs[:, :4, 0, 0].tolist() == [[0, 1, 2, 2], [10, 11, 12, 13]]
    assert episodes.state[:, :4, 0].tolist() == [[0, -1, -2, -2], [-10, -11, -12, -13]]
    assert episodes.avail_actions[0, 2].tolist() == [[True] * 3, [True, True, False]]
    assert episodes.actions[1, :3].tolist() == [[2, 1]] * 3
    assert clock.environment > 0
    assert clock.acting > 0


class CrashingEnv(DummyEnv):
    """Crashes in the third step, once; and in the reset after it."""

    def __init__(self, tape: Tape, num_envs: int) -> None:
        super().__init__(tape, num_envs)
        self.crashes = [("step", 2), ("reset", 0)]

    def _crash_if_due(self, call: str) -> None:
        if self.crashes and self.crashes[0] == (call, int(self.time.max())):
            self.crashes.pop(0)
            raise EpisodeLost("dummy/dummy: its process ended")

    def reset(self, seeds: np.ndarray, mask: Tensor | None = None) -> Observation:
        observation = super().reset(seeds, mask)
        if len(self.crashes) == 1:
            self._crash_if_due("reset")
        return observation

    def step(self, actions: Tensor) -> Transition:
        self._crash_if_due("step")
        return super().step(actions)


def test_a_round_in_which_an_environment_crashed_is_played_again(caplog: pytest.LogCaptureFixture) -> None:
    """From the same seeds, with the same noise, from the agents' first memory: as if nothing had happened."""
    noise = Exploration.of_episodes(SPEC, 0.5, 0, 0, 2)
    undisturbed: Tape = []
    expected = play(DummyEnv(undisturbed, 2), DummyPolicy(undisturbed), np.array([7, 8]), noise)
    tape: Tape = []
    clock = Clock()
    episodes = play(CrashingEnv(tape, 2), DummyPolicy(tape), np.array([7, 8]), noise, clock)
    assert clock.replayed == 2
    assert tape[-len(undisturbed) :] == undisturbed
    assert [entry for entry in tape if entry[0] == "reset"] == [("reset", [7, 8])] * 3
    assert episodes.length.tolist() == expected.length.tolist() == [2, 3]
    assert torch.equal(episodes.reward[:, :3], expected.reward[:, :3])
    assert torch.equal(episodes.actions[:, :3], expected.actions[:, :3])
    assert caplog.messages == ["dummy/dummy: its process ended; its round of episodes is played again"] * 2


def test_the_time_limit_truncates() -> None:
    tape: Tape = []
    episodes = play(DummyEnv(tape, 4), DummyPolicy(tape), np.arange(4))
    assert episodes.length.tolist() == [2, 3, 4, 5]
    assert episodes.terminated.tolist() == [True, True, True, False]
    assert episodes.success.tolist() == [True, True, True, False]
    assert episodes.obs[3, 5, 0, 0].item() == 35
    assert sum(name == "step" for name, _ in tape) == 5


def equal(a: Episodes, b: Episodes) -> bool:
    ours, theirs = a.to_tensors(), b.to_tensors()
    return all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.parametrize(("trained", "epsilon"), [(True, None), (True, 0.0), (True, 0.4), (False, 1.0)])
def test_episodes_do_not_depend_on_the_number_of_environments(
    trained: bool, epsilon: float | None, small_config: Callable[..., Config]
) -> None:
    config = small_config("masked")
    played = []
    for num_envs in (1, 3, 6):
        env = make_env(config.env, num_envs)
        agent = build(config, env.spec, seed=3).agent if trained else None
        parts = []
        for first in range(0, 6, num_envs):
            noise = None
            if epsilon is not None:
                noise = Exploration.of_episodes(env.spec, epsilon, 0, first, num_envs)
            parts.append(play(env, agent, episode_seeds(0, first, num_envs), noise))
        played.append([part.take(slice(i, i + 1)) for part in parts for i in range(num_envs)])
    for others in played[1:]:
        assert all(equal(a, b) for a, b in zip(played[0], others, strict=True))
    assert len({tuple(one.actions[0, : int(one.length)].flatten().tolist()) for one in played[0]}) > 1


def test_epsilon_is_the_share_of_explored_actions() -> None:
    """With ε = 0.3 an agent leaves its greedy action in 0.3 · 2⁄3 of the cases (one in three is the same)."""
    tape: Tape = []
    count, left = 400, []
    for first in range(0, count, 4):
        noise = Exploration.of_episodes(SPEC, 0.3, 0, first, 4)
        episodes = play(DummyEnv(tape, 4), DummyPolicy(tape), np.arange(4), noise)
        left += [int(a) != 2 for i in range(4) for a in episodes.actions[i, : int(episodes.length[i]), 0]]
    assert np.mean(left) == pytest.approx(0.2, abs=5 * (0.2 * 0.8 / len(left)) ** 0.5)


@given(st.lists(st.booleans(), min_size=1, max_size=9).filter(any), st.integers(1, 40))
def test_random_available_is_uniform_over_the_available(bits: list[bool], per_action: int) -> None:
    """Over a grid of u, each available action is drawn equally often, and no other ever."""
    count = sum(bits) * per_action
    u = ((torch.arange(count, dtype=torch.float64) + 0.5) / count).view(-1, 1)
    avail = torch.tensor(bits).expand(count, 1, -1)
    drawn = random_available(avail, u).flatten().bincount(minlength=len(bits)).tolist()
    assert drawn == [per_action if bit else 0 for bit in bits]


def test_random_available_at_the_ends_of_the_interval() -> None:
    for n in range(1, 40):
        avail = torch.zeros(2, 1, n + 2, dtype=torch.bool)
        avail[..., 1 : n + 1] = True
        u = torch.tensor([[0.0], [np.nextafter(1.0, 0.0)]], dtype=torch.float64)
        assert random_available(avail, u).flatten().tolist() == [1, n]


def test_exploration_noise_belongs_to_the_episode() -> None:
    whole = Exploration.of_episodes(SPEC, 0.5, 3, 0, 6).noise
    assert torch.equal(Exploration.of_episodes(SPEC, 0.5, 3, 4, 2).noise, whole[4:])
    assert not torch.equal(Exploration.of_episodes(SPEC, 0.5, 4, 4, 2).noise, whole[4:])
    assert not torch.equal(Exploration.of_episodes(SPEC, 0.5, 3, 4, 2, "evaluation").noise, whole[4:])
    assert whole.min() >= 0
    assert whole.max() < 1
