"""State-action learned embeddings: E1 and E2.

Source: Fujimoto et al., "For SALE: State-Action Representation Learning for Deep Reinforcement
Learning" (TD7), 2023.
"""

from jaxtyping import Float
from torch import Tensor


def avg_l1(x: Float[Tensor, "*rows dim"], eps: float = 1e-8) -> Float[Tensor, "*rows 1"]:
    """What E1 divides by: the mean absolute value over the last axis, at least eps."""
    return x.abs().mean(-1, keepdim=True).clamp(min=eps)


def avg_l1_norm(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """E1: divide by the mean absolute value over the last axis.

    By hand: [3, −1] → mean|x| = 2 → [1.5, −0.5].
    """
    return x / avg_l1(x)


def sale_loss(
    pred_next_z: Float[Tensor, "*rows dim"], next_z: Float[Tensor, "*rows dim"]
) -> Float[Tensor, ""]:
    """E2: mean squared error between g(f(x_t), a_t) and f(x_{t+1}).

    No gradient reaches `next_z`: the encoder of the next state is a target.
    """
    return (pred_next_z - next_z.detach()).square().mean()
