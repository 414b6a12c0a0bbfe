"""Playing episodes: E environments in lockstep, one episode each.

An episode depends on its seeds, the policy and ε alone: not on E, nor on its neighbours. Its exploration
noise is drawn from a stream of its own, so that it can be played again.
"""

import logging
import math
from dataclasses import dataclass
from time import perf_counter
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64, Int64
from torch import Tensor

from marl_sale.data.episodes import Episodes
from marl_sale.data.sound import require_observation, require_transition
from marl_sale.errors import EpisodeLost
from marl_sale.seeding import episode_seeds, uniform_draws
from marl_sale.spec import EnvSpec, Observation, VectorEnv

_log = logging.getLogger(__name__)


@runtime_checkable
class Policy(Protocol):
    """Best available actions, each agent's from its own history."""

    def initial_memory(self, num_envs: int) -> Tensor: ...

    def act(
        self,
        observation: Observation,
        prev_actions: Int64[Tensor, "envs agents"],
        memory: Tensor,
    ) -> tuple[Int64[Tensor, "envs agents"], Tensor]: ...


@dataclass(frozen=True)
class Exploration:
    """ε and one noise pair per episode, step and agent: whether to explore, and which action then."""

    epsilon: float
    noise: Float64[Tensor, "envs time agents 2"]

    @classmethod
    def of_episodes(
        cls, spec: EnvSpec, epsilon: float, seed: int, first: int, count: int, stage: str = "train"
    ) -> "Exploration":
        """Noise of episodes `first` … that a stage plays with this seed."""
        seeds = episode_seeds(seed, first, count, f"{stage} exploration")
        shape = (spec.episode_limit, spec.n_agents, 2)
        return cls(epsilon, uniform_draws(seeds, math.prod(shape)).view(count, *shape))


@dataclass
class Clock:
    """Seconds spent in the environment and in choosing actions, and rounds played again after a crash."""

    environment: float = 0.0
    acting: float = 0.0
    replayed: int = 0


def random_available(
    avail_actions: Bool[Tensor, "envs agents actions"], u: Float[Tensor, "envs agents"]
) -> Int64[Tensor, "envs agents"]:
    """The available action that u in [0, 1) points at; uniform when u is."""
    rank = avail_actions.cumsum(-1)
    wanted = (u * rank[..., -1]).floor().long() + 1
    return (rank == wanted.unsqueeze(-1)).int().argmax(-1)


@torch.inference_mode()
def play(
    env: VectorEnv,
    policy: Policy | None,
    seeds: Int64[np.ndarray, " envs"],
    exploration: Exploration | None = None,
    clock: Clock | None = None,
) -> Episodes:
    """One episode in each environment.

    `policy` None plays random available actions (`exploration` must then have ε = 1); `exploration` None
    plays greedily. A round in which an environment crashed is discarded and played again from the same seeds
    with the same noise: no half episode counts, neither as a loss nor as data.

    Raises EnvironmentFault where it shows numbers that are not finite, or not of the shape its spec says.
    """
    clock = clock or Clock()
    while True:  # the environment gives up by itself, with another error
        try:
            return _play_round(env, policy, seeds, exploration, clock)
        except EpisodeLost as lost:
            clock.replayed += 1
            _log.warning("%s; its round of episodes is played again", lost.what)


def _play_round(
    env: VectorEnv,
    policy: Policy | None,
    seeds: Int64[np.ndarray, " envs"],
    exploration: Exploration | None,
    clock: Clock,
) -> Episodes:
    spec, num_envs = env.spec, env.num_envs
    episodes = Episodes.empty(spec, num_envs)
    noise = None if exploration is None else exploration.noise
    epsilon = 0.0 if exploration is None else exploration.epsilon
    memory = None if policy is None else policy.initial_memory(num_envs)
    prev_actions = torch.full((num_envs, spec.n_agents), spec.n_actions)
    running = torch.ones(num_envs, dtype=torch.bool)
    length = torch.zeros(num_envs, dtype=torch.int64)
    success = torch.zeros(num_envs, dtype=torch.bool)
    terminated = torch.zeros(num_envs, dtype=torch.bool)

    started = perf_counter()
    observation = env.reset(seeds)
    require_observation(spec, num_envs, observation, 0)
    clock.environment += perf_counter() - started
    for t in range(spec.episode_limit):
        started = perf_counter()
        episodes.obs[:, t], episodes.state[:, t], episodes.avail_actions[:, t] = observation
        if policy is None:
            assert noise is not None
            actions = random_available(observation.avail_actions, noise[:, t, :, 1])
        else:
            assert memory is not None
            actions, memory = policy.act(observation, prev_actions, memory)
            if noise is not None:
                explored = random_available(observation.avail_actions, noise[:, t, :, 1])
                actions = actions.where(noise[:, t, :, 0] >= epsilon, explored)
        acted = perf_counter()
        transition = env.step(actions)
        require_transition(spec, num_envs, transition, t + 1)
        clock.environment += perf_counter() - acted
        clock.acting += acted - started

        episodes.actions[:, t], episodes.reward[:, t] = actions, transition.reward
        length += running
        terminated |= transition.terminated
        success |= transition.success
        running &= ~(transition.terminated | transition.truncated)
        observation, prev_actions = transition.observation, actions
        if not running.any():
            break
    # Finished environments are frozen, so their final observation is repeated to the end of the round.
    episodes.obs[:, t + 1], episodes.state[:, t + 1], episodes.avail_actions[:, t + 1] = observation
    episodes.terminated[:], episodes.success[:], episodes.length[:] = terminated, success, length
    return episodes
