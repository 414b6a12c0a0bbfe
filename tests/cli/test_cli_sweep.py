"""`marl-sale sweep`: what it prints and how it ends."""

import json
from collections.abc import Sequence
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from marl_sale_cli import _sweep_view as shown
from marl_sale_cli.app import app
from rich.console import Console
from typer.testing import CliRunner, Result

from marl_sale.sweeps.engines import Ended, Local, Work
from marl_sale.sweeps.product import make_sweep
from marl_sale.sweeps.run import Status

TINY = "tiny/match+tiny+qmix"


def run(*words: str) -> Result:
    return CliRunner().invoke(app, ["sweep", *words])


@pytest.fixture(autouse=True)
def _elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_a_dry_run_prints_every_command_and_writes_nothing(tmp_path: Path) -> None:
    done = run(TINY, "--seeds", "0-1", "--set", "discount=0.9,0.99", "--dry-run")
    assert done.exit_code == 0
    lines = done.stdout.splitlines()
    assert len(lines) == 4
    assert all(line.startswith(f"marl-sale train {TINY} --set discount=0.9") for line in lines)
    assert "0/4 done, 4 waiting" in done.stderr
    found = json.loads(run(TINY, "--dry-run", "--json").stdout)
    assert found["status"] == "dry-run"
    assert found["cells"][0]["commands"][0][:3] == ["marl-sale", "train", TINY]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        ((TINY, "--seeds", "a"), 2, "--seeds"),
        ((TINY, "--set", "discount=2"), 2, "discount"),
        ((TINY, "--slurm", "time=1"), 2, "--engine slurm"),
        ((TINY, "--out", "a\x01b"), 2, "no path of an artifact"),
        ((TINY, "--pretrain"), 2, "no recipe here has a world model"),
        ((TINY, "--resume", "--out", "none"), 3, "no sweep to resume"),
        ((TINY, "--out", "full"), 4, "not empty"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_starts(
    words: Sequence[str], code: int, said: str, tmp_path: Path
) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    done = run(*words)
    assert (done.exit_code, done.stdout) == (code, "")
    assert said in done.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["full"]


class Failing:
    def poll(self) -> Ended:
        return Ended(6)

    def stop(self) -> None: ...


def test_failed_cells_are_listed_and_end_with_9(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def submit(self: Local, work: Work) -> Failing:
        work.log.parent.mkdir(parents=True)
        work.log.write_text("error: [red]diverged\x1b[0m\n")
        return Failing()

    monkeypatch.setattr(Local, "submit", submit)
    done = run(TINY, "--seeds", "3,5", "--out", "out", "--json")
    assert done.exit_code == 9
    result = json.loads(done.stdout)
    assert result["status"] == "failed"
    assert [(cell["state"], cell["seed"], cell["tries"]) for cell in result["cells"]] == [
        ("failed", 3, 1),
        ("failed", 5, 1),
    ]
    assert "\x1b" not in done.stderr
    table = done.stderr[done.stderr.index("last error") :]
    assert table.count("exit code 6: [red]diverged") == 2
    assert "0 of 2 cells are done, 2 failed" in table


def status(seed: int, state: Any, **more: Any) -> Status:
    cell = make_sweep([TINY], [], (seed,), Path("out"))[0].cells[0]
    figures = {"step": "agent", "env_steps": None, "left": None, "tries": 1, "error": ""}
    return Status(cell, state, **{**figures, **more})


def test_lines_tell_each_change_once_and_sum_up_now_and_then() -> None:
    stream, now = StringIO(), [0.0]
    lines = shown.Lines(stream, lambda: now[0])
    first = [status(0, "running"), status(1, "waiting")]
    lines(first)
    lines(first)
    now[0] = 61.0
    lines([status(0, "retrying", error="exit code 7: \x1b[31mno luck"), status(1, "running")])
    name = [status.cell.name for status in first]
    assert stream.getvalue().splitlines() == [
        f"{name[0]}: running",
        "0/2 done, 1 running, 1 waiting",
        f"{name[0]}: retrying: exit code 7: �[31mno luck",
        f"{name[1]}: running",
        "0/2 done, 1 running, 1 retrying",
    ]


def test_the_expected_time_counts_what_runs_side_by_side() -> None:
    running = [status(seed, "running", env_steps=500, left=30.0) for seed in (0, 1)]  # 40 s each in all
    assert shown.summary(running) == "0/2 done, 2 running, ETA 0:00:30"
    waiting = [status(seed, "waiting") for seed in (2, 3)]
    assert shown.summary([*running, *waiting]) == "0/4 done, 2 running, 2 waiting, ETA 0:01:10"
    assert shown.summary(waiting) == "0/2 done, 2 waiting"


def test_the_table_shows_first_what_needs_attention_and_only_what_fits() -> None:
    statuses = [
        *(status(seed, "done", env_steps=2000, step="") for seed in range(20)),
        status(30, "failed", tries=3, error="exit code 7: [bold]none[/bold]"),
        status(31, "running", env_steps=500, left=75.0),
    ]
    stream = StringIO()
    Console(file=stream, width=200).print(shown.grid(statuses, 10))
    lines = [line.rstrip() for line in stream.getvalue().splitlines()]
    assert lines[1].split()[1:] == ["running", "25%", "0:01:15", "1"]
    assert lines[2].endswith("exit code 7: [bold]none[/bold]")
    assert "and 13 more" in lines[10]
    assert "20/22 done, 1 running, 1 failed" in lines[11]
