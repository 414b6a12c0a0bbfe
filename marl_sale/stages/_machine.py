"""Devices, threads and time: what a stage needs of the machine it runs on."""

import ctypes
import sys
from time import monotonic

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


class Due:
    """True once so many minutes have passed since it was made or reset (0: never)."""

    def __init__(self, minutes: float) -> None:
        self.minutes = minutes
        self.reset()

    def __bool__(self) -> bool:
        return 0 < self.minutes * 60 <= monotonic() - self._since

    def reset(self) -> None:
        self._since = monotonic()
