"""The worker pool: no result depends on it, no fault of a worker is silent, and no process is left behind."""

import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from multiprocessing import Pipe, get_context
from multiprocessing.connection import Connection
from multiprocessing.reduction import recv_handle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from pool_copy import Walk, WithChild, broken

from marl_sale.data.collect import Clock, Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.envs import _pool, _worker
from marl_sale.envs._contract import check_contract
from marl_sale.envs._pool import Pool
from marl_sale.envs._worker import Sizes
from marl_sale.errors import EnvironmentFault, EpisodeLost, UsageError
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec


def describe(sizes: Sizes, notes: str) -> EnvSpec:
    return EnvSpec(
        "walk", "walk", "pool", **sizes._asdict(), masks_actions=True, has_success=True, notes=notes
    )


def walks(num_envs: int, copy: Any = Walk, patience: float = 20.0, **arguments: Any) -> Pool:
    return Pool(partial(copy, **arguments), num_envs, describe, patience=patience)


@contextmanager
def closing(pool: Pool) -> Iterator[Pool]:
    try:
        yield pool
    finally:
        pool.close()


def steps(pool: Pool, count: int) -> None:
    """Every agent takes action 1, which leaves the number where it is."""
    for _ in range(count):
        pool.step(torch.ones(pool.num_envs, 2, dtype=torch.int64))


def random_round(pool: Pool, clock: Clock | None = None) -> Episodes:
    """Random play of the first episodes of seed 0."""
    noise = Exploration.of_episodes(pool.spec, 1.0, 0, 0, pool.num_envs)
    return play(pool, None, episode_seeds(0, 0, pool.num_envs), noise, clock)


