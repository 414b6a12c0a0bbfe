"""From the words of a command to cells."""

from pathlib import Path

import pytest

from marl_sale.artifacts.sweep import Sweep, check_folder, hold, read_sweep
from marl_sale.config.recipe import load_recipe
from marl_sale.errors import ArtifactError, ConfigError, RunExistsError, StoppedError, UsageError
from marl_sale.sweeps import product
from marl_sale.sweeps.product import make_sweep, seeds_of, values_of

TINY = "tiny/match+tiny"


def test_seeds() -> None:
    assert seeds_of("0-2,7") == (0, 1, 2, 7)
    assert seeds_of(" 5 ") == (5,)


@pytest.mark.parametrize("text", ["", "a", "1-", "-1", "3-1", "0-2,2", "1,,2", "0-99999", "1e3", "9" * 30])
def test_what_is_no_list_of_seeds_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--seeds"):
        seeds_of(text)


@pytest.mark.parametrize(
    ("text", "key", "values"),
    [
        ("discount=0.9,0.99", "discount", ["0.9", "0.99"]),
        ("discount = 0.9 , 0.99", "discount", ["0.9", "0.99"]),
        ('env.task="a,n_agents=3",b', "env.task", ['"a,n_agents=3"', "b"]),
        ("env.task='a,b'", "env.task", ["'a,b'"]),
        ("""x="it's",'"'""", "x", ['"it\'s"', "'\"'"]),
        ("x=[1,2],{a: 1,b: 2}", "x", ["[1,2]", "{a: 1,b: 2}"]),
        ("x=a=b", "x", ["a=b"]),
    ],
)
def test_values_are_split_at_commas_outside_quotes(text: str, key: str, values: list[str]) -> None:
    assert values_of(text) == (key, values)


@pytest.mark.parametrize("text", ["discount", "=1", "x=", "x=1,", "x=,1", 'x="1,2', "x=[1,2"])
def test_what_is_no_list_of_values_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--set"):
        values_of(text)


def test_cells_are_the_product_each_with_the_command_that_makes_it() -> None:
    sweep, folder = make_sweep(
        [TINY, f"{TINY}+qmix"], ["discount=0.9,0.99", "train.num_envs=2"], (0, 3), Path("out"), device="cpu"
    )
    assert folder == Path("out")
    assert len(sweep.cells) == len({cell.name for cell in sweep.cells}) == 8
    cell = sweep.cells[1]
    recipe = load_recipe(TINY, ["discount=0.9", "train.num_envs=2"])
    # What does not vary is not in the name.
    assert cell.name == f"tiny-match+tiny_discount-0.9_seed3-{recipe.fingerprint[:8]}"
    assert (cell.fingerprint, cell.seed, cell.env_steps) == (recipe.fingerprint, 3, 2000)
    (step,) = cell.steps
    assert list(step.argv) == [
        *("marl-sale", "train", TINY, "--set", "discount=0.9", "--set", "train.num_envs=2"),
        *("--seed", "3", "--device", "cpu", "--out", f"out/{cell.name}/agent"),
    ]


def test_a_quoted_value_reaches_the_recipe() -> None:
    sweep, _ = make_sweep(["vmas/balance"], ['env.task="balance,n_agents=3",wheel'], (0,), None)
    assert [cell.overrides[0] for cell in sweep.cells] == ['env.task="balance,n_agents=3"', "env.task=wheel"]


def test_pretraining_goes_before_training_where_there_is_something_to_pretrain() -> None:
    sweep, _ = make_sweep([TINY, f"{TINY}+qmix"], [], (0,), Path("out"), pretrain=True)
    with_model, without = sweep.cells
    assert [step.kind for step in with_model.steps] == ["world-model", "agent"]
    first, second = (list(step.argv) for step in with_model.steps)
    assert first[1] == "pretrain-wm"
    assert second[second.index("--world-model") + 1] == first[first.index("--out") + 1]
    assert [step.kind for step in without.steps] == ["agent"]


