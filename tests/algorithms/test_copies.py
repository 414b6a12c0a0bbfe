"""Copies between networks: which, when, in which order; and the range of value targets."""

from collections.abc import Callable

import pytest
import torch
from torch import nn

from marl_sale.algorithms._load import build, build_policy
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.errors import NotFiniteError
from marl_sale.spec import EnvSpec


@pytest.fixture
def mmsa(spec: EnvSpec, small_config: Callable[..., Config]) -> Mmsa:
    algorithm = build(small_config(changes=["optimiser.target_update_period=3"]), spec)
    assert isinstance(algorithm, Mmsa)
    return algorithm


def fill(module: nn.Module | None, value: float) -> None:
    assert module is not None
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(value)


def is_filled(module: nn.Module | None, value: float) -> bool:
    assert module is not None
    return all(bool((parameter == value).all()) for parameter in module.parameters())


def test_copies_start_equal(mmsa: Mmsa) -> None:
    state = mmsa.state_dict()
    pairs = (
        ("agent.", "target_agent."),
        ("mixer.", "target_mixer."),
        ("sale.", "agent.sale."),
        ("state_sale.", "fixed_state_sale."),
        ("state_sale.", "target_state_sale."),
    )
    for online, copy in pairs:
        inside = [name for name in state if name.startswith(online)]
        assert inside
        for name in inside:
            assert torch.equal(state[name], state[copy + name.removeprefix(online)]), name


def test_embeddings_move_one_place_per_copy(mmsa: Mmsa) -> None:
    """fixed_target ← fixed ← trained, in this order: a copy takes two periods to reach the target."""
    local = (mmsa.sale, mmsa.agent.sale, mmsa.target_agent.sale)
    of_state = (mmsa.state_sale, mmsa.fixed_state_sale, mmsa.target_state_sale)
    for trained, fixed, target in (local, of_state):
        for module, value in ((trained, 3.0), (fixed, 2.0), (target, 1.0)):
            fill(module, value)
    mmsa.copy_targets()
    for trained, fixed, target in (local, of_state):
        assert is_filled(trained, 3)
        assert is_filled(fixed, 3)
        assert is_filled(target, 2)
    mmsa.copy_targets()
    assert is_filled(local[2], 3)
    assert is_filled(of_state[2], 3)


def test_networks_are_copied_online_to_target(mmsa: Mmsa) -> None:
    fill(mmsa.agent.core, 2.0)
    fill(mmsa.mixer, 4.0)
    mmsa.copy_targets()
    assert is_filled(mmsa.target_agent.core, 2)
    assert is_filled(mmsa.target_mixer, 4)


def test_copies_happen_at_the_period_alone(mmsa: Mmsa, batch: Batch) -> None:
    copied = []
    for _ in range(7):
        before = mmsa.target_agent.core.input.bias.clone()
        mmsa.update(batch)
        copied.append(not torch.equal(before, mmsa.target_agent.core.input.bias))
    assert copied == [False, False, True, False, False, True, False]
    assert mmsa.updates == 7


def test_value_targets_are_clipped_to_those_seen_before_the_last_copy(mmsa: Mmsa) -> None:
    bootstrapped = torch.tensor([[-9.0], [0.3], [9.0]])
    assert mmsa.limit_target_values(bootstrapped).tolist() == [[0], [0], [0]]  # nothing seen yet
    for targets in ([[0.5], [-1.0]], [[2.0]]):
        mmsa.note_targets(torch.tensor(targets))
        mmsa.remember()
    assert mmsa.limit_target_values(bootstrapped).tolist() == [[0], [0], [0]]  # not before the copy
    mmsa.copy_targets()
    assert mmsa.limit_target_values(bootstrapped).flatten().tolist() == pytest.approx([-1, 0.3, 2])


