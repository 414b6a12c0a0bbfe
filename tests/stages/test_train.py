"""train: what it writes, how often it learns, exact resumption, and what it refuses."""

import itertools
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl_sale.algorithms._load import build
from marl_sale.artifacts import _fs
from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import Recipe
from marl_sale.data.batch import Batch
from marl_sale.data.collect import Clock, Policy
from marl_sale.data.episodes import Episodes
from marl_sale.data.replay import Replay
from marl_sale.envs._load import make_env
from marl_sale.errors import ArtifactError, MarlSaleError, RunExistsError, StoppedError, UsageError
from marl_sale.observer import Silent
from marl_sale.seeding import torch_generator
from marl_sale.stages import plan, train
from marl_sale.stages._progress import Averages, Counters, Progress
from marl_sale.stages.evaluate import EpisodeRow
from marl_sale.stages.result import StageResult
from marl_sale.stages.rollouts import InProcess

Rows = list[dict[str, Any]]
CLOCKS = ("seconds", "time_environment", "time_acting", "time_learning", "time_evaluation")


def run(recipe: Recipe, out: Path, **changes: Any) -> StageResult:
    arguments: dict[str, Any] = {"seed": 1, "device": "cpu", "observer": Silent(), "command": "test"}
    return train.run(recipe, out, **{**arguments, **changes})


def planned(recipe: Recipe, out: Path, **changes: Any) -> StageResult:
    return plan.train(recipe, out, **{"seed": 1, "device": "cpu", **changes})


def opened(out: Path) -> Artifact:
    return Artifact.open(out, kind="agent", status=("complete", "interrupted", "failed"))


def rows(out: Path, stream: str, *, without: Sequence[str] = CLOCKS) -> Rows:
    found = opened(out).rows(f"metrics/{stream}")
    return [{name: value for name, value in row.items() if name not in without} for row in found]


def same_weights(a: Path, b: Path) -> bool:
    """Every tensor of the last checkpoints: networks, copies, optimiser, generators."""
    ours, theirs = (opened(out).checkpoint("latest") for out in (a, b))
    for name in ("weights", "state"):
        x, y = ours.tensors(name), theirs.tensors(name)
        if x.keys() != y.keys() or not all(torch.equal(x[key], y[key]) for key in x):
            return False
    return ours.step == theirs.step


class Stop(Silent):
    """Sends SIGTERM once so many env steps are done."""

    def __init__(self, at: int) -> None:
        self.at = at

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        if done >= self.at:
            self.at = 10**9
            os.kill(os.getpid(), signal.SIGTERM)


