"""What every algorithm shares: networks of agents, one optimiser, one update, copies to the targets."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn

from marl_sale.config.schema import Config
from marl_sale.data.batch import Batch
from marl_sale.errors import NotFiniteError
from marl_sale.nn.agent import Agent, Core
from marl_sale.nn.sale import Sale
from marl_sale.nn.utility import LinearHead, sale_head
from marl_sale.spec import EnvSpec


def build_agent(config: Config, spec: EnvSpec) -> Agent:
    """Core, head and, with SALE, the embedding that feeds the head."""
    agent = config.agent
    core = Core(
        spec.obs_size,
        spec.n_actions,
        spec.n_agents,
        agent.hidden_size,
        kind=agent.core,
        previous_action=agent.previous_action,
        agent_id=agent.agent_id,
    )
    if not config.with_sale:
        return Agent(core, LinearHead(agent.hidden_size, spec.n_actions), None)
    head = sale_head(agent.head, agent.hidden_size, spec.n_actions, config.sale.size)
    return Agent(core, head, build_sale(config, agent.hidden_size, spec.n_actions, n_choices=1))


def build_sale(config: Config, in_size: int, n_actions: int, *, n_choices: int) -> Sale:
    """One embedding: of an agent's recurrent state, or of the global state with the joint action."""
    return Sale(in_size, n_actions, n_choices, config.sale.size, config.sale.hidden_size)


def build_optimiser(config: Config, parameters: Iterator[nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser named by the recipe, over the parameters that are trained."""
    o, trained = config.optimiser, [p for p in parameters if p.requires_grad]
    if o.name == "adam":
        return torch.optim.Adam(trained, lr=o.learning_rate, eps=o.epsilon, fused=True)
    return torch.optim.RMSprop(
        trained, lr=o.learning_rate, alpha=o.rmsprop_smoothing, eps=o.epsilon, foreach=True
    )


def copy_weights(source: nn.Module, target: nn.Module) -> None:
    """Make `target` equal to `source`."""
    target.load_state_dict(source.state_dict())


class Algorithm(nn.Module, ABC):
    """Networks and their update. Everything that a resumed run needs is in `state_dict` and the optimiser."""

    agent: Agent
    """What acts; the only part needed to execute a policy."""
    optimiser: torch.optim.Optimizer

    def __init__(self, config: Config, spec: EnvSpec) -> None:
        super().__init__()
        self.config, self.spec = config, spec
        self.updates = 0
        """Those that were made."""
        self.noted: dict[str, Tensor] = {}
        """Of the latest losses: scalars that a run reports beside them, without gradient."""

    noted_names: tuple[str, ...] = ()

    @property
    @abstractmethod
    def loss_names(self) -> tuple[str, ...]:
        """Losses of this configuration; each has a weight in the recipe."""

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """Every loss of the update, unweighted."""

    @abstractmethod
    def copy_targets(self) -> None:
        """Periodic copies: online → target."""

    def generators(self) -> dict[str, torch.Generator]:
        """What updates draw random numbers from. The name of each seeds it, and stands in checkpoints."""
        return {}

    def remember(self) -> None:
        """Keep what the latest losses showed, once their update is made; one left out leaves no trace."""

    def intermediates(self, batch: Batch) -> Iterable[tuple[str, Tensor]]:
        """Tensors between batch and losses by name, made again in the order of the computation.

        Asked for where an update went wrong, to name the first that is not finite.
        """
        return ()

    def imagined_steps(self, batch: Batch) -> int:
        """Latent steps that an update on this batch imagines."""
        return 0

    def start(self) -> None:
        """Make the optimiser, once the modules are on their device and the targets are copies."""
        self.optimiser = build_optimiser(self.config, self.parameters())

    def update(self, batch: Batch) -> dict[str, Tensor]:
        """One optimiser step on the unified loss E10; returns each loss, their sum, what was noted and the
        gradient norm, none of them read from the device yet.

        Where the gradient is not finite the update is left out, with the copies that would follow it, and
        NotFiniteError raised: no weight is touched, so that it can be repeated.
        """
        losses = self.losses(batch)
        loss = self.unify(losses)
        self.optimiser.zero_grad()
        torch.autograd.backward(loss)
        trained = [p for group in self.optimiser.param_groups for p in group["params"]]
        grad_norm = nn.utils.get_total_norm([p.grad for p in trained if p.grad is not None])
        if not grad_norm.isfinite():
            raise self._not_finite(batch, losses)
        nn.utils.clip_grads_with_norm_(trained, self.config.optimiser.max_grad_norm, grad_norm)
        self.optimiser.step()
        self.remember()
        self.updates += 1
        if self.updates % self.config.optimiser.target_update_period == 0:
            self.copy_targets()
        figures = {f"loss_{name}": value.detach() for name, value in losses.items()}
        return {"loss": loss.detach(), **figures, **self.noted, "grad_norm": grad_norm}

    def _not_finite(self, batch: Batch, losses: dict[str, Tensor]) -> NotFiniteError:
        """Names the first tensor that is not finite, in the order of the computation."""
        gradients = {name: p.grad for name, p in self.named_parameters() if p.grad is not None}
        computed = [
            *((f"batch.{name}", value) for name, value in batch.tensors().items()),
            *self.named_parameters(),
            *self.intermediates(batch),
            *((f"loss_{name}", value) for name, value in losses.items()),
            *((f"gradient of {name}", value) for name, value in gradients.items()),
        ]
        first = next((name for name, value in computed if not value.isfinite().all()), "norm of the gradient")
        values = ", ".join(f"{name} {value.item():.4g}" for name, value in losses.items())
        return NotFiniteError(
            f"after {self.updates} updates: the gradient is not finite, and first {first}; losses: {values}",
            first,
        )

    def unify(self, losses: dict[str, Tensor]) -> Tensor:
        """E10: the weighted sum. Every loss must have a weight and every weight its loss."""
        assert set(losses) == set(self.loss_names), f"{sorted(losses)} ≠ {sorted(self.loss_names)}"
        weights = self.config.loss_weights
        return torch.stack([getattr(weights, name) * value for name, value in losses.items()]).sum()

    def parameter_count(self) -> int:
        """Trained parameters."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)
