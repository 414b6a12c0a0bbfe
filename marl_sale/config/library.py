"""Recipe files: what the toolkit carries, what a user brings, and what such a file may say.

A recipe is either a complete configuration, like base.yaml, or `about`, `extends` and `changes`. Overlays and
ablations have no `extends`: they are joined to any recipe with `+`. Packaged names are looked up among the
files that exist and never joined to a path, so no name can reach outside the package.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, NamedTuple

from marl_sale.config import strict_yaml
from marl_sale.config.keys import nearest
from marl_sale.config.schema import Config
from marl_sale.config.strict_yaml import Document, Value, brief
from marl_sale.errors import ConfigError

Kind = Literal["recipe", "overlay", "ablation"]

LIST_HINT = "list recipes and overlays: marl-sale recipes ls"

_FOLDERS: Mapping[str, Kind] = {"overlays": "overlay", "ablations": "ablation"}
_HEADERS: Mapping[Kind, Mapping[str, bool]] = {  # key → required
    "recipe": {"about": True, "extends": False, "question": False, "changes": True},
    "overlay": {"about": True, "changes": True},
    "ablation": {"about": True, "question": True, "changes": True},
}
_BASE_ABOUT = "Every key once, with its unit and effect; the other recipes change what differs"


class Listed(NamedTuple):
    """One line of the list of recipes."""

    name: str
    about: str
    kind: Kind


@dataclass(frozen=True)
class RecipeFile:
    """The contents of one file, its config keys not yet checked against the schema."""

    where: str
    about: str
    extends: str | None
    """None where nothing lies below: complete configurations, overlays and ablations."""
    values: Mapping[str, Value]
    """Nested config values: the changes, or the whole configuration."""
    lines: Mapping[str, int]
    """Dotted config key → line."""
    extends_line: int = 1
    complete: bool = False

    def at(self, key: str) -> str:
        """`file:line` of a dotted config key."""
        return f"{self.where}:{self.lines[key]}"


def list_recipes() -> list[Listed]:
    """All packaged recipes, overlays and ablations; not those shared by others (a leading `_`)."""
    return [
        Listed(name.removeprefix("+"), packaged(name).about, kind)
        for name, (kind, _) in _catalogue().items()
        if not name.rpartition("/")[2].startswith("_")
    ]


def recipe_text(name: str) -> str:
    """The text of a packaged file, comments included: a recipe's or an overlay's (`qmix` or `+qmix`)."""
    return _catalogue()[_known(name)][1].read_text("utf-8")


def changes_of(name: str) -> dict[str, Value]:
    """Dotted key → value of what a packaged file itself says, without what it extends."""
    return flatten(packaged(_known(name)).values)


def flatten(values: Mapping[str, Value], prefix: str = "") -> dict[str, Value]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Value] = {}
    for key, value in values.items():
        flat.update(flatten(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value})
    return flat


def packaged(name: str) -> RecipeFile:
    """A recipe (`lbf/8x8-2p-2f-coop`) or, with a leading `+`, an overlay or ablation. Raises ConfigError."""
    found = _catalogue().get(name)
    if found is None:
        raise ConfigError([_unknown(name)], LIST_HINT)
    kind, source = found
    where = f"recipes/{name}.yaml" if kind == "recipe" else f"recipes/{kind}s/{name[1:]}.yaml"
    return _interpret(strict_yaml.read(source, where), kind)


def from_path(path: Path) -> RecipeFile:
    """A user's own recipe. Raises ConfigError."""
    if not path.exists() and (guess := nearest(path.as_posix().removesuffix(".yaml"), _names("recipe"))):
        raise ConfigError([f"{path}: no such file; did you mean the packaged recipe {guess}?"], LIST_HINT)
    return _interpret(strict_yaml.read(path, str(path)), "recipe")


def complete_configuration(document: Document) -> RecipeFile:
    """A text that gives every key itself and refers to no other file. Raises ConfigError."""
    if not isinstance(document.value, dict):
        raise ConfigError([f"{document.where}:1: expected config keys, found {brief(document.value)}"])
    return RecipeFile(document.where, _BASE_ABOUT, None, document.value, document.lines, complete=True)


