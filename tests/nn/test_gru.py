"""The written-out GRU against torch's, over episodes of unequal length."""

from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from marl_sale.nn.gru import unroll_gru

pytestmark = pytest.mark.usefixtures("kernels_or_torch")
SIZES = ([1], [4], [3, 3, 3], [5, 3, 3, 1], [6, 1, 1, 1, 1, 1])


def case(sizes: Sequence[int], seed: int = 0) -> tuple[nn.GRU, Tensor, Tensor]:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        gru = nn.GRU(3, 4).double()
        x = torch.randn(sum(sizes), 3, dtype=torch.float64)
    return gru, x.requires_grad_(), torch.tensor(sizes)


def value_and_gradients(h: Tensor, gru: nn.GRU, x: Tensor) -> list[Tensor]:
    """Under a loss that weighs every entry differently."""
    weight = torch.linspace(-1, 2, h.numel(), dtype=h.dtype).view_as(h)
    return [h, *torch.autograd.grad((weight * h.sin()).sum(), [x, *gru.parameters()])]


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_equals_torch_with_every_gradient(sizes: list[int]) -> None:
    gru, x, batch_sizes = case(sizes)
    ours = value_and_gradients(unroll_gru(gru, x, batch_sizes), gru, x)
    theirs = value_and_gradients(gru(PackedSequence(x, batch_sizes))[0].data, gru, x)
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


@given(st.lists(st.integers(1, 6), min_size=1, max_size=7), st.integers(0, 100))
def test_equals_torch_for_any_lengths(sizes: list[int], seed: int) -> None:
    sizes = sorted(sizes, reverse=True)
    gru, x, batch_sizes = case(sizes, seed)
    ours = value_and_gradients(unroll_gru(gru, x, batch_sizes), gru, x)
    theirs = value_and_gradients(gru(PackedSequence(x, batch_sizes))[0].data, gru, x)
    for found, expected in zip(ours, theirs, strict=True):
        assert torch.allclose(found, expected, rtol=1e-10, atol=1e-12)


def test_a_second_backward_pass_is_refused() -> None:
    """The first overwrites what it read."""
    gru, x, batch_sizes = case([3, 2])
    h = unroll_gru(gru, x, batch_sizes).sum()
    torch.autograd.grad(h, x, retain_graph=True)
    with pytest.raises(RuntimeError, match="cannot be repeated"):
        torch.autograd.grad(h, x)


def test_without_gradients_and_in_float32() -> None:
    gru, x, batch_sizes = case([4, 2])
    gru, x = gru.float(), x.detach().float()
    with torch.no_grad():
        h = unroll_gru(gru, x, batch_sizes)
        assert torch.allclose(h, gru(PackedSequence(x, batch_sizes))[0].data, atol=1e-6)
    assert h.dtype == torch.float32
    assert not h.requires_grad


def test_a_gradient_that_is_broadcast_is_not_written_to() -> None:
    """A plain sum sends back a gradient without memory of its own."""
    gru, x, batch_sizes = case([3, 2, 2])
    ours = torch.autograd.grad(unroll_gru(gru, x, batch_sizes).sum(), x)[0]
    theirs = torch.autograd.grad(gru(PackedSequence(x, batch_sizes))[0].data.sum(), x)[0]
    assert torch.allclose(ours, theirs, rtol=1e-10)
