"""The packaged recipes: all resolve, each says what it is, ablations change what they announce."""

import re
from importlib.resources import files
from pathlib import Path

import pytest

from marl_sale.config.keys import keys, sections
from marl_sale.config.library import flatten
from marl_sale.config.recipe import changes_of, diff, list_recipes, load_recipe, recipe_text

LISTED = list_recipes()
RECIPES = [item.name for item in LISTED if item.kind == "recipe"]
OVERLAYS = [item.name for item in LISTED if item.kind == "overlay"]
ABLATIONS = [item.name for item in LISTED if item.kind == "ablation"]
LBF = [name for name in RECIPES if name.startswith("lbf/")]


def test_what_is_packaged() -> None:
    assert {name.removeprefix("lbf/") for name in LBF} == {
        "5x5-2p-1f-coop",
        "8x8-2p-2f-coop",
        "2s-8x8-2p-2f-coop",
        "8x8-2p-3f",
        "10x10-3p-5f",
        "10x10-4p-3f",
        "10x10-3p-3f",
        "15x15-4p-5f",
    }
    assert {"base", "tiny/match"} <= set(RECIPES)
    assert {"qmix", "vdn", "iql", "masked", "tiny", "adam"} <= set(OVERLAYS)
    assert {"no-world-model", "no-sale", "no-kl-balancing", "no-global-state", "k0"} <= set(ABLATIONS)


def test_no_file_hides_another() -> None:
    root = Path(str(files("marl_sale_recipes")))
    shown = [path for path in root.rglob("*.yaml") if not path.name.startswith("_")]
    assert len(LISTED) == len(shown)
    assert len({item.name for item in LISTED}) == len(shown)


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_resolves_alone_and_with_every_overlay_and_ablation(recipe: str) -> None:
    assert load_recipe(recipe).name == recipe
    for other in [*OVERLAYS, *ABLATIONS]:
        resolved = load_recipe(f"{recipe}+{other}")
        values = flatten(resolved.config.model_dump())
        assert {key: values[key] for key in changes_of(other)} == changes_of(other)


@pytest.mark.parametrize("ablation", ABLATIONS)
@pytest.mark.parametrize("parent", [name for name in RECIPES if name != "base"])
def test_an_ablation_changes_exactly_what_it_says(parent: str, ablation: str) -> None:
    changed = {key: value for key, _, value in diff(load_recipe(parent), load_recipe(f"{parent}+{ablation}"))}
    assert changed == changes_of(ablation)
    assert changed


def test_the_ablation_that_leaves_plain_qmix() -> None:
    config = load_recipe("lbf/8x8-2p-2f-coop+no-world-model+no-sale").config
    assert config.algorithm == "mmsa"
    assert not config.sale.enabled
    assert not config.world_model.enabled


@pytest.mark.parametrize("recipe", LBF)
def test_a_foraging_recipe_is_named_after_its_task_in_the_published_protocol(recipe: str) -> None:
    config = load_recipe(recipe).config
    assert f"lbf/{config.env.task}" == recipe
    assert config.env.family == "lbf"
    assert config.algorithm == "mmsa"
    assert not config.env.mask_actions
    assert load_recipe(f"{recipe}+masked").config.env.mask_actions


MAMUJOCO = [name for name in RECIPES if name.startswith("mamujoco/")]


def test_what_is_packaged_of_multi_agent_mujoco() -> None:
    assert {load_recipe(name).config.env.task for name in MAMUJOCO} == {
        "Ant-2x4",
        "Ant-2x4d",
        "Ant-4x2",
        "HalfCheetah-2x3",
        "HalfCheetah-6x1",
        "Hopper-3x1",
        "Humanoid-9|8",
        "HumanoidStandup-9|8",
        "ManySegmentAnt-2x3",
        "ManySegmentSwimmer-10x2",
        "Pusher-3p",
        "Reacher-2x1",
        "Swimmer-2x1",
        "Walker2d-2x3",
    }


@pytest.mark.parametrize("recipe", MAMUJOCO)
def test_a_mamujoco_recipe_is_named_after_its_task_and_goes_on_at_the_limit(recipe: str) -> None:
    config = load_recipe(recipe).config
    assert f"mamujoco/{config.env.task.lower().replace('|', '-')}" == recipe
    assert config.env.bootstrap_at_time_limit
    assert config.env.backend == "original"
    assert config.evaluation.episodes == 10


def test_the_tiny_overlay_is_tiny() -> None:
    config = load_recipe("lbf/8x8-2p-2f-coop+tiny").config
    assert config.train.env_steps <= 2000
    assert config.pretrain.episodes == 24
    assert config.pretrain.max_epochs == 2
    assert config.evaluation.episodes <= 4
    assert 2 * config.evaluation.period <= config.train.env_steps
    assert 2 * config.train.checkpoint_period <= config.train.env_steps


def test_base_gives_every_key_once_in_order_with_a_comment() -> None:
    assert list(changes_of("base")) == list(keys())
    lines = [line for line in recipe_text("base").splitlines() if line and not line.startswith("#")]
    assert len(lines) == len(keys()) + len(sections())
    for line in lines:
        assert re.search(r"\S  +# \S", line), f"without comment: {line}"
