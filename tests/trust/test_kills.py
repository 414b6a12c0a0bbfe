"""kill -9 at random times, through the command line: nothing acknowledged is lost, the result is the same."""

import math
import os
import random
import signal
import time
from collections.abc import Callable
from pathlib import Path

from cli_processes import Launcher, launcher
from comparison import contents, differing

from marl_sale.artifacts.reader import Artifact, checkpoint_steps

KINDS = {"train": "agent", "pretrain-wm": "world-model"}
SETTINGS = (
    *("agent.hidden_size=8", "mixer.size=5", "mixer.hypernet_size=6", "sale.size=6", "sale.hidden_size=7"),
    *("world_model.hidden_size=8", "world_model.latent_size=3", "replay.batch_episodes=4"),
    *("replay.capacity_episodes=12", "train.env_steps=160", "train.num_envs=2", "train.checkpoint_period=25"),
    *(
        "train.log_period=20",
        "train.checkpoint_minutes=0.001",
        "evaluation.period=50",
        "evaluation.episodes=2",
    ),
    *("pretrain.episodes=24", "pretrain.max_epochs=6", "pretrain.patience_epochs=6"),
)


def command(verb: str, out: Path) -> list[str]:
    sets = [word for setting in SETTINGS for word in ("--set", setting)]
    return [verb, "tiny/match+tiny", *sets, "--out", str(out)]


class Killer:
    """Runs commands to their end, killed after random times on the way."""

    def __init__(self, processes: Launcher, log: Path) -> None:
        self.processes, self.log = processes, log
        self.random = random.Random(0)
        self.kills = 0
        self.longest = math.inf
        """Seconds that the last process took that nobody killed: what the times are drawn from."""

    def run(self, verb: str, out: Path) -> None:
        """Runs a command, and runs it again with --resume until the run is complete."""
        status = -signal.SIGKILL
        while status != 0:
            goes_on = (out / "manifest.json").exists()
            status = self.attempt([*command(verb, out), *(["--resume"] if goes_on else [])], out)
            if (out / "manifest.json").exists():
                found = Artifact.open(out, kind=KINDS[verb], status=("running", "complete"))
                assert found.verify() == []
        assert found.manifest.status == "complete"

    def attempt(self, arguments: list[str], out: Path) -> int:
        """Status of one process. What it had saved before it was killed is there afterwards."""
        pid, began = self.processes.start(arguments, self.log), time.monotonic()
        deadline = began + self.random.random() * self.longest
        while time.monotonic() < deadline and not self.processes.ended():
            time.sleep(0.05)
        acknowledged = max(checkpoint_steps(out), default=0)
        os.kill(pid, signal.SIGKILL)
        status = self.processes.status()
        assert status in (0, -signal.SIGKILL), self.log.read_text()
        assert max(checkpoint_steps(out), default=0) >= acknowledged
        if status == 0:
            self.longest = time.monotonic() - began
        else:
            self.kills += 1
            self.longest *= 1.1  # so that, however short the last one was, the run comes to its end
        return status


def test_killed_at_random_times(tmp_path: Path, is_long: bool, record: Callable[..., None]) -> None:
    wanted = 60 if is_long else 2
    killed, runs = dict.fromkeys(KINDS, 0), 0
    with launcher() as processes:
        for verb in KINDS:
            killer, out = Killer(processes, tmp_path / "log"), tmp_path / f"{verb} whole"
            killer.run(verb, out)  # there is no deadline yet
            assert killer.kills == 0
            whole = contents(out)
            while killer.kills < wanted:
                out = tmp_path / f"{verb} {runs}"
                killer.run(verb, out)
                assert differing(whole, contents(out)) == []
                runs += 1
            killed[verb] = killer.kills
    record(**{f"kills of {verb}": count for verb, count in killed.items()}, runs=runs, different=0)