def test_what_is_written(agent: Path, short_recipe: Callable[..., Recipe]) -> None:
    recipe, artifact = short_recipe(), opened(agent)
    train_rows, evaluation_rows = artifact.rows("metrics/train"), artifact.rows("metrics/evaluation")
    losses = [f"loss_{name}" for name in ("td", "sale", "sale_global", "rec", "kl", "reg", "inv")]
    assert list(train_rows[0]) == [
        *(
            "env_steps",
            "episodes",
            "updates",
            "updates_skipped",
            "imagined_steps",
            "rounds_replayed",
            "seconds",
        ),
        *("time_environment", "time_acting", "time_learning", "time_evaluation"),
        *("epsilon", "loss", *losses, "q_taken", "td_target", "td_error_abs", "grad_norm"),
        *("episode_return", "episode_length", "win_rate"),
    ]
    assert tuple(evaluation_rows[0]) == train.EVALUATION_COLUMNS

    last = train_rows[-1]
    assert last["env_steps"] >= 150
    assert last["updates"] == last["episodes"] - recipe.config.replay.batch_episodes + 1
    assert last["imagined_steps"] > 0
    assert all(a["env_steps"] < b["env_steps"] for a, b in itertools.pairwise(train_rows))
    assert all(value is not None for value in last.values())
    assert last["loss"] == pytest.approx(sum(last[name] for name in losses), rel=1e-5)
    assert train_rows[0]["epsilon"] > last["epsilon"] == pytest.approx(0.05)
    assert last["time_learning"] > 0

    assert evaluation_rows[0]["env_steps"] == 0
    assert [row["env_steps"] // 50 for row in evaluation_rows] == [0, 1, 2, 3]
    assert all(row["evaluation_episodes"] == 3 for row in evaluation_rows)
    assert evaluation_rows[-1]["env_steps"] == last["env_steps"]

    manifest = artifact.manifest
    assert manifest.status == "complete"
    assert manifest.fingerprint == recipe.fingerprint
    assert manifest.counters["env_steps"] == last["env_steps"]
    assert manifest.counters["updates"] == last["updates"]
    assert artifact.verify() == []


def test_the_same_seed_gives_the_same_run(
    agent: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run(short_recipe(), tmp_path / "again", seed=0)
    assert same_weights(agent, tmp_path / "again")
    for stream in ("train", "evaluation"):
        assert rows(agent, stream) == rows(tmp_path / "again", stream)


def test_without_world_model_and_sale_the_run_is_qmix(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    run(short_recipe("no-world-model", "no-sale"), tmp_path / "mmsa")
    run(short_recipe("qmix"), tmp_path / "qmix")
    for stream in ("train", "evaluation"):
        assert rows(tmp_path / "mmsa", stream) == rows(tmp_path / "qmix", stream)
    ours, theirs = (
        opened(tmp_path / name).checkpoint("latest").tensors("weights") for name in ("mmsa", "qmix")
    )
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_means_are_of_numbers_and_of_tensors_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tensors are read all at once: each reading waits for the device."""
    reads: list[Any] = []
    monkeypatch.setattr(torch.Tensor, "__float__", reads.append)
    averages = Averages()
    averages.add({"loss": torch.tensor(0.1), "epsilon": 0.5, "grad_norm": torch.tensor(3.0)})
    averages.add({"loss": torch.tensor(0.3), "epsilon": 0.25})
    assert averages.mean("loss") == (float(np.float32(0.1)) + float(np.float32(0.3))) / 2
    assert (averages.mean("epsilon"), averages.mean("grad_norm"), averages.mean("x")) == (0.375, 3.0, None)
    assert not reads


def progress_of(recipe: Recipe, num_envs: int) -> tuple[Progress, Any]:
    env = make_env(recipe.config.env, num_envs)
    replay = Replay(env.spec, recipe.config.replay.capacity_episodes, bootstrap_at_time_limit=False)
    algorithm = build(recipe.config, env.spec, seed=1)
    return Progress(algorithm, replay, torch_generator(1, "replay"), Counters(), Averages()), env


@pytest.mark.parametrize(("per_episode", "updates"), [(0.5, 6), (1.5, 19)])
def test_updates_do_not_depend_on_the_number_of_environments(
    per_episode: float, updates: int, short_recipe: Callable[..., Recipe]
) -> None:
    """Sixteen episodes and batches of four: learning begins with the fourth episode."""
    for num_envs in (2, 4, 16):
        changes = [f"train.updates_per_episode={per_episode}", f"train.num_envs={num_envs}"]
        recipe = short_recipe("qmix", changes=changes)
        progress, env = progress_of(recipe, num_envs)
        rounds = train.collect(recipe.config, InProcess(env), progress, seed=1)
        for _ in range(16 // num_envs):
            progress.replay.add(next(rounds)[0])
            train.learn(recipe.config, progress, torch.device("cpu"))
        assert progress.counters.episodes == 16
        assert progress.counters.updates == progress.algorithm.updates == updates


def test_rewards_are_scaled_for_learning_alone(
    short_recipe: Callable[..., Recipe],
    random_episodes: Callable[..., Episodes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    recipe = short_recipe("vdn", changes=["train.reward_scale=3.0"])
    progress, env = progress_of(recipe, 1)
    progress.replay.add(random_episodes(env.spec, [5, 5, 5, 5]))
    progress.counters.episodes = 4
    seen: list[Batch] = []
    monkeypatch.setattr(progress.algorithm, "update", lambda batch: seen.append(batch) or {})
    stored = progress.replay.newest(4).episode_return
    train.learn(recipe.config, progress, torch.device("cpu"))
    assert seen[0].reward.sum().item() == pytest.approx(3 * stored.sum().item(), rel=1e-5)
    assert torch.equal(progress.replay.newest(4).episode_return, stored)


CHUNKS = ("replay.chunk_length=3", "replay.burn_in=2")
SMALL_REPLAY = ("replay.capacity_episodes=5", "train.checkpoint_period=1000")
"""Of fewer episodes than are played between two checkpoints."""


@pytest.mark.pipeline
@pytest.mark.parametrize(
    ("overlays", "stops", "changes"),
    [
        ((), (30,), ()),
        ((), (70, 110), ()),
        (("qmix",), (90,), ()),
        ((), (90,), CHUNKS),
        (("qmix",), (40, 100), SMALL_REPLAY),
    ],
    ids=str,
)
def test_a_stopped_run_goes_on_as_if_nothing_had_happened(
    overlays: tuple[str, ...],
    stops: tuple[int, ...],
    changes: tuple[str, ...],
    short_recipe: Callable[..., Recipe],
    tmp_path: Path,
) -> None:
    recipe = short_recipe(*overlays, changes=changes)
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(recipe, whole)
    handler = signal.getsignal(signal.SIGTERM)
    for i, at in enumerate(stops):
        with pytest.raises(StoppedError, match=r"stopped by SIGTERM after \d+ env steps"):
            run(recipe, parts, observer=Stop(at), resume=i > 0)
        assert opened(parts).manifest.status == "interrupted"
        assert signal.getsignal(signal.SIGTERM) is handler
    result = run(recipe, parts, resume=True)
    assert same_weights(whole, parts)
    for stream in ("train", "evaluation"):
        assert rows(whole, stream) == rows(parts, stream)
    ours, theirs = (opened(out).manifest.counters for out in (whole, parts))
    assert {k: v for k, v in ours.items() if k not in CLOCKS} == {
        k: v for k, v in theirs.items() if k not in CLOCKS
    }
    assert opened(whole).checkpoints() == opened(parts).checkpoints()
    assert result.status == opened(parts).manifest.status == "complete"
    assert opened(parts).manifest.notes == ()  # that it was stopped is no longer true


@pytest.mark.pipeline
@pytest.mark.parametrize("stopped_at", [None, 30], ids=["finished", "interrupted"])
def test_a_run_can_be_trained_for_longer(
    stopped_at: int | None, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    """As if it had been asked for that in the beginning, but for the evaluation where it ended at first."""
    first, longer = short_recipe(), short_recipe(changes=["train.env_steps=250"])
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(longer, whole)
    if stopped_at is None:
        run(first, parts)
    else:
        with pytest.raises(StoppedError):
            run(first, parts, observer=Stop(stopped_at))
    ended_at = opened(parts).manifest.counters["env_steps"]
    result = run(longer, parts, resume=True)
    assert result.metrics["env_steps"] > 250 > ended_at
    assert same_weights(whole, parts)
    again = [row for row in rows(parts, "evaluation") if row["env_steps"] != ended_at]
    assert again == [row for row in rows(whole, "evaluation") if row["env_steps"] != ended_at]
    ours, theirs = opened(parts), opened(whole)
    assert ours.config_text == theirs.config_text
    for name in ("recipe", "overrides", "fingerprint"):
        assert getattr(ours.manifest, name) == getattr(theirs.manifest, name)
    assert ours.verify() == []


def test_a_crash_where_a_run_becomes_a_longer_one_loses_nothing(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, longer = short_recipe("qmix"), short_recipe("qmix", changes=["train.env_steps=250"])
    run(longer, tmp_path / "whole")
    run(first, tmp_path / "first")
    write, crashes = _fs.write, 0
    for calls in range(100):
        out, left = tmp_path / f"crash {calls}", iter(range(calls))
        shutil.copytree(tmp_path / "first", out)

        def crash(path: Path, data: bytes, left: Iterator[int] = left) -> None:
            if next(left, None) is None:
                raise KeyError("killed")
            write(path, data)

        monkeypatch.setattr(_fs, "write", crash)
        try:
            with pytest.raises(KeyError, match="killed"):
                run(longer, out, resume=True, observer=Stop(0))
        except StoppedError:
            break
        finally:
            monkeypatch.undo()
        crashes += 1
        run(longer, out, resume=True)
        assert same_weights(tmp_path / "whole", out)
        assert opened(out).config_text == opened(tmp_path / "whole").config_text
        assert opened(out).verify() == []
    assert crashes > 4


def test_a_run_is_not_made_shorter_nor_otherwise_different(
    agent: Path, short_recipe: Callable[..., Recipe]
) -> None:
    shorter = short_recipe(changes=["train.env_steps=100"])
    other = short_recipe(changes=["train.env_steps=250", "discount=0.5"])
    for recipe, named in ((shorter, "train.env_steps"), (other, "discount")):
        with pytest.raises(ArtifactError, match=named):
            run(recipe, agent, seed=0, resume=True)
    with pytest.raises(RunExistsError) as error:
        run(short_recipe(changes=["train.env_steps=250"]), agent, seed=0)
    assert "train this one for longer" in error.value.hint


def test_a_crash_loses_only_what_came_after_the_last_checkpoint(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, whole, parts = short_recipe("qmix"), tmp_path / "whole", tmp_path / "parts"

    class Crash(Silent):
        def row(self, stream: str, values: Mapping[str, float | None]) -> None:
            if (values["env_steps"] or 0) > 100:
                raise RuntimeError("a bug")

    run(recipe, whole)
    with pytest.raises(RuntimeError, match="a bug"):
        run(recipe, parts, observer=Crash())
    assert opened(parts).manifest.status == "failed"
    orphan = parts / "replay" / "000000009999-1.safetensors"  # written for a checkpoint that never came
    orphan.write_bytes(b"")
    run(recipe, parts, resume=True)
    assert not orphan.exists()
    assert same_weights(whole, parts)
    assert rows(whole, "train") == rows(parts, "train")


def test_a_run_killed_between_its_last_checkpoint_and_its_end_still_tells_its_figures(
    short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, out = short_recipe("qmix"), tmp_path / "agent"

    class CrashAtTheEnd(Silent):
        def progress(self, done: int, figures: Mapping[str, float]) -> None:
            if done >= recipe.config.train.env_steps:
                raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        run(recipe, out, observer=CrashAtTheEnd())
    result, last = run(recipe, out, resume=True), rows(out, "evaluation")[-1]
    assert {name: result.metrics[name] for name in ("win_rate", "episode_return")} == {
        name: last[name] for name in ("win_rate", "episode_return")
    }


def test_a_checkpoint_is_scored_by_its_own_weights_alone(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The best checkpoint is where the best evaluation was, not a later one that never was evaluated."""
    returns = iter([0.0, 0.1, 0.9, 0.3, 0.2, 0.2, 0.2])

    def pretended(env: object, policy: Policy, episodes: int, clock: Clock) -> list[EpisodeRow]:
        value = next(returns)
        return [EpisodeRow(i, i, value, 1, success=True) for i in range(episodes)]

    monkeypatch.setattr(train, "evaluate_policy", pretended)
    run(short_recipe("qmix", changes=["train.checkpoint_period=10"]), tmp_path / "agent")
    artifact = opened(tmp_path / "agent")
    evaluated = {row["episode_return"]: row["env_steps"] for row in artifact.rows("metrics/evaluation")}
    best, latest = artifact.checkpoint("best"), artifact.checkpoint("latest")
    assert (best.step, best.score) == (evaluated[0.9], 0.9)
    assert latest.step > best.step
    assert artifact.checkpoints() == [best.step, latest.step]


def test_the_best_checkpoint_is_the_best_of_weights_that_were_saved(
    short_recipe: Callable[..., Recipe], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Agents that have learned nothing are evaluated, not saved: nothing has to be better than they."""
    returns = iter([0.9, 0.1, 0.3, 0.2])

    def pretended(env: object, policy: Policy, episodes: int, clock: Clock) -> list[EpisodeRow]:
        return [EpisodeRow(0, 0, next(returns), 1, success=True)]

    monkeypatch.setattr(train, "evaluate_policy", pretended)
    run(short_recipe("qmix", changes=["train.checkpoint_period=1000"]), tmp_path / "agent")
    best, latest = (opened(tmp_path / "agent").checkpoint(name) for name in ("best", "latest"))
    assert (best.score, latest.score) == (0.3, 0.2)
    assert best.json("state")["best_score"] == 0.3  # a run resumed from it knows


def test_training_starts_from_the_world_model_given(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = short_recipe(changes=["train.env_steps=20", "replay.batch_episodes=12"])  # no update
    run(recipe, tmp_path / "agent", world_model=world_model)
    given = Artifact.open(world_model, kind="world-model")
    pretrained = given.tensors("weights/world_model")
    checkpoint = opened(tmp_path / "agent").checkpoint("latest")
    weights, state = checkpoint.tensors("weights"), checkpoint.tensors("state")
    for name, value in pretrained.items():
        if name.startswith("agent."):
            assert torch.equal(weights[name.removeprefix("agent.")], value), name
            assert torch.equal(state[f"learner.target_{name}"], value), name
        else:
            assert torch.equal(state[f"learner.{name}"], value), name
    (entry,) = opened(tmp_path / "agent").manifest.inputs
    assert (entry.role, entry.id) == ("world-model", given.manifest.id)
    assert entry.manifest_sha256 == given.digest


def refused(kind: type[MarlSaleError], out: Path, recipe: Recipe, **changes: Any) -> str:
    """What the error says; nothing may have been left in `out`."""
    with pytest.raises(kind) as error:
        run(recipe, out, **changes)
    assert not out.exists()
    return str(error.value)


def test_a_world_model_of_another_task_is_refused(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe = short_recipe("masked", changes=["env.task=match-4"])
    text = refused(ArtifactError, tmp_path / "agent", recipe, world_model=world_model)
    for difference in (
        'task: found "match", expected "match-4"',
        "obs_size: found 8, expected 7",
        "state_size: found 10, expected 8",
        "episode_limit: found 10, expected 8",
        "masks_actions: found false, expected true",
    ):
        assert difference in text


def test_a_world_model_of_other_networks_is_refused_with_every_difference(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    changes = ["agent.hidden_size=9", "sale.size=5", "world_model.latent_size=4", "agent.agent_id=false"]
    recipe = short_recipe(changes=[*changes, "mixer.size=9", "discount=0.5"])
    text = refused(ArtifactError, tmp_path / "agent", recipe, world_model=world_model)
    for difference in (
        "agent.hidden_size: found 8, expected 9",
        "sale.size: found 6, expected 5",
        "world_model.latent_size: found 3, expected 4",
        "agent.agent_id: found true, expected false",
    ):
        assert difference in text
    assert "mixer" not in text
    assert "discount" not in text


def test_a_world_model_with_an_embedding_of_the_state_is_none_for_a_mixer_without(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    text = refused(
        ArtifactError, tmp_path / "agent", short_recipe("no-global-state"), world_model=world_model
    )
    assert "mixer.global_state: found true, expected false" in text


@pytest.mark.parametrize("overlays", [("qmix",), ("vdn",), ("no-sale", "no-world-model")], ids=str)
def test_an_algorithm_without_world_model_refuses_one(
    overlays: tuple[str, ...], world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    text = refused(UsageError, tmp_path / "agent", short_recipe(*overlays), world_model=world_model)
    assert "--world-model" in text


def test_an_artifact_of_another_kind_is_no_world_model(
    agent: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    text = refused(ArtifactError, tmp_path / "agent", short_recipe(), world_model=agent)
    assert "needed: world-model" in text


def test_a_folder_in_use_is_left_alone(agent: Path, short_recipe: Callable[..., Recipe]) -> None:
    before = {path: path.stat().st_mtime_ns for path in agent.rglob("*")}
    with pytest.raises(RunExistsError):
        run(short_recipe(), agent, seed=0)
    with pytest.raises(RunExistsError, match="complete"):
        run(short_recipe(), agent, seed=0, resume=True)
    after = {path: path.stat().st_mtime_ns for path in agent.rglob("*")}
    assert {p: t for p, t in after.items() if p.name != "lock"} == {
        p: t for p, t in before.items() if p.name != "lock"
    }


def test_a_run_is_not_resumed_as_another(
    world_model: Path, short_recipe: Callable[..., Recipe], tmp_path: Path
) -> None:
    recipe, out = short_recipe(), tmp_path / "agent"
    with pytest.raises(StoppedError):
        run(recipe, out, observer=Stop(30))
    with pytest.raises(ArtifactError, match="seed: found 1, expected 2"):
        run(recipe, out, seed=2, resume=True)
    with pytest.raises(ArtifactError, match="fingerprint"):
        run(short_recipe(changes=["discount=0.5"]), out, resume=True)
    for stage in (run, planned):
        with pytest.raises(ArtifactError, match="began from nothing, asked to go on from world-model"):
            stage(recipe, out, resume=True, world_model=world_model)
    assert Artifact.open(out, kind="agent", status=["interrupted"]).manifest.status == "interrupted"
