"""How many operations the matrix products of an update take: what no implementation can do without.

A product of [rows, n_in] with [n_in, n_out] is 2 · rows · n_in · n_out operations; look-ups of one-hot inputs
and everything element by element count as nothing.
"""

from typing import Any
from unittest.mock import patch

from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from marl_sale import kernels
from marl_sale.algorithms.qmix import Qmix
from marl_sale.data.batch import Batch
from marl_sale.nn.agent import Agent

PRODUCTS = {"mm": 0, "bmm": 0, "addmm": 1, "addmm_": 1, "baddbmm": 1, "baddbmm_": 1}
"""Torch's products of matrices, and which argument is the first matrix."""


class Counted(TorchDispatchMode):  # FlopCounterMode also tracks modules, and knows none that works in place
    """Operations of every matrix product that torch runs."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.operations = 0.0
        self.share = 1.0
        """Of what is counted now, how much is needed."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        first = PRODUCTS.get(func.overloadpacket.__name__)
        if first is not None:
            left, right = args[first : first + 2]
            self.operations += self.share * 2 * left.numel() * right.shape[-1]
        return func(*args, **(kwargs or {}))


def operations(algorithm: Qmix, batch: Batch) -> float:
    """Operations of the matrix products of one update on the CPU, counted while torch makes it.

    Where torch evaluates a head for every action, those of unavailable actions are not counted.
    """
    counted, choose = Counted(), Agent._choose_at_once

    def choose_available(agent: Agent, avail_actions: Tensor, *shares: Tensor) -> kernels.Chosen:
        counted.share = float(avail_actions.float().mean())
        chosen = choose(agent, avail_actions, *shares)
        counted.share = 1.0
        return chosen

    without_kernels = patch.object(kernels, "usable", lambda _: False)
    with without_kernels, patch.object(Agent, "_choose_at_once", choose_available), counted:
        algorithm.update(batch)
    return counted.operations
