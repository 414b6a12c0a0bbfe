"""Replay: the newest episodes, in rows that go from hand to hand."""

import torch
from jaxtyping import Int64
from torch import Tensor

from marl_sale.data.batch import Batch, after_burn_in, join
from marl_sale.data.episodes import Episodes
from marl_sale.errors import UsageError
from marl_sale.spec import EnvSpec

PER_ROW, PER_STEP = ("obs", "state", "avail_actions"), ("actions", "reward")
PER_EPISODE = ("terminated", "success", "length")


def replay_bytes(spec: EnvSpec, capacity_episodes: int, observations: torch.dtype = torch.float32) -> int:
    """Memory of a replay full of the longest episodes."""
    one = Episodes.empty(spec, 1, observations).tensors().values()
    return capacity_episodes * sum(tensor.nbytes for tensor in one)


def replay_of(spec: EnvSpec, episodes: Episodes, *, bootstrap_at_time_limit: bool) -> "Replay":
    """A replay of just these episodes."""
    observations = episodes.obs.dtype
    replay = Replay(
        spec, len(episodes), bootstrap_at_time_limit=bootstrap_at_time_limit, observations=observations
    )
    replay.add(episodes)
    return replay


class Replay:
    """The newest `capacity` episodes; episode k of the run has place k mod capacity.

    Every observation has a row, and the step that follows it lies in the same row. An episode takes as many
    rows as it has observations, wherever rows are free, and gives them back when it leaves; the last given
    back are the next taken. Room for the longest episodes is set aside at once, but the system hands out
    memory only where it is written, so a replay takes what its episodes are long.
    """

    def __init__(
        self,
        spec: EnvSpec,
        capacity: int,
        *,
        bootstrap_at_time_limit: bool,
        observations: torch.dtype = torch.float32,
    ) -> None:
        self.spec, self.capacity, self.observations = spec, capacity, observations
        self.bootstrap_at_time_limit = bootstrap_at_time_limit
        self.added = 0
        rows = capacity * (spec.episode_limit + 1)
        one = Episodes.empty(spec, 1, observations).tensors()
        self._rows = {
            name: torch.empty(rows, *one[name].shape[2:], dtype=one[name].dtype)
            for name in (*PER_ROW, *PER_STEP)
        }
        self._places = {name: torch.zeros(capacity, dtype=one[name].dtype) for name in PER_EPISODE}
        self._row_of = torch.empty(capacity, spec.episode_limit + 1, dtype=torch.int64)
        self._free = torch.arange(rows).flip(0)  # a stack, its top at n_free
        self._n_free = rows

    def __len__(self) -> int:
        return min(self.added, self.capacity)

    def add(self, episodes: Episodes) -> None:
        """Store whole episodes in place of the oldest; only their real entries are copied."""
        beyond = max(0, len(episodes) - self.capacity)
        self.added += beyond
        if beyond:
            episodes = episodes.take(slice(beyond, None))
        place = torch.arange(self.added, self.added + len(episodes)) % self.capacity
        self._release(place)

        steps, observed = episodes.real()
        rows = self._take(int(observed.sum()))
        row_of = self._row_of[place].masked_scatter(observed, rows)
        self._row_of[place] = row_of
        step_rows = row_of[:, :-1][steps]
        for name, stored in self._rows.items():
            where, real = (rows, observed) if name in PER_ROW else (step_rows, steps)
            stored[where] = self._narrowed(name, getattr(episodes, name)[real], stored.dtype)
        for name in PER_EPISODE:
            self._places[name][place] = getattr(episodes, name)
        self.added += len(episodes)

    @staticmethod
    def _narrowed(name: str, value: Tensor, dtype: torch.dtype) -> Tensor:
        """`value` as it is stored. UsageError where it would no longer be finite."""
        narrow = value.to(dtype)
        if dtype == torch.float16 and not narrow.isfinite().all():
            raise UsageError(
                f"replay.observations=float16: {name} reaches {value.abs().max().item():.4g}, "
                f"and the largest such number is {torch.finfo(dtype).max:,.0f}",
                "--set replay.observations=float32",
            )
        return narrow

    def sample(self, size: int, generator: torch.Generator) -> Batch:
        """`size` different episodes, uniformly."""
        return self.pack(torch.randperm(len(self), generator=generator)[:size])

    def pack(self, index: Tensor) -> Batch:
        """The episodes at these places, packed.

        At a time limit an episode is not terminated; whether its last value is bootstrapped all the same is
        the recipe's `env.bootstrap_at_time_limit`.
        """
        length = self._places["length"][index]
        ends = self._places["terminated"][index] | (not self.bootstrap_at_time_limit)
        return join(self._rows, self._row_of[index], length, ends, self.spec.n_actions)

    def sample_chunks(self, size: int, chunk_length: int, burn_in: int, generator: torch.Generator) -> Batch:
        """`size` chunks of up to `chunk_length` steps; every stored step is as likely as any other.

        A window of that length is drawn uniformly from all that overlap an episode, and the chunk is the
        overlap: it is shorter where the window reaches beyond the first or last step.
        """
        length = self._places["length"][: len(self)]
        windows = length + chunk_length - 1
        beyond = windows.cumsum(0)
        drawn = torch.randint(int(beyond[-1]), (size,), generator=generator)
        place = torch.searchsorted(beyond, drawn, right=True)
        first = drawn - (beyond - windows)[place] - (chunk_length - 1)
        stop = (first + chunk_length).minimum(length[place])
        return self.pack_chunks(place, first.clamp(min=0), stop, burn_in)

    def chunks_of(self, place: Int64[Tensor, " batch"], chunk_length: int) -> Int64[Tensor, "chunks 3"]:
        """Place, first step and step after the last of the chunks that the episodes at these places consist
        of, one after the other; 0: whole episodes. Each step is in one chunk.
        """
        length = self._places["length"][place]
        longest = chunk_length or self.spec.episode_limit
        count = (length + longest - 1) // longest
        episode = torch.arange(len(place)).repeat_interleave(count)
        start = longest * (torch.arange(len(episode)) - (count.cumsum(0) - count)[episode])
        return torch.stack([place[episode], start, (start + longest).minimum(length[episode])], 1)

    def pack_chunks(self, place: Tensor, start: Tensor, stop: Tensor, burn_in: int) -> Batch:
        """Steps `start` … `stop − 1` of the episodes at these places, packed; before each, up to `burn_in`
        steps that are its history only.
        """
        begin = (start - burn_in).clamp(min=0)
        order = (stop - begin).argsort(descending=True, stable=True)
        place, start, stop, begin = (x[order] for x in (place, start, stop, begin))
        times = begin.unsqueeze(1) + torch.arange(int(stop[0] - begin[0]) + 1)
        row_of = self._row_of[place].gather(1, times.clamp(max=self.spec.episode_limit))
        ended = stop == self._places["length"][place]
        ends = ended & (self._places["terminated"][place] | (not self.bootstrap_at_time_limit))
        window = join(self._rows, row_of, stop - begin, ends, self.spec.n_actions)
        inside = (begin > 0).nonzero().squeeze(1)
        before = self._row_of[place[inside], begin[inside] - 1]
        window.prev_actions[inside] = self._rows["actions"][before].long()
        return after_burn_in(window, start - begin)

    def newest(self, count: int) -> Episodes:
        """The last `count` episodes added, oldest first (copied)."""
        place = torch.arange(self.added - count, self.added) % self.capacity
        episodes = Episodes.empty(self.spec, count, self.observations)
        for name in PER_EPISODE:
            getattr(episodes, name).copy_(self._places[name][place])
        steps, observed = episodes.real()
        rows = self._row_of[place]
        for name in PER_ROW:
            getattr(episodes, name)[observed] = self._rows[name][rows[observed]]
        for name in PER_STEP:
            getattr(episodes, name)[steps] = self._rows[name][rows[:, :-1][steps]]
        return episodes

    def _take(self, count: int) -> Tensor:
        """Free rows; there are always enough, as no episode is longer than the limit."""
        self._n_free -= count
        return self._free[self._n_free : self._n_free + count].clone()

    def _release(self, place: Tensor) -> None:
        """Give back the rows of the episodes at these places (length 0: none has been there)."""
        length = self._places["length"][place].unsqueeze(1)
        observed = (torch.arange(self._row_of.shape[1]) <= length) & (length > 0)
        rows = self._row_of[place][observed]
        self._free[self._n_free : self._n_free + len(rows)] = rows
        self._n_free += len(rows)
