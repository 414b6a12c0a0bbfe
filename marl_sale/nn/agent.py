"""The agents' network: what is executed, and nothing else. Shared by all agents."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from marl_sale import kernels
from marl_sale.functional.targets import greedy_actions
from marl_sale.kernels import Shares
from marl_sale.nn.gru import unroll_gru
from marl_sale.nn.mlp import SplitLinear
from marl_sale.nn.pairs import Every, Pairs, Taken
from marl_sale.nn.sale import ActionEmbedding, Sale
from marl_sale.nn.utility import BilinearHead, LinearHead, SaleHead
from marl_sale.spec import Observation

PAIRS_AT_ONCE = 4096
"""Pairs of row and action evaluated together: few enough for the cache, many enough to make calls cheap."""


class QEvery(NamedTuple):
    """What all actions of a row share, without SALE: their values."""

    q_i: Float[Tensor, "*rows actions"]


class Choice(NamedTuple):
    """One action of each agent."""

    actions: Int64[Tensor, "*rows"]
    q_i: Float[Tensor, "*rows"] | None
    """Its value (None: not asked for)."""
    z_sa: ActionEmbedding | None
    """Its state-action embedding (None: no SALE)."""


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

    def shares(self, h: Float[Tensor, "*rows hidden"]) -> Shares | QEvery:
        """What all actions of a row share; gradients reach head and `h`, never the embeddings."""
        if isinstance(self.head, LinearHead):
            return QEvery(self.head(h))
        assert self.sale is not None
        return self.head.shares(h, self.sale)

    def take(self, shares: Shares | QEvery, actions: Int64[Tensor, "*rows"]) -> Choice:
        """Of one action each: Q^i, with gradients as those of `shares`, and its embedding."""
        return Choice(actions, *self._q(shares, Taken(actions)))

    def _q(self, shares: Shares | QEvery, pairs: Pairs) -> tuple[Tensor, ActionEmbedding | None]:
        if isinstance(shares, QEvery):
            return pairs.of_both(shares.q_i), None
        assert self.sale is not None
        assert not isinstance(self.head, LinearHead)
        with torch.no_grad():
            z_sa = self.sale.g_of(shares.of_g, pairs)
        return self.head(shares, z_sa, pairs), z_sa

    @torch.no_grad()
    def choose(self, shares: Shares | QEvery, avail_actions: Bool[Tensor, "rows agents actions"]) -> Choice:
        """Best available action of each agent.

        Pairs of a row and an action are evaluated in blocks: what is between shares and values stays in the
        cache.
        """
        if isinstance(shares, QEvery):
            return Choice(greedy_actions(shares.q_i, avail_actions), None, None)
        rows = Shares(*(each.flatten(0, 1) for each in shares))
        if kernels.usable(rows.of_g):
            chosen = kernels.choose(avail_actions.flatten(0, 1), rows, self._for_kernel())
        else:
            chosen = self._choose_in_blocks(avail_actions.flatten(0, 1), rows)
        return self._of_agents(chosen, avail_actions.shape[:2])

    @torch.no_grad()
    def choose_at(
        self,
        h: Float[Tensor, "rows agents hidden"],
        avail_actions: Bool[Tensor, "rows agents actions"],
    ) -> Choice:
        """`choose` where nothing else needs what the actions of a row share."""
        if isinstance(self.head, LinearHead) or not kernels.usable(h):
            return self.choose(self.shares(h), avail_actions)
        assert self.sale is not None
        source = self.head.source(self.sale)
        rows = (avail_actions.flatten(0, 1), h.flatten(0, 1))
        return self._of_agents(
            kernels.choose_from(*rows, source, self._for_kernel()), avail_actions.shape[:2]
        )

    @torch.no_grad()
    def value_of(
        self, h: Float[Tensor, "rows agents hidden"], actions: Int64[Tensor, "rows agents"]
    ) -> Float[Tensor, "rows agents"]:
        """Q^i of one action each, where no gradient is wanted."""
        if isinstance(self.head, LinearHead) or not kernels.usable(h):
            return self._q(self.shares(h), Taken(actions))[0]
        alone = nn.functional.one_hot(actions, self.head.n_actions).bool()
        q_i = self.choose_at(h, alone).q_i
        assert q_i is not None
        return q_i

    def _for_kernel(self) -> dict[str, Tensor]:
        assert self.sale is not None
        assert not isinstance(self.head, LinearHead)
        return {**self.sale.for_kernel(), **self.head.for_kernel(self.sale.action_output)}

    def _of_agents(self, chosen: kernels.Chosen, of_agents: torch.Size) -> Choice:
        assert self.sale is not None
        actions, q_i, features = (each.unflatten(0, of_agents) for each in chosen)
        return Choice(actions, q_i, ActionEmbedding(features, self.sale.action_output))

    def _choose_in_blocks(self, avail_actions: Tensor, shares: Shares) -> kernels.Chosen:
        n_actions = avail_actions.shape[1]
        of_rows = (rows.split(max(1, PAIRS_AT_ONCE // n_actions)) for rows in (avail_actions, *shares))
        chosen = [self._choose_at_once(*rows) for rows in zip(*of_rows, strict=True)]
        return kernels.Chosen(*(torch.cat(parts) for parts in zip(*chosen, strict=True)))

    def _choose_at_once(self, avail_actions: Tensor, *shares: Tensor) -> kernels.Chosen:
        q_i, z_sa = self._q(Shares(*shares), Every())
        assert z_sa is not None
        actions = greedy_actions(q_i, avail_actions)
        row = torch.arange(len(actions), device=actions.device)
        return kernels.Chosen(actions, q_i[row, actions], z_sa.features[row, actions])

    def initial_memory(self, num_envs: int) -> Float[Tensor, "envs agents hidden"]:
        """Recurrent states before the first observation."""
        n_agents, hidden_size = self.core.n_agents, self.core.hidden_size
        return torch.zeros(num_envs, n_agents, hidden_size, device=self.core.input.bias.device)

    @torch.no_grad()
    def act(
        self,
        observation: Observation,
        prev_actions: Int64[Tensor, "envs agents"],
        memory: Float[Tensor, "envs agents hidden"],
    ) -> tuple[Int64[Tensor, "envs agents"], Float[Tensor, "envs agents hidden"]]:
        """Best available actions, on the CPU, and the next memory: what playing an episode needs."""
        obs, avail, before = (
            x.to(memory.device) for x in (observation.obs, observation.avail_actions, prev_actions)
        )
        h = self.core.step(obs, before, memory)
        return self.choose_at(h, avail).actions.cpu(), h

    @torch.no_grad()
    def z_sa(
        self, h: Float[Tensor, "*rows agents hidden"], actions: Int64[Tensor, "*rows agents"]
    ) -> ActionEmbedding | None:
        """State-action embedding of the actions taken, as the world model reads it (None: no SALE)."""
        if self.sale is None:
            return None
        return self.sale.g(self.sale.f(h), actions.unsqueeze(-1))
