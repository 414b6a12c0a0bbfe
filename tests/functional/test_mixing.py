"""The mixing function: by hand, and monotone for any weights (Hypothesis)."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.functional.mixing import monotonic_mix


def test_by_hand() -> None:
    q, w1, b1 = torch.tensor([[1.0]]), torch.tensor([[[-2.0]]]), torch.tensor([[1.0]])
    assert monotonic_mix(q, w1, b1, torch.tensor([[-3.0]]), torch.tensor([-1.0])).tolist() == [8.0]


@settings(deadline=None)
@given(st.integers(0, 10**6), st.integers(1, 5), st.integers(1, 6), st.floats(0.01, 10))
def test_no_utility_lowers_the_joint_value(seed: int, n: int, size: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> torch.Tensor:
        return scale * torch.randn(*shape, generator=generator, dtype=torch.float64)

    q, weights = draw(8, n).requires_grad_(), (draw(8, n, size), draw(8, size), draw(8, size), draw(8))
    (slope,) = torch.autograd.grad(monotonic_mix(q, *weights).sum(), q)
    assert slope.min().item() >= 0
    higher = q.detach() + draw(8, n).abs()
    gain = monotonic_mix(higher, *weights) - monotonic_mix(q.detach(), *weights)
    assert gain.min().item() >= -1e-9 * scale**3
