"""Mixers as modules: monotone for every context, and VDN as the limit of QMIX."""

import itertools

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from marl_sale.functional.targets import greedy_actions
from marl_sale.nn.mixers import IndependentMixer, QmixMixer, SumMixer


def mixer(n_agents: int, context_size: int, seed: int) -> QmixMixer:
    torch.manual_seed(seed)
    made = QmixMixer(n_agents, context_size, size=5, hypernet_size=7).double()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(4)
    return made


@given(st.integers(1, 5), st.sampled_from([4, 9, 24]), st.integers(0, 1000), st.floats(0, 30))
def test_no_utility_lowers_the_joint_value(n: int, context_size: int, seed: int, scale: float) -> None:
    made = mixer(n, context_size, seed)
    q_i = torch.randn(6, n, dtype=torch.float64).requires_grad_()
    q_tot = made(q_i, scale * torch.randn(6, context_size, dtype=torch.float64))
    (slope,) = torch.autograd.grad(q_tot.sum(), q_i)
    assert q_tot.shape == (6, 1)
    assert slope.min().item() >= 0


@given(st.integers(1, 3), st.integers(2, 4), st.integers(0, 1000))
def test_greedy_together_is_greedy_each(n: int, n_actions: int, seed: int) -> None:
    """Against every joint action of available ones."""
    made, context = mixer(n, 4, seed), torch.randn(1, 4, dtype=torch.float64)
    q_i = torch.randn(1, n, n_actions, dtype=torch.float64)
    avail = torch.rand(1, n, n_actions) < 0.7
    avail[..., 0] |= ~avail.any(-1)

    def joint_value(actions: Tensor) -> float:
        q_tot: Tensor = made(q_i.gather(-1, actions.view(1, n, 1)).squeeze(-1), context)
        return q_tot.item()

    allowed = [avail[0, i].nonzero().squeeze(-1).tolist() for i in range(n)]
    best = max(joint_value(torch.tensor(actions)) for actions in itertools.product(*allowed))
    assert joint_value(greedy_actions(q_i, avail)[0]) == pytest.approx(best, rel=1e-12, abs=1e-12)


def test_qmix_with_constant_positive_weights_is_vdn_up_to_scale() -> None:
    made, q_i = mixer(3, 4, 0), torch.rand(8, 3, dtype=torch.float64)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.zero_()
        made.to_w1.bias.fill_(-0.5)
        made.to_w2.bias.fill_(2.0)
        made.to_b2.bias.fill_(7.0)
    context = torch.randn(8, 4, dtype=torch.float64)
    total = SumMixer()(q_i, context)
    assert torch.allclose(made(q_i, context), 5 * 0.5 * 2 * total + 7, rtol=1e-12)


def test_sum_and_independent_mixers_ignore_the_context() -> None:
    q_i, nothing = torch.tensor([[1.0, 2.0]]), torch.full((1, 3), float("nan"))
    assert SumMixer()(q_i, nothing).tolist() == [[3.0]]
    assert torch.equal(IndependentMixer()(q_i, nothing), q_i)
    assert not list(SumMixer().parameters())
    assert not list(IndependentMixer().parameters())


def test_qmix_listens_to_its_context() -> None:
    made, q_i = mixer(3, 4, 0), torch.randn(1, 3, dtype=torch.float64)
    context = torch.randn(2, 4, dtype=torch.float64)
    q_tot = made(q_i.expand(2, 3), context)
    assert abs(float((q_tot[0] - q_tot[1]).item())) > 1e-3
