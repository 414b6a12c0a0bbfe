"""Value learning: E8 and E9."""

from jaxtyping import Bool, Float, Int64
from torch import Tensor


def greedy_actions(
    q_i: Float[Tensor, "*rows agents actions"], avail_actions: Bool[Tensor, "*rows agents actions"]
) -> Int64[Tensor, "*rows agents"]:
    """Each agent's best available action. Greedy per agent is greedy jointly when the mixer is monotone."""
    return q_i.masked_fill(~avail_actions, -float("inf")).argmax(-1)


def td_target(
    reward: Float[Tensor, "*#rows"],
    terminated: Bool[Tensor, "*#rows"],
    target_next_q_tot: Float[Tensor, "*#rows"],
    discount: float,
) -> Float[Tensor, "*#rows"]:
    """E8: y_t = r_t + γ (1 − terminated_t) Q̄_tot(s_{t+1}, …); never carries a gradient.

    By hand: r = 1, γ = 0.9, Q̄ = 2 → 2.8; terminated → 1.
    """
    return (reward + discount * (~terminated).to(reward.dtype) * target_next_q_tot).detach()


def td_loss(q_tot: Float[Tensor, "*rows"], y: Float[Tensor, "*rows"]) -> Float[Tensor, ""]:
    """E9: mean squared temporal-difference error."""
    return (q_tot - y.detach()).square().mean()
