"""Finding the compiled library, and calling it on all rows."""

import ctypes
import hashlib
import os
import warnings
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

INSTRUCTION_SETS = {"AVX512": ("avx512", "avx2", "any"), "AVX2": ("avx2", "any")}
"""What torch calls the processor's: libraries that run there, the fastest first. Elsewhere `any` alone."""
FOLDER = Path(__file__).parent
SUFFIXES = {torch.float32: "f32", torch.float64: "f64"}
SMALLEST_PART = {
    "gru_forward": 24,
    "gru_backward": 24,
    "mlp_forward": 240,
    "choose": 24,
}
"""Rows that are worth another thread; 24 are a block of product.h."""


@cache
def _library() -> tuple[str, ctypes.CDLL] | None:
    if os.environ.get("MARL_SALE_KERNELS") == "off":
        return None
    for name in INSTRUCTION_SETS.get(torch.backends.cpu.get_cpu_capability(), ("any",)):
        for path in FOLDER.glob(f"_{name}.*so"):
            library = ctypes.CDLL(str(path))
            if _is_of_sources(library):
                return name, library
            warnings.warn(f"{path}: compiled from other sources; `make install` compiles these", stacklevel=2)
    return None


def _is_of_sources(library: ctypes.CDLL) -> bool:
    """Whether it was compiled from the sources beside it: in an editable install they can change."""
    sources = [path.read_bytes() for path in sorted(FOLDER.glob("*.[ch]"))]
    digest = hashlib.sha256(b"".join(sources)).hexdigest()[:16]
    try:
        compiled = (ctypes.c_char * 17).in_dll(library, "sources").value.decode()
    except ValueError:  # older than this check
        return False
    return not sources or compiled == digest


def instruction_set() -> str:
    """Of the library in use; `none` where torch does the work."""
    found = _library()
    return found[0] if found else "none"


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return x.device.type == "cpu" and x.dtype in SUFFIXES and _library() is not None


def share(
    name: str,
    dtype: torch.dtype,
    rows: int,
    *arguments: Tensor | int | ctypes.Structure | None,
    parts: int | None = None,
) -> None:
    """Call a kernel on all rows, in as many threads as torch has. It needs no lock of Python's.

    `parts`: of the rows, where their number decides the order of sums (else: one for each thread).
    """
    found = _library()
    assert found is not None
    kernel: Callable[..., int] = getattr(found[1], f"{name}_{SUFFIXES[dtype]}")
    passed = [_passed(argument) for argument in (rows, *arguments)]
    threads = torch.get_num_threads()
    parts = parts or max(1, min(threads, rows // SMALLEST_PART[name]))

    def part(index: int) -> int:
        return kernel(ctypes.c_int64(index), ctypes.c_int64(parts), *passed)

    if min(threads, parts) == 1:
        done = [part(index) for index in range(parts)]
    else:
        futures = [_threads(threads).submit(part, index) for index in range(parts)]
        try:
            done = [future.result() for future in futures]
        finally:  # an exception of a signal handler must not free what is still computed on
            wait(futures)
    if not all(done):
        raise MemoryError(f"no memory for {name}")


def _passed(argument: Tensor | int | ctypes.Structure | None) -> object:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.c_void_p(None) if argument is None else ctypes.byref(argument)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "marl-sale-kernels")


if hasattr(os, "register_at_fork"):  # the threads stay with the parent
    os.register_at_fork(after_in_child=_threads.cache_clear)
