"""From a recipe's name to a checked configuration: layers of changes, merged, validated, fingerprinted.

Grammar of a name: `<recipe>[+overlay…]`, where `<recipe>` is a packaged one or the path of a .yaml file.
Later layers win: what the recipe extends, the recipe, overlays in their order, then `--set`. Each value keeps
its origin, so that a message names the file and line that set it, and every problem is reported at once.
"""

import hashlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import NamedTuple, cast

from pydantic import ValidationError

from marl_sale.config import library, strict_yaml
from marl_sale.config.effect import effective
from marl_sale.config.keys import expected, keys, nearest, sections, unknown
from marl_sale.config.library import RecipeFile, changes_of, flatten, list_recipes, recipe_text
from marl_sale.config.schema import UNSEEN, Config
from marl_sale.config.strict_yaml import Value, brief
from marl_sale.errors import ConfigError

__all__ = [
    "Recipe",
    "changes_of",
    "diff",
    "idle_overlays",
    "list_recipes",
    "load_recipe",
    "recipe_from_text",
    "recipe_text",
]

_KEYS_HINT = "every key with its unit and effect: marl-sale recipes cat base"
_PATH = re.compile(r"(.+\.yaml)((?:\+[^+/]*)*)")
_DOTTED = re.compile(r"[a-z_]+(?:\.[a-z_]+)?")


@dataclass(frozen=True)
class Recipe:
    """A resolved recipe. The fingerprint depends on the configuration alone, not on the names used."""

    name: str
    """As given; for a file its stem, with the overlays."""
    overrides: tuple[str, ...]
    config: Config
    fingerprint: str
    """sha256 of `text` without the keys that change no result (`UNSEEN`), 64 hexadecimal digits."""
    text: str
    """Canonical YAML of the whole configuration; read again, it gives the same fingerprint."""


class _Layer(NamedTuple):
    """Nested values from one source, and where each dotted key was given."""

    values: Mapping[str, Value]
    origin: Callable[[str], str]


class _Leaf(NamedTuple):
    value: Value
    origin: str


class _Problems(list[str]):
    """Every problem found so far, with the hints that go with them."""

    def __init__(self) -> None:
        super().__init__()
        self.hints: list[str] = []

    @contextmanager
    def collected(self) -> Iterator[None]:
        """Note a ConfigError and go on, so that the user sees all problems at once."""
        try:
            yield
        except ConfigError as error:
            self += error.problems
            self.hints.append(error.hint)

    def note(self, origin: str, key: str, what: str) -> None:
        """Note what is wrong with a config key."""
        self.append(f"{origin}: {key}: {what}" if key else f"{origin}: {what}")
        self.hints.append(_KEYS_HINT)

    def raise_any(self) -> None:
        """Raise ConfigError if anything was found."""
        if self:
            raise ConfigError(self, "; ".join(dict.fromkeys(filter(None, self.hints))))