def same(one: Episodes, other: Episodes) -> bool:
    """Equal where there is an episode; what lies behind its end is arbitrary."""
    if not torch.equal(one.length, other.length):
        return False
    return all(
        torch.equal(getattr(one, name)[i, : steps + extra], getattr(other, name)[i, : steps + extra])
        for i, steps in enumerate(one.length.tolist())
        for name, extra in (("obs", 1), ("state", 1), ("avail_actions", 1), ("actions", 0), ("reward", 0))
    ) and torch.equal(one.success, other.success)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_the_contract(workers: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARL_SALE_WORKERS", workers)
    check_contract(walks, episodes=8)


def test_the_number_of_workers_changes_no_result(monkeypatch: pytest.MonkeyPatch) -> None:
    played = []
    for workers in ("1", "2", "9"):
        monkeypatch.setenv("MARL_SALE_WORKERS", workers)
        with closing(walks(5)) as pool:
            assert len(pool._workers) == min(int(workers), 5)
            played.append(random_round(pool))
    assert same(played[0], played[1])
    assert same(played[0], played[2])
    assert len(set(played[0].length.tolist())) > 1


@pytest.fixture(scope="module")
def undisturbed() -> Episodes:
    """A round of four walks without a fault."""
    with closing(walks(4)) as pool:
        return random_round(pool)


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        ("raises", "RuntimeError: out of luck (pool_copy.py:"),
        ("exits", "exit code 3"),
        ("killed", "exit code -9"),
        ("hangs", "no answer within 1 s"),
        ("shape", "state has shape (1,), expected (3,)"),
        ("nan", "the reward is nan"),
    ],
)
def test_a_fault_in_an_episode_is_told_and_played_again(
    fault: str, told: str, undisturbed: Episodes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The episodes are then those of a run without the fault."""
    monkeypatch.setenv("MARL_SALE_WORKERS", "2" if fault == "raises" else "1")
    assert int(undisturbed.length.max()) > 5
    armed = tmp_path / "armed"
    patience = 0.25 if fault == "hangs" else 20.0  # for each of a worker's copies
    with closing(walks(4, fault=fault, armed=armed, patience=patience)) as pool:
        armed.touch()
        pool.reset(episode_seeds(0, 0, 4))
        with pytest.raises(EpisodeLost) as raised:
            steps(pool, 9)
        assert told in raised.value.what
        armed.touch()
        clock = Clock()
        assert same(undisturbed, random_round(pool, clock))
        assert (clock.replayed, pool.restarts) == (1, 2)


def test_a_fault_that_stays_ends_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pauses: list[float] = []
    monkeypatch.setenv("MARL_SALE_WORKERS", "1")
    monkeypatch.setattr(_pool.time, "sleep", pauses.append)
    (tmp_path / "armed").touch()
    with closing(walks(2, fault="always", armed=tmp_path / "armed")) as pool:
        with pytest.raises(EnvironmentFault, match=r"walk/walk: an environment failed 6 times in a row"):
            random_round(pool)
        assert pool.restarts == 5
    assert pauses == [0, 1, 2, 4, 8]


def test_faults_between_whole_episodes_are_forgiven(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_pool, "_MOST_FAULTS", 1)
    armed = tmp_path / "armed"
    with closing(walks(1, fault="raises", armed=armed)) as pool:
        for _ in range(3):
            armed.touch()
            pool.reset(np.array([1]))
            with pytest.raises(EpisodeLost):
                steps(pool, 5)
            pool.reset(np.array([1]))
            steps(pool, 9)
        assert pool.restarts == 3


def test_an_error_with_a_message_for_the_user_is_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / "armed").touch()
    with (
        closing(walks(1, fault="misconfigured", armed=tmp_path / "armed")) as pool,
        pytest.raises(EnvironmentFault, match=r"too old\n  renew it"),
    ):
        random_round(pool)


@pytest.mark.parametrize(
    ("kind", "error", "told"),
    [
        ("missing", ModuleNotFoundError, "marl_sale_no_such_package"),
        ("game", EnvironmentFault, r"no game\n  install one"),
        ("other", EnvironmentFault, "RuntimeError: no luck"),
    ],
)
def test_copies_that_cannot_be_built(kind: str, error: type[Exception], told: str) -> None:
    with pytest.raises(error, match=told) as raised:
        walks(2, copy=broken, kind=kind)
    if isinstance(raised.value, ModuleNotFoundError):
        assert raised.value.name == "marl_sale_no_such_package"  # what to install


def test_a_wrong_number_of_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARL_SALE_WORKERS", "0")
    with pytest.raises(UsageError, match="MARL_SALE_WORKERS"):
        walks(1)


def test_pictures_come_from_the_right_copy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MARL_SALE_WORKERS", "2")
    with closing(walks(3)) as pool:
        pool.reset(np.arange(3))
        pool.step(torch.ones(3, 2, dtype=torch.int64))
        pool.reset(np.arange(3), torch.tensor([True, False, False]))
        assert [int(pool.render(index)[0, 0, 0]) for index in range(3)] == [0, 1, 1]


def alive(pid: int) -> bool:
    try:
        return f"{pid} (" in (text := Path(f"/proc/{pid}/stat").read_text()) and ") Z" not in text
    except OSError:
        return False


def wait_until(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline
        time.sleep(0.02)


PROGRAM = """
import signal, sys, time, torch, numpy as np
from pathlib import Path
from pool_copy import WithChild
from test_pool import walks

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored in the background jobs of some shells
    pool = walks(2, copy=WithChild, file=Path(sys.argv[1]))
    pool.reset(np.arange(2))
    pool.step(torch.ones(2, 2, dtype=torch.int64))
    print("playing", flush=True)
    if sys.argv[2] == "waits":
        time.sleep(1000)
"""
needs_proc = pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="reads /proc")


@needs_proc
@pytest.mark.parametrize(
    ("ends", "by"),
    [("waits", signal.SIGKILL), ("waits", signal.SIGTERM), ("waits", signal.SIGINT), ("returns", None)],
)
def test_no_process_outlives_the_program(ends: str, by: signal.Signals | None, tmp_path: Path) -> None:
    """Neither a worker nor what it started, though the program never closes its environments."""
    (tmp_path / "program.py").write_text(PROGRAM)
    path = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    with subprocess.Popen(
        [sys.executable, tmp_path / "program.py", tmp_path / "pids", ends],
        env={**os.environ, "PYTHONPATH": path, "MARL_SALE_WORKERS": "2"},
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
    ) as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "playing\n"  # and nothing that a copy printed
        started = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
        assert len(started) == 4
        if by is not None:
            assert all(map(alive, started))
            program.send_signal(by)
        try:
            program.wait(60)
        finally:
            program.kill()
    wait_until(lambda: not any(map(alive, started)))


def serve_without_a_watch(connection: Connection, factory: bytes) -> None:
    """A worker whose main thread is always the first to notice that the pool is gone."""
    _worker._end_with_the_pool = lambda: None  # type: ignore[assignment]
    _worker.serve(connection, factory, 1)


@needs_proc
def test_a_worker_left_alone_ends_what_it_started(tmp_path: Path) -> None:
    ours, theirs = Pipe()
    factory = pickle.dumps(partial(WithChild, file=tmp_path / "pids"))
    process = get_context("spawn").Process(target=serve_without_a_watch, args=(theirs, factory))
    process.start()
    theirs.close()
    assert isinstance(ours.recv(), _worker.Ready)
    os.close(recv_handle(ours))
    started = list(map(int, (tmp_path / "pids").read_text().split()))
    assert all(map(alive, started))
    ours.close()
    process.join()
    wait_until(lambda: not any(map(alive, started)))


@needs_proc
def test_no_process_outlives_close_or_a_crash(tmp_path: Path) -> None:
    file = tmp_path / "pids"
    with closing(walks(1, copy=WithChild, file=file)) as pool:
        worker, child = map(int, file.read_text().split())
        pool.reset(np.arange(1))
        os.kill(worker, signal.SIGKILL)
        with pytest.raises(EpisodeLost):
            pool.step(torch.ones(1, 2, dtype=torch.int64))
        wait_until(lambda: not alive(child))  # killed, but dying takes a moment
        again = list(map(int, file.read_text().split()))[2:]
        assert all(map(alive, again))
    wait_until(lambda: not any(map(alive, again)))
    pool.close()  # twice does no harm
