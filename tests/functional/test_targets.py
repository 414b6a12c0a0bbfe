"""E8 and E9: by hand, limits, and who is trained."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.functional.targets import greedy_actions, td_loss, td_target


def test_e8_by_hand() -> None:
    reward, ended = torch.tensor([1.0, 1.0]), torch.tensor([False, True])
    assert td_target(reward, ended, torch.tensor([2.0, 2.0]), 0.9).tolist() == pytest.approx([2.8, 1.0])


def test_e8_gives_the_team_reward_to_every_agent() -> None:
    y = td_target(torch.tensor([[1.0]]), torch.tensor([[False]]), torch.tensor([[2.0, 4.0]]), 0.5)
    assert y.tolist() == [[2, 3]]


def test_e8_without_a_future_is_the_reward() -> None:
    reward, ended = torch.randn(5), torch.zeros(5, dtype=torch.bool)
    assert torch.equal(td_target(reward, ended, torch.randn(5), 0.0), reward)


def test_targets_carry_no_gradient() -> None:
    value, q_tot = torch.ones(1).requires_grad_(), torch.zeros(1).requires_grad_()
    y = td_target(torch.zeros(1), torch.zeros(1, dtype=torch.bool), value, 0.9)
    assert not y.requires_grad
    td_loss(q_tot, value).backward()
    assert value.grad is None
    assert q_tot.grad is not None
    assert q_tot.grad.tolist() == [-2]


@settings(deadline=None)
@given(st.data())
def test_greedy_is_the_best_available(data: st.DataObject) -> None:
    n_actions = data.draw(st.integers(1, 6))
    q = data.draw(st.lists(st.floats(-(2.0**90), 2.0**90, width=32), min_size=n_actions, max_size=n_actions))
    avail = data.draw(
        st.lists(st.booleans(), min_size=n_actions, max_size=n_actions).filter(lambda bits: any(bits))
    )
    chosen = int(greedy_actions(torch.tensor([q]), torch.tensor([avail]))[0])
    assert avail[chosen]
    assert q[chosen] == max(value for value, free in zip(q, avail, strict=True) if free)
