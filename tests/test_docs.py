"""The documentation tells the truth: links, recipe keys, functions, commands, the tree; and no machine."""

import importlib
import os
import re
import shlex
import subprocess
import tomllib
from itertools import chain
from pathlib import Path
from typing import Any

import pytest
from marl_sale_cli.app import app
from typer.main import get_command

from marl_sale.config.keys import keys, sections
from marl_sale.config.recipe import load_recipe
from marl_sale.config.schema import LossWeights
from marl_sale.errors import ExitCode

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

FENCE = re.compile(r"^```(\w*)\n(.*?)^```", re.MULTILINE | re.DOTALL)
LINK = re.compile(r"\]\(([^)\s]+)\)")
DOTTED = re.compile(r"`([a-z_]+\.[a-z_]+)(?::? [^`]*|=[^`]*)?`")
CODE_NAME = re.compile(r"`(marl_sale(?:\.\w+)+)`")
COMMAND = re.compile(r"^(?:\w+=\$\()?(marl-sale [^#\n)]*)", re.MULTILINE)

METHOD = (
    "agent",
    "sale",
    "world_model",
    "mixer",
    "loss_weights",
    "optimiser",
    "exploration",
    "replay",
    "pretrain",
)
"""Sections of a recipe that hold the method; the others hold the task and the length of a run."""

# Written with classes, so that this file does not name what it forbids.
FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"(?<![\w.])/(?:root|home|Users|work|workspace|mnt|opt)/\w"),
    "a package server": re.compile(
        r"(?:--(?:extra-)?inde[x]-url|--find-link[s])[ =]|/simpl[e]/|pythonhoste[d]"
    ),
    "a private address": re.compile(r"\b(?:10|192\.168|172\.(?:1[6-9]|2\d|3[01]))(?:\.\d{1,3}){2,3}:\d+"),
}


