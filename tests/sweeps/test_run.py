"""The loop, with an engine whose commands do at once what the test says."""

import errno
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from marl_sale.artifacts import _fs
from marl_sale.artifacts.store import Run
from marl_sale.artifacts.sweep import Sweep
from marl_sale.config.recipe import load_recipe
from marl_sale.errors import StoppedError
from marl_sale.sweeps import run as loop
from marl_sale.sweeps.engines import Ended, Local, Work
from marl_sale.sweeps.product import make_sweep
from marl_sale.sweeps.run import Status, inspect
from marl_sale.sweeps.state import Found

RECIPE = "tiny/match+tiny"
Act = Callable[[Work, Path], Ended]


class Job:
    def __init__(self, engine: "Fake", work: Work) -> None:
        self.engine, self.work = engine, work
        self.stopped = False
        self.waits = engine.looks

    def poll(self) -> Ended | None:
        if self.waits and not self.stopped:
            self.waits -= 1
            return None
        self.engine.running -= 1
        if self.stopped:
            return Ended(75)
        out = Path(self.work.argv[self.work.argv.index("--out") + 1])
        return self.engine.act(self.work, out)

    def stop(self) -> None:
        self.stopped = True


class Fake:
    """An engine whose jobs end after some looks."""

    def __init__(self, act: Act, looks: int = 1) -> None:
        self.act, self.looks = act, looks
        self.period, self.parallel = 0.0, 2
        self.works: list[Work] = []
        self.running = self.most = 0

    def submit(self, work: Work) -> Job:
        self.works.append(work)
        self.running += 1
        self.most = max(self.most, self.running)
        return Job(self, work)

    def close(self) -> None: ...


def write(work: Work, out: Path, *, status: str = "complete", step: int | None = None) -> None:
    """What the command would leave, without training."""
    argv = work.argv
    overrides = [argv[i + 1] for i, word in enumerate(argv) if word == "--set"]
    recipe, seed = load_recipe(argv[2], overrides), int(argv[argv.index("--seed") + 1])
    identity = {"fingerprint": recipe.fingerprint, "seed": seed, "env_spec": None}
    kind = {"train": "agent", "pretrain-wm": "world-model"}[argv[1]]
    if "--resume" in argv:
        run = Run.resume(out, kind=kind, **identity)
    else:
        run = Run.create(
            out,
            kind=kind,
            recipe=recipe.name,
            overrides=overrides,
            config_text=recipe.text,
            inputs=[],
            command="",
            device="cpu",
            **identity,
        )
    with run:
        if step is not None:
            with run.checkpoint(step, counters={"env_steps": step}, score=None) as writer:
                writer.write_text("weights.txt", "w")
        run.finish(status, counters={})


def succeed(work: Work, out: Path) -> Ended:
    write(work, out)
    return Ended(0)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "out"


def make(folder: Path, seeds: Sequence[int] = (0,), **more: bool) -> Sweep:
    return make_sweep([RECIPE], [], tuple(seeds), folder, **more)[0]


def run(sweep: Sweep, folder: Path, engine: Fake, **changes: object) -> list[Status]:
    settings: dict[str, object] = {
        "parallel": 2,
        "retries": 2,
        "stopped": lambda: False,
        "report": lambda statuses: None,
        "pause": 0.0,
    }
    return loop.run(sweep, folder, engine, **{**settings, **changes})  # type: ignore[arg-type]


def test_every_cell_runs_once_and_never_more_than_allowed_at_a_time(folder: Path) -> None:
    engine = Fake(succeed, looks=3)
    statuses = run(make(folder, range(5)), folder, engine)
    assert [status.state for status in statuses] == ["done"] * 5
    assert len(engine.works) == 5
    assert engine.most == 2


def test_what_is_done_is_not_done_again(folder: Path) -> None:
    run(make(folder, (0, 1)), folder, Fake(succeed))
    assert [status.state for status in inspect(make(folder, (0, 1)), folder)] == ["done", "done"]
    again = Fake(succeed)
    statuses = run(make(folder, (0, 1)), folder, again)
    assert not again.works
    assert [(status.state, status.tries) for status in statuses] == [("done", 0)] * 2


