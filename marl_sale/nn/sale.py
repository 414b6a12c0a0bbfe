"""State-action learned embeddings (SALE), on the agents' recurrent states and on the global state."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from marl_sale.functional.activations import Elu, elu
from marl_sale.functional.embed import avg_l1_norm
from marl_sale.nn.mlp import SplitLinear, mlp


class Sale(nn.Module):
    """z_s = f(x) and z_sa = g(z_s, a): 3-layer ELU networks, with AvgL1Norm at the output of f.

    `n_choices` actions are taken together: 1 for an agent's own embedding, N for the joint action of the
    global one.
    """

    def __init__(self, in_size: int, n_actions: int, n_choices: int, size: int, hidden_size: int) -> None:
        super().__init__()
        self.encoder = mlp([in_size, hidden_size, hidden_size, size], Elu)
        self.action_input = SplitLinear([size, n_choices * n_actions], hidden_size)
        self.action_encoder = mlp([hidden_size, hidden_size, size], Elu)
        self.register_buffer("offsets", torch.arange(n_choices) * n_actions, persistent=False)
        self.offsets: Tensor

    def f(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows dim"]:
        """z_s."""
        return avg_l1_norm(self.encoder(x))

    def g(
        self, z_s: Float[Tensor, "*rows dim"], actions: Int64[Tensor, "*rows choices"]
    ) -> Float[Tensor, "*rows dim"]:
        """z_sa of the actions taken."""
        of_actions = self.action_input.one_hot(1, actions + self.offsets).sum(-2)
        first = self.action_input.dense(0, z_s) + of_actions + self.action_input.bias
        return self._after_first(first)

    def g_every(self, z_s: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows actions dim"]:
        """z_sa of every action of a single choice."""
        of_state = self.action_input.dense(0, z_s) + self.action_input.bias
        return self._after_first(of_state.unsqueeze(-2) + self.action_input.every(1))

    def _after_first(self, first: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows dim"]:
        encoded: Tensor = self.action_encoder(elu(first))
        return encoded
