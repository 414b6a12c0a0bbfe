"""Measure, and write what was found: `python -m benchmarks --help`."""

import argparse
import json
import shlex
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from time import perf_counter

from benchmarks import (
    act,
    env,
    families,
    gemm,
    kernels,
    machine,
    memory,
    scaling,
    table,
    training,
    update,
    workers,
)
from benchmarks.record import Record
from marl_sale.stages._machine import choose_device

BENCHMARKS: dict[str, Callable[[bool], list[Record]]] = {
    "gemm": gemm.run,
    "env": env.run,
    "families": families.run,
    "workers": workers.run,
    "act": act.run,
    "update": update.run,
    "kernels": kernels.run,
    "scaling": scaling.run,
    "memory": memory.run,
    "training": training.run,
}


def main(arguments: Sequence[str] | None = None) -> Path:
    """Run what was asked for; returns the folder with benchmarks.json and benchmarks.md."""
    asked = _parser().parse_args(arguments)
    choose_device("cpu", asked.threads)  # threads and memory as the stages set them
    on, words = machine.describe(), sys.argv[1:] if arguments is None else arguments
    heading = {
        **on,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "benchmarks", *words]),
    }
    results = {}
    for name in asked.only or BENCHMARKS:
        started = perf_counter()
        results[name] = BENCHMARKS[name](asked.quick)
        sys.stderr.write(f"{name}: {perf_counter() - started:.0f} s\n")

    out: Path = asked.out or Path("results/benchmarks") / machine.tag(on)
    out.mkdir(parents=True, exist_ok=True)
    found = {name: [record.to_dict() for record in records] for name, records in results.items()}
    document = {**heading, "quick": asked.quick, "benchmarks": found}
    (out / "benchmarks.json").write_text(json.dumps(document, indent=1) + "\n", encoding="utf-8")
    (out / "benchmarks.md").write_text(table.page(heading, results), encoding="utf-8")
    sys.stdout.write(f"{out}\n")
    return out


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        *("--out", "-o"),
        type=Path,
        help="folder for benchmarks.json and benchmarks.md, which are replaced "
        "(default: results/benchmarks/<machine>)",
    )
    parser.add_argument("--quick", action="store_true", help="few sizes, few repeats: does it run at all?")
    parser.add_argument("--threads", type=int, default=1, help="as train.threads (default: %(default)s)")
    parser.add_argument("--only", nargs="+", choices=BENCHMARKS, metavar="NAME", help=", ".join(BENCHMARKS))
    return parser


if __name__ == "__main__":
    main()
