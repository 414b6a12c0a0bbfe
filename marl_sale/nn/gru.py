"""A GRU along packed episodes, with its backward pass written out.

Torch's own packed GRU allocates a full-size gradient per time step on the CPU, so its backward pass is
quadratic in the length of an episode. Here the forward pass and what recurs of the backward pass are compiled
kernels, or the same with a few torch calls per time step; the gradients of inputs and weights are one product
each for all rows. Equations as torch.nn.GRU:

r = σ(W_ir x + W_hr h + b_r);  u = σ(W_iu x + W_hu h + b_u);  n = tanh(W_in x + b_in + r ⊙ (W_hn h + b_hn))
h' = (1 − u) ⊙ n + u ⊙ h

A row of `gates` is [n | r | u | W_hn h + b_hn] after the forward pass, and after the backward pass the
gradients of the sums that those came from.
"""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.utils.rnn import PackedSequence

from marl_sale import kernels


def unroll_gru(
    gru: nn.GRU, x: Float[Tensor, "rows in"], batch_sizes: Int64[Tensor, " times"]
) -> Float[Tensor, "rows hidden"]:
    """Recurrent states of packed rows, from zero. On other devices torch's own kernel is the fast one."""
    if x.device.type != "cpu":
        packed: Tensor = gru(PackedSequence(x, batch_sizes))[0].data
        return packed
    w_ih, w_hh, b_ih, b_hh = (weight for _, weight in gru.named_parameters())
    given = (x, w_ih, w_hh, b_ih, b_hh, batch_sizes)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in given):
        h: Tensor = _Unroll.apply(*given)  # type: ignore[no-untyped-call]
        return h
    return _forward(*given, keep=False)[0]


class _Unroll(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, sizes: Tensor
    ) -> Tensor:
        h, gates = _forward(x, w_ih, w_hh, b_ih, b_hh, sizes, keep=True)
        ctx.save_for_backward(x, w_ih, w_hh, h, sizes)
        ctx.gates = gates
        return h

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_h: Tensor) -> tuple[Tensor | None, ...]:
        x, w_ih, w_hh, h, sizes = ctx.saved_tensors
        grad, hidden = ctx.gates, h.shape[1]
        if grad is None:
            raise RuntimeError("the backward pass overwrites its gates: it cannot be repeated on one graph")
        ctx.gates = None
        recur = kernels.gru_backward if kernels.usable(h) else _backward_in_torch
        recur(grad, h, grad_h.contiguous(), sizes, w_hh)

        from_x, recurrent, bias = grad[:, : 3 * hidden], grad[:, hidden:], grad.sum(0)
        # xᵀ · grad takes two thirds of the time of its transpose.
        grad_w_ih, grad_b_ih = (x.t() @ from_x).t().roll(-hidden, 0), bias[: 3 * hidden].roll(-hidden)
        grad_w_hh = (_states_before(h, sizes).t() @ recurrent[int(sizes[0]) :]).t()
        return from_x @ w_ih.roll(hidden, 0), grad_w_ih, grad_w_hh, grad_b_ih, bias[hidden:], None


def _forward(
    x: Tensor, w_ih: Tensor, w_hh: Tensor, b_ih: Tensor, b_hh: Tensor, sizes: Tensor, *, keep: bool
) -> tuple[Tensor, Tensor]:
    """h and gates."""
    if kernels.usable(x):
        return kernels.gru_forward(x, sizes, (w_ih, w_hh, b_ih, b_hh), keep=keep)
    hidden, by_time = w_hh.shape[1], sizes.tolist()
    gates = x.new_empty(len(x), 4 * hidden)
    bias = b_ih + torch.cat([b_hh[: 2 * hidden], b_hh.new_zeros(hidden)])
    # Torch's order of gates is r, u, n.
    torch.addmm(bias.roll(hidden), x, w_ih.roll(hidden, 0).t(), out=gates[:, : 3 * hidden])
    gates[:, 3 * hidden :] = b_hh[2 * hidden :]
    h = gates.new_empty(len(gates), hidden)
    w, before = w_hh.t().contiguous(), gates.new_zeros(by_time[0], hidden)
    for t, (gates_t, h_t) in enumerate(zip(gates.split(by_time), h.split(by_time), strict=True)):
        before = before[: len(h_t)]
        if t:  # before, all states are zero
            gates_t[:, hidden:].addmm_(before, w)
        gates_t[:, hidden : 3 * hidden].sigmoid_()
        n, r, u, from_h = gates_t.chunk(4, 1)
        n.addcmul_(r, from_h).tanh_()
        torch.lerp(n, before, u, out=h_t)
        before = h_t
    return h, gates


def _backward_in_torch(gates: Tensor, h: Tensor, grad_h: Tensor, sizes: Tensor, w_hh: Tensor) -> None:
    """As kernels.gru_backward: the factors of dh at all times, then dh from last to first."""
    hidden, by_time = h.shape[1], sizes.tolist()
    n, r, u, from_h = gates.chunk(4, 1)
    dh, carried = grad_h.clone(), u.clone()  # dh grows by what later times carry back
    keep = 1 - u
    torch.mul(h - n, keep, out=u)
    torch.addcmul(keep, keep * n, n, value=-1, out=n)
    via_r = n * from_h * r
    torch.mul(n, r, out=from_h)
    torch.addcmul(via_r, via_r, r, value=-1, out=r)

    times = list(zip(*(rows.split(by_time) for rows in (dh, carried, gates)), strict=True))
    for t in range(len(by_time) - 1, -1, -1):
        dh_t, carried_t, gates_t = times[t]
        gates_t.unflatten(1, (4, hidden)).mul_(dh_t.unsqueeze(1))
        if t:
            times[t - 1][0][: len(dh_t)].addcmul_(dh_t, carried_t).addmm_(gates_t[:, hidden:], w_hh)


def _states_before(h: Tensor, sizes: Tensor) -> Tensor:
    """h_{t−1} of every row but those of the first time: the leading rows of the time before."""
    by_time = sizes.tolist()
    earlier = [h_t[:size] for h_t, size in zip(h.split(by_time)[:-1], by_time[1:], strict=True)]
    return torch.cat([h[:0], *earlier])
