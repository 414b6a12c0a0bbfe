"""Signals that end a command in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class StopFlag:
    """Set by the first signal; whoever works looks at it between rounds.

    The same one again, SIGINT or SIGTERM, ends the process at once: impatience. Another one does not, as
    whoever stops a job may do so in several ways (Ctrl-C reaches a whole group, a scheduler warns first).
    """

    def __init__(self) -> None:
        self.signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def _set(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number).name
        if number != signal.SIGUSR1:
            signal.signal(number, signal.SIG_DFL)  # the kernel's: it does not wait for a long call to return


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while a command works."""
    flag, numbers = StopFlag(), (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    try:
        before = {number: signal.signal(number, flag._set) for number in numbers}
    except ValueError:  # not in the main thread: signals are the caller's affair
        yield flag
        return
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
