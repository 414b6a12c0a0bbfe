"""SMAC and SMACv2 as published, from the recipe to the end of an episode, on a game that stands in.

What is measured here says nothing about StarCraft II (tests/sc2_stand_in).
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from marl_sale.config.recipe import list_recipes, load_recipe
from marl_sale.data.collect import Clock, Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.envs import _sc2_pool
from marl_sale.envs._load import describe, make_env
from marl_sale.envs.smac import MAPS
from marl_sale.errors import ConfigError, EnvironmentFault
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec

SIZES = {
    "smac/3m": (3, 30, 48, 9, 60),
    "smac/8m": (8, 80, 168, 14, 120),
    "smac/25m": (25, 250, 950, 31, 150),
    "smac/5m_vs_6m": (5, 55, 98, 12, 70),
    "smac/8m_vs_9m": (8, 85, 179, 15, 120),
    "smac/10m_vs_11m": (10, 105, 243, 17, 150),
    "smac/27m_vs_30m": (27, 285, 1170, 36, 180),
    "smac/MMM": (10, 160, 290, 16, 150),
    "smac/MMM2": (10, 176, 322, 18, 180),
    "smac/2s3z": (5, 80, 120, 11, 120),
    "smac/3s5z": (8, 128, 216, 14, 150),
    "smac/3s5z_vs_3s6z": (8, 136, 230, 15, 170),
    "smac/3s_vs_3z": (3, 36, 54, 9, 150),
    "smac/3s_vs_4z": (3, 42, 61, 10, 200),
    "smac/3s_vs_5z": (3, 48, 68, 11, 250),
    "smac/1c3s5z": (9, 162, 270, 15, 180),
    "smac/2m_vs_1z": (2, 16, 26, 7, 150),
    "smac/corridor": (6, 156, 282, 30, 400),
    "smac/6h_vs_8z": (6, 78, 140, 14, 150),
    "smac/2s_vs_1sc": (2, 17, 27, 7, 300),
    "smac/so_many_baneling": (7, 202, 397, 38, 100),
    "smac/bane_vs_bane": (24, 336, 984, 30, 200),
    "smac/2c_vs_64zg": (2, 332, 342, 70, 400),
    **{
        f"smacv2/{race}_{teams}": (int(teams.partition("_")[0]), obs, state, actions, 200)
        for teams, actions, common, protoss in (
            ("5_vs_5", 11, (82, 120), (92, 130)),
            ("10_vs_10", 16, (162, 290), (182, 310)),
            ("10_vs_11", 17, (170, 306), (191, 327)),
            ("20_vs_20", 26, (322, 780), (362, 820)),
            ("20_vs_23", 29, (346, 858), (389, 901)),
        )
        for race, (obs, state) in (("terran", common), ("zerg", common), ("protoss", protoss))
    },
}
"""Agents, and sizes of observation, state, actions and episode, of the unmodified packages."""


def random_round(recipe: str, num_envs: int, clock: Clock | None = None) -> tuple[Episodes, EnvSpec, int]:
    """Random play of the first episodes of seed 0; and how often a worker was started again."""
    env = make_env(load_recipe(recipe).config.env, num_envs)
    try:
        noise = Exploration.of_episodes(env.spec, 1.0, 0, 0, num_envs)
        episodes = play(env, None, episode_seeds(0, 0, num_envs), noise, clock)
        return episodes, env.spec, env.restarts  # type: ignore[attr-defined]
    finally:
        env.close()


def test_the_page_tells_the_sizes() -> None:
    page = Path(__file__).parents[2] / "docs/env-smac.md"
    rows = re.findall(r"^\| `(\w+)` ((?:\| \d+ ){5})\|$", page.read_text(encoding="utf-8"), re.MULTILINE)
    told = {name: tuple(map(int, numbers.strip(" |").split(" | "))) for name, numbers in rows}
    assert told == {name.partition("/")[2]: sizes for name, sizes in SIZES.items()}


@pytest.mark.parametrize("name", [name for name in SIZES if "2c_vs_64zg" not in name])
def test_micro_has_the_same_sizes(name: str) -> None:
    _, _, task = name.partition("/")
    spec = describe(load_recipe(f"micro/{task}").config.env)
    sizes = (spec.n_agents, spec.obs_size, spec.state_size, spec.n_actions, spec.episode_limit)
    assert sizes == SIZES[name]


def test_every_recipe_has_its_sizes_and_maps() -> None:
    recipes = {item.name for item in list_recipes() if item.name.startswith(("smac/", "smacv2/"))}
    assert recipes == set(SIZES)
    assert {name.removeprefix("smac/") for name in recipes if name.startswith("smac/")} == set(MAPS)


@pytest.mark.parametrize("recipe", SIZES)
def test_recipes_have_the_published_protocol(recipe: str) -> None:
    config = load_recipe(recipe).config
    assert f"{config.env.family}/{config.env.task}" == recipe  # difficulty 7
    assert config.env.mask_actions
    assert not config.env.bootstrap_at_time_limit
    assert config.train.env_steps == (2050000 if recipe.startswith("smac/") else 10050000)
    assert (config.evaluation.episodes, config.evaluation.period) == (32, 10000)
    learning = config.optimiser
    assert (learning.name, learning.learning_rate, learning.target_update_period) == ("rmsprop", 5e-4, 200)
    assert (config.replay.batch_episodes, config.agent.hidden_size) == (32, 64)
    explored = config.exploration
    assert (explored.start, explored.finish, explored.anneal_env_steps) == (1.0, 0.05, 50000)


@pytest.mark.parametrize("family", ["smac", "smacv2"])
def test_a_whole_episode_of_every_task(family: str, stand_in: Path) -> None:
    tasks = [name.partition("/")[2] for name in SIZES if name.startswith(f"{family}/")]
    script = [sys.executable, str(Path(__file__).with_name("sc2_episodes.py")), family, *tasks]
    played = subprocess.run(script, capture_output=True, text=True, check=True).stdout
    found = {row["task"]: row for row in map(json.loads, played.splitlines())}
    assert len(found) == len(tasks)
    for name, row in found.items():
        agents, obs, state, actions, limit = SIZES[name]
        assert row["sizes"] == [agents, actions, obs, state, limit], name
        assert row["shapes"] == [[agents, obs], [state], [agents, actions]], name
        assert 1 < row["length"] <= limit, name
        assert row["truncated"] <= (row["length"] == limit), name
        assert 0 <= row["return"] < 30, name


def test_what_a_recipe_makes(stand_in: Path) -> None:
    episodes, spec, restarts = random_round("smacv2/protoss_5_vs_5", 1)
    sizes = (spec.n_agents, spec.obs_size, spec.state_size, spec.n_actions, spec.episode_limit)
    assert sizes == SIZES["smacv2/protoss_5_vs_5"]
    assert (spec.family, spec.task, spec.backend) == ("smacv2", "protoss_5_vs_5", "original")
    assert spec.notes.startswith("StarCraft II build 99999; its own random draws are not repeatable; rewards")
    assert restarts == 0
    assert 1 < int(episodes.length[0]) <= spec.episode_limit


@pytest.mark.parametrize("fault", ["crash@9", "drop@9", "malformed@9", "hang@9"])
def test_a_crash_of_the_game_changes_no_result(
    fault: str, stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The round is played again: episodes, successes and returns are those of a run without the fault."""
    monkeypatch.setenv("MARL_SALE_WORKERS", "1")
    expected, _, _ = random_round("smac/3m", 2)
    assert int(expected.length.min()) > 9
    if fault.startswith("hang"):
        monkeypatch.setattr(_sc2_pool, "_PATIENCE", 15.0)  # for each copy
    armed, clock = tmp_path / "armed", Clock()
    armed.touch()
    monkeypatch.setenv("SC2_STAND_IN_FAULT", fault)
    monkeypatch.setenv("SC2_STAND_IN_ARMED", str(armed))
    episodes, _, restarts = random_round("smac/3m", 2, clock)
    assert not armed.exists()
    assert (clock.replayed, restarts) == (1, 1)
    assert torch.equal(episodes.length, expected.length)
    assert torch.equal(episodes.success, expected.success)
    for index, steps in enumerate(expected.length.tolist()):
        assert torch.equal(episodes.reward[index, :steps], expected.reward[index, :steps])
        assert torch.equal(episodes.obs[index, : steps + 1], expected.obs[index, : steps + 1])


