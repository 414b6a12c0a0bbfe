"""Replay: a ring of whole episodes."""

import torch
from torch import Tensor

from marl_sale.data.batch import Batch, pack
from marl_sale.data.episodes import Episodes
from marl_sale.spec import EnvSpec


def replay_bytes(spec: EnvSpec, capacity_episodes: int) -> int:
    """Memory of a full replay."""
    one = Episodes.empty(spec, 1).tensors().values()
    return capacity_episodes * sum(tensor.nbytes for tensor in one)


class Replay:
    """The newest `capacity` episodes; episode k of the run lies at k mod capacity."""

    def __init__(self, spec: EnvSpec, capacity: int, *, bootstrap_at_time_limit: bool) -> None:
        self.spec, self.capacity = spec, capacity
        self.bootstrap_at_time_limit = bootstrap_at_time_limit
        self.storage = Episodes.empty(spec, capacity)
        self.added = 0

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, episodes: Episodes) -> None:
        """Store whole episodes; only their real steps are copied."""
        for i in range(len(episodes)):
            slot, length = self.added % self.capacity, int(episodes.length[i])
            for name, stored in self.storage.tensors().items():
                value = getattr(episodes, name)[i]
                if name in ("obs", "state", "avail_actions"):
                    stored[slot, : length + 1] = value[: length + 1]
                elif name in ("actions", "reward"):
                    stored[slot, :length] = value[:length]
                else:
                    stored[slot] = value
            self.added += 1

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` different episodes, uniformly."""
        return self.pack(torch.randperm(len(self), generator=generator)[:size])

    def pack(self, index: Tensor) -> Batch:
        """The episodes at these places, packed."""
        return pack(
            self.storage, index, self.spec.n_actions, bootstrap_at_time_limit=self.bootstrap_at_time_limit
        )

    def newest(self, count: int) -> Episodes:
        """The last `count` episodes added, oldest first (copied)."""
        places = torch.arange(self.added - count, self.added) % self.capacity
        return self.storage.take(places)
