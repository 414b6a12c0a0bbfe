"""The loop of a sweep: hand out commands, look at what they left, hand them out again, until all is done.

It keeps no state of its own that matters: killed and started again, it finds everything in the folders.
"""

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from marl_sale.artifacts.manifest import plain
from marl_sale.artifacts.reader import in_use
from marl_sale.artifacts.sweep import Cell, Step, Sweep
from marl_sale.errors import ExitCode
from marl_sale.sweeps.engines import Ended, Engine, Job, Work
from marl_sale.sweeps.state import Found, Pace, look, pace_of

State = Literal["waiting", "submitted", "running", "elsewhere", "retrying", "done", "failed", "stopped"]

HOPELESS = (ExitCode.USAGE, ExitCode.ARTIFACT, ExitCode.RUN_EXISTS, ExitCode.DIVERGED)
"""Codes that the same command gives every time: a training that diverged does so again, to the bit."""
LONGEST_PAUSE = 60.0
PACE_PERIOD = 5.0
"""Seconds between two looks at how far a cell is."""
LOG_TAIL = 1 << 14


@dataclass(frozen=True)
class Status:
    """One cell, as a table shows it."""

    cell: Cell
    state: State
    step: str
    """Kind of the artifact being made; empty when all are."""
    env_steps: int | None
    """Of the training so far."""
    left: float | None
    """Expected seconds until it is done; None where unknown."""
    tries: int
    """Times a command of it was started by this sweep."""
    error: str
    """What ended the last try, where that was no success."""


@dataclass
class _Standing:
    """A cell between its first and its last command."""

    cell: Cell
    next: int = 0
    """Index of the first step that is not done."""
    job: Job | None = None
    state: State = "waiting"
    tries: int = 0
    in_vain: int = 0
    """Tries in a row that brought no new checkpoint."""
    checkpoint: int = -1
    """Latest one when the job began."""
    log_start: int = 0
    due: float = 0.0
    error: str = ""
    pace: Pace | None = None
    looked: float = -PACE_PERIOD

    @property
    def step(self) -> Step | None:
        return self.cell.steps[self.next] if self.next < len(self.cell.steps) else None

    @property
    def settled(self) -> bool:
        return self.state in ("done", "failed", "stopped")


