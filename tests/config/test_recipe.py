"""From names to configurations: layers, origins, messages, fingerprints."""

import hashlib
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.config import strict_yaml
from marl_sale.config.keys import keys
from marl_sale.config.library import flatten
from marl_sale.config.recipe import (
    changes_of,
    diff,
    list_recipes,
    load_recipe,
    recipe_from_text,
    recipe_text,
)
from marl_sale.config.schema import UNSEEN, Config
from marl_sale.errors import ConfigError, ExitCode

TASK = "lbf/8x8-2p-2f-coop"
RESOLVED = load_recipe(TASK)


def problems_of(name: str, overrides: tuple[str, ...] = ()) -> tuple[str, ...]:
    with pytest.raises(ConfigError) as caught:
        load_recipe(name, overrides)
    assert caught.value.exit_code == ExitCode.USAGE
    return caught.value.problems


def write(path: Path, text: str) -> str:
    path.write_text(text)
    return str(path)


# Layers


def test_later_layers_win() -> None:
    recipe = load_recipe(f"{TASK}+qmix+tiny", ["train.env_steps=3000", "discount=1"])
    assert recipe.name == f"{TASK}+qmix+tiny"
    assert recipe.overrides == ("train.env_steps=3000", "discount=1")
    assert recipe.config.algorithm == "qmix"
    assert recipe.config.optimiser.name == "adam"
    assert recipe.config.train.env_steps == 3000
    assert isinstance(recipe.config.discount, float)
    assert recipe.config.discount == 1.0
    assert load_recipe(f"{TASK}+qmix+vdn").config.algorithm == "vdn"
    assert load_recipe(TASK, ["discount=0.5", "discount=0.6"]).config.discount == 0.6


def test_a_whole_section_may_be_set() -> None:
    recipe = load_recipe(TASK, ["exploration={start: 0.5, finish: 0.25}"])
    assert (recipe.config.exploration.start, recipe.config.exploration.finish) == (0.5, 0.25)
    assert recipe.config.exploration.anneal_env_steps == load_recipe(TASK).config.exploration.anneal_env_steps


