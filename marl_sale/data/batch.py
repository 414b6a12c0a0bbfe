"""What the learner sees: episodes of unequal length, packed without padding.

Rows are ordered by time first, longest episode first within a time step: the layout that recurrent networks
unroll directly. With B episodes of L_b steps there are P = Σ (L_b + 1) rows of observations and V = Σ L_b
steps. Because the rows of t = 0 come first, the row that follows step v is row B + v. Nothing is padded, so
a plain mean over rows is the mean over real entries.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

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


def join(
    stored: Mapping[str, Tensor],
    row_of: Int64[Tensor, "batch times"],
    length: Int64[Tensor, " batch"],
    ends: Bool[Tensor, " batch"],
    n_actions: int,
) -> Batch:
    """A batch of episodes whose entries lie in rows of `stored`: time t of episode b in `row_of[b, t]`.

    `ends`: no value is bootstrapped after the last step of the episode.
    """
    order = length.argsort(descending=True, stable=True)
    row_of, length, ends = row_of[order], length[order], ends[order]
    times = torch.arange(int(length[0]) + 1)
    alive = times.unsqueeze(1) <= length  # [T + 1, B], each row a prefix of ones
    t, b = alive.nonzero(as_tuple=True)
    rows = row_of[b, t]
    acts = t < length[b]
    now_rows = acts.nonzero().squeeze(1)
    steps, last = rows[now_rows], t[now_rows] == length[b[now_rows]] - 1

    actions = stored["actions"].index_select(0, steps).long()
    no_action = torch.full((len(length), actions.shape[1]), n_actions)
    return Batch(
        obs=stored["obs"].index_select(0, rows).float(),
        state=stored["state"].index_select(0, rows).float(),
        avail_actions=stored["avail_actions"].index_select(0, rows),
        prev_actions=torch.cat([no_action, actions]),
        actions=actions,
        reward=stored["reward"].index_select(0, steps),
        terminated=last & ends[b[now_rows]],
        now_rows=now_rows,
        batch_sizes=alive.sum(1),
    )