def test_an_exit_code_of_0_is_not_believed(folder: Path) -> None:
    (status,) = run(make(folder), folder, Fake(lambda work, out: Ended(0)), retries=1)
    assert (status.state, status.tries, status.error) == ("failed", 2, "exit code 0")


def test_a_failure_is_tried_again_so_often_and_its_last_error_kept(folder: Path) -> None:
    def fail(work: Work, out: Path) -> Ended:
        work.log.parent.mkdir(parents=True, exist_ok=True)
        with work.log.open("a") as log:
            log.write(f"train: 10 env steps\nerror: no luck {len(engine.works)}\n  hint\n")
        return Ended(7)

    engine = Fake(fail)
    first, second = run(make(folder, (0, 1)), folder, engine, retries=3, parallel=1)
    assert (first.state, first.tries, first.error) == ("failed", 4, "exit code 7: no luck 4")
    assert second.state == "failed"


@pytest.mark.parametrize("code", [2, 3, 4, 6])
def test_what_would_end_the_same_way_is_not_tried_again(code: int, folder: Path) -> None:
    (status,) = run(make(folder), folder, Fake(lambda work, out: Ended(code)))
    assert (status.state, status.tries) == ("failed", 1)


def test_a_file_server_that_is_away_for_a_moment_is_asked_again(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither is the result damaged, nor is what a command said hopeless."""
    asked = itertools.count()

    def look(*args: Any) -> Found:
        return real(*args) if next(asked) > 2 else Found("unreachable", problem="Stale file handle")

    real = loop.look
    monkeypatch.setattr(loop, "look", look)
    (status,) = run(make(folder), folder, Fake(succeed), retries=3)
    assert (status.state, status.tries, status.error) == ("done", 1, "")
    monkeypatch.setattr(loop, "look", lambda *_: Found("unreachable", problem="Stale file handle"))
    engine = Fake(succeed)
    (status,) = run(make(folder), folder, engine, retries=1)
    assert (status.state, status.error, engine.works) == ("failed", "Stale file handle", [])


def test_a_command_that_cannot_be_started_is_tried_again(folder: Path) -> None:
    class Refuses(Fake):
        def submit(self, work: Work) -> Job:
            if next(asked) < 2:
                raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")
            return super().submit(work)

    asked = itertools.count()
    (status,) = run(make(folder), folder, Refuses(succeed), retries=2)
    assert (status.state, status.tries) == ("done", 3)


def test_an_interrupted_run_is_resumed_as_long_as_it_comes_further(folder: Path) -> None:
    def go_on(work: Work, out: Path) -> Ended:
        begun = len(engine.works)
        write(work, out, status="complete" if begun == 6 else "interrupted", step=begun)
        return Ended(75 if begun < 6 else 0)

    engine = Fake(go_on)
    (status,) = run(make(folder), folder, engine, retries=0)
    assert (status.state, status.tries, status.error) == ("done", 6, "")
    assert ["--resume" in work.argv for work in engine.works] == [False, *[True] * 5]


def test_one_that_comes_no_further_is_given_up(folder: Path) -> None:
    def stay(work: Work, out: Path) -> Ended:
        write(work, out, status="interrupted", step=None if "--resume" in work.argv else 1)
        return Ended(None, "killed by SIGKILL")

    engine = Fake(stay)
    (status,) = run(make(folder), folder, engine, retries=2)
    # The first came further than nothing; the next three did not.
    assert (status.state, status.tries, status.error) == ("failed", 4, "killed by SIGKILL")


def test_a_damaged_result_counts_as_none_and_is_left_alone(folder: Path) -> None:
    def damage(work: Work, out: Path) -> Ended:
        write(work, out, step=1)
        (out / "checkpoints/000000000001/weights.txt").write_text("x")
        return Ended(0)

    engine = Fake(damage)
    (status,) = run(make(folder), folder, engine)
    assert (status.state, len(engine.works)) == ("failed", 1)
    assert "sha256" in status.error
    (status,) = run(make(folder), folder, engine)
    assert (status.state, len(engine.works)) == ("failed", 1)
    assert inspect(make(folder), folder)[0].state == "failed"


def test_the_result_of_another_configuration_counts_as_none(folder: Path) -> None:
    sweep = make(folder)
    step = sweep.cells[0].steps[0]
    work = Work("", ("marl-sale", "train", f"{RECIPE}+qmix", "--seed", "0"), Path(), Path(), 1, 0)
    write(work, folder / step.out)
    engine = Fake(succeed)
    (status,) = run(sweep, folder, engine)
    assert (status.state, len(engine.works)) == ("failed", 0)
    assert "fingerprint" in status.error


def test_pretraining_first_and_each_step_once(folder: Path) -> None:
    engine = Fake(succeed)
    (status,) = run(make(folder, pretrain=True), folder, engine)
    assert [work.argv[1] for work in engine.works] == ["pretrain-wm", "train"]
    assert status.state == "done"


def test_a_run_that_another_process_holds_is_waited_for(folder: Path) -> None:
    """One that outlived its engine, or the sweep before: two processes never work on one cell."""
    sweep = make(folder)
    out = folder / sweep.cells[0].steps[0].out
    out.mkdir(parents=True)
    held = [_fs.lock(out / "lock", holder=b"{}")]
    seen: list[str] = []

    def look(statuses: Sequence[Status]) -> None:
        seen.append(statuses[0].state)
        if len(seen) == 3:
            descriptor = held.pop()
            assert descriptor is not None
            os.close(descriptor)

    engine = Fake(succeed)
    (status,) = run(sweep, folder, engine, report=look)
    assert seen[:3] == ["elsewhere"] * 3
    assert (status.state, len(engine.works)) == ("done", 1)


def test_a_job_whose_command_outlived_it_is_neither_a_failure_nor_started_twice(folder: Path) -> None:
    held: list[int | None] = []

    def lose(work: Work, out: Path) -> Ended:
        out.mkdir(parents=True)
        held.append(_fs.lock(out / "lock", holder=b"{}"))
        orphans.append(work)
        return Ended(None, "WorkerCrashedError")

    orphans: list[Work] = []

    def look(statuses: Sequence[Status]) -> None:
        if statuses[0].state == "elsewhere" and held:
            descriptor = held.pop()
            assert descriptor is not None
            os.close(descriptor)
            write(orphans[0], Path(orphans[0].argv[-1]))

    engine = Fake(lose)
    (status,) = run(make(folder), folder, engine, report=look, retries=0)
    assert (status.state, len(engine.works)) == ("done", 1)


def test_stopping_stops_the_jobs_and_starts_no_other(folder: Path) -> None:
    engine = Fake(succeed, looks=10**6)
    statuses = run(make(folder, range(4)), folder, engine, stopped=lambda: len(engine.works) == 2)
    assert [status.state for status in statuses] == ["stopped"] * 4
    assert len(engine.works) == 2
    assert engine.running == 0


def test_the_first_pause_grows(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    began: list[float] = []

    def fail(work: Work, out: Path) -> Ended:
        began.append(now[0])
        return Ended(1)

    def sleep(seconds: float) -> None:
        now[0] += 0.25

    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(loop.time, "sleep", sleep)
    run(make(folder), folder, Fake(fail, looks=0), retries=9, pause=1.0)
    pauses = [after - before for before, after in itertools.pairwise(began)]
    assert [round(pause) for pause in pauses] == [1, 2, 4, 8, 16, 32, 60, 60, 60]


def test_a_sweep_that_died_is_taken_up_from_the_folders(folder: Path) -> None:
    def die(statuses: Sequence[Status]) -> None:
        if sum(status.state == "done" for status in statuses) == 2:
            raise StoppedError("the sweep itself")

    sweep, engine = make(folder, range(5)), Fake(succeed)
    with pytest.raises(StoppedError):
        run(sweep, folder, engine, report=die)
    again = Fake(succeed)
    assert [status.state for status in run(sweep, folder, again)] == ["done"] * 5
    assert len(again.works) == 3


def test_a_local_command_that_fails_says_so(folder: Path, tmp_path: Path) -> None:
    work = Work("x", ("marl-sale", "train", "none"), Path("x.log"), tmp_path, 1, 0)
    job = Local(1).submit(work)
    while (ended := job.poll()) is None:
        pass
    assert ended == Ended(2)
    assert "none" in (tmp_path / "x.log").read_text()
