"""A GRU along packed episodes, with its backward pass written out.

Torch's own packed GRU allocates a full-size gradient per time step on the CPU, so its backward pass is
quadratic in the length of an episode. Here every time step works in its own rows of a few large tensors, with
as few calls as possible (time steps are small: B · N rows), and the gradients of all weights are one matrix
product each. Equations as torch.nn.GRU:

r = σ(W_ir x + W_hr h + b_r);  u = σ(W_iu x + W_hu h + b_u);  n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
h' = (1 − u) ⊙ n + u ⊙ h

A row of `gates` is [W_in x + b_in | r | u | W_hn h + b_hn]: the first three come from x with one product, the
last three from h.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence


def unroll_gru(
    gru: nn.GRU, x: Float[Tensor, "rows in"], batch_sizes: Int64[Tensor, " times"]
) -> Float[Tensor, "rows hidden"]:
    """Recurrent states of packed rows, from zero. On other devices torch's own kernel is the fast one."""
    if x.device.type != "cpu":
        packed: Tensor = gru(PackedSequence(x, batch_sizes))[0].data
        return packed
    weights = (weight for _, weight in gru.named_parameters())
    h: Tensor = _Unroll.apply(x, *weights, batch_sizes.tolist())  # type: ignore[no-untyped-call]
    return h


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, sizes: list[int]
    ) -> Tensor:
        hidden = w_hh.shape[1]
        w_ih = w_ih.roll(hidden, 0)  # torch's order of gates is r, u, n
        bias = (b_ih + torch.cat([b_hh[: 2 * hidden], b_hh.new_zeros(hidden)])).roll(hidden)
        gates, n = (x.new_empty(len(x), size) for size in (4 * hidden, hidden))
        h = torch.empty_like(n)
        torch.addmm(bias, x, w_ih.t(), out=gates[:, : 3 * hidden])
        gates[:, 3 * hidden :] = b_hh[2 * hidden :]

        from_x, r, u, from_h = gates.chunk(4, 1)
        recurrent, both = gates[:, hidden:], gates[:, hidden : 3 * hidden]
        w = w_hh.t().contiguous()
        before = x.new_zeros(sizes[0], hidden)
        times = zip(
            *(rows.split(sizes) for rows in (recurrent, both, from_x, r, u, from_h, n, h)), strict=True
        )
        for t, (recurrent_t, both_t, from_x_t, r_t, u_t, from_h_t, n_t, h_t) in enumerate(times):
            before = before[: len(h_t)]
            if t:  # before, all states are zero
                torch.addmm(recurrent_t, before, w, out=recurrent_t)
            both_t.sigmoid_()
            torch.addcmul(from_x_t, r_t, from_h_t, out=n_t).tanh_()
            torch.lerp(n_t, before, u_t, out=h_t)
            before = h_t
        ctx.save_for_backward(x, w_ih, w_hh, gates, n, h)
        ctx.sizes = sizes
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, gates, n, h = ctx.saved_tensors
        sizes, hidden = ctx.sizes, h.shape[1]
        u = gates[:, 2 * hidden : 3 * hidden]
        grad = _factors(gates, n, h)  # of the rows of gates, before σ and tanh, once multiplied with dh

        dh = grad_h.clone()  # grows by what later times carry back
        recurrent = grad[:, hidden:]
        per_time = (dh, u, recurrent.unflatten(1, (3, hidden)), recurrent)
        times = list(zip(*(rows.split(sizes) for rows in per_time), strict=True))
        for t in range(len(sizes) - 1, -1, -1):
            dh_t, u_t, by_gate_t, recurrent_t = times[t]
            by_gate_t.mul_(dh_t.unsqueeze(1))
            if t:
                times[t - 1][0][: len(dh_t)].addcmul_(dh_t, u_t).addmm_(recurrent_t, w_hh)
        grad[:, :hidden].mul_(dh)

        from_x, bias = grad[:, : 3 * hidden], grad.sum(0)
        # xᵀ · grad takes two thirds of the time of its transpose.
        grad_w_ih, grad_b_ih = (x.t() @ from_x).t().roll(-hidden, 0), bias[: 3 * hidden].roll(-hidden)
        grad_w_hh = (_states_before(h, sizes).t() @ recurrent[sizes[0] :]).t()
        return from_x @ w_ih, grad_w_ih, grad_w_hh, grad_b_ih, bias[hidden:], None


def _factors(gates: Tensor, n: Tensor, h: Tensor) -> Tensor:
    """What dh is multiplied with on its way to each gate, before σ and tanh."""
    _, r, u, from_h = gates.chunk(4, 1)
    factors = torch.empty_like(gates)
    to_n, to_r, to_u, to_from_h = factors.chunk(4, 1)
    keep = 1 - u
    torch.addcmul(keep, keep * n, n, value=-1, out=to_n)
    torch.mul(to_n, r, out=to_from_h)
    torch.mul(h - n, keep, out=to_u)
    via_r = to_from_h * from_h
    torch.addcmul(via_r, via_r, r, value=-1, out=to_r)
    return factors


def _states_before(h: Tensor, sizes: list[int]) -> Tensor:
    """h_{t−1} of every row but those of the first time: the leading rows of the time before."""
    earlier = [h_t[:size] for h_t, size in zip(h.split(sizes)[:-1], sizes[1:], strict=True)]
    return torch.cat([h[:0], *earlier])
