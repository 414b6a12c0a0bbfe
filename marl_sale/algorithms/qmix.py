"""QMIX, VDN and IQL: double Q-learning of individual action values under three mixers.

Sources: Rashid et al. 2020 (QMIX), Sunehag et al. 2018 (VDN), Tan 1993 (IQL).
"""

import copy

import torch
from jaxtyping import Float
from torch import Tensor, nn

from marl_sale.algorithms._api import Algorithm, build_agent, copy_weights
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.functional.targets import td_loss, td_target
from marl_sale.nn.agent import Agent, Choice
from marl_sale.nn.mixers import IndependentMixer, QmixMixer, SumMixer
from marl_sale.spec import EnvSpec


class Qmix(Algorithm):
    """Individual action values, mixed; `config.algorithm` names the mixer (mmsa mixes as qmix does)."""

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__(config, spec)
        self.agent = self.policy(config, spec)
        self.mixer = self._build_mixer()
        self.target_agent = copy.deepcopy(self.agent).requires_grad_(False)
        self.target_mixer = copy.deepcopy(self.mixer).requires_grad_(False)

    noted_names = ("q_taken", "td_target", "td_error_abs")

    @classmethod
    def policy(cls, config: Config, spec: EnvSpec) -> Agent:
        """What acts, and all that an evaluation builds."""
        return build_agent(config, spec)

    @property
    def context_size(self) -> int:
        """Size of what the mixer is conditioned on."""
        return self.spec.state_size

    def _build_mixer(self) -> nn.Module:
        if self.config.algorithm == "iql":
            return IndependentMixer()
        if self.config.algorithm == "vdn":
            return SumMixer()
        mixer = self.config.mixer
        return QmixMixer(self.spec.n_agents, self.context_size, mixer.size, mixer.hypernet_size)

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("td",)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        h, target_h = self.unroll(batch)
        shares = self.agent.shares(h)
        taken = self.agent.take(shares, batch.actions_by_row)
        greedy = self.agent.choose(shares, batch.avail_actions)
        return {"td": self.td(batch, taken, target_h, greedy, batch.state, batch.state)}

    def unroll(
        self, batch: Batch
    ) -> tuple[Float[Tensor, "rows agents hidden"], Float[Tensor, "rows agents hidden"]]:
        """Recurrent states of the online network, and of the target network without gradient."""
        h = batch.unroll(self.agent.core.unroll)
        with torch.no_grad():
            target_h = batch.unroll(self.target_agent.core.unroll)
        return h, target_h

    def td(
        self,
        batch: Batch,
        taken: Choice,
        target_h: Float[Tensor, "rows agents hidden"],
        greedy: Choice,
        context: Float[Tensor, "rows context"],
        target_context: Float[Tensor, "rows context"],
    ) -> Float[Tensor, ""]:
        """E8 and E9; notes what the values are, as an error can stay small while they drift."""
        assert taken.q_i is not None
        q_tot = self.mixer(batch.now(taken.q_i), batch.now(context))
        with torch.no_grad():
            target_next_q = self.target_agent.value_of(batch.next(target_h), batch.next(greedy.actions))
            target_next_q_tot = self.target_mixer(target_next_q, batch.next(target_context))
            y = td_target(
                batch.reward.unsqueeze(-1),
                batch.terminated.unsqueeze(-1),
                self.limit_target_values(target_next_q_tot),
                self.config.discount,
            )
            self.note_targets(y)
            noted = (q_tot.mean(), y.mean(), (q_tot - y).abs().mean())
            self.noted = dict(zip(self.noted_names, noted, strict=True))
        return td_loss(q_tot, y)

    def limit_target_values(self, target_next_q_tot: Tensor) -> Tensor:
        """Bootstrapped values as they enter E8; plain value decomposition does not limit them."""
        return target_next_q_tot

    def note_targets(self, y: Tensor) -> None:
        """See the targets of a batch, before it is known whether its update is made."""

    def copy_targets(self) -> None:
        copy_weights(self.agent, self.target_agent)
        copy_weights(self.mixer, self.target_mixer)