class _Loop:
    """One run of a sweep."""

    def __init__(
        self, sweep: Sweep, folder: Path, engine: Engine, *, parallel: int, retries: int, pause: float
    ) -> None:
        self.folder, self.engine = folder, engine
        self.parallel, self.retries, self.pause = parallel, retries, pause
        self.cells = [_Standing(cell) for cell in sweep.cells]

    def advance(self, stopping: bool) -> None:
        """Collect what has ended, and start what may start."""
        for each in self.cells:
            if each.job is not None:
                self.collect(each, stopping)
        for each in self.cells:
            if each.job is None and not each.settled:
                if stopping:
                    each.state = "stopped"
                elif time.monotonic() >= each.due:
                    self.begin(each)

    def collect(self, each: _Standing, stopping: bool) -> None:
        """What a job left, once it has ended."""
        assert each.job is not None
        assert each.step is not None
        end = each.job.poll()
        if end is None:
            each.state = "running" if in_use(self.folder / each.step.out) else each.state
            return
        each.job = None
        if in_use(self.folder / each.step.out):  # it outlived what the engine knew of it
            each.state = "elsewhere"
            return
        found = look(self.folder, each.cell, each.step)
        if found.state == "done":
            each.next, each.in_vain, each.error = each.next + 1, 0, ""
            each.state = "waiting" if each.step is not None else "done"
            return
        each.error = found.problem or self.last_error(each, end)
        each.in_vain = 0 if found.checkpoint > each.checkpoint else each.in_vain + 1
        if stopping:
            each.state = "stopped"
        elif found.state == "damaged" or end.code in HOPELESS or each.in_vain > self.retries:
            each.state = "failed"
        else:
            self.put_off(each)

    def put_off(self, each: _Standing) -> None:
        each.state = "retrying"
        doublings = min(max(0, each.in_vain - 1), 32)
        each.due = time.monotonic() + min(self.pause * 2.0**doublings, LONGEST_PAUSE)

    def in_vain(self, each: _Standing, why: str) -> None:
        """Nothing could be started: the file system or the machine may let it another time."""
        each.error = why
        each.in_vain += 1
        if each.in_vain > self.retries:
            each.state = "failed"
        else:
            self.put_off(each)

    def begin(self, each: _Standing) -> None:
        """Hand out the next command of a cell, unless it is done, or somebody is at it."""
        while each.step is not None:
            out = self.folder / each.step.out
            if in_use(out):  # by a job of an earlier sweep, or by one that outlived what had started it
                each.state = "elsewhere"
                return
            if each.state == "elsewhere":
                each.state = "waiting"
            found = look(self.folder, each.cell, each.step)
            if found.state == "damaged":
                each.state, each.error = "failed", found.problem
                return
            if found.state == "unreachable":
                self.in_vain(each, found.problem)
                return
            if found.state != "done":
                if (
                    sum(other.job is not None or other.state == "elsewhere" for other in self.cells)
                    < self.parallel
                ):
                    self.submit(each, each.step, found)
                return
            each.next += 1
        each.state, each.error = "done", ""

    def submit(self, each: _Standing, step: Step, found: Found) -> None:
        log = self.log(step)
        each.log_start = log.stat().st_size if log.exists() else 0
        each.checkpoint = found.checkpoint
        resume = ["--resume"] if found.state == "unfinished" else []
        work = Work(
            name=each.cell.name,
            argv=(*step.argv, *resume),
            log=log,
            cwd=Path.cwd(),
            cpus=each.cell.cpus,
            gpus=each.cell.gpus,
        )
        each.tries += 1
        each.state = "submitted"
        try:
            each.job = self.engine.submit(work)
        except OSError as error:
            self.in_vain(each, f"cannot start {each.cell.name}: {error.strerror}")

    def log(self, step: Step) -> Path:
        """Output of a step's commands, beside its artifact, where no artifact would mind it."""
        return self.folder / f"{step.out}.log"

    def last_error(self, each: _Standing, end: Ended) -> str:
        """The end of what the command said, or of what the engine knows."""
        assert each.step is not None
        path = self.log(each.step)
        try:
            with path.open("rb") as file:
                file.seek(max(each.log_start, path.stat().st_size - LOG_TAIL))
                text = file.read(LOG_TAIL).decode(errors="replace")
        except OSError:
            text = ""
        lines = [line.strip() for line in re.split(r"[\r\n]", text) if line.strip()]
        errors = [line for line in lines if line.startswith("error: ")]
        said = (errors or (lines if end.code is not None else []) or [""])[-1]
        ending = end.why or f"exit code {end.code}"
        return plain(f"{ending}: {said.removeprefix('error: ')}" if said else ending)

    def stop(self) -> None:
        for each in self.cells:
            if each.job is not None:
                each.job.stop()

    def report(self) -> list[Status]:
        """Every cell now."""
        statuses = []
        for each in self.cells:
            step = each.step
            if step is not None and step.kind == "agent" and each.state in ("running", "elsewhere"):
                if time.monotonic() - each.looked >= PACE_PERIOD:
                    each.pace, each.looked = pace_of(self.folder / step.out), time.monotonic()
            elif each.state == "done":
                each.pace = None
            done = each.state == "done"
            steps = each.cell.env_steps if done else each.pace.env_steps if each.pace else None
            statuses.append(
                Status(
                    cell=each.cell,
                    state=each.state,
                    step=step.kind if step else "",
                    env_steps=steps,
                    left=_left(each.cell, each.pace),
                    tries=each.tries,
                    error=each.error,
                )
            )
        return statuses


def _left(cell: Cell, pace: Pace | None) -> float | None:
    if pace is None or pace.env_steps <= 0:
        return None
    return pace.seconds * max(cell.env_steps - pace.env_steps, 0) / pace.env_steps


def run(
    sweep: Sweep,
    folder: Path,
    engine: Engine,
    *,
    parallel: int,
    retries: int,
    stopped: Callable[[], bool],
    report: Callable[[Sequence[Status]], None],
    pause: float = 1.0,
) -> list[Status]:
    """Run every cell in `folder`, which the caller holds, at most `parallel` at a time; how each ended.

    A cell is done when the artifact of each of its steps is complete and intact. One that ends otherwise is
    resumed, after a pause that doubles up to a minute; `retries` times, not counting those after which it had
    come further. `stopped` is asked between two looks: once true, running cells write a checkpoint and end.
    """
    loop = _Loop(sweep, folder, engine, parallel=parallel, retries=retries, pause=pause)
    told = False
    while True:
        stopping = stopped()
        if stopping and not told:
            loop.stop()
            told = True
        loop.advance(stopping)
        statuses = loop.report()
        report(statuses)
        if all(each.settled for each in loop.cells):
            return statuses
        time.sleep(engine.period)


def inspect(sweep: Sweep, folder: Path) -> list[Status]:
    """How every cell stands, from the folders alone; starts nothing."""
    statuses = []
    for cell in sweep.cells:
        each = _Standing(cell)
        while each.step is not None:
            found = look(folder, cell, each.step)
            each.error = found.problem
            if found.state == "damaged":
                each.state = "failed"
            elif in_use(folder / each.step.out):
                each.state = "elsewhere"
            elif found.state == "unfinished":
                each.state = "stopped"
            if found.state != "done":
                break
            each.next += 1
        else:
            each.state = "done"
        kind = each.step.kind if each.step else ""
        steps = cell.env_steps if each.state == "done" else None
        statuses.append(Status(cell, each.state, kind, steps, None, 0, each.error))
    return statuses
