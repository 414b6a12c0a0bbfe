"""Variational losses of the world model: E3 … E7.

Every Gaussian is diagonal and given by its mean and log standard deviation. Each loss is the mean over all
entries of its tensor, as in the method's lineage; their relative weight therefore depends on the latent size.
"""

from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor
from torch.nn import functional as F


class Gaussian(NamedTuple):
    """A diagonal Gaussian over the last axis."""

    mean: Float[Tensor, "*rows dim"]
    log_std: Float[Tensor, "*rows dim"]

    def sample(self, noise: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
        """Reparameterised sample; `noise` is standard normal."""
        return self.mean + self.log_std.exp() * noise

    def detach(self) -> "Gaussian":
        return Gaussian(self.mean.detach(), self.log_std.detach())


def kl_divergence(q: Gaussian, p: Gaussian) -> Float[Tensor, "*rows dim"]:
    """KL(q ‖ p), entry by entry.

    By hand, for q = N(1, 1), p = N(0, 1): ½ (1 + 1 − 1 − 0) = ½.
    """
    variance_ratio = (2 * (q.log_std - p.log_std)).exp()
    distance = ((q.mean - p.mean) * (-p.log_std).exp()).square()
    return 0.5 * (variance_ratio + distance - 1) + p.log_std - q.log_std


def reconstruction_loss(
    decoded: Float[Tensor, "*rows dim"], target: Float[Tensor, "*rows dim"]
) -> Float[Tensor, ""]:
    """E3: mean squared error between decoded latents and the target network's recurrent states."""
    return (decoded - target.detach()).square().mean()


def availability_loss(
    logits: Float[Tensor, "*rows actions"], avail_actions: Bool[Tensor, "*rows actions"]
) -> Float[Tensor, ""]:
    """E4: binary cross-entropy of the predicted availability of each action."""
    return F.binary_cross_entropy_with_logits(logits, avail_actions.to(logits.dtype))


def balanced_kl(posterior: Gaussian, prior: Gaussian, alpha: float) -> Float[Tensor, ""]:
    """E5: α KL(sg q ‖ p) + (1 − α) KL(q ‖ sg p).

    Its value is KL(q ‖ p) for every α; α only divides the gradient between prior (α) and posterior (1 − α).
    """
    trains_prior = kl_divergence(posterior.detach(), prior).mean()
    trains_posterior = kl_divergence(posterior, prior.detach()).mean()
    return alpha * trains_prior + (1 - alpha) * trains_posterior


def standard_kl(p: Gaussian) -> Float[Tensor, ""]:
    """E6: KL(p ‖ N(0, I))."""
    return (0.5 * ((2 * p.log_std).exp() + p.mean.square() - 1) - p.log_std).mean()


def inverse_dynamics_loss(
    pred_z: Float[Tensor, "*rows agents dim"],
    z: Float[Tensor, "*rows agents dim"],
    action_logits: Float[Tensor, "*rows agents actions"],
    actions: Int64[Tensor, "*rows agents"],
) -> Float[Tensor, ""]:
    """E7: rebuild the previous latent and the joint action from a sample of the prior.

    No gradient reaches the previous latent `z`.
    """
    log_probability = torch.log_softmax(action_logits, -1).gather(-1, actions.unsqueeze(-1))
    return (pred_z - z.detach()).square().mean() - log_probability.mean()
