"""Layers over inputs that are never joined, and perceptrons."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from marl_sale.kernels import End
from marl_sale.nn.mlp import Mlp, SplitLinear


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


def plain(mlp: Mlp, x: Tensor) -> Tensor:
    """The same from torch's own functions."""
    for i, layer in enumerate(mlp.layers):
        x = layer(functional.elu(x) if i or mlp.starts_with_elu else x)
    if mlp.end == "avg_l1":
        return x / x.abs().mean(-1, keepdim=True).clamp(min=1e-8)
    return {"linear": lambda x: x, "elu": functional.elu, "tanh": torch.tanh}[mlp.end](x)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("end", ["linear", "elu", "tanh", "avg_l1"])
@pytest.mark.parametrize("starts_with_elu", [False, True])
@pytest.mark.parametrize("sizes", [[3, 4], [7, 1, 17], [20, 33, 16, 5]])
@pytest.mark.parametrize("rows", [(), (1,), (5, 7), (2500,)])
def test_values_and_gradients(
    end: End, starts_with_elu: bool, sizes: list[int], rows: tuple[int, ...]
) -> None:
    torch.manual_seed(0)
    mlp = Mlp(sizes, starts_with_elu=starts_with_elu, end=end).double()
    x = torch.randn(*rows, sizes[0], dtype=torch.float64, requires_grad=True)
    weight = torch.randn(*rows, sizes[-1], dtype=torch.float64)
    y, expected = mlp(x), plain(mlp, x)
    assert y.shape == expected.shape
    assert torch.allclose(y, expected, rtol=1e-12, atol=1e-13)
    with torch.no_grad():
        assert torch.allclose(mlp(x), expected, rtol=1e-12, atol=1e-13)

    wanted = [x, *mlp.parameters()]
    given, right = (
        torch.autograd.grad((out * weight).sum(), wanted, retain_graph=True) for out in (y, expected)
    )
    for ours, theirs in zip(given, right, strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-10, atol=1e-11)
    without_x = torch.autograd.grad((mlp(x.detach()) * weight).sum(), list(mlp.parameters()))
    assert all(torch.equal(one, other) for one, other in zip(without_x, given[1:], strict=True))


@pytest.mark.usefixtures("kernels_or_torch")
def test_rows_of_zeros_are_divided_by_a_constant() -> None:
    mlp = Mlp([2, 3], end="avg_l1").double()
    for parameter in mlp.parameters():
        nn.init.zeros_(parameter)
    x = torch.ones(4, 2, dtype=torch.float64, requires_grad=True)
    y = mlp(x)
    assert y.tolist() == [[0.0] * 3] * 4
    y.sum().backward()
    assert mlp.layers[0].bias.grad is not None
    assert mlp.layers[0].bias.grad.tolist() == pytest.approx([4e8] * 3)


@pytest.mark.usefixtures("kernels_or_torch")
@pytest.mark.parametrize("starts_with_elu", [False, True])
def test_far_from_zero(starts_with_elu: bool) -> None:
    """ELU before the layer, and in its place after it."""
    mlp = Mlp([1, 1], starts_with_elu=starts_with_elu, end="linear" if starts_with_elu else "elu")
    nn.init.ones_(mlp.layers[0].weight)
    nn.init.zeros_(mlp.layers[0].bias)
    with torch.no_grad():
        y = mlp(torch.tensor([-1e4, 1e4, torch.inf, -torch.inf, torch.nan]).unsqueeze(1)).squeeze(1)
        small = torch.linspace(-1e-3, 1e-3, 201)
        assert torch.allclose(mlp(small.unsqueeze(1)).squeeze(1), functional.elu(small), atol=2e-7, rtol=0)
    assert y[:4].tolist() == [-1, 1e4, torch.inf, -1]
    assert y[4].isnan()


def test_layers_are_named_as_in_a_sequence() -> None:
    assert list(Mlp([2, 3, 4]).state_dict()) == ["0.weight", "0.bias", "2.weight", "2.bias"]
