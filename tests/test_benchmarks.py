"""The benchmarks run and say what they measured; what they count is counted right."""

import json
import math
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.__main__ import BENCHMARKS, main
from benchmarks.products import operations
from benchmarks.scaling import slope
from benchmarks.shapes import FEED_FORWARD, MMSA, QMIX, spread_lengths, synthetic_batch, synthetic_spec
from benchmarks.timing import Effort, Lap, paired_ratio, take_turns

ROOT = Path(__file__).parents[1]
ONE = ("agent.hidden_size=1", "mixer.size=1", "mixer.hypernet_size=1")


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a short run."""
    out = tmp_path_factory.mktemp("benchmarks") / "new"
    assert (
        main(["--quick", "--only", "gemm", "env", "families", "update", "kernels", "--out", str(out)]) == out
    )
    return out


@pytest.fixture
def document(written: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((written / "benchmarks.json").read_text(encoding="utf-8"))
    return found


def test_the_json_says_on_what_and_how_it_was_measured(document: dict[str, Any]) -> None:
    assert document["quick"] is True
    assert document["command"].startswith(
        "python -m benchmarks --quick --only gemm env families update kernels --out "
    )
    assert document["threads"] == 1
    assert {"cpu", "cores", "gpu", "commit", "torch", "date"} <= document.keys()
    assert list(document["benchmarks"]) == ["gemm", "env", "families", "update", "kernels"]


def test_a_training_has_the_threads_asked_for(tmp_path: Path) -> None:
    before = torch.get_num_threads()
    try:
        main(["--quick", "--threads", "2", "--only", "training", "--out", str(tmp_path)])
        assert torch.get_num_threads() == 2  # a training takes them from its recipe
    finally:
        torch.set_num_threads(before)
    assert json.loads((tmp_path / "benchmarks.json").read_text(encoding="utf-8"))["threads"] == 2


def test_every_record_is_whole_and_its_figures_are_positive(document: dict[str, Any]) -> None:
    for record in (record for records in document["benchmarks"].values() for record in records):
        assert set(record) == {
            *("name", "shape", "unit", "parameters", "figures", "cpu_seconds", "wall_seconds")
        }
        for spread in (record["cpu_seconds"], record["wall_seconds"]):
            assert spread["repeats"] == len(spread["raw"]) >= 2
            assert 0 < spread["min"] == min(spread["raw"]) <= spread["median"]
        assert all(math.isfinite(value) and value > 0 for value in record["figures"].values())


def test_what_is_compared_stands_beside_its_measure(document: dict[str, Any]) -> None:
    updates = [r for r in document["benchmarks"]["update"] if r["unit"] == "update"]
    for record in updates:
        assert record["figures"]["x GEMM bound"] > 1
        for ratio in ("x qmix", "products x qmix"):
            assert (ratio in record["figures"]) == (record["name"] != "qmix")
    assert all("x package" in record["figures"] for record in document["benchmarks"]["env"])


def test_the_page_has_a_table_for_each(written: Path) -> None:
    page = (written / "benchmarks.md").read_text(encoding="utf-8")
    for name in ("gemm", "env", "families", "update", "kernels"):
        lines = page.partition(f"## {name}\n\n")[2].partition("\n\n")[0].splitlines()
        assert len(lines) >= 3
        assert len({line.count("|") for line in lines}) == 1


def test_operations_by_hand() -> None:
    """One agent, all sizes 1, one step between two rows.

    Core: two layers of 1 · 1, on 2 rows, once 2 + 1 times (its inputs are data: no gradient of them) and once
    3 + 1 times: 14. Head: 3 times on 2 rows and once on 1: 7. Mixer on 1 row: first layers of four
    hyper-networks, 4 · (2 + 1), and three second layers, 3 · (3 + 1): 24. Twice the sum of 45: 90.
    With a GRU, six products take the place of the second layer: three on 2 rows, three on 1, as the first
    state is zero.
    """
    spec = synthetic_spec("one", 1, 1, 1, 1, 1, masked=False)
    batch = synthetic_batch(spec, [1], "cpu")
    assert operations(FEED_FORWARD.build(spec, "cpu", *ONE), batch) == 90
    assert operations(QMIX.build(spec, "cpu", *ONE), batch) == 90 - 2 * 2 * 4 + 2 * (3 * 2 + 3) * 4


def test_unavailable_actions_cost_no_operations() -> None:
    spec = synthetic_spec("masked", 2, 3, 3, 8, 5, masked=True)
    batch = synthetic_batch(spec, [5, 2], "cpu")
    every = replace(batch, avail_actions=torch.ones_like(batch.avail_actions))
    masked, free = (operations(MMSA.build(spec, "cpu"), each) for each in (batch, every))
    assert 0.5 * free < masked < free


def test_pieces_take_turns() -> None:
    order = []

    def piece(name: str, seconds: float) -> Lap:
        order.append(name)
        return Lap(seconds * len(order), 1.0)

    pieces = {"a": lambda: piece("a", 1.0), "b": lambda: piece("b", 3.0)}
    laps = take_turns(pieces, Effort(rounds=3, seconds=60.0))
    assert order == ["a", "b"] * 4
    assert [lap.cpu for lap in laps["a"]] == [3, 5, 7]
    assert paired_ratio(laps["b"], laps["a"]) == 3 * 6 / 5
    assert paired_ratio(laps["b"], laps["a"], "cuda") == 1
    assert len(take_turns(pieces, Effort(rounds=9, seconds=0.0, warm_up=False))["a"]) == 2


def test_slopes_and_lengths_by_hand() -> None:
    assert slope([1, 2], [3, 12]) == pytest.approx(2)
    assert slope([0, 1, 10], [99, 5, 50]) == pytest.approx(1)
    spec = synthetic_spec("limit of 8", 1, 1, 1, 1, 8, masked=False)
    assert spread_lengths(spec, 2) == [2, 6]
    assert sum(spread_lengths(spec, 32)) / 32 == pytest.approx(4, abs=0.3)


def test_the_wheel_leaves_them_out_and_the_makefile_runs_them() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert not [name for name in project["tool"]["setuptools"]["packages"] if "benchmarks" in name]
    assert "python -m benchmarks" in (ROOT / "Makefile").read_text(encoding="utf-8")
    assert list(BENCHMARKS) == [
        *("gemm", "env", "families", "workers", "act", "update", "kernels", "scaling", "memory", "training")
    ]
