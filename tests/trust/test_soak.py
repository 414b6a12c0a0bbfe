"""A long training on environments that keep failing: nothing grows, and nothing is left. Long form only."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soak

from marl_sale.artifacts.reader import Artifact

MINUTES = float(os.environ.get("MARL_SALE_SOAK_MINUTES", "30"))


def test_nothing_grows_while_environments_fail(
    is_long: bool, record: Callable[..., None], tmp_path: Path
) -> None:
    """1 % of the episodes fail; after half of the time memory, descriptors and processes stay."""
    if not is_long:
        pytest.skip("half an hour: make trust")
    samples, out = tmp_path / "samples.jsonl", tmp_path / "agent"
    with subprocess.Popen(
        [sys.executable, soak.__file__, out, samples], env={**os.environ, "MARL_SALE_WORKERS": "2"}
    ) as program:
        try:
            time.sleep(60 * MINUTES)
            assert program.poll() is None
            program.send_signal(signal.SIGTERM)
            assert program.wait(300) == 75
        finally:
            program.kill()
    artifact = Artifact.open(out, kind="agent", status=("interrupted",))
    assert artifact.verify() == []

    rows = [json.loads(line) for line in samples.read_text().splitlines()]
    column = {name: np.array([row[name] for row in rows], dtype=float) for name in rows[0]}
    settled = {name: values[len(rows) // 2 :] for name, values in column.items()}
    slope = np.polyfit(settled["seconds"] / 3600, settled["rss_kib"] / 1024, 1)[0]
    middle = len(settled["seconds"]) // 2
    medians = {
        name: (float(np.median(settled[name][:middle])), float(np.median(settled[name][middle:])))
        for name in ("descriptors", "threads", "children")
    }
    record(
        minutes=round((column["seconds"][-1] - column["seconds"][0]) / 60, 1),
        episodes=int(column["episodes"][-1]),
        restarts=int(column["restarts"][-1]),
        rounds_replayed=int(artifact.manifest.counters["rounds_replayed"]),
        updates=int(artifact.manifest.counters["updates"]),
        rss_mib_first=round(float(column["rss_kib"][0]) / 1024, 1),
        rss_mib_settled=round(float(settled["rss_kib"][0]) / 1024, 1),
        rss_mib_last=round(float(column["rss_kib"][-1]) / 1024, 1),
        rss_slope_mib_per_hour=round(float(slope), 3),
        **{name: f"{before:g} → {after:g}" for name, (before, after) in medians.items()},
    )
    assert column["restarts"][-1] >= 5
    assert all(before == after for before, after in medians.values()), medians
    assert slope < 1, f"{slope:.2f} MiB/h"
