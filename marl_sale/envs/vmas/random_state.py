"""The random numbers of VMAS, made a function of the episode.

The package keeps one random state for all its environments in the process, and puts it in the place of the
global generators of torch, NumPy and `random` during each call; an error within leaves it there.
"""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from vmas.simulator.environment import Environment


@contextmanager
def random_state(seed: int) -> Iterator[None]:
    """Inside, the package draws from `seed`; afterwards its own state and the caller's are what they were."""
    shared: list[Any] = Environment.vmas_random_state
    packages, callers = list(shared), _states()
    shared[:] = [
        torch.Generator().manual_seed(seed).get_state(),
        np.random.RandomState(seed % 2**32).get_state(),
        random.Random(seed).getstate(),
    ]
    try:
        yield
    finally:
        shared[:] = packages
        torch.set_rng_state(callers[0])
        np.random.set_state(callers[1])  # noqa: NPY002
        random.setstate(callers[2])


def _states() -> tuple[Any, Any, Any]:
    return torch.get_rng_state(), np.random.get_state(), random.getstate()  # noqa: NPY002
