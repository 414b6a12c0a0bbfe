"""ELU, entry by entry."""

import torch
from jaxtyping import Float
from torch import Tensor

from marl_sale.kernels.library import share


def elu_forward(x: Float[Tensor, "*rows dim"]) -> Float[Tensor, "*rows dim"]:
    """X where positive, exp(x) − 1 elsewhere."""
    x = x.contiguous()
    y = torch.empty_like(x)
    share("elu_forward", x.dtype, x.numel(), x, y)
    return y


def elu_backward(
    y: Float[Tensor, "*rows dim"], grad_y: Float[Tensor, "*rows dim"]
) -> Float[Tensor, "*rows dim"]:
    """Gradient of x, from y."""
    grad_x = torch.empty_like(y)
    share("elu_backward", y.dtype, y.numel(), y, grad_y.contiguous(), grad_x)
    return grad_x