def test_smacv2_draws_the_same_teams_from_the_same_seeds(stand_in: Path) -> None:
    """In another process, as another copy, after another episode."""

    def starts(seeds: list[list[int]]) -> list[torch.Tensor]:
        env = make_env(load_recipe("smacv2/zerg_5_vs_5").config.env, len(seeds[0]))
        try:
            shown = []
            for row in seeds:
                observation = env.reset(np.array(row))
                shown.append(observation.state)
            return shown
        finally:
            env.close()

    first, second = starts([[1, 2]]), starts([[3, 1]])
    assert torch.equal(first[0][0], second[0][1])
    assert not torch.equal(first[0][0], first[0][1])
    assert not torch.equal(first[0][0], second[0][0])


def test_no_game_is_left_behind(stand_in: Path) -> None:
    if not Path("/proc/self/cmdline").exists():
        pytest.skip("reads /proc")

    def games() -> int:
        lines = [path.read_bytes() for path in Path("/proc").glob("[0-9]*/cmdline") if path.exists()]
        return sum(str(stand_in).encode() in line for line in lines)

    env = make_env(load_recipe("smac/3m").config.env, 2)
    env.reset(np.array([1, 2]))
    assert games() == 2
    env.close()
    assert games() == 0


@pytest.mark.parametrize("recipe", ["smac/3m", "smacv2/zerg_5_vs_5"])
def test_what_cannot_be_honoured_is_refused(recipe: str) -> None:
    wrong = load_recipe(recipe, ["env.backend=native", "env.mask_actions=false"]).config.env
    with pytest.raises(ConfigError) as raised:
        make_env(wrong, 1)
    assert len(raised.value.problems) == 2


@pytest.mark.parametrize(
    ("family", "task", "told"),
    [
        ("smac", "3s5zz", "did you mean 3s5z"),
        ("smac", "3m,difficulty=B", "difficulty: found 'B', allowed: 1, 2, 3"),
        ("smac", "terran_5_vs_5", "allowed in family 'smac'"),
        ("smacv2", "3m", "terran_5_vs_5"),
        ("smacv2", "terran_0_vs_5", "terran_5_vs_5"),
    ],
)
def test_a_wrong_task(family: str, task: str, told: str) -> None:
    recipe = {"smac": "smac/3m", "smacv2": "smacv2/zerg_5_vs_5"}[family]
    config = load_recipe(recipe).config.env.model_copy(update={"task": task})
    with pytest.raises(ConfigError, match=told):
        make_env(config, 1)


def test_the_difficulty_is_part_of_the_name(stand_in: Path) -> None:
    config = load_recipe("smac/3m", ["env.task=3m,difficulty=A"]).config.env
    env = make_env(config, 1)
    env.close()
    assert env.spec.task == "3m,difficulty=A"


def test_without_the_game(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match="export SC2PATH="):
        make_env(load_recipe("smac/3m").config.env, 1)
