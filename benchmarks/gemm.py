"""The machine's rate of large matrix products, the measure for everything that is made of them."""

import statistics
from collections.abc import Callable, Sequence

import torch

from benchmarks.record import Record
from benchmarks.timing import QUICK, Effort, Lap, devices, seconds, take_turns, timed
from marl_sale.seeding import torch_generator

SIZE = 1024
OPERATIONS = 2 * SIZE**3


def product(device: str) -> Callable[[], Lap]:
    """Float32 products of two square matrices; on a GPU many, so that the start of each hides."""
    a, b = torch.randn(2, SIZE, SIZE, generator=torch_generator(0, "benchmark product")).to(device)
    count = 4 if device == "cpu" else 100

    def multiply() -> int:
        for _ in range(count):
            a @ b
        return count

    return timed(multiply, device)


def rate(laps: Sequence[Lap], device: str) -> float:
    """Operations per second."""
    return OPERATIONS / statistics.median(seconds(laps, device))


def record(laps: Sequence[Lap], device: str, shape: str = "", **parameters: str) -> Record:
    """Its laps; `shape` and `parameters` say beside what they were taken."""
    return Record(
        f"product of matrices, {SIZE}x{SIZE}x{SIZE}",
        shape,
        "product",
        laps,
        {"device": device, **parameters},
        {"GFLOP/s": rate(laps, device) / 1e9},
    )


def run(quick: bool) -> list[Record]:
    """The rate on each device, on its own."""
    effort = QUICK if quick else Effort(rounds=50, seconds=10)
    return [
        record(take_turns({"product": product(device)}, effort)["product"], device) for device in devices()
    ]