@pytest.mark.parametrize("overlays", [("no-sale",), ()])
def test_value_targets_are_not_clipped_where_the_recipe_says_so(
    overlays: tuple[str, ...], spec: EnvSpec, small_config: Callable[..., Config]
) -> None:
    changes = [] if overlays else ["sale.clip_targets=false"]
    algorithm = build(small_config(*overlays, changes=changes), spec)
    values = torch.tensor([[-9.0], [9.0]])
    assert torch.equal(algorithm.limit_target_values(values), values)


def test_pretrained_weights_reach_every_copy(
    mmsa: Mmsa, spec: EnvSpec, small_config: Callable[..., Config]
) -> None:
    other = build(small_config(), spec, seed=9)
    assert isinstance(other, Mmsa)
    source, untouched = other.state_dict(), {k: v.clone() for k, v in mmsa.state_dict().items()}
    mmsa.load_pretrained({name: source[name] for name in other.pretrained_names})
    state = mmsa.state_dict()
    for name in other.pretrained_names:
        assert torch.equal(state[name], source[name]), name
    for copy, origin in (
        ("target_agent.core.", "agent.core."),
        ("agent.sale.", "sale."),
        ("target_agent.sale.", "sale."),
        ("fixed_state_sale.", "state_sale."),
        ("target_state_sale.", "state_sale."),
    ):
        for name in (name for name in state if name.startswith(copy)):
            assert torch.equal(state[name], source[origin + name.removeprefix(copy)]), name
    for part in ("agent.head.", "mixer.", "rollout_encoder.", "target_mixer."):
        for name in (name for name in state if name.startswith(part)):
            assert torch.equal(state[name], untouched[name]), name


@pytest.mark.parametrize("overlay", ["", "qmix", "no-sale", "no-world-model"])
def test_a_policy_is_the_agent_of_its_algorithm(
    overlay: str, spec: EnvSpec, small_config: Callable[..., Config]
) -> None:
    config = small_config(*([overlay] if overlay else []))
    expected = build(config, spec).agent.state_dict()
    found = build_policy(config, spec).state_dict()
    assert {name: value.shape for name, value in found.items()} == {
        name: value.shape for name, value in expected.items()
    }


def test_divergence_is_told_before_a_weight_is_touched(mmsa: Mmsa, batch: Batch) -> None:
    before = {name: value.clone() for name, value in mmsa.state_dict().items()}
    for value, first in ((1e25, "loss_td"), (float("inf"), "batch.reward")):
        poisoned = batch.with_reward(batch.reward.clone())
        poisoned.reward[0] = value
        with pytest.raises(NotFiniteError, match=r"after 0 updates: .*rec \d.*td (inf|nan)") as caught:
            mmsa.update(poisoned)
        assert caught.value.first == first
    for name, value in mmsa.state_dict().items():
        assert torch.equal(value, before[name]), name
    assert mmsa.updates == 0
    mmsa.update(batch)


def test_an_update_that_is_left_out_does_not_count_for_the_copies(mmsa: Mmsa, batch: Batch) -> None:
    """Nor is anything copied then: what it was made with is what a repetition of it finds."""
    for _ in range(2):
        mmsa.update(batch)
    before = mmsa.target_agent.core.input.bias.clone()
    with pytest.raises(NotFiniteError):
        mmsa.update(batch.with_reward(batch.reward * float("inf")))
    assert torch.equal(mmsa.target_agent.core.input.bias, before)
    mmsa.update(batch)
    assert torch.equal(mmsa.target_agent.core.input.bias, mmsa.agent.core.input.bias)


def test_gradients_are_clipped(spec: EnvSpec, small_config: Callable[..., Config], batch: Batch) -> None:
    """The norm is reported before clipping; what is applied has the length allowed."""
    algorithm = build(small_config("vdn", changes=["optimiser.max_grad_norm=0.001"]), spec)
    figures = algorithm.update(batch)
    applied = [p.grad.square().sum() for p in algorithm.parameters() if p.grad is not None]
    assert figures["grad_norm"].item() > 0.01
    assert torch.stack(applied).sum().sqrt().item() == pytest.approx(0.001, rel=1e-2)
