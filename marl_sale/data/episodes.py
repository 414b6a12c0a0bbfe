"""Whole episodes as they are collected and stored: padded to the episode limit, one row an episode."""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import torch
from jaxtyping import Bool, Float, Int, Int64, Shaped
from torch import Tensor

from marl_sale.spec import EnvSpec


def action_dtype(spec: EnvSpec) -> torch.dtype:
    """Smallest integers that number the task's actions."""
    return torch.int8 if spec.n_actions <= 128 else torch.int16


@dataclass(frozen=True)
class Episodes:
    """B episodes; entry t of an episode is real while t < length (observations: t ≤ length).

    `times` is `time` + 1: every episode ends with an observation.
    """

    obs: Float[Tensor, "batch times agents obs"]
    state: Float[Tensor, "batch times state"]
    avail_actions: Bool[Tensor, "batch times agents actions"]
    actions: Int[Tensor, "batch time agents"]
    reward: Float[Tensor, "batch time"]
    terminated: Bool[Tensor, " batch"]
    """The last step ended the episode for good; False: the time limit cut it off."""
    success: Bool[Tensor, " batch"]
    length: Int64[Tensor, " batch"]

    @classmethod
    def empty(cls, spec: EnvSpec, count: int, observations: torch.dtype = torch.float32) -> "Episodes":
        """Room for `count` episodes, `observations` the precision of observations and states."""
        b, t, n = count, spec.episode_limit, spec.n_agents
        return cls(
            obs=torch.empty(b, t + 1, n, spec.obs_size, dtype=observations),
            state=torch.empty(b, t + 1, spec.state_size, dtype=observations),
            avail_actions=torch.empty(b, t + 1, n, spec.n_actions, dtype=torch.bool),
            actions=torch.empty(b, t, n, dtype=action_dtype(spec)),
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

    @classmethod
    def join(cls, parts: Sequence["Episodes"]) -> "Episodes":
        """Episodes of the same task, one part after the other."""
        return cls(**{f.name: torch.cat([getattr(part, f.name) for part in parts]) for f in fields(cls)})

    def to_tensors(self) -> dict[str, Shaped[Tensor, "..."]]:
        """For storage: real entries only, one episode after the other."""
        steps, rows = self.real()
        per_row = {name: getattr(self, name)[rows] for name in ("obs", "state", "avail_actions")}
        per_step = {name: getattr(self, name)[steps] for name in ("actions", "reward")}
        per_episode = {name: getattr(self, name) for name in ("terminated", "success", "length")}
        return {**per_row, **per_step, **per_episode}

    @classmethod
    def from_tensors(cls, spec: EnvSpec, tensors: dict[str, Shaped[Tensor, "..."]]) -> "Episodes":
        """The inverse of `to_tensors`. ValueError where they are not episodes of this task."""
        length = tensors.get("length", torch.empty(0, dtype=torch.int64))
        if length.dtype != torch.int64 or length.dim() != 1 or not len(length):
            raise ValueError("length must be one integer per episode")
        if not 1 <= int(length.min()) <= int(length.max()) <= spec.episode_limit:
            raise ValueError(f"lengths must be from 1 to {spec.episode_limit}")
        half = all(name in tensors and tensors[name].dtype == torch.float16 for name in ("obs", "state"))
        episodes = cls.empty(spec, len(length), torch.float16 if half else torch.float32)
        beyond_last = {"obs": 1, "state": 1, "avail_actions": 1, "actions": 0, "reward": 0}
        for name, storage in episodes.tensors().items():
            in_time = name in beyond_last
            count = int((length + beyond_last[name]).sum()) if in_time else len(length)
            shape = (count, *storage.shape[2 if in_time else 1 :])
            value = tensors.get(name)
            if value is None or tuple(value.shape) != shape or value.dtype != storage.dtype:
                raise ValueError(f"{name} must be {storage.dtype} of shape {shape}")
        if not 0 <= int(tensors["actions"].min()) <= int(tensors["actions"].max()) < spec.n_actions:
            raise ValueError(f"actions must be from 0 to {spec.n_actions - 1}")
        for name in ("terminated", "success", "length"):
            getattr(episodes, name).copy_(tensors[name])
        steps, rows = episodes.real()
        for name in ("obs", "state", "avail_actions"):
            getattr(episodes, name)[rows] = tensors[name]
        for name in ("actions", "reward"):
            getattr(episodes, name)[steps] = tensors[name]
        return episodes

    def real(self) -> tuple[Bool[Tensor, "batch time"], Bool[Tensor, "batch times"]]:
        """Which steps and which observations are no padding."""
        times = torch.arange(self.obs.shape[1])
        length = self.length.unsqueeze(1)
        return times[:-1] < length, times <= length
