"""Perceptrons: layers with ELU between them."""

import ctypes
import itertools
import math
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from marl_sale.kernels.library import share

End = Literal["linear", "elu", "tanh", "avg_l1"]
ENDS: tuple[End, ...] = ("linear", "elu", "tanh", "avg_l1")
"""What can follow the last layer, in the order of kernels.c."""
ROWS_SUMMED_AT_ONCE = 1024
"""Gradients of weights are sums over so many rows, then over these: in the same order for any number of
threads."""


class Perceptron(NamedTuple):
    """y ← elu(y W + b) layer after layer, with `end` in place of the last elu."""

    weights: Sequence[Float[Tensor, "out in"]]
    biases: Sequence[Float[Tensor, " out"]]
    starts_with_elu: bool
    end: End


class Outputs(NamedTuple):
    """Of the layers (None: not kept), and what avg_l1 divided by (of no row: not kept)."""

    of_layers: Sequence[Float[Tensor, "rows _"] | None]
    scales: Float[Tensor, " divided"]


class _Mlp(ctypes.Structure):
    """Mlp of mlp.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("layers", "starts_with_elu", "end")),
        *((name, ctypes.c_void_p) for name in ("sizes", "weights", "biases", "outputs", "scales")),
    ]


def mlp_forward(
    x: Float[Tensor, "rows in"], perceptron: Perceptron, *, keep: bool
) -> tuple[Float[Tensor, "rows out"], Outputs | None]:
    """y, and with `keep` what the backward pass needs."""
    y, outputs = x.new_empty(len(x), len(perceptron.biases[-1])), None
    if keep:
        inner = [x.new_empty(len(x), len(bias)) for bias in perceptron.biases[:-1]]
        outputs = Outputs([*inner, y], x.new_empty(len(x) if perceptron.end == "avg_l1" else 0))
    to = outputs or Outputs([None] * (len(perceptron.biases) - 1) + [y], x.new_empty(0))
    share("mlp_forward", x.dtype, len(x), describe(x, perceptron, to), x.contiguous())
    return y, outputs


def mlp_backward(
    x: Float[Tensor, "rows in"],
    perceptron: Perceptron,
    outputs: Outputs,
    grad_y: Float[Tensor, "rows out"],
    *,
    with_x: bool,
) -> tuple[Float[Tensor, "rows in"] | None, list[Tensor], list[Tensor]]:
    """Gradients of x (None: not wanted), of weights and of biases."""
    sizes = [x.shape[1], *(len(bias) for bias in perceptron.biases)]
    shapes = [shape for k, n in itertools.pairwise(sizes) for shape in ((k, n), (n,))]
    parts = max(1, min(16, len(x) // ROWS_SUMMED_AT_ONCE))
    grads = x.new_empty(parts, sum(math.prod(shape) for shape in shapes))
    grad_x = x.new_empty(x.shape) if with_x else None
    given = describe(x, perceptron, outputs)
    share(
        *("mlp_backward", x.dtype, len(x)),
        *(given, x.contiguous(), grad_y.contiguous(), grad_x, grads),
        parts=parts,
    )
    each = grads.sum(0).split([math.prod(shape) for shape in shapes])
    shaped = [grad.view(shape) for grad, shape in zip(each, shapes, strict=True)]
    return grad_x, [grad.t() for grad in shaped[::2]], shaped[1::2]


def describe(x: Tensor, perceptron: Perceptron, outputs: Outputs | None = None) -> ctypes.Structure:
    """Mlp of mlp.h, for rows such as `x`. `outputs`: to keep, or kept."""
    weights = [weight.contiguous() for weight in perceptron.weights]
    biases = [bias.contiguous() for bias in perceptron.biases]
    sizes = [x.shape[1], *(len(bias) for bias in biases)]
    for (n_in, n_out), weight, bias in zip(itertools.pairwise(sizes), weights, biases, strict=True):
        if weight.shape != (n_out, n_in) or {weight.dtype, bias.dtype} != {x.dtype}:
            raise ValueError(
                f"weight {weight.dtype}{list(weight.shape)}: not from {n_in} to {n_out} of {x.dtype}"
            )
    pointers = ctypes.c_void_p * len(weights)
    to = [] if outputs is None else [None if y is None else y.data_ptr() for y in outputs.of_layers]
    arrays: dict[str, ctypes.Array[Any]] = {
        "sizes": (ctypes.c_int64 * len(sizes))(*sizes),
        "weights": pointers(*(weight.data_ptr() for weight in weights)),
        "biases": pointers(*(bias.data_ptr() for bias in biases)),
        "outputs": pointers(*to),
    }
    mlp = _Mlp(
        layers=len(weights),
        starts_with_elu=int(perceptron.starts_with_elu),
        end=ENDS.index(perceptron.end),
        scales=outputs.scales.data_ptr() if outputs is not None and len(outputs.scales) else None,
        **{name: ctypes.addressof(array) for name, array in arrays.items()},
    )
    mlp.held = (weights, biases, outputs, arrays)  # for as long as it points there
    return mlp
