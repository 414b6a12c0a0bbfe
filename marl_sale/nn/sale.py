"""State-action learned embeddings (SALE), on the agents' recurrent states and on the global state."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from marl_sale.nn.mlp import Mlp, SplitLinear, affine, described, perceptron
from marl_sale.nn.pairs import Pairs


class ActionEmbedding(NamedTuple):
    """z_sa = output(features), not yet multiplied out.

    z_sa enters every head linearly, so the weight of `output` can be multiplied with the head's matrix once,
    instead of with the features of every action.
    """

    features: Float[Tensor, "*rows hidden"]
    output: nn.Linear

    def value(self) -> Float[Tensor, "*rows dim"]:
        """z_sa."""
        z_sa: Tensor = self.output(self.features)
        return z_sa

    def of(self, rows: Callable[[Tensor], Tensor]) -> "ActionEmbedding":
        """Of some of the rows."""
        return self._replace(features=rows(self.features))


class Sale(nn.Module):
    """z_s = f(x) and z_sa = g(z_s, a): 3-layer ELU networks, with AvgL1Norm at the output of f.

    `n_choices` actions are taken together: 1 for an agent's own embedding, N for the joint action of the
    global one.
    """

    def __init__(self, in_size: int, n_actions: int, n_choices: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = Mlp([in_size, hidden_size, hidden_size, size], end="avg_l1")
        self.action_input = SplitLinear([size, n_choices * n_actions], hidden_size)
        self.action_hidden = nn.Linear(hidden_size, hidden_size)
        self.action_output = nn.Linear(hidden_size, size)
        self.register_buffer("offsets", torch.arange(n_choices) * n_actions, persistent=False)
        self.offsets: Tensor

    def f(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows dim"]:
        """z_s."""
        z_s: Tensor = self.encoder(x)
        return z_s

    def g(self, z_s: Float[Tensor, "*rows dim"], actions: Int64[Tensor, "*rows choices"]) -> ActionEmbedding:
        """z_sa of the actions taken."""
        of_actions = self.action_input.one_hot(1, actions + self.offsets).sum(-2)
        return self._after_first(self.share(z_s) + of_actions)

    def share(self, z_s: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows hidden"]:
        """What all actions of a row have in common in g."""
        return affine(z_s, self.action_input.every(0), self.action_input.bias)

    def g_of(self, share: Float[Tensor, "*rows hidden"], pairs: Pairs) -> ActionEmbedding:
        """z_sa of pairs of a row, given by its `share`, and one action of a single choice."""
        first = pairs.of_rows(share) + pairs.of_actions(self.action_input.every(1))
        return self._after_first(first)

    def for_kernel(self) -> dict[str, Tensor]:
        """What kernels.choose needs of g."""
        return {
            "g_of_action": self.action_input.every(1),
            "g_weight": self.action_hidden.weight,
            "g_bias": self.action_hidden.bias,
        }

    def _after_first(self, first: Float[Tensor, "*rows hidden"]) -> ActionEmbedding:
        features = perceptron(first, described([self.action_hidden], starts_with_elu=True, end="elu"))
        return ActionEmbedding(features, self.action_output)
