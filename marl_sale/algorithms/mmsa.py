"""MMSA: multi-agent model-based reinforcement learning with joint state-action learned embeddings.

Read `Mmsa.losses` from top to bottom: it is the paper's algorithm box, with the equations' numbers of
docs/equations.md. Source: arXiv:2602.12520; what is known of it and what was inferred is in docs/method.md.
"""

import copy
from collections.abc import Mapping

import torch
from jaxtyping import Float
from torch import Tensor

from marl_sale.algorithms._api import build_sale, copy_weights
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.functional import elbo
from marl_sale.functional.embed import sale_loss
from marl_sale.imagination import imagine
from marl_sale.nn.agent import Choice
from marl_sale.nn.sale import ActionEmbedding, Sale
from marl_sale.nn.world_model import RolloutEncoder, WorldModel
from marl_sale.spec import EnvSpec


class Mmsa(Qmix):
    """QMIX, with embeddings in the utilities and the mixer, and imagined roll-outs in the mixer.

    Without world model and without SALE it is QMIX, bit for bit.
    """

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        self.with_sale = config.with_sale
        self.with_state_sale = self.with_sale and config.sale.global_state and config.mixer.global_state
        self.imagination_length = config.world_model.imagination_length if config.world_model.enabled else 0
        super().__init__(config, spec)

        self.sale: Sale | None = None
        self.state_sale: Sale | None = None
        self.fixed_state_sale: Sale | None = None
        self.target_state_sale: Sale | None = None
        if self.agent.sale is not None:
            # Three copies, as in TD7: `sale` is trained, `agent.sale` is the fixed one,
            # `target_agent.sale` the fixed_target one.
            self.sale = copy.deepcopy(self.agent.sale).requires_grad_(True)
        if self.with_state_sale:
            self.state_sale = build_sale(config, spec.state_size, spec.n_actions, n_choices=spec.n_agents)
            self.fixed_state_sale = copy.deepcopy(self.state_sale).requires_grad_(False)
            self.target_state_sale = copy.deepcopy(self.state_sale).requires_grad_(False)

        self.world_model = self._build_world_model() if config.world_model.enabled else None
        self.rollout_encoder = (
            RolloutEncoder(spec.n_agents * config.world_model.latent_size, spec.state_size)
            if self.imagination_length
            else None
        )
        # [lowest, highest] value target: seen since the last target update, and seen before it.
        self.register_buffer("seen_targets", torch.tensor([1e8, -1e8]))
        self.register_buffer("target_range", torch.zeros(2))
        self.seen_targets: Tensor
        self.target_range: Tensor
        self.noise_generator = torch.Generator()

    def _build_world_model(self) -> WorldModel:
        config, spec = self.config, self.spec
        return WorldModel(
            config.agent.hidden_size,
            spec.n_agents,
            spec.n_actions,
            latent_size=config.world_model.latent_size,
            layer_size=config.world_model.hidden_size,
            action_embedding_size=config.world_model.action_embedding_size,
            sale_size=config.sale.size if self.with_sale else None,
            masks_actions=spec.masks_actions,
        )

    @property
    def context_size(self) -> int:
        """Size of [s; ζ; F(s)], without the parts that are switched off."""
        s = self.spec.state_size
        in_state = s if self.config.mixer.global_state else 0
        in_rollout = s if self.imagination_length else 0
        return in_state + in_rollout + (self.config.sale.size if self.with_state_sale else 0)

    @property
    def representation_loss_names(self) -> tuple[str, ...]:
        """Losses of SALE and world model: what pre-training fits."""
        names = (
            ("sale", self.sale is not None),
            ("sale_global", self.state_sale is not None),
            ("rec", self.world_model is not None),
            ("avail", self.world_model is not None and self.spec.masks_actions),
            ("kl", self.world_model is not None),
            ("reg", self.world_model is not None),
            ("inv", self.world_model is not None),
        )
        return tuple(name for name, present in names if present)

    @property
    def loss_names(self) -> tuple[str, ...]:
        return ("td", *self.representation_loss_names)

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        h, target_h = self.unroll(batch)
        shares = self.agent.shares(h)
        taken = self.agent.take(shares, batch.actions_by_row)
        posterior = self.posterior(target_h)
        losses = self.representation_losses(batch, h, target_h, taken.z_sa, posterior)  # E1 … E7

        greedy = self.agent.choose(shares, batch.avail_actions)
        zeta = self.imagine(posterior, greedy)
        context = self.context(batch, zeta, self.fixed_state_sale)
        target_context = self.context(batch, zeta, self.target_state_sale)
        losses["td"] = self.td(batch, taken, target_h, greedy, context, target_context)  # E8, E9
        return losses

    def posterior(self, target_h: Float[Tensor, "rows agents hidden"]) -> elbo.Gaussian | None:
        """q(z^i_t | h̄^i_t) (None: no world model)."""
        return None if self.world_model is None else self.world_model.posterior(target_h)

    def representation_losses(
        self,
        batch: Batch,
        h: Float[Tensor, "rows agents hidden"],
        target_h: Float[Tensor, "rows agents hidden"],
        taken_z_sa: ActionEmbedding | None,
        posterior: elbo.Gaussian | None,
    ) -> dict[str, Tensor]:
        """E2 … E7. No gradient reaches the agents' core: h is detached, h̄ is the target network's.

        `taken_z_sa` embeds the actions taken, as the world model reads them: by the fixed copy.
        """
        h, losses = h.detach(), {}
        if self.sale is not None:
            z_s = self.sale.f(h)
            pred_next_z = self.sale.g(batch.now(z_s), batch.actions.unsqueeze(-1)).value()
            losses["sale"] = sale_loss(pred_next_z, batch.next(z_s))  # E2
        if self.state_sale is not None:
            z_s = self.state_sale.f(batch.state)
            pred_next_z = self.state_sale.g(batch.now(z_s), batch.actions).value()
            losses["sale_global"] = sale_loss(pred_next_z, batch.next(z_s))  # E2, on the state
        if self.world_model is None or posterior is None:
            return losses

        model = self.world_model
        z = posterior.sample(self._noise(posterior.mean))
        z_sa = None if taken_z_sa is None else taken_z_sa.of(batch.now)
        prior = model.prior(batch.now(z), batch.actions, z_sa)
        pred_z, action_logits = model.invert(prior.sample(self._noise(prior.mean)))
        avail_logits = model.avail_logits(z)

        losses["rec"] = elbo.reconstruction_loss(model.decode(z), target_h)  # E3
        if avail_logits is not None:
            losses["avail"] = elbo.availability_loss(avail_logits, batch.avail_actions)  # E4
        losses["kl"] = elbo.balanced_kl(
            elbo.Gaussian(batch.next(posterior.mean), batch.next(posterior.log_std)),
            prior,
            self.config.world_model.kl_balance,
        )  # E5
        losses["reg"] = elbo.standard_kl(prior)  # E6
        losses["inv"] = elbo.inverse_dynamics_loss(pred_z, batch.now(z), action_logits, batch.actions)  # E7
        return losses

    def imagine(self, posterior: elbo.Gaussian | None, greedy: Choice) -> Float[Tensor, "rows zeta"] | None:
        """ζ: the encoded roll-out imagined from every row (None: no imagination)."""
        if self.world_model is None or self.rollout_encoder is None or posterior is None:
            return None
        latents = imagine(self.world_model, self.agent, posterior.mean, greedy, self.imagination_length)
        encoded: Tensor = self.rollout_encoder(latents)
        return encoded

    def context(self, batch: Batch, zeta: Tensor | None, state_sale: Sale | None) -> Tensor:
        """[s; ζ; F(s)]: what the mixer is conditioned on; F(s) without gradient."""
        parts = [batch.state] if self.config.mixer.global_state else []
        if zeta is not None:
            parts.append(zeta)
        if state_sale is not None:
            with torch.no_grad():
                parts.append(state_sale.f(batch.state))
        return torch.cat(parts, -1)

    def limit_target_values(self, target_next_q_tot: Tensor) -> Tensor:
        """TD7: a learned embedding must not let values grow beyond any target seen."""
        if not (self.with_sale and self.config.sale.clip_targets):
            return target_next_q_tot
        return target_next_q_tot.clamp(self.target_range[0], self.target_range[1])

    def note_targets(self, y: Tensor) -> None:
        self._latest_targets = torch.stack(torch.aminmax(y))

    def remember(self) -> None:
        (lowest, highest), seen = self._latest_targets, self.seen_targets
        seen.copy_(torch.stack([torch.minimum(seen[0], lowest), torch.maximum(seen[1], highest)]))

    def copy_targets(self) -> None:
        """Online → target; trained → fixed → fixed_target embeddings; the range of value targets."""
        super().copy_targets()  # also fixed → fixed_target, which are parts of the agents
        if self.sale is not None and self.agent.sale is not None:
            copy_weights(self.sale, self.agent.sale)
        if self.state_sale and self.fixed_state_sale and self.target_state_sale:
            copy_weights(self.fixed_state_sale, self.target_state_sale)
            copy_weights(self.state_sale, self.fixed_state_sale)
        self.target_range.copy_(self.seen_targets)

    @property
    def pretrained_names(self) -> tuple[str, ...]:
        """Entries of `state_dict` that pre-training provides."""
        parts = ("agent.core.", "sale.", "state_sale.", "world_model.")
        return tuple(name for name in self.state_dict() if name.startswith(parts))

    def load_pretrained(self, tensors: Mapping[str, Tensor]) -> None:
        """Start from pre-trained core, embeddings and world model; every copy of them becomes equal."""
        self.load_state_dict(tensors, strict=False)
        copy_weights(self.agent.core, self.target_agent.core)
        for trained, copies in (
            (self.sale, (self.agent.sale, self.target_agent.sale)),
            (self.state_sale, (self.fixed_state_sale, self.target_state_sale)),
        ):
            for fixed in copies:
                if trained is not None and fixed is not None:
                    copy_weights(trained, fixed)

    @torch.no_grad()
    def intermediates(self, batch: Batch) -> list[tuple[str, Tensor]]:
        h, target_h = self.unroll(batch)
        made = [("h", h), ("target_h", target_h)]
        if self.world_model is not None and self.rollout_encoder is not None:
            z = self.world_model.posterior(target_h).mean
            greedy = self.agent.choose_at(h, batch.avail_actions)
            latents = imagine(self.world_model, self.agent, z, greedy, self.imagination_length)
            made.append(("posterior mean", z))
            made += [(f"imagined latent {step}", each) for step, each in enumerate(latents, start=1)]
            made.append(("encoded roll-out", self.rollout_encoder(latents)))
        return made

    def generators(self) -> dict[str, torch.Generator]:
        return {"latent_noise": self.noise_generator}

    def imagined_steps(self, batch: Batch) -> int:
        return self.imagination_length * len(batch.obs)

    def _noise(self, like: Tensor) -> Tensor:
        return torch.randn(like.shape, generator=self.noise_generator, dtype=like.dtype).to(like.device)
