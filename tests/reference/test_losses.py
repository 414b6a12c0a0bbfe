"""Whole losses of every algorithm, and their gradients, against NumPy, over episodes of unequal length."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy_method as reference
import pytest
import torch
from padding import packed, padded
from torch import nn

from marl_sale.algorithms._load import build
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import replay_of
from marl_sale.spec import EnvSpec

LENGTHS = [4, 6, 1, 3, 6]
TARGET_RANGE = (-0.03, 0.04)


def doubled(batch: Batch) -> Batch:
    return replace(batch, obs=batch.obs.double(), state=batch.state.double(), reward=batch.reward.double())


def built(config: Config, spec: EnvSpec) -> Qmix:
    """In float64, every weight moved on its own, so that online, fixed and target copies differ."""
    algorithm = build(config, spec, seed=1).double()
    generator = torch.Generator().manual_seed(2)
    with torch.no_grad():
        for parameter in algorithm.parameters():
            parameter += 0.2 * torch.randn(parameter.shape, generator=generator)
    if isinstance(algorithm, Mmsa):
        algorithm.target_range.copy_(torch.tensor(TARGET_RANGE, dtype=torch.float64))
    return algorithm


def settings(algorithm: Qmix) -> reference.Settings:
    config = algorithm.config
    mmsa = algorithm if isinstance(algorithm, Mmsa) else None
    clips = mmsa is not None and mmsa.with_sale and config.sale.clip_targets
    return reference.Settings(
        mixer="qmix" if mmsa else config.algorithm,
        n_actions=algorithm.spec.n_actions,
        discount=config.discount,
        mixer_size=config.mixer.size,
        hypernet_size=config.mixer.hypernet_size,
        mixer_sees_state=config.mixer.global_state,
        imagination_length=mmsa.imagination_length if mmsa else 0,
        kl_balance=config.world_model.kl_balance,
        target_range=TARGET_RANGE if clips else None,
    )


def weights(algorithm: Qmix) -> reference.Weights:
    return {name: value.numpy() for name, value in algorithm.state_dict().items()}


def losses(algorithm: Qmix, batch: Batch) -> dict[str, float]:
    return {name: value.item() for name, value in algorithm.losses(doubled(batch)).items()}


def with_noise(algorithm: Mmsa, *noises: torch.Tensor) -> None:
    """Make the two draws of latent noise the given ones."""
    drawn: Iterator[torch.Tensor] = iter(noises)
    algorithm._noise = lambda like: next(drawn)  # type: ignore[method-assign]


@dataclass
class Case:
    """An algorithm, a batch, and the reference's losses of weights that move and of those that are held."""

    algorithm: Qmix
    batch: Batch
    reference_losses: Callable[[reference.Weights, reference.Weights], dict[str, float]]


CaseMaker = Callable[..., Case]


@pytest.fixture
def value_decomposition(
    spec: EnvSpec, small_config: Callable[..., Config], random_episodes: Callable[..., Episodes]
) -> CaseMaker:
    def make(name: str, *, bootstrap: bool = False) -> Case:
        algorithm, episodes = built(small_config(name), spec), random_episodes(spec, LENGTHS)
        batch = replay_of(spec, episodes, bootstrap_at_time_limit=bootstrap).pack(torch.arange(len(LENGTHS)))
        data = padded(episodes, bootstrap_at_time_limit=bootstrap)
        return Case(
            algorithm,
            batch,
            lambda w, held: {"td": reference.qmix_loss(w, held, settings(algorithm), data)},
        )

    return make


@pytest.fixture
def mmsa(
    spec: EnvSpec, small_config: Callable[..., Config], random_episodes: Callable[..., Episodes]
) -> CaseMaker:
    def make(changes: list[str], *, masked: bool = True) -> Case:
        overlays = [name[1:] for name in changes if name[0] == "+"]
        config = small_config(*overlays, changes=[text for text in changes if text[0] != "+"])
        task = replace(spec, masks_actions=masked)
        algorithm, episodes = built(config, task), random_episodes(task, LENGTHS)
        assert isinstance(algorithm, Mmsa)
        data = padded(episodes, bootstrap_at_time_limit=False)
        rng, d = np.random.default_rng(3), config.world_model.latent_size
        of_posterior = rng.normal(size=(*data.alive.shape, task.n_agents, d))
        of_prior = rng.normal(size=(*data.valid.shape, task.n_agents, d))
        drawn = (packed(of_posterior, LENGTHS, steps=False), packed(of_prior, LENGTHS, steps=True))
        with_noise(algorithm, *drawn)
        batch = replay_of(task, episodes, bootstrap_at_time_limit=False).pack(torch.arange(len(LENGTHS)))
        return Case(
            algorithm,
            batch,
            lambda w, held: reference.mmsa_losses(w, held, settings(algorithm), data, of_posterior, of_prior),
        )

    return make


def check_losses(case: Case) -> None:
    w = weights(case.algorithm)
    assert losses(case.algorithm, case.batch) == {
        name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in case.reference_losses(w, w).items()
    }


