from pathlib import Path

import pytest

from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.config.recipe import Recipe, load_recipe
from marl_sale.errors import ArtifactError
from marl_sale.stages import folders


def start(path: Path, kind: str, recipe: Recipe) -> Run:
    return Run.create(
        path,
        kind=kind,
        recipe=recipe.name,
        overrides=recipe.overrides,
        config_text=recipe.text,
        fingerprint=recipe.fingerprint,
        seed=7,
        env_spec=None,
        inputs=[],
        command="",
        device="cpu",
    )


def make(path: Path, kind: str, recipe: Recipe, **counters: float) -> Path:
    with start(path, kind, recipe) as run:
        run.finish("complete", counters=counters)
    return path


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("tiny/match+tiny")


def test_a_run_s_folder_names_recipe_stage_seed_and_configuration(recipe: Recipe) -> None:
    expected = f"results/tiny/match+tiny/train/seed3-{recipe.fingerprint[:8]}"
    assert folders.default_out(recipe, "train", 3) == Path(expected)
    changed = load_recipe("tiny/match+tiny", ["discount=0.5"])
    assert folders.default_out(changed, "train", 3) != Path(expected)


@pytest.mark.parametrize("name", ["../../etc", "/etc/passwd", "..", "a/../../b", "a\nb", "", "/"])
def test_a_foreign_name_cannot_leave_the_results(name: str, tmp_path: Path) -> None:
    recipe = load_recipe("tiny/match")
    foreign = Recipe(name, (), recipe.config, recipe.fingerprint, recipe.text)
    out = (tmp_path / folders.default_out(foreign, "eval", 0)).resolve()
    assert out.is_relative_to(tmp_path / "results")
    assert len(out.relative_to(tmp_path).parts) >= 4
    assert "\n" not in str(out)


def test_an_evaluation_s_folder_says_what_was_evaluated(recipe: Recipe, tmp_path: Path) -> None:
    agent = Artifact.open(make(tmp_path / "agent", "agent", recipe), kind="agent")
    name = f"seed7-{recipe.fingerprint[:8]}-{agent.manifest.id[6:]}-800steps"
    assert folders.default_eval_out(agent, 800, 0, 50).name == f"{name}-50episodes"
    assert folders.default_eval_out(agent, 800, 2, None).name == f"{name}-4episodes-bank2"
    assert folders.default_eval_out(agent, 800, 0, 50, "original").name == f"{name}-50episodes-original"
    assert folders.default_eval_out(agent, 800, 0, 50).parent == Path("results/tiny/match+tiny/eval")
    later = folders.default_eval_out(agent, 900, 0, 50)
    twin = Artifact.open(make(tmp_path / "twin", "agent", recipe), kind="agent")
    assert len({later, *(folders.default_eval_out(each, 800, 0, 50) for each in (agent, twin))}) == 3


def test_the_folder_of_random_play_names_configuration_and_backend(
    recipe: Recipe,
) -> None:
    name = f"random-{recipe.fingerprint[:8]}-9episodes-bank0"
    assert folders.default_random_out(recipe, 0, 9).name == name
    assert folders.default_random_out(recipe, 0, 9, "original").name == f"{name}-original"


def test_a_plot_s_folder_depends_on_the_runs_and_not_on_their_order(recipe: Recipe, tmp_path: Path) -> None:
    a, b = make(tmp_path / "a", "agent", recipe), make(tmp_path / "b", "agent", recipe)
    both = folders.default_plot_out([a, b], "env_steps", 0)
    assert both == folders.default_plot_out([b, a], "env_steps", 0)
    assert both != folders.default_plot_out([a], "env_steps", 0)
    assert both != folders.default_plot_out([a, b], "seconds", 0)
    assert both != folders.default_plot_out([a, b], "env_steps", 1)


def test_a_plot_s_folder_changes_as_a_run_goes_on(recipe: Recipe, tmp_path: Path) -> None:
    with start(tmp_path / "agent", "agent", recipe) as run:
        rows, seen = run.metrics("evaluation", ["env_steps"]), set()
        for step in range(1, 4):
            rows.append({"env_steps": step})  # between checkpoints: its manifest stays as it is
            seen.add(folders.default_plot_out([run.path], "env_steps", 0))
        with run.checkpoint(3, counters={"env_steps": 3}, score=None):
            pass
        seen.add(folders.default_plot_out([run.path], "env_steps", 0))
        run.finish("complete", counters={"env_steps": 3})
    assert len({*seen, folders.default_plot_out([run.path], "env_steps", 0)}) == 5


def test_runs_below_takes_agents_and_evaluations_once(recipe: Recipe, tmp_path: Path) -> None:
    kinds = ("agent", "evaluation", "world-model", "report")
    agent, evaluation, world_model, _ = (make(tmp_path / "all" / kind, kind, recipe) for kind in kinds)
    assert folders.runs_below([tmp_path / "all", agent]) == ([agent, evaluation], {evaluation})
    assert folders.runs_below([tmp_path / "all"]) == ([agent, evaluation], {agent, evaluation})
    assert folders.runs_below([world_model]) == ([world_model], set())
    (tmp_path / "none").mkdir()
    with pytest.raises(ArtifactError, match="none: no agent"):
        folders.runs_below([tmp_path / "none"])


def test_a_damaged_artifact_below_is_never_left_out_silently(recipe: Recipe, tmp_path: Path) -> None:
    make(tmp_path / "a", "agent", recipe)
    (make(tmp_path / "b", "agent", recipe) / "manifest.json").write_text("{")
    with pytest.raises(ArtifactError, match="manifest"):
        folders.runs_below([tmp_path])


def test_expected_seconds_come_from_finished_runs_of_the_same_configuration(
    recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert folders.finished_seconds(recipe, "train", "agent") is None
    changed = load_recipe("tiny/match+tiny", ["discount=0.5"])
    for seed, made, seconds in ((0, recipe, 10.0), (1, recipe, 20.0), (0, changed, 99.0)):
        make(folders.default_out(made, "train", seed), "agent", made, seconds=seconds)
    assert folders.finished_seconds(recipe, "train", "agent") == 15.0
