"""The agents' network: what is executed, and nothing else. Shared by all agents."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from marl_sale import kernels
from marl_sale.functional.targets import greedy_actions
from marl_sale.nn.gru import unroll_gru
from marl_sale.nn.mlp import SplitLinear
from marl_sale.nn.pairs import Every, Pairs, Taken
from marl_sale.nn.sale import ActionEmbedding, Sale
from marl_sale.nn.utility import BilinearHead, LinearHead, SaleHead
from marl_sale.spec import Observation

PAIRS_AT_ONCE = 4096
"""Pairs of row and action evaluated together: few enough for the cache, many enough to make calls cheap."""


class Core(nn.Module):
    """Recurrent states from an agent's own history.

    x = relu(W [o, a_prev, id]);  h_t = GRU(x, h_{t−1})   (or relu(W' x), without memory).
    """

    def __init__(
        self,
        obs_size: int,
        n_actions: int,
        n_agents: int,
        hidden_size: int,
        *,
        kind: Literal["gru", "feedforward"],
        previous_action: bool,
        agent_id: bool,
    ) -> None:
        super().__init__()
        self.n_agents, self.hidden_size = n_agents, hidden_size
        self.previous_action, self.agent_id = previous_action, agent_id
        # Row n_actions of the second part stands for "no action yet".
        parts = [obs_size, (n_actions + 1) if previous_action else 0, n_agents if agent_id else 0]
        self.input = SplitLinear(parts, hidden_size)
        self.memory = nn.GRU(hidden_size, hidden_size) if kind == "gru" else None
        self.layer = nn.Linear(hidden_size, hidden_size) if kind == "feedforward" else None

    def _inputs(
        self, obs: Float[Tensor, "rows agents obs"], prev_actions: Int64[Tensor, "rows agents"]
    ) -> Float[Tensor, "rows agents hidden"]:
        of_agent = self.input.bias + self.input.every(2) if self.agent_id else self.input.bias
        x = self.input.dense(0, obs).add_(of_agent)
        if self.previous_action:
            x.add_(self.input.one_hot(1, prev_actions))
        return x.relu_()

    def step(
        self,
        obs: Float[Tensor, "envs agents obs"],
        prev_actions: Int64[Tensor, "envs agents"],
        h: Float[Tensor, "envs agents hidden"],
    ) -> Float[Tensor, "envs agents hidden"]:
        """Recurrent states after one more observation."""
        x = self._inputs(obs, prev_actions)
        if self.memory is None:
            return self._feed(x)
        weights = [w for _, w in self.memory.named_parameters()]  # in the order torch.gru_cell takes them
        flat = torch.gru_cell(x.flatten(0, 1), h.flatten(0, 1), *weights)
        return flat.view_as(h)

    def unroll(
        self,
        obs: Float[Tensor, "rows agents obs"],
        prev_actions: Int64[Tensor, "rows agents"],
        batch_sizes: Int64[Tensor, " times"],
    ) -> Float[Tensor, "rows agents hidden"]:
        """Recurrent states along packed episodes (rows ordered by time, see `data.batch`)."""
        x = self._inputs(obs, prev_actions)
        if self.memory is None:
            return self._feed(x)
        h = unroll_gru(self.memory, x.flatten(0, 1), batch_sizes * obs.shape[1])
        return h.view_as(x)

    def _feed(self, x: Tensor) -> Tensor:
        assert self.layer is not None
        h: Tensor = self.layer(x).relu()
        return h


class Agent(nn.Module):
    """Core, utility head and the `fixed` copy of SALE that feeds the head (None: no SALE)."""

    def __init__(self, core: Core, head: LinearHead | SaleHead | BilinearHead, sale: Sale | None) -> None:
        super().__init__()
        self.core, self.head, self.sale = core, head, sale
        if sale is not None:
            sale.requires_grad_(False)

    def shares(self, h: Float[Tensor, "*rows hidden"]) -> "Shares":
        """What all actions of a row have in common; gradients reach head and `h`, never the embeddings."""
        if isinstance(self.head, LinearHead):
            return Shares(None, self.head.shares(h))
        assert self.sale is not None
        with torch.no_grad():
            z_s = self.sale.f(h)
            of_g = self.sale.share(z_s)
        return Shares(of_g, self.head.shares(h, z_s, self.sale.action_output))

    def q_every(self, h: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows actions"]:
        """Q^i of every action."""
        return self._q(self.shares(h), Every())[0]

    def take(self, shares: "Shares", actions: Int64[Tensor, "*rows"]) -> "Choice":
        """Of one action each: Q^i, with gradients as those of `shares`, and its embedding."""
        q_i, z_sa = self._q(shares, Taken(actions))
        with torch.no_grad():
            return Choice(actions, q_i, None if z_sa is None else z_sa.value())

    def _q(self, shares: "Shares", pairs: Pairs) -> tuple[Tensor, ActionEmbedding | None]:
        if isinstance(self.head, LinearHead):
            return self.head(shares.of_head, pairs), None
        assert self.sale is not None
        assert shares.of_g is not None
        with torch.no_grad():
            z_sa = self.sale.g_of(shares.of_g, pairs)
        return self.head(shares.of_head, z_sa, pairs), z_sa

    @torch.no_grad()
    def choose(self, shares: "Shares", avail_actions: Bool[Tensor, "rows agents actions"]) -> "Choice":
        """Best available action of each agent.

        Pairs of a row and an action are evaluated in blocks: what is between shares and values stays in the
        cache.
        """
        if isinstance(self.head, LinearHead):
            return Choice(greedy_actions(self._q(shares, Every())[0], avail_actions), None, None)
        assert shares.of_g is not None
        choose = self._choose_compiled if kernels.usable(shares.of_g) else self._choose_in_blocks
        rows = (tensor.flatten(0, 1) for tensor in (avail_actions, shares.of_g, *shares.of_head))
        actions, z_sa = choose(*rows)
        of_agents = avail_actions.shape[:2]
        return Choice(actions.view(of_agents), None, z_sa.unflatten(0, of_agents))

    def _choose_compiled(
        self, avail_actions: Tensor, of_g: Tensor, *of_head: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert self.sale is not None
        assert not isinstance(self.head, LinearHead)
        needs = {**self.sale.for_kernel(of_g), **self.head.for_kernel(of_head, self.sale.action_output)}
        actions, features = kernels.choose(avail_actions, needs)
        return actions, self.sale.action_output(features)

    def _choose_in_blocks(self, avail_actions: Tensor, *shares: Tensor) -> tuple[Tensor, Tensor]:
        n_actions = avail_actions.shape[1]
        of_rows = (rows.split(max(1, PAIRS_AT_ONCE // n_actions)) for rows in (avail_actions, *shares))
        choices = [self._choose_at_once(*rows) for rows in zip(*of_rows, strict=True)]
        actions, z_sa = (torch.cat(parts) for parts in zip(*choices, strict=True))
        return actions, z_sa

    def _choose_at_once(self, avail_actions: Tensor, of_g: Tensor, *of_head: Tensor) -> tuple[Tensor, Tensor]:
        n_rows, n_actions = avail_actions.shape
        q_i, z_sa = self._q(Shares(of_g, of_head), Every())
        assert z_sa is not None
        actions = greedy_actions(q_i, avail_actions)
        chosen = torch.arange(0, n_rows * n_actions, n_actions, device=actions.device) + actions
        return actions, z_sa.at(chosen).value()

    def initial_memory(self, num_envs: int) -> Float[Tensor, "envs agents hidden"]:
        """Recurrent states before the first observation."""
        n_agents, hidden_size = self.core.n_agents, self.core.hidden_size
        return torch.zeros(num_envs, n_agents, hidden_size, device=self.core.input.bias.device)

    @torch.no_grad()
    def q_values(
        self,
        observation: Observation,
        prev_actions: Int64[Tensor, "envs agents"],
        memory: Float[Tensor, "envs agents hidden"],
    ) -> tuple[Float[Tensor, "envs agents actions"], Float[Tensor, "envs agents hidden"]]:
        """Values of every action on the CPU, and the next memory: what playing an episode needs."""
        h = self.core.step(observation.obs.to(memory.device), prev_actions.to(memory.device), memory)
        return self.q_every(h).cpu(), h

    @torch.no_grad()
    def z_sa(
        self, h: Float[Tensor, "*rows agents hidden"], actions: Int64[Tensor, "*rows agents"]
    ) -> Float[Tensor, "*rows agents dim"] | None:
        """State-action embedding of the actions taken, as the world model reads it (None: no SALE)."""
        if self.sale is None:
            return None
        return self.sale.g(self.sale.f(h), actions.unsqueeze(-1)).value()


class Shares(NamedTuple):
    """What all actions of a row have in common."""

    of_g: Float[Tensor, "*rows hidden"] | None
    """In the state-action embedding (None: no SALE)."""
    of_head: tuple[Tensor, ...]


class Choice(NamedTuple):
    """One action of each agent."""

    actions: Int64[Tensor, "*rows"]
    q_i: Float[Tensor, "*rows"] | None
    """Its value (None: not asked for)."""
    z_sa: Float[Tensor, "*rows dim"] | None
    """Its state-action embedding (None: no SALE)."""
