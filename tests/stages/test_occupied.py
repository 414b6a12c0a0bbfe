"""What eval and plot say of a folder with something in it, for real and in a dry run."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe
from marl_sale.errors import RunExistsError
from marl_sale.observer import Silent
from marl_sale.stages import evaluate, plan, plot


class Stop(Silent):
    def progress(self, done: int, figures: object) -> None:
        raise KeyboardInterrupt


def evaluated(agent: Path, out: Path, **more: Any) -> None:
    options: dict[str, Any] = {"seed": 0, "device": "cpu", "episodes": 2, "observer": Silent(), **more}
    evaluate.run(agent, out, command="marl-sale eval", **options)


def drawn(runs: list[Path], out: Path, **more: Any) -> None:
    options: dict[str, Any] = {"seed": 0, "x": "env_steps", **more}
    plot.run(runs, out, observer=Silent(), command="marl-sale plot", quantities=(), **options)


def said(real: Callable[[], object], planned: Callable[[], object]) -> tuple[str, str]:
    """What and hint of the error, which are those of the dry run too."""
    errors = []
    for call in (real, planned):
        with pytest.raises(RunExistsError) as caught:
            call()
        errors.append((caught.value.what, caught.value.hint))
    assert errors[0] == errors[1]
    return errors[0]


def said_of_eval(agent: Path, out: Path, **more: Any) -> tuple[str, str]:
    options: dict[str, Any] = {"seed": 0, "device": "cpu", "episodes": 2, **more}
    return said(lambda: evaluated(agent, out, **more), lambda: plan.evaluate(agent, out, **options))


def said_of_plot(runs: list[Path], out: Path, **more: Any) -> tuple[str, str]:
    options: dict[str, Any] = {"seed": 0, "x": "env_steps", **more}
    return said(lambda: drawn(runs, out, **more), lambda: plan.plot(runs, out, **options))


def identity(path: Path) -> str:
    return Artifact.open(path, kind=("evaluation", "report"), status=("complete", "interrupted")).manifest.id


def test_the_same_evaluation_is_named_and_another_told_by_what_differs(agent: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    evaluated(agent, out)
    what, hint = said_of_eval(agent, out)
    assert (
        what
        == f"{out}: this evaluation was made before ({identity(out)}, complete); nothing in it was touched"
    )
    assert hint == f"marl-sale runs show {out} shows it; choose another folder with --out to make it again"
    what, hint = said_of_eval(agent, out, episodes=3, seed=1)
    assert what.splitlines()[0] == (
        f"{out}: holds another evaluation ({identity(out)}, complete); nothing in it was touched"
    )
    assert what.splitlines()[1:] == ["seed: found 0, expected 1", "episodes: found 2, expected 3"]
    assert hint == "choose another folder with --out"


def test_random_play_is_no_evaluation_of_an_agent(
    agent: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    out, recipe = tmp_path / "out", short_recipe()
    options: dict[str, Any] = {"seed": 0, "episodes": 2}

    def play() -> None:
        evaluate.run_random(recipe, out, observer=Silent(), command="test", **options)

    play()
    what, _ = said(play, lambda: plan.evaluate_random(recipe, out, **options))
    assert "this evaluation was made before" in what
    what, _ = said_of_eval(agent, out)
    assert 'policy: found "random", expected "agent"' in what
    assert "agent: found absent" in what


def test_an_evaluation_that_was_cut_short_is_named_with_what_to_do(agent: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(KeyboardInterrupt):
        evaluated(agent, out, observer=Stop())
    what, hint = said_of_eval(agent, out)
    assert what == (
        f"{out}: this evaluation was begun before and is not finished ({identity(out)}, interrupted); "
        "nothing in it was touched"
    )
    assert hint.startswith("no evaluation is resumed: delete this one and type the same command")
    manifest = out / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"interrupted"', '"running"'))
    assert ", killed)" in said_of_eval(agent, out)[0]


def test_a_report_is_the_same_where_runs_rows_axis_and_seed_are(agent: Path, tmp_path: Path) -> None:
    out, test = tmp_path / "out", tmp_path / "evaluation"
    drawn([agent], out)
    what, hint = said_of_plot([agent], out)
    assert (
        what == f"{out}: this report was made before ({identity(out)}, complete); nothing in it was touched"
    )
    assert hint.startswith(f"marl-sale runs show {out}")
    evaluated(agent, test)
    what, _ = said_of_plot([agent, test], out, x="seconds", seed=3)
    assert f"holds another report ({identity(out)}, complete)" in what
    assert "seed: found 0, expected 3" in what
    assert 'x: found "env_steps", expected "seconds"' in what
    assert f'{identity(test)}: found absent, expected "manifest ' in what


def test_a_folder_with_another_kind_or_with_anything_else_is_told_too(agent: Path, tmp_path: Path) -> None:
    what, _ = said_of_eval(agent, agent)
    assert "holds another agent (agent-" in what
    assert what.endswith('kind: found "agent", expected "evaluation"')
    (tmp_path / "mine.txt").write_text("mine")
    assert said_of_eval(agent, tmp_path)[0] == f"{tmp_path}: not empty; nothing in it was touched"
    assert said_of_plot([agent], tmp_path)[0] == f"{tmp_path}: not empty; nothing in it was touched"
