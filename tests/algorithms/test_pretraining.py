"""Pre-training: what is decoded from the core, and that the losses fall."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from marl_sale.algorithms._load import build_pretraining
from marl_sale.algorithms.pretraining import CoreDecoder
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.spec import EnvSpec


def test_core_loss_is_the_mean_squared_error_of_what_was_seen_and_of_the_reward(
    spec: EnvSpec, batch: Batch
) -> None:
    decoder, h = CoreDecoder(spec, 8), torch.randn(len(batch.obs), spec.n_agents, 8)
    for parameter in decoder.parameters():
        nn.init.zeros_(parameter)
    nn.init.constant_(decoder.reward.bias, 0.25)
    entries = [
        torch.cat([batch.obs[row, agent], batch.state[row]])
        for row in range(len(batch.obs))
        for agent in range(spec.n_agents)
    ]
    expected = torch.stack(entries).square().mean() + (batch.reward - 0.25).square().mean()
    assert decoder.loss(batch, h).item() == pytest.approx(expected.item(), rel=1e-5)


def test_the_reward_is_read_from_all_agents_and_the_joint_action(spec: EnvSpec, batch: Batch) -> None:
    decoder = CoreDecoder(spec, 8)
    h = torch.randn(len(batch.obs), spec.n_agents, 8).requires_grad_()
    nn.init.zeros_(decoder.seen.weight)
    decoder.loss(batch, h).backward()
    assert h.grad is not None
    acted_from = h.grad[batch.now_rows].abs().sum((0, 2))
    assert acted_from.min().item() > 0
    actions = decoder.reward_input.parts[1].grad
    assert actions is not None
    assert actions.abs().sum(1).count_nonzero().item() == len(
        {(agent, int(a)) for row in batch.actions for agent, a in enumerate(row)}
    )


def test_embeddings_and_world_model_are_fitted_on_a_core_at_rest(
    spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    fit = build_pretraining(small_config(), spec)
    assert fit.parts == ("core", "representation")
    for part, moves in (("core", True), ("representation", False)):
        fit.part = part
        before = [parameter.clone() for parameter in fit.agent.core.parameters()]
        fit.update(batch)
        after = fit.agent.core.parameters()
        assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)) == moves


FAST = ("optimiser.name=adam", "optimiser.learning_rate=0.01")


def fall(config: Config, spec: EnvSpec, batch: Batch) -> dict[str, float]:
    """Each loss after 50 updates on one batch, as a share of what it was."""
    fit = build_pretraining(config, spec)
    first, *_, last = [fit.update(batch) for _ in range(50)]
    return {name: (last[f"loss_{name}"] / first[f"loss_{name}"]).item() for name in fit.loss_names}


def test_the_core_learns_what_was_seen(
    spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    assert fall(small_config(changes=FAST), spec, batch)["core"] < 0.9


def test_the_world_model_learns_recurrent_states_that_stand_still(
    spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    changes = [*FAST, "pretrain.train_core=false", "loss_weights.reg=0.0", "loss_weights.kl=0.01"]
    shares = fall(small_config(changes=changes), spec, batch)
    assert max(shares[name] for name in ("rec", "avail", "inv", "sale", "sale_global")) < 0.95
