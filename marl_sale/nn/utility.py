"""From recurrent states to individual action values Q^i(a)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from marl_sale.functional.embed import avg_l1, avg_l1_norm
from marl_sale.nn.mlp import Mlp, SplitLinear
from marl_sale.nn.pairs import Pairs
from marl_sale.nn.sale import ActionEmbedding


class LinearHead(nn.Module):
    """Q^i(a) = w_a · h + b_a: the head of QMIX, used where there is no SALE."""

    def __init__(self, hidden_size: int, n_actions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, n_actions)

    def shares(self, h: Float[Tensor, "*rows hidden"]) -> tuple[Tensor]:
        """The values of all actions."""
        return (self.linear(h),)

    def forward(self, shares: Sequence[Tensor], pairs: Pairs) -> Float[Tensor, "*pairs"]:
        """Values of pairs of a row and an action."""
        (q_i,) = shares
        return pairs.of_both(q_i)


class SaleHead(nn.Module):
    """Q^i(a) = MLP([AvgL1Norm(W [h, a]); z_s; z_sa(a)]): TD7's critic, per agent and action."""

    def __init__(self, hidden_size: int, n_actions: int, sale_size: int) -> None:
        super().__init__()
        self.inner = SplitLinear([hidden_size, n_actions], hidden_size)
        self.first = SplitLinear([hidden_size, sale_size, sale_size], hidden_size)
        self.rest = Mlp([hidden_size, hidden_size, 1], starts_with_elu=True)

    def shares(
        self, h: Float[Tensor, "*rows hidden"], z_s: Float[Tensor, "*rows dim"], of_z_sa: nn.Linear
    ) -> tuple[Tensor, Tensor, Tensor]:
        """What all actions of a row have in common: W h, and what it and [z_s; bias of z_sa] add to the first
        layer.
        """
        of_h = self.inner.dense(0, h).add_(self.inner.bias)
        bias = self.first.bias + of_z_sa.bias @ self.first.every(2)
        return of_h, self.first.dense(0, of_h), self.first.dense(1, z_s).add_(bias)

    def forward(
        self, shares: Sequence[Tensor], z_sa: ActionEmbedding, pairs: Pairs
    ) -> Float[Tensor, "*pairs"]:
        """Values of pairs of a row and an action; `z_sa` is that of the pairs.

        W₁ (x / mean|x|) = (W₁ x) / mean|x|, and x is a sum of a share of h and one of the action: the first
        layer multiplies either once, and never all pairs of them.
        """
        of_h, h_through, of_z_s = (pairs.of_rows(share) for share in shares)
        of_action = self.inner.every(1)
        size = avg_l1(of_h + pairs.of_actions(of_action))
        through = h_through + pairs.of_actions(self.first.dense(0, of_action))
        first = torch.addcmul(of_z_s, through, size.reciprocal())
        features, weight = z_sa.features, self._of_features(z_sa.output)
        first.view(-1, first.shape[-1]).addmm_(features.flatten(0, -2), weight)
        value: Tensor = self.rest(first).squeeze(-1)
        return value

    def for_kernel(self, shares: Sequence[Tensor], of_z_sa: nn.Linear) -> dict[str, Tensor]:
        """What kernels.choose needs of this head."""
        of_h, h_through, of_z_s = shares
        of_action = self.inner.every(1)
        hidden, out = self.rest.layers
        return {
            "inner_of_row": of_h,
            "inner_of_action": of_action,
            "through_of_row": h_through,
            "through_of_action": self.first.dense(0, of_action),
            "first_of_row": of_z_s,
            "first_of_features": self._of_features(of_z_sa),
            "rest_weight": hidden.weight,
            "rest_bias": hidden.bias,
            "out": out.weight,
        }

    def _of_features(self, of_z_sa: nn.Linear) -> Tensor:
        """First layer of z_sa's last features: their output layer multiplied out."""
        return of_z_sa.weight.t() @ self.first.every(2)


class BilinearHead(nn.Module):
    """Q^i(a) = u_a(x) + v(x) · z_sa(a) with x = [AvgL1Norm(h); z_s]: the lean alternative.

    Without the norm, h (whose entries are a fifth of those of z_s) is hardly heard, and the values follow
    every move of the embeddings (docs/results.md).
    """

    def __init__(self, hidden_size: int, n_actions: int, sale_size: int) -> None:
        super().__init__()
        self.u = SplitLinear([hidden_size, sale_size], n_actions)
        self.v = SplitLinear([hidden_size, sale_size], sale_size)

    def shares(
        self, h: Float[Tensor, "*rows hidden"], z_s: Float[Tensor, "*rows dim"], of_z_sa: nn.Linear
    ) -> tuple[Tensor, Tensor]:
        """What all actions of a row have in common: u + v · bias of z_sa, and v · its weight."""
        h = avg_l1_norm(h)
        v = self._of(self.v, h, z_s)
        return self._of(self.u, h, z_s) + (v @ of_z_sa.bias).unsqueeze(-1), v @ of_z_sa.weight

    def forward(
        self, shares: Sequence[Tensor], z_sa: ActionEmbedding, pairs: Pairs
    ) -> Float[Tensor, "*pairs"]:
        """Values of pairs of a row and an action; `z_sa` is that of the pairs."""
        u, v = shares
        return pairs.of_both(u) + (z_sa.features * pairs.of_rows(v)).sum(-1)

    def for_kernel(self, shares: Sequence[Tensor], of_z_sa: nn.Linear) -> dict[str, Tensor]:
        """What kernels.choose needs of this head; the bias of z_sa is in its shares already."""
        u, v = shares
        return {"u": u, "v": v}

    @staticmethod
    def _of(layer: SplitLinear, h: Tensor, z_s: Tensor) -> Tensor:
        return layer.dense(0, h) + layer.dense(1, z_s) + layer.bias


def sale_head(
    kind: Literal["mlp", "bilinear"], hidden_size: int, n_actions: int, sale_size: int
) -> SaleHead | BilinearHead:
    """The head named by the recipe key `agent.head`."""
    return (SaleHead if kind == "mlp" else BilinearHead)(hidden_size, n_actions, sale_size)
