"""Hostile artifacts through the real commands: refused at once, with nothing run, fetched, or touched.

Every case is read in a forked child, whose memory is limited and whose every import, process, connection and
opened file is audited.
"""

import contextlib
import gc
import json
import os
import resource
import select
import signal
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hostile import CANARY, COMMANDS, CORPUS, copy, edit, seal
from marl_sale_cli.app import app
from typer.testing import CliRunner

from marl_sale.artifacts.weights import read_tensors, write_tensors
from marl_sale.observer import Silent
from marl_sale.stages import evaluate

MEMORY = 256 << 20
SECONDS = 1.0
"""Of CPU time, on a machine of its own; half as much again where others crowd the caches."""

Sound = dict[str, Path]


@pytest.fixture(scope="module")
def sound(agent: Path, world_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """A small artifact of each kind, and the recipe of all of them."""
    folder = tmp_path_factory.mktemp("sound")
    evaluate.run(
        agent, folder / "evaluation", seed=0, device="cpu", observer=Silent(), command="x", episodes=3
    )
    interrupted = copy(agent, folder / "interrupted")
    edit(interrupted, status="interrupted")
    recipe = folder / "recipe.yaml"
    recipe.write_text((agent / "config.yaml").read_text())
    return {
        "agent": agent,
        "world-model": world_model,
        "dataset": world_model.with_name("dataset"),
        "evaluation": folder / "evaluation",
        "interrupted": interrupted,
        "recipe": recipe,
    }


def arguments(command: str, artifact: Path, sound: Sound, out: Path) -> list[str]:
    names = {"artifact": artifact, "out": out, "recipe": sound["recipe"], "agent": sound["agent"]}
    return [part.format(**names) for part in COMMANDS[command][1]]


FORBIDDEN = (
    *("subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.spawn", "os.fork", "pty.spawn"),
    *("socket.connect", "socket.getaddrinfo", "socket.gethostbyname", "socket.bind", "urllib.Request"),
    *("pickle.find_class", "marshal.loads", "ctypes.dlopen", "code.__new__"),
)


def in_child(words: list[str], declared: int) -> dict[str, Any]:
    """What a command did in a child: exit code, output, seconds of CPU, forbidden events, new modules."""
    receiver, sender = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of forks beside threads; none of ours runs here
        child = os.fork()
    if not child:
        os.close(receiver)
        try:
            _run_and_tell(words, declared, sender)
        finally:
            os._exit(99)
    os.close(sender)
    told = b""
    deadline = time.monotonic() + 120
    while select.select([receiver], [], [], max(0.0, deadline - time.monotonic()))[0]:
        part = os.read(receiver, 1 << 16)
        if not part:
            break
        told += part
    else:
        os.kill(child, signal.SIGKILL)
    os.close(receiver)
    _, status, usage = os.wait4(child, 0)
    found = json.loads(told) if told else {"exit": f"killed: {status}", "output": "", "events": [], "new": []}
    return found | {"peak": usage.ru_maxrss << 10}


def _run_and_tell(words: list[str], declared: int, sender: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + declared + MEMORY
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    events: list[str] = []

    def audit(event: str, given: tuple[Any, ...]) -> None:
        if event in FORBIDDEN and (event, given) != ("ctypes.dlopen", (None,)):  # the C library's mallopt
            events.append(f"{event} {given!r:.80}")

    sys.addaudithook(audit)
    gc.freeze()  # what the parent holds after thousands of tests is not the command's to go through
    before, began = set(sys.modules), time.process_time()
    result = CliRunner().invoke(app, words)
    seconds = time.process_time() - began
    found = {
        "exit": result.exit_code,
        "output": result.stderr[:30_000],
        "length": len(result.stderr),
        "stdout": result.stdout[:1000],
        "seconds": seconds,
        "events": events,
        "new": sorted(set(sys.modules) - before),
    }
    with open(sender, "wb") as file:
        file.write(json.dumps(found).encode())


@pytest.fixture(scope="module")
def warm(sound: Sound, tmp_path_factory: pytest.TempPathFactory) -> Sound:
    """Every command has been run on sound artifacts: what it imports, it has imported."""
    folder = tmp_path_factory.mktemp("warm")
    for index, (command, (kind, _)) in enumerate(COMMANDS.items()):
        artifact = copy(sound[kind], folder / f"{index}-{kind}")
        words = arguments(command, artifact, sound, folder / f"out{index}")
        if "{out}" in COMMANDS[command][1]:
            words.append("--dry-run")  # reads all that is read before the work begins
        done = CliRunner().invoke(app, words)
        assert done.exit_code == 0, (command, done.stderr)
    return sound


def contents(folder: Path) -> dict[str, tuple[int, int]]:
    """Name, size and time of last change of all that is in a folder."""
    found = {}
    for path in sorted(folder.rglob("*")):
        status = path.lstat()
        found[str(path)] = (status.st_size if not path.is_dir() else 0, status.st_mtime_ns)
    return found


@pytest.mark.parametrize("name", CORPUS)
def test_a_hostile_artifact_is_refused(
    name: str, warm: Sound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tally: Callable[..., None]
) -> None:
    case = CORPUS[name]
    monkeypatch.chdir(tmp_path)
    (tmp_path / CANARY).write_text("silent")
    artifact = copy(warm[COMMANDS[case.command][0]], tmp_path / "artifact")
    case.harm(artifact)
    before = contents(tmp_path)
    found = in_child(arguments(case.command, artifact, warm, tmp_path / "out"), declared=1 << 20)
    after = contents(tmp_path)
    assert found["exit"] == 3, found
    assert case.told in found["output"]
    assert str(tmp_path) in found["output"]  # what is refused is named with its path
    assert "Traceback" not in found["output"]
    assert found["length"] < 30_000, "a flood of messages"
    assert found["stdout"] == ""
    assert not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in found["output"])
    assert (found["events"], found["new"]) == ([], [])
    assert (tmp_path / CANARY).read_text() == "silent"
    assert found["seconds"] < 1.5 * SECONDS
    if case.command != "resume":  # which takes the lock, and marks the run failed
        assert after == before
    tally(command=case.command, exit=found["exit"], cpu_seconds=round(found["seconds"], 3))


def test_the_corpus_has_every_row() -> None:
    assert len(CORPUS) >= 60
    assert {case.command for case in CORPUS.values()} == set(COMMANDS)


def test_the_traps_of_the_corpus_work(warm: Sound, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A reader that unpickles, connects, imports or takes too much memory would be caught."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / CANARY).write_text("silent")
    artifact = copy(warm["agent"], tmp_path / "artifact")
    CORPUS["a pickle that runs code"].harm(artifact)

    def careless(*_: object, **__: object) -> Any:
        import pickle
        import this  # noqa: F401

        with contextlib.suppress(OSError):
            import socket

            socket.create_connection(("127.0.0.1", 9), 0.1)
        pickle.loads(next(artifact.rglob("weights.safetensors")).read_bytes())
        with contextlib.suppress(MemoryError):
            return bytes(MEMORY + (4 << 30))  # more than freed memory of earlier tests could be had again
        raise OSError("out of memory")

    monkeypatch.setattr("marl_sale.artifacts.weights.load_tensors", careless)
    found = in_child(arguments("eval", artifact, warm, tmp_path / "out"), declared=0)
    seen = {event.split()[0] for event in found["events"]}
    assert {"pickle.find_class", "socket.connect"} <= seen
    assert "this" in found["new"]
    assert (tmp_path / CANARY).read_text() == "sung"
    assert "out of memory" in found["output"]


def test_memory_is_the_declared_size(
    warm: Sound, tmp_path: Path, is_long: bool, record: Callable[..., None]
) -> None:
    """A sound file takes its size and at most 256 MiB; a second copy of it, or of a tensor, would not fit."""
    elements = (1024 if is_long else 384) << 18  # float32: MiB
    path = tmp_path / "large.safetensors"
    write_tensors(path, {"a": torch.zeros(elements)})
    size = path.stat().st_size
    child = os.fork() if sys.version_info < (3, 12) else _fork()
    if not child:
        try:
            pages = int(Path("/proc/self/statm").read_text().split()[0])
            limit = pages * resource.getpagesize() + size + MEMORY
            resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
            os._exit(0 if read_tensors(path)["a"].numel() == elements else 1)
        finally:
            os._exit(2)
    _, status, usage = os.wait4(child, 0)
    path.unlink()
    record(file_mib=size >> 20, peak_rss_mib=usage.ru_maxrss >> 10)
    assert os.waitstatus_to_exitcode(status) == 0


def _fork() -> int:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        return os.fork()


def test_foreign_text_is_shown_as_it_is(warm: Sound, tmp_path: Path) -> None:
    """Markup, formulas and mathematics in names and notes are text: nothing renders or evaluates them."""
    foreign = "=1+1|$\\frac{$ [bold red]x[/] <script>"
    artifact = copy(warm["agent"], tmp_path / "artifact")
    edit(artifact, recipe=f"tiny/match+{foreign}", notes=[foreign], overrides=[foreign])
    seal(artifact)
    shown = CliRunner().invoke(app, ["runs", "show", str(artifact)])
    assert (shown.exit_code, foreign in shown.stdout) == (0, True)
    drawn = CliRunner().invoke(app, ["plot", str(artifact), "--out", str(tmp_path / "out")])
    assert drawn.exit_code == 0, drawn.stderr
    cells = [
        cell.strip('"')
        for path in (tmp_path / "out").rglob("*.csv")
        for line in path.read_text().splitlines()
        for cell in line.split(",")
    ]
    assert cells
    assert not any(cell.startswith(("=", "@", "+")) for cell in cells)
