"""Utility heads: one action's value is the value of that action."""

from typing import Literal

import pytest
import torch

from marl_sale.nn.pairs import Every, Taken
from marl_sale.nn.sale import Sale
from marl_sale.nn.utility import LinearHead, sale_head

ROWS, H, A, D = 5, 8, 4, 6


@pytest.mark.parametrize("kind", ["mlp", "bilinear"])
def test_taken_is_one_of_every(kind: Literal["mlp", "bilinear"]) -> None:
    head, sale = sale_head(kind, H, A, D).double(), Sale(H, A, 1, D, 7).double()
    h, actions = torch.randn(ROWS, 3, H, dtype=torch.float64), torch.randint(A, (ROWS, 3))
    shares = head.shares(h, sale)
    every = head(shares, sale.g_of(shares.of_g, Every()), Every())
    taken = head(shares, sale.g(sale.f(h), actions.unsqueeze(-1)), Taken(actions))
    assert every.shape == (ROWS, 3, A)
    assert torch.allclose(taken, every.gather(-1, actions.unsqueeze(-1)).squeeze(-1), rtol=1e-10)
    assert every.std(-1).min().item() > 1e-4  # actions matter


def test_linear_head_is_linear() -> None:
    head, h = LinearHead(H, A).double(), torch.randn(ROWS, H, dtype=torch.float64)
    once, twice, never = (head(x) for x in (h, 2 * h, 0 * h))
    assert once.shape == (ROWS, A)
    assert torch.allclose(twice - once, once - never, rtol=1e-9)
