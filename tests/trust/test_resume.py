"""Interrupted and resumed = uninterrupted, bit for bit; and leaving out any part of the state is noticed."""

import copy
import os
import shutil
import signal
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from comparison import Flat, KillAt, Killed, contents, differing, disturb, without_last_words

from marl_sale.algorithms._api import Algorithm
from marl_sale.algorithms._load import REGISTRY
from marl_sale.artifacts.manifest import read_manifest
from marl_sale.artifacts.metrics import MetricsWriter
from marl_sale.config.recipe import Recipe
from marl_sale.data import collect
from marl_sale.data.batch import Batch
from marl_sale.data.replay import Replay
from marl_sale.envs._load import describe
from marl_sale.errors import EpisodeLost, NotFiniteError, StoppedError
from marl_sale.observer import Silent
from marl_sale.seeding import episode_seeds
from marl_sale.stages import pretrain_wm, train
from marl_sale.stages._fitting import Fitting
from marl_sale.stages._progress import Counters, Progress

Recipes = Callable[..., Recipe]
Record = Callable[..., None]

TASKS = {
    "tiny": "tiny/match+tiny",
    "lbf": "lbf/5x5-2p-1f-coop+tiny",
    "micro": "micro/3m+tiny",
    "vmas": "vmas/balance+tiny",
    "mamujoco": "mamujoco/reacher-2x1+tiny",
}
PACKAGES = {"vmas": "vmas", "mamujoco": "mujoco"}
"""That the task of a family needs."""
ALGORITHMS = tuple(REGISTRY)
CHUNKS = ("replay.chunk_length=3", "replay.burn_in=2")
FEEDFORWARD = ("agent.core=feedforward", "agent.head=bilinear", "optimiser.name=rmsprop")
CASES = [(family, algorithm, ()) for family in TASKS for algorithm in ALGORITHMS]
CASES += [("tiny", "mmsa", CHUNKS), ("tiny", "mmsa", FEEDFORWARD)]
IN_SHORT = [CASES[0], ("lbf", "iql", ()), CASES[-2]]

WATCHFUL = "train.checkpoint_minutes=1e-9"
"""A checkpoint after every round; it is not part of the fingerprint, so a resume may ask for it."""


def changes_for(task: str, small_recipe: Recipes, rounds: int = 8) -> tuple[str, ...]:
    """A run of so many rounds of two of the longest episodes, and everything periodic in it."""
    steps = 2 * rounds * describe(small_recipe(task=task).config.env).episode_limit
    return (
        f"train.env_steps={steps}",
        "train.num_envs=2",
        "train.updates_per_episode=1.0",
        f"train.checkpoint_period={steps // 3}",
        f"train.log_period={steps // 5}",
        f"evaluation.period={steps // 4}",
        "evaluation.episodes=3",
        "evaluation.num_envs=3",
        f"exploration.anneal_env_steps={steps // 2}",
        "optimiser.target_update_period=3",
        "replay.capacity_episodes=8",
        "pretrain.episodes=10",
        "pretrain.max_epochs=3",
    )


class StopAt(Silent):
    """Sends a signal to this process once so much is done of a stage."""

    def __init__(self, at: float, stage: str = "", number: int = signal.SIGTERM) -> None:
        self.at, self.stage, self.number = at, stage, number
        self.here = not stage

    def start(self, stage: str, total: int, unit: str) -> None:
        self.here = self.stage in stage

    def progress(self, done: int, figures: Mapping[str, float]) -> None:
        if self.here and done >= self.at:
            self.here = False
            os.kill(os.getpid(), self.number)


def run(stage: Any, recipe: Recipe, out: Path, **more: Any) -> Any:
    arguments: dict[str, Any] = {"seed": 3, "device": "cpu", "observer": Silent(), "command": "test"}
    return stage.run(recipe, out, **{**arguments, **more})


