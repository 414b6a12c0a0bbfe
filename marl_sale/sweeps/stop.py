"""Signals that end a sweep in good order."""

import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


class Stop:
    """Set by the first signal; the same one again ends the process at once."""

    def __init__(self) -> None:
        self.signal: str | None = None

    def __bool__(self) -> bool:
        return self.signal is not None

    def _set(self, number: int, _: FrameType | None) -> None:
        self.signal = self.signal or signal.Signals(number).name
        signal.signal(number, signal.SIG_DFL)


@contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while a sweep runs. Only in the main thread."""
    flag = Stop()
    before = {
        number: signal.signal(number, flag._set) for number in (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    }
    try:
        yield flag
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
