"""Pre-training: the losses of SALE and world model on a fixed set of episodes, without values.

The latent space is defined by the agents' core, so the core is pre-trained too where the recipe asks for it:
observations and state must be readable from recurrent states, and the reward from all of them with the joint
action. Our choice, as the lineage starts from a random core.
"""

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


class Pretraining(Algorithm):
    """Fits the parts of an `Mmsa` that need no values. h̄ is the online core's own h, without gradient."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.mmsa = Mmsa(config, spec)
        self.agent = self.mmsa.agent
        # No value is learned here that a moving embedding could disturb, and the prior must be fitted to the
        # embedding that `train` will start from: one copy, not three.
        self.mmsa.agent.sale = self.mmsa.sale
        self.core_decoder = (
            CoreDecoder(spec, config.agent.hidden_size) if config.pretrain.train_core else None
        )
        self.agent.core.requires_grad_(config.pretrain.train_core)

    @property
    def loss_names(self) -> tuple[str, ...]:
        core = ("core",) if self.core_decoder is not None else ()
        return (*core, *self.mmsa.representation_loss_names)

    def unroll(self, batch: Batch) -> Float[Tensor, "rows agents hidden"]:
        """Recurrent states along the batch."""
        return self.agent.core.unroll(batch.obs, batch.prev_actions, batch.batch_sizes)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        h = self.unroll(batch)
        losses = self.mmsa.representation_losses(batch, h, h.detach())
        if self.core_decoder is not None:
            losses["core"] = self.core_decoder.loss(batch, h)
        return losses

    def copy_targets(self) -> None:
        self.mmsa.copy_targets()