def test_a_users_recipe_extends_packaged_and_own_files(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    write(
        tmp_path / "low.yaml", f"about: a\nextends: {TASK}\nchanges:\n  discount: 0.9\n  sale:\n    size: 8\n"
    )
    name = write(
        tmp_path / "sub" / "my own.v2.yaml", "about: b\nextends: ../low.yaml\nchanges:\n  discount: 0.8\n"
    )
    recipe = load_recipe(f"{name}+masked")
    assert recipe.name == "my-own-v2+masked"
    assert (recipe.config.discount, recipe.config.sale.size) == (0.8, 8)
    assert recipe.config.env.task == "8x8-2p-2f-coop"
    assert recipe.config.env.mask_actions


def test_a_recipe_extends_base_by_default(tmp_path: Path) -> None:
    name = write(tmp_path / "x.yaml", "about: a\nchanges: {}\n")
    assert load_recipe(name).fingerprint == load_recipe("base").fingerprint


def test_a_plus_in_a_folder_is_no_overlay(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    name = write(tmp_path / "a+b" / "x.yaml", "about: a\nchanges: {}\n")
    assert load_recipe(f"{name}+vdn").config.algorithm == "vdn"


# Resolved text and fingerprint


def test_the_resolved_text_is_a_recipe_itself(tmp_path: Path) -> None:
    recipe = load_recipe(f"{TASK}+tiny", ["optimiser.epsilon=1e-8"])
    again = recipe_from_text(recipe.text, where="config.yaml", name=recipe.name)
    name = write(tmp_path / "config.yaml", recipe.text)
    above = write(tmp_path / "above.yaml", "about: a\nextends: config.yaml\nchanges: {}\n")
    for other in (again, load_recipe(name), load_recipe(above)):
        assert other.fingerprint == recipe.fingerprint
        assert other.config == recipe.config
        assert other.text == recipe.text


def test_the_fingerprint_sees_every_key_that_can_change_a_result() -> None:
    recipe = load_recipe(TASK, ["discount=0.99"])
    assert len(recipe.fingerprint) == 64
    assert load_recipe(TASK, ["discount=9.9e-1"]).fingerprint == recipe.fingerprint
    assert load_recipe(TASK, ["discount=0.9900000000000001"]).fingerprint != recipe.fingerprint
    seen = {recipe.fingerprint}
    for key, value in flatten(recipe.config.model_dump()).items():
        others = keys()[key].get("enum", [not value, 7, 0.123, "other"])
        other = next(item for item in others if type(item) is type(value) and item != value)
        extra = ["replay.batch_episodes=6"] if key == "replay.capacity_episodes" else []
        seen.add(
            load_recipe(TASK, ["discount=0.99", *extra, f"{key}={strict_yaml.inline(other)}"]).fingerprint
        )
    assert len(seen) == 1 + len(keys()) - len(UNSEEN)


def test_an_older_configuration_may_lack_what_changes_no_result() -> None:
    lines = load_recipe(TASK, ["train.keep_checkpoints=every"]).text.splitlines()
    older = "\n".join(line for line in lines if not re.search("checkpoint_minutes|keep_checkpoints", line))
    recipe = recipe_from_text(older, where="config.yaml", name="x")
    assert recipe.fingerprint == RESOLVED.fingerprint
    assert recipe.text == RESOLVED.text
    assert hashlib.sha256(f"{older}\n".encode()).hexdigest() == recipe.fingerprint  # as it was then


def strategy(rule: dict[str, Any]) -> st.SearchStrategy[Any]:
    if "enum" in rule:
        return st.sampled_from(rule["enum"])
    match rule["type"]:
        case "boolean":
            return st.booleans()
        case "string":
            return st.from_regex(rule["pattern"][1:-1], fullmatch=True)
        case "integer":
            return st.integers(rule["minimum"], rule["maximum"])
    low, high = (rule.get(side, rule.get(f"exclusive{side.title()}")) for side in ("minimum", "maximum"))
    return st.floats(
        low, high, exclude_min="exclusiveMinimum" in rule, exclude_max="exclusiveMaximum" in rule
    )


@st.composite
def configs(draw: st.DrawFn) -> dict[str, Any]:
    """Nested values of any configuration that the schema allows."""
    flat = {key: draw(strategy(dict(rule))) for key, rule in keys().items()}
    start, finish = flat["exploration.start"], flat["exploration.finish"]
    flat["exploration.start"], flat["exploration.finish"] = max(start, finish), min(start, finish)
    flat["replay.batch_episodes"] = min(flat["replay.batch_episodes"], flat["replay.capacity_episodes"])
    flat["mixer.global_state"] |= not (flat["world_model.enabled"] and flat["world_model.imagination_length"])
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, _, name = key.partition(".")
        if name:
            nested.setdefault(section, {})[name] = value
        else:
            nested[key] = value
    return nested


@settings(deadline=None, max_examples=60)
@given(configs())
def test_any_configuration_survives_its_own_text(values: dict[str, Any]) -> None:
    config = Config.model_validate(values)
    recipe = recipe_from_text(strict_yaml.dump(values), where="f", name="x")
    again = recipe_from_text(recipe.text, where="f", name="y")
    assert recipe.config == config
    assert again.config == config
    assert again.fingerprint == recipe.fingerprint


# Messages


def test_all_problems_at_once_each_with_its_origin(tmp_path: Path) -> None:
    low = write(
        tmp_path / "low.yaml",
        "about: below\nextends: lbf/8x8-2p-2f-coop\nchanges:\n"
        "  sale:\n    size: 0\n    hidden_size: 0\n  discunt: 1\n",
    )
    top = write(
        tmp_path / "top.yaml",
        "# comment\nabout: above\nextends: low.yaml\nchanges:\n"
        "  sale:\n    enabld: true\n    hidden_size: 16\n"
        "  exploration: 3\n  optimiser: {name: adm, epsilon: no}\n",
    )
    assert problems_of(f"{top}+qmx+vdn", ("discount=2", "train.foo=1", "nothing", "agent.core=.nan")) == (
        "unknown overlay +qmx; did you mean +qmix?",
        "--set: train.foo: unknown key; keys of train: env_steps, num_envs, updates_per_episode, "
        "reward_scale, checkpoint_period, checkpoint_minutes, keep_checkpoints, log_period, threads",
        "--set nothing: expected key=value",
        "--set: agent.core: .nan is not a finite number",
        f"{low}:7: discunt: unknown key; did you mean discount?",
        f"{top}:6: sale.enabld: unknown key; did you mean sale.enabled?",
        f"{top}:8: exploration: expected a section (start, finish, anneal_env_steps), found 3",
        "--set: discount: expected a number from 0 to 1, found 2",
        f"{low}:5: sale.size: expected an integer from 1 to 8192, found 0",
        f"{top}:9: optimiser.name: expected one of rmsprop, adam, found adm; did you mean adam?",
        f'{top}:9: optimiser.epsilon: expected a number above 0 to 10, found "no"',
    )


def test_rules_between_keys_name_every_origin(tmp_path: Path) -> None:
    name = write(
        tmp_path / "x.yaml",
        "about: a\nchanges:\n  exploration:\n    start: 0.1\n  replay:\n    capacity_episodes: 9\n",
    )
    batch = base_line("batch_episodes")
    assert problems_of(name, ("exploration.finish=0.9",)) == (
        "--set: exploration.finish must not exceed exploration.start; "
        f"found exploration.finish: 0.9 (--set), exploration.start: 0.1 ({name}:4)",
        f"{batch}: replay.batch_episodes must not exceed replay.capacity_episodes; "
        f"found replay.batch_episodes: 32 ({batch}), replay.capacity_episodes: 9 ({name}:6)",
    )


def base_line(key: str) -> str:
    lines = recipe_text("base").splitlines()
    return f"recipes/base.yaml:{next(number for number, line in enumerate(lines, 1) if f'{key}:' in line)}"


def test_a_mixer_without_input_is_refused() -> None:
    (problem,) = problems_of(f"{TASK}+no-global-state+k0")
    assert problem.startswith("recipes/ablations/no-global-state.yaml:5: mixer.global_state: false leaves")
    assert "world_model.imagination_length: 0 (recipes/ablations/k0.yaml:5)" in problem
    assert load_recipe(f"{TASK}+no-global-state+k0+qmix").config.algorithm == "qmix"


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("lbf/8x8-2p-2f-cop", "unknown recipe 'lbf/8x8-2p-2f-cop'; did you mean lbf/8x8-2p-2f-coop?"),
        (f"{TASK}+no-sal", "unknown overlay +no-sal; did you mean +no-sale?"),
        (f"{TASK}+", "unknown overlay +"),
        (f"{TASK}+qmix+qmix", "+qmix is joined twice"),
        (f"{TASK}.yaml", f"{TASK}.yaml: no such file; did you mean the packaged recipe {TASK}?"),
        ("nowhere-at-all/x.yaml", "nowhere-at-all/x.yaml: there is no such file"),
        ("qmix", "qmix is an overlay: join it to a recipe, as in lbf/8x8-2p-2f-coop+qmix"),
        ("+qmix", "no recipe is named; an overlay is joined to one, as in lbf/8x8-2p-2f-coop+qmix"),
        ("tiny/matsch", "unknown recipe 'tiny/matsch'; did you mean tiny/match?"),
    ],
)
def test_unknown_names(name: str, problem: str) -> None:
    assert problem in problems_of(name)


