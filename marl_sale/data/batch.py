"""What the learner sees: episodes of unequal length, packed without padding.

Rows are ordered by time first, longest episode first within a time step: the layout that recurrent networks
unroll directly. With B episodes of L_b steps there are P = Σ (L_b + 1) rows of observations and V = Σ L_b
steps. Because the rows of t = 0 come first, the row that follows step v is row B + v. Nothing is padded, so
a plain mean over rows is the mean over real entries.

A batch may also hold chunks of episodes. What precedes a chunk to warm up recurrent networks (its burn-in) is
then in no row of the batch, so that no loss can see it, but in its history.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

Rows = TypeVar("Rows", bound=Tensor)


@dataclass(frozen=True)
class History:
    """What recurrent networks unroll for a batch of chunks: burn-in and chunk, packed like a batch."""

    obs: Float[Tensor, "rows agents obs"]
    prev_actions: Int64[Tensor, "rows agents"]
    batch_sizes: Int64[Tensor, " times"]
    """Always on the CPU."""
    chunk_rows: Int64[Tensor, " chunk_rows"]
    """Of each row of the batch: its row here."""


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
    history: History | None = None
    """None: every episode is here from its first step on, or from where its recurrent state starts anew."""

    @property
    def n_episodes(self) -> int:
        return int(self.batch_sizes[0])

    @property
    def actions_by_row(self) -> Int64[Tensor, "rows agents"]:
        """The action after each observation; 0 after the last of an episode, where none is taken."""
        return torch.zeros_like(self.prev_actions).index_copy_(0, self.now_rows, self.actions)

    def now(self, x: Tensor) -> Tensor:
        """Of a value per row: the one at time t of each step."""
        return x.index_select(0, self.now_rows)

    def next(self, x: Tensor) -> Tensor:
        """Of a value per row: the one at time t + 1 of each step."""
        return x[self.n_episodes :]

    def unroll(
        self, unroll: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Float[Tensor, "rows agents hidden"]:
        """Recurrent states of every row. `unroll` takes observations, previous actions and batch sizes."""
        if self.history is None:
            return unroll(self.obs, self.prev_actions, self.batch_sizes)
        h = unroll(self.history.obs, self.history.prev_actions, self.history.batch_sizes)
        return h.index_select(0, self.history.chunk_rows)

    def tensors(self) -> dict[str, Tensor]:
        """Every tensor of the batch; those of its history as `history.<name>`."""
        inside = {} if self.history is None else vars(self.history)
        whole = {**vars(self), **{f"history.{name}": value for name, value in inside.items()}}
        return {name: value for name, value in whole.items() if isinstance(value, Tensor)}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> "Batch":
        """The batch that has these `tensors()`."""
        inside = {name: value for name, value in tensors.items() if name.startswith("history.")}
        history = {name.removeprefix("history."): value for name, value in inside.items()}
        own = {name: value for name, value in tensors.items() if name not in inside}
        return cls(**own, history=History(**history) if history else None)

    def with_reward(self, reward: Float[Tensor, " steps"]) -> "Batch":
        return replace(self, reward=reward)

    def to(self, device: torch.device) -> "Batch":
        """The batch on another device (batch_sizes stay where recurrent networks want them)."""
        if device.type == "cpu":
            return self
        history = None if self.history is None else replace(self.history, **_moved(self.history, device))
        return replace(self, **_moved(self, device), history=history)


def _moved(rows: Batch | History, device: torch.device) -> dict[str, Tensor]:
    """All tensors on another device, but for the batch sizes."""
    return {
        name: value.pin_memory().to(device, non_blocking=True)
        for name, value in vars(rows).items()
        if isinstance(value, Tensor) and name != "batch_sizes"
    }


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


def after_burn_in(window: Batch, burn_in: Int64[Tensor, " batch"]) -> Batch:
    """`window` without the first `burn_in[b]` steps of its episode b, longest first; they become history.

    At least one step of every episode must be left.
    """
    if not burn_in.any():
        return window
    steps = (window.batch_sizes.unsqueeze(1) > torch.arange(len(burn_in))).sum(0) - 1
    length = steps - burn_in
    order = length.argsort(descending=True, stable=True)
    alive = torch.arange(int(length.max()) + 1).unsqueeze(1) <= length[order]
    t, k = alive.nonzero(as_tuple=True)
    b = order[k]
    first_row = window.batch_sizes.cumsum(0) - window.batch_sizes  # of each time of the window
    rows = first_row[t + burn_in[b]] + b
    now_rows = (t < length[b]).nonzero().squeeze(1)
    step_of = torch.full((len(window.obs),), -1).index_copy_(
        0, window.now_rows, torch.arange(len(window.now_rows))
    )
    kept = step_of[rows[now_rows]]
    return Batch(
        obs=window.obs[rows],
        state=window.state[rows],
        avail_actions=window.avail_actions[rows],
        prev_actions=window.prev_actions[rows],
        actions=window.actions[kept],
        reward=window.reward[kept],
        terminated=window.terminated[kept],
        now_rows=now_rows,
        batch_sizes=alive.sum(1),
        history=History(window.obs, window.prev_actions, window.batch_sizes, rows),
    )
