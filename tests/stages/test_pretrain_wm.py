"""pretrain-wm: where episodes come from, what is fitted on which of them, when it stops."""

import os
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from marl_sale.algorithms._load import build_pretraining
from marl_sale.algorithms.pretraining import Pretraining
from marl_sale.analysis.world_model_report import OpenLoopError, averaged
from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe
from marl_sale.data.batch import Batch
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.envs._load import describe
from marl_sale.errors import ArtifactError, RunExistsError, StoppedError, UsageError
from marl_sale.observer import Silent
from marl_sale.spec import EnvSpec
from marl_sale.stages import plan, pretrain_wm
from marl_sale.stages._artifacts import recipe_of, require_same_task
from marl_sale.stages._fitting import Split, held_out_losses, split_episodes
from marl_sale.stages.result import StageResult


def run(recipe: Recipe, out: Path, **changes: Any) -> StageResult:
    arguments: dict[str, Any] = {"seed": 0, "device": "cpu", "observer": Silent(), "command": "test"}
    return pretrain_wm.run(recipe, out, **{**arguments, **changes})


def opened(out: Path) -> Artifact:
    return Artifact.open(out, kind="world-model")


def weights(out: Path) -> dict[str, Tensor]:
    return opened(out).tensors("weights/world_model")


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_what_is_written(world_model: Path, short_recipe: Callable[..., Recipe]) -> None:
    artifact = opened(world_model)
    names = ("core", "sale", "sale_global", "rec", "kl", "reg", "inv")
    rows = artifact.rows("metrics/pretrain")
    columns = [f"{part}_{name}" for name in names for part in ("train", "heldout")]
    assert list(rows[0]) == ["epoch", "updates", "seconds", *columns]
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4]
    assert [row["updates"] for row in rows] == [3, 6, 9, 12]  # 12 episodes in batches of 4
    for row, fitted in zip(rows, [{"core"}] * 2 + [set(names) - {"core"}] * 2, strict=True):
        found = {name for name in names if row[f"train_{name}"] is not None}
        assert found == fitted == {name for name in names if row[f"heldout_{name}"] is not None}

    report = artifact.json("report")
    assert report["episodes"] == 16
    assert report["heldout_episodes"] == 4
    assert set(report["heldout_losses"]) == set(names)
    for first, part in zip((0, 2), ("core", "representation"), strict=True):
        fitted = report["parts"][part]
        best = rows[first + fitted["best_epoch"] - 1]
        assert {name: best[f"heldout_{name}"] for name in fitted["heldout_losses"]} == fitted[
            "heldout_losses"
        ]
        assert fitted["heldout_loss"] == pytest.approx(sum(fitted["heldout_losses"].values()))
    assert [error["steps"] for error in report["open_loop"]] == [1, 2, 3]
    counts = [error["count"] for error in report["open_loop"]]
    assert counts == sorted(counts, reverse=True)
    for error in report["open_loop"]:
        assert error["error"] > 0
        assert error["repeat_last"] > 0
        assert error["mean"] > 0
        assert error["avail_accuracy"] is None  # this task never masks
    assert artifact.verify() == []
    parts = {name.partition(".")[0] for name in weights(world_model)}
    assert parts == {"agent", "sale", "state_sale", "world_model"}
    assert all(name.startswith("agent.core.") for name in weights(world_model) if name[:5] == "agent")


