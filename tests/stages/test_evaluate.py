"""eval: the same episodes however they are played, and honest summaries of them."""

import errno
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from marl_sale.analysis.statistics import wilson_interval
from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe, load_recipe
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, ConfigError, DiskFullError, RunExistsError, UsageError
from marl_sale.observer import Silent
from marl_sale.seeding import evaluation_seeds
from marl_sale.stages import evaluate, plan, train
from marl_sale.stages._artifacts import load_policy, recipe_of
from marl_sale.stages.evaluate import EpisodeRow, evaluate_policy, summarise
from marl_sale.stages.result import StageResult


def run(agent: Path, out: Path, **changes: Any) -> StageResult:
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu", "observer": Silent(), "command": "test"}
    return evaluate.run(agent, out, **{**arguments, **changes})


def planned(agent: Path, out: Path, **changes: Any) -> StageResult:
    return plan.evaluate(agent, out, seed=0, device="cpu", **changes)


def steps(agent: Path) -> tuple[int, int]:
    artifact = Artifact.open(agent, kind="agent")
    return artifact.checkpoint("best").step, artifact.checkpoint("latest").step


@pytest.mark.parametrize("random", [True, False])
def test_rows_do_not_depend_on_the_number_of_environments(
    random: bool, agent: Path, short_recipe: Callable[..., Recipe]
) -> None:
    config = short_recipe().config
    found = []
    for num_envs in (1, 3, 10):
        env = make_env(config.env, num_envs)
        checkpoint = Artifact.open(agent, kind="agent").checkpoint("latest")
        policy = None if random else load_policy(checkpoint, config, env.spec)
        found.append(list(evaluate_policy(env, policy, 10)))
    assert found[0] == found[1] == found[2]
    assert [row.episode for row in found[0]] == list(range(10))
    assert [row.seed for row in found[0]] == evaluation_seeds(0, 10).tolist()