def test_unknown_names_say_how_to_list() -> None:
    with pytest.raises(ConfigError, match="marl-sale recipes ls"):
        load_recipe("lbf/nothing")


@pytest.mark.parametrize(
    "name",
    [
        "../recipes/base",
        "lbf/../base",
        "/etc/passwd",
        "overlays/qmix",
        "lbf",
        "lbf/",
        "./base",
        "base\0",
        "x" * 9999,
    ],
)
def test_names_do_not_leave_the_package(name: str) -> None:
    for attempt in (lambda: recipe_text(name), lambda: changes_of(name), lambda: load_recipe(name)):
        with pytest.raises(ConfigError, match="unknown recipe"):
            attempt()
    with pytest.raises(ConfigError, match="unknown overlay"):
        load_recipe(f"base+{name}")


@pytest.mark.parametrize("name", ["a\0b.yaml", f"{'x' * 9999}.yaml"])
def test_impossible_file_names(name: str) -> None:
    assert "is not the name of a file" in problems_of(name)[0]


def test_a_loop_of_recipes_is_refused(tmp_path: Path) -> None:
    a = write(tmp_path / "a.yaml", "about: a\nextends: b.yaml\nchanges: {}\n")
    write(
        tmp_path / "b.yaml", "about: b\nextends: ./../" + tmp_path.name + "/a.yaml\nchanges: {discont: 1}\n"
    )
    first, second = problems_of(a)
    assert "b.yaml:2: extends: " in first
    assert "extends itself" in first
    assert second.endswith("b.yaml:3: discont: unknown key; did you mean discount?")


