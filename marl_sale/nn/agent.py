"""The agents' network: what is executed, and nothing else. Shared by all agents."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from marl_sale.functional.targets import greedy_actions
from marl_sale.nn.gru import unroll_gru
from marl_sale.nn.mlp import SplitLinear
from marl_sale.nn.pairs import Every, Listed, Pairs, Taken
from marl_sale.nn.sale import Sale
from marl_sale.nn.utility import BilinearHead, LinearHead, SaleHead
from marl_sale.spec import Observation

ROWS_AT_ONCE = 4096
"""Pairs of row and action evaluated together: few enough for the cache, many enough to make calls cheap."""
SPARSE = 0.7
"""Share of available actions below which listing them is cheaper than evaluating all."""


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

    def q_every(self, h: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows actions"]:
        """Q^i of every action; gradients reach head and `h`, never the embeddings."""
        return self._q(h, Every())

    def q_taken(
        self, h: Float[Tensor, "*rows hidden"], actions: Int64[Tensor, "*rows"]
    ) -> Float[Tensor, "*rows"]:
        """Q^i of one action each; gradients as in `q_every`."""
        return self._q(h, Taken(actions))

    def _q(self, h: Tensor, pairs: Pairs) -> Tensor:
        if isinstance(self.head, LinearHead):
            q_i: Tensor = self.head(h, pairs)
        else:
            assert self.sale is not None
            of_g, *of_head = self._shares(h)
            with torch.no_grad():
                z_sa = self.sale.g_of(of_g, pairs)
            q_i = self.head(of_head, z_sa, pairs)
        return q_i

    def _shares(self, h: Tensor) -> tuple[Tensor, ...]:
        """What all actions of a row have in common: in g, and in the head."""
        assert self.sale is not None
        assert not isinstance(self.head, LinearHead)
        with torch.no_grad():
            z_s = self.sale.f(h)
            of_g = self.sale.share(z_s)
        return of_g, *self.head.shares(h, z_s, self.sale.action_output)

    @torch.no_grad()
    def choose(
        self,
        h: Float[Tensor, "rows agents hidden"],
        avail_actions: Bool[Tensor, "rows agents actions"],
    ) -> "Choice":
        """Best available action of each agent, with its embedding.

        What is a row's is computed once; the pairs of rows and actions, in blocks. Where many actions are
        unavailable, those are left out.
        """
        if isinstance(self.head, LinearHead):
            return Choice(greedy_actions(self.q_every(h), avail_actions), None)
        h_rows, avail_rows = h.flatten(0, 1), avail_actions.flatten(0, 1)
        # On other devices, listing pairs would wait for the device to count them.
        share = avail_rows.float().mean().item() if h.device.type == "cpu" else 1.0
        sparse = share < SPARSE
        block = max(1, int(ROWS_AT_ONCE / (avail_rows.shape[1] * (share if sparse else 1.0))))
        of_rows = (rows.split(block) for rows in (avail_rows, *self._shares(h_rows)))
        choices = [self._choose(sparse, *rows) for rows in zip(*of_rows, strict=True)]
        actions, z_sa = (torch.cat(parts).unflatten(0, h.shape[:2]) for parts in zip(*choices, strict=True))
        return Choice(actions, z_sa)

    def _choose(
        self, sparse: bool, avail_actions: Tensor, of_g: Tensor, *of_head: Tensor
    ) -> tuple[Tensor, Tensor]:
        assert self.sale is not None
        n_rows, n_actions = avail_actions.shape
        places = avail_actions.flatten().nonzero().squeeze(1) if sparse else None
        pairs = Every() if places is None else Listed(places, n_actions)
        z_sa = self.sale.g_of(of_g, pairs)
        q_i = self.head(of_head, z_sa, pairs)
        if places is not None:
            q_i = torch.zeros_like(avail_actions, dtype=q_i.dtype).masked_scatter_(avail_actions, q_i)
        actions = greedy_actions(q_i, avail_actions)
        chosen = torch.arange(0, n_rows * n_actions, n_actions, device=actions.device) + actions
        if places is not None:
            chosen = torch.searchsorted(places, chosen)
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


class Choice(NamedTuple):
    """Greedy actions, and their state-action embeddings (None: no SALE)."""

    actions: Int64[Tensor, "rows agents"]
    z_sa: Float[Tensor, "rows agents dim"] | None
