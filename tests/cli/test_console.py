import io
import json
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from marl_sale_cli._console import Lines, Pace, Together, deliver, duration, number, plain, table
from rich.console import Console

from marl_sale.artifacts.manifest import read_manifest
from marl_sale.observer import Silent
from marl_sale.stages.result import StageResult


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_the_rate_of_a_resumed_run_does_not_count_what_was_done_before() -> None:
    clock = Clock()
    pace = Pace("train", 2000, "env steps", clock)
    pace.update(1000, {})
    assert pace.rate is None
    clock.now = 10.0
    pace.update(1100, {})
    assert pace.rate == pytest.approx(10.0)
    assert pace.speed == "10 env steps/s  ETA 0:01:30"


def test_the_time_split_is_in_shares_of_what_was_measured() -> None:
    pace = Pace("train", 10, "env steps", Clock())
    pace.update(1, {"episode_return": 0.5, "win_rate": 0.25, "time_environment": 3.0, "time_learning": 1.0})
    assert pace.split == "environment 75%  learning 25%"
    assert pace.current == "return 0.5  win 25%"


def test_the_last_round_may_go_beyond_the_total_and_the_share_does_not() -> None:
    pace = Pace("train", 100, "env steps", Clock())
    pace.update(108, {})
    assert pace.line == "train: 108/100 env steps  100%"


def test_people_see_the_summary_and_programs_everything(capsys: pytest.CaptureFixture[str]) -> None:
    figures = {"parts": {"core": {"epochs": 3}}, "seconds": 1.0}
    result = StageResult(Path("out"), "world-model", "complete", figures, "ab" * 32, {"seconds": 1.0})
    deliver(result, as_json=True, quiet=False)
    shown = capsys.readouterr()
    assert json.loads(shown.out)["metrics"] == figures
    assert "seconds" in shown.err
    assert "parts" not in shown.err


def test_a_log_gets_one_progress_line_in_ten_seconds_and_the_last_state() -> None:
    clock, stream = Clock(), io.StringIO()
    lines = Lines(stream, clock)
    lines.start("train", 100, "env steps")
    for step in range(1, 26):
        clock.now = float(step)
        lines.progress(step, {})
    lines.finish()
    lines.finish()
    shown = [line.split()[1] for line in stream.getvalue().splitlines()]
    assert shown == ["100", "10/100", "20/100", "25/100"]


def test_training_goes_on_where_nobody_reads_its_lines(tmp_path: Path) -> None:
    """`marl-sale train … 2>&1 | head -1`"""
    out = tmp_path / "agent"
    words = ("train", "tiny/match+tiny+qmix", "--set", "train.env_steps=100", "--out", str(out))
    command = shlex.join([sys.executable, "-m", "marl_sale_cli", *words])
    script = f"({command} 2>&1 >/dev/null; echo $? > {shlex.quote(str(tmp_path / 'code'))}) | true"
    subprocess.run(["sh", "-c", script], check=True)
    deadline = time.monotonic() + 60
    while not (tmp_path / "code").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert (tmp_path / "code").read_text().strip() == "0"
    assert read_manifest(out)[0].status == "complete"


def test_every_evaluation_gets_a_line_and_other_streams_none() -> None:
    stream = io.StringIO()
    lines = Lines(stream, Clock())
    lines.row("train", {"env_steps": 10, "episode_return": 0.1})
    lines.row(
        "evaluation", {"env_steps": 1000, "episode_return": 0.75, "win_rate": 0.5, "evaluation_episodes": 32}
    )
    lines.row("evaluation", {"env_steps": 2000, "episode_return": 0.75, "win_rate": None})
    assert stream.getvalue().splitlines() == [
        "evaluation at 1,000 env steps: return 0.75  win 50%  evaluation_episodes 32",
        "evaluation at 2,000 env steps: return 0.75",
    ]


def test_a_terminal_shows_rate_figures_and_split_and_leaves_foreign_markup_alone() -> None:
    from marl_sale_cli._terminal import Terminal

    stream = io.StringIO()
    terminal = Terminal(Console(file=stream, force_terminal=True, width=160, color_system=None))
    terminal.start("train [red]x[/red]", 100, "env steps")
    terminal.progress(50, {"episode_return": 0.5, "time_acting": 1.0})
    terminal.row("evaluation", {"env_steps": 50, "episode_return": 0.5})
    terminal.note("[bold]kept[/bold]")
    terminal.finish()
    for expected in (
        "train [red]x[/red]",
        "50/100",
        "return 0.5",
        "acting 100%",
        "evaluation at 50",
        "[bold]kept[/bold]",
    ):
        assert expected in stream.getvalue()


class Recorder(Silent):
    def __init__(self) -> None:
        self.rows: list[str] = []

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        self.rows.append(stream)


def test_observers_together_each_get_everything() -> None:
    first, second = Recorder(), Recorder()
    together = Together(first, second)
    together.start("train", 1, "env steps")
    together.progress(1, {})
    together.row("train", {})
    together.note("x")
    together.finish()
    assert first.rows == second.rows == ["train"]


def test_tensorboard_gets_every_figure_and_no_folder_before_the_first(tmp_path: Path) -> None:
    pytest.importorskip("tensorboard")
    from marl_sale_cli._tensorboard import Scalars
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    scalars = Scalars(tmp_path / "tensorboard")
    scalars.start("train", 10, "env steps")
    assert not (tmp_path / "tensorboard").exists()
    scalars.row("train", {"env_steps": 5, "loss": 2.5, "win_rate": None})
    (file,) = (tmp_path / "tensorboard").iterdir()
    before = file.read_bytes()
    scalars.finish()
    assert file.read_bytes() == before
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert events.Tags()["scalars"] == ["train/loss"]
    assert [(e.step, e.value) for e in events.Scalars("train/loss")] == [(5, 2.5)]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"),
        (True, "yes"),
        (1234567, "1,234,567"),
        (0.123456, "0.1235"),
        (123456.7, "123,457"),
        ([0.1, 0.2], "[0.1, 0.2]"),
    ],
)
def test_numbers_read_well(value: object, shown: str) -> None:
    assert number(value) == shown


def test_durations_are_hours_minutes_seconds() -> None:
    assert duration(3723.4) == "1:02:03"


def test_control_characters_never_reach_the_terminal() -> None:
    assert plain("a\x1b[2Jb\rc\nd") == "a�[2Jb�c\nd"


def test_columns_line_up() -> None:
    assert table([("a", "bb"), ("ccc", "d")], heading=("x", "y")) == "x    y\na    bb\nccc  d"


@pytest.mark.parametrize("as_json", [True, False])
def test_stdout_carries_the_result_alone(as_json: bool, capsys: pytest.CaptureFixture[str]) -> None:
    result = StageResult(Path("out/agent"), "agent", "complete", {"win_rate": 0.5}, "ab" * 32)
    deliver(result, as_json=as_json, quiet=False)
    printed = capsys.readouterr()
    if as_json:
        assert json.loads(printed.out) == result.to_json()
    else:
        assert printed.out == "out/agent\n"
    assert "win_rate  0.5" in printed.err
    assert f"sha256 {'ab' * 32}" in printed.err


def test_a_dry_run_prints_no_path_of_what_is_not_there(capsys: pytest.CaptureFixture[str]) -> None:
    deliver(StageResult(Path("out"), "agent", "dry-run", {"parameters": 5}), as_json=False, quiet=True)
    assert capsys.readouterr() == ("", "")
