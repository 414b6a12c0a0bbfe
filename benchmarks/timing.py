"""Laps: CPU and wall seconds per unit of work, of pieces that take turns.

What is compared takes turns in the same run: a machine that others use as well slows both, and the ratio of
laps beside each other stays what it is. Beside the median stands the minimum, which noise can only raise.
"""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from time import perf_counter, process_time
from typing import NamedTuple

import torch


class Lap(NamedTuple):
    """Seconds per unit; `cpu` counts all threads of the process, and nothing that runs on a GPU."""

    cpu: float
    wall: float


@dataclass(frozen=True)
class Effort:
    """How often pieces take turns: `rounds` times; fewer, but at least twice, once `seconds` have passed."""

    rounds: int
    seconds: float
    warm_up: bool = True
    """First a lap of each that is not counted: it loads kernels and fills caches."""


QUICK = Effort(rounds=2, seconds=0.0)


def timed(work: Callable[[], int], device: str = "cpu") -> Callable[[], Lap]:
    """A piece that times `work`, which returns how many units it did, to the end of what it left on a GPU."""

    def lap() -> Lap:
        _wait(device)
        cpu, wall = process_time(), perf_counter()
        units = work()
        _wait(device)
        return Lap((process_time() - cpu) / units, (perf_counter() - wall) / units)

    return lap


def take_turns(pieces: Mapping[str, Callable[[], Lap]], effort: Effort) -> dict[str, tuple[Lap, ...]]:
    """Laps of each piece."""
    if effort.warm_up:
        for lap in pieces.values():
            lap()
    laps: dict[str, list[Lap]] = {name: [] for name in pieces}
    started = perf_counter()
    for done in range(effort.rounds):
        if done >= 2 and perf_counter() - started > effort.seconds:
            break
        for name, lap in pieces.items():
            laps[name].append(lap())
    return {name: tuple(found) for name, found in laps.items()}


def paired_ratio(laps: Sequence[Lap], base: Sequence[Lap], device: str = "cpu") -> float:
    """Median over rounds of one piece's seconds to the other's: of the CPU, or of the clock on a GPU."""
    pairs = zip(seconds(laps, device), seconds(base, device), strict=True)
    return statistics.median(ours / theirs for ours, theirs in pairs)


def seconds(laps: Sequence[Lap], device: str = "cpu") -> list[float]:
    """The seconds that count on a device: of the CPU, or of the clock where a GPU works."""
    return [lap.cpu if device == "cpu" else lap.wall for lap in laps]


def devices() -> tuple[str, ...]:
    """Where updates are timed."""
    return ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
