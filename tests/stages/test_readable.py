"""What a stage may write, its reader takes: known before anything is written."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from marl_sale_cli.app import app
from typer.testing import CliRunner

from marl_sale.artifacts import metrics
from marl_sale.artifacts.manifest import MAX_FILES
from marl_sale.config.recipe import Recipe
from marl_sale.errors import UsageError
from marl_sale.stages._readable import require_training
from marl_sale.stages.train import EVALUATION_COLUMNS

LONG = ("train.env_steps=1000000000", "train.num_envs=1", "evaluation.period=1000000")


def test_rows_that_fit_are_read_however_long_their_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(metrics, "MAX_FILE_BYTES", 10_000)
    row = json.dumps({"a": -2.2250738585072014e-308, "päd": 2**64, "won": False}) + "\n"
    assert len(row.encode()) * metrics.rows_that_fit(["a", "päd", "won"]) <= 10_000
    assert metrics.rows_that_fit(["a"]) > metrics.rows_that_fit(["a", "b"]) > 100
    monkeypatch.setattr(metrics, "MAX_ROWS", 7)
    assert metrics.rows_that_fit(["a"]) == 7


@pytest.mark.parametrize("dry_run", [[], ["--dry-run"]])
@pytest.mark.parametrize(
    ("words", "asked"),
    [
        (["eval", "tiny/match+tiny", "--random", "--episodes", "1000000"], "--episodes 1000000"),
        (["train", "--set", "train.log_period=1"], "train.log_period=1"),
        (
            ["train", "--set=evaluation.period=9", "--set=train.log_period=1000000"],
            "evaluation.period=9",
        ),
        (["pretrain-wm", "--set", "pretrain.max_epochs=100000"], "pretrain.max_epochs=100000"),
    ],
)
def test_what_could_not_be_read_again_ends_with_2_before_anything_is_written(
    words: list[str], asked: str, dry_run: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    command, *more = words
    given = more if command == "eval" else ["tiny/match+tiny", *(f"--set={key}" for key in LONG), *more]
    done = CliRunner().invoke(app, [command, *given, "--out", "out", *dry_run])
    assert (done.exit_code, done.stdout) == (2, ""), done.stderr
    assert f"{asked}: up to 1" in done.stderr or f"{asked}: up to 2" in done.stderr
    assert "can be read again" in done.stderr
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("keep", ["best", "every"])
def test_so_many_checkpoints_that_no_manifest_could_list_them(
    keep: str, small_recipe: Callable[..., Recipe]
) -> None:
    def require(period: int, capacity: int) -> None:
        changes = [
            "train.log_period=1000000",
            f"train.checkpoint_period={period}",
            f"replay.capacity_episodes={capacity}",
        ]
        config = small_recipe(changes=[*LONG, *changes, f"train.keep_checkpoints={keep}"]).config
        require_training(config, ["a"], EVALUATION_COLUMNS)

    require(10**6, 10**9)
    with pytest.raises(UsageError, match=rf"checkpoint_period=50000.* at most {MAX_FILES:,}"):
        require(50_000, 10**9)
    if keep == "best":
        require(50_000, 10_000)  # segments that are no longer needed go
