"""The recurrence of a GRU."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from marl_sale.kernels.library import share


def gru_forward(
    x: Float[Tensor, "rows in"],
    sizes: Int64[Tensor, " times"],
    weights: Sequence[Tensor],
    *,
    keep: bool,
) -> tuple[Float[Tensor, "rows hidden"], Float[Tensor, "kept gates"]]:
    """Recurrent states of packed rows, from zero, and what the backward pass needs (with `keep`).

    `weights`: those of torch.nn.GRU, in its order. Gates: [n | r | u | W_hn h + b_hn].
    """
    (inputs, hidden), n_rows = (weights[0].shape[1], weights[1].shape[1]), len(x)
    h = x.new_empty(n_rows, hidden)
    gates = x.new_empty(n_rows if keep else 0, 4 * hidden)
    weights = [weight.contiguous() for weight in weights]
    if {weight.dtype for weight in weights} != {x.dtype} or x.shape[1] != inputs:
        raise ValueError(f"a GRU of {weights[0].dtype} and {inputs} inputs reads {x.dtype}{list(x.shape)}")
    if sizes.dtype != torch.int64 or int(sizes.sum()) != n_rows:
        raise ValueError(f"{n_rows} rows are not those of the batch sizes {sizes}")
    name, first, each = "gru_forward", int(sizes[0]), (x.contiguous(), *weights, gates, h)
    share(name, x.dtype, first, sizes, len(sizes), inputs, hidden, *each, int(keep))
    return h, gates


def gru_backward(
    gates: Float[Tensor, "rows step"],
    h: Float[Tensor, "rows hidden"],
    grad_h: Float[Tensor, "rows hidden"],
    sizes: Int64[Tensor, " times"],
    w_hh: Float[Tensor, "gates hidden"],
) -> None:
    """`gates` of the forward pass become their gradients, before σ and tanh."""
    share(
        *("gru_backward", gates.dtype, int(sizes[0])),
        *(sizes, len(sizes), h.shape[1], w_hh.contiguous(), gates, h, grad_h),
    )
