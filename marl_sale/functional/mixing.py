"""The monotone mixing of QMIX, as a function of the weights its hyper-networks produce.

Source: Rashid et al., "Monotonic Value Function Factorisation for Deep Multi-Agent Reinforcement
Learning", 2020.
"""

from jaxtyping import Float
from torch import Tensor

from marl_sale.functional.activations import elu


def monotonic_mix(
    q_i: Float[Tensor, "rows agents"],
    w1: Float[Tensor, "rows agents mix"],
    b1: Float[Tensor, "rows mix"],
    w2: Float[Tensor, "rows mix"],
    b2: Float[Tensor, " rows"],
) -> Float[Tensor, " rows"]:
    """Q_tot = |w2| · ELU(|w1|ᵀ q + b1) + b2.

    By hand, one agent, one unit, |w1| = 2, b1 = 1, |w2| = 3, b2 = −1, q = 1: 3 · (2 + 1) − 1 = 8.
    """
    # A sum of products: a product of matrices as small as a row's takes longer.
    hidden = elu((q_i.unsqueeze(-1) * w1.abs()).sum(-2) + b1)
    return (hidden * w2.abs()).sum(-1) + b2
