"""State-action learned embeddings (SALE), on the agents' recurrent states and on the global state."""

from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from marl_sale.functional.activations import Elu, elu
from marl_sale.functional.embed import avg_l1_norm
from marl_sale.nn.mlp import SplitLinear, mlp
from marl_sale.nn.pairs import Pairs


class ActionEmbedding(NamedTuple):
    """z_sa = features · weight + bias, not yet multiplied out.

    z_sa enters every head linearly, so `weight` can be multiplied with the head's matrix once, instead of
    with the features of every action.
    """

    features: Float[Tensor, "*rows hidden"]
    weight: Float[Tensor, "hidden dim"]
    bias: Float[Tensor, " dim"]

    def value(self) -> Float[Tensor, "*rows dim"]:
        """z_sa."""
        return self.features @ self.weight + self.bias

    def add_through(
        self, matrix: Float[Tensor, "dim out"], x: Float[Tensor, "*rows out"]
    ) -> Float[Tensor, "*rows out"]:
        """X + z_sa · matrix, in one product."""
        features = self.features.flatten(0, -2)
        added = torch.addmm((x + self.bias @ matrix).flatten(0, -2), features, self.weight @ matrix)
        return added.view_as(x)

    def dot(self, v: Float[Tensor, "*#rows dim"]) -> Float[Tensor, "*#rows"]:
        """z_sa · v; the rows of `v` may be broadcast over those of the features."""
        return (self.features * (v @ self.weight.t())).sum(-1) + v @ self.bias

    def at(self, places: Int64[Tensor, " chosen"]) -> "ActionEmbedding":
        """Those at some places, counted along all axes of rows."""
        return self._replace(features=self.features.flatten(0, -2).index_select(0, places))


class Sale(nn.Module):
    """z_s = f(x) and z_sa = g(z_s, a): 3-layer ELU networks, with AvgL1Norm at the output of f.

    `n_choices` actions are taken together: 1 for an agent's own embedding, N for the joint action of the
    global one.
    """

    def __init__(self, in_size: int, n_actions: int, n_choices: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = mlp([in_size, hidden_size, hidden_size, size], Elu)
        self.action_input = SplitLinear([size, n_choices * n_actions], hidden_size)
        self.action_hidden = nn.Linear(hidden_size, hidden_size)
        self.action_output = nn.Linear(hidden_size, size)
        self.register_buffer("offsets", torch.arange(n_choices) * n_actions, persistent=False)
        self.offsets: Tensor

    def f(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows dim"]:
        """z_s."""
        return avg_l1_norm(self.encoder(x))

    def g(self, z_s: Float[Tensor, "*rows dim"], actions: Int64[Tensor, "*rows choices"]) -> ActionEmbedding:
        """z_sa of the actions taken."""
        of_actions = self.action_input.one_hot(1, actions + self.offsets).sum(-2)
        return self._after_first(self.action_input.dense(0, z_s).add_(self.action_input.bias) + of_actions)

    def g_of(self, z_s: Float[Tensor, "*rows dim"], pairs: Pairs) -> ActionEmbedding:
        """z_sa of pairs of a row and one action of a single choice."""
        of_state = self.action_input.dense(0, z_s).add_(self.action_input.bias)
        of_actions = pairs.of_actions(self.action_input.every(1))
        return self._after_first(pairs.of_rows(of_state) + of_actions)

    def _after_first(self, first: Float[Tensor, "*rows hidden"]) -> ActionEmbedding:
        features = elu(self.action_hidden(elu(first)))
        return ActionEmbedding(features, self.action_output.weight.t(), self.action_output.bias)
