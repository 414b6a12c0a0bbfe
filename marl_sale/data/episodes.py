"""Whole episodes as they are collected and stored: padded to the episode limit, one row an episode."""

from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int64, Shaped
from torch import Tensor

from marl_sale.spec import EnvSpec


@dataclass(frozen=True)
class Episodes:
    """B episodes; entry t of an episode is real while t < length (observations: t ≤ length)."""

    obs: Float[Tensor, "batch time+1 agents obs"]
    state: Float[Tensor, "batch time+1 state"]
    avail_actions: Bool[Tensor, "batch time+1 agents actions"]
    actions: Int64[Tensor, "batch time agents"]
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, " batch"]
    """The last step ended the episode for good; False: the time limit cut it off."""
    success: Bool[Tensor, " batch"]
    length: Int64[Tensor, " batch"]

    @classmethod
    def empty(cls, spec: EnvSpec, count: int) -> "Episodes":
        """Storage for `count` episodes; memory is taken by the system only as it is written."""
        b, t, n = count, spec.episode_limit, spec.n_agents
        return cls(
            obs=torch.empty(b, t + 1, n, spec.obs_size),
            state=torch.empty(b, t + 1, spec.state_size),
            avail_actions=torch.empty(b, t + 1, n, spec.n_actions, dtype=torch.bool),
            actions=torch.empty(b, t, n, dtype=torch.int64),
            reward=torch.empty(b, t),
            terminated=torch.empty(b, dtype=torch.bool),
            success=torch.empty(b, dtype=torch.bool),
            length=torch.empty(b, dtype=torch.int64),
        )

    def __len__(self) -> int:
        return len(self.length)

    @property
    def steps(self) -> int:
        """Env steps of all episodes."""
        return int(self.length.sum())

    @property
    def episode_return(self) -> Float[Tensor, " batch"]:
        """Undiscounted sum of rewards."""
        real = torch.arange(self.reward.shape[1]) < self.length.unsqueeze(1)
        return self.reward.where(real, 0.0).sum(1)

    def tensors(self) -> dict[str, Shaped[Tensor, "batch ..."]]:
        """Every field by name."""
        return {f.name: getattr(self, f.name) for f in fields(self)}

    def take(self, index: Int64[Tensor, " batch"] | slice) -> "Episodes":
        """A selection of episodes, copied when `index` is a tensor."""
        return Episodes(**{name: value[index] for name, value in self.tensors().items()})
