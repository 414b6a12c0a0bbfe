"""Layers every module is built of."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from marl_sale import kernels
from marl_sale.functional.activations import elu
from marl_sale.functional.embed import avg_l1_norm

ENDS: dict[str, Callable[[Tensor], Tensor]] = {"elu": elu, "tanh": torch.tanh, "avg_l1": avg_l1_norm}


class Mlp(nn.Module):
    """Linear layers of the given sizes with ELU between them; see `described`.

    Layers are named as in an nn.Sequential that counts activations, too.
    """

    def __init__(
        self, sizes: Sequence[int], *, starts_with_elu: bool = False, end: kernels.End = "linear"
    ) -> None:
        super().__init__()
        self.starts_with_elu, self.end = starts_with_elu, end
        for i, (n_in, n_out) in enumerate(itertools.pairwise(sizes)):
            self.add_module(str(2 * i), nn.Linear(n_in, n_out))

    @property
    def layers(self) -> list[nn.Linear]:
        """From first to last."""
        return [layer for layer in self.children() if isinstance(layer, nn.Linear)]

    def forward(self, x: Float[Tensor, "*rows in"]) -> Float[Tensor, "*rows out"]:
        """The last layer's output."""
        return perceptron(x, self.described)

    @property
    def described(self) -> kernels.Perceptron:
        """Its equation."""
        return described(self.layers, starts_with_elu=self.starts_with_elu, end=self.end)


def described(
    layers: Sequence[nn.Linear], *, starts_with_elu: bool = False, end: kernels.End = "linear"
) -> kernels.Perceptron:
    """Linear layers with ELU between them, before the first where it `starts_with_elu`, and `end` after the
    last: nothing, elu, tanh, or AvgL1Norm (E1).
    """
    return kernels.Perceptron(
        [layer.weight for layer in layers], [layer.bias for layer in layers], starts_with_elu, end
    )


def affine(
    x: Float[Tensor, "*rows in"], weight: Float[Tensor, "in out"], bias: Float[Tensor, " out"]
) -> Float[Tensor, "*rows out"]:
    """X W + b."""
    return perceptron(x, kernels.Perceptron([weight.t()], [bias], starts_with_elu=False, end="linear"))


def perceptron(x: Float[Tensor, "*rows in"], given: kernels.Perceptron) -> Float[Tensor, "*rows out"]:
    """Outputs of a perceptron, with gradients of its input and of its parameters."""
    if not kernels.usable(x):
        for i, (weight, bias) in enumerate(zip(given.weights, given.biases, strict=True)):
            x = nn.functional.linear(elu(x) if i or given.starts_with_elu else x, weight, bias)
        return x if given.end == "linear" else ENDS[given.end](x)
    rows, parameters = x.reshape(-1, x.shape[-1]), (*given.weights, *given.biases)
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (x, *parameters)):
        y: Tensor = _Perceptron.apply(given.starts_with_elu, given.end, rows, *parameters)  # type: ignore[no-untyped-call]
    else:
        y, _ = kernels.mlp_forward(rows, given, keep=False)
    return y.view(*x.shape[:-1], y.shape[-1])


class _Perceptron(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, starts_with_elu: bool, end: kernels.End, x: Tensor, *parameters: Tensor) -> Tensor:
        n_layers = len(parameters) // 2
        given = kernels.Perceptron(parameters[:n_layers], parameters[n_layers:], starts_with_elu, end)
        y, outputs = kernels.mlp_forward(x, given, keep=True)
        assert outputs is not None
        ctx.n_layers, ctx.starts_with_elu, ctx.end = n_layers, starts_with_elu, end
        ctx.save_for_backward(x, *parameters, *outputs.of_layers, outputs.scales)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_y: Tensor) -> tuple[Tensor | None, ...]:
        x, *saved, scales = ctx.saved_tensors
        n = ctx.n_layers
        weights, biases, of_layers = saved[:n], saved[n : 2 * n], saved[2 * n :]
        given = kernels.Perceptron(weights, biases, ctx.starts_with_elu, ctx.end)
        outputs = kernels.Outputs(of_layers, scales)
        with_x = ctx.needs_input_grad[2]
        grad_x, of_weights, of_biases = kernels.mlp_backward(x, given, outputs, grad_y, with_x=with_x)
        return None, None, grad_x, *of_weights, *of_biases


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
