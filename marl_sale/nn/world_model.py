"""The world model: two variational auto-encoders over the agents' recurrent states."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from marl_sale.functional.elbo import Gaussian
from marl_sale.nn.gru import unroll_gru
from marl_sale.nn.mlp import Mlp, SplitLinear, affine
from marl_sale.nn.sale import ActionEmbedding

LOG_STD_RANGE = (-5.0, 2.0)
"""Keeps every standard deviation between 0.007 and 7.4."""


def _gaussian(parameters: Tensor) -> Gaussian:
    mean, log_std = parameters.chunk(2, -1)
    return Gaussian(mean, log_std.clamp(*LOG_STD_RANGE))


class WorldModel(nn.Module):
    """Latents z of the agents' recurrent states, and their dynamics.

    posterior  q(z^i_t | h̄^i_t), shared over agents; decoder z^i → h̄^i; availability head z^i → avail^i
    prior      p(z_t | z_{t−1}, a_{t−1}, z_sa_{t−1}), joint over agents
    inverse    z_{t−1} and a_{t−1} from a sample of the prior (a regulariser)
    """

    def __init__(
        self,
        hidden_size: int,
        n_agents: int,
        n_actions: int,
        *,
        latent_size: int,
        layer_size: int,
        action_embedding_size: int,
        sale_size: int | None,
        masks_actions: bool,
    ) -> None:
        super().__init__()
        self.n_agents, self.n_actions, self.latent_size = n_agents, n_actions, latent_size
        joint = n_agents * latent_size
        self.to_posterior = Mlp([hidden_size, layer_size, 2 * latent_size])
        self.decoder = nn.Sequential(Mlp([latent_size, layer_size, hidden_size], end="tanh"))
        self.avail_head = Mlp([latent_size, layer_size, n_actions]) if masks_actions else None
        self.action_embedding = nn.Embedding(n_actions, action_embedding_size)
        sale_part = [] if sale_size is None else [n_agents * sale_size]
        self.prior_input = SplitLinear([joint, n_agents * action_embedding_size, *sale_part], layer_size)
        self.to_prior = nn.Sequential(
            nn.Identity(), Mlp([layer_size, layer_size, 2 * joint], starts_with_elu=True)
        )
        self.latent_inverse = Mlp([joint, layer_size, joint])
        self.action_inverse = Mlp([joint, layer_size, n_agents * n_actions])

    def posterior(self, target_h: Float[Tensor, "*rows agents hidden"]) -> Gaussian:
        """q(z^i_t | h̄^i_t)."""
        return _gaussian(self.to_posterior(target_h))

    def prior(
        self,
        z: Float[Tensor, "rows agents latent"],
        actions: Int64[Tensor, "rows agents"],
        z_sa: ActionEmbedding | None,
    ) -> Gaussian:
        """p(z_{t+1} | z_t, a_t, z_sa_t); SALE enters through a layer of its own."""
        first = self.prior_input.dense(0, z.flatten(1)) + self.prior_input.bias
        first = first + self.prior_input.dense(1, self.action_embedding(actions).flatten(1))
        if z_sa is not None:
            first = first + self._share_of(z_sa)
        joint = _gaussian(self.to_prior(first))
        return Gaussian(joint.mean.view_as(z), joint.log_std.view_as(z))

    def _share_of(self, z_sa: ActionEmbedding) -> Float[Tensor, "rows layer"]:
        """Of z_sa, without gradient, in the prior's first layer: the output layer of z_sa multiplied out."""
        weight, bias = z_sa.output.weight.detach(), z_sa.output.bias.detach()
        of_agents = self.prior_input.every(2).view(self.n_agents, len(bias), -1)
        return affine(
            z_sa.features.flatten(1), (weight.t() @ of_agents).flatten(0, 1), bias @ of_agents.sum(0)
        )

    def decode(self, z: Float[Tensor, "*rows agents latent"]) -> Float[Tensor, "*rows agents hidden"]:
        """Recurrent states of latents; tanh, because recurrent states can be negative."""
        h: Tensor = self.decoder(z)
        return h

    def avail_logits(
        self, z: Float[Tensor, "*rows agents latent"]
    ) -> Float[Tensor, "*rows agents actions"] | None:
        """Log-odds that each action is available (None: the task never masks)."""
        return None if self.avail_head is None else self.avail_head(z)

    def invert(
        self, z: Float[Tensor, "rows agents latent"]
    ) -> tuple[Float[Tensor, "rows agents latent"], Float[Tensor, "rows agents actions"]]:
        """Previous latents, and logits of the previous joint action."""
        joint = z.flatten(1)
        logits = self.action_inverse(joint).view(-1, self.n_agents, self.n_actions)
        return self.latent_inverse(joint).view_as(z), logits


class RolloutEncoder(nn.Module):
    """ζ: a GRU that reads the latents of an imagined roll-out backward, from the farthest to the nearest."""

    def __init__(self, joint_latent_size: int, size: int) -> None:
        super().__init__()
        self.memory = nn.GRU(joint_latent_size, size)

    def forward(self, latents: Float[Tensor, "length rows agents latent"]) -> Float[Tensor, "rows size"]:
        length, rows = latents.shape[:2]
        h = unroll_gru(self.memory, latents.flip(0).flatten(0, 1).flatten(1), torch.full((length,), rows))
        return h[-rows:]


def likely_available(
    logits: Float[Tensor, "*rows actions"] | None, like: Float[Tensor, "*rows latent"], n_actions: int
) -> Tensor:
    """Predicted mask: probability ≥ ½, or the most probable action where none is; all where nothing masks."""
    if logits is None:
        return torch.ones(*like.shape[:-1], n_actions, dtype=torch.bool, device=like.device)
    best = logits == logits.amax(-1, keepdim=True)
    return (logits >= 0) | best
