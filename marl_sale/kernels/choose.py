"""The best available action of every row."""

import ctypes
from collections.abc import Mapping

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from marl_sale.kernels.library import share


class _Head(ctypes.Structure):
    """Head of choose.h."""

    _fields_ = [
        *((name, ctypes.c_int64) for name in ("actions", "features", "hidden")),
        *((name, ctypes.c_void_p) for name in ("avail", "g_of_row", "g_of_action", "g_weight", "g_bias")),
        *((name, ctypes.c_void_p) for name in ("inner_of_row", "inner_of_action")),
        *((name, ctypes.c_void_p) for name in ("through_of_row", "through_of_action")),
        *((name, ctypes.c_void_p) for name in ("first_of_row", "first_of_features")),
        *((name, ctypes.c_void_p) for name in ("rest_weight", "rest_bias", "out", "u", "v")),
    ]


def choose(
    avail_actions: Bool[Tensor, "rows actions"], head: Mapping[str, Tensor]
) -> tuple[Int64[Tensor, " rows"], Float[Tensor, "rows features"]]:
    """Best available action of each row, and g's last features of it.

    `head`: shares and weights by the names of choose.h, those of one kind of head.
    """
    of_g = head["g_of_row"]
    (rows, features), n_actions = of_g.shape, avail_actions.shape[1]
    tensors = {name: tensor.contiguous() for name, tensor in {"avail": avail_actions, **head}.items()}
    hidden = tensors["first_of_row"].shape[1] if "first_of_row" in tensors else 0
    pointers = {name: tensor.data_ptr() for name, tensor in tensors.items()}
    given = _Head(actions=n_actions, features=features, hidden=hidden, **pointers)
    actions = torch.zeros(rows, dtype=torch.int64)
    chosen = torch.zeros_like(of_g)
    share("choose", of_g.dtype, rows, given, actions, chosen)
    return actions, chosen
