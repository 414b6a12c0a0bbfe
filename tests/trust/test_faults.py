"""The disk refuses, being full, failing or read-only: errors say so, and nothing is lost."""

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from file_calls import WRITE_LIKE, Call, intercepted
from life import Life, content, violations
from test_kill import calls_of, unflushed

from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe
from marl_sale.errors import ArtifactError, DiskFullError, ExitCode, MarlSaleError
from marl_sale.observer import Silent
from marl_sale.stages import train
from marl_sale.stages.evaluate import EpisodeRow

EXPECTED = {errno.ENOSPC: DiskFullError, errno.EIO: ArtifactError, errno.EROFS: ArtifactError}
RUNS = ("agent", "diverged")
"""Artifacts of a life that have checkpoints."""


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class Refusing:
    """A disk that refuses the calls of the given names from one of them on: that one only, or all after it.

    A write it refuses has written half of its bytes before.
    """

    def __init__(self, code: int, at: int, *, lasting: bool, names: tuple[str, ...] = WRITE_LIKE) -> None:
        self.code, self.left, self.lasting, self.names = code, at, lasting, names
        self.refused: list[Call] = []

    def __call__(self, call: Call, go: Callable[..., Any]) -> Any:
        if call.name in self.names:
            self.left -= 1
            if self.left == -1 or (self.lasting and self.left < 0):
                if call.name == "write":
                    go(call.data[: len(call.data) // 2])
                self.refused.append(call)
                raise OSError(self.code, os.strerror(self.code))
        return unflushed(call, go)


def latest(found: dict[Any, Any], root: Path) -> dict[Any, Any]:
    """The content of a life but for older checkpoints, and the best score among them: which there are depends
    on when there was space.
    """
    last = {name: Artifact.open(root / name, kind="agent", status=("complete", "failed")) for name in RUNS}
    return {
        key: {name: each for name, each in value.items() if name != "best_score"}
        if isinstance(key[1], int)
        else value
        for key, value in found.items()
        if not isinstance(key[1], int) or key[1] == last[key[0]].checkpoints()[-1]
    }


def cut_short(life: Life, root: Path, refusing: Refusing) -> tuple[list[str], MarlSaleError | None]:
    """What a life on such a disk acknowledged, and the error that ended it, if one did."""
    acknowledged: list[str] = []
    root.mkdir()
    try:
        with intercepted(root, refusing):
            life(root, acknowledged.append)
    except MarlSaleError as error:
        return acknowledged, error
    return acknowledged, None


@pytest.fixture
def whole(life: Life, tmp_path: Path) -> tuple[Path, list[Call]]:
    """Folder of a life that was not cut short, and its calls that write."""
    calls = calls_of(life, tmp_path / "whole")
    return tmp_path / "whole", [call for call in calls if call.name in WRITE_LIKE]


def first_of_each_kind(calls: list[Call]) -> list[int]:
    """One call for each line of `_fs.py` that they come from, and a second one, further on, where it can."""
    kinds: dict[Any, list[int]] = {}
    for index, call in enumerate(calls):
        kinds.setdefault((call.name, call.sites[:3]), []).append(index)
    return sorted({index for found in kinds.values() for index in (found[0], found[len(found) // 2])})


@pytest.mark.parametrize("lasting", [False, True], ids=["once", "from-then-on"])
@pytest.mark.parametrize("code", EXPECTED, ids=errno.errorcode.get)
def test_a_disk_that_refuses_at_every_call(
    life: Life,
    whole: tuple[Path, list[Call]],
    tmp_path: Path,
    code: int,
    lasting: bool,
    is_long: bool,
    record: Callable[..., None],
) -> None:
    folder, calls = whole
    ends, root = latest(content(folder), folder), tmp_path / "refused"
    chosen = list(range(len(calls))) if is_long else first_of_each_kind(calls)[int(lasting) :: 8]
    raised = 0
    for at in chosen:
        refusing = Refusing(code, at, lasting=lasting)
        acknowledged, error = cut_short(life, root, refusing)
        where = (at, refusing.refused[0], error)
        assert error is None or type(error) is EXPECTED[code], where
        if lasting and error is None:  # it ended as it was to end, with the first error there was
            assert refusing.refused[0].path.split("/")[0] == "diverged", where
        raised += error is not None
        assert not violations(root, acknowledged, folder), where
        with intercepted(root, unflushed):
            life(root, acknowledged.append)
        assert latest(content(root), root) == ends, where
        shutil.rmtree(root)
    record(calls=len(calls), refused_at=len(chosen), ended_the_run=raised, lost=0)


def test_short_writes_change_nothing(life: Life, whole: tuple[Path, list[Call]], tmp_path: Path) -> None:
    def short(call: Call, go: Callable[..., Any]) -> Any:
        return go(call.data[: len(call.data) // 3 + 1]) if call.name == "write" else unflushed(call, go)

    root = tmp_path / "short"
    root.mkdir()
    with intercepted(root, short):
        life(root, lambda _: None)
    assert content(root) == content(whole[0])


# --- the rule for a full disk: go on, try again, give up at the third failure


SHORT_RUN = ("train.checkpoint_period=20", "train.env_steps=120", "evaluation.period=1000")


def trained(recipe: Recipe, out: Path, refusing: Refusing | None, *, resume: bool = False) -> list[str]:
    """Train, on a disk that may refuse; returns the notes."""
    notes = Notes()
    out.parent.mkdir(exist_ok=True)
    with intercepted(out.parent, refusing or unflushed):
        train.run(recipe, out, seed=1, device="cpu", observer=notes, command="test", resume=resume)
    return notes.notes


class FullFor(Refusing):
    """A disk that is full for the given number of checkpoints, counted by their folders, and then is not."""

    def __init__(self, checkpoints: int, after: int) -> None:
        super().__init__(errno.ENOSPC, 0, lasting=True)
        self.first, self.last, self.seen = after, after + checkpoints, 0

    def __call__(self, call: Call, go: Callable[..., Any]) -> Any:
        if "make_temporary_folder" in call.sites:
            self.seen += 1
        full = self.first < self.seen <= self.last and call.name in ("create", "write", "mkdir")
        if full and "sync_folder" not in call.sites:
            self.refused.append(call)
            raise OSError(self.code, os.strerror(self.code))
        return unflushed(call, go)


def weights(out: Path) -> str:
    artifact = Artifact.open(out, kind="agent")
    assert artifact.verify() == []
    return artifact.checkpoint().manifest.files["weights.safetensors"].sha256


def rows(out: Path) -> list[Any]:
    """Of the training metrics, without clocks."""
    found = Artifact.open(out, kind="agent").rows("metrics/train")
    return [{n: v for n, v in row.items() if not n.startswith(("time_", "seconds"))} for row in found]


def test_training_goes_on_while_the_disk_is_full_for_two_checkpoints(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = short_recipe("qmix", changes=SHORT_RUN)
    full = FullFor(2, after=1)
    notes = trained(recipe, tmp_path / "full" / "agent", full)
    assert full.refused
    assert [note[-16:] for note in notes if "no space" in note] == ["(failure 1 of 3)", "(failure 2 of 3)"]
    assert not list(tmp_path.rglob(".tmp-*"))
    trained(recipe, tmp_path / "free" / "agent", None)
    assert weights(tmp_path / "full" / "agent") == weights(tmp_path / "free" / "agent")
    assert rows(tmp_path / "full" / "agent") == rows(tmp_path / "free" / "agent")


def test_a_best_score_that_was_not_saved_is_not_the_best(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The next one only has to be better than what there is."""
    returns, out = iter([0.0, 0.5, 0.3, 0.2]), tmp_path / "full" / "agent"
    monkeypatch.setattr(train, "evaluate_policy", lambda *_, **__: [EpisodeRow(0, 0, next(returns), 1, True)])
    changes = ["train.checkpoint_period=1000", "train.env_steps=150", "evaluation.period=50"]
    full = FullFor(1, after=0)
    trained(short_recipe("qmix", changes=changes), out, full)
    assert full.refused
    artifact = Artifact.open(out, kind="agent")
    assert [artifact.checkpoint(step).score for step in artifact.checkpoints()] == [0.3, 0.2]


def test_the_third_failure_in_a_row_ends_the_run_which_can_be_resumed(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, out = short_recipe("qmix", changes=SHORT_RUN), tmp_path / "full" / "agent"
    with pytest.raises(DiskFullError, match="no space left") as caught:
        trained(recipe, out, FullFor(3, after=1))
    assert caught.value.exit_code == ExitCode.DISK_FULL
    assert Artifact.open(out, kind="agent", status=["running", "failed"]).checkpoints()
    trained(recipe, out, None, resume=True)
    trained(recipe, tmp_path / "free" / "agent", None)
    assert weights(out) == weights(tmp_path / "free" / "agent")
    assert rows(out) == rows(tmp_path / "free" / "agent")
