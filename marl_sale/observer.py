"""How a stage tells what it does: stages call an observer, and never print, log or draw themselves."""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable


@runtime_checkable
class Observer(Protocol):
    """Receives the progress of one stage."""

    def start(self, stage: str, total: int, unit: str) -> None:
        """A stage begins; it will count to `total` in `unit` ("env steps", "episodes", "updates")."""

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        """`done` of the announced total; `figures` are current values, for instance `episode_return`.

        Keys starting with `time_` are the seconds spent so far in one part of the work.
        """

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        """One row was appended to the metrics stream `stream`."""

    def note(self, text: str) -> None:
        """Something the user should know, in one line."""

    def finish(self) -> None:
        """The stage has ended, well or not."""


class Silent:
    """An observer that ignores everything."""

    def start(self, stage: str, total: int, unit: str) -> None: ...
    def progress(self, done: int, figures: Mapping[str, float]) -> None: ...
    def row(self, stream: str, values: Mapping[str, float | None]) -> None: ...
    def note(self, text: str) -> None: ...
    def finish(self) -> None: ...
