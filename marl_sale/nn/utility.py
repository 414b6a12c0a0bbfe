"""From recurrent states to individual action values Q^i(a)."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from marl_sale.functional.embed import avg_l1, avg_l1_norm
from marl_sale.kernels import Shares, Source
from marl_sale.nn.mlp import Mlp, SplitLinear, affine
from marl_sale.nn.pairs import Pairs
from marl_sale.nn.sale import ActionEmbedding, Sale


class Maps(NamedTuple):
    """Affine maps of z_s, and of h or AvgL1Norm(h), to what all actions of a row share in a head."""

    z_weight: Float[Tensor, "dim z_size"]
    z_bias: Float[Tensor, " z_size"]
    h_weight: Float[Tensor, "hidden h_size"]
    h_bias: Float[Tensor, " h_size"]


class LinearHead(nn.Module):
    """Q^i(a) = w_a · h + b_a: the head of QMIX, used where there is no SALE."""

    def __init__(self, hidden_size: int, n_actions: int) -> None:
        super().__init__()
        self.linear = nn.Linear(hidden_size, n_actions)

    def forward(self, h: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows actions"]:
        """Values of every action."""
        q_i: Tensor = self.linear(h)
        return q_i


class EmbeddingHead(nn.Module):
    """Q^i(a) from h, z_s and z_sa(a). What all actions of a row share is computed once."""

    normalises_h: bool
    """Whether h enters as AvgL1Norm(h)."""
    n_actions: int

    def maps(self, of_z_sa: nn.Linear) -> Maps:
        """To what all actions of a row share, the bias of z_sa included."""
        raise NotImplementedError

    def shares(self, h: Float[Tensor, "*rows hidden"], sale: Sale) -> Shares:
        """What all actions of a row share; gradients reach this head and `h`, never the embeddings."""
        with torch.no_grad():
            z_s = sale.f(h)
            of_g = sale.share(z_s)
        to = self.maps(sale.action_output)
        x = avg_l1_norm(h) if self.normalises_h else h
        return Shares(of_g, affine(z_s, to.z_weight, to.z_bias), affine(x, to.h_weight, to.h_bias))

    def source(self, sale: Sale) -> Source:
        """The same, for the kernel that computes it."""
        of_g, to = sale.action_input, self.maps(sale.action_output)
        z_weight, z_bias = torch.cat([of_g.every(0), to.z_weight], 1), torch.cat([of_g.bias, to.z_bias])
        return Source(sale.encoder.described, z_weight, z_bias, to.h_weight, to.h_bias, self.normalises_h)

    def for_kernel(self, of_z_sa: nn.Linear) -> dict[str, Tensor]:
        """What kernels.choose needs of this head beside shares."""
        raise NotImplementedError


class SaleHead(EmbeddingHead):
    """Q^i(a) = MLP([AvgL1Norm(W [h, a]); z_s; z_sa(a)]): TD7's critic, per agent and action.

    W₁ (x / mean|x|) = (W₁ x) / mean|x|, and x is a sum of a share of h and one of the action: the first
    layer W₁ multiplies either once, and never all pairs of them.
    """

    normalises_h = False

    def __init__(self, hidden_size: int, n_actions: int, sale_size: int) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.inner = SplitLinear([hidden_size, n_actions], hidden_size)
        self.first = SplitLinear([hidden_size, sale_size, sale_size], hidden_size)
        self.rest = Mlp([hidden_size, hidden_size, 1], starts_with_elu=True)

    def maps(self, of_z_sa: nn.Linear) -> Maps:
        """To what z_s, with the bias of z_sa, adds to the first layer, and to [W h | W₁ W h]."""
        w, b, w_1 = self.inner.every(0), self.inner.bias, self.first.every(0)
        z_bias = self.first.bias + of_z_sa.bias @ self.first.every(2)
        return Maps(self.first.every(1), z_bias, torch.cat([w, w @ w_1], 1), torch.cat([b, b @ w_1]))

    def forward(self, shares: Shares, z_sa: ActionEmbedding, pairs: Pairs) -> Float[Tensor, "*pairs"]:
        """Values of pairs of a row and an action; `z_sa` is that of the pairs."""
        inner, through = (pairs.of_rows(share) for share in shares.of_h.chunk(2, -1))
        of_action = self.inner.every(1)
        size = avg_l1(inner + pairs.of_actions(of_action))
        through = through + pairs.of_actions(self.first.dense(0, of_action))
        first = torch.addcmul(pairs.of_rows(shares.of_z), through, size.reciprocal())
        features, weight = z_sa.features, self._of_features(z_sa.output)
        first.view(-1, first.shape[-1]).addmm_(features.flatten(0, -2), weight)
        value: Tensor = self.rest(first)
        return value.squeeze(-1)

    def for_kernel(self, of_z_sa: nn.Linear) -> dict[str, Tensor]:
        of_action = self.inner.every(1)
        hidden, out = self.rest.layers
        return {
            "inner_of_action": of_action,
            "through_of_action": self.first.dense(0, of_action),
            "first_of_features": self._of_features(of_z_sa),
            "rest_weight": hidden.weight,
            "rest_bias": hidden.bias,
            "out": out.weight,
            "out_bias": out.bias,
        }

    def _of_features(self, of_z_sa: nn.Linear) -> Tensor:
        """First layer of z_sa's last features: their output layer multiplied out."""
        return of_z_sa.weight.t() @ self.first.every(2)


class BilinearHead(EmbeddingHead):
    """Q^i(a) = u_a(x) + v(x) · z_sa(a) with x = [AvgL1Norm(h); z_s]: the lean alternative.

    Without the norm, h (whose entries are a fifth of those of z_s) is hardly heard, and the values follow
    every move of the embeddings (docs/results.md).
    """

    normalises_h = True

    def __init__(self, hidden_size: int, n_actions: int, sale_size: int) -> None:
        super().__init__()
        self.n_actions = n_actions
        self.u = SplitLinear([hidden_size, sale_size], n_actions)
        self.v = SplitLinear([hidden_size, sale_size], sale_size)

    def maps(self, of_z_sa: nn.Linear) -> Maps:
        """To the shares of z_s and of h in [u + v · bias of z_sa | v · its weight]."""

        def of(u: Tensor, v: Tensor) -> Tensor:
            return torch.cat([u + (v @ of_z_sa.bias).unsqueeze(-1), v @ of_z_sa.weight], -1)

        of_h, of_z = (of(self.u.every(part), self.v.every(part)) for part in (0, 1))
        bias = of(self.u.bias, self.v.bias)
        return Maps(of_z, bias, of_h, torch.zeros_like(bias))

    def forward(self, shares: Shares, z_sa: ActionEmbedding, pairs: Pairs) -> Float[Tensor, "*pairs"]:
        """Values of pairs of a row and an action; `z_sa` is that of the pairs."""
        u, v = (shares.of_z + shares.of_h).tensor_split([self.n_actions], -1)
        return pairs.of_both(u) + (z_sa.features * pairs.of_rows(v)).sum(-1)

    def for_kernel(self, of_z_sa: nn.Linear) -> dict[str, Tensor]:
        return {}


def sale_head(
    kind: Literal["mlp", "bilinear"], hidden_size: int, n_actions: int, sale_size: int
) -> SaleHead | BilinearHead:
    """The head named by the recipe key `agent.head`."""
    return (SaleHead if kind == "mlp" else BilinearHead)(hidden_size, n_actions, sale_size)
