"""Updates whose numbers go wrong: left out, gone back for, or the end of a run, and repeated then."""

import copy
import gc
import math
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary, WeakSet

import pytest
import torch
from torch import Tensor

from marl_sale.algorithms import mmsa
from marl_sale.artifacts.manifest import read_manifest
from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe
from marl_sale.data.batch import Batch
from marl_sale.data.replay import Replay
from marl_sale.errors import (
    ArtifactError,
    DiskFullError,
    DivergedError,
    ExitCode,
    MarlSaleError,
    NotFiniteError,
    StoppedError,
)
from marl_sale.imagination import imagine
from marl_sale.observer import Silent
from marl_sale.stages import train
from marl_sale.stages.diverged import Guard, repeat
from marl_sale.stages.result import StageResult

CHANGES = ["train.updates_per_episode=2", "train.checkpoint_period=50"]


class Notes(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


def run(recipe: Recipe, out: Path, **changes: Any) -> StageResult:
    arguments: dict[str, Any] = {"seed": 1, "device": "cpu", "observer": Silent(), "command": "test"}
    return train.run(recipe, out, **{**arguments, **changes})


def opened(out: Path) -> Artifact:
    return Artifact.open(out, kind="agent", status=("complete", "failed"))


def poison(monkeypatch: pytest.MonkeyPatch, bad: Callable[[int, int], bool]) -> None:
    """Infinite rewards in each batch for which `bad(draws from this replay, episodes ever added to it)`."""
    sample, draws = Replay.sample, WeakKeyDictionary[Replay, int]()

    def poisoned(replay: Replay, *arguments: Any) -> Batch:
        batch = sample(replay, *arguments)
        draws[replay] = draws.get(replay, 0) + 1
        if bad(draws[replay], replay.added):
            return batch.with_reward(batch.reward * math.inf + math.inf)
        return batch

    monkeypatch.setattr(Replay, "sample", poisoned)


def test_a_few_bad_updates_are_left_out_and_counted(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    poison(monkeypatch, lambda draw, _: draw in (3, 4, 5, 9))
    run(short_recipe("qmix", changes=CHANGES), tmp_path / "agent")
    artifact = opened(tmp_path / "agent")
    last = artifact.rows("metrics/train")[-1]
    assert last["updates_skipped"] == artifact.manifest.counters["updates_skipped"] == 4
    assert last["updates"] > 20
    assert last["loss_td"] is not None
    assert math.isfinite(last["loss_td"])  # means are over the updates that were made


def test_too_many_bad_updates_lead_back_to_the_last_checkpoint_at_half_the_rate(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe, out, notes, attempts = short_recipe("qmix", changes=CHANGES), tmp_path / "agent", Notes(), []
    rates, replays = [], WeakSet[Replay]()

    def bad(draw: int, added: int) -> bool:
        attempts.append(draw)
        return attempts.count(1) == 1 and added > 14  # only until the first return

    poison(monkeypatch, bad)
    start = train.Training.run

    def watched(self: train.Training, *arguments: Any, **options: Any) -> None:
        rates.append(self.progress.algorithm.optimiser.param_groups[0]["lr"])
        replays.add(self.progress.replay)
        gc.collect()
        assert len(replays) == 1  # nothing holds what the attempt before held
        start(self, *arguments, **options)

    monkeypatch.setattr(train.Training, "run", watched)
    assert run(recipe, out, observer=notes).status == "complete"
    rate = recipe.config.optimiser.learning_rate
    assert rates == [rate, rate / 2]
    assert any("batch.reward" in note and "1 of 2" in note for note in notes.notes)
    steps = [row["env_steps"] for row in opened(out).rows("metrics/train")]
    assert steps == sorted(set(steps))  # rows of the part that was done again are there once
    assert opened(out).manifest.counters["updates_skipped"] == 0


def test_a_signal_before_the_return_stops_the_run(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What goes on from there finds the same bad updates, and returns."""
    recipe, out, notes, bad_ones = short_recipe("qmix", changes=CHANGES), tmp_path / "agent", Notes(), []

    def bad(draw: int, added: int) -> bool:
        if added <= 14 or len(bad_ones) == 8:
            return False
        bad_ones.append(draw)
        if len(bad_ones) == 4:
            signal.raise_signal(signal.SIGTERM)
        return True

    poison(monkeypatch, bad)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        run(recipe, out)
    assert Artifact.open(out, kind="agent", status="interrupted").verify() == []
    assert run(recipe, out, resume=True, observer=notes).status == "complete"
    assert any("1 of 2" in note for note in notes.notes)


def test_the_return_finds_its_episodes_although_a_save_came_to_nothing(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scheduled save lists what the replay still holds; where it fails, the next must not go by that."""
    recipe = short_recipe("qmix", changes=[*CHANGES, "replay.capacity_episodes=4"])
    out, notes, saves, bad_ones = tmp_path / "agent", Notes(), list[bool](), []
    save = train.Progress.save

    def full(self: train.Progress, *arguments: Any, **options: Any) -> None:
        save(self, *arguments, **options)
        saves.append(options["scheduled"])
        if options["scheduled"] and sum(saves) == 2:
            raise DiskFullError("no space left")

    def bad(draw: int, added: int) -> bool:
        if saves[-2:] != [True, False] or sum(saves) != 2 or len(bad_ones) == 4:
            return False
        bad_ones.append(draw)
        return True

    monkeypatch.setattr(train.Progress, "save", full)
    monkeypatch.setattr(train.Due, "__bool__", lambda _: True)  # the clock asks for one after every round
    poison(monkeypatch, bad)
    assert run(recipe, out, observer=notes).status == "complete"
    assert any("no space left" in note for note in notes.notes)
    assert any("1 of 2" in note for note in notes.notes)


def test_a_run_that_cannot_go_on_ends_and_can_be_repeated(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, out = Notes(), tmp_path / "agent"
    poison(monkeypatch, lambda _, added: added > 14)
    with pytest.raises(MarlSaleError, match=r"the gradient is not finite, and first batch\.reward") as caught:
        run(short_recipe(changes=CHANGES), out, observer=notes)
    assert caught.value.exit_code == ExitCode.DIVERGED
    back = [note for note in notes.notes if "back at" in note]
    assert ["1 of 2, learning rate × 0.5" in back[0], "2 of 2, learning rate × 0.25" in back[1]] == [
        True,
        True,
    ]
    assert set(back) <= set(read_manifest(out)[0].notes)  # `plot` says it too
    assert opened(out).manifest.status == "failed"
    assert opened(out).verify() == []
    repeated = repeat(out)
    assert repeated.first == "batch.reward"
    assert repeated.what.startswith(caught.value.what.partition(":")[0] + ":")
    assert not repeated.what.startswith("after 0 updates:")


def test_what_goes_wrong_inside_imagination_is_caught_and_named(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From the second imagined step on: no update is made of it, and the bundle says where it began."""
    before: dict[str, Tensor] = {}

    def exploding(*arguments: Any) -> Tensor:
        latents = imagine(*arguments)
        return torch.cat([latents[:1], latents[1:] * math.inf])

    def update(algorithm: mmsa.Mmsa, batch: Batch) -> dict[str, Tensor]:
        before.update(copy.deepcopy(algorithm.state_dict()))
        try:
            return real(algorithm, batch)
        except NotFiniteError:
            after = algorithm.state_dict()
            assert all(torch.equal(value, after[name]) for name, value in before.items())
            raise

    real = mmsa.Mmsa.update
    monkeypatch.setattr(mmsa, "imagine", exploding)
    monkeypatch.setattr(mmsa.Mmsa, "update", update)
    changes = ["world_model.imagination_length=3", "optimiser.target_update_period=1"]
    with pytest.raises(DivergedError, match="first imagined latent 2"):
        run(short_recipe(changes=changes), tmp_path / "agent")
    artifact = opened(tmp_path / "agent")
    assert artifact.json("diverged/update")["first_not_finite"] == "imagined latent 2"
    assert repeat(tmp_path / "agent").first == "imagined latent 2"


def test_only_a_run_that_diverged_can_be_repeated(agent: Path) -> None:
    with pytest.raises(ArtifactError, match="did not diverge"):
        repeat(agent)


def test_what_is_too_many() -> None:
    in_a_row, scattered, old = Guard(), Guard(), Guard()
    assert [in_a_row.too_many(n) for n in (7, 8, 9, 10)] == [False, False, False, True]
    assert [scattered.too_many(n) for n in range(0, 1100, 100)] == [False] * 11
    assert [old.too_many(n) for n in range(0, 22, 2)] == [False] * 10 + [True]