@pytest.mark.parametrize(
    ("extends", "message"),
    [
        ("lbf/8x8", "extends: unknown recipe 'lbf/8x8'"),
        (f"{TASK}+qmix", "is not one recipe"),
        ("+qmix", "is not one recipe"),
        ("none.yaml", "none.yaml: there is no such file"),
        ("[base]", "extends: expected a text"),
    ],
)
def test_a_bad_extends_names_its_line(tmp_path: Path, extends: str, message: str) -> None:
    name = write(tmp_path / "x.yaml", f"about: a\nextends: {extends}\nchanges: {{}}\n")
    (problem,) = problems_of(name)
    assert problem.startswith(f"{name}:2: extends: ")
    assert message in problem


def test_the_header_of_a_recipe_is_checked(tmp_path: Path) -> None:
    name = write(
        tmp_path / "x.yaml", "abuot: a\nquestion: 3\nextends: |\n  a\n  b\ndiscount: 0.9\nchanges:\n"
    )
    assert problems_of(name) == (
        f"{name}:1: about: missing",
        f"{name}:1: abuot: unknown; did you mean about?",
        f"{name}:2: question: expected a text, found 3",
        f"{name}:3: extends: expected one line",
        f"{name}:6: discount: a config key belongs under `changes`",
        f"{name}:7: changes: expected config keys with their values, found null",
    )
    for text in ("", "- a\n", "3\n"):
        (problem,) = problems_of(write(tmp_path / "y.yaml", text))
        assert problem.startswith(
            f"{tmp_path / 'y.yaml'}:1: expected a recipe (about, extends, question, changes)"
        )


def test_a_complete_configuration_gives_every_key() -> None:
    text = load_recipe(TASK).text.replace("  latent_size: 16\n", "")
    text = re.sub(r"^discount: .*\n", "", text, flags=re.MULTILINE)
    text = re.sub(r"^replay:\n(  .*\n)+", "replay: 3\n", text, flags=re.MULTILINE)
    with pytest.raises(ConfigError) as caught:
        recipe_from_text(text, where="config.yaml", name="x")
    section, missing = caught.value.problems
    listed = "capacity_episodes, batch_episodes, chunk_length, burn_in, observations"
    assert f"replay: expected a section ({listed}), found 3" in section
    assert missing.startswith("config.yaml:1: missing keys: discount, world_model.latent_size (")


