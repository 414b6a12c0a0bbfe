"""Rounds of training episodes, and who plays them: this process, or actors of Ray.

What a round brings is a function of its number, its ε and the agents' weights, whoever plays it and with how
many hands: each episode has its own seeds. So an actor that dies costs time alone, its share is played again.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from itertools import accumulate
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from marl_sale.algorithms._load import build_policy
from marl_sale.cluster import Cluster, cores, is_elsewhere
from marl_sale.config.schema import Config
from marl_sale.data.collect import Clock, Exploration, Policy, play
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_bytes
from marl_sale.envs._load import make_env
from marl_sale.errors import EnvironmentFault, MarlSaleError, UsageError
from marl_sale.nn.agent import Agent
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec, VectorEnv

TRIES = 3
"""Times in a row that the share of an actor that died is played again."""

Ordered = Callable[[Clock], Episodes]
"""Waits for a round that was ordered; adds the seconds it took to a clock."""


@dataclass(frozen=True)
class Round:
    """ε-greedy episodes `first` … `first + count - 1` of the training with `seed`."""

    seed: int
    first: int
    count: int
    epsilon: float

    def play(self, env: VectorEnv, policy: Policy, clock: Clock) -> Episodes:
        """One episode in each environment of `env`, which has `count` of them."""
        noise = Exploration.of_episodes(env.spec, self.epsilon, self.seed, self.first, self.count)
        return play(env, policy, episode_seeds(self.seed, self.first, self.count), noise, clock)

    def shares(self, sizes: list[int]) -> list["Round"]:
        """The round in parts of these sizes, which add up to `count`."""
        firsts = accumulate(sizes[:-1], initial=self.first)
        return [replace(self, first=first, count=size) for first, size in zip(firsts, sizes, strict=True)]


@runtime_checkable
class Rollouts(Protocol):
    """Plays rounds of training episodes, one episode in each of the recipe's environments."""

    def order(self, played: Round, agent: Agent) -> Ordered:
        """Begin a round with the agents' weights of this moment."""

    def close(self) -> None: ...


class InProcess:
    """Here, when the round is waited for."""

    def __init__(self, env: VectorEnv) -> None:
        self._env = env

    def order(self, played: Round, agent: Agent) -> Ordered:
        return partial(played.play, self._env, agent)

    def close(self) -> None:
        self._env.close()


class RolloutWorker:
    """An actor: environments and a copy of the agents' network, on the CPU."""

    def __init__(self, config: Config, num_envs: int) -> None:
        import ray

        torch.set_num_threads(config.train.threads)
        self._env = make_env(config.env, num_envs)
        self._policy = build_policy(config, self._env.spec)
        self._replayed = int(ray.get_runtime_context().was_current_actor_reconstructed)

    def play(self, played: Round, weights: dict[str, Tensor]) -> tuple[Episodes, Clock]:
        """A share of a round, and what it took."""
        self._policy.load_state_dict(weights)
        clock, self._replayed = Clock(replayed=self._replayed), 0
        return played.play(self._env, self._policy, clock), clock


class Actors:
    """On Ray: every round is cut into as many shares as there are actors."""

    def __init__(self, config: Config, spec: EnvSpec, workers: int) -> None:
        """Raises EnvironmentFault where Ray or an environment does not start."""
        episodes = config.train.num_envs
        self._sizes = [episodes // workers + (i < episodes % workers) for i in range(workers)]
        self._cluster = Cluster(
            cpus=workers * config.train.threads, store_bytes=4 * replay_bytes(spec, episodes)
        )
        self._ray = self._cluster.ray
        remote = self._ray.remote(num_cpus=config.train.threads, max_restarts=-1, max_task_retries=TRIES)(
            RolloutWorker
        )
        try:
            self.actors = [remote.remote(config, size) for size in self._sizes]
        except BaseException:
            self.close()
            raise

    def order(self, played: Round, agent: Agent) -> Ordered:
        weights = self._ray.put({name: value.detach().cpu() for name, value in agent.state_dict().items()})
        shares = zip(self.actors, played.shares(self._sizes), strict=True)
        return partial(self._gather, [actor.play.remote(share, weights) for actor, share in shares])

    def _gather(self, references: list[Any], clock: Clock) -> Episodes:
        try:
            parts = self._ray.get(references)
        except self._ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, MarlSaleError):
                raise error.cause from None
            raise
        except self._ray.exceptions.RayActorError as error:
            raise EnvironmentFault(
                f"a roll-out worker died {TRIES + 1} times, or could not start: {_why(error)}",
                "go on with the same command and --resume; without --engine ray the error shows here",
            ) from error
        clocks = [each for _, each in parts]
        clock.environment += max(each.environment for each in clocks)
        clock.acting += max(each.acting for each in clocks)
        clock.replayed += sum(each.replayed for each in clocks)
        return Episodes.join([episodes for episodes, _ in parts])

    def close(self) -> None:
        self._cluster.close()


def rollout_workers(asked: int | None, num_envs: int) -> int:
    """How many actors there are to be: as asked, or one for each CPU. UsageError where some would be idle."""
    if asked is not None and asked > num_envs:
        raise UsageError(
            f"--rollout-workers {asked}: a round has {num_envs} episodes, one for each of them at least",
            f"ask for at most {num_envs}, or join more environments: --set train.num_envs={asked}",
        )
    return asked or min(num_envs, num_envs if is_elsewhere() else cores())


def _why(error: Exception) -> str:
    """The last line of Ray's message that is no detail: where an actor could not start, its error."""
    return [line for line in str(error).splitlines() if line and not line[0].isspace()][-1]
