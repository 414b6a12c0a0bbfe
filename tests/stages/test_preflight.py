"""Memory and disk before a run: what is there, what is needed, and what is said where that is too little."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from marl_sale_cli.app import app
from typer.testing import CliRunner, Result

from marl_sale.algorithms._load import build, build_pretraining
from marl_sale.config.recipe import Recipe
from marl_sale.data.replay import replay_bytes
from marl_sale.envs._load import describe
from marl_sale.errors import ResourceError
from marl_sale.stages import preflight

GIB = 1 << 30


def system(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


MEMINFO = {"proc/meminfo": f"MemTotal: 99 kB\nMemAvailable:   {8 << 20} kB\nSwapFree: 0 kB\n"}


def v1(limit: int, used: int, files: int, folder: str = "") -> dict[str, str]:
    at = f"sys/fs/cgroup/memory/{folder}"
    return {
        f"{at}/memory.limit_in_bytes": f"{limit}\n",
        f"{at}/memory.usage_in_bytes": f"{used}\n",
        f"{at}/memory.stat": f"cache 1\ntotal_inactive_file {files}\n",
    }


def v2(limit: int | str, used: int, files: int, folder: str = "") -> dict[str, str]:
    at = f"sys/fs/cgroup/{folder}"
    return {
        f"{at}/memory.max": f"{limit}\n",
        f"{at}/memory.current": f"{used}\n",
        f"{at}/memory.stat": f"anon 1\ninactive_file {files}\nactive_file 7\n",
    }


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n"}, 8 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", **v2("max", 5, 0, "a/b"), **v2("max", 5, 0)}, 8 * GIB),
        ({"proc/self/cgroup": "0::/a/b\n", **v2(4 * GIB, 3 * GIB, GIB // 2, "a/b")}, 3 * GIB // 2),
        ({"proc/self/cgroup": "0::/a/b\n", **v2("max", 1, 0, "a/b"), **v2(2 * GIB, GIB, 0, "a")}, GIB),
        ({"proc/self/cgroup": "0::/hidden/by/a/namespace\n", **v2(3 * GIB, GIB, 0)}, 2 * GIB),
        ({"proc/self/cgroup": "5:cpu:/\n4:memory:/job/7\n", **v1(6 * GIB, GIB, 1, "job/7")}, 5 * GIB + 1),
        ({"proc/self/cgroup": "4:cpu,memory:/job\n0::/\n", **v1(6 * GIB, 2 * GIB, 0)}, 4 * GIB),
        ({"proc/self/cgroup": "4:memory:/\n", **v1(2**63 - 4096, GIB, 0)}, 8 * GIB),
        ({"proc/self/cgroup": "0::/\n", **v2(GIB, 2 * GIB, 0)}, 0),
    ],
)
def test_what_is_available_is_the_least_of_machine_and_groups(
    files: dict[str, str], expected: int, tmp_path: Path
) -> None:
    assert preflight.available_memory(system(tmp_path, {**MEMINFO, **files})) == expected


def test_this_machine_has_some() -> None:
    assert 1 << 20 < preflight.available_memory() < 1 << 60
    assert 0 < preflight.free_disk(Path("not/there/yet")) < 1 << 70


def needs(recipe: Recipe) -> preflight.Needs:
    return preflight.training(build(recipe.config, describe(recipe.config.env)))


def test_the_replay_grows_with_its_capacity_until_the_run_cannot_fill_it(
    small_recipe: Callable[..., Recipe],
) -> None:
    spec = describe(small_recipe().config.env)

    def replay(*changes: str) -> int:
        return needs(small_recipe("qmix", changes=changes)).memory["replay"]

    long = "train.env_steps=100000000"
    full = replay("replay.capacity_episodes=1000", long)
    assert full >= replay_bytes(spec, 1000)
    assert full < replay_bytes(spec, 1000) + 1000 * 16 * (spec.episode_limit + 1) + 1
    assert replay("replay.capacity_episodes=2000", long) == 2 * full
    half = replay("replay.capacity_episodes=1000", long, "replay.observations=float16")
    assert 0.5 * full < half < full
    assert replay("replay.capacity_episodes=1000", "train.env_steps=100") < full / 5


def test_longer_imagination_larger_batches_and_networks_need_more(
    small_recipe: Callable[..., Recipe],
) -> None:
    def update(*changes: str) -> int:
        return needs(small_recipe(changes=changes)).memory["one update"]

    for change in (
        "world_model.imagination_length=9",
        "replay.batch_episodes=9",
        "agent.hidden_size=99",
        "sale.size=99",
        "mixer.size=99",
    ):
        assert update(change) > update(), change
    adam, rmsprop = (needs(small_recipe(changes=[f"optimiser.name={n}"])) for n in ("adam", "rmsprop"))
    assert adam.memory["model and optimiser"] > rmsprop.memory["model and optimiser"]


def test_a_dataset_needs_disk(small_recipe: Callable[..., Recipe]) -> None:
    config = small_recipe().config
    algorithm = build_pretraining(config, describe(config.env))
    plain, saved = (preflight.pretraining(algorithm, saves_dataset=saves) for saves in (False, True))
    assert saved.disk > plain.disk
    assert saved.total == plain.total  # the episodes are written from the same rows, one save at a time


def test_a_dataset_is_judged_by_what_is_in_it(small_recipe: Callable[..., Recipe]) -> None:
    config = small_recipe(changes=["pretrain.episodes=7"]).config
    algorithm = build_pretraining(config, describe(config.env))
    played = preflight.pretraining(algorithm, saves_dataset=False)
    read, many = (preflight.pretraining(algorithm, saves_dataset=False, stored=n) for n in (7, 700))
    assert read.disk < played.disk  # nothing is gathered
    assert many.memory["episodes"] == 100 * read.memory["episodes"]
    assert "pretrain.episodes" in played.advice(1 << 60)
    assert "pretrain.episodes" not in read.advice(1 << 60)


def test_a_checkpoint_that_stays_is_on_the_disk(small_recipe: Callable[..., Recipe]) -> None:
    each = "train.checkpoint_period=10"

    def disk(*changes: str) -> int:
        return needs(small_recipe("qmix", changes=[each, *changes])).disk

    few = disk("train.env_steps=1000")
    every = disk("train.env_steps=1000", "train.keep_checkpoints=every")
    longer = disk("train.env_steps=2000", "train.keep_checkpoints=every")
    assert every - few > 90 * 4 * 1000  # of more than a thousand weights
    assert longer > 1.5 * every


def test_what_a_run_holds_already_is_not_asked_for_again(
    small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked = needs(small_recipe("qmix"))
    (tmp_path / "replay").mkdir()
    (tmp_path / "replay" / "segment").write_bytes(bytes(1000))
    assert preflight.held(tmp_path) == 0  # of something else
    (tmp_path / "manifest.json").touch()
    monkeypatch.setattr(preflight, "free_disk", lambda _: asked.disk - 1000)
    preflight.require("train", asked, tmp_path, overcommit=False)
    monkeypatch.setattr(preflight, "free_disk", lambda _: asked.disk - 1001)
    with pytest.raises(ResourceError, match="its own already"):
        preflight.require("train", asked, tmp_path, overcommit=False)


@pytest.mark.parametrize("env_steps", [100_000_000, 20_000], ids=["long", "shorter than the replay"])
def test_the_capacity_that_is_said_to_fit_fits(
    env_steps: int, small_recipe: Callable[..., Recipe], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    long = [f"train.env_steps={env_steps}", "train.checkpoint_period=10"]
    monkeypatch.setattr(preflight, "available_memory", lambda: 8 << 20)
    too_many = needs(small_recipe("qmix", changes=[*long, "replay.capacity_episodes=100000"]))
    with pytest.raises(ResourceError) as told:
        preflight.require("train", too_many, tmp_path, overcommit=False)
    preflight.require("train", too_many, tmp_path, overcommit=True)
    assert "8 MiB are available" in told.value.what
    fits = int(told.value.hint.partition("capacity_episodes=")[2].split()[0])
    assert fits > 100
    fitting = needs(small_recipe("qmix", changes=[*long, f"replay.capacity_episodes={fits}"]))
    preflight.require("train", fitting, tmp_path, overcommit=False)
    more = needs(small_recipe("qmix", changes=[*long, f"replay.capacity_episodes={fits + 1}"]))
    with pytest.raises(ResourceError):
        preflight.require("train", more, tmp_path, overcommit=False)


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, list(map(str, arguments)))


@pytest.mark.parametrize("command", ["train", "pretrain-wm"])
@pytest.mark.parametrize("dry_run", [True, False])
@pytest.mark.parametrize("lacking", ["memory", "disk"])
def test_what_does_not_fit_ends_with_5_before_anything_is_written(
    command: str, dry_run: bool, lacking: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    if lacking == "memory":
        monkeypatch.setattr(preflight, "available_memory", lambda: 1 << 20)
    else:
        monkeypatch.setattr(preflight, "free_disk", lambda _: 1 << 10)
    refused = run(command, "tiny/match+tiny", "--out", "out", *(["--dry-run"] if dry_run else []))
    assert (refused.exit_code, refused.stdout) == (5, ""), refused.stderr
    assert ("available" if lacking == "memory" else "free") in refused.stderr
    assert "--allow-overcommit" in refused.stderr
    assert list(tmp_path.iterdir()) == []
    if dry_run:
        allowed = run(command, "tiny/match+tiny", "--out", "out", "--dry-run", "--allow-overcommit")
        assert allowed.exit_code == 0, allowed.stderr
