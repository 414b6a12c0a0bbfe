"""What a configuration without a part must be: exactly the algorithm without it."""

from collections.abc import Callable

import numpy as np
import pytest
import torch

from marl_sale.algorithms import qmix as qmix_file
from marl_sale.algorithms._load import build
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_of
from marl_sale.functional.targets import td_loss
from marl_sale.spec import EnvSpec

ABLATIONS = ("no-world-model", "no-sale", "no-kl-balancing", "no-global-state", "k0")


@pytest.fixture
def batches(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> list[Batch]:
    episodes = random_episodes(spec, [6, 2, 4, 1, 6, 5, 3, 3])
    return [
        replay_of(spec, episodes, bootstrap_at_time_limit=False).pack(torch.randperm(8)[:4]) for _ in range(7)
    ]


def names(algorithm: Qmix) -> set[str]:
    return {name for name, _ in algorithm.named_parameters()}


@pytest.mark.parametrize("optimiser", ["rmsprop", "adam"])
def test_without_world_model_and_sale_it_is_qmix_bit_for_bit(
    optimiser: str, spec: EnvSpec, small_config: Callable[..., Config], batches: list[Batch]
) -> None:
    changes = [f"optimiser.name={optimiser}", "optimiser.target_update_period=3"]
    mmsa = build(small_config("no-world-model", "no-sale", changes=changes), spec, seed=5)
    qmix = build(small_config("qmix", changes=changes), spec, seed=5)
    assert isinstance(mmsa, Mmsa)
    assert not isinstance(qmix, Mmsa)
    assert names(mmsa) == names(qmix)
    for batch in batches:
        ours, theirs = mmsa.update(batch), qmix.update(batch)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
        assert mmsa.imagined_steps(batch) == 0
    for name, parameter in qmix.state_dict().items():
        assert torch.equal(mmsa.state_dict()[name], parameter), name
    fresh = build(small_config("qmix", changes=changes), spec, seed=5).state_dict()
    assert any(not torch.equal(fresh[name], value) for name, value in qmix.state_dict().items())


@pytest.mark.parametrize("overlay", ["qmix", "vdn", "iql", "masked", "no-sale"])
def test_what_is_noted_of_the_values_is_what_the_loss_is_made_of(
    overlay: str,
    spec: EnvSpec,
    small_config: Callable[..., Config],
    batches: list[Batch],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[torch.Tensor] = []

    def watched(q_tot: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen[:] = q_tot.detach().double(), y.double()
        return td_loss(q_tot, y)

    monkeypatch.setattr(qmix_file, "td_loss", watched)
    algorithm = build(small_config(overlay), spec)
    figures = algorithm.update(batches[0])
    q_tot, y = (values.numpy() for values in seen)
    assert figures["loss_td"].item() == pytest.approx(((q_tot - y) ** 2).mean(), rel=1e-5)
    expected = {"q_taken": q_tot.mean(), "td_target": y.mean(), "td_error_abs": np.abs(q_tot - y).mean()}
    assert set(algorithm.noted_names) == set(expected)
    for name, value in expected.items():
        assert figures[name].item() == pytest.approx(value, rel=1e-5, abs=1e-6)
        assert not figures[name].requires_grad


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    spec: EnvSpec, small_config: Callable[..., Config], batches: list[Batch]
) -> None:
    runs = [build(small_config(), spec, seed=seed) for seed in (1, 1, 2)]
    for algorithm in runs:
        for batch in batches:
            algorithm.update(batch)
    states = [algorithm.state_dict() for algorithm in runs]
    assert all(torch.equal(states[1][name], value) for name, value in states[0].items())
    assert not torch.equal(states[2]["agent.core.input.bias"], states[0]["agent.core.input.bias"])


def test_building_leaves_the_global_generator_alone(
    spec: EnvSpec, small_config: Callable[..., Config]
) -> None:
    before = torch.get_rng_state()
    build(small_config(), spec, seed=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_k0_has_no_imagination(
    spec: EnvSpec, small_config: Callable[..., Config], batches: list[Batch]
) -> None:
    algorithm = build(small_config("k0"), spec)
    assert isinstance(algorithm, Mmsa)
    assert algorithm.imagined_steps(batches[0]) == 0
    assert not any("rollout_encoder" in name for name in names(algorithm))
    assert any("world_model" in name for name in names(algorithm))
    whole = build(small_config(), spec)
    assert whole.imagined_steps(batches[0]) == 3 * len(batches[0].obs)
    assert any("rollout_encoder" in name for name in names(whole))


@pytest.mark.parametrize(
    ("ablation", "removed", "losses"),
    [
        ("no-world-model", ("world_model.", "rollout_encoder."), {"rec", "avail", "kl", "reg", "inv"}),
        ("no-sale", ("sale.", "state_sale.", ".sale."), {"sale", "sale_global"}),
        ("no-global-state", ("state_sale.",), {"sale_global"}),
        ("k0", ("rollout_encoder.",), set()),
        ("no-kl-balancing", (), set()),
    ],
)
def test_a_removed_part_owns_no_parameter_and_no_loss(
    ablation: str,
    removed: tuple[str, ...],
    losses: set[str],
    spec: EnvSpec,
    small_config: Callable[..., Config],
) -> None:
    whole, ablated = build(small_config(), spec), build(small_config(ablation), spec)
    assert set(whole.loss_names) - set(ablated.loss_names) == losses
    for part in removed:
        assert any(part in name for name in names(whole)), part
        assert not any(part in name for name in names(ablated)), part
    if "sale." not in removed:
        assert any(name.startswith("sale.") for name in names(ablated))


def test_no_global_state_hides_the_state_from_the_mixer(
    spec: EnvSpec, small_config: Callable[..., Config], batches: list[Batch]
) -> None:
    algorithm = build(small_config("no-global-state"), spec)
    assert isinstance(algorithm, Mmsa)
    zeta = torch.randn(len(batches[0].state), spec.state_size)
    assert torch.equal(algorithm.context(batches[0], zeta, algorithm.fixed_state_sale), zeta)


@pytest.mark.parametrize("head", ["mlp", "bilinear"])
@pytest.mark.parametrize("overlay", ["", "qmix", "vdn", "iql", *ABLATIONS])
def test_every_trained_parameter_is_trained(
    overlay: str,
    head: str,
    spec: EnvSpec,
    small_config: Callable[..., Config],
    batches: list[Batch],
) -> None:
    """Some loss moves it; what no loss moves is frozen."""
    config = small_config(*([overlay] if overlay else []), changes=[f"agent.head={head}"])
    algorithm = build(config, spec)
    algorithm.unify(algorithm.losses(batches[0])).backward()
    for name, parameter in algorithm.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum().item() > 0, name
        else:
            assert parameter.grad is None, name
