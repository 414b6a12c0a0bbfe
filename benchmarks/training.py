"""Whole training runs of QMIX through the stage, from the moment the replay holds its first batch.

Rows of the metrics are written after every round, and this process's CPU time is noted with each. A run is
measured from its first row, when the first round has filled a batch, to its last: the first evaluation and
the last checkpoint lie outside, and there are none between.
"""

import statistics
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from time import process_time

import torch

from benchmarks.record import Record
from benchmarks.timing import Effort, Lap, take_turns
from marl_sale.config.recipe import Recipe, load_recipe
from marl_sale.observer import Silent
from marl_sale.stages import train

RECIPE = "lbf/8x8-2p-3f+qmix"
CHANGES = (
    "train.log_period=1",
    "train.checkpoint_period=1000000000",
    "evaluation.period=1000000000",
    "evaluation.episodes=1",
)
"""One row a round; neither evaluation nor checkpoint on the way."""
RUNS = (("gru", 1.0, 32, 12_000), ("feedforward", 1.0, 32, 12_000), ("gru", 0.1, 128, 60_000))
"""Core of the agents, updates per episode, environments, env steps."""
BATCH = 32
PARTS = ("environment", "acting", "learning")


class Watch(Silent):
    """Notes the CPU time at every row of the training metrics."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        if stream == "train":
            counted = {name: value for name, value in values.items() if value is not None}
            self.rows.append({**counted, "cpu": process_time()})

    def between(self, name: str) -> float:
        """From the first row to the last."""
        return self.rows[-1][name] - self.rows[0][name]


def training(recipe: Recipe, shares: dict[str, list[float]]) -> Callable[[], Lap]:
    """A run as a lap; the share of each part of its time is added to `shares`."""

    def lap() -> Lap:
        watch = Watch()
        with tempfile.TemporaryDirectory() as folder:
            train.run(
                recipe, Path(folder) / "run", seed=0, device="cpu", observer=watch, command="benchmarks"
            )
        for part in PARTS:
            shares.setdefault(part, []).append(watch.between(f"time_{part}") / watch.between("seconds"))
        steps = watch.between("env_steps")
        return Lap(watch.between("cpu") / steps, watch.between("seconds") / steps)

    return lap


def run(quick: bool) -> list[Record]:
    """Cores, and updates per episode, in turn."""
    effort = Effort(4, 0.0 if quick else 120.0, warm_up=False)  # the part that is not measured warms up
    runs = [(core, ratio, 8, 1_000) for core, ratio, *_ in RUNS] if quick else RUNS
    shares: list[dict[str, list[float]]] = [{} for _ in runs]
    pieces = {}
    for (core, per_episode, num_envs, env_steps), of_run in zip(runs, shares, strict=True):
        changes = (
            f"train.num_envs={num_envs}",
            f"replay.batch_episodes={min(BATCH, num_envs)}",  # so the first round fills a batch
            f"agent.core={core}",
            f"train.updates_per_episode={per_episode}",
            f"train.env_steps={env_steps}",
            f"train.threads={torch.get_num_threads()}",
        )
        pieces[f"{core} {per_episode}"] = training(load_recipe(RECIPE, [*CHANGES, *changes]), of_run)
    laps = take_turns(pieces, effort)
    return [
        Record(
            f"qmix, {core}",
            RECIPE,
            "env step",
            laps[f"{core} {per_episode}"],
            {"updates per episode": per_episode, "environments": num_envs, "env steps": env_steps},
            {
                "steps per CPU second": 1
                / statistics.median(lap.cpu for lap in laps[f"{core} {per_episode}"]),
                **{f"% {part}": 100 * statistics.median(of_run[part]) for part in PARTS},
            },
        )
        for (core, per_episode, num_envs, env_steps), of_run in zip(runs, shares, strict=True)
    ]
