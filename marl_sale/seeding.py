"""Where every random number comes from.

A run has one seed. Each use of randomness has its own named stream, derived by hashing, so that adding a
use never shifts another, and an episode can be replayed from its index alone. The evaluation seed bank
does not depend on the run: every run is tested on the same episodes, none of which it can train on
(the streams are named apart).
"""

import hashlib

import numpy as np
import torch
from jaxtyping import Float64, Int64, UInt64
from torch import Tensor

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


def uniform_draws(seeds: Int64[np.ndarray, " episodes"], count: int) -> Float64[Tensor, "episodes count"]:
    """`count` numbers in [0, 1) from each seed, all at once: draw k of a seed depends on both alone.

    Counter-based: Steele et al. 2014, "Fast Splittable Pseudorandom Number Generators" (SplitMix64).
    """
    with np.errstate(over="ignore"):
        state = _mixed(seeds.astype(np.uint64))[:, None]
        bits = _mixed(state + np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return torch.from_numpy((bits >> np.uint64(11)).astype(np.float64) * 2.0**-53)


def _mixed(z: UInt64[np.ndarray, "*shape"]) -> UInt64[np.ndarray, "*shape"]:
    """SplitMix64's finaliser: every bit of the input changes half of the output's."""
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: np.ndarray = z ^ (z >> np.uint64(31))
    return mixed
