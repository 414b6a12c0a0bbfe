"""The power goes at any moment: what had been acknowledged is there, and going on ends the same.

And the proof can fail: it does without one flush, or with the steps of the protocol in a wrong order.
"""

import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import get_args

import pytest
from file_calls import Call, intercepted
from life import ARTIFACTS, Life, content, violations
from mutants import MUTANTS, Mutant
from power_loss import Acknowledged, Crash, Model, Names, Recorder, Sync, Tree, crashes
from test_kill import calls_of, unflushed

from marl_sale.errors import MarlSaleError

SHORT, LONG = 3, 80
"""States for a crash after each step, at most."""


def recorded(life: Life, root: Path, leave_out: Callable[[Call], bool] = lambda _: False) -> Recorder:
    """A life in the new folder `root`, step by step."""
    recorder = Recorder(leave_out)
    root.mkdir()
    with intercepted(root, recorder):
        life(root, recorder.acknowledge)
    return recorder


def lay_out(tree: Tree, root: Path) -> None:
    """Put what the disk held into the new folder `root`."""
    root.mkdir()
    for path, data in tree.items():
        if data is None:
            (root / path).mkdir()
        else:
            (root / path).write_bytes(data)


@dataclass
class Examination:
    """What is wrong with each of many crash states.

    Artifacts that look alike are judged once, and of the states with the same names in their folders one is
    gone on from, to the end.
    """

    life: Life
    whole: Path
    root: Path
    states: int = 0
    continued: int = 0
    _judged: dict[int, list[str]] = field(default_factory=dict)
    _shapes: set[frozenset[str]] = field(default_factory=set)

    def __call__(self, crash: Crash, *, go_on: bool = True) -> list[str]:
        self.states += 1
        problems = [problem for name in ARTIFACTS for problem in self._judge(crash, name)]
        shape = frozenset(re.sub(r"\.tmp-\w+", ".tmp-", path) for path in crash.tree)
        if not problems and go_on and shape not in self._shapes:
            self._shapes.add(shape)
            problems = self._go_on(crash)
        return [f"after step {crash.at}: {problem}" for problem in problems]

    def _judge(self, crash: Crash, name: str) -> list[str]:
        tree = {path: data for path, data in crash.tree.items() if path.split("/")[0] == name}
        acknowledged = tuple(text for text in crash.acknowledged if text.split()[0] == name)
        key = hash((name, acknowledged, frozenset(tree.items())))
        if key not in self._judged:
            lay_out(tree, self.root)
            self._judged[key] = violations(self.root, acknowledged, self.whole, [name])
            shutil.rmtree(self.root)
        return self._judged[key]

    def _go_on(self, crash: Crash) -> list[str]:
        self.continued += 1
        lay_out(crash.tree, self.root)
        try:
            with intercepted(self.root, unflushed):
                self.life(self.root, lambda _: None)
            return [] if content(self.root) == content(self.whole) else ["went on to another end"]
        except MarlSaleError as error:
            return [f"cannot go on: {error}"]
        finally:
            shutil.rmtree(self.root)


@pytest.mark.parametrize("model", get_args(Model))
def test_power_lost_at_every_step(
    life: Life, tmp_path: Path, model: Model, is_long: bool, record: Callable[..., None]
) -> None:
    recorder = recorded(life, tmp_path / "whole")
    examine = Examination(life, tmp_path / "whole", tmp_path / "crashed")
    for crash in crashes(recorder, model, most=LONG if is_long else SHORT):
        # Going on takes a hundred times as long as looking: in the short form, from few states.
        problems = examine(crash, go_on=is_long or crash.at % 50 == 0)
        assert not problems
    if is_long:
        assert examine.states >= 20_000
    record(steps=len(recorder.steps), states=examine.states, continued_to_the_end=examine.continued, bad=0)


# --- mutations


FLUSHES = {
    "of a new file": ("_write_new",),
    "of the folder a file is renamed in": ("sync_folder", "write"),
    "of the folder of a new folder": ("sync_folder", "make_folder"),
    "of the folder a checkpoint is renamed in": ("sync_folder", "_rename", "commit"),
    "of metrics at a checkpoint": ("sync",),
    "of the folder of a new metrics file": ("sync_folder", "open_growing"),
    "of the folder of a new lock": ("sync_folder", "lock"),
    "of the folder that loses a checkpoint": ("sync_folder", "_rename", "remove"),
}
"""Functions of `_fs.py`, innermost first, that make the flush."""


@pytest.mark.parametrize("sites", FLUSHES.values(), ids=FLUSHES)
def test_a_missing_flush_is_noticed(life: Life, tmp_path: Path, sites: tuple[str, ...]) -> None:
    left_out: list[Call] = []

    def leave_out(call: Call) -> bool:
        hit = call.name == "fsync" and call.sites[: len(sites)] == sites
        left_out.extend([call] * hit)
        return hit

    calls_of(life, tmp_path / "whole")
    recorder = recorded(life, tmp_path / "mutant", leave_out)
    assert left_out
    examine = Examination(life, tmp_path / "whole", tmp_path / "crashed")
    # What was acknowledged without a flush is missing at once; only a new run can tell that a lock is.
    reported = [at for at, step in enumerate(recorder.steps, 1) if isinstance(step, Acknowledged)]
    is_lock = "lock" in sites
    states = crashes(recorder, "weak", most=30, at=range(50) if is_lock else reported)
    assert any(examine(crash, go_on=is_lock) for crash in states)


@pytest.mark.parametrize("model", get_args(Model))
@pytest.mark.parametrize("mutate", MUTANTS)
def test_a_wrong_order_is_noticed(
    life: Life,
    tmp_path: Path,
    model: Model,
    mutate: Mutant,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls_of(life, tmp_path / "whole")
    with monkeypatch.context() as patch:
        mutate(patch)
        recorder = recorded(life, tmp_path / "mutant")
    examine, steps = Examination(life, tmp_path / "whole", tmp_path / "crashed"), recorder.steps
    first, last = (steps.index(Acknowledged(f"agent {saved}")) for saved in (1, 3))
    at = [end for end in range(first, last) if isinstance(steps[end - 1], Names | Sync)]
    assert any(examine(crash, go_on=False) for crash in crashes(recorder, model, most=3, at=at))
