"""E1 and E2: by hand, limits, and who is trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.functional.embed import avg_l1_norm, sale_loss

numbers = st.floats(-1e3, 1e3).filter(lambda x: abs(x) > 1e-3)


def test_e1_by_hand() -> None:
    assert avg_l1_norm(torch.tensor([3.0, -1.0])).tolist() == [1.5, -0.5]


def test_e1_of_zero_is_zero() -> None:
    assert avg_l1_norm(torch.zeros(3)).tolist() == [0, 0, 0]


@settings(deadline=None)
@given(st.lists(numbers, min_size=1, max_size=8), st.floats(1e-3, 1e3))
def test_e1_has_mean_size_one_and_forgets_the_scale(values: list[float], scale: float) -> None:
    x = torch.tensor(values, dtype=torch.float64)
    assert avg_l1_norm(x).abs().mean().item() == pytest.approx(1)
    assert avg_l1_norm(x * scale).tolist() == pytest.approx(avg_l1_norm(x).tolist())


def test_e2_by_hand_trains_the_prediction_alone() -> None:
    pred, target = torch.tensor([[1.0, 2.0]]).requires_grad_(), torch.tensor([[0.0, 4.0]]).requires_grad_()
    loss = sale_loss(pred, target)
    loss.backward()
    assert loss.item() == 2.5  # (1 + 4) / 2
    assert pred.grad is not None
    assert pred.grad.tolist() == [[1, -2]]
    assert target.grad is None
