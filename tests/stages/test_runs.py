"""What a command says of the folder it is to write in, and what it tells to type."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marl_sale.config.recipe import Recipe
from marl_sale.errors import ArtifactError, MarlSaleError, RunExistsError, StoppedError
from marl_sale.observer import Silent
from marl_sale.stages import plan, pretrain_wm, train

Recipes = Callable[..., Recipe]


class Stop(Silent):
    sent = False

    def progress(self, done: int, figures: object) -> None:
        if not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


def said(kind: type[MarlSaleError], recipe: Recipe, out: Path, **more: Any) -> tuple[str, str]:
    """What and hint of the error; a dry run says the same, but for the command."""
    options: dict[str, Any] = {"seed": 1, "device": "cpu", **more}
    with pytest.raises(kind) as caught:
        train.run(recipe, out, observer=Silent(), command="marl-sale train x", **options)
    with pytest.raises(kind) as planned:
        plan.train(recipe, out, **options)
    assert caught.value.what == planned.value.what
    assert caught.value.hint == planned.value.hint.replace(
        "with: the same command", "with: marl-sale train x"
    )
    return caught.value.what, caught.value.hint


@pytest.fixture(scope="module")
def unfinished(short_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("unfinished") / "agent"
    recipe = short_recipe("qmix", changes=["evaluation.episodes=1"])
    with pytest.raises(StoppedError):
        train.run(recipe, out, seed=1, device="cpu", observer=Stop(), command="marl-sale train x")
    return out


def test_the_same_command_on_an_unfinished_run_names_the_next_one(
    unfinished: Path, short_recipe: Recipes
) -> None:
    what, hint = said(RunExistsError, short_recipe("qmix", changes=["evaluation.episodes=1"]), unfinished)
    assert "begun before and is not finished (interrupted, at " in what
    assert "env steps); nothing in it was touched" in what
    assert hint == "go on with: marl-sale train x --resume"


def test_another_run_is_told_from_this_one_by_its_keys(unfinished: Path, short_recipe: Recipes) -> None:
    other = short_recipe("vdn", changes=["evaluation.episodes=1", "discount=0.5"])
    differences = ['algorithm: found "qmix", expected "vdn"', "discount: found 0.99, expected 0.5"]
    what, hint = said(RunExistsError, other, unfinished, seed=2)
    assert "holds another run (agent of tiny/match+tiny+qmix, seed 1, interrupted)" in what
    assert hint == "choose another folder with --out"
    resumed, _ = said(ArtifactError, other, unfinished, seed=2, resume=True)
    for difference in (*differences, "seed: found 1, expected 2"):
        assert difference in what
        assert difference in resumed


def test_how_a_run_is_kept_may_change_when_it_goes_on(unfinished: Path, short_recipe: Recipes) -> None:
    kept = ["train.checkpoint_minutes=1", "train.keep_checkpoints=every"]
    recipe = short_recipe("qmix", changes=["evaluation.episodes=1", *kept])
    planned = plan.train(recipe, unfinished, seed=1, device="cpu", resume=True)
    assert planned.metrics["goes_on"].startswith("at ")


@pytest.mark.parametrize("resume", [False, True])
def test_a_complete_run_is_complete(resume: bool, agent: Path, short_recipe: Recipes) -> None:
    what, hint = said(RunExistsError, short_recipe(), agent, seed=0, resume=resume)
    assert "this run is complete; nothing is left to do" in what
    assert f"marl-sale runs show {agent}" in hint
    assert "train for longer: a larger train.env_steps and --resume" in hint


def test_there_is_nothing_to_go_on_with(short_recipe: Recipes, tmp_path: Path) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "precious.txt").write_text("x")
    for folder in ("full", "gone"):
        what, hint = said(ArtifactError, short_recipe(), tmp_path / folder, resume=True)
        assert "there is no run to go on with" in what
        assert "without --resume" in hint
    what, hint = said(RunExistsError, short_recipe(), tmp_path / "full")
    assert (what.split(": ")[1], hint) == (
        "not empty; nothing in it was touched",
        "choose another folder with --out",
    )


def test_pretrain_wm_says_the_same(world_model: Path, short_recipe: Recipes, tmp_path: Path) -> None:
    options: dict[str, Any] = {"device": "cpu", "observer": Silent(), "command": "marl-sale pretrain-wm x"}
    with pytest.raises(RunExistsError, match="this run is complete"):
        pretrain_wm.run(short_recipe(), world_model, seed=0, resume=True, **options)
    out = tmp_path / "wm"
    with pytest.raises(StoppedError, match="after 2 episodes"):
        pretrain_wm.run(short_recipe(), out, seed=1, **{**options, "observer": Stop()})
    with pytest.raises(RunExistsError, match=r"interrupted, at 2 episodes") as caught:
        pretrain_wm.run(short_recipe(), out, seed=1, **options)
    assert caught.value.hint == "go on with: marl-sale pretrain-wm x --resume"
    dataset = world_model.parent / "dataset"
    with pytest.raises(ArtifactError, match="began from nothing, asked to go on from dataset"):
        pretrain_wm.run(short_recipe(), out, seed=1, dataset=dataset, resume=True, **options)
