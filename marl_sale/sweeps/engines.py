"""Where the commands of a sweep run. An engine starts a command and says when it has ended; no more.

Whether a cell is done is never an engine's word: that is read from the artifact (`state.look`).
"""

import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol, runtime_checkable

from marl_sale.cluster import cores


@dataclass(frozen=True)
class Work:
    """One command to run."""

    name: str
    argv: tuple[str, ...]
    """Without the interpreter: `marl-sale train …`."""
    log: Path
    """Where its output is appended."""
    cwd: Path
    """Where relative paths begin, on every machine."""
    cpus: int
    gpus: int


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int | None
    """Exit code; None where it was killed, or lost with its machine."""
    why: str = ""


@runtime_checkable
class Job(Protocol):
    """A command that was handed to an engine."""

    def poll(self) -> Ended | None:
        """None until it has ended."""

    def stop(self) -> None:
        """Ask it to write a checkpoint and end (SIGTERM); take it back where it has not begun."""


@runtime_checkable
class Engine(Protocol):
    """Runs commands."""

    period: float
    """Seconds between two looks at its jobs."""
    parallel: int
    """How many jobs it is good for where the user does not say."""

    def submit(self, work: Work) -> Job:
        """Start a command, or queue it."""

    def close(self) -> None:
        """Let go of everything; jobs may go on."""


def program(argv: Sequence[str]) -> list[str]:
    """The command line that runs `marl-sale …` with this very interpreter, whatever PATH says."""
    return [sys.executable, "-m", "marl_sale_cli", *argv[1:]]


def open_log(work: Work) -> BinaryIO:
    """The log of a command, to append to."""
    path = work.cwd / work.log
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


def ended(code: int) -> Ended:
    """From the return code of a subprocess, which is negative where a signal ended it."""
    return Ended(code) if code >= 0 else Ended(None, f"killed by {signal.Signals(-code).name}")


def start(work: Work) -> subprocess.Popen[bytes]:
    """The command as a process of a session of its own: Ctrl-C on a terminal reaches the sweep alone."""
    with open_log(work) as log:
        return subprocess.Popen(
            program(work.argv),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            cwd=work.cwd,
            start_new_session=True,
        )


class LocalJob:
    """A process of this machine."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self._process = process

    def poll(self) -> Ended | None:
        code = self._process.poll()
        return None if code is None else ended(code)

    def stop(self) -> None:
        self._process.terminate()


class Local:
    """Subprocesses of this machine."""

    def __init__(self, cpus: int) -> None:
        """`cpus`: threads of one job."""
        self.period = 0.2
        self.parallel = max(1, cores() // cpus)

    def submit(self, work: Work) -> LocalJob:
        return LocalJob(start(work))

    def close(self) -> None: ...
