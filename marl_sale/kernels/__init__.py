"""Compiled loops for the CPU, where an update would otherwise be thousands of small calls.

C, compiled for each instruction set when the package is installed (setup.py), and loaded with ctypes: there
is nothing of Python or torch in it. Without a compiler, or with MARL_SALE_KERNELS=off in the environment,
`usable` is false and callers do the same with torch, to rounding: sums are in another order. The result of a
row depends neither on the rows beside it nor on the number of threads.
"""

import ctypes
import os
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

INSTRUCTION_SETS = {"AVX512": ("avx512", "avx2", "any"), "AVX2": ("avx2", "any")}
"""What torch calls the processor's: libraries that run there, the fastest first. Elsewhere `any` alone."""
SUFFIXES = {torch.float32: "f32", torch.float64: "f64"}
SMALLEST_PART = {
    "elu_forward": 16384,
    "elu_backward": 16384,
    "gru_forward": 24,
    "gru_backward": 24,
    "choose": 24,
}
"""Entries or rows that are worth another thread; 24 rows are a block of product.h."""


@cache
def _library() -> tuple[str, ctypes.CDLL] | None:
    if os.environ.get("MARL_SALE_KERNELS") == "off":
        return None
    for name in INSTRUCTION_SETS.get(torch.backends.cpu.get_cpu_capability(), ("any",)):
        for path in Path(__file__).parent.glob(f"_{name}.*so"):
            return name, ctypes.CDLL(str(path))
    return None


def instruction_set() -> str:
    """Of the library in use; `none` where torch does the work."""
    found = _library()
    return found[0] if found else "none"


def usable(x: Tensor) -> bool:
    """Whether the kernels take this tensor."""
    return x.device.type == "cpu" and x.dtype in SUFFIXES and _library() is not None


def elu_forward(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """X where positive, exp(x) − 1 elsewhere."""
    x = x.contiguous()
    y = torch.empty_like(x)
    _share("elu_forward", x.dtype, x.numel(), x, y)
    return y


def elu_backward(
    y: Float[Tensor, "*rows dim"], grad_y: Float[Tensor, "*rows dim"]
) -> Float[Tensor, "*rows dim"]:
    """Gradient of x, from y."""
    grad_x = torch.empty_like(y)
    _share("elu_backward", y.dtype, y.numel(), y, grad_y.contiguous(), grad_x)
    return grad_x


def gru_forward(
    gates: Float[Tensor, "rows step"],
    sizes: Int64[Tensor, " times"],
    w_hh: Float[Tensor, "gates hidden"],
    b_hn: Float[Tensor, " hidden"],
    *,
    keep: bool,
) -> Float[Tensor, "rows hidden"]:
    """Recurrent states of packed rows, from zero.

    `gates` holds [W_in x + b_in | W_ir x + b_r | W_iu x + b_u] in the first columns; with `keep` they become
    [n | r | u | W_hn h + b_hn].
    """
    hidden = w_hh.shape[1]
    h = gates.new_empty(len(gates), hidden)
    _share(
        *("gru_forward", gates.dtype, int(sizes[0])),
        *(sizes, len(sizes), hidden, w_hh, b_hn, gates, gates.shape[1], h, int(keep)),
    )
    return h


def gru_backward(
    gates: Float[Tensor, "rows step"],
    h: Float[Tensor, "rows hidden"],
    grad_h: Float[Tensor, "rows hidden"],
    sizes: Int64[Tensor, " times"],
    w_hh: Float[Tensor, "gates hidden"],
) -> None:
    """`gates` of the forward pass become their gradients, before σ and tanh."""
    _share(
        *("gru_backward", gates.dtype, int(sizes[0])),
        *(sizes, len(sizes), h.shape[1], w_hh, gates, h, grad_h),
    )


class _Head(ctypes.Structure):
    """Head of choose.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("actions", "features", "hidden")),
        *((name, ctypes.c_void_p) for name in ("avail", "g_of_row", "g_of_action", "g_weight", "g_bias")),
        *((name, ctypes.c_void_p) for name in ("inner_of_row", "inner_of_action")),
        *((name, ctypes.c_void_p) for name in ("through_of_row", "through_of_action")),
        *((name, ctypes.c_void_p) for name in ("first_of_row", "first_of_features")),
        *((name, ctypes.c_void_p) for name in ("rest_weight", "rest_bias", "out", "u", "v")),
    ]


def choose(
    avail_actions: Bool[Tensor, "rows actions"], head: Mapping[str, Tensor]
) -> tuple[Int64[Tensor, " rows"], Float[Tensor, "rows features"]]:
    """Best available action of each row, and g's last features of it.

    `head`: shares and weights by the names of choose.h, those of one kind of head.
    """
    of_g = head["g_of_row"]
    (rows, features), n_actions = of_g.shape, avail_actions.shape[1]
    tensors = {name: tensor.contiguous() for name, tensor in {"avail": avail_actions, **head}.items()}
    hidden = tensors["first_of_row"].shape[1] if "first_of_row" in tensors else 0
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    given = _Head(actions=n_actions, features=features, hidden=hidden, **pointers)
    actions = torch.zeros(rows, dtype=torch.int64)
    chosen = torch.zeros_like(of_g)
    _share("choose", of_g.dtype, rows, given, actions, chosen)
    return actions, chosen


def _share(name: str, dtype: torch.dtype, rows: int, *arguments: Tensor | int | ctypes.Structure) -> None:
    """Call a kernel on all rows, in as many threads as torch has. It needs no lock of Python's."""
    found = _library()
    assert found is not None
    kernel: Callable[..., int] = getattr(found[1], f"{name}_{SUFFIXES[dtype]}")
    passed = [_passed(argument) for argument in (rows, *arguments)]
    parts = max(1, min(torch.get_num_threads(), rows // SMALLEST_PART[name]))

    def part(index: int) -> int:
        return kernel(ctypes.c_int64(index), ctypes.c_int64(parts), *passed)

    done = [part(0)] if parts == 1 else list(_threads(parts).map(part, range(parts)))
    if not all(done):
        raise MemoryError(f"no memory for {name}")


def _passed(argument: Tensor | int | ctypes.Structure) -> object:
    if isinstance(argument, int):
        return ctypes.c_int64(argument)
    if isinstance(argument, Tensor):
        assert argument.is_contiguous()
        return ctypes.c_void_p(argument.data_ptr())
    return ctypes.byref(argument)


@cache
def _threads(count: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(count, "marl-sale-kernels")
