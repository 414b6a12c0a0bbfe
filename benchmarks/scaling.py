"""How an update grows with agents, episode length, batch and imagined steps, one at a time from a base."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import NamedTuple

from benchmarks.record import Parameter, Record
from benchmarks.shapes import MMSA, QMIX, Learner, full_lengths, synthetic_batch, synthetic_spec
from benchmarks.timing import QUICK, Effort, Lap, devices, seconds, take_turns
from benchmarks.update import updates


class Point(NamedTuple):
    """Sizes of an update; the others are those of 2s3z."""

    agents: int = 5
    length: int = 50
    batch: int = 16
    k: int = 3

    def __str__(self) -> str:
        return f"{self.agents} agents, {self.length} steps, batch {self.batch}"


AXES = {
    "agents": (2, 5, 10, 27),
    "length": (25, 50, 100, 200),
    "batch": (8, 16, 32, 64),
    "k": (0, 1, 3, 5),
}
LEARNERS = {"qmix": QMIX, "mmsa": MMSA}


def slope(x: Sequence[float], y: Sequence[float]) -> float:
    """Slope of log y over log x, by least squares, where x > 0: 1 is linear growth, 2 quadratic.

    By hand: y of 3 and 12 at x of 1 and 2 is fourfold for twofold: 2.
    """
    pairs = [(math.log(a), math.log(b)) for a, b in zip(x, y, strict=True) if a > 0]
    return statistics.linear_regression(*zip(*pairs, strict=True)).slope


def measure(axis: str, values: Sequence[int], device: str, effort: Effort) -> list[Record]:
    """All points of an axis in turn, for each learner; its last record carries the slope."""
    names = ("mmsa",) if axis == "k" else tuple(LEARNERS)
    points = {(name, value): Point(**{axis: value}) for name in names for value in values}
    pieces = {f"{name} {value}": piece(LEARNERS[name], at, device) for (name, value), at in points.items()}
    laps = take_turns(pieces, effort)

    records = []
    for name in names:
        taken = [statistics.median(seconds(laps[f"{name} {value}"], device)) for value in values]
        for value in values:
            figures = {"log-log slope": slope(values, taken)} if value == values[-1] else {}
            parameters: dict[str, Parameter] = {"axis": axis, "value": value, "device": device}
            records.append(
                Record(name, str(points[name, value]), "update", laps[f"{name} {value}"], parameters, figures)
            )
    return records


def piece(learner: Learner, at: Point, device: str) -> Callable[[], Lap]:
    """Updates of a learner at one point."""
    spec = synthetic_spec(str(at), at.agents, 80, 120, 11, at.length, masked=True)
    algorithm = learner.build(spec, device, f"world_model.imagination_length={at.k}")
    return updates(algorithm, synthetic_batch(spec, full_lengths(spec, at.batch), device), device)


def run(quick: bool) -> list[Record]:
    """Each axis on each device."""
    effort = QUICK if quick else Effort(rounds=5, seconds=8)
    axes = {"k": (0, 1, 3)} if quick else AXES
    return [
        record
        for device in devices()
        for axis, values in axes.items()
        for record in measure(axis, values, device, effort)
    ]