def test_a_list_of_cells_that_could_not_be_read_again_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else no --resume would ever find it."""
    whole = len(make_sweep([TINY], [], range(40), None)[0].to_bytes())
    monkeypatch.setattr(product, "MAX_SWEEP_BYTES", whole)
    make_sweep([TINY], [], range(40), None)
    with pytest.raises(UsageError, match="41 cells: too long a list"):
        make_sweep([TINY], [], range(41), None)


def test_the_default_folder_names_the_cells() -> None:
    def folder(*changes: str, seeds: tuple[int, ...] = (0,), pretrain: bool = False) -> Path:
        return make_sweep([TINY], changes, seeds, None, pretrain=pretrain)[1]

    same = folder("discount=0.9,0.8")
    assert folder("discount=0.9,0.8") == same
    others = [
        folder("discount=0.9"),
        folder("discount=0.9,0.8", seeds=(1,)),
        folder("discount=0.9,0.8", pretrain=True),
    ]
    assert len({same, *others}) == 4
    assert same.parent == Path("results/sweeps")


def test_every_problem_of_every_recipe_is_reported_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_sweep([TINY, "tiny/none"], ["discount=0.9,2,x"], (0,), None)
    assert len(caught.value.problems) == 3
    assert all(word in str(caught.value) for word in ("found 2", "found x", "tiny/none"))


@pytest.mark.parametrize(
    ("recipes", "changes"),
    [
        ([TINY, TINY], []),
        ([TINY], ["discount=0.9,0.90"]),
        ([TINY], ["discount=0.9", "discount=0.8"]),
        ([TINY], ["train.env_steps=" + ",".join(map(str, range(1, 4099)))]),
    ],
)
def test_the_same_cell_twice_and_too_many_are_refused(recipes: list[str], changes: list[str]) -> None:
    with pytest.raises(UsageError):
        make_sweep(recipes, changes, (0,), None)


def small(seeds: tuple[int, ...] = (0,)) -> Sweep:
    return make_sweep([f"{TINY}+qmix"], [], seeds, Path("out"))[0]


def test_the_folder_of_a_sweep_is_taken_once(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(ArtifactError, match="no sweep to resume"):
        check_folder(out, small(), resume=True)
    with (
        hold(out, small(), resume=False),
        pytest.raises(StoppedError, match="in use by process"),
        hold(out, small(), resume=True),
    ):
        pass
    assert read_sweep(out) == small()
    with pytest.raises(RunExistsError, match="--resume"):
        check_folder(out, small(), resume=False)
    with hold(out, small(), resume=True):
        pass
    elsewhere = make_sweep([f"{TINY}+qmix"], [], (0,), Path("out"), device="cuda")[0]
    with hold(out, elsewhere, resume=True):  # what is run is what is said
        assert read_sweep(out) == elsewhere != small()


def test_a_folder_with_anything_else_is_refused(tmp_path: Path) -> None:
    with hold(tmp_path / "sweep", small(), resume=False):
        pass
    before = (tmp_path / "sweep" / "sweep.json").read_bytes()
    for resume in (False, True):
        with pytest.raises(RunExistsError, match=r"not in it: .*seed1"):
            check_folder(tmp_path / "sweep", small((0, 1)), resume=resume)
    assert (tmp_path / "sweep" / "sweep.json").read_bytes() == before
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.tex").touch()
    with pytest.raises(RunExistsError, match="no sweep"), hold(tmp_path / "other", small(), resume=False):
        pass
    assert [path.name for path in (tmp_path / "other").iterdir()] == ["thesis.tex"]


@pytest.mark.parametrize(
    "text", ["{", "{}", '{"format": "marl-sale-sweep"}', '{"id": "a", "id": "a", "cells": []}', "[" * 100]
)
def test_a_damaged_sweep_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.json").write_text(text)
    with pytest.raises(ArtifactError, match=r"sweep\.json"):
        read_sweep(tmp_path)


def test_a_sweep_cannot_write_outside_its_folder(tmp_path: Path) -> None:
    with hold(tmp_path, small(), resume=False):
        pass
    path = tmp_path / "sweep.json"
    name = small().cells[0].name
    for climbing in ("../x", "/etc", ".hidden"):
        path.write_text(small().model_dump_json().replace(f'"name":"{name}"', f'"name":"{climbing}"'))
        with pytest.raises(ArtifactError, match="name"):
            read_sweep(tmp_path)
