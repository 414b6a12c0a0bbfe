"""Compiled loops for the CPU, where an update would otherwise be thousands of small calls.

C, compiled for each instruction set when the package is installed (setup.py), and loaded with ctypes: there
is nothing of Python or torch in it. Without a compiler, or with MARL_SALE_KERNELS=off in the environment,
`usable` is false and callers do the same with torch, to rounding: sums are in another order. The result of a
row depends neither on the rows beside it nor on the number of threads.
"""

from marl_sale.kernels.choose import Chosen, Shares, Source, choose, choose_from
from marl_sale.kernels.gru import gru_backward, gru_forward
from marl_sale.kernels.library import instruction_set, usable
from marl_sale.kernels.mlp import End, Outputs, Perceptron, mlp_backward, mlp_forward

__all__ = [
    "Chosen",
    "End",
    "Outputs",
    "Perceptron",
    "Shares",
    "Source",
    "choose",
    "choose_from",
    "gru_backward",
    "gru_forward",
    "instruction_set",
    "mlp_backward",
    "mlp_forward",
    "usable",
]
