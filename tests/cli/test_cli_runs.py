import fcntl
import json
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from marl_sale_cli.app import app
from marl_sale_cli.runs import _age
from typer.testing import CliRunner

from marl_sale.artifacts.reader import Artifact, Checkpoint
from marl_sale.artifacts.store import Run

cli = CliRunner()


@pytest.fixture
def agent(tmp_path: Path) -> Path:
    return make_agent(tmp_path / "results" / "a" / "agent")


def make_agent(path: Path) -> Path:
    with Run.create(
        path,
        kind="agent",
        recipe="tiny/match+tiny",
        overrides=["discount=0.9"],
        config_text="algorithm: mmsa\n",
        fingerprint="ab" * 32,
        seed=3,
        env_spec={"family": "tiny"},
        inputs=[],
        command="marl-sale train",
        device="cpu",
    ) as run:
        with run.checkpoint(1000, counters={"env_steps": 1000}, score=0.25) as checkpoint:
            checkpoint.write_json("x", [1])
        run.write_text("note.txt", "hello")
        run.finish("complete", counters={"env_steps": 12345}, notes=["looks good"])
    return path


def test_ls_lists_artifacts_and_marks_damaged_ones(agent: Path) -> None:
    other = make_agent(agent.parent / "other")
    (other / "manifest.json").write_text("{")
    heading, *rows = cli.invoke(app, ["runs", "ls", str(agent.parents[1])]).stdout.splitlines()
    assert heading.split() == ["kind", "status", "recipe", "seed", "env", "steps", "age", "path"]
    assert rows[0].split() == ["agent", "complete", "tiny/match+tiny", "3", "12,345", "0", "min", str(agent)]
    assert rows[1].split() == ["-", "damaged", "-", "-", "-", "-", str(other)]
    listed = json.loads(cli.invoke(app, ["runs", "ls", str(agent.parents[1]), "--json"]).stdout)
    assert [(row["status"], row["env_steps"]) for row in listed] == [("complete", 12345), ("damaged", None)]


def test_ls_tells_what_runs_from_what_was_killed_and_shows_where_a_manifest_is_no_file(agent: Path) -> None:
    manifest = agent / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    assert "killed" in cli.invoke(app, ["runs", "ls", str(agent)]).stdout
    with (agent / "lock").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert "running" in cli.invoke(app, ["runs", "ls", str(agent)]).stdout
    manifest.unlink()
    os.mkfifo(manifest)
    (row,) = json.loads(cli.invoke(app, ["runs", "ls", str(agent.parent), "--json"]).stdout)
    assert (row["status"], row["path"]) == ("damaged", str(agent))


def test_ls_of_nothing_says_so_on_stderr(tmp_path: Path) -> None:
    nothing = cli.invoke(app, ["runs", "ls", str(tmp_path)])
    assert (nothing.exit_code, nothing.stdout) == (0, "")
    assert "no artifact" in nothing.stderr


def test_ls_of_a_folder_that_is_not_there_is_an_error_unless_nobody_named_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    refused = cli.invoke(app, ["runs", "ls", "gone"])
    assert (refused.exit_code, refused.stdout) == (3, "")
    assert "gone: no such folder" in refused.stderr
    nothing = cli.invoke(app, ["runs", "ls"])
    assert (nothing.exit_code, nothing.stderr) == (0, "no artifact below results\n")


def test_show_says_what_the_manifest_says(agent: Path) -> None:
    shown = cli.invoke(app, ["runs", "show", str(agent)]).stdout
    for expected in ("complete", "discount=0.9", "score 0.25", "env_steps", "looks good", "version torch"):
        assert expected in shown
    manifest = json.loads(cli.invoke(app, ["runs", "show", str(agent), "--json"]).stdout)
    assert manifest == json.loads((agent / "manifest.json").read_text())


def test_show_passes_over_a_checkpoint_that_a_run_deletes_meanwhile(
    agent: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    manifest = agent / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"complete"', '"running"'))
    real = Artifact.checkpoint

    def late(artifact: Artifact, step: int) -> Checkpoint:
        shutil.rmtree(agent / "checkpoints")
        return real(artifact, step)

    assert "checkpoint 1000" in cli.invoke(app, ["runs", "show", str(agent)]).stdout
    monkeypatch.setattr(Artifact, "checkpoint", late)
    shown = cli.invoke(app, ["runs", "show", str(agent)])
    assert shown.exit_code == 0, shown.stderr
    assert "checkpoint 1000" not in shown.stdout


def test_verify_passes_what_is_intact(agent: Path) -> None:
    result = cli.invoke(app, ["runs", "verify", str(agent)])
    assert (result.exit_code, result.stdout) == (0, f"{agent}\n")


def change(agent: Path) -> None:
    (agent / "note.txt").write_text("jello")


def remove(agent: Path) -> None:
    (agent / "checkpoints" / f"{1000:012d}" / "x.json").unlink()


def add(agent: Path) -> None:
    (agent / "more.txt").write_text("x")


@pytest.mark.parametrize(("damage", "named"), [(change, "note.txt"), (remove, "x.json"), (add, "more.txt")])
def test_verify_names_what_is_damaged(agent: Path, damage: Callable[[Path], None], named: str) -> None:
    damage(agent)
    result = cli.invoke(app, ["runs", "verify", str(agent)])
    assert (result.exit_code, result.stdout) == (3, "")
    assert named in result.stderr


@pytest.mark.parametrize("command", ["show", "verify"])
def test_what_is_no_artifact_ends_with_3(command: str, tmp_path: Path) -> None:
    assert cli.invoke(app, ["runs", command, str(tmp_path / "gone")]).exit_code == 3
    assert cli.invoke(app, ["runs", command, str(tmp_path)]).exit_code == 3


@pytest.mark.parametrize(
    ("ago", "shown"),
    [(timedelta(minutes=59), "59 min"), (timedelta(hours=47), "47 h"), (timedelta(days=9), "9 d")],
)
def test_ages_read_well(ago: timedelta, shown: str) -> None:
    now = datetime(2026, 1, 31, tzinfo=UTC)
    assert _age((now - ago).strftime("%Y-%m-%dT%H:%M:%SZ"), now) == shown
