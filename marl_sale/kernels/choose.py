"""The best available action of every row."""

import ctypes
from collections.abc import Mapping
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from marl_sale.kernels.library import share
from marl_sale.kernels.mlp import Perceptron, describe


class Shares(NamedTuple):
    """What all actions of a row share."""

    of_g: Float[Tensor, "*rows features"]
    """In the sum that enters g."""
    of_z: Float[Tensor, "*rows z_size"]
    """Z_s in the head: [first] for the mlp head, [u | v] for the bilinear one."""
    of_h: Float[Tensor, "*rows h_size"]
    """H in the head: [inner | through], or [u | v]."""


class Source(NamedTuple):
    """Where shares come from: affine maps of z_s = f(h) to [of_g | of_z] and of h (normalised?) to of_h."""

    f: Perceptron
    z_weight: Float[Tensor, "dim z_size"]
    z_bias: Float[Tensor, " z_size"]
    h_weight: Float[Tensor, "hidden h_size"]
    h_bias: Float[Tensor, " h_size"]
    normalise: bool


class Chosen(NamedTuple):
    """Action of each row, its value, and g's last features of it."""

    actions: Int64[Tensor, " rows"]
    q: Float[Tensor, " rows"]
    features: Float[Tensor, "rows features"]


class _Head(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("actions", "features", "hidden")),
        *((name, ctypes.c_void_p) for name in ("g_of_action", "g_weight", "g_bias")),
        *((name, ctypes.c_void_p) for name in ("inner_of_action", "through_of_action")),
        *((name, ctypes.c_void_p) for name in ("first_of_features", "rest_weight", "rest_bias")),
        *((name, ctypes.c_void_p) for name in ("out", "out_bias")),
    ]


class _Shares(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("of_g", "of_z", "of_h")),
        *((name, ctypes.c_int64) for name in ("g_step", "z_step", "h_step")),
    ]


class _Source(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("f", "h", "z_weight", "z_bias", "h_weight", "h_bias")),
        *((name, ctypes.c_int64) for name in ("z_size", "h_size", "normalise")),
    ]


def choose(avail_actions: Bool[Tensor, "rows actions"], shares: Shares, head: Mapping[str, Tensor]) -> Chosen:
    """Of rows whose shares are known. `head`: weights by the names of choose.h, those of one kind of head."""
    held = [each.contiguous() for each in shares]
    given = _Shares(*(each.data_ptr() for each in held), *(each.shape[1] for each in held))
    return _choose(avail_actions, head, given, None, held[0])


def choose_from(
    avail_actions: Bool[Tensor, "rows actions"],
    h: Float[Tensor, "rows hidden"],
    source: Source,
    head: Mapping[str, Tensor],
) -> Chosen:
    """The same, of recurrent states: what rows share never leaves the cache."""
    h = h.contiguous()
    f = describe(h, source.f)
    held = [tensor.contiguous() for tensor in source[1:5]]
    pointers = [tensor.data_ptr() for tensor in (h, *held)]
    sizes = (len(source.z_bias), len(source.h_bias))
    given = _Source(ctypes.addressof(f), *pointers, *sizes, int(source.normalise))
    return _choose(avail_actions, head, None, given, h)


def _choose(
    avail_actions: Tensor,
    head: Mapping[str, Tensor],
    shares: _Shares | None,
    source: _Source | None,
    of_rows: Tensor,
) -> Chosen:
    dtype = of_rows.dtype
    avail = avail_actions.contiguous()
    (rows, n_actions), features = avail.shape, len(head["g_bias"])
    held = {name: tensor.contiguous() for name, tensor in head.items()}
    pointers = {name: tensor.data_ptr() for name, tensor in held.items()}
    if avail.dtype != torch.bool or {tensor.dtype for tensor in held.values()} != {dtype}:
        raise ValueError(f"a mask {avail.dtype}, and a head that is not {dtype}")
    if len(avail) != len(of_rows):
        raise ValueError(f"a mask of {len(avail)} rows for {len(of_rows)}")
    hidden = len(head["rest_bias"]) if "rest_bias" in head else 0
    given = _Head(actions=n_actions, features=features, hidden=hidden, **pointers)
    chosen = Chosen(
        avail.new_zeros(rows, dtype=torch.int64),
        avail.new_zeros(rows, dtype=dtype),
        avail.new_zeros(rows, features, dtype=dtype),
    )
    share("choose", dtype, rows, given, shares, source, avail, *chosen)
    return chosen
