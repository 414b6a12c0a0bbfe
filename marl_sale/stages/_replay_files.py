"""The replay on disk: immutable segments of whole episodes; checkpoints list those they need."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from marl_sale.artifacts.weights import load_tensors, write_tensors
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay

REPLAY = "replay"
"""Folder of a run that holds the episodes it still draws from."""


@dataclass(frozen=True)
class Segment:
    """Episodes `first` … `first + count − 1` of the run."""

    first: int
    count: int
    sha256: str

    @property
    def name(self) -> str:
        return f"{self.first:012d}-{self.count}.safetensors"


class ReplayFiles:
    """Segments of one run's replay, in its folder `replay/`. ValueError for what is no list of segments."""

    def __init__(self, folder: Path, segments: list[dict[str, Any]]) -> None:
        self.folder = folder
        numbers = [segment[name] for segment in segments for name in ("first", "count")]
        if not all(type(number) is int and number >= 0 for number in numbers):
            raise ValueError("a segment of the replay is not numbered by whole numbers")
        self.segments = [Segment(**segment) for segment in segments]

    @property
    def names(self) -> set[str]:
        """Files that the latest checkpoint needs."""
        return {segment.name for segment in self.segments}

    @property
    def _saved(self) -> int:
        """Number of the first episode that is not saved yet."""
        return self.segments[-1].first + self.segments[-1].count if self.segments else 0

    def save(self, replay: Replay | None, *, drop: bool = True) -> list[dict[str, Any]]:
        """Write the episodes added since the last call (None: no more are); returns what a checkpoint lists.

        `drop`: leave out what the replay no longer holds; a checkpoint before this one then loses it too.
        """
        if replay is not None:
            self._add(replay, drop)
        return [asdict(segment) for segment in self.segments]

    def _add(self, replay: Replay, drop: bool) -> None:
        first = max(self._saved, replay.added - replay.capacity)
        if count := replay.added - first:
            new = Segment(first, count, "")
            sha256 = write_tensors(self.folder / new.name, replay.newest(count).to_tensors())
            self.segments.append(Segment(first, count, sha256))
        if drop:
            oldest = replay.added - len(replay)
            self.segments = [s for s in self.segments if s.first + s.count > oldest]

    def keep(self, listed: list[Segment]) -> None:
        """List these again: where a save came to nothing, the checkpoint before still needs them."""
        self.segments = [*listed, *(segment for segment in self.segments if segment not in listed)]

    def load(self, replay: Replay) -> None:
        """Fill an empty replay."""
        oldest = self._saved - replay.capacity
        for segment in self.segments:
            if segment.first + segment.count <= oldest:
                continue  # the checkpoint before needs it
            # Where more episodes came between two checkpoints than the replay holds, some were never saved.
            replay.added = segment.first
            name = f"{self.folder.name}/{segment.name}"  # below the run: no part of it may be a link
            tensors = load_tensors(self.folder.parent, name, sha256=segment.sha256)
            replay.add(Episodes.from_tensors(replay.spec, tensors))
