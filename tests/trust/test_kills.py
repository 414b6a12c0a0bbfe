"""kill -9 at random times, through the command line: nothing acknowledged is lost, the result is the same."""

import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cli_processes import Launcher, launcher
from comparison import contents, differing

from marl_sale.artifacts.reader import Artifact, checkpoint_steps

COMMANDS = {
    "train": "agent",
    "pretrain-wm": "world-model",
}
SETTINGS = (
    *("train.env_steps=300", "train.num_envs=2", "train.checkpoint_period=20", "train.log_period=20"),
    *("train.checkpoint_minutes=0.001", "evaluation.period=60", "evaluation.episodes=2"),
    *("replay.capacity_episodes=16", "replay.batch_episodes=4", "pretrain.episodes=40"),
    *("pretrain.max_epochs=12", "pretrain.patience_epochs=12", "agent.hidden_size=16", "sale.hidden_size=16"),
    *("world_model.hidden_size=16", "mixer.hypernet_size=16"),
)


def command(verb: str, out: Path) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return [verb, "tiny/match+tiny", *sets, "--out", str(out)]


def complete(
    processes: Launcher, verb: str, out: Path, log: Path, drawn: random.Random, longest: float
) -> int:
    """Runs a command to its end, killed after random times on the way; returns how often."""
    kills, acknowledged = 0, 0
    while True:
        began = (out / "manifest.json").exists()
        pid = processes.start([*command(verb, out), *(["--resume"] if began else [])], log)
        time.sleep(drawn.uniform(0, longest))
        acknowledged = max([acknowledged, *checkpoint_steps(out)])
        os.kill(pid, signal.SIGKILL)
        status = processes.status()
        assert status in (0, -signal.SIGKILL), log.read_text()
        if (out / "manifest.json").exists():
            found = Artifact.open(out, kind=COMMANDS[verb], status=("running", "complete"))
            assert found.verify() == []
            assert max(found.checkpoints(), default=0) >= acknowledged
            if found.manifest.status == "complete":
                return kills
        kills += status != 0


def test_killed_at_random_times(tmp_path: Path, is_long: bool, record: Callable[..., None]) -> None:
    wanted, drawn = 60 if is_long else 2, random.Random(0)
    killed, runs, checkpoints = dict.fromkeys(COMMANDS, 0), 0, 0
    log = tmp_path / "log"
    with launcher() as processes:
        for verb in COMMANDS:
            began = time.monotonic()
            processes.start(command(verb, tmp_path / f"{verb} whole"), log)
            assert processes.status() == 0, log.read_text()
            longest = time.monotonic() - began
            whole = contents(tmp_path / f"{verb} whole")
            while killed[verb] < wanted:
                out = tmp_path / f"{verb} {runs}"
                killed[verb] += complete(processes, verb, out, log, drawn, longest)
                assert differing(whole, contents(out)) == []
                runs, checkpoints = runs + 1, checkpoints + len(checkpoint_steps(out))
    record(**{f"kills_of_{verb}": count for verb, count in killed.items()}, runs=runs, different=0)
