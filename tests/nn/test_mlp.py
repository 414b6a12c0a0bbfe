"""Layers over inputs that are never joined."""

import torch
from torch import nn

from marl_sale.nn.mlp import SplitLinear, mlp


def test_split_linear_equals_linear_on_the_concatenation() -> None:
    split = SplitLinear([3, 4, 2], 5).double()
    joined = nn.Linear(9, 5).double()
    with torch.no_grad():
        joined.weight.copy_(torch.cat(list(split.parts)).t())
        joined.bias.copy_(split.bias)
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    index = torch.tensor([0, 3, 1, 1, 2, 0])
    one_hot = nn.functional.one_hot(index, 4).double()
    expected = joined(torch.cat([x, one_hot, y], -1))
    found = split.dense(0, x) + split.one_hot(1, index) + split.dense(2, y) + split.bias
    assert torch.allclose(found, expected, rtol=1e-12)
    assert torch.equal(split.every(1)[index], split.one_hot(1, index))

    for layer, loss in ((split, found.square().sum()), (joined, expected.square().sum())):
        layer.zero_grad()
        loss.backward()
    gradients = [part.grad for part in split.parts if part.grad is not None]
    assert joined.weight.grad is not None
    assert torch.allclose(torch.cat(gradients).t(), joined.weight.grad, rtol=1e-12)


def test_split_linear_starts_as_linear_does() -> None:
    weights = torch.cat([p.detach().flatten() for p in SplitLinear([60, 40], 500).parameters()])
    assert weights.abs().max().item() <= 0.1  # 1 / √100
    assert abs(weights.std().item() - 0.1 / 3**0.5) < 1e-3


def test_a_part_of_size_zero_is_allowed() -> None:
    split = SplitLinear([3, 0], 5)
    assert split.dense(1, torch.zeros(2, 0)).tolist() == [[0.0] * 5] * 2


def test_mlp_has_no_activation_at_its_end() -> None:
    layers = mlp([2, 3, 4], nn.ReLU)
    assert [type(layer) for layer in layers] == [nn.Linear, nn.ReLU, nn.Linear]
    assert layers(torch.zeros(5, 2)).shape == (5, 4)
