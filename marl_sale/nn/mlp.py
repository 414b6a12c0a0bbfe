"""Layers every module is built of."""

import itertools
from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn


def mlp(sizes: Sequence[int], activation: type[nn.Module]) -> nn.Sequential:
    """Linear layers of the given sizes with the activation between them, none after the last."""
    layers: list[nn.Module] = []
    for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
        layers += [activation()] if i else []
        layers.append(nn.Linear(n_in, n_out))
    return nn.Sequential(*layers)


class SplitLinear(nn.Module):
    """W [x₁; x₂; …] + b without ever building the concatenation.

    Each part is projected on its own and the results are added, so that a part can be broadcast (all actions
    against one state) and a one-hot part is a look-up of rows.
    """

    def __init__(self, part_sizes: Sequence[int], out_size: int) -> None:
        super().__init__()
        bound = sum(part_sizes) ** -0.5  # as nn.Linear over the concatenation
        self.parts = nn.ParameterList(
            torch.empty(size, out_size).uniform_(-bound, bound) for size in part_sizes
        )
        self.bias = nn.Parameter(torch.empty(out_size).uniform_(-bound, bound))

    def dense(self, part: int, x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows out"]:
        """Share of a real-valued part, without bias."""
        return x @ self.every(part)

    def one_hot(self, part: int, index: Int64[Tensor, "*rows"]) -> Float[Tensor, "*rows out"]:
        """Share of a one-hot part given by its index, without bias."""
        return nn.functional.embedding(index, self.every(part))

    def every(self, part: int) -> Float[Tensor, "size out"]:
        """Shares of all values of a one-hot part, without bias."""
        rows: Tensor = self.parts[part]
        return rows