def check_gradients(case: Case) -> None:
    """The slope of every loss along a random direction of each group of weights; that of the reference by
    differences of fourth order, which with this step are good to some 1e-11 of the loss.
    """
    rng, step, w = np.random.default_rng(4), 2e-5, weights(case.algorithm)
    trained = {name: p for name, p in case.algorithm.named_parameters() if p.requires_grad}
    groups: dict[str, list[str]] = {}
    for name in trained:
        groups.setdefault(".".join(name.split(".")[:2]), []).append(name)
    found = case.algorithm.losses(doubled(case.batch))
    gradients = {
        loss: dict(zip(trained, gradients_of(value, trained.values()), strict=True))
        for loss, value in found.items()
    }
    for group, names in groups.items():
        direction = {name: rng.normal(size=w[name].shape) / np.sqrt(w[name].size) for name in names}
        there, back, far_there, far_back = (
            case.reference_losses({**w, **{name: w[name] + by * d for name, d in direction.items()}}, w)
            for by in (step, -step, 2 * step, -2 * step)
        )
        for loss, value in found.items():
            slope = sum((gradients[loss][name] * d).sum() for name, d in direction.items())
            expected = (8 * (there[loss] - back[loss]) - (far_there[loss] - far_back[loss])) / (12 * step)
            assert slope == pytest.approx(expected, rel=1e-9, abs=1e-10 * value.item()), f"{loss}, {group}"


def gradients_of(loss: torch.Tensor, parameters: Iterable[nn.Parameter]) -> list[np.ndarray]:
    found = torch.autograd.grad(loss, list(parameters), retain_graph=True, materialize_grads=True)
    return [gradient.numpy() for gradient in found]


VARIANTS = pytest.mark.parametrize(
    "changes",
    [
        [],
        ["+no-sale"],
        ["+no-world-model"],
        ["+no-global-state"],
        ["+k0"],
        ["+no-kl-balancing"],
        ["agent.head=bilinear", "world_model.imagination_length=1"],
        ["sale.global_state=false", "sale.clip_targets=false", "world_model.imagination_length=5"],
    ],
    ids=lambda changes: " ".join(changes) or "mmsa",
)


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("name", ["qmix", "vdn", "iql"])
def test_loss_of_value_decomposition(name: str, bootstrap: bool, value_decomposition: CaseMaker) -> None:
    check_losses(value_decomposition(name, bootstrap=bootstrap))


@pytest.mark.parametrize("masked", [True, False])
@VARIANTS
def test_losses_of_mmsa(changes: list[str], masked: bool, mmsa: CaseMaker) -> None:
    check_losses(mmsa(changes, masked=masked))


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("name", ["qmix", "vdn", "iql"])
def test_gradients_of_value_decomposition(name: str, value_decomposition: CaseMaker) -> None:
    check_gradients(value_decomposition(name))


@pytest.mark.usefixtures("kernels_or_torch")
@VARIANTS
def test_gradients_of_mmsa(changes: list[str], mmsa: CaseMaker) -> None:
    check_gradients(mmsa(changes))


def test_e10_is_the_weighted_sum(
    spec: EnvSpec, small_config: Callable[..., Config], random_episodes: Callable[..., Episodes]
) -> None:
    names = ("td", "sale", "sale_global", "rec", "avail", "kl", "reg", "inv")
    config = small_config(changes=[f"loss_weights.{name}={i + 0.5}" for i, name in enumerate(names)])
    algorithm = built(config, spec)
    batch = replay_of(spec, random_episodes(spec, [2, 3]), bootstrap_at_time_limit=False).pack(
        torch.arange(2)
    )
    found = algorithm.losses(doubled(batch))
    expected = sum((i + 0.5) * found[name].item() for i, name in enumerate(names))
    assert algorithm.unify(found).item() == pytest.approx(expected, rel=1e-12)
    del found["inv"]
    with pytest.raises(AssertionError, match="inv"):
        algorithm.unify(found)


@pytest.mark.parametrize("name", ["mmsa", "qmix", "vdn", "iql"])
def test_padding_changes_no_loss(
    name: str,
    spec: EnvSpec,
    small_config: Callable[..., Config],
    random_episodes: Callable[..., Episodes],
) -> None:
    """The same episodes in a longer storage, and beside nothing but their own padding."""
    config = small_config(*([] if name == "mmsa" else [name]))
    episodes = random_episodes(spec, LENGTHS)
    longer = replace(spec, episode_limit=11)
    roomy = Episodes.empty(longer, len(LENGTHS))
    for field, value in episodes.tensors().items():
        room: Any = roomy.tensors()[field]
        in_time = (slice(None), slice(value.shape[1])) if value.dim() > 1 else slice(None)
        room[in_time] = value
    found = []
    for of, stored in ((spec, episodes), (longer, roomy)):
        batch = replay_of(of, stored, bootstrap_at_time_limit=False).pack(torch.arange(len(LENGTHS)))
        found.append(losses(built(config, spec), batch))
    assert found[0] == found[1]
