"""What people see while a sweep runs: a table on a terminal, a line per change elsewhere."""

import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ._console import duration, plain

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from marl_sale.sweeps.run import Status

Show = Callable[[Sequence["Status"]], None]

SUMMARY_PERIOD = 60.0
"""Least seconds between two summary lines where there is no terminal."""
HEADING = ("cell", "state", "env steps", "ETA", "tries", "last error")
_FIRST = ("running", "elsewhere", "submitted", "retrying", "failed", "waiting", "stopped", "done")


@contextmanager
def view(quiet: bool) -> Iterator[Show]:
    """Shows the cells where stderr goes."""
    if quiet:
        yield lambda statuses: None
    elif sys.stderr.isatty():
        from rich.console import Console

        with _live(Console(stderr=True, highlight=False)) as show:
            yield show
    else:
        yield Lines(sys.stderr)


def summary(statuses: Sequence["Status"]) -> str:
    """`7/12 done, 2 running, 3 waiting, ETA 0:12:30`."""
    count = Counter[str](status.state for status in statuses)
    others = [f"{count[state]} {state}" for state in _FIRST if count[state] and state != "done"]
    return ", ".join([f"{count['done']}/{len(statuses)} done", *others, *_eta(statuses)])


def _eta(statuses: Sequence["Status"]) -> Iterator[str]:
    """For the whole; cells that have not begun are taken to need as long as those under way need in all."""
    under_way = [(s, s.left) for s in statuses if s.left is not None and s.env_steps]
    if under_way:
        each = sum(
            left * s.cell.env_steps / max(s.cell.env_steps - (s.env_steps or 0), 1) for s, left in under_way
        )
        ahead = sum(s.state in ("waiting", "retrying") for s in statuses) * each / len(under_way)
        seconds = (sum(left for _, left in under_way) + ahead) / len(under_way)
        yield f"ETA {duration(max(seconds, *(left for _, left in under_way)))}"


def row(status: "Status") -> tuple[str, ...]:
    """The cells of the table."""
    share = f"{status.env_steps / status.cell.env_steps:.0%}" if status.env_steps is not None else "-"
    making = f"{status.state} ({status.step})" if len(status.cell.steps) > 1 and status.step else status.state
    return (
        plain(status.cell.name),
        making,
        share,
        duration(status.left) if status.left is not None else "-",
        str(status.tries),
        plain(status.error),
    )


class Lines:
    """For logs and pipes: a line for each cell that changes, and a summary now and then."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream, self._clock = stream, clock
        self._states: dict[str, tuple[str, str, str]] = {}
        self._printed = -SUMMARY_PERIOD

    def __call__(self, statuses: Sequence["Status"]) -> None:
        for status in statuses:
            now = (status.state, status.step, status.error)
            before = self._states.get(status.cell.name, ("waiting", status.step, ""))
            self._states[status.cell.name] = now
            if now != before and status.state != "waiting":
                error = f": {status.error}" if status.error and status.state != "done" else ""
                self._write(f"{status.cell.name}: {row(status)[1]}{error}")
        if self._clock() - self._printed >= SUMMARY_PERIOD:
            self._write(summary(statuses))
            self._printed = self._clock()

    def _write(self, text: str) -> None:
        self._stream.write(plain(text) + "\n")
        self._stream.flush()


@contextmanager
def _live(console: "Console") -> Iterator[Show]:
    """A table that stays in place; at the end its last state remains."""
    from rich.live import Live

    with Live(console=console, auto_refresh=False, redirect_stdout=False) as live:
        yield lambda statuses: live.update(grid(statuses, console.height - 4), refresh=True)


def grid(statuses: Sequence["Status"], rows: int) -> "Table":
    """The cells that fit, those that need attention first. All texts are `Text`: markup stays text."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, caption=Text(summary(statuses)), caption_justify="left")
    for name in HEADING:
        made.add_column(name, no_wrap=True, overflow="ellipsis", ratio=2 if name == "last error" else None)
    ordered = sorted(statuses, key=lambda status: _FIRST.index(status.state))
    shown = ordered if len(ordered) <= rows else ordered[: max(rows - 1, 1)]
    for status in shown:
        made.add_row(*map(Text, row(status)))
    if len(shown) < len(ordered):
        made.add_row(Text(f"and {len(ordered) - len(shown)} more"))
    return made
