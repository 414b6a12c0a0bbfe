"""E3 … E7: by hand, limits, and who is trained."""

import math

import pytest
import torch
from torch import Tensor
from torch.distributions import Normal
from torch.distributions import kl_divergence as torch_kl

from marl_sale.functional import elbo
from marl_sale.functional.elbo import Gaussian


def gaussians(seed: int) -> tuple[Gaussian, Gaussian]:
    generator = torch.Generator().manual_seed(seed)
    draws = [torch.randn(6, 3, dtype=torch.float64, generator=generator).requires_grad_() for _ in range(4)]
    return Gaussian(*draws[:2]), Gaussian(*draws[2:])


def gradients(loss: Tensor, *of: Tensor) -> list[Tensor]:
    found = torch.autograd.grad(loss, of, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(of, found, strict=True)]


def test_kl_by_hand() -> None:
    one = torch.tensor([1.0])
    kl = elbo.kl_divergence(Gaussian(one, torch.zeros(1)), Gaussian(torch.zeros(1), torch.zeros(1)))
    assert kl.item() == 0.5
    wide = Gaussian(torch.zeros(1), torch.tensor([math.log(2)]))
    assert elbo.standard_kl(wide).item() == pytest.approx(1.5 - math.log(2))  # ½ (4 − 1) − ln 2


@pytest.mark.parametrize("seed", range(3))
def test_kl_equals_torch(seed: int) -> None:
    q, p = gaussians(seed)
    theirs = torch_kl(Normal(q.mean, q.log_std.exp()), Normal(p.mean, p.log_std.exp()))
    assert torch.allclose(elbo.kl_divergence(q, p), theirs, rtol=1e-9)
    assert elbo.kl_divergence(q, q).abs().max().item() < 1e-12


@pytest.mark.parametrize("alpha", [0.0, 0.3, 0.7, 1.0])
def test_e5_divides_the_gradient_and_nothing_else(alpha: float) -> None:
    q, p = gaussians(4)
    plain, balanced = elbo.kl_divergence(q, p).mean(), elbo.balanced_kl(q, p, alpha)
    assert balanced.item() == pytest.approx(plain.item(), rel=1e-12)
    whole, divided = gradients(plain, *q, *p), gradients(balanced, *q, *p)
    for i, share in enumerate([1 - alpha, 1 - alpha, alpha, alpha]):
        assert torch.allclose(divided[i], share * whole[i], rtol=1e-12, atol=1e-15)


def test_e3_trains_the_decoded_alone() -> None:
    decoded, target = torch.tensor([[1.0, 3.0]]).requires_grad_(), torch.zeros(1, 2).requires_grad_()
    loss = elbo.reconstruction_loss(decoded, target)
    loss.backward()
    assert loss.item() == 5.0
    assert decoded.grad is not None
    assert target.grad is None


def test_e4_by_hand() -> None:
    logits = torch.tensor([[math.log(3), 0.0]])  # probabilities ¾ and ½
    loss = elbo.availability_loss(logits, torch.tensor([[True, False]]))
    assert loss.item() == pytest.approx((math.log(4 / 3) + math.log(2)) / 2)


def test_e7_by_hand_does_not_pull_the_latent() -> None:
    pred, z = torch.tensor([[[2.0]]]).requires_grad_(), torch.tensor([[[0.0]]]).requires_grad_()
    logits = torch.tensor([[[math.log(3), 0.0]]]).requires_grad_()
    loss = elbo.inverse_dynamics_loss(pred, z, logits, torch.tensor([[0]]))
    loss.backward()
    assert loss.item() == pytest.approx(4 + math.log(4 / 3))
    assert z.grad is None
    assert pred.grad is not None
    assert logits.grad is not None


def test_a_sample_carries_the_gradient() -> None:
    q, _ = gaussians(5)
    noise = torch.full_like(q.mean, 2.0)
    of_mean, of_log_std = gradients(q.sample(noise).sum(), *q)
    assert torch.equal(of_mean, torch.ones_like(q.mean))
    assert torch.allclose(of_log_std, 2 * q.log_std.exp())
    assert not q.detach().mean.requires_grad
