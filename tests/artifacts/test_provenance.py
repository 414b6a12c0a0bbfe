import subprocess
from pathlib import Path

import numpy as np
import pytest

import marl_sale
from marl_sale.artifacts.provenance import git, versions


def commit(checkout: Path) -> None:
    for arguments in (
        ["init", "-q"],
        ["add", "."],
        ["-c", "user.name=n", "-c", "user.email=e@example.org", "commit", "-q", "-m", "m"],
    ):
        subprocess.run(["git", *arguments], cwd=checkout, check=True)


def test_versions_of_what_decides_a_result() -> None:
    found = versions()
    assert found["marl-sale"] == marl_sale.__version__
    assert found["numpy"] == np.__version__
    assert {"python", "torch", "lbforaging", "platform"} <= set(found)


def test_commit_and_dirtiness_of_the_source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for key in ("GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE"):
        monkeypatch.delenv(key, raising=False)
    (tmp_path / "marl_sale").mkdir()
    (tmp_path / "marl_sale" / "a.py").write_text("a = 1\n")
    commit(tmp_path)
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=tmp_path, check=True, capture_output=True, text=True
    ).stdout.strip()
    (tmp_path / "notes.txt").write_text("not part of the program")
    clean = git(tmp_path)
    assert clean is not None
    assert (clean.commit, clean.dirty) == (head, False)
    (tmp_path / "marl_sale" / "b.py").write_text("b = 1\n")
    dirty = git(tmp_path)
    assert dirty is not None
    assert dirty.dirty


def test_git_settings_of_the_caller_do_not_point_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "a").write_text("a")
    commit(tmp_path)
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    assert git(tmp_path) is not None


def test_no_checkout_no_git_and_no_commit_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert git(tmp_path) is None
    (tmp_path / ".git").mkdir()
    assert git(tmp_path) is None
    monkeypatch.setenv("PATH", "")
    assert git(tmp_path) is None
