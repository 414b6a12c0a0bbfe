"""Devices, threads and signals: what a stage needs of the machine it runs on."""

import ctypes
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from types import FrameType

import torch

from marl_sale.errors import UsageError


def choose_device(name: str, threads: int) -> torch.device:
    """The device asked for (`auto`: CUDA where there is one), with the CPU threads pinned.

    The number of threads decides the order of sums, and so belongs to the recipe.
    """
    torch.set_num_threads(threads)
    _keep_freed_memory()
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("--device cuda: this torch sees no CUDA device", "use --device cpu, or auto")
    return torch.device(name)


def _keep_freed_memory() -> None:
    """Ask the C library to keep large freed blocks for the next update instead of returning them.

    It saved 13 to 17 % of an update where tensors are large (docs/performance.md). Only glibc has this;
    elsewhere nothing happens.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
        if mallopt is not None:
            trim_threshold, mmap_threshold = -1, -3
            mallopt(trim_threshold, 2**31 - 1)
            mallopt(mmap_threshold, 2**30)


class StopFlag:
    """Set by the first signal; a stage looks at it between rounds.

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


class Due:
    """True once so many minutes have passed since it was made or reset (0: never)."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.reset()

    def __bool__(self) -> bool:
        return 0 < self.minutes * 60 <= monotonic() - self._since

    def reset(self) -> None:
        self._since = monotonic()


@contextmanager
def stop_on_signal() -> Iterator[StopFlag]:
    """Turn SIGTERM, SIGINT and SIGUSR1 into a flag while a stage runs."""
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
