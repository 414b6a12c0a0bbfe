"""Runs being written: what is committed stays, what is not leaves no trace."""

import errno
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_sale.artifacts import _fs, provenance
from marl_sale.artifacts.manifest import Input, read_manifest
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.artifacts.sweep import Sweep, check_folder
from marl_sale.errors import (
    ArtifactError,
    DiskFullError,
    MarlSaleError,
    RunExistsError,
    StoppedError,
    UnreachableError,
)

Start = Callable[..., Run]


def tree(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def save(run: Run, step: int, score: float | None = None, **rules: Any) -> None:
    with run.checkpoint(step, counters={"env_steps": step}, score=score, **rules) as writer:
        writer.write_tensors("weights/online", {"w": torch.full((2,), float(step))})
        writer.write_json("state/counters", {"step": step})


def stored(run: Run) -> list[str]:
    return sorted(path.name for path in (run.path / "checkpoints").iterdir())


def test_a_finished_run_reads_back(start: Start, tmp_path: Path) -> None:
    given = Input(role="world-model", id="wm-1", path=None, manifest_sha256="0" * 64)
    with start(inputs=[given]) as run:
        columns = ["env_steps", "loss"]
        run.metrics("train", columns).append({"env_steps": 5, "loss": 0.1})
        run.rows("episodes", ["episode"]).append({"episode": 0})
        run.write_tensors("weights/world_model", {"w": torch.arange(3)})
        run.write_json("report", {"errors": [0.5]})
        run.write_text("table.md", "| a |\n")
        run.write_bytes("figures/curve.png", b"\x89PNG")
        save(run, 5, 0.5)
        run.finish("complete", counters={"env_steps": 5, "seconds": 1.5}, notes=["a\nnote"])
    artifact = Artifact.open(tmp_path / "run", kind="agent")
    manifest = artifact.manifest
    assert (manifest.status, manifest.seed, manifest.overrides) == ("complete", 3, ("discount=0.95",))
    assert manifest.counters == {"env_steps": 5, "seconds": 1.5}
    assert manifest.inputs == (given,)
    assert manifest.notes == ("a\nnote",)
    assert torch.__version__.startswith(manifest.versions["torch"])  # of a CUDA build without its +cu…
    assert artifact.config_text == "algorithm: mmsa\n"
    assert (artifact.path / "command.txt").read_text() == "marl-sale train lbf/5x5-2p-1f-coop\n"
    assert artifact.rows("metrics/train") == [{"env_steps": 5, "loss": 0.1}]
    assert artifact.rows("episodes.jsonl") == [{"episode": 0}]
    assert torch.equal(artifact.tensors("weights/world_model")["w"], torch.arange(3))
    assert artifact.json("report") == {"errors": [0.5]}
    assert artifact.checkpoint().tensors("weights/online")["w"].tolist() == [5.0, 5.0]
    assert set(manifest.files) == {
        "config.yaml",
        "command.txt",
        "table.md",
        "report.json",
        "episodes.jsonl",
        "metrics/train.jsonl",
        "figures/curve.png",
        "weights/world_model.safetensors",
        "checkpoints/000000000005/manifest.json",
    }
    assert artifact.verify() == []


def test_a_folder_that_is_not_empty_is_refused_and_not_touched(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.yaml").write_text("mine")
    before = tree(tmp_path)
    with pytest.raises(RunExistsError) as caught:
        start()
    assert "--out" in caught.value.hint
    assert tree(tmp_path) == before


def test_a_finished_run_is_not_overwritten(start: Start, tmp_path: Path) -> None:
    with start() as run:
        run.finish("complete", counters={})
    before = tree(tmp_path)
    with pytest.raises(RunExistsError):
        start()
    assert tree(tmp_path) == before


def test_a_file_in_place_of_the_folder_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "run").write_text("mine")
    with pytest.raises(RunExistsError, match="not a folder"):
        start()


@pytest.mark.parametrize("below", ["run/more", "run/metrics/more/still"])
def test_no_artifact_is_put_into_another_which_it_would_damage(
    below: str, start: Start, tmp_path: Path
) -> None:
    with start(tmp_path / "run") as run:
        run.finish("complete", counters={})
    with pytest.raises(RunExistsError, match=rf"lies inside an artifact, {run.manifest.id} at "):
        start(tmp_path / below)
    with pytest.raises(RunExistsError, match="lies inside an artifact"):
        check_folder(tmp_path / below, Sweep(id="sweep", cells=()), resume=False)
    assert Artifact.open(tmp_path / "run", kind="agent").verify() == []


def test_a_command_line_that_is_no_text_is_kept(start: Start) -> None:
    with start(command="marl-sale train --out r\udcff") as run:
        run.finish("complete", counters={})
    assert (run.path / "command.txt").read_text() == "marl-sale train --out r\\udcff\n"


def test_who_looks_at_a_lock_keeps_nobody_from_it(tmp_path: Path) -> None:
    """Which takes the lock for a moment, too."""
    path, done = tmp_path / "lock", threading.Event()

    def look() -> None:
        while not done.is_set():
            _fs.is_locked(path)

    looking = threading.Thread(target=look)
    looking.start()
    try:
        for _ in range(500):
            held = _fs.lock(path, holder=b"{}")
            assert held is not None
            _fs.close(held)
    finally:
        done.set()
        looking.join()


def test_a_manifest_of_something_else_above_is_no_artifact(start: Start, tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "web"}')
    assert start(tmp_path / "run").path == tmp_path / "run"


def test_a_folder_below_a_file_is_refused(start: Start, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(RunExistsError, match="file is not a folder"):
        start(tmp_path / "file" / "run")


def test_an_empty_folder_is_used_and_parents_are_made(start: Start, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for out in (tmp_path / "empty", tmp_path / "a" / "b" / "c"):
        with start(out) as run:
            run.finish("complete", counters={})
        assert read_manifest(out)[0].status == "complete"


def test_a_run_that_came_and_went_before_the_lock_was_taken_is_not_overwritten(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    take = _fs.lock

    def late(path: Path, *, holder: bytes) -> int | None:
        monkeypatch.undo()
        start().finish("complete", counters={})
        return take(path, holder=holder)

    monkeypatch.setattr(_fs, "lock", late)
    with pytest.raises(RunExistsError):
        start()
    assert not _fs.is_locked(tmp_path / "run" / "lock")
    assert Artifact.open(tmp_path / "run", kind="agent").verify() == []


@pytest.mark.parametrize("written", [["lock"], ["lock", "config.yaml", ".tmp-1"]])
def test_a_run_killed_before_its_manifest_can_be_started_again(
    start: Start, tmp_path: Path, written: list[str]
) -> None:
    (tmp_path / "run").mkdir()
    for name in written:
        (tmp_path / "run" / name).write_text("{")
    with start() as run:
        run.finish("complete", counters={})
    assert Artifact.open(tmp_path / "run", kind="agent").verify() == []


@pytest.mark.parametrize(
    "name", ["../x", "/x", "a//b", ".hidden", "manifest.json", "lock", "checkpoints/1", "", "a\nb"]
)
def test_names_that_could_leave_the_folder_are_refused(start: Start, tmp_path: Path, name: str) -> None:
    with start() as run:
        before = tree(tmp_path)
        with pytest.raises(ValueError, match="not a name"):
            run.write_text(name, "x")
        assert tree(tmp_path) == before


def test_latest_and_best_checkpoints_are_kept(start: Start) -> None:
    with start() as run:
        kept = []
        for step, score in [(1, None), (2, 0.5), (3, 0.2), (4, 0.5), (5, None), (6, 0.1)]:
            save(run, step, score)
            kept.append([int(name) for name in stored(run)])
        assert kept == [[1], [2], [2, 3], [4], [4, 5], [4, 6]]
        assert run.manifest.counters == {"env_steps": 6}
        run.finish("complete", counters={})
    artifact = Artifact.open(run.path, kind="agent")
    assert artifact.checkpoints() == [4, 6]
    best, latest = artifact.checkpoint("best"), artifact.checkpoint("latest")
    assert (best.step, best.score, best.counters) == (4, 0.5, {"env_steps": 4})
    assert (latest.step, latest.score) == (6, 0.1)
    assert latest.json("state/counters") == {"step": 6}
    assert artifact.checkpoint(4).tensors("weights/online")["w"].tolist() == [4.0, 4.0]
    with pytest.raises(ArtifactError, match="no checkpoint 5; there is: 4, 6"):
        artifact.checkpoint(5)


@pytest.mark.parametrize(("keep", "kept"), [("latest", [6]), ("best", [2, 6]), ("every", [1, 2, 3, 4, 5, 6])])
def test_which_checkpoints_stay_is_the_recipes_choice(
    keep: str, kept: list[int], start: Start, asked: dict[str, Any]
) -> None:
    with start(keep=keep) as run:
        for step, score in [(1, None), (2, 0.5), (3, 0.2)]:
            save(run, step, score)
    with Run.resume(run.path, **asked, keep=keep) as run:
        for step, score in [(4, None), (5, 0.1), (6, None)]:
            save(run, step, score)
        assert list(map(int, stored(run))) == kept


@pytest.mark.parametrize("keep", ["latest", "best", "every"])
def test_a_checkpoint_that_was_not_scheduled_leaves_no_trace(
    keep: str, start: Start, asked: dict[str, Any]
) -> None:
    """It goes with the next one; the scheduled one before it stays meanwhile."""
    with start(keep=keep) as run:
        save(run, 1)
        save(run, 2, scheduled=False)
        save(run, 3, scheduled=False)
        assert list(map(int, stored(run))) == [1, 3]
    with Run.resume(run.path, **asked, keep=keep) as run:
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 3
        assert run.scheduled_steps == [1]
        save(run, 4)
        assert list(map(int, stored(run))) == ([1, 4] if keep == "every" else [4])


def test_what_a_crash_left_beside_the_last_checkpoint_goes(
    start: Start, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came between that checkpoint's rename and the deletion of the one before; nothing else is left."""
    with start() as run:
        save(run, 1)
        with monkeypatch.context() as patch:
            patch.setattr(run, "_thin", lambda: None)
            save(run, 2)
        assert list(map(int, stored(run))) == [1, 2]
    with Run.resume(run.path, **asked) as run:
        run.finish("complete", counters={})
    assert list(map(int, stored(run))) == [2]


def test_going_back_to_what_was_scheduled(start: Start, asked: dict[str, Any]) -> None:
    with start() as run:
        rows = run.metrics("train", ["a"])
        for step, scheduled in [(1, True), (2, False)]:
            rows.append({"a": step})
            save(run, step, scheduled=scheduled)
    with Run.resume(run.path, **asked, from_scheduled=True) as run:
        assert stored(run) == ["000000000001"]
        run.metrics("train", ["a"]).append({"a": 3})
        save(run, 2)
        run.finish("complete", counters={})
    assert Artifact.open(run.path, kind="agent").rows("metrics/train") == [{"a": 1}, {"a": 3}]


def test_best_needs_a_score(start: Start) -> None:
    with start() as run:
        run.finish("complete", counters={})
    with pytest.raises(ArtifactError, match="no checkpoint latest; there is: none"):
        Artifact.open(run.path, kind="agent").checkpoint("latest")


def test_an_exception_in_the_middle_of_a_checkpoint_leaves_the_previous_one(start: Start) -> None:
    run = start()
    save(run, 1, 0.5)
    before = tree(run.path)

    def fail_halfway() -> None:
        with run.checkpoint(2, counters={}, score=0.9) as writer:
            writer.write_json("a", 1)
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail_halfway()
    assert tree(run.path) == before
    assert stored(run) == ["000000000001"]
    latest = run.latest_checkpoint()
    assert latest is not None
    assert latest.tensors("weights/online")["w"].tolist() == [1.0, 1.0]
    save(run, 2)
    run.finish("complete", counters={})


def test_steps_only_grow_and_scores_are_finite(start: Start) -> None:
    with start() as run:
        save(run, 2)
        for step, score, reason in [
            (2, None, "not after"),
            (1, None, "not after"),
            (3, float("nan"), "finite"),
        ]:
            with pytest.raises(ValueError, match=reason):
                save(run, step, score)
        assert stored(run) == ["000000000002"]


def test_a_full_disk_leaves_the_earlier_state(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    metrics = run.metrics("train", ["a"])
    metrics.append({"a": 1})
    run.write_json("report", 1)
    save(run, 1)
    before = tree(run.path)
    write = os.write

    def short(descriptor: int, data: memoryview) -> int:
        """Write half of what is asked, then find the disk full."""
        if len(data) > 1:
            return write(descriptor, data[: len(data) // 2])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "write", short)
    metrics.append({"a": 2})  # waits until there is space
    attempts: list[Callable[[], None]] = [
        lambda: save(run, 2),
        lambda: run.write_json("report", 2),
        lambda: run.finish("complete", counters={}),
    ]
    for attempt in attempts:
        with pytest.raises(DiskFullError, match="no space left"):
            attempt()
        assert tree(run.path) == before
    monkeypatch.undo()
    assert not list(run.path.rglob(".tmp-*"))
    save(run, 2)
    run.finish("complete", counters={})
    artifact = Artifact.open(run.path, kind="agent")
    assert artifact.verify() == []
    assert artifact.rows("metrics/train") == [{"a": 1}, {"a": 2}]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (RuntimeError("boom\x1b"), "failed"),
        (StoppedError("stop"), "interrupted"),
        (KeyboardInterrupt(), "interrupted"),
    ],
    ids=["failed", "stopped", "Ctrl-C"],
)
def test_an_exception_marks_the_run_and_lets_go_of_it(
    start: Start, asked: dict[str, Any], error: BaseException, status: str
) -> None:
    run = start()

    def work() -> None:
        with run:
            save(run, 7)
            raise error

    with pytest.raises(type(error)):
        work()
    manifest, _ = read_manifest(run.path)
    assert (manifest.status, manifest.counters) == (status, {"env_steps": 7})
    assert manifest.notes[0].startswith(type(error).__name__)
    assert "checkpoints/000000000007/manifest.json" in manifest.files
    with Run.resume(run.path, **asked) as again:
        assert again.manifest.status == "running"
        again.finish("complete", counters={})


def test_a_run_says_with_what_it_went_on(
    start: Start, asked: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where that is not what its manifest says it began with; what else was said of it stays."""
    here = dict(provenance.versions())

    def go_on(device: str = "", **changed: str) -> list[str]:
        monkeypatch.setattr(provenance, "versions", lambda: {**here, **changed})
        with Run.resume(out, **asked, device=device) as again:
            save(again, max(again.scheduled_steps, default=0) + 5)
        return list(read_manifest(out)[0].notes[:-1])  # without how it ended

    with start() as run:
        out = run.path
        run.note("of old weights")
        run.note("of old weights")
    assert go_on() == ["of old weights"]
    torch_is = f"went on at step 5 with torch 9.9 (began with {here['torch']})"
    assert go_on(torch="9.9") == go_on(torch="9.9") == ["of old weights", torch_is]
    *before, device = go_on("cuda:0", torch="9.9")
    assert before == ["of old weights", torch_is]
    assert device.endswith("device cuda:0 (began with cpu)")
    assert go_on()[-1] == "went on at step 20 with what it began with"
    assert len(go_on()) == 4


def test_leaving_without_saying_how_it_ended_is_a_failure(start: Start) -> None:
    with start() as run:
        pass
    assert read_manifest(run.path)[0].status == "failed"


def test_the_first_error_is_the_one_that_is_seen(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    run = start()
    for stream in ("train", "evaluation"):
        run.metrics(stream, ["a"])

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "")

    def work() -> None:
        with run:
            monkeypatch.setattr(os, "fsync", full)
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        work()
    monkeypatch.undo()
    assert read_manifest(run.path)[0].status == "running"
    assert not _fs.is_locked(run.path / "lock")


def test_a_finished_run_takes_nothing_more(start: Start) -> None:
    run = start()
    run.finish("complete", counters={})
    for attempt in (
        lambda: run.write_text("a", "b"),
        lambda: run.metrics("train", ["a"]),
        lambda: save(run, 1),
        lambda: run.finish("failed", counters={}),
    ):
        with pytest.raises(ValueError, match="finished"):
            attempt()


def test_resuming_continues_metrics_where_the_checkpoint_left_them(
    start: Start, asked: dict[str, Any]
) -> None:
    with start() as run:
        train, other = run.metrics("train", ["a"]), run.metrics("other", ["b"])
        train.append({"a": 1})
        other.append({"b": 1})
        save(run, 1)
        train.append({"a": 2})  # done again after the resume
        run.finish("interrupted", counters={})
    with Run.resume(run.path, **asked) as run:
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.step == 1
        train = run.metrics("train", ["a"])
        train.append({"a": 3})
        save(run, 2)  # without the other stream, whose place is kept
        run.finish("interrupted", counters={})
    with Run.resume(run.path, **asked) as run:
        run.metrics("train", ["a"])
        run.metrics("other", ["b"])
        with pytest.raises(ValueError, match="already being written"):
            run.metrics("other", ["b"])
        run.finish("complete", counters={})
    artifact = Artifact.open(run.path, kind="agent")
    assert artifact.rows("metrics/train") == [{"a": 1}, {"a": 3}]
    assert artifact.rows("metrics/other") == [{"b": 1}]


def test_resuming_before_the_first_checkpoint_starts_from_nothing(
    start: Start, asked: dict[str, Any]
) -> None:
    with start() as run:
        run.metrics("train", ["a"]).append({"a": 1})
        run.finish("interrupted", counters={})
    with Run.resume(run.path, **asked) as run:
        assert run.latest_checkpoint() is None
        run.metrics("train", ["a"]).append({"a": 2})
        run.finish("complete", counters={})
    assert Artifact.open(run.path, kind="agent").rows("metrics/train") == [{"a": 2}]


def test_resuming_another_run_lists_every_difference(start: Start, asked: dict[str, Any]) -> None:
    with start() as run:
        run.finish("interrupted", counters={})
    before = tree(run.path)
    env_spec = {**asked["env_spec"], "task": "8x8", "n_agents": 3}
    with pytest.raises(ArtifactError) as caught:
        Run.resume(run.path, kind="dataset", fingerprint="cd" * 32, seed=4, env_spec=env_spec)
    assert caught.value.what.splitlines()[1:] == [
        'kind: found "agent", expected "dataset"',
        f'fingerprint: found "{"ab" * 32}", expected "{"cd" * 32}"',
        "seed: found 3, expected 4",
        'env_spec.task: found "5x5-2p-1f-coop", expected "8x8"',
        "env_spec.n_agents: found 2, expected 3",
    ]
    after = tree(run.path)
    del before["lock"], after["lock"]  # says who looked last
    assert after == before
    assert not _fs.is_locked(run.path / "lock")


def test_what_cannot_be_resumed(start: Start, asked: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtifactError, match="not an artifact"):
        Run.resume(tmp_path / "empty", **asked)
    assert list((tmp_path / "empty").iterdir()) == []
    with start() as run:
        run.finish("complete", counters={})
    with pytest.raises(RunExistsError, match="complete"):
        Run.resume(run.path, **asked)


def test_a_changed_config_stops_the_resume(start: Start, asked: dict[str, Any]) -> None:
    with start() as run:
        pass
    (run.path / "config.yaml").write_text("algorithm: qmix\n")
    with pytest.raises(ArtifactError, match=r"config\.yaml changed"):
        Run.resume(run.path, **asked)


def test_resuming_sweeps_what_a_kill_left(start: Start, asked: dict[str, Any]) -> None:
    with start() as run:
        save(run, 1)
    (run.path / "checkpoints" / ".tmp-1" / "weights").mkdir(parents=True)
    (run.path / "checkpoints" / ".tmp-1" / "weights" / "x").write_text("x")
    (run.path / ".tmp-2").write_text("x")
    with Run.resume(run.path, **asked) as run:
        assert not list(run.path.rglob(".tmp-*"))
        run.finish("complete", counters={})
    assert Artifact.open(run.path, kind="agent").verify() == []


HOLD = """
import sys, time
from pathlib import Path
from marl_sale.artifacts.store import Run
run = Run.create(Path(sys.argv[1]), kind="agent", recipe="r", overrides=[], config_text=None,
    fingerprint="ab" * 32, seed=3, env_spec=None, inputs=[], command="c", device="cpu")
with run.checkpoint(5, counters={}, score=None) as writer:
    writer.write_json("a", 1)
run.metrics("train", ["a"]).append({"a": 1})
with run.checkpoint(6, counters={}, score=None) as writer:
    writer.write_json("a", 1)
    print(flush=True)
    time.sleep(60)
"""


def test_a_second_process_is_refused_and_a_killed_one_leaves_a_run_to_resume(
    start: Start, asked: dict[str, Any], tmp_path: Path
) -> None:
    out, asked = tmp_path / "run", {**asked, "env_spec": None}
    with subprocess.Popen([sys.executable, "-c", HOLD, str(out)], stdout=subprocess.PIPE) as holder:
        try:
            assert holder.stdout is not None
            holder.stdout.readline()
            attempts: list[Callable[[], Run]] = [lambda: Run.resume(out, **asked), start]
            for attempt in attempts:
                with pytest.raises(StoppedError, match=f"in use by process {holder.pid} on ") as caught:
                    attempt()
                assert caught.value.exit_code == 75
            assert Artifact.open(out, kind="agent", status=["running"]).rows("metrics/train") == [{"a": 1}]
        finally:
            holder.send_signal(signal.SIGKILL)
    with Run.resume(out, **asked) as run:
        assert stored(run) == ["000000000005"]
        latest = run.latest_checkpoint()
        assert latest is not None
        assert latest.json("a") == 1
        run.finish("complete", counters={})


@pytest.mark.parametrize(
    ("code", "kind", "hint"),
    [
        (errno.EFBIG, DiskFullError, "limit"),  # ulimit -f
        (errno.EDQUOT, DiskFullError, "space"),
        (errno.EROFS, ArtifactError, "permissions"),
        (errno.EIO, ArtifactError, "the disk fails"),
        (errno.ENOENT, ArtifactError, "make it again"),
        (errno.ESTALE, UnreachableError, "nothing is damaged"),
        (errno.EMFILE, UnreachableError, "try again"),
    ],
)
def test_what_the_system_refuses_says_what_to_do(code: int, kind: type[MarlSaleError], hint: str) -> None:
    with pytest.raises(kind) as caught, _fs.explained("write", Path("file")):
        raise OSError(code, os.strerror(code))
    assert type(caught.value) is kind
    assert hint in caught.value.hint


def test_a_child_does_not_inherit_the_lock(start: Start, asked: dict[str, Any]) -> None:
    run = start()
    with subprocess.Popen(["sleep", "60"], close_fds=False) as child:
        try:
            run.finish("interrupted", counters={})
            Run.resume(run.path, **asked).finish("complete", counters={})
        finally:
            child.kill()


def test_the_new_checkpoint_is_durable_before_an_old_one_goes(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The order of the commit protocol: files, folder, rename, parent; only then deletion."""
    run = start()
    run.metrics("train", ["a"])
    save(run, 1)
    calls: list[str] = []
    at = f"{run.path}/checkpoints"

    def record(name: str, subject: Callable[..., str]) -> None:
        original = getattr(os, name)

        def recorded(*arguments: Any, **options: Any) -> Any:
            calls.append(f"{name} {subject(*arguments)}")
            return original(*arguments, **options)

        monkeypatch.setattr(os, name, recorded)

    record("fsync", lambda descriptor: str(Path(f"/proc/self/fd/{descriptor}").readlink()))
    record("rename", lambda source, target: f"{source} {target}")
    with run.checkpoint(2, counters={}, score=None) as writer:
        writer.write_json("a", 1)
    monkeypatch.undo()
    (new,) = (i for i, call in enumerate(calls) if call.startswith("rename") and call.endswith(f"{2:012d}"))
    temporary = calls[new].split()[1]
    (manifest,) = (i for i, c in enumerate(calls) if c.endswith(f"{temporary}/manifest.json"))
    (old,) = (i for i, call in enumerate(calls) if call.startswith(f"rename {at}/{1:012d}"))
    assert calls[manifest - 1].startswith(f"fsync {temporary}/.tmp-")
    assert f"fsync {run.path}/metrics/train.jsonl" in calls[:manifest]
    assert calls[manifest + 1 : new] == [f"fsync {temporary}"] * 2
    assert calls[new + 1 : old] == [f"fsync {at}"]
    assert manifest < new < old


def test_the_manifest_is_plain_json(start: Start) -> None:
    with start() as run:
        assert json.loads((run.path / "manifest.json").read_text())["status"] == "running"
