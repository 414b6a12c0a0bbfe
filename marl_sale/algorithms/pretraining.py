"""Pre-training: the losses of SALE and world model on a fixed set of episodes, without values.

The latent space is defined by the agents' core, so the core is pre-trained too where the recipe asks for it:
observations and state must be readable from recurrent states, and the reward from all of them with the joint
action. Our choice, as the lineage starts from a random core.
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from marl_sale.algorithms._api import Algorithm
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.functional.activations import elu
from marl_sale.nn.mlp import SplitLinear
from marl_sale.spec import EnvSpec


class CoreDecoder(nn.Module):
    """[o^i_t, s_t] from h^i_t, and r_t from all h_t and the joint action."""

    def __init__(self, spec: EnvSpec, hidden_size: int) -> None:
        super().__init__()
        self.n_actions = spec.n_actions
        self.seen = nn.Linear(hidden_size, spec.obs_size + spec.state_size)
        joint = spec.n_agents * hidden_size
        self.reward_input = SplitLinear([joint, spec.n_agents * spec.n_actions], hidden_size)
        self.reward = nn.Linear(hidden_size, 1)

    def loss(self, batch: Batch, h: Float[Tensor, "rows agents hidden"]) -> Float[Tensor, ""]:
        """Sum of two mean squared errors: of observation and state, and of the reward."""
        state = batch.state.unsqueeze(1).expand(-1, h.shape[1], -1)
        seen = self.seen(h) - torch.cat([batch.obs, state], -1)
        joint_action = nn.functional.one_hot(batch.actions, self.n_actions).to(h.dtype).flatten(1)
        first = self.reward_input.dense(0, batch.now(h).flatten(1)) + self.reward_input.bias
        reward = self.reward(elu(first + self.reward_input.dense(1, joint_action))).squeeze(-1)
        loss: Tensor = seen.square().mean() + (reward - batch.reward).square().mean()
        return loss


Part = Literal["core", "representation"]


class Pretraining(Algorithm):
    """Fits the parts of an `Mmsa` that need no values, one after the other: first the core, then, on its
    recurrent states at rest, embeddings and world model. h̄ is the core's own h, without gradient.
    """

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.mmsa = Mmsa(config, spec)
        self.agent = self.mmsa.agent
        # No value is learned here that a moving embedding could disturb, and the prior must be fitted to the
        # embedding that `train` will start from: one copy, not three.
        self.mmsa.agent.sale = self.mmsa.sale
        train_core = config.pretrain.train_core
        self.core_decoder = CoreDecoder(spec, config.agent.hidden_size) if train_core else None
        self.agent.core.requires_grad_(train_core)
        self.part: Part = self.parts[0]

    @property
    def parts(self) -> tuple[Part, ...]:
        """What is fitted, in order; `part` is the one being fitted."""
        return ("representation",) if self.core_decoder is None else ("core", "representation")

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("core",) if self.part == "core" else self.mmsa.representation_loss_names

    def unroll(self, batch: Batch) -> Float[Tensor, "rows agents hidden"]:
        """Recurrent states along the batch."""
        return batch.unroll(self.agent.core.unroll)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        if self.part == "core" and self.core_decoder is not None:
            return {"core": self.core_decoder.loss(batch, self.unroll(batch))}
        with torch.no_grad():
            h = self.unroll(batch)
        z_sa = self.agent.z_sa(h, batch.actions_by_row)
        return self.mmsa.representation_losses(batch, h, h, z_sa, self.mmsa.posterior(h))

    def generators(self) -> dict[str, torch.Generator]:
        return self.mmsa.generators()

    def copy_targets(self) -> None:
        self.mmsa.copy_targets()
