"""Between the padded layout of the reference and the packed one of the library, entry by entry."""

from collections.abc import Sequence

import numpy as np
import torch
from numpy_method import Array, Padded

from marl_sale.data.episodes import Episodes


def order(lengths: Sequence[int]) -> list[tuple[int, int]]:
    """(episode, time) of every packed observation: by time, then from the longest episode to the shortest."""
    longest_first = sorted(range(len(lengths)), key=lambda b: -lengths[b])
    return [(b, t) for t in range(max(lengths) + 1) for b in longest_first if t <= lengths[b]]


def padded(episodes: Episodes, *, bootstrap_at_time_limit: bool) -> Padded:
    """The same episodes for the reference; padding is zero."""
    lengths = episodes.length.tolist()
    steps = max(lengths)
    time = np.arange(steps + 1)
    alive = time <= np.array(lengths)[:, None]
    valid = alive[:, 1:]
    terminated = np.zeros_like(valid)
    for b, length in enumerate(lengths):
        terminated[b, length - 1] = bool(episodes.terminated[b]) or not bootstrap_at_time_limit

    def clean(x: torch.Tensor, mask: np.ndarray) -> Array:
        values = x[:, : mask.shape[1]].double().numpy()
        return np.where(mask.reshape(*mask.shape, *[1] * (values.ndim - 2)), values, 0.0)

    return Padded(
        obs=clean(episodes.obs, alive),
        state=clean(episodes.state, alive),
        avail=episodes.avail_actions[:, : steps + 1].numpy(),
        actions=episodes.actions[:, :steps].numpy(),
        reward=clean(episodes.reward, valid),
        terminated=terminated,
        valid=valid,
        alive=alive,
    )


def packed(x: Array, lengths: Sequence[int], *, steps: bool) -> torch.Tensor:
    """Padded entries as packed rows: of every observation, or of every step."""
    rows = [x[b, t] for b, t in order(lengths) if not steps or t < lengths[b]]
    return torch.from_numpy(np.stack(rows))