def prose(page: Path) -> str:
    """A page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


def anchors(page: Path) -> set[str]:
    """The fragments that the headings of a page can be linked by."""
    headings = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    broken = []
    for link in LINK.findall(prose(page)):
        if re.match(r"[a-z]+:", link):
            continue
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not target.exists() or (anchor and anchor not in anchors(target)):
            broken.append(link)
    assert not broken


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_recipe_keys_exist(page: Path) -> None:
    named = [name for name in DOTTED.findall(prose(page)) if name.partition(".")[0] in sections()]
    assert not [name for name in named if name not in keys()]


def test_the_method_names_every_key_of_the_method() -> None:
    """A choice that no page explains is a choice that nobody can judge."""
    text = prose(ROOT / "docs/method.md") + prose(ROOT / "docs/equations.md")
    of_method = (*("algorithm", "discount"), *(f"{section}." for section in METHOD))
    expected = [key for key in keys() if key.startswith(of_method)]
    assert not [key for key in expected if key not in text]


def resolve(name: str) -> Any:
    """The module, class, function or method of a dotted name."""
    parts = name.split(".")
    for split in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:split]))
        except ModuleNotFoundError:
            continue
        for attribute in parts[split:]:
            found = getattr(found, attribute)
        return found
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_code_that_is_named_exists(page: Path) -> None:
    for name in CODE_NAME.findall(prose(page)):
        assert resolve(name) is not None


def test_each_equation_names_the_function_that_says_its_number() -> None:
    page = (ROOT / "docs/equations.md").read_text(encoding="utf-8")
    numbered = dict(re.findall(r"^## (E\d+) .*?\n(.*?)(?=^## )", page, re.MULTILINE | re.DOTALL))
    assert list(numbered) == [f"E{n}" for n in range(1, 11)]
    for number, text in numbered.items():
        sources = [f"{resolve(name).__doc__}" for name in CODE_NAME.findall(text)]
        modules = [
            f"{importlib.import_module(resolve(name).__module__).__doc__}" for name in CODE_NAME.findall(text)
        ]
        assert any(re.search(rf"\b{number}\b", doc) for doc in chain(sources, modules)), number


def test_each_loss_weight_stands_in_the_table_of_the_unified_loss() -> None:
    page = (ROOT / "docs/equations.md").read_text(encoding="utf-8")
    table = page[page.index("## E10") : page.index("## Imagination")]
    assert {f"loss_weights.{name}" for name in LossWeights.model_fields} == set(DOTTED.findall(table))


def commands(page: Path) -> list[str]:
    """Every command line in the shell blocks of a page."""
    blocks = [body for language, body in FENCE.findall(page.read_text(encoding="utf-8")) if language == "sh"]
    return [line.strip() for block in blocks for line in COMMAND.findall(block)]


@pytest.mark.parametrize("line", [line for page in PAGES if page.name != "cli.md" for line in commands(page)])
def test_command_lines_parse_and_their_recipes_resolve(line: str) -> None:
    """Parsed as the program would, not run."""
    command: Any = get_command(app)
    words = shlex.split(line)[1:]
    while getattr(command, "commands", None):
        assert words[0] in command.commands, line
        command = command.commands[words.pop(0)]
    values = command.make_context("marl-sale", words).params
    if "recipe" in values:
        load_recipe(values["recipe"], values["overrides"] or ())


def test_the_readme_shows_the_four_commands_of_the_pipeline_in_order() -> None:
    stages = [line.split()[1] for line in commands(ROOT / "README.md")]
    assert stages[:4] == ["pretrain-wm", "train", "eval", "plot"]


def test_the_readme_lists_every_exit_code() -> None:
    listed = re.findall(r"^\| (\d+) \|", (ROOT / "README.md").read_text(encoding="utf-8"), re.MULTILINE)
    assert {int(code) for code in listed} >= {int(code) for code in ExitCode}


def test_the_tree_names_the_packages_there_are() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    tree = page[page.index("## The tree") : page.index("## Where to find")]
    top, inside = re.findall(r"^(\w+)/", tree, re.MULTILINE), re.findall(r"^  (\w+)/", tree, re.MULTILINE)
    assert not [name for name in top if not (ROOT / name).is_dir()]
    packages = {path.parent.name for path in (ROOT / "marl_sale").glob("*/__init__.py")}
    assert set(inside) == packages
    modules = {path.name for path in (ROOT / "marl_sale").glob("[!_]*.py")}
    assert set(re.findall(r"\b(\w+\.py)\b", tree)) == modules


def test_the_floors_are_those_of_the_import_contract() -> None:
    page = (ROOT / "docs/architecture.md").read_text(encoding="utf-8")
    floors = next(body for _, body in FENCE.findall(page) if body.startswith("roof"))
    drawn = [re.split(r"  +", line)[1] for line in floors.splitlines()]
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    (contract,) = project["tool"]["importlinter"]["contracts"]
    assert drawn == [layer.replace("marl_sale.", "") for layer in contract["layers"]]


def tracked() -> list[Path]:
    """Files that git keeps or would keep."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    # A hook's environment would point git at another index.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    done = subprocess.run(listing, cwd=ROOT, env=environment, capture_output=True, text=True)
    if done.returncode:
        pytest.skip("not a git checkout")
    return [path for name in done.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("what", FORBIDDEN)
def test_no_file_names(what: str) -> None:
    """The patterns match what they are for (first), and nothing that is committed."""
    samples = {
        "a path of somebody's machine": "/".join(["", "home", "me", "x"]),
        "a package server": "--index" + "-url x",
        "a private address": ".".join(["10", "0", "0", "1"]) + ":3141",
    }
    assert FORBIDDEN[what].search(samples[what])
    found = []
    for path in tracked():
        try:
            text = path.read_text(encoding="utf-8")
        except UnicodeDecodeError:
            continue  # a picture or weights
        found += [f"{path.relative_to(ROOT)}: {hit[0]}" for hit in FORBIDDEN[what].finditer(text)]
    assert not found


@pytest.mark.parametrize("page", sorted((ROOT / "docs").glob("env-*.md")), ids=lambda page: page.name)
def test_every_trap_is_guarded_by_a_test_that_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    _, heading, rest = text.partition("## What can go wrong, and the test that guards it\n")
    assert heading, "the page does not tell the traps"
    rows = [line for line in rest.partition("\n## ")[0].splitlines() if line.startswith("| ")][1:]
    tests = "\n".join(file.read_text("utf-8") for file in (ROOT / "tests").rglob("test_*.py"))
    defined = set(re.findall(r"^def (test_\w+)\(", tests, re.MULTILINE))
    for row in rows:
        guards = re.findall(r"`(test_\w+)`", row.rsplit(" | ", 1)[1])
        assert guards, row
        assert set(guards) <= defined, set(guards) - defined
