"""kill -9 at every call that changes a file: nothing acknowledged is lost, and going on ends the same."""

import os
import re
import shutil
import signal
import subprocess
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from file_calls import Call, Intercept, intercepted
from life import Life, content, violations
from mutants import NOTICED_BY_A_KILL, Mutant

# Of Python 3.12 and later. The children call nothing that a thread of their parent could have left locked.
pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded.*fork:DeprecationWarning")

STRACE = shutil.which("strace")


def unflushed(call: Call, go: Callable[..., Any]) -> Any:
    """Everything but fsync: what the kernel has been given survives the process, flushed or not."""
    return None if call.name == "fsync" else go()


class Killer:
    """Kills its process at a call, counted from 0: before it, or in the middle of a write."""

    def __init__(self, at: int, *, halfway: bool = False) -> None:
        self.left, self.halfway = at, halfway

    def __call__(self, call: Call, go: Callable[..., Any]) -> Any:
        if self.left == 0:
            if self.halfway:
                go(call.data[: len(call.data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        self.left -= 1
        return unflushed(call, go)


@contextmanager
def child(work: Callable[[Callable[[str], None]], None]) -> Iterator[tuple[int, int]]:
    """A fork that does some work; its process id, and where what it acknowledges can be read."""
    reading, writing = os.pipe()
    pid = os.fork()
    if not pid:
        status = 1
        try:
            work(lambda text: os.write(writing, f"{text}\n".encode()) and None)
            status = 0
        finally:
            os._exit(status)
    os.close(writing)
    try:
        yield pid, reading
    finally:
        os.close(reading)


def ended(pid: int, reading: int) -> tuple[list[str], int]:
    """What a child had acknowledged when it ended, and how it ended (minus a signal, or an exit status)."""
    with open(reading, "rb", closefd=False) as pipe:
        acknowledged = pipe.read().decode().splitlines()
    return acknowledged, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def killed(life: Life, root: Path, killer: Intercept) -> list[str]:
    """What was acknowledged in a life that `killer` has ended."""

    def work(acknowledge: Callable[[str], None]) -> None:
        with intercepted(root, killer):
            life(root, acknowledge)

    with child(work) as (pid, reading):
        acknowledged, status = ended(pid, reading)
    assert status == -signal.SIGKILL
    return acknowledged


def aftermath(life: Life, root: Path, acknowledged: list[str], whole: Path) -> list[str]:
    """What is wrong after a kill, before and after going on to the end."""
    problems = violations(root, acknowledged, whole)
    if not problems:
        with intercepted(root, unflushed):
            life(root, acknowledged.append)
        if content(root) != content(whole):
            problems.append("went on to another end")
    return problems


def calls_of(life: Life, root: Path) -> list[Call]:
    """Of a life in the new folder `root` that is not cut short."""
    calls: list[Call] = []

    def note(call: Call, go: Callable[..., Any]) -> Any:
        calls.append(call)
        return unflushed(call, go)

    root.mkdir()
    with intercepted(root, note):
        life(root, lambda _: None)
    return calls


@pytest.fixture
def whole(life: Life, tmp_path: Path) -> tuple[Path, list[Call]]:
    """Folder and calls of a life that was not cut short."""
    return tmp_path / "whole", calls_of(life, tmp_path / "whole")


def points(calls: list[Call]) -> list[tuple[int, bool]]:
    """Every place to die: before each call, and halfway through each write."""
    return [(n, half) for n, call in enumerate(calls) for half in (False, True)[: 1 + (call.name == "write")]]


def first_of_each_kind(calls: list[Call]) -> list[tuple[int, bool]]:
    """Of those, one for each line of `_fs.py` that they come from."""
    kinds = {(calls[n].name, calls[n].sites[:3], half): (n, half) for n, half in reversed(points(calls))}
    return sorted(kinds.values())


def test_killed_at_every_call(
    life: Life, whole: tuple[Path, list[Call]], tmp_path: Path, is_long: bool, record: Callable[..., None]
) -> None:
    folder, calls = whole
    chosen = points(calls) if is_long else first_of_each_kind(calls)
    for at, halfway in chosen:
        root = tmp_path / "killed"
        root.mkdir()
        acknowledged = killed(life, root, Killer(at, halfway=halfway))
        problems = aftermath(life, root, acknowledged, folder)
        assert not problems, (at, halfway, calls[at].name, calls[at].path, calls[at].sites, problems)
        shutil.rmtree(root)
    if is_long:
        assert len(chosen) >= 150
    record(
        calls=len(calls), kills=len(chosen), halfway_through_a_write=sum(half for _, half in chosen), lost=0
    )


@pytest.mark.parametrize("mutate", NOTICED_BY_A_KILL)
def test_a_wrong_order_is_noticed(
    life: Life,
    whole: tuple[Path, list[Call]],
    tmp_path: Path,
    mutate: Mutant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with monkeypatch.context() as patch:
        mutate(patch)
        calls = calls_of(life, tmp_path / "mutant")
    last_of_each_kind = {
        (call.name, re.sub(r"\.tmp-\w+|\d+", "", call.path)): n
        for n, call in enumerate(calls)
        if call.name != "fsync" and call.path.startswith(("agent/checkpoints/", "agent/manifest"))
    }

    def problems(at: int) -> list[str]:
        root = tmp_path / f"killed-{at}"
        root.mkdir()
        with monkeypatch.context() as patch:
            mutate(patch)
            acknowledged = killed(life, root, Killer(at))
        return violations(root, acknowledged, whole[0])

    assert any(map(problems, last_of_each_kind.values()))


SYSTEM_CALLS = {
    "openat": "create",
    "write": "write",
    "fsync": "fsync",
    "ftruncate": "truncate",
    "rename": "rename",
    "mkdir": "mkdir",
    "unlink": "unlink",
    "unlinkat": "unlink",
    "rmdir": "rmdir",
}


def traced(life: Life, root: Path, log: Path, *options: str) -> tuple[list[str], int]:
    """A life under strace: what it acknowledged, and how it ended."""
    gate_reading, gate = os.pipe()

    def work(acknowledge: Callable[[str], None]) -> None:
        os.read(gate_reading, 1)
        life(root, acknowledge)

    with child(work) as (pid, reading):
        tracer = subprocess.Popen(
            [str(STRACE), "-y", "-s", "0", "-o", str(log), "-p", str(pid), *options],
            stderr=subprocess.PIPE,
            text=True,
        )
        assert tracer.stderr is not None
        attached = tracer.stderr.readline()
        os.write(gate, b".")
        found = ended(pid, reading)
        tracer.communicate()
    os.close(gate)
    os.close(gate_reading)
    if "attached" not in attached:
        pytest.skip(f"strace cannot attach here: {attached.strip()}")
    return found


def kernel_calls(log: Path, root: Path, before: set[str]) -> list[tuple[str, str]]:
    """Calls in a log of strace that could change what is below `root`, as (system call, what it is here)."""
    found = []
    for line in log.read_text().splitlines():
        name = line.split("(", 1)[0]
        if name not in SYSTEM_CALLS or str(root) not in line:
            continue
        if name == "openat":
            path = line.split("<")[-1].rstrip(">")
            if "O_CREAT" not in line or path in before:
                continue
            before.add(path)
        kind = "rmdir" if "AT_REMOVEDIR" in line else SYSTEM_CALLS[name]
        found.append((name, kind))
    return found


@pytest.mark.skipif(STRACE is None, reason="needs strace")
def test_killed_at_system_calls(
    life: Life, whole: tuple[Path, list[Call]], tmp_path: Path, is_long: bool, record: Callable[..., None]
) -> None:
    """As above, at the system calls themselves; and that none of them escapes the interception above."""
    folder, calls = whole
    log, root = tmp_path / "strace.log", tmp_path / "seen"
    root.mkdir()
    wanted = ",".join(SYSTEM_CALLS)
    _, status = traced(life, root, log, "-e", f"trace={wanted}")
    assert status == 0
    seen = kernel_calls(log, root, set())
    assert [kind for _, kind in seen] == [call.name for call in calls]
    if not is_long:
        return
    kills = 0
    for name, count in Counter(line.split("(", 1)[0] for line in log.read_text().splitlines()).items():
        if name not in SYSTEM_CALLS:
            continue
        for number in range(1, count + 1, 1 if count < 50 else 3):
            root = tmp_path / "killed"
            root.mkdir()
            inject = ("-e", f"trace={name}", "-e", f"inject={name}:signal=KILL:when={number}")
            acknowledged, status = traced(life, root, log, *inject)
            assert status == -signal.SIGKILL, (name, number)
            problems = aftermath(life, root, acknowledged, folder)
            assert not problems, (name, number, problems)
            shutil.rmtree(root)
            kills += 1
    assert kills >= 150
    record(system_calls=len(seen), kills=kills, lost=0)
