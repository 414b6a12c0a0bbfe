"""ELU."""

import math

import pytest
import torch
from torch.nn import functional as F

from marl_sale.functional.activations import elu


def test_by_hand() -> None:
    assert elu(torch.tensor([2.0, -math.log(2), 0.0])).tolist() == pytest.approx([2, -0.5, 0])


def test_equals_torch_with_its_gradient() -> None:
    x = torch.linspace(-20, 20, 401, dtype=torch.float64)
    ours, theirs = x.clone().requires_grad_(), x.clone().requires_grad_()
    weight = torch.randn(401, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    (elu(ours) * weight).sum().backward()
    (F.elu(theirs) * weight).sum().backward()
    assert torch.allclose(elu(x), F.elu(x), rtol=1e-12, atol=1e-15)
    assert ours.grad is not None
    assert theirs.grad is not None
    assert torch.allclose(ours.grad, theirs.grad, rtol=1e-12, atol=1e-15)


def test_gradcheck() -> None:
    x = torch.randn(5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.autograd.gradcheck(elu, [x.requires_grad_()])


def test_input_is_left_as_it_was() -> None:
    x = torch.tensor([-1.0, 1.0])
    elu(x)
    assert x.tolist() == [-1.0, 1.0]


def test_far_from_zero() -> None:
    assert elu(torch.tensor([-1e4, 1e4, torch.inf, -torch.inf])).tolist() == [-1, 1e4, torch.inf, -1]
    assert elu(torch.tensor([torch.nan])).isnan().all()


def test_close_enough_in_float32() -> None:
    x = torch.linspace(-1e-3, 1e-3, 201)
    assert torch.allclose(elu(x), F.elu(x), atol=2e-7, rtol=0)
