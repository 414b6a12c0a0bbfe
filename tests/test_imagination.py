"""Imagined roll-outs: whose choice, which gradient, and nothing beyond the length asked for."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from marl_sale.algorithms._load import build
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.config.schema import Config
from marl_sale.imagination import imagine
from marl_sale.nn.agent import Choice
from marl_sale.nn.world_model import WorldModel
from marl_sale.spec import EnvSpec

ROWS = 6


@pytest.fixture
def mmsa(spec: EnvSpec, small_config: Callable[..., Config]) -> Mmsa:
    algorithm = build(small_config(), spec).double()
    assert isinstance(algorithm, Mmsa)
    return algorithm


def start(mmsa: Mmsa) -> tuple[WorldModel, Tensor, Choice]:
    model = mmsa.world_model
    assert model is not None
    h = torch.randn(ROWS, mmsa.spec.n_agents, 8, dtype=torch.float64)
    avail = torch.ones(ROWS, mmsa.spec.n_agents, mmsa.spec.n_actions, dtype=torch.bool)
    return model, model.posterior(h).mean, mmsa.agent.choose(mmsa.agent.shares(h), avail)


def test_a_longer_rollout_begins_as_the_shorter_one(mmsa: Mmsa) -> None:
    model, z, choice = start(mmsa)
    long = imagine(model, mmsa.agent, z, choice, 5)
    assert long.shape == (5, ROWS, mmsa.spec.n_agents, 3)
    assert torch.allclose(imagine(model, mmsa.agent, z, choice, 2), long[:2], rtol=1e-12)


def test_rows_do_not_see_each_other(mmsa: Mmsa) -> None:
    model, z, choice = start(mmsa)
    assert choice.z_sa is not None
    third = choice._replace(actions=choice.actions[2:3], z_sa=choice.z_sa.of(lambda rows: rows[2:3]))
    alone = imagine(model, mmsa.agent, z[2:3], third, 3)
    assert torch.allclose(imagine(model, mmsa.agent, z, choice, 3)[:, 2:3], alone, rtol=1e-10)


def test_the_first_step_is_the_choice_given(mmsa: Mmsa) -> None:
    model, z, choice = start(mmsa)
    other = choice._replace(actions=(choice.actions + 1) % mmsa.spec.n_actions)
    first = imagine(model, mmsa.agent, z, choice, 1)[0]
    assert torch.equal(first, model.prior(z, choice.actions, choice.z_sa).mean)
    assert not torch.allclose(first, imagine(model, mmsa.agent, z, other, 1)[0])


def test_later_steps_are_greedy_where_likely_available(mmsa: Mmsa, monkeypatch: pytest.MonkeyPatch) -> None:
    model, z, choice = start(mmsa)
    only = torch.full((ROWS, mmsa.spec.n_agents, mmsa.spec.n_actions), -1.0, dtype=torch.float64)
    only[..., 2] = 1.0  # the availability head allows action 2 alone
    monkeypatch.setattr(model, "avail_logits", lambda z: only)
    seen: list[Tensor] = []
    prior = model.prior

    def recorded(z: Tensor, actions: Tensor, z_sa: Tensor | None) -> object:
        seen.append(actions)
        return prior(z, actions, z_sa)

    monkeypatch.setattr(model, "prior", recorded)
    imagine(model, mmsa.agent, z, choice, 3)
    assert torch.equal(seen[0], choice.actions)
    assert all(bool((actions == 2).all()) for actions in seen[1:])


def test_gradients_reach_prior_and_first_latent_alone(mmsa: Mmsa) -> None:
    model, z, choice = start(mmsa)
    imagine(model, mmsa.agent, z, choice, 3)[-1].square().sum().backward()
    reached = {
        name.partition(".")[0]
        for name, parameter in model.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum().item() > 0
    }
    assert reached == {"to_posterior", "action_embedding", "prior_input", "to_prior"}
    assert all(parameter.grad is None for parameter in mmsa.agent.parameters())
