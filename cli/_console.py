"""What people see while a stage runs, and what they get from it. Only results go to stdout."""

import json
import math
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import typer

from marl_sale.observer import Observer, Silent

if TYPE_CHECKING:
    from marl_sale.stages.result import StageResult

LINE_PERIOD = 10.0
"""Least seconds between two progress lines where there is no terminal."""

_LABELS = {"episode_return": "return", "win_rate": "win"}


def plain(foreign: object) -> str:
    """Text of unknown origin without control characters, which could rewrite a terminal."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]", "�", str(foreign))


def complain(text: str) -> None:
    """One message on stderr."""
    typer.echo(plain(text), err=True)


def duration(seconds: float) -> str:
    """Hours, minutes and seconds: `0:25:12`."""
    minutes, second = divmod(round(seconds), 60)
    hour, minute = divmod(minutes, 60)
    return f"{hour}:{minute:02}:{second:02}"


def number(value: object) -> str:
    """A figure for people: thousands separated, four significant digits."""
    match value:
        case None:
            return "-"
        case bool():
            return "yes" if value else "no"
        case int():
            return f"{value:,}"
        case float():
            return f"{value:,.0f}" if abs(value) >= 1e4 and math.isfinite(value) else f"{value:.4g}"
        case list() | tuple():
            return f"[{', '.join(number(v) for v in value)}]"
        case _:
            return plain(value)


def table(rows: Iterable[Sequence[object]], heading: Sequence[str] = ()) -> str:
    """Aligned columns, as text that pipes well."""
    cells = [[plain(cell) for cell in row] for row in ([heading, *rows] if heading else rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in cells)


class Pace:
    """How far and how fast one stage is. The rate counts from the first report: a resumed run starts late."""

    def __init__(self, stage: str, total: int, unit: str, clock: Callable[[], float]) -> None:
        self.stage, self.total, self.unit = stage, total, unit
        self.done = 0
        self.figures: Mapping[str, float] = {}
        self._clock = clock
        self._first: tuple[int, float] | None = None

    def update(self, done: int, figures: Mapping[str, float]) -> None:
        self.done, self.figures = done, figures
        self._first = self._first or (done, self._clock())

    @property
    def rate(self) -> float | None:
        """Units per second; None until it is known."""
        if self._first is None or self.done <= self._first[0]:
            return None
        return (self.done - self._first[0]) / max(self._clock() - self._first[1], 1e-9)

    @property
    def speed(self) -> str:
        """`1,234 env steps/s  ETA 0:25:12`."""
        if self.rate is None:
            return ""
        left = max(self.total - self.done, 0) / self.rate
        return f"{number(self.rate)} {self.unit}/s  ETA {duration(left)}"

    @property
    def current(self) -> str:
        """`return 0.41  win 33 %  epsilon 0.05`."""
        return "  ".join(_figure(k, v) for k, v in self.figures.items() if not k.startswith("time_"))

    @property
    def split(self) -> str:
        """`environment 41 %  acting 12 %  learning 40 %  evaluation 7 %`."""
        times = {k.removeprefix("time_"): v for k, v in self.figures.items() if k.startswith("time_")}
        whole = sum(times.values())
        return "  ".join(f"{name} {v / whole:.0%}" for name, v in times.items()) if whole > 0 else ""

    @property
    def line(self) -> str:
        # The last round of episodes may go beyond the total.
        share = f"{min(self.done / self.total, 1):.0%}" if self.total else ""
        parts = [
            f"{self.stage}: {self.done:,}/{self.total:,} {self.unit}",
            share,
            self.speed,
            self.current,
            self.split,
        ]
        return "  ".join(part for part in parts if part)


def _figure(name: str, value: float | None) -> str:
    shown = f"{value:.0%}" if name == "win_rate" and value is not None else number(value)
    return f"{_LABELS.get(name, plain(name))} {shown}"


def evaluation_line(values: Mapping[str, float | None]) -> str:
    """One evaluation during training, in one line."""
    shown = ("episode_return", "win_rate", "episode_length", "evaluation_episodes")
    figures = "  ".join(_figure(name, values[name]) for name in shown if values.get(name) is not None)
    return f"evaluation at {number(values.get('env_steps'))} env steps: {figures}"


class Lines:
    """An observer for logs and pipes: at most a line every ten seconds, and one for each evaluation."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._pace: Pace | None = None
        self._printed = -math.inf
        self._pending = False

    def start(self, stage: str, total: int, unit: str) -> None:
        self.finish()
        self._pace = Pace(stage, total, unit, self._clock)
        self._printed = self._clock()
        self._write(f"{stage}: {total:,} {unit}")

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        assert self._pace is not None, "progress before start"
        self._pace.update(done, figures)
        self._pending = True
        if self._clock() - self._printed >= LINE_PERIOD:
            self._progress_line()

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        if stream == "evaluation":
            self._write(evaluation_line(values))

    def note(self, text: str) -> None:
        self._write(f"note: {text}")

    def finish(self) -> None:
        if self._pending:
            self._progress_line()
        self._pace = None

    def _progress_line(self) -> None:
        assert self._pace is not None
        self._write(self._pace.line)
        self._printed, self._pending = self._clock(), False

    def _write(self, text: str) -> None:
        try:
            self._stream.write(plain(text) + "\n")
            self._stream.flush()
        except BrokenPipeError:  # `2>&1 | head`: nobody reads on, which is no reason to stop training
            self._stream = Path(os.devnull).open("w")  # noqa: SIM115
            with suppress(OSError):
                os.dup2(self._stream.fileno(), sys.stderr.fileno())


