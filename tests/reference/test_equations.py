"""Each equation against its NumPy version: packed rows here, padded and masked there."""

import numpy as np
import numpy_method as reference
import pytest
import torch
from padding import packed

from marl_sale.functional import elbo, embed, mixing, targets
from marl_sale.functional.activations import elu

LENGTHS = ([1], [5, 5], [3, 6, 1, 4], [2, 1, 2])
N, D, A = 3, 4, 5


@pytest.fixture(params=LENGTHS, ids=str)
def lengths(request: pytest.FixtureRequest) -> list[int]:
    return request.param


@pytest.fixture
def rng(lengths: list[int]) -> np.random.Generator:
    return np.random.default_rng(len(lengths))


@pytest.fixture
def valid(lengths: list[int]) -> reference.Mask:
    return np.arange(max(lengths)) < np.array(lengths)[:, None]


def draw(rng: np.random.Generator, valid: reference.Mask, *sizes: int) -> reference.Array:
    """Random values; what the mask leaves out is huge, so that a mean over it shows."""
    x = rng.normal(size=(*valid.shape, *sizes))
    x[~valid] = 1e6
    return x


def test_e1_avg_l1_norm(lengths: list[int], rng: np.random.Generator, valid: reference.Mask) -> None:
    x = draw(rng, valid, N, D)
    x[:, 0, 0] = 0.0  # no direction: stays zero
    found = embed.avg_l1_norm(packed(x, lengths, steps=True))
    assert found.numpy() == pytest.approx(packed(reference.avg_l1_norm(x), lengths, steps=True), rel=1e-12)
    assert float(found[0, 0].abs().sum()) == 0.0


def test_e2_and_e3_are_mean_squared_errors(
    lengths: list[int], rng: np.random.Generator, valid: reference.Mask
) -> None:
    x, y = draw(rng, valid, N, D), draw(rng, valid, N, D)
    rows = packed(x, lengths, steps=True), packed(y, lengths, steps=True)
    expected = reference.squared_error(x, y, valid)
    assert float(embed.sale_loss(*rows)) == pytest.approx(expected, rel=1e-9)
    assert float(elbo.reconstruction_loss(*rows)) == pytest.approx(expected, rel=1e-9)


def test_e4_availability(lengths: list[int], rng: np.random.Generator, valid: reference.Mask) -> None:
    logits, bits = draw(rng, valid, N, A), rng.random((*valid.shape, N, A)) < 0.5
    found = elbo.availability_loss(packed(logits, lengths, steps=True), packed(bits, lengths, steps=True))
    with np.errstate(divide="ignore", invalid="ignore"):  # in the padding
        expected = reference.bernoulli_cross_entropy(logits, bits, valid)
    assert float(found) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_e5_balanced_kl_is_the_kl(
    lengths: list[int], rng: np.random.Generator, valid: reference.Mask, alpha: float
) -> None:
    q_mean, p_mean = draw(rng, valid, N, D), draw(rng, valid, N, D)
    q_std, p_std = rng.uniform(0.1, 2, q_mean.shape), rng.uniform(0.1, 2, q_mean.shape)
    q, p = (
        elbo.Gaussian(packed(mean, lengths, steps=True), packed(np.log(std), lengths, steps=True))
        for mean, std in ((q_mean, q_std), (p_mean, p_std))
    )
    expected = reference.masked_mean(reference.gaussian_kl(q_mean, q_std, p_mean, p_std), valid)
    assert float(elbo.balanced_kl(q, p, alpha)) == pytest.approx(expected, rel=1e-9)


def test_e6_standard_kl(lengths: list[int], rng: np.random.Generator, valid: reference.Mask) -> None:
    mean, std = draw(rng, valid, N, D), rng.uniform(0.1, 2, (*valid.shape, N, D))
    p = elbo.Gaussian(packed(mean, lengths, steps=True), packed(np.log(std), lengths, steps=True))
    expected = reference.masked_mean(
        reference.gaussian_kl(mean, std, np.zeros_like(mean), np.ones_like(std)), valid
    )
    assert float(elbo.standard_kl(p)) == pytest.approx(expected, rel=1e-9)


def test_e7_inverse_dynamics(lengths: list[int], rng: np.random.Generator, valid: reference.Mask) -> None:
    pred_z, z = draw(rng, valid, N, D), draw(rng, valid, N, D)
    logits = rng.normal(size=(*valid.shape, N, A))
    actions = rng.integers(A, size=(*valid.shape, N))
    rows = (packed(x, lengths, steps=True) for x in (pred_z, z, logits, actions))
    expected = reference.squared_error(pred_z, z, valid)
    expected += reference.negative_log_probability(logits, actions, valid)
    assert float(elbo.inverse_dynamics_loss(*rows)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("values", [1, N])  # one joint value, or one per agent
def test_e8_and_e9_temporal_difference(
    lengths: list[int], rng: np.random.Generator, valid: reference.Mask, values: int
) -> None:
    reward, terminated = draw(rng, valid), rng.random(valid.shape) < 0.5
    next_value, value = draw(rng, valid, values), draw(rng, valid, values)
    y = reference.td_target(reward, terminated, next_value, 0.9)
    rows = [packed(x, lengths, steps=True) for x in (reward, terminated, next_value, value)]
    found = targets.td_target(rows[0].unsqueeze(-1), rows[1].unsqueeze(-1), rows[2], 0.9)
    assert found.numpy() == pytest.approx(packed(y, lengths, steps=True).numpy(), rel=1e-12)
    loss = targets.td_loss(rows[3], found)
    assert float(loss) == pytest.approx(reference.squared_error(value, y, valid), rel=1e-9)


def test_monotonic_mixing() -> None:
    rng, size = np.random.default_rng(0), 6
    q_i, w1, w2 = rng.normal(size=(7, N)), rng.normal(size=(7, N, size)), rng.normal(size=(7, size))
    b1, b2 = rng.normal(size=(7, size)), rng.normal(size=7)
    hidden = reference.elu(np.einsum("rn,rnm->rm", q_i, np.abs(w1)) + b1)
    found = mixing.monotonic_mix(*map(torch.from_numpy, (q_i, w1, b1, w2, b2)))
    assert found.numpy() == pytest.approx((hidden * np.abs(w2)).sum(-1) + b2, rel=1e-12)


def test_elu() -> None:
    x = np.linspace(-30, 30, 601)
    assert elu(torch.from_numpy(x)).numpy() == pytest.approx(reference.elu(x), rel=1e-12, abs=1e-15)
