"""A signal in any phase ends with exit code 75 and a run that goes on; two processes never write one run."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from comparison import Flat, contents, differing
from marl_sale_cli.app import app
from typer.testing import CliRunner, Result

from marl_sale.algorithms._api import Algorithm
from marl_sale.artifacts.manifest import read_manifest
from marl_sale.artifacts.store import Run
from marl_sale.artifacts.writer import CheckpointWriter
from marl_sale.stages import _fitting, pretrain_wm, rollouts, train

SETTINGS = (
    *("agent.hidden_size=8", "mixer.size=5", "mixer.hypernet_size=6", "sale.size=6", "sale.hidden_size=7"),
    *("world_model.hidden_size=8", "world_model.latent_size=3", "replay.batch_episodes=4"),
    *("replay.capacity_episodes=12", "train.env_steps=150", "train.num_envs=2", "train.checkpoint_period=60"),
    *("train.log_period=40", "evaluation.period=50", "evaluation.episodes=2", "evaluation.num_envs=2"),
    *("pretrain.episodes=12", "pretrain.max_epochs=2"),
)
RECIPES = {"train": "tiny/match+tiny+qmix", "pretrain-wm": "tiny/match+tiny"}
PHASES: dict[str, tuple[str, object, str, int]] = {
    "gathering": ("pretrain-wm", pretrain_wm, "play", 3),
    "saving what was gathered": ("pretrain-wm", CheckpointWriter, "write_json", 1),
    "fitting": ("pretrain-wm", Algorithm, "update", 2),
    "judging the fit": ("pretrain-wm", _fitting, "held_out_losses", 3),
    "the first evaluation": ("train", train, "evaluate_policy", 1),
    "collecting": ("train", rollouts, "play", 4),
    "learning": ("train", Algorithm, "update", 3),
    "evaluating": ("train", train, "evaluate_policy", 2),
    "a checkpoint": ("train", CheckpointWriter, "write_tensors", 2),
    "the commit of a checkpoint": ("train", Run, "_update", 1),
    "the end of pretrain-wm": ("pretrain-wm", Run, "finish", 1),
    "the end of train": ("train", Run, "finish", 1),
}
"""Which call of which function the signal arrives in."""
NUMBERS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)


def command(verb: str, out: Path, *more: str) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return [verb, RECIPES[verb], *sets, "--out", str(out), *more]


def run(verb: str, out: Path, *more: str) -> Result:
    return CliRunner().invoke(app, command(verb, out, *more))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Flat]:
    """What each command gives without a signal."""
    folder = tmp_path_factory.mktemp("whole")
    for verb in RECIPES:
        done = run(verb, folder / verb)
        assert done.exit_code == 0, done.stderr
    return {verb: contents(folder / verb) for verb in RECIPES}


def arriving(monkeypatch: pytest.MonkeyPatch, owner: object, name: str, nth: int, number: int) -> None:
    """Let the signal arrive in the n-th call of a function."""
    call, calls = getattr(owner, name), []

    def signalled(*arguments: Any, **options: Any) -> Any:
        calls.append(name)
        if len(calls) == nth:
            os.kill(os.getpid(), number)
        return call(*arguments, **options)

    monkeypatch.setattr(owner, name, signalled)


@pytest.mark.parametrize("phase", PHASES)
def test_a_signal_in_each_phase(
    phase: str,
    whole: dict[str, Flat],
    tmp_path: Path,
    is_long: bool,
    tally: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    verb, owner, function, nth = PHASES[phase]
    numbers = NUMBERS if is_long else [NUMBERS[list(PHASES).index(phase) % 3]]
    for number in numbers:
        out = tmp_path / signal.Signals(number).name
        with monkeypatch.context() as patched:
            arriving(patched, owner, function, nth, number)
            stopped = run(verb, out)
        if phase.startswith("the end"):  # the work is done: there is nothing to go on with
            assert stopped.exit_code == 0, stopped.stderr
        else:
            assert stopped.exit_code == 75, stopped.stderr
            assert f"stopped by {out.name}" in stopped.stderr
            assert "--resume" in stopped.stderr
            assert read_manifest(out)[0].status == "interrupted"
            resumed = run(verb, out, "--resume")
            assert resumed.exit_code == 0, resumed.stderr
        assert differing(whole[verb], contents(out)) == []
    tally(signals=", ".join(signal.Signals(number).name for number in numbers), different=0)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_same_signal_again_ends_it_at_once_and_nobody_else_writes_meanwhile(
    number: signal.Signals, tmp_path: Path, is_long: bool
) -> None:
    if number == signal.SIGTERM and not is_long:
        pytest.skip("in the long form")
    # Learning from the first round of episodes takes minutes, and the first signal waits for its end.
    patient = ["--set", "train.updates_per_episode=1000", "--set", "replay.batch_episodes=1"]
    patient += ["--set", "train.num_envs=64", "--set", "replay.capacity_episodes=64"]
    arguments, log = command("train", tmp_path / "run", *patient), tmp_path / "log"
    with log.open("w") as stderr:
        first = subprocess.Popen([sys.executable, "-m", "marl_sale_cli", *arguments], stderr=stderr)
    try:
        while "evaluation at 0 env steps" not in log.read_text():
            assert first.poll() is None, log.read_text()
            time.sleep(0.1)
        for more in ([], ["--resume"]):
            second = CliRunner().invoke(app, [*arguments, *more])
            assert second.exit_code == 75
            assert re.search(rf"in use by process {first.pid} on \S+, since", second.stderr)
        time.sleep(1)  # the round of episodes is over
        first.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            first.wait(2)
        first.send_signal(number)
        assert first.wait(60) == -number  # 128 + number, as a shell shows it
    finally:
        first.kill()
        first.wait()
    assert read_manifest(tmp_path / "run")[0].status == "running"
    goes_on = CliRunner().invoke(app, [*arguments, "--resume", "--dry-run", "--json"])
    assert json.loads(goes_on.stdout)["metrics"]["goes_on"] == "before its first checkpoint", goes_on.stderr


def test_the_other_ways_to_stop_a_job_are_no_impatience(
    tmp_path: Path, whole: dict[str, Flat], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduler that warns twice and then terminates still gets its checkpoint."""
    # The last one to be wrapped around the function is the first to arrive.
    for number, nth in ((signal.SIGINT, 3), (signal.SIGTERM, 3), (signal.SIGUSR1, 3), (signal.SIGUSR1, 3)):
        arriving(monkeypatch, Algorithm, "update", nth, number)
    stopped = run("train", tmp_path / "run")
    assert stopped.exit_code == 75
    assert "stopped by SIGUSR1" in stopped.stderr
    monkeypatch.undo()
    assert run("train", tmp_path / "run", "--resume").exit_code == 0
    assert differing(whole["train"], contents(tmp_path / "run")) == []
