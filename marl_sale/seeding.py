"""Where every random number comes from.

A run has one seed. Each use of randomness has its own named stream, derived by hashing, so that adding a
use never shifts another, and an episode can be replayed from its index alone. The evaluation seed bank
does not depend on the run: every run is tested on the same episodes, none of which it can train on
(the streams are named apart).
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Int64

EVALUATION_BANK = 20602
"""Key of the evaluation seed bank; changing it changes every reported number."""


def derive(seed: int, stream: str, index: int = 0) -> int:
    """Seed in [0, 2**63) of element `index` of a named stream."""
    digest = hashlib.sha256(f"{seed}/{stream}/{index}".encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def episode_seeds(seed: int, first: int, count: int, stage: str = "train") -> Int64[np.ndarray, " count"]:
    """Environment seeds of episodes `first` … `first + count - 1` that a stage plays."""
    return np.array([derive(seed, f"{stage} episode", first + i) for i in range(count)], dtype=np.int64)


def evaluation_seeds(first: int, count: int, bank: int = 0) -> Int64[np.ndarray, " count"]:
    """Environment seeds of episodes `first` … of a fixed evaluation bank; bank 0 is the standard one."""
    return np.array(
        [derive(EVALUATION_BANK + bank, "evaluation", first + i) for i in range(count)], dtype=np.int64
    )


def torch_generator(seed: int, stream: str, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for one named stream."""
    return torch.Generator(device=device).manual_seed(derive(seed, stream))


def numpy_generator(seed: int, stream: str, index: int = 0) -> np.random.Generator:
    """A counter-based NumPy generator for one element of a named stream."""
    return np.random.Generator(np.random.Philox(key=derive(seed, stream, index)))
