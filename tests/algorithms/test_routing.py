"""Which parameters each loss may touch: exactly those of this table."""

from collections.abc import Callable, Mapping

import pytest
import torch
from torch import Tensor, nn

from marl_sale.algorithms._load import build, build_pretraining
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.spec import EnvSpec

GROUPS = {
    "core": "agent.core.",
    "head": "agent.head.",
    "sale": "sale.",
    "global sale": "state_sale.",
    "fixed sale": "agent.sale.",
    "fixed global sale": "fixed_state_sale.",
    "target global sale": "target_state_sale.",
    "posterior": "world_model.to_posterior.",
    "decoder": "world_model.decoder.",
    "avail head": "world_model.avail_head.",
    "prior: action": "world_model.action_embedding.",
    "prior: input": "world_model.prior_input.",
    "prior": "world_model.to_prior.",
    "latent inverse": "world_model.latent_inverse.",
    "action inverse": "world_model.action_inverse.",
    "rollout encoder": "rollout_encoder.",
    "mixer": "mixer.",
    "target agent": "target_agent.",
    "target mixer": "target_mixer.",
    "core decoder": "core_decoder.",
}
FROZEN = {"fixed sale", "fixed global sale", "target global sale", "target agent", "target mixer"}
PRIOR = {"prior: action", "prior: input", "prior"}
ROUTES: Mapping[str, set[str]] = {
    "td": {"core", "head", "mixer", "posterior", *PRIOR, "rollout encoder"},
    "sale": {"sale"},
    "sale_global": {"global sale"},
    "rec": {"posterior", "decoder"},
    "avail": {"posterior", "avail head"},
    "kl": {"posterior", *PRIOR},
    "reg": {"posterior", *PRIOR},
    "inv": {"posterior", *PRIOR, "latent inverse", "action inverse"},
    "core": {"core", "core decoder"},
}


def group_of(name: str) -> str:
    name = name.removeprefix("mmsa.")
    (group,) = (group for group, prefix in GROUPS.items() if name.startswith(prefix))
    return group


def reached(module: nn.Module, loss: Tensor) -> set[str]:
    """Groups with a parameter whose gradient is not zero."""
    module.zero_grad()
    loss.backward(retain_graph=True)
    return {
        group_of(name)
        for name, parameter in module.named_parameters()
        if parameter.grad is not None and parameter.grad.abs().sum().item() > 0
    }


@pytest.mark.parametrize("head", ["mlp", "bilinear"])
def test_routes_of_training(
    head: str, spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    algorithm = build(small_config(changes=[f"agent.head={head}"]), spec)
    losses = algorithm.losses(batch)
    assert {name: reached(algorithm, loss) for name, loss in losses.items()} == {
        name: groups for name, groups in ROUTES.items() if name != "core"
    }


def test_routes_of_pretraining(spec: EnvSpec, small_config: Callable[..., Config], batch: Batch) -> None:
    fit = build_pretraining(small_config(), spec)
    routes = {}
    for part in fit.parts:
        fit.part = part
        routes |= {name: reached(fit, loss) for name, loss in fit.losses(batch).items()}
    one_copy = {"sale": {"fixed sale"}}  # shared with the agent, under whose name it is listed
    assert routes == {name: groups for name, groups in ROUTES.items() if name != "td"} | one_copy


@pytest.mark.parametrize("name", ["qmix", "vdn", "iql"])
def test_routes_of_value_decomposition(
    name: str, spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    algorithm = build(small_config(name), spec)
    mixer = {"mixer"} if name == "qmix" else set()
    assert reached(algorithm, algorithm.losses(batch)["td"]) == {"core", "head", *mixer}


def test_copies_are_frozen_and_nothing_else(spec: EnvSpec, small_config: Callable[..., Config]) -> None:
    algorithm = build(small_config(), spec)
    flags: dict[str, set[bool]] = {}
    for name, parameter in algorithm.named_parameters():
        flags.setdefault(group_of(name), set()).add(parameter.requires_grad)
    assert {group for group, flag in flags.items() if False in flag} == FROZEN
    assert all(len(flag) == 1 for flag in flags.values())
    trained = {id(p) for group in algorithm.optimiser.param_groups for p in group["params"]}
    assert trained == {id(p) for p in algorithm.parameters() if p.requires_grad}


def test_a_core_that_is_not_pretrained_is_left_alone(
    spec: EnvSpec, small_config: Callable[..., Config], batch: Batch
) -> None:
    fit = build_pretraining(small_config(changes=["pretrain.train_core=false"]), spec)
    before = [parameter.clone() for parameter in fit.agent.core.parameters()]
    fit.update(batch)
    assert "core" not in fit.loss_names
    assert all(torch.equal(a, b) for a, b in zip(before, fit.agent.core.parameters(), strict=True))
