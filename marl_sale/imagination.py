"""Imagined roll-outs: what the world model expects to follow from every real step."""

import torch
from jaxtyping import Float
from torch import Tensor

from marl_sale.nn.agent import Agent, Choice
from marl_sale.nn.world_model import WorldModel, likely_available


def imagine(
    world_model: WorldModel,
    agent: Agent,
    z: Float[Tensor, "rows agents latent"],
    choice: Choice,
    length: int,
) -> Float[Tensor, "length rows agents latent"]:
    """Latents of `length` imagined steps from every row, all rows at once.

    `z` are posterior means, `choice` the agents' greedy actions there. Actions are chosen without gradient;
    the latents keep theirs, so that the value loss trains posterior, prior and roll-out encoder.
    """
    latents: list[Tensor] = []
    for step in range(length):
        if step:
            choice = _choose_imagined(world_model, agent, z)
        z = world_model.prior(z, choice.actions, choice.z_sa).mean
        latents.append(z)
    return torch.stack(latents)


@torch.no_grad()
def _choose_imagined(world_model: WorldModel, agent: Agent, z: Tensor) -> Choice:
    avail = likely_available(world_model.avail_logits(z), z, world_model.n_actions)
    return agent.choose_at(world_model.decode(z), avail)
