"""Utility heads: one action's value is the value of that action."""

from typing import Literal

import pytest
import torch

from marl_sale.nn.pairs import Every, Listed, Taken
from marl_sale.nn.sale import Sale
from marl_sale.nn.utility import LinearHead, sale_head

ROWS, H, A, D = 5, 8, 4, 6


@pytest.mark.parametrize("kind", ["mlp", "bilinear"])
def test_taken_is_one_of_every(kind: Literal["mlp", "bilinear"]) -> None:
    head, sale = sale_head(kind, H, A, D).double(), Sale(H, A, 1, D, 7).double()
    h, actions = torch.randn(ROWS, 3, H, dtype=torch.float64), torch.randint(A, (ROWS, 3))
    z_s = sale.f(h)
    shares = head.shares(h, z_s, sale.action_output)
    every = head(shares, sale.g_of(sale.share(z_s), Every()), Every())
    taken = head(shares, sale.g(z_s, actions.unsqueeze(-1)), Taken(actions))
    assert every.shape == (ROWS, 3, A)
    assert torch.allclose(taken, every.gather(-1, actions.unsqueeze(-1)).squeeze(-1), rtol=1e-10)
    assert every.std(-1).min().item() > 1e-4  # actions matter


def test_linear_head_is_linear() -> None:
    head, h = LinearHead(H, A).double(), torch.randn(ROWS, H, dtype=torch.float64)
    actions = torch.randint(A, (ROWS,))
    assert torch.allclose(head(h, Taken(actions)), head(h, Every())[torch.arange(ROWS), actions])
    assert torch.allclose(
        head(2 * h, Every()) - head(h, Every()), head(h, Every()) - head(0 * h, Every()), rtol=1e-9
    )


@pytest.mark.parametrize("kind", ["mlp", "bilinear"])
def test_listed_are_some_of_every(kind: Literal["mlp", "bilinear"]) -> None:
    head, sale = sale_head(kind, H, A, D).double(), Sale(H, A, 1, D, 7).double()
    h = torch.randn(ROWS, H, dtype=torch.float64)
    rows, actions = torch.tensor([0, 0, 2, 4]), torch.tensor([1, 3, 0, 2])
    z_s, listed = sale.f(h), Listed(rows * A + actions, A)
    of_g, of_head = sale.share(z_s), head.shares(h, z_s, sale.action_output)
    every = head(of_head, sale.g_of(of_g, Every()), Every())
    assert torch.allclose(head(of_head, sale.g_of(of_g, listed), listed), every[rows, actions], rtol=1e-10)