def test_greedy_play_draws_no_noise(
    agent: Path, short_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = short_recipe().config
    env = make_env(config.env, 2)
    policy = load_policy(Artifact.open(agent, kind="agent").checkpoint("latest"), config, env.spec)
    monkeypatch.delattr(evaluate.Exploration, "of_episodes")
    assert len(list(evaluate_policy(env, policy, 2))) == 2


def test_random_play_differs_from_bank_to_bank_and_repeats(short_recipe: Callable[..., Recipe]) -> None:
    env = make_env(short_recipe("masked", changes=["env.task=match-3"]).config.env, 5)
    banks = [list(evaluate_policy(env, None, 20, bank=bank)) for bank in (0, 0, 1)]
    lengths = [[row.episode_length for row in rows] for rows in banks]
    assert banks[0] == banks[1]
    assert lengths[0] != lengths[2]
    assert len(set(lengths[0])) > 1


def test_what_is_written(agent: Path, tmp_path: Path) -> None:
    result = run(agent, tmp_path / "evaluation", episodes=7)
    artifact = Artifact.open(tmp_path / "evaluation", kind="evaluation")
    rows, report = artifact.rows("episodes"), artifact.json("report")
    assert list(rows[0]) == ["episode", "seed", "episode_return", "episode_length", "success"]
    assert [row["episode"] for row in rows] == list(range(7))
    wins = sum(bool(row["success"]) for row in rows)
    assert report["episodes"] == 7
    assert report["win_rate"] == wins / 7
    assert report["win_rate_ci95"] == pytest.approx(wilson_interval(wins, 7))
    assert report["episode_return"] == pytest.approx(sum(row["episode_return"] for row in rows) / 7)
    assert report["checkpoint"] == steps(agent)[1]
    assert report == json.loads(json.dumps(result.metrics))
    (entry,) = artifact.manifest.inputs
    assert (entry.role, entry.id) == ("agent", Artifact.open(agent, kind="agent").manifest.id)
    assert artifact.verify() == []
    assert result.to_json()["kind"] == "evaluation"


def test_checkpoints_by_name_and_by_step(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    agent, returns = tmp_path / "agent", iter([0.0, 1.0, 0.5, 0.5, 0.5])
    with monkeypatch.context() as patched:  # the best evaluation is not the last one
        patched.setattr(train, "evaluate_policy", lambda *_, **__: [EpisodeRow(0, 0, next(returns), 1, True)])
        train.run(short_recipe("vdn"), agent, seed=0, device="cpu", observer=Silent(), command="test")
    best, latest = steps(agent)
    assert best < latest
    for name, step in (("best", best), ("latest", latest), (str(best), best), (str(latest), latest)):
        assert run(agent, tmp_path / name, checkpoint=name).metrics["checkpoint"] == step
    with pytest.raises(ArtifactError, match=f"there is: {best}, {latest}"):
        run(agent, tmp_path / "none", checkpoint="17")
    with pytest.raises(UsageError, match="newest"):
        run(agent, tmp_path / "none", checkpoint="newest")
    assert not (tmp_path / "none").exists()


def test_the_latest_evaluation_of_training_is_found_again(agent: Path, tmp_path: Path) -> None:
    """Same weights, same seed bank, same number of episodes: the same figures."""
    during = Artifact.open(agent, kind="agent").rows("metrics/evaluation")[-1]
    after = run(agent, tmp_path / "evaluation").metrics
    for name in ("episode_return", "episode_return_std", "episode_length", "win_rate"):
        assert after[name] == during[name], name


def test_rendering(agent: Path, tmp_path: Path) -> None:
    file = tmp_path / "pictures" / "episode.gif"
    result = run(agent, tmp_path / "evaluation", episodes=2, render=file)
    length = Artifact.open(result.artifact, kind="evaluation").rows("episodes")[0]["episode_length"]
    with Image.open(file) as picture:
        assert picture.format == "GIF"
        assert picture.n_frames <= length + 1  # type: ignore[attr-defined]  # equal frames are merged
        assert picture.n_frames > 1  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"episode\.png"):
        run(agent, tmp_path / "other", render=tmp_path / "episode.png")
    assert not (tmp_path / "other").exists()


def test_random_play_is_drawn_as_it_was_played(short_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    file, out = tmp_path / "random.gif", tmp_path / "random"
    arguments: dict[str, Any] = {"seed": 0, "observer": Silent(), "command": "test"}
    recipe = short_recipe("masked", changes=["env.task=match-3"])
    evaluate.run_random(recipe, out, **arguments, episodes=2, render=file)
    length = Artifact.open(out, kind="evaluation").rows("episodes")[0]["episode_length"]
    with Image.open(file) as picture:  # the step is in the picture, so no two frames are equal
        assert picture.n_frames == length + 1  # type: ignore[attr-defined]
    with pytest.raises(UsageError, match=r"random\.png"):
        evaluate.run_random(recipe, tmp_path / "other", **arguments, render=tmp_path / "random.png")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize("name", ["file/episode.gif", "folder.gif", "x" * 999 + ".gif", "locked/episode.gif"])
def test_a_picture_that_cannot_be_written_is_refused_before_any_episode(
    name: str, agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("x")
    for folder in ("folder.gif", "locked"):
        (tmp_path / folder).mkdir()
    access = os.access  # a superuser may do everything
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path).name != "locked" and access(path, mode))
    for stage in (run, planned):
        with pytest.raises(UsageError, match=r"--render .*: cannot be written"):
            stage(agent, tmp_path / "evaluation", render=tmp_path / name)
        recipe = recipe_of(Artifact.open(agent, kind="agent"))
        with pytest.raises(UsageError, match=r"--render .*: cannot be written"):
            plan.evaluate_random(recipe, tmp_path / "evaluation", seed=0, render=tmp_path / name)
    assert not (tmp_path / "evaluation").exists()


@pytest.mark.parametrize("where", ["evaluation/episode.gif", "agent/new/episode.gif", "link/episode.gif"])
def test_a_picture_inside_an_artifact_is_refused(where: str, agent: Path, tmp_path: Path) -> None:
    """No manifest would list it, and the artifact would no longer verify."""
    (tmp_path / "link").symlink_to(agent, target_is_directory=True)
    file = agent / "new" / "episode.gif" if where.startswith("agent") else tmp_path / where
    for stage in (run, planned):
        with pytest.raises(RunExistsError, match="lies inside"):
            stage(agent, tmp_path / "evaluation", render=file)
    assert not (tmp_path / "evaluation").exists()


def test_where_only_the_system_knows_that_a_picture_cannot_be_written_the_figures_stay(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory")

    monkeypatch.setattr(Image.Image, "save", refuse)
    with pytest.raises(UsageError, match=r"--render .*: cannot be written: No such file"):
        run(agent, tmp_path / "evaluation", episodes=2, render=tmp_path / "episode.gif")
    assert Artifact.open(tmp_path / "evaluation", kind="evaluation").json("report")["episodes"] == 2


def test_a_checkpoint_that_its_run_deletes_meanwhile_is_told(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An environment takes its time to start, and a run under way goes on."""
    copy = tmp_path / "agent"
    shutil.copytree(agent, copy)
    make_env = evaluate.make_env

    def slow(*arguments: Any) -> Any:
        shutil.rmtree(copy / "checkpoints")
        return make_env(*arguments)

    monkeypatch.setattr(evaluate, "make_env", slow)
    with pytest.raises(ArtifactError, match=r"has gone on and deleted it\n  the same command"):
        run(copy, tmp_path / "evaluation")


def test_a_recipe_that_cannot_be_used_is_a_problem_of_the_agent(
    agent: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In a dry run as in the run."""

    def refuse(*_: object) -> None:
        raise ConfigError(["env.task: there is no such task"])

    monkeypatch.setattr(evaluate, "make_env", refuse)
    monkeypatch.setattr(plan, "describe", refuse)
    for stage in (run, planned):
        with pytest.raises(ArtifactError, match="no such task"):
            stage(agent, tmp_path / "evaluation")


def test_random_play_as_an_artifact(short_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    result = evaluate.run_random(
        short_recipe(), tmp_path / "random", seed=0, observer=Silent(), command="test", episodes=9
    )
    artifact = Artifact.open(tmp_path / "random", kind="evaluation")
    assert len(artifact.rows("episodes")) == 9
    assert artifact.json("report")["policy"] == "random"
    assert result.metrics["episodes"] == 9
    assert not artifact.manifest.inputs


class Heard(Silent):
    def __init__(self) -> None:
        self.notes: list[str] = []

    def note(self, text: str) -> None:
        self.notes.append(text)


class FullDisk(Silent):
    """Fails a training that has saved something."""

    def __init__(self, agent: Path) -> None:
        self.agent = agent

    def progress(self, done: int, figures: object) -> None:
        if list((self.agent / "checkpoints").glob("0*")):
            raise DiskFullError("no space\nleft")


def test_a_failed_agent_is_tested_at_its_checkpoint_with_a_note(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    agent, out, heard = tmp_path / "agent", tmp_path / "evaluation", Heard()
    with pytest.raises(DiskFullError):
        train.run(short_recipe("vdn"), agent, seed=0, device="cpu", observer=FullDisk(agent), command="test")
    failed = Artifact.open(agent, kind="agent", status=("failed",))
    result = run(agent, out, episodes=2, observer=heard)
    step = failed.checkpoint("latest").step
    assert result.metrics["checkpoint"] == step
    (note,) = Artifact.open(out, kind="evaluation").manifest.notes
    assert note == (
        f"{failed.manifest.id} was not complete (failed) when its checkpoint at {step:,} env steps "
        "was tested: DiskFullError: no space left"
    )
    assert heard.notes == [note]


def test_a_complete_agent_needs_no_note(agent: Path, tmp_path: Path) -> None:
    run(agent, tmp_path / "evaluation", episodes=2)
    assert Artifact.open(tmp_path / "evaluation", kind="evaluation").manifest.notes == ()


def test_a_world_model_is_no_agent(world_model: Path, tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="needed: agent"):
        run(world_model, tmp_path / "evaluation")


def test_summaries() -> None:
    rows = [EpisodeRow(i, i, float(i), 10 * i, success=i > 0) for i in range(4)]
    summary = summarise(rows)
    assert summary["win_rate"] == 0.75
    assert summary["episode_return"] == 1.5
    assert summary["episode_return_std"] == pytest.approx(1.25**0.5)
    low, high = summary["episode_return_ci95"]
    assert low < 1.5 < high
    assert summary["episode_length"] == 15
    without = summarise([EpisodeRow(0, 0, 1.0, 5, success=None)])
    assert without["win_rate"] is None
    assert without["win_rate_ci95"] is None
    assert without["episode_return_ci95"] is None


def test_an_agent_can_be_tested_in_another_backend(tmp_path: Path) -> None:
    recipe = load_recipe("lbf/5x5-2p-1f-coop+qmix+tiny", ["train.env_steps=200"])
    train.run(recipe, tmp_path / "agent", seed=0, device="cpu", observer=Silent(), command="test")
    for name, backend in (("native", None), ("original", "original")):
        run(tmp_path / "agent", tmp_path / name, episodes=3, backend=backend)
        manifest = Artifact.open(tmp_path / name, kind="evaluation").manifest
        assert manifest.env_spec is not None
        assert manifest.env_spec["backend"] == name
        assert ("env.backend=original" in manifest.overrides) == (name == "original")
