"""What a replay and an update take of memory, each in a process of its own (Linux: read from /proc).

`python -m benchmarks.memory float32|float16|qmix|mmsa EPISODES` is that process; it prints JSON.
"""

import json
import subprocess
import sys
from pathlib import Path
from time import perf_counter, process_time

import torch

from benchmarks.record import Record
from benchmarks.shapes import (
    MMSA,
    QMIX,
    SMAC_3S5Z,
    full_lengths,
    new_replay,
    spread_lengths,
    synthetic_batch,
    synthetic_episodes,
)
from benchmarks.timing import Lap
from marl_sale.data.episodes import Episodes
from marl_sale.seeding import torch_generator
from marl_sale.stages._machine import choose_device

STATUS, RESET_PEAK = Path("/proc/self/status"), Path("/proc/self/clear_refs")
CHUNK = 50
"""Episodes added at a time."""
REPLAY, BATCH = 5000, 32
PRECISIONS = {"float32": torch.float32, "float16": torch.float16}
SHORTEST = 0.2
"""Of the limit; lengths from here to the limit have a mean of 60 %."""
MEBI = 1 << 20


def resident(line: str = "VmRSS") -> int:
    """Bytes of this process in memory; `VmHWM` is the most there have been."""
    (found,) = (text for text in STATUS.read_text().splitlines() if text.startswith(f"{line}:"))
    return 1024 * int(found.split()[1])


def fill_replay(precision: str, count: int) -> dict[str, float]:
    """Growth by `count` episodes of 3s5z; the same few again and again, which are made before."""
    chunk = synthetic_episodes(SMAC_3S5Z, spread_lengths(SMAC_3S5Z, min(CHUNK, count), SHORTEST))
    before = resident()
    replay = new_replay(SMAC_3S5Z, count, PRECISIONS[precision])
    cpu, wall = process_time(), perf_counter()
    while len(replay) < count:
        replay.add(chunk)
    taken = {"cpu": (process_time() - cpu) / count, "wall": (perf_counter() - wall) / count}
    grown = resident() - before

    cpu = process_time()
    replay.sample(min(BATCH, count), torch_generator(0, "benchmark sample"))
    sampled = process_time() - cpu
    padded = count * sum(tensor.nbytes for tensor in Episodes.empty(SMAC_3S5Z, 1).tensors().values())
    return {
        **taken,
        "MiB": grown / MEBI,
        "bytes per env step": grown / (count // len(chunk) * chunk.steps),
        "x padded float32": grown / padded,
        "milliseconds to sample a batch": 1e3 * sampled,
    }


def update_peak(algorithm: str, episodes: int) -> dict[str, float]:
    """Peak of one update of 3s5z episodes at the limit, above what there is when it starts.

    An update of a few short episodes has loaded kernels and made the optimiser's state before.
    """
    learner = {"qmix": QMIX, "mmsa": MMSA}[algorithm].build(SMAC_3S5Z, "cpu")
    learner.update(synthetic_batch(SMAC_3S5Z, [2, 2], "cpu"))
    batch = synthetic_batch(SMAC_3S5Z, full_lengths(SMAC_3S5Z, episodes), "cpu")
    RESET_PEAK.write_text("5")  # VmHWM starts again from VmRSS
    before, cpu, wall = resident(), process_time(), perf_counter()
    learner.update(batch)
    taken = {"cpu": process_time() - cpu, "wall": perf_counter() - wall}
    return {**taken, "MiB": (resident("VmHWM") - before) / MEBI}


def in_new_process(what: str, episodes: int) -> tuple[Lap, dict[str, float]]:
    """What that process found."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", what, str(episodes), str(torch.get_num_threads())],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return Lap(found.pop("cpu"), found.pop("wall")), found


def run(quick: bool) -> list[Record]:
    """A replay and updates; nothing where the system does not say what a process takes."""
    if not STATUS.exists():
        return []
    records = []
    for what, unit, episodes in (
        ("float32", "episode added", 100 if quick else REPLAY),
        ("float16", "episode added", 100 if quick else REPLAY),
        ("qmix", "update", 2 if quick else BATCH),
        ("mmsa", "update", 2 if quick else BATCH),
    ):
        lap, figures = in_new_process(what, episodes)
        name = f"replay, {what}" if what in PRECISIONS else what
        records.append(Record(name, SMAC_3S5Z.task, unit, [lap], {"episodes": episodes}, figures))
    return records


if __name__ == "__main__":
    what, episodes, threads = sys.argv[1], *map(int, sys.argv[2:])
    choose_device("cpu", threads)
    measured = fill_replay(what, episodes) if what in PRECISIONS else update_peak(what, episodes)
    sys.stdout.write(json.dumps(measured))
