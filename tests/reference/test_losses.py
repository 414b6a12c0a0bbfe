"""Whole losses of every algorithm against NumPy, over episodes of unequal length."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import numpy_method as reference
import pytest
import torch
from padding import packed, padded

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
        algorithm.target_range.copy_(torch.tensor(TARGET_RANGE))
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


@pytest.mark.parametrize("bootstrap", [False, True])
@pytest.mark.parametrize("name", ["qmix", "vdn", "iql"])
def test_loss_of_value_decomposition(
    name: str,
    bootstrap: bool,
    spec: EnvSpec,
    small_config: Callable[..., Config],
    random_episodes: Callable[..., Episodes],
) -> None:
    algorithm, episodes = built(small_config(name), spec), random_episodes(spec, LENGTHS)
    index = torch.arange(len(LENGTHS))
    batch = replay_of(spec, episodes, bootstrap_at_time_limit=bootstrap).pack(index)
    data = padded(episodes, bootstrap_at_time_limit=bootstrap)
    expected = reference.qmix_loss(weights(algorithm), settings(algorithm), data)
    assert losses(algorithm, batch) == {"td": pytest.approx(expected, rel=1e-9)}


@pytest.mark.parametrize(
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
@pytest.mark.parametrize("masked", [True, False])
def test_losses_of_mmsa(
    changes: list[str],
    masked: bool,
    spec: EnvSpec,
    small_config: Callable[..., Config],
    random_episodes: Callable[..., Episodes],
) -> None:
    overlays = [name[1:] for name in changes if name[0] == "+"]
    config = small_config(*overlays, changes=[text for text in changes if text[0] != "+"])
    spec = replace(spec, masks_actions=masked)
    algorithm, episodes = built(config, spec), random_episodes(spec, LENGTHS)
    assert isinstance(algorithm, Mmsa)
    data = padded(episodes, bootstrap_at_time_limit=False)
    rng, d = np.random.default_rng(3), config.world_model.latent_size
    of_posterior = rng.normal(size=(*data.alive.shape, spec.n_agents, d))
    of_prior = rng.normal(size=(*data.valid.shape, spec.n_agents, d))
    with_noise(algorithm, packed(of_posterior, LENGTHS, steps=False), packed(of_prior, LENGTHS, steps=True))

    batch = replay_of(spec, episodes, bootstrap_at_time_limit=False).pack(torch.arange(len(LENGTHS)))
    expected = reference.mmsa_losses(weights(algorithm), settings(algorithm), data, of_posterior, of_prior)
    assert losses(algorithm, batch) == {
        name: pytest.approx(value, rel=1e-9, abs=1e-12) for name, value in expected.items()
    }


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
