"""A GRU along packed episodes, with its backward pass written out.

Torch's own packed GRU allocates a full-size gradient per time step on the CPU, so its backward pass is
quadratic in the length of an episode. Here every time step writes into its own rows, and the gradients of
the recurrent weights are one matrix product over all rows. Time steps are small (B · N rows), so what an
operation costs is mostly its call: element-wise ones go through NumPy views of the same memory, whose calls
cost a quarter of torch's (on a loaded machine the gain was within the noise). Equations as torch.nn.GRU:

r = σ(gx_r + W_hr h + b_hr);  u = σ(gx_u + W_hu h + b_hu);  n = tanh(gx_n + r ⊙ (W_hn h + b_hn))
h' = (1 − u) ⊙ n + u ⊙ h
"""

from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F
from torch.nn.utils.rnn import PackedSequence


def unroll_gru(
    gru: nn.GRU, x: Float[Tensor, "rows in"], batch_sizes: Int64[Tensor, " times"]
) -> Float[Tensor, "rows hidden"]:
    """Recurrent states of packed rows, from zero. On other devices torch's own kernel is the fast one."""
    if x.device.type != "cpu":
        packed: Tensor = gru(PackedSequence(x, batch_sizes))[0].data
        return packed
    w_ih, w_hh, b_ih, b_hh = (weight for _, weight in gru.named_parameters())
    gates = 2 * gru.hidden_size
    bias = torch.cat([b_ih[:gates] + b_hh[:gates], b_ih[gates:]])
    inputs = [F.linear(x, w, b) for w, b in zip(w_ih.chunk(3), bias.chunk(3), strict=True)]
    arguments = (*inputs, w_hh, b_hh[gates:], batch_sizes.tolist())
    h: Tensor = _Unroll.apply(*arguments)  # type: ignore[no-untyped-call]
    return h


def _views(x: Tensor, sizes: list[int]) -> list[Any]:
    """NumPy views of the rows of each time step."""
    return np.split(x.numpy(), np.cumsum(sizes)[:-1])


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gx_r: Tensor, gx_u: Tensor, gx_n: Tensor, w_hh: Tensor, b_n: Tensor, sizes: list[int]
    ) -> Tensor:
        w_r, w_u, w_n = (w.t().contiguous() for w in w_hh.chunk(3))
        r, u, h_n, n, h = (torch.empty_like(gx_n) for _ in range(5))
        products = zip(*(x.split(sizes) for x in (gx_r, gx_u, r, u, h_n, h)), strict=True)
        arrays = zip(*(_views(x, sizes) for x in (gx_n, r, u, h_n, n, h)), strict=True)
        before = gx_n.new_zeros(sizes[0], gx_n.shape[1])
        for (gx_r_t, gx_u_t, r_t, u_t, h_n_t, h_t), (gx_n_, r_, u_, h_n_, n_, h_) in zip(
            products, arrays, strict=True
        ):
            before = before[: len(h_t)]
            torch.addmm(gx_r_t, before, w_r, out=r_t).sigmoid_()
            torch.addmm(gx_u_t, before, w_u, out=u_t).sigmoid_()
            torch.addmm(b_n, before, w_n, out=h_n_t)
            np.multiply(r_, h_n_, out=n_)
            np.add(n_, gx_n_, out=n_)
            np.tanh(n_, out=n_)
            np.subtract(before.numpy(), n_, out=h_)
            np.multiply(h_, u_, out=h_)
            np.add(h_, n_, out=h_)
            before = h_t
        ctx.save_for_backward(w_hh, r, u, h_n, n, h)
        ctx.sizes = sizes
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        w_hh, r, u, h_n, n, h = ctx.saved_tensors
        sizes, hidden = ctx.sizes, h.shape[1]
        before = _states_before(h, sizes)
        # Factors that do not depend on the gradient, for all times at once.
        to_n = (1 - u) * (1 - n.square())
        to_u = (before - n) * u * (1 - u)
        to_r = h_n * r * (1 - r)

        dh = grad_h.clone()  # grows by what later times carry back
        grad_n = torch.empty_like(h)
        grad_gh = torch.empty(len(h), 3 * hidden, dtype=h.dtype)  # of W_hh h + b
        grad_r, grad_u, grad_h_n = (grad_gh[:, i * hidden : (i + 1) * hidden] for i in range(3))
        rows = (dh, to_n, to_u, to_r, r, u, grad_n, grad_r, grad_u, grad_h_n)
        per_time = list(zip(grad_gh.split(sizes), *(_views(x, sizes) for x in rows), strict=True))
        for t in range(len(sizes) - 1, -1, -1):
            grad_gh_, dh_, to_n_, to_u_, to_r_, r_, u_, grad_n_, grad_r_, grad_u_, grad_h_n_ = per_time[t]
            np.multiply(dh_, to_n_, out=grad_n_)
            np.multiply(grad_n_, to_r_, out=grad_r_)
            np.multiply(dh_, to_u_, out=grad_u_)
            np.multiply(grad_n_, r_, out=grad_h_n_)
            if t:
                earlier = per_time[t - 1][1][: len(dh_)]
                np.add(earlier, dh_ * u_, out=earlier)
                np.add(earlier, torch.mm(grad_gh_, w_hh).numpy(), out=earlier)
        return grad_r, grad_u, grad_n, grad_gh.t() @ before, grad_h_n.sum(0), None


def _states_before(h: Tensor, sizes: list[int]) -> Tensor:
    """h_{t−1} of every row: zero for the first time, then the leading rows of the time before."""
    earlier = [h_t[:size] for h_t, size in zip(h.split(sizes)[:-1], sizes[1:], strict=True)]
    return torch.cat([h.new_zeros(sizes[0], h.shape[1]), *earlier])