def test_an_artifacts_text_refers_to_nothing_else(tmp_path: Path) -> None:
    text = f"about: a\nextends: {tmp_path}/secret.yaml\nchanges: {{}}\n"
    with pytest.raises(ConfigError) as caught:
        recipe_from_text(text, where="config.yaml", name="x")
    assert any(problem.startswith("config.yaml:2: extends: unknown key") for problem in caught.value.problems)


def test_an_int_is_a_float_but_nothing_else_is_converted() -> None:
    assert load_recipe(TASK, ["optimiser.max_grad_norm=50"]).config.optimiser.max_grad_norm == 50.0
    for override in (
        "discount=true",
        "discount='1'",
        "train.env_steps=1.0",
        "sale.enabled=1",
        "env.task=5",
        "discount=",
    ):
        (problem,) = problems_of(TASK, (override,))
        assert problem.startswith(f"--set: {override.partition('=')[0]}: expected ")


WRONG: dict[str, list[Any]] = {
    "boolean": [0, 1, "yes", 1.0, None, [], {"a": 1}],
    "string": [3, 0.5, True, None, [], {"a": 1}, "", "a b", "../x", "a" * 99, "é"],
    "integer": [-1, 10**10, 1.0, "3", True, None, [1], {"a": 1}],
    "number": [-1, 1e10, 10**40, "3", False, None, [0.1], {"a": 1}],
}


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_wrong_value_raises_config_error_naming_key_and_line(data: st.DataObject) -> None:
    chosen = data.draw(st.lists(st.sampled_from(list(keys())), min_size=1, max_size=4, unique=True))
    nested = RESOLVED.config.model_dump()
    for key in chosen:
        section, _, name = key.partition(".")
        wrong = data.draw(st.sampled_from(WRONG[keys()[key]["type"]]))
        (nested[section] if name else nested)[name or section] = wrong
    text = strict_yaml.dump(nested)
    with pytest.raises(ConfigError) as caught:
        recipe_from_text(text, where="f", name="x")
    assert len(caught.value.problems) == len(chosen)
    lines = strict_yaml.parse(text, "f").lines
    for key in chosen:
        assert any(
            problem.startswith(f"f:{lines[key]}: {key}: expected ") for problem in caught.value.problems
        )


@settings(deadline=None)
@given(st.text(max_size=40) | st.from_regex(r"[a-z_.]{0,20}=[^\n]{0,20}", fullmatch=True))
def test_any_override_is_applied_or_refused(override: str) -> None:
    key = override.partition("=")[0].strip()
    applied: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()
    try:
        applied = load_recipe("base", [override]).overrides
    except ConfigError as error:
        problems = error.problems
    assert applied == (() if problems else (override,))
    assert problems or key in {known.partition(".")[0] for known in keys()} | set(keys())


# What the command line shows


def test_listing() -> None:
    listed = list_recipes()
    assert all(item.about and "\n" not in item.about for item in listed)
    assert not [item for item in listed if "_family" in item.name]
    assert {item.kind for item in listed} == {"recipe", "overlay", "ablation"}
    assert ("qmix", "overlay") in [(item.name, item.kind) for item in listed]


def test_the_text_of_a_file_keeps_its_comments() -> None:
    assert recipe_text("base").startswith("# Every key of a recipe")
    assert recipe_text("+qmix") == recipe_text("qmix")
    assert "algorithm: qmix" in recipe_text("qmix")


def test_changes_are_those_of_the_file_alone() -> None:
    assert changes_of(TASK) == {"env.task": "8x8-2p-2f-coop"}
    assert changes_of("no-sale") == {"sale.enabled": False}
    assert list(changes_of("base")) == list(keys())


def test_diff_follows_the_schema() -> None:
    a, b = load_recipe(TASK), load_recipe(f"{TASK}+qmix", ["env.task=5x5-2p-1f"])
    assert diff(a, b) == [("algorithm", "mmsa", "qmix"), ("env.task", "8x8-2p-2f-coop", "5x5-2p-1f")]
    assert diff(a, a) == []
