"""Which pairs of a row (an agent at a time) and one of its actions a head is evaluated for.

A first layer over [row; action] is a sum of a share of each. Shares are computed once per row and once per
action; only their sums, and what follows, are computed per pair.
"""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

from jaxtyping import Float, Int64
from torch import Tensor, nn


@runtime_checkable
class Pairs(Protocol):
    """What a row and what an action adds to every pair, in shapes that add up."""

    def of_rows(self, shares: Float[Tensor, "*rows dim"]) -> Tensor: ...

    def of_actions(self, shares: Float[Tensor, "actions dim"]) -> Tensor: ...

    def of_both(self, shares: Float[Tensor, "*rows actions"]) -> Tensor:
        """What is known of all pairs, of these."""
        ...


class Every:
    """Every action of each row: [*rows, actions]."""

    def of_rows(self, shares: Tensor) -> Tensor:
        return shares.unsqueeze(-2)

    def of_actions(self, shares: Tensor) -> Tensor:
        return shares

    def of_both(self, shares: Tensor) -> Tensor:
        return shares


@dataclass(frozen=True)
class Taken:
    """One action of each row: [*rows]."""

    actions: Int64[Tensor, "*rows"]

    def of_rows(self, shares: Tensor) -> Tensor:
        return shares

    def of_actions(self, shares: Tensor) -> Tensor:
        return nn.functional.embedding(self.actions, shares)

    def of_both(self, shares: Tensor) -> Tensor:
        return shares.gather(-1, self.actions.unsqueeze(-1)).squeeze(-1)