def load_recipe(name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Find and resolve a recipe. Raises ConfigError with all problems of all its files and overrides."""
    recipe, overlays = _split(name)
    files: list[RecipeFile] = []
    problems = _Problems()
    with problems.collected():
        for file in _chain(recipe):
            files.insert(0, file)
    for overlay in dict.fromkeys(overlays):
        with problems.collected():
            files.append(library.packaged(overlay))
        if overlays.count(overlay) > 1:
            problems.append(f"{overlay} is joined twice")
    stem = re.sub(r"[^A-Za-z0-9_-]", "-", Path(recipe).stem) if _is_path(recipe) else recipe
    return _resolve("".join([stem, *overlays]), files, overrides, problems)


def idle_overlays(name: str, overrides: Sequence[str] = ()) -> list[str]:
    """Overlays of a recipe's name without which nothing that has an effect would be another."""

    def effect(name: str) -> dict[str, Value]:
        return effective(flatten(load_recipe(name, overrides).config.model_dump()))

    recipe, overlays = _split(name)
    whole = effect(name)
    idle = []
    for overlay in overlays:
        without = "".join([recipe, *(other for other in overlays if other != overlay)])
        with suppress(ConfigError):  # what the rest needs is not idle
            if effect(without) == whole:
                idle.append(overlay)
    return idle


def recipe_from_text(text: str, *, where: str, name: str, overrides: Sequence[str] = ()) -> Recipe:
    """Resolve a complete configuration, such as an artifact's config.yaml; it cannot refer to other files.

    `where` is what messages call the text. Raises ConfigError with all problems.
    """
    problems = _Problems()
    files: list[RecipeFile] = []
    with problems.collected():
        files = [library.complete_configuration(strict_yaml.parse(text, where))]
    return _resolve(name, files, overrides, problems)


def diff(a: Recipe, b: Recipe) -> list[tuple[str, Value, Value]]:
    """(dotted key, value in a, value in b) of every key that differs, in the order of the schema."""
    left, right = flatten(a.config.model_dump()), flatten(b.config.model_dump())
    return [(key, left[key], right[key]) for key in keys() if left[key] != right[key]]


def _split(name: str) -> tuple[str, list[str]]:
    """A name's recipe and its overlays, each with its `+`. The path of a file may itself hold a `+`."""
    path = _PATH.fullmatch(name)
    recipe, joined = (path[1], path[2].split("+")) if path else (name.partition("+")[0], name.split("+"))
    return recipe, [f"+{overlay}" for overlay in joined[1:]]


def _is_path(recipe: str) -> bool:
    return recipe.endswith(".yaml")


def _chain(recipe: str) -> Iterator[RecipeFile]:
    """The file of a recipe, then what it extends, down to a complete configuration. Raises ConfigError."""
    name: str | None = recipe
    folder: Path | None = Path()  # None inside the package, whose files name each other and no paths
    seen: list[str] = []
    origin = ""
    while name is not None:
        path = folder / name if folder is not None and _is_path(name) else None
        try:
            identity = str(path.resolve()) if path else name
            if "+" in name and path is None:
                raise ConfigError([f"{name} is not one recipe; overlays are joined where a recipe is used"])
            if identity in seen:
                raise ConfigError([f"{name} extends itself: {' → '.join([*seen, identity])}"])
            file = library.from_path(path) if path else library.packaged(name)
        except ConfigError as error:
            raise ConfigError([origin + problem for problem in error.problems], error.hint) from error
        except (OSError, ValueError, RuntimeError) as error:
            # A name that no file system takes, or links that lead round.
            raise ConfigError([f"{origin}{name[:100]!r} is not the name of a file"]) from error
        yield file
        seen.append(identity)
        folder = path.parent if path else None
        origin = f"{file.where}:{file.extends_line}: extends: "
        name = file.extends


def _resolve(name: str, files: Sequence[RecipeFile], overrides: Sequence[str], problems: _Problems) -> Recipe:
    """Merge the layers, lowest first, and validate the result. Raises ConfigError."""
    layers = [_Layer(file.values, file.at) for file in files]
    for override in overrides:
        with problems.collected():
            layers.append(_override(override))
    leaves = dict(_unseen())
    for layer in layers:
        leaves.update(_leaves(layer, problems))
    if files and files[0].complete:
        _note_missing(files[0], leaves, problems)
    config = _validate(leaves, problems)
    problems.raise_any()
    assert config is not None
    return Recipe(name, tuple(overrides), config, _fingerprint(config), strict_yaml.dump(config.model_dump()))


@cache
def _unseen() -> Mapping[str, _Leaf]:
    """The keys a complete configuration may lack, as base.yaml has them."""
    base = library.packaged("base")
    values = flatten(base.values)
    return {key: _Leaf(values[key], base.at(key)) for key in UNSEEN}


def _fingerprint(config: Config) -> str:
    seen = config.model_dump()
    for key in UNSEEN:
        section, _, name = key.partition(".")
        del seen[section][name]
    return hashlib.sha256(strict_yaml.dump(seen).encode()).hexdigest()


def _override(text: str) -> _Layer:
    """One `key=value`. Raises ConfigError."""
    key, equals, value = text.partition("=")
    key = key.strip()
    if not equals:
        raise ConfigError([f"--set {text}: expected key=value"], "for instance --set discount=0.95")
    if key not in keys() and key not in sections():
        raise ConfigError([f"--set: {key}: {unknown(key)}"], _KEYS_HINT)
    section, _, leaf = key.partition(".")
    parsed = strict_yaml.parse_value(value, "--set", key)
    return _Layer({section: {leaf: parsed}} if leaf else {section: parsed}, lambda key: "--set")


def _leaves(layer: _Layer, problems: _Problems) -> Iterator[tuple[str, _Leaf]]:
    """What one layer sets, key by key; a key the schema does not have is noted."""
    for key, value in layer.values.items():
        if key not in sections():
            given = {key: value}
        elif isinstance(value, dict):
            given = {f"{key}.{name}": inner for name, inner in value.items()}
        else:
            allowed = ", ".join(sections()[key])
            problems.note(layer.origin(key), key, f"expected a section ({allowed}), found {brief(value)}")
            continue
        for dotted, leaf in given.items():
            if dotted in keys():
                yield dotted, _Leaf(leaf, layer.origin(dotted))
            else:
                problems.note(layer.origin(dotted), dotted, unknown(dotted))


def _note_missing(file: RecipeFile, leaves: Mapping[str, _Leaf], problems: _Problems) -> None:
    """A complete configuration gives every key; sections that are no sections were noted before."""
    missing = [
        key
        for key in keys()
        if key not in leaves and isinstance(file.values.get(key.partition(".")[0], {}), dict)
    ]
    if missing:
        why = "without `changes:` a file is a complete configuration"
        problems.note(f"{file.where}:1", "", f"missing keys: {', '.join(missing)} ({why})")


def _validate(leaves: Mapping[str, _Leaf], problems: _Problems) -> Config | None:
    """The typed configuration, or None with the problems noted."""
    nested: dict[str, Value] = {}
    for key, leaf in leaves.items():
        section, _, name = key.partition(".")
        if name:
            cast(dict[str, Value], nested.setdefault(section, {}))[name] = leaf.value
        else:
            nested[key] = leaf.value
    try:
        return Config.model_validate(nested)
    except ValidationError as error:
        for details in error.errors():
            key = ".".join(map(str, details["loc"]))
            if not key:
                for rule in str(details["ctx"]["error"]).split("\n"):
                    _note_misfit(rule, leaves, problems)
            elif details["type"] != "missing":
                leaf = leaves[key]
                guess = _guess(key, leaf.value)
                problems.note(leaf.origin, key, f"expected {expected(key)}, found {brief(leaf.value)}{guess}")
        return None


def _note_misfit(rule: str, leaves: Mapping[str, _Leaf], problems: _Problems) -> None:
    """A rule between keys is broken: name each key of the rule with its value and origin."""
    named = [key for key in dict.fromkeys(_DOTTED.findall(rule)) if key in leaves]
    found = ", ".join(f"{key}: {brief(leaves[key].value)} ({leaves[key].origin})" for key in named)
    problems.note(leaves[named[0]].origin, "", f"{rule}; found {found}")


def _guess(key: str, value: Value) -> str:
    guess = nearest(value, keys()[key].get("enum", ())) if isinstance(value, str) else ""
    return f"; did you mean {guess}?" if guess else ""
