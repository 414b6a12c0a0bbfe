"""What the learner sees: episodes of unequal length, packed without padding.

Rows are ordered by time first, longest episode first within a time step: the layout that recurrent networks
unroll directly. With B episodes of L_b steps there are P = Σ (L_b + 1) rows of observations and V = Σ L_b
steps. Because the rows of t = 0 come first, the row that follows step v is row B + v. Nothing is padded, so
a plain mean over rows is the mean over real entries.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from marl_sale.data.episodes import Episodes

Rows = TypeVar("Rows", bound=Tensor)


@dataclass(frozen=True)
class Batch:
    """Packed episodes: `rows` = P observations, `steps` = V transitions between them."""

    obs: Float[Tensor, "rows agents obs"]
    state: Float[Tensor, "rows state"]
    avail_actions: Bool[Tensor, "rows agents actions"]
    prev_actions: Int64[Tensor, "rows agents"]
    """Action before each observation; the number of actions stands for "none yet"."""
    actions: Int64[Tensor, "steps agents"]
    reward: Float[Tensor, " steps"]
    terminated: Bool[Tensor, " steps"]
    """No value is bootstrapped after these steps."""
    now_rows: Int64[Tensor, " steps"]
    batch_sizes: Int64[Tensor, " times"]
    """Episodes alive at each time; always on the CPU."""

    @property
    def n_episodes(self) -> int:
        return int(self.batch_sizes[0])

    def now(self, x: Tensor) -> Tensor:
        """Of a value per row: the one at time t of each step."""
        return x.index_select(0, self.now_rows)

    def next(self, x: Tensor) -> Tensor:
        """Of a value per row: the one at time t + 1 of each step."""
        return x[self.n_episodes :]

    def with_reward(self, reward: Float[Tensor, " steps"]) -> "Batch":
        return replace(self, reward=reward)

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device (batch_sizes stay where recurrent networks want them)."""
        if device.type == "cpu":
            return self
        moved = {
            name: value.pin_memory().to(device, non_blocking=True)
            for name, value in vars(self).items()
            if name != "batch_sizes"
        }
        return replace(self, **moved)


def pack(
    episodes: Episodes, index: Int64[Tensor, " batch"], n_actions: int, *, bootstrap_at_time_limit: bool
) -> Batch:
    """Pack the chosen episodes.

    At a time limit an episode is not terminated; whether its last value is bootstrapped all the same is the
    recipe's `env.bootstrap_at_time_limit`.
    """
    length = episodes.length[index]
    order = length.argsort(descending=True, stable=True)
    index, length = index[order], length[order]
    times = torch.arange(int(length[0]) + 1)
    alive = times.unsqueeze(1) <= length  # [T + 1, B], each row a prefix of ones
    batch_sizes = alive.sum(1)
    t, b = alive.nonzero(as_tuple=True)

    storage_times = episodes.obs.shape[1]
    rows = index[b] * storage_times + t
    acts = t < length[b]
    steps = index[b[acts]] * (storage_times - 1) + t[acts]
    last = t[acts] == length[b[acts]] - 1
    ends = episodes.terminated[index] if bootstrap_at_time_limit else torch.ones_like(length) > 0

    actions = episodes.actions.flatten(0, 1).index_select(0, steps)
    no_action = torch.full((len(index), actions.shape[1]), n_actions)
    return Batch(
        obs=episodes.obs.flatten(0, 1).index_select(0, rows),
        state=episodes.state.flatten(0, 1).index_select(0, rows),
        avail_actions=episodes.avail_actions.flatten(0, 1).index_select(0, rows),
        prev_actions=torch.cat([no_action, actions]),
        actions=actions,
        reward=episodes.reward.flatten(0, 1).index_select(0, steps),
        terminated=last & ends[b[acts]],
        now_rows=acts.nonzero().squeeze(1),
        batch_sizes=batch_sizes,
    )