def test_a_stored_dataset_gives_the_same_fit_as_gathering(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    dataset = world_model.parent / "dataset"
    spec = describe(short_recipe().config.env)
    episodes = Episodes.from_tensors(spec, Artifact.open(dataset, kind="dataset").tensors("episodes"))
    assert len(episodes) == 16
    run(short_recipe(), tmp_path / "again", dataset=dataset)
    assert same(weights(world_model), weights(tmp_path / "again"))
    gathered, read = (
        [{k: v for k, v in row.items() if k != "seconds"} for row in opened(out).rows("metrics/pretrain")]
        for out in (world_model, tmp_path / "again")
    )
    assert gathered == read
    assert [entry.role for entry in opened(tmp_path / "again").manifest.inputs] == ["dataset"]


def test_held_out_episodes_are_never_in_the_fit(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other held-out episodes, and the first epoch ends at the very same weights."""
    recipe, dataset = short_recipe(changes=["pretrain.max_epochs=1"]), world_model.parent / "dataset"
    run(recipe, tmp_path / "plain", dataset=dataset)
    split = pretrain_wm.split_episodes

    def spoiled(replay: Replay, *arguments: Any) -> Split:
        data = split(replay, *arguments)
        episodes = replay.newest(len(replay))
        episodes.obs[data.held_out] += 1.0
        episodes.reward[data.held_out] -= 5.0
        replay.add(episodes)
        return data

    monkeypatch.setattr(pretrain_wm, "split_episodes", spoiled)
    run(recipe, tmp_path / "spoiled", dataset=dataset)
    assert same(weights(tmp_path / "plain"), weights(tmp_path / "spoiled"))
    plain, other = (opened(tmp_path / name).rows("metrics/pretrain")[0] for name in ("plain", "spoiled"))
    assert plain["train_core"] == other["train_core"]
    assert plain["heldout_core"] != other["heldout_core"]


@pytest.mark.parametrize(
    ("count", "holdout", "held_out"), [(10, 0.25, 2), (4, 0.01, 1), (4, 0.99, 3), (16, 0.25, 4)]
)
def test_the_split_is_by_whole_episodes(count: int, holdout: float, held_out: int, spec: EnvSpec) -> None:
    replay = Replay(spec, count, bootstrap_at_time_limit=False)
    replay.added = count
    data = split_episodes(replay, holdout, torch.Generator().manual_seed(0))
    assert len(data.held_out) == held_out
    assert sorted([*data.fit.tolist(), *data.held_out.tolist()]) == list(range(count))


def test_long_episodes_are_fitted_in_chunks(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No recurrence is unrolled over more than a chunk and its burn-in, in the fit and in its figures."""
    unrolled, unroll = [], Pretraining.unroll

    def watched(fit: Pretraining, batch: Batch) -> Tensor:
        unrolled.append(batch.batch_sizes if batch.history is None else batch.history.batch_sizes)
        return unroll(fit, batch)

    monkeypatch.setattr(Pretraining, "unroll", watched)
    recipe = short_recipe(changes=["replay.chunk_length=3", "replay.burn_in=1", "pretrain.max_epochs=1"])
    assert describe(recipe.config.env).episode_limit > 2 * (3 + 1)
    report = run(recipe, tmp_path / "wm", dataset=world_model.parent / "dataset").metrics
    assert max(len(sizes) - 1 for sizes in unrolled) == 3 + 1
    assert report["updates"] > 6  # a whole episode is several chunks
    assert [error["steps"] for error in report["open_loop"]] == [1, 2, 3]


def test_chunks_as_long_as_episodes_change_nothing(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = short_recipe(changes=["replay.chunk_length=1000", "replay.burn_in=5"])
    report = run(recipe, tmp_path / "wm", dataset=world_model.parent / "dataset").metrics
    assert same(weights(world_model), weights(tmp_path / "wm"))
    assert report["open_loop"] == opened(world_model).json("report")["open_loop"]


def test_open_loop_errors_of_batches_are_averaged_by_their_predictions() -> None:
    near, far = OpenLoopError(1, 1.0, 2.0, 3.0, None, 30), OpenLoopError(2, 4.0, 5.0, 6.0, None, 7)
    other = OpenLoopError(1, 5.0, 6.0, 7.0, None, 10)
    assert averaged([[near, far], [other]]) == [OpenLoopError(1, 2.0, 3.0, 4.0, None, 40), far]
    seen = [replace(near, avail_accuracy=0.5), replace(other, avail_accuracy=0.9)]
    assert averaged([[error] for error in seen])[0].avail_accuracy == pytest.approx(0.6)


def test_it_stops_on_a_plateau_and_keeps_the_best(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """Nothing counts as an improvement here: after two epochs more, the weights of the first are kept."""
    dataset = world_model.parent / "dataset"
    plateau = ["pretrain.patience_epochs=2", "pretrain.min_improvement=1.0", "pretrain.max_epochs=9"]
    stopped = run(short_recipe(changes=plateau), tmp_path / "stopped", dataset=dataset).metrics
    first = run(short_recipe(changes=["pretrain.max_epochs=1"]), tmp_path / "first", dataset=dataset).metrics
    assert (stopped["epochs"], first["epochs"]) == (6, 2)
    for part in ("core", "representation"):
        epochs, best, plateau_found = (
            [run["parts"][part][name] for run in (stopped, first)]
            for name in ("epochs", "best_epoch", "stopped_on_plateau")
        )
        assert (epochs, best, plateau_found) == ([3, 1], [1, 1], [True, False])
    assert same(weights(tmp_path / "stopped"), weights(tmp_path / "first"))
    assert stopped["open_loop"] == first["open_loop"]


def test_held_out_losses_repeat_and_disturb_nothing(
    short_recipe: Callable[..., Recipe], spec: EnvSpec, random_episodes: Callable[..., Episodes]
) -> None:
    fit = build_pretraining(short_recipe().config, spec)
    replay = Replay(spec, 4, bootstrap_at_time_limit=False)
    replay.add(random_episodes(spec, [3, 6, 1, 4]))
    batches = [replay.pack(torch.tensor([0, 1, 2])), replay.pack(torch.tensor([3]))]
    noise = fit.mmsa.noise_generator.get_state()
    found = [held_out_losses(fit, batches) for _ in range(2)]
    assert found[0] == found[1]
    assert torch.equal(fit.mmsa.noise_generator.get_state(), noise)
    assert all(parameter.grad is None for parameter in fit.parameters())
    each = [held_out_losses(fit, [batch])["core"] for batch in batches]
    assert found[0]["core"] == pytest.approx((3 * each[0] + each[1]) / 4, rel=1e-6)


def test_people_are_shown_few_figures_and_the_report_has_all(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    result = run(short_recipe(), tmp_path / "wm", dataset=world_model.parent / "dataset")
    assert result.summary is not None
    assert len(result.summary) == 5 + 2 + 3
    core = result.metrics["parts"]["core"]
    assert result.summary["heldout_loss (core)"].startswith(f"{core['heldout_loss']:.4g} after epoch ")
    assert result.summary["error 3 ahead"].startswith(f"{result.metrics['open_loop'][2]['error']:.4g} (")
    assert opened(tmp_path / "wm").json("report") == result.metrics


def test_a_policy_plays_the_episodes(
    agent: Path, world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    result = run(short_recipe(), tmp_path / "wm", policy=agent, save_dataset=tmp_path / "dataset")
    (entry,) = opened(tmp_path / "wm").manifest.inputs
    assert entry.role == "policy"
    assert result.metrics["episodes"] == 16
    played, random = (
        Artifact.open(path, kind="dataset").tensors("episodes")["actions"].flatten()
        for path in (tmp_path / "dataset", world_model.parent / "dataset")
    )
    shares = [actions.bincount().max().item() / len(actions) for actions in (played, random)]
    assert shares[0] > shares[1] + 0.1  # a policy has favourite actions, random play has none


def test_a_masked_task_reports_availability(short_recipe: Callable[..., Recipe], tmp_path: Path) -> None:
    report = run(short_recipe("masked"), tmp_path / "wm").metrics
    assert "avail" in report["heldout_losses"]
    assert all(0 < error["avail_accuracy"] <= 1 for error in report["open_loop"])


@pytest.mark.parametrize(
    ("overlay", "losses"),
    [
        ("no-sale", {"core", "rec", "kl", "reg", "inv"}),
        ("no-world-model", {"core", "sale", "sale_global"}),
    ],
)
def test_ablations_fit_what_is_left(
    overlay: str, losses: set[str], short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    report = run(short_recipe(overlay), tmp_path / "wm").metrics
    assert set(report["heldout_losses"]) == losses
    assert bool(report["open_loop"]) == (overlay == "no-sale")


@pytest.mark.parametrize("overlays", [("qmix",), ("no-sale", "no-world-model")], ids=str)
def test_nothing_to_pretrain(
    overlays: tuple[str, ...], short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match="nothing to pre-train"):
        run(short_recipe(*overlays), tmp_path / "wm")
    assert not (tmp_path / "wm").exists()


def test_refusals(
    agent: Path, world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    dataset, out = world_model.parent / "dataset", tmp_path / "wm"
    with pytest.raises(UsageError, match="exclude each other"):
        run(short_recipe(), out, policy=agent, dataset=dataset)
    other = short_recipe(changes=["env.task=match-4"])
    with pytest.raises(ArtifactError, match='task: found "match", expected "match-4"'):
        run(other, out, dataset=dataset)
    with pytest.raises(ArtifactError, match='task: found "match", expected "match-4"'):
        run(other, out, policy=agent)
    with pytest.raises(ArtifactError, match="needed: dataset"):
        run(short_recipe(), out, dataset=world_model)
    with pytest.raises(RunExistsError, match="complete") as error:
        run(short_recipe(), out, save_dataset=dataset)
    assert "choose another folder with --save-dataset" in error.value.hint
    for inside in (out, tmp_path, out / "dataset"):
        with pytest.raises(UsageError, match="the folder of the world model"):
            run(short_recipe(), out, save_dataset=inside)
    assert not out.exists()


def test_a_resumed_run_does_not_pass_over_a_folder_that_is_not_its_dataset(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    class Stop(Silent):
        def progress(self, done: int, figures: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    full, out = tmp_path / "full", tmp_path / "wm"
    full.mkdir()
    (full / "precious.txt").write_text("x")
    with pytest.raises(StoppedError):
        run(short_recipe(), out, observer=Stop())
    with pytest.raises(RunExistsError, match="full: not empty"):
        run(short_recipe(), out, save_dataset=full, resume=True)
    Artifact.open(out, kind="world-model", status=["interrupted"])
    run(short_recipe(), out, save_dataset=tmp_path / "dataset", resume=True)
    assert Artifact.open(tmp_path / "dataset", kind="dataset").verify() == []


def test_notes_decide_where_nothing_else_differs(world_model: Path) -> None:
    """Another version of the rules, say."""
    artifact = opened(world_model)
    spec = EnvSpec(**artifact.manifest.env_spec or {})
    require_same_task(artifact, replace(spec, backend="original"))
    with pytest.raises(ArtifactError, match='notes: found "", expected "rules 2"'):
        require_same_task(artifact, replace(spec, notes="rules 2"))
    with pytest.raises(ArtifactError, match="episode_limit: found 10, expected 11") as caught:
        require_same_task(artifact, replace(spec, notes="11 steps", episode_limit=11))
    assert "notes" not in str(caught.value)


def test_a_policy_that_changed_is_not_gone_on_with(
    agent: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """It was trained for longer, perhaps: the other episodes would be somebody else's."""

    class Stop(Silent):
        def progress(self, done: int, figures: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    policy, out = tmp_path / "agent", tmp_path / "wm"
    shutil.copytree(agent, policy)
    with pytest.raises(StoppedError):
        run(short_recipe(), out, policy=policy, observer=Stop())
    manifest = policy / "manifest.json"
    before = manifest.read_text()
    manifest.write_text(before + "\n")
    with pytest.raises(ArtifactError, match=r"began from agent-\w+, which has changed since"):
        run(short_recipe(), out, policy=policy, resume=True)
    manifest.write_text(before)
    assert run(short_recipe(), out, policy=policy, resume=True).status == "complete"


def test_a_plan_bounds_what_is_done(world_model: Path, tmp_path: Path) -> None:
    """Both parts of the fit, on the episodes of the dataset and not on those that the recipe would play."""
    recipe, dataset = (
        recipe_of(opened(world_model), "pretrain.episodes=100000"),
        world_model.parent / "dataset",
    )
    planned = plan.pretrain_wm(recipe, tmp_path / "wm", seed=1, device="cpu", dataset=dataset).metrics
    done = opened(world_model).manifest.counters
    assert planned["episodes"] == done["episodes"]
    assert done["updates"] <= planned["updates_at_most"] <= 2 * done["updates"]
    assert planned["epochs_at_most"] == 2 * recipe.config.pretrain.max_epochs


def test_a_signal_stops_it_between_epochs(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    class Stop(Silent):
        def row(self, stream: str, values: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="stopped by SIGTERM in epoch 1"):
        run(short_recipe(), tmp_path / "wm", dataset=world_model.parent / "dataset", observer=Stop())
    found = Artifact.open(tmp_path / "wm", kind="world-model", status=["interrupted"])
    assert len(found.rows("metrics/pretrain")) == 1


def test_a_signal_stops_it_between_rounds_of_episodes(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    class Stop(Silent):
        def progress(self, done: int, figures: object) -> None:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(StoppedError, match="stopped by SIGTERM after 2 episodes"):
        run(short_recipe(), tmp_path / "wm", observer=Stop())
    Artifact.open(tmp_path / "wm", kind="world-model", status=["interrupted"])
