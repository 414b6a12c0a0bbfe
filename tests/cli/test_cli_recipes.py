import json
import os
from pathlib import Path

import pytest
from marl_sale_cli.app import app
from typer.testing import CliRunner

from marl_sale.config.recipe import load_recipe

cli = CliRunner()


def test_ls_shows_every_kind_with_what_it_is_about() -> None:
    lines = cli.invoke(app, ["recipes", "ls"]).stdout.splitlines()
    assert any(line.startswith("tiny/match ") and " recipe " in line for line in lines)
    assert any(line.startswith("+qmix ") and " overlay " in line for line in lines)
    assert any(line.startswith("+no-sale ") and " ablation " in line for line in lines)
    listed = json.loads(cli.invoke(app, ["recipes", "ls", "--json"]).stdout)
    assert {"name", "about", "kind"} == set(listed[0])
    assert len(listed) == len([line for line in lines if line]) - 1


def test_ls_groups_families_and_keeps_what_has_all_words() -> None:
    blocks = cli.invoke(app, ["recipes", "ls"]).stdout.split("\n\n")[1:]
    groups = [{line.split()[0].partition("/")[0] for line in block.splitlines()} for block in blocks]
    assert {"micro"} in groups
    assert {"lbf"} in groups
    assert all(len(group) == 1 or all(name.startswith("+") for name in group) for group in groups)
    listed = json.loads(cli.invoke(app, ["recipes", "ls", "LBF/", "coop", "--json"]).stdout)
    assert {entry["name"] for entry in listed} == {
        "lbf/2s-8x8-2p-2f-coop",
        "lbf/5x5-2p-1f-coop",
        "lbf/8x8-2p-2f-coop",
    }
    nothing = cli.invoke(app, ["recipes", "ls", "starcraft"])
    assert nothing.exit_code == 2
    assert "micro" in nothing.stderr


def test_cat_prints_the_file_with_its_comments_or_the_resolved_recipe() -> None:
    assert "# every" in cli.invoke(app, ["recipes", "cat", "base"]).stdout.lower()
    joined = cli.invoke(app, ["recipes", "cat", "tiny/match+tiny"]).stdout
    assert joined == load_recipe("tiny/match+tiny").text
    changed = cli.invoke(app, ["recipes", "cat", "tiny/match", "--set", "discount=0.5"]).stdout
    assert changed == load_recipe("tiny/match", ["discount=0.5"]).text


@pytest.mark.parametrize("name", ["lbf/8x8-2p-2f-coop", "tiny/match+tiny", "base"])
def test_a_copy_means_the_same_and_never_overwrites(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    first = cli.invoke(app, ["recipes", "cp", name, "mine.yaml"])
    assert (first.exit_code, first.stdout) == (0, "mine.yaml\n")
    assert load_recipe("mine.yaml").fingerprint == load_recipe(name).fingerprint
    assert "marl-sale train mine.yaml" in Path("mine.yaml").read_text().split("\n", 3)[2]
    Path("mine.yaml").write_text("precious")
    again = cli.invoke(app, ["recipes", "cp", name, "mine.yaml"])
    assert again.exit_code == 2
    assert "exists" in again.stderr
    assert Path("mine.yaml").read_text() == "precious"


@pytest.mark.parametrize(
    "file", ["", "/", "mine.txt", "nowhere/mine.yaml", "/dev/null/mine.yaml", "x" * 999 + ".yaml"]
)
def test_a_copy_goes_where_it_can_be_used(file: str, tmp_path: Path) -> None:
    refused = cli.invoke(app, ["recipes", "cp", "tiny/match", str(tmp_path / file)])
    assert refused.exit_code == 2
    assert not list(tmp_path.iterdir())


def test_diff_names_each_key_with_both_values() -> None:
    shown = cli.invoke(app, ["recipes", "diff", "tiny/match", "tiny/match+no-sale"]).stdout.splitlines()
    assert [line.split() for line in shown] == [
        ["key", "tiny/match", "tiny/match+no-sale"],
        ["sale.enabled", "true", "false"],
    ]
    as_json = cli.invoke(app, ["recipes", "diff", "tiny/match", "tiny/match+no-sale", "--json"]).stdout
    assert json.loads(as_json) == {"sale.enabled": {"a": True, "b": False}}
    same = cli.invoke(app, ["recipes", "diff", "tiny/match", "tiny/match"])
    assert (same.stdout, same.stderr) == ("", "no key differs\n")


def test_validate_reports_all_problems_of_all_recipes_at_once() -> None:
    good = cli.invoke(app, ["recipes", "validate", "tiny/match"])
    assert good.stdout == f"{load_recipe('tiny/match').fingerprint[:8]}  tiny/match\n"
    bad = cli.invoke(app, ["recipes", "validate", "tiny/matsh", "tiny/match+qmicks", "tiny/match"])
    assert bad.exit_code == 2
    assert "did you mean tiny/match?" in bad.stderr
    assert "did you mean +qmix?" in bad.stderr
    assert bad.stdout == good.stdout


def test_an_overlay_that_changes_nothing_is_told() -> None:
    def note(*words: str) -> str:
        done = cli.invoke(app, ["train", *words, "--dry-run"])
        assert done.exit_code == 0, done.stderr
        return done.stderr

    assert "note: +masked changes nothing here" in note("micro/3m+masked+qmix")
    assert "note: +" not in note("lbf/5x5-2p-1f-coop+masked+qmix")
    assert "note: +" not in note("micro/3m+masked", "--quiet")
    # What would not be a recipe without an overlay, or without what is set, needs both.
    assert "note: +qmix" not in note("lbf/5x5-2p-1f-coop+qmix+no-global-state+k0")
    assert "note: +no-sale changes nothing here" in note("lbf/5x5-2p-1f-coop+qmix+no-sale")
    assert "note: +" not in note("lbf/5x5-2p-1f-coop+no-sale")
    alone = ["lbf/5x5-2p-1f-coop+k0+no-global-state", "--set", "world_model.imagination_length=2"]
    assert "note: +k0 changes nothing here" in note(*alone)


def test_cp_leaves_nothing_where_the_name_is_no_utf8(tmp_path: Path) -> None:
    name = tmp_path / os.fsdecode(b"bad\xff.yaml")
    refused = cli.invoke(app, ["recipes", "cp", "tiny/match", str(name)])
    assert refused.exit_code == 2
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "words",
    [("plot",), ("runs", "show"), ("train", "tiny/match", "--out"), ("train", "tiny/match", "--world-model")],
)
def test_an_empty_path_is_not_the_current_folder(words: tuple[str, ...]) -> None:
    refused = cli.invoke(app, [*words, ""])
    assert refused.exit_code == 2
    assert "is empty" in refused.stderr
