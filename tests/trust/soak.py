"""Train on walks that fail in one episode of a hundred, until SIGTERM; what that takes goes to a file.

Run as a program by test_soak.py: `python soak.py OUT SAMPLES`.
"""

import json
import os
import sys
import threading
import time
from functools import partial
from pathlib import Path
from typing import Any

CHANCE = 0.01
PERIOD = 5.0  # seconds between samples


def _status(process: Path, field: str) -> int:
    lines = (process / "status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field))


def _children() -> list[int]:
    """Pids of all processes started here, directly or not, by their parents."""
    parents = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                parents[int(folder.name)] = _status(folder, "PPid")
            except (OSError, StopIteration):
                continue
    found = [os.getpid()]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


def sample(pools: list[Any], file: Path) -> None:
    """Append what the process takes now."""
    row = {
        "seconds": time.monotonic(),
        "rss_kib": _status(Path("/proc/self"), "VmRSS"),
        "descriptors": len(list(Path("/proc/self/fd").iterdir())),
        "threads": _status(Path("/proc/self"), "Threads"),
        "children": len(_children()),
        "restarts": sum(pool.restarts for pool in pools),
        "episodes": sum(pool._begun for pool in pools),
    }
    with file.open("a") as out:
        out.write(json.dumps(row) + "\n")


def main(out: Path, samples: Path) -> None:
    """One training run, sampled by a thread."""
    import torch
    from faulty_copy import LongWalk

    from marl_sale.config.recipe import load_recipe
    from marl_sale.envs._pool import Pool
    from marl_sale.errors import StoppedError
    from marl_sale.observer import Silent
    from marl_sale.spec import EnvSpec
    from marl_sale.stages import train

    torch.set_num_threads(1)
    pools: list[Pool] = []

    def describe(sizes: Any, notes: str) -> EnvSpec:
        rules = {"masks_actions": True, "has_success": True, "notes": notes}
        return EnvSpec("walk", "long", "pool", **sizes._asdict(), **rules)

    def make_env(_: object, num_envs: int) -> Pool:
        pools.append(Pool(partial(LongWalk, chance=CHANCE), num_envs, describe, patience=0.5))
        return pools[-1]

    train.make_env = make_env  # type: ignore[assignment]
    recipe = load_recipe(
        "tiny/match+tiny",
        [
            "train.env_steps=1000000000",
            "train.num_envs=4",
            "train.checkpoint_period=5000",
            "train.log_period=2000",
            "evaluation.period=10000",
            "evaluation.episodes=8",
            "evaluation.num_envs=4",
            "replay.capacity_episodes=64",
            "replay.batch_episodes=4",
            "train.updates_per_episode=0.25",
        ],
    )

    def watch() -> None:
        while True:
            time.sleep(PERIOD)
            sample(pools, samples)

    samples.write_text("")
    threading.Thread(target=watch, daemon=True).start()
    try:
        train.run(recipe, out, seed=0, device="cpu", observer=Silent(), command="soak")
    except StoppedError:
        sys.exit(75)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
