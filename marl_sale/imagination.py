"""Imagined roll-outs: what the world model expects to follow from every real step."""

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from marl_sale.nn.agent import Agent
from marl_sale.nn.world_model import WorldModel, likely_available


def imagine(
    world_model: WorldModel,
    agent: Agent,
    z: Float[Tensor, "rows agents latent"],
    h: Float[Tensor, "rows agents hidden"],
    actions: Int64[Tensor, "rows agents"],
    length: int,
) -> Float[Tensor, "length rows agents latent"]:
    """Latents of `length` imagined steps from every row, all rows at once.

    `z` are posterior means, `h` the agents' recurrent states and `actions` their greedy actions there.
    Actions are chosen without gradient; the latents keep theirs, so that the value loss trains posterior,
    prior and roll-out encoder.
    """
    latents: list[Tensor] = []
    for step in range(length):
        if step:
            h, actions = _next_choice(world_model, agent, z.detach())
        z = world_model.prior(z, actions, agent.z_sa(h, actions)).mean
        latents.append(z)
    return torch.stack(latents)


@torch.no_grad()
def _next_choice(world_model: WorldModel, agent: Agent, z: Tensor) -> tuple[Tensor, Tensor]:
    h = world_model.decode(z)
    avail: Bool[Tensor, "rows agents actions"] = likely_available(
        world_model.avail_logits(z), z, world_model.n_actions
    )
    return h, agent.greedy(h, avail)