@cache
def _catalogue() -> Mapping[str, tuple[Kind, Traversable]]:
    def walk(folder: Traversable, prefix: str) -> Iterator[tuple[str, tuple[Kind, Traversable]]]:
        kind = _FOLDERS.get(prefix.removesuffix("/"), "recipe")
        for entry in sorted(folder.iterdir(), key=lambda entry: entry.name):
            if entry.is_dir():
                yield from walk(entry, f"{prefix}{entry.name}/")
            elif entry.name.endswith(".yaml"):
                stem = entry.name.removesuffix(".yaml")
                yield (prefix + stem if kind == "recipe" else f"+{stem}"), (kind, entry)

    found = dict(walk(files("marl_sale_recipes"), ""))
    order: Sequence[Kind] = ["recipe", "overlay", "ablation"]
    return {name: found[name] for name in sorted(found, key=lambda name: (order.index(found[name][0]), name))}


def _names(*kinds: Kind) -> list[str]:
    return [name for name, (kind, _) in _catalogue().items() if kind in kinds]


def _known(name: str) -> str:
    """Key in the catalogue of a name with or without the leading `+`. Raises ConfigError."""
    for key in (name, f"+{name}"):
        if key in _catalogue():
            return key
    raise ConfigError([_unknown(name)], LIST_HINT)


def _unknown(name: str) -> str:
    if not name:
        return "no recipe is named; an overlay is joined to one, as in lbf/8x8-2p-2f-coop+qmix"
    if name.startswith("+"):
        what, guess = f"unknown overlay {name[:100]}", nearest(name, _names("overlay", "ablation"))
    elif f"+{name}" in _catalogue():
        return f"{name} is an overlay: join it to a recipe, as in lbf/8x8-2p-2f-coop+{name}"
    else:
        what, guess = f"unknown recipe {name[:100]!r}", nearest(name, _names("recipe"))
    return f"{what}; did you mean {guess}?" if guess else what


def _interpret(document: Document, kind: Kind) -> RecipeFile:
    """Check the header of a file. Raises ConfigError with all its problems."""
    value, allowed = document.value, _HEADERS[kind]
    if not isinstance(value, dict):
        keys = ", ".join(allowed)
        raise ConfigError([f"{document.where}:1: expected a recipe ({keys}), found {brief(value)}"])
    headers = _HEADERS["recipe"].keys()
    if kind == "recipe" and headers.isdisjoint(value) and not Config.model_fields.keys().isdisjoint(value):
        return complete_configuration(document)

    problems = [f"{document.where}:1: {key}: missing" for key in allowed if allowed[key] and key not in value]
    for key, item in value.items():
        at = f"{document.at(key)}: {key}"
        if key not in allowed:
            problems.append(f"{at}: {_misplaced(key, kind)}")
        elif key == "changes" and not isinstance(item, dict):
            problems.append(f"{at}: expected config keys with their values, found {brief(item)}")
        elif key != "changes" and (not isinstance(item, str) or not item.strip()):
            problems.append(f"{at}: expected a text, found {brief(item)}")
        elif key in ("about", "extends") and "\n" in str(item).strip():
            problems.append(f"{at}: expected one line")
    if problems:
        raise ConfigError(problems, "docs/add-an-ablation.md shows what a recipe file says")

    return RecipeFile(
        document.where,
        about=value["about"].strip(),
        extends=value.get("extends", "base") if kind == "recipe" else None,
        values=value["changes"],
        lines={key.removeprefix("changes."): line for key, line in document.lines.items()},
        extends_line=document.lines.get("extends", 1),
    )


def _misplaced(key: str, kind: Kind) -> str:
    if key in Config.model_fields:
        return "a config key belongs under `changes`"
    guess = nearest(key, _HEADERS[kind])
    return f"unknown; did you mean {guess}?" if guess else f"unknown; allowed: {', '.join(_HEADERS[kind])}"
