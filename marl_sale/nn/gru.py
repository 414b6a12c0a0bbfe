"""A GRU along packed episodes, with its backward pass written out.

Torch's own packed GRU allocates a full-size gradient per time step on the CPU, so its backward pass is
quadratic in the length of an episode. Here every time step writes into its own rows, and the gradients of
the recurrent weights are one matrix product over all rows. Equations as torch.nn.GRU:

r = σ(gx_r + W_hr h + b_hr);  u = σ(gx_u + W_hu h + b_hu);  n = tanh(gx_n + r ⊙ (W_hn h + b_hn))
h' = (1 − u) ⊙ n + u ⊙ h
"""

from typing import Any

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
    gx_gates = F.linear(x, w_ih[:gates], b_ih[:gates] + b_hh[:gates])
    gx_new = F.linear(x, w_ih[gates:], b_ih[gates:])
    h: Tensor = _Unroll.apply(  # type: ignore[no-untyped-call]
        gx_gates, gx_new, w_hh, b_hh[gates:], batch_sizes.tolist()
    )
    return h


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, gx_gates: Tensor, gx_new: Tensor, w_hh: Tensor, b_new: Tensor, sizes: list[int]
    ) -> Tensor:
        hidden = gx_new.shape[1]
        w_gates, w_new = w_hh[: 2 * hidden].t(), w_hh[2 * hidden :].t()
        gates, h_new = torch.empty_like(gx_gates), torch.empty_like(gx_new)
        new, h = torch.empty_like(gx_new), torch.empty_like(gx_new)
        per_time = zip(*(rows.split(sizes) for rows in (gx_gates, gx_new, gates, h_new, new, h)), strict=True)
        before = gx_new.new_zeros(sizes[0], hidden)
        for gx_gates_t, gx_new_t, gates_t, h_new_t, new_t, h_t in per_time:
            before = before[: len(h_t)]
            torch.addmm(gx_gates_t, before, w_gates, out=gates_t).sigmoid_()
            torch.addmm(b_new, before, w_new, out=h_new_t)
            torch.addcmul(gx_new_t, gates_t[:, :hidden], h_new_t, out=new_t).tanh_()
            torch.lerp(new_t, before, gates_t[:, hidden:], out=h_t)
            before = h_t
        ctx.save_for_backward(w_hh, gates, h_new, new, h)
        ctx.sizes = sizes
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        w_hh, gates, h_new, new, h = ctx.saved_tensors
        sizes, hidden = ctx.sizes, h.shape[1]
        reset, update = gates[:, :hidden], gates[:, hidden:]
        before = _states_before(h, sizes)
        # Factors that do not depend on the gradient, for all times at once.
        to_new = (1 - update) * (1 - new.square())
        to_update = (before - new) * update * (1 - update)
        to_reset = h_new * reset * (1 - reset)

        grad_gh = torch.empty(len(h), 3 * hidden, dtype=h.dtype)  # of W_hh h + b, gates first
        grad_new = torch.empty_like(h)
        rows = (grad_h, to_new, to_update, to_reset, gates, grad_new, grad_gh)
        per_time = list(zip(*(x.split(sizes) for x in rows), strict=True))
        carried: Tensor | None = None
        for grad_h_t, to_new_t, to_update_t, to_reset_t, gates_t, grad_new_t, grad_gh_t in reversed(per_time):
            dh = grad_h_t
            if carried is not None:
                dh = dh.clone()
                dh[: len(carried)] += carried
            torch.mul(dh, to_new_t, out=grad_new_t)
            torch.mul(grad_new_t, to_reset_t, out=grad_gh_t[:, :hidden])
            torch.mul(dh, to_update_t, out=grad_gh_t[:, hidden : 2 * hidden])
            torch.mul(grad_new_t, gates_t[:, :hidden], out=grad_gh_t[:, 2 * hidden :])
            carried = torch.addmm(dh * gates_t[:, hidden:], grad_gh_t, w_hh)
        grad_w = grad_gh.t() @ before
        return grad_gh[:, : 2 * hidden], grad_new, grad_w, grad_gh[:, 2 * hidden :].sum(0), None


def _states_before(h: Tensor, sizes: list[int]) -> Tensor:
    """h_{t−1} of every row: zero for the first time, then the leading rows of the time before."""
    earlier = [h_t[:size] for h_t, size in zip(h.split(sizes)[:-1], sizes[1:], strict=True)]
    return torch.cat([h.new_zeros(sizes[0], h.shape[1]), *earlier])
