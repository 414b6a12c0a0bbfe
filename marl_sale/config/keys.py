"""What the schema knows of each recipe key, in words for messages."""

import difflib
from collections.abc import Iterable, Mapping
from functools import cache
from typing import Any

from marl_sale.config.schema import Config, Section

_BOUNDS = {"minimum": "from", "exclusiveMinimum": "above", "maximum": "to", "exclusiveMaximum": "to below"}


@cache
def keys() -> Mapping[str, Mapping[str, Any]]:
    """Dotted key → JSON schema of its value, in the order of the schema."""
    table: dict[str, Mapping[str, Any]] = {}
    whole = Config.model_json_schema()["properties"]
    for name, field in Config.model_fields.items():
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            inner = field.annotation.model_json_schema()["properties"]
            table.update({f"{name}.{key}": rule for key, rule in inner.items()})
        else:
            table[name] = whole[name]
    return table


@cache
def sections() -> Mapping[str, tuple[str, ...]]:
    """Section → its keys, without the section's name."""
    table: dict[str, tuple[str, ...]] = {}
    for section, _, key in (dotted.partition(".") for dotted in keys()):
        if key:
            table[section] = (*table.get(section, ()), key)
    return table


def expected(key: str) -> str:
    """What a key takes, for instance `an integer from 1 to 8192`."""
    rule = keys()[key]
    if "enum" in rule:
        return f"one of {', '.join(rule['enum'])}"
    if rule["type"] == "boolean":
        return "true or false"
    if rule["type"] == "string":
        return str(rule["description"])
    kind = "an integer" if rule["type"] == "integer" else "a number"
    bounds = [f"{word} {rule[bound]:.10g}" for bound, word in _BOUNDS.items() if bound in rule]
    return " ".join([kind, *bounds])


def unknown(key: str) -> str:
    """Why a dotted key is refused, with the key that was probably meant, or those there are."""
    section, _, name = key.rpartition(".")
    inside = sections().get(section, ())
    namesakes = [known for known in keys() if known.rpartition(".")[2] == name]
    if guess := nearest(name, inside):
        return f"unknown key; did you mean {section}.{guess}?"
    if len(namesakes) == 1:
        return f"unknown key; did you mean {namesakes[0]}?"
    if inside:
        return f"unknown key; keys of {section}: {', '.join(inside)}"
    if guess := nearest(key, keys() if section else [*Config.model_fields, *keys()]):
        return f"unknown key; did you mean {guess}?"
    return f"unknown key; keys at the top: {', '.join(Config.model_fields)}"


def nearest(word: str, choices: Iterable[str]) -> str:
    """The choice most like the word; empty where none is."""
    return next(iter(difflib.get_close_matches(word[:100], list(choices), n=1)), "")
