"""Progress on a terminal."""

import time
from collections.abc import Iterable, Mapping

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskProgressColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from ._console import Pace, evaluation_line, plain


class _Display(Progress):
    """A progress bar with two lines of figures below it. All texts are `Text`: foreign markup stays text."""

    pace: Pace | None = None

    def get_renderables(self) -> Iterable[RenderableType]:
        yield from super().get_renderables()
        if self.pace is not None:
            yield from (
                Text(f"  {plain(text)}", style="dim") for text in (self.pace.current, self.pace.split) if text
            )


class Terminal:
    """An observer that draws on stderr; evaluations and notes stay above the bar."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console or Console(stderr=True, highlight=False)
        self._display: _Display | None = None

    def start(self, stage: str, total: int, unit: str) -> None:
        self.finish()
        self._display = _Display(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            TaskProgressColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[speed]}", markup=False),
            console=self._console,
            redirect_stdout=False,
            refresh_per_second=4,
        )
        self._display.pace = Pace(stage, total, unit, time.monotonic)
        self._display.add_task(stage, total=total, speed=unit)
        self._display.start()

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        assert self._display is not None, "progress before start"
        assert self._display.pace is not None
        pace = self._display.pace
        pace.update(done, figures)
        self._display.update(self._display.task_ids[0], completed=done, speed=pace.speed or pace.unit)

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        if stream == "evaluation":
            self._console.print(Text(evaluation_line(values)))

    def note(self, text: str) -> None:
        self._console.print(Text(f"note: {plain(text)}", style="yellow"))

    def finish(self) -> None:
        if self._display is not None:
            self._display.stop()
            self._display = None
