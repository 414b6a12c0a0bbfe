"""Artifacts from anyone: every file is checked, and what is wrong is said."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from marl_sale.artifacts.reader import Artifact, find_artifacts
from marl_sale.artifacts.store import Run
from marl_sale.errors import ArtifactError


@pytest.fixture
def agent(start: Callable[..., Run]) -> Path:
    with start() as run:
        run.write_tensors("weights/agent", {"w": torch.ones(2)})
        run.write_json("report", {"a": 1})
        run.metrics("train", ["a"]).append({"a": 1})
        with run.checkpoint(5, counters={"env_steps": 5}, score=0.5) as writer:
            writer.write_json("state", {"a": 1})
            writer.write_tensors("weights/online", {"w": torch.ones(2)})
        run.finish("complete", counters={})
    return run.path


def edit(path: Path, **changes: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def load_everything(path: Path) -> None:
    artifact = Artifact.open(path, kind="agent")
    assert artifact.config_text is not None
    artifact.tensors("weights/agent")
    artifact.json("report")
    artifact.rows("metrics/train")
    checkpoint = artifact.checkpoint("best")
    checkpoint.json("state")
    checkpoint.tensors("weights/online")


def test_the_sound_artifact_is_read(agent: Path) -> None:
    load_everything(agent)
    assert Artifact.open(agent, kind="agent").verify() == []


FILES = [
    "config.yaml",
    "report.json",
    "metrics/train.jsonl",
    "weights/agent.safetensors",
    "checkpoints/000000000005/manifest.json",
    "checkpoints/000000000005/state.json",
    "checkpoints/000000000005/weights/online.safetensors",
]


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-2] ^= 1
    path.write_bytes(data)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to("elsewhere")


def fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("harm", [flip, truncate, Path.unlink, link, fifo, folder])
def test_a_damaged_file_is_refused_and_found(agent: Path, name: str, harm: Callable[[Path], None]) -> None:
    harm(agent / name)
    with pytest.raises(ArtifactError) as caught:
        load_everything(agent)
    assert name in caught.value.what
    assert any(name in problem for problem in Artifact.open(agent, kind="agent").verify())


def test_a_file_of_another_length_is_called_that(agent: Path) -> None:
    truncate(agent / "report.json")
    with pytest.raises(ArtifactError, match=r"report\.json: damaged: \d+ bytes, its manifest says \d+"):
        Artifact.open(agent, kind="agent").json("report")


def test_a_linked_folder_is_refused(agent: Path, tmp_path: Path) -> None:
    (agent / "weights").rename(tmp_path / "weights")
    (agent / "weights").symlink_to(tmp_path / "weights")
    with pytest.raises(ArtifactError, match="weights"):
        Artifact.open(agent, kind="agent").tensors("weights/agent")


def test_a_linked_manifest_is_refused(agent: Path) -> None:
    link(agent / "manifest.json")
    with pytest.raises(ArtifactError, match="symbolic link"):
        Artifact.open(agent, kind="agent")


@pytest.mark.parametrize("name", ["../outside", "/etc/passwd", "weights/../report", "", "unlisted"])
def test_only_listed_files_are_read(agent: Path, name: str) -> None:
    (agent.parent / "outside.json").write_text("1")
    (agent / "unlisted.json").write_text("1")
    with pytest.raises(ArtifactError, match=r"not the name|not part of it"):
        Artifact.open(agent, kind="agent").json(name)
    with pytest.raises(ArtifactError, match=r"not the name|not part of it"):
        Artifact.open(agent, kind="agent").checkpoint(5).json(name)


def test_a_manifest_cannot_list_files_outside(agent: Path) -> None:
    secret = b"1"
    (agent.parent / "outside.json").write_bytes(secret)
    entry = {"sha256": hashlib.sha256(secret).hexdigest(), "bytes": 1}
    edit(agent / "manifest.json", files={"../outside.json": entry})
    with pytest.raises(ArtifactError, match="damaged: files"):
        Artifact.open(agent, kind="agent")


def test_the_wrong_kind_names_the_command_that_makes_the_right_one(agent: Path) -> None:
    with pytest.raises(ArtifactError, match="its kind is agent; needed: world-model or dataset") as caught:
        Artifact.open(agent, kind=["world-model", "dataset"])
    assert "marl-sale pretrain-wm makes world-model artifacts" in caught.value.hint
    with pytest.raises(ValueError, match="no such kind"):
        Artifact.open(agent, kind="model")


@pytest.mark.parametrize("status", ["running", "interrupted", "failed"])
def test_only_the_status_asked_for_is_accepted(agent: Path, status: str) -> None:
    edit(agent / "manifest.json", status=status)
    with pytest.raises(ArtifactError, match=f"its status is {status}; needed: complete") as caught:
        Artifact.open(agent, kind="agent")
    assert "--resume" in caught.value.hint
    assert Artifact.open(agent, kind="agent", status=[status]).manifest.status == status


def test_a_newer_schema_says_what_to_do(agent: Path) -> None:
    edit(agent / "manifest.json", schema_version=2)
    with pytest.raises(ArtifactError, match="schema 2, this one reads up to 1") as caught:
        Artifact.open(agent, kind="agent")
    assert "upgrade" in caught.value.hint


def test_a_checkpoint_of_another_run_or_step_is_refused(start: Callable[..., Run]) -> None:
    with start() as run:
        with run.checkpoint(5, counters={}, score=None) as writer:
            writer.write_json("a", 1)
        run.finish("interrupted", counters={})
    manifest = run.path / "checkpoints" / "000000000005" / "manifest.json"
    edit(run.path / "manifest.json", status="running", files={})
    for change in ({"run": "agent-other"}, {"step": 6}):
        original = manifest.read_text()
        edit(manifest, **change)
        with pytest.raises(ArtifactError, match="damaged: it is of step"):
            Artifact.open(run.path, kind="agent", status=["running"]).checkpoint()
        manifest.write_text(original)


def test_best_among_unscored_checkpoints_lists_the_steps(start: Callable[..., Run]) -> None:
    with start() as run:
        with run.checkpoint(5, counters={}, score=None):
            pass
        run.finish("complete", counters={})
    with pytest.raises(ArtifactError, match="no checkpoint best; there is: 5") as caught:
        Artifact.open(run.path, kind="agent").checkpoint("best")
    assert "latest" in caught.value.hint


def test_a_running_artifact_is_read_as_far_as_it_is_written(start: Callable[..., Run]) -> None:
    with start() as run:
        run.metrics("train", ["a"]).append({"a": 1})
        path = run.path / "metrics" / "train.jsonl"
        whole = path.read_bytes()
        path.write_bytes(whole + b'{"a"')
        artifact = Artifact.open(run.path, kind="agent", status=["running"])
        assert artifact.rows("metrics/train") == [{"a": 1}]
        assert artifact.verify() == []
        path.write_bytes(whole)


def test_verify_finds_what_is_not_listed(agent: Path) -> None:
    (agent / "weights" / "more.bin").write_bytes(b"")
    (agent / "checkpoints" / "000000000005" / "more.json").write_text("1")
    (agent / "checkpoints" / ".tmp-1").mkdir()
    (agent / "checkpoints" / ".tmp-1" / "x").write_text("1")
    (agent / "loop").symlink_to(agent)
    problems = Artifact.open(agent, kind="agent").verify()
    assert [problem.removeprefix(f"{agent}/") for problem in problems] == [
        "checkpoints/.tmp-1/x: not listed in the manifest",
        "checkpoints/000000000005/more.json: not listed in the manifest",
        "loop: not listed in the manifest",
        "weights/more.bin: not listed in the manifest",
    ]


def test_an_input_pins_the_artifact(agent: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    artifact = Artifact.open(agent, kind="agent")
    entry = artifact.as_input("agent")
    assert entry.manifest_sha256 == hashlib.sha256((agent / "manifest.json").read_bytes()).hexdigest()
    assert (entry.role, entry.id, entry.path) == ("agent", artifact.manifest.id, None)
    monkeypatch.chdir(agent.parent)
    assert Artifact.open(Path("run"), kind="agent").as_input("agent").path == "run"


def test_artifacts_are_found_below_a_folder(agent: Path, tmp_path: Path, start: Callable[..., Run]) -> None:
    with start(tmp_path / "deep" / "er" / "run") as run:
        run.finish("complete", counters={})
    (tmp_path / "linked").symlink_to(agent)
    (tmp_path / ".hidden").mkdir()
    (tmp_path / ".hidden" / "manifest.json").write_text("{}")
    assert list(find_artifacts(tmp_path)) == [run.path, agent]
    assert list(find_artifacts(agent)) == [agent]
    assert list(find_artifacts(tmp_path / "nothing")) == []