class Together:
    """Several observers as one."""

    def __init__(self, *observers: Observer) -> None:
        self._observers = observers

    def start(self, stage: str, total: int, unit: str) -> None:
        for observer in self._observers:
            observer.start(stage, total, unit)

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        for observer in self._observers:
            observer.progress(done, figures)

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        for observer in self._observers:
            observer.row(stream, values)

    def note(self, text: str) -> None:
        for observer in self._observers:
            observer.note(text)

    def finish(self) -> None:
        for observer in self._observers:
            observer.finish()


def _display(quiet: bool) -> Observer:
    if quiet:
        return Silent()
    if sys.stderr.isatty():
        from ._terminal import Terminal

        return Terminal()
    return Lines(sys.stderr)


@contextmanager
def observing(out: Path, *, quiet: bool, tensorboard: bool = False) -> Iterator[Observer]:
    """The observer that fits where stderr goes; ended whatever happens."""
    observer = _display(quiet)
    if tensorboard:
        from ._tensorboard import Scalars

        observer = Together(observer, Scalars(out / "tensorboard"))
    try:
        yield observer
    finally:
        observer.finish()


def _rows(figures: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Name and value of every figure: names of what is nested dotted, each text of a list in its own row."""
    for name, value in figures.items():
        if isinstance(value, Mapping):
            yield from _rows(value, f"{prefix}{name}.")
        elif isinstance(value, list) and all(isinstance(item, Mapping) for item in value):
            for place, item in enumerate(value, start=1):
                yield from _rows(item, f"{prefix}{name}.{place}.")
        elif isinstance(value, list) and all(isinstance(item, str) for item in value):
            yield from ((prefix + name, item) for item in value)
        else:
            yield prefix + name, number(value)


def deliver(result: "StageResult", *, as_json: bool, quiet: bool) -> None:
    """The end of a stage command: the figures for people on stderr, the result on stdout."""
    if not quiet:
        complain(f"{result.kind}: {result.status}")
        complain(table(_rows(result.metrics if result.summary is None else result.summary)))
        if result.manifest_sha256 is not None:
            complain(f"sha256 {result.manifest_sha256}")
    if as_json:
        typer.echo(json.dumps(result.to_json(), allow_nan=False))
    elif result.status != "dry-run":
        typer.echo(str(result.artifact))
