"""From the rows of several seeds to one line with its band, on a common grid."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float64

from marl_sale.analysis.statistics import bootstrap_interval, iqm

MAX_POINTS = 500
"""Most grid points of a line: more than a figure can show."""


@dataclass(frozen=True)
class SeedCurve:
    """What one run measured: `y` at strictly increasing `x`; at least one point."""

    run: str
    seed: int
    x: Float64[np.ndarray, " rows"]
    y: Float64[np.ndarray, " rows"]


@dataclass(frozen=True)
class Aggregate:
    """The interquartile mean over seeds, and its bootstrap band (None for a single seed)."""

    x: Float64[np.ndarray, " points"]
    centre: Float64[np.ndarray, " points"]
    low: Float64[np.ndarray, " points"] | None
    high: Float64[np.ndarray, " points"] | None


def seed_curve(run: str, seed: int, rows: Sequence[Mapping[str, Any]], x: str, y: str) -> SeedCurve | None:
    """Column `y` against column `x`; None where no row has both.

    Rows with a null (as which NaN is stored) are left out; of rows with equal `x` the last counts.
    Raises ValueError where `x` decreases, or a value is no number.
    """
    points: dict[float, float] = {}
    for row in rows:
        at, value = row.get(x), row.get(y)
        if at is None or value is None:
            continue
        if not isinstance(at, int | float) or not isinstance(value, int | float):
            raise ValueError(f"{x} {at!r} with {y} {value!r}")
        if points and at < next(reversed(points)):
            raise ValueError(f"{x} falls from {next(reversed(points)):g} to {at:g}")
        points[float(at)] = float(value)
    if not points:
        return None
    return SeedCurve(run, seed, np.array(list(points)), np.array(list(points.values())))


def common_grid(curves: Sequence[SeedCurve], period: float | None) -> Float64[np.ndarray, " points"]:
    """Where all curves have data: the ends of the common range, and the multiples of `period` inside.

    Without a period (the x axis is time) the inner points are evenly spaced, as many as the median curve
    has rows. The period is doubled until at most MAX_POINTS points are left. Empty where the curves share
    no range.
    """
    first = max(float(curve.x[0]) for curve in curves)
    last = min(float(curve.x[-1]) for curve in curves)
    if first > last:
        return np.empty(0)
    if first == last:
        return np.array([first])
    if period is None:
        count = int(np.median([len(curve.x) for curve in curves]))
        return np.linspace(first, last, min(max(count, 2), MAX_POINTS))
    while (last - first) / period > MAX_POINTS - 3:
        period *= 2
    inner = np.arange(math.floor(first / period) + 1, math.ceil(last / period)) * period
    return np.concatenate([[first], inner, [last]])


def aggregate(
    curves: Sequence[SeedCurve], period: float | None, generator: np.random.Generator
) -> Aggregate | None:
    """IQM and band over seeds, each interpolated linearly onto the common grid; None without such a grid."""
    grid = common_grid(curves, period)
    if len(grid) == 0:
        return None
    values = np.stack([np.interp(grid, curve.x, curve.y) for curve in curves])
    band = bootstrap_interval([values], generator)
    low, high = band or (None, None)
    return Aggregate(grid, iqm(values), low, high)