@pytest.mark.parametrize(
    ("family", "algorithm", "more"), CASES, ids=lambda x: "+".join(x) if type(x) is tuple else x
)
def test_train(
    family: str,
    algorithm: str,
    more: tuple[str, ...],
    small_recipe: Recipes,
    tmp_path: Path,
    is_long: bool,
    tally: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped by a signal at a third, killed at two thirds; the last stretch saves after every round."""
    if not is_long and (family, algorithm, more) not in IN_SHORT:
        pytest.skip("in the long form")
    if family in PACKAGES:
        pytest.importorskip(PACKAGES[family])
    overlays = () if algorithm == "mmsa" else (algorithm,)
    changes = (*changes_for(TASKS[family], small_recipe), *more)
    recipe, watchful = (
        small_recipe(*overlays, task=TASKS[family], changes=[*changes, *extra]) for extra in ((), [WATCHFUL])
    )
    assert recipe.config.algorithm == algorithm
    steps = recipe.config.train.env_steps
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    disturb(1)
    run(train, recipe, whole)
    disturb(2)
    with pytest.raises(StoppedError, match="stopped by SIGTERM"):
        run(train, recipe, parts, observer=StopAt(steps / 3))
    disturb(3)
    with without_last_words(monkeypatch):
        run(train, recipe, parts, observer=KillAt(parts, lambda done: done >= 2 * steps / 3), resume=True)
    assert read_manifest(parts)[0].status == "running"
    disturb(4)
    run(train, watchful, parts, resume=True)
    ours, theirs = contents(whole), contents(parts)
    assert differing(ours, theirs) == []
    assert ours["counters"]["updates"] > 2 * recipe.config.optimiser.target_update_period  # copies were made
    tally(compared=len(ours), tensors=sum(hasattr(value, "dtype") for value in ours.values()), different=0)


@pytest.mark.parametrize("family", TASKS)
def test_pretrain_wm(
    family: str,
    small_recipe: Recipes,
    tmp_path: Path,
    is_long: bool,
    tally: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Stopped while gathering, killed in the second epoch, stopped in the next part, killed at its end."""
    if not is_long and family != "tiny":
        pytest.skip("in the long form")
    if family in PACKAGES:
        pytest.importorskip(PACKAGES[family])
    recipe, watchful = (
        small_recipe(task=TASKS[family], changes=[*changes_for(TASKS[family], small_recipe), *extra])
        for extra in ((), [WATCHFUL])
    )
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    run(pretrain_wm, recipe, whole, save_dataset=tmp_path / "dataset")
    again = partial(run, pretrain_wm, save_dataset=tmp_path / "dataset again")
    disturb(2)
    with pytest.raises(StoppedError, match=r"after \d episodes"):
        again(recipe, parts, observer=StopAt(4, "gather"))
    disturb(3)
    with without_last_words(monkeypatch):
        again(recipe, parts, observer=KillInEpoch(2), resume=True)
    disturb(4)
    with pytest.raises(StoppedError, match="in epoch 4"):
        again(watchful, parts, observer=StopAt(1, "representation", signal.SIGUSR1), resume=True)
    with without_last_words(monkeypatch):
        again(recipe, parts, observer=KillInEpoch(6), resume=True)
    disturb(5)
    again(recipe, parts, resume=True)
    ours, theirs = contents(whole), contents(parts)
    assert differing(ours, theirs) == []
    datasets = [
        (tmp_path / name / "episodes.safetensors").read_bytes() for name in ("dataset", "dataset again")
    ]
    assert datasets[0] == datasets[1]
    assert not (parts / "replay").exists()
    tally(compared=len(ours), different=0)


class KillInEpoch(Silent):
    def __init__(self, epoch: int) -> None:
        self.epoch = epoch

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        if values["epoch"] == self.epoch:
            raise Killed


# Leaving out a part of the state

Part = tuple[Callable[[Any], Any], Callable[[Any, Any], None]]
"""What a part is in a new run, and how to put that in the place of what was loaded."""


def attribute(name: str) -> Part:
    *path, last = name.split(".")

    def owner(x: Any) -> Any:
        for step in path:
            x = getattr(x, step)
        return x

    return lambda x: copy.deepcopy(getattr(owner(x), last)), lambda x, value: setattr(owner(x), last, value)


def tensors(module: str, prefix: str) -> Part:
    def get(x: Any) -> dict[str, Any]:
        state = getattr(x, module).state_dict()
        found = {name: value.clone() for name, value in state.items() if name.startswith(prefix)}
        assert found, f"nothing is called {prefix}"
        return found

    return get, lambda x, value: getattr(x, module).load_state_dict(value, strict=False)


def optimiser(module: str) -> Part:
    return (
        lambda x: copy.deepcopy(getattr(x, module).optimiser.state_dict()),
        lambda x, value: getattr(x, module).optimiser.load_state_dict(value),
    )


def generator(name: str) -> Part:
    return lambda x: x._generators()[name].get_state(), lambda x, value: x._generators()[name].set_state(
        value
    )


def without_the_newest(progress: Progress, _: object) -> None:
    """The one before it in its place, as the next round overwrites the oldest anyway."""
    loaded = progress.replay
    places = torch.arange(len(loaded))
    places[-1] -= 1
    other = Replay(loaded.spec, loaded.capacity, bootstrap_at_time_limit=loaded.bootstrap_at_time_limit)
    other.added = loaded.added - len(loaded)
    other.add(loaded.newest(len(loaded)).take(places))
    progress.replay = other


LEARNER = (
    *("agent.core.", "agent.head.", "agent.sale.", "target_agent.core.", "target_agent.sale."),
    *("mixer.", "target_mixer.", "sale.", "state_sale.", "fixed_state_sale.", "target_state_sale."),
    *("world_model.", "rollout_encoder.", "seen_targets", "target_range"),
)
COUNTERS = ("env_steps", "episodes", "updates", "updates_skipped", "imagined_steps", "rounds_replayed")
OF_TRAINING: dict[str, Part] = {
    **{prefix.rstrip("."): tensors("algorithm", prefix) for prefix in LEARNER},
    "optimiser": optimiser("algorithm"),
    "schedule of copies": attribute("algorithm.updates"),
    **{f"counter {name}": attribute(f"counters.{name}") for name in COUNTERS},
    "sampling generator": generator("sampling"),
    "latent noise generator": generator("latent_noise"),
    "an episode of the replay": (lambda progress: None, without_the_newest),
    "averages": attribute("averages"),
    "best score": attribute("best_score"),
    "guard": attribute("guard"),
    "rollbacks": attribute("rollbacks"),
    "learning rate": (
        lambda progress: progress.algorithm.optimiser.param_groups[0]["lr"],
        lambda progress, rate: progress.algorithm.optimiser.param_groups[0].update(lr=rate),
    ),
}
IN_SHORT_PARTS = (
    "target_mixer",
    "target_range",
    "optimiser",
    "sampling generator",
    "averages",
    "guard",
    "metrics",
)


@pytest.fixture(scope="module")
def killed(small_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory) -> tuple[Recipe, Path, Flat]:
    """A recipe whose run goes back to a checkpoint once; a killed run of it; and what the whole run gives."""
    changes = [*changes_for(TASKS["tiny"], small_recipe), "optimiser.target_update_period=3"]
    recipe = small_recipe(changes=changes)
    folder = tmp_path_factory.mktemp("killed")
    with pytest.MonkeyPatch.context() as monkeypatch:
        eventful(monkeypatch)
        run(train, recipe, folder / "whole")
    late = KillAt(folder / "parts", lambda done: done > recipe.config.train.env_steps * 0.8)
    with pytest.MonkeyPatch.context() as monkeypatch, without_last_words(monkeypatch):
        eventful(monkeypatch)
        run(train, recipe, folder / "parts", observer=late)
    return recipe, folder / "parts", contents(folder / "whole")


def eventful(monkeypatch: pytest.MonkeyPatch) -> None:
    """Four updates in a row are bad at the recipe's learning rate, and one at half of it; a round of episodes
    is lost; and evaluations get worse and worse, so that the best one is behind.
    """
    update, play_round, lost = Algorithm.update, collect._play_round, []
    learn, counters = train.learn, [Counters()]

    def learning(config: Any, progress: Progress, device: Any) -> None:
        counters[0] = progress.counters
        learn(config, progress, device)

    def sometimes_bad(algorithm: Algorithm, batch: Batch) -> Any:
        rate = algorithm.optimiser.param_groups[0]["lr"] / algorithm.config.optimiser.learning_rate
        if counters[0].updates in ((6, 7, 8, 9) if rate == 1 else (7,)):
            raise NotFiniteError("pretended", "nothing")
        return update(algorithm, batch)

    def once_lost(env: Any, policy: Any, seeds: Any, *more: Any) -> Any:
        if seeds[0] == episode_seeds(3, 2, 2)[0] and not lost:
            lost.append(seeds)
            raise EpisodeLost("pretended")
        return play_round(env, policy, seeds, *more)

    monkeypatch.setattr(train, "learn", learning)
    monkeypatch.setattr(Algorithm, "update", sometimes_bad)
    monkeypatch.setattr(collect, "_play_round", once_lost)
    evaluate, summarise, now = train.Training.evaluate, train.summarise, [0]

    def worse(training: train.Training, env: Any) -> Any:
        now[0] = training.progress.counters.env_steps
        return evaluate(training, env)

    monkeypatch.setattr(train.Training, "evaluate", worse)
    monkeypatch.setattr(
        train, "summarise", lambda rows: {**summarise(rows), "episode_return": -float(now[0])}
    )


def resumed_without(
    part: str, loader: type[Any], parts: Mapping[str, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    """From now on, loading a checkpoint leaves one part as it is in a new run."""
    load = loader.load
    if part == "metrics":
        begin = MetricsWriter.__init__

        def at_the_end(writer: MetricsWriter, path: Path, *columns: Any, truncate_at: int = 0) -> None:
            begin(writer, path, *columns, truncate_at=path.stat().st_size if path.exists() else 0)

        monkeypatch.setattr(MetricsWriter, "__init__", at_the_end)
    elif part != "nothing":
        get, put = parts[part]

        def incomplete(self: Any, *arguments: Any) -> Any:
            before = get(self)
            result = load(self, *arguments)
            put(self, before)
            return result

        monkeypatch.setattr(loader, "load", incomplete)


def after_resuming(stage: Any, recipe: Recipe, out: Path, whole: Flat) -> list[str]:
    """What is not as in the whole run; where the run fails for want of its state, how."""
    try:
        run(stage, recipe, out, resume=True)
    except ValueError as error:
        return [str(error)]
    return differing(whole, contents(out))


@pytest.mark.parametrize("part", ["nothing", "metrics", *OF_TRAINING])
def test_leaving_a_part_of_train_out_is_noticed(
    part: str,
    killed: tuple[Recipe, Path, Flat],
    tmp_path: Path,
    is_long: bool,
    tally: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_long and part not in ("nothing", *IN_SHORT_PARTS):
        pytest.skip("in the long form")
    recipe, parts, whole = killed
    shutil.copytree(parts, tmp_path / "run")
    eventful(monkeypatch)
    resumed_without(part, Progress, OF_TRAINING, monkeypatch)
    different = after_resuming(train, recipe, tmp_path / "run", whole)
    assert bool(different) == (part != "nothing"), different
    tally(different=len(different))


def test_a_checkpoint_by_the_clock_changes_nothing(
    killed: tuple[Recipe, Path, Flat], small_recipe: Recipes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even where training goes back to when updates go wrong."""
    recipe, _, whole = killed
    watchful = small_recipe(changes=[*recipe.overrides, WATCHFUL])
    assert watchful.fingerprint == recipe.fingerprint
    eventful(monkeypatch)
    run(train, watchful, tmp_path / "run")
    assert differing(whole, contents(tmp_path / "run")) == []
    assert whole["latest rollbacks"] == whole["counters"]["updates_skipped"] == 1


OF_FITTING: dict[str, Part] = {
    **{prefix.rstrip("."): tensors("fit", prefix) for prefix in ("mmsa.agent.core.", "core_decoder.")},
    **{prefix.rstrip("."): tensors("fit", prefix) for prefix in ("mmsa.sale.", "mmsa.world_model.")},
    "mmsa.state_sale": tensors("fit", "mmsa.state_sale."),
    "optimiser": optimiser("fit"),
    "order of batches": generator("batches"),
    "latent noise generator": generator("latent_noise"),
    "best weights": (
        lambda fitting: None,
        lambda fitting, _: setattr(fitting, "best", copy.deepcopy(fitting.fit.state_dict())),
    ),
    "epochs and best epoch": attribute("parts"),
    "updates": attribute("fit.updates"),
}


@pytest.fixture(scope="module")
def killed_fit(
    small_recipe: Recipes, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Recipe, dict[int, Path], Flat]:
    """As `killed`, of pretrain-wm: killed in either part, at the start of the epoch after a checkpoint."""
    changes = [*changes_for(TASKS["tiny"], small_recipe), "pretrain.min_improvement=1.0", WATCHFUL]
    recipe, folder = small_recipe(changes=changes), tmp_path_factory.mktemp("killed-fit")
    run(pretrain_wm, recipe, folder / "whole")
    for epoch in (3, 6):
        with pytest.MonkeyPatch.context() as monkeypatch, without_last_words(monkeypatch):
            run(pretrain_wm, recipe, folder / str(epoch), observer=KillInEpoch(epoch))
    return recipe, {epoch: folder / str(epoch) for epoch in (3, 6)}, contents(folder / "whole")


@pytest.mark.parametrize("part", ["nothing", "metrics", *OF_FITTING])
def test_leaving_a_part_of_pretrain_wm_out_is_noticed(
    part: str,
    killed_fit: tuple[Recipe, dict[int, Path], Flat],
    tmp_path: Path,
    is_long: bool,
    tally: Record,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if not is_long and part not in ("nothing", "order of batches", "best weights"):
        pytest.skip("in the long form")
    recipe, parts, whole = killed_fit
    shutil.copytree(parts[3 if part == "core_decoder" else 6], tmp_path / "run")
    resumed_without(part, Fitting, OF_FITTING, monkeypatch)
    different = after_resuming(pretrain_wm, recipe, tmp_path / "run", whole)
    assert bool(different) == (part != "nothing"), different
    tally(different=len(different))
