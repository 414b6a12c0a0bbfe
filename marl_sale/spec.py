"""What an environment is to the rest of the library: its sizes and its batched interface."""

from dataclasses import asdict, dataclass
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor


@dataclass(frozen=True)
class EnvSpec:
    """Sizes and rules of one task. Stored in every artifact and compared when artifacts meet."""

    family: str
    task: str
    """Full name of the task in its family, for instance `8x8-2p-2f-coop`."""
    backend: str
    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int
    """Longest episode, in env steps."""
    masks_actions: bool
    """False where every action is always available (no availability loss then)."""
    has_success: bool
    """False where the family defines no success; win rates are then absent, never 0."""
    notes: str = ""
    """What a reader of a result must know, for instance "all actions declared available"."""

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


class Observation(NamedTuple):
    """What the environments show before the agents act."""

    obs: Float32[Tensor, "envs agents obs"]
    state: Float32[Tensor, "envs state"]
    avail_actions: Bool[Tensor, "envs agents actions"]


class Transition(NamedTuple):
    """What one joint step returns, per environment.

    `terminated` and `truncated` exclude each other; the observation is that of the final state.
    An environment whose episode is over stays frozen, with reward 0 and its flags kept, until it is reset.
    """

    observation: Observation
    reward: Float32[Tensor, " envs"]
    terminated: Bool[Tensor, " envs"]
    truncated: Bool[Tensor, " envs"]
    success: Bool[Tensor, " envs"]


@runtime_checkable
class VectorEnv(Protocol):
    """E copies of one task, stepped together; no hidden reset.

    The content of an episode depends on its seed and the actions alone, never on E, on the other
    environments, or on what was played before.
    """

    spec: EnvSpec
    num_envs: int

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        """Start a new episode in the environments of `mask` (all when None), each from its own seed.

        Seeds of environments outside `mask` are ignored. Returns the observation of all E.
        """
        ...

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        """Apply one joint action in every environment whose episode is not over.

        Raises EpisodeLost (as `reset` does) where environments crashed and were started again: all are then
        to be reset, from the same seeds.
        """
        ...

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        """Picture of environment `index`, without a display."""
        ...

    def close(self) -> None:
        """Release processes and files."""
        ...
