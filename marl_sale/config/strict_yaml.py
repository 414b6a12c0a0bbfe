"""YAML without surprises: plain mappings, lists, words and finite numbers, each with its line.

Scalars are read by the core schema of YAML 1.2: `1e-3` is a number, `no` and `on` are words, `010` is ten.
Refused, because each lets a file mean something other than what it shows, or cost more than its size: tags,
anchors, aliases, `<<`, duplicate keys, directives, several documents, deep nesting, non-finite numbers.
The parser's events are walked directly, so nothing is ever constructed from a tag.
"""

import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.resources.abc import Traversable
from typing import Any, TypeAlias

import yaml

from marl_sale.errors import ConfigError

Value: TypeAlias = bool | int | float | str | list[Any] | dict[str, Any] | None

MAX_BYTES = 1 << 20
MAX_DEPTH = 32
MAX_VALUES = 2_000
MAX_KEY = 128
MAX_DIGITS = 64
MAX_PROBLEMS = 100

_NULLS = frozenset(["", "~", "null", "Null", "NULL"])
_TRUES = frozenset(["true", "True", "TRUE"])
_FALSES = frozenset(["false", "False", "FALSE"])
_DECIMAL = re.compile(r"[-+]?[0-9]+")
_OTHER_BASE = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_NON_FINITE = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_PLAIN = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_./+-]*")


@dataclass(frozen=True)
class Document:
    """What a text says, and where it says it."""

    where: str
    value: Value
    lines: Mapping[str, int]
    """Dotted key → line, counted from 1; the key of the whole document is empty."""

    def at(self, key: str) -> str:
        """`file:line` of a dotted key of this document."""
        return f"{self.where}:{self.lines[key]}"


def read(source: Traversable, where: str) -> Document:
    """Read a file; `where` is what messages call it. Raises ConfigError."""
    if not source.is_file():
        raise ConfigError([f"{where}: there is no such file"])
    try:
        with source.open("rb") as file:
            data = file.read(MAX_BYTES + 1)
        text = data.decode("utf-8")
    except OSError as error:
        raise ConfigError([f"{where}: cannot be read: {error.strerror}"]) from error
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise ConfigError([f"{where}:{line}: not UTF-8 text"]) from error
    return parse(text, where)


def parse(text: str, where: str) -> Document:
    """Parse a whole text. Raises ConfigError with every problem as `where:line: key: …`."""
    reader = _read(text, lambda line: f"{where}:{line}")
    return Document(where, reader.value, reader.lines)


def parse_value(text: str, where: str, key: str) -> Value:
    """Parse one value given outside a file, as after `--set key=`. Raises ConfigError."""
    return _read(text, lambda line: where, key).value


def dump(values: Mapping[str, Value]) -> str:
    """Canonical text of a mapping, in its order. `parse` gives back the same values, floats to the last bit.

    Plain YAML 1.1 readers understand it alike: words and numbers on which they differ are quoted or spelled
    out. Raises ValueError for a number that is not finite.
    """
    return "".join(f"{line}\n" for line in _block(values, "")) if values else "{}\n"


def inline(value: Value) -> str:
    """Canonical spelling of one value on one line."""
    match value:
        case None:
            return "null"
        case bool():
            return "true" if value else "false"
        case int():
            return str(value)
        case float():
            return _float(value)
        case str():
            return _word(value)
        case list():
            return f"[{', '.join(map(inline, value))}]"
        case dict():
            return f"{{{', '.join(f'{_word(key)}: {inline(item)}' for key, item in value.items())}}}"


def brief(value: Value) -> str:
    """`inline`, cut to what fits in a message."""
    text = inline(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _block(values: Mapping[str, Value], indent: str) -> Iterator[str]:
    for key, value in values.items():
        if isinstance(value, dict) and value:
            yield f"{indent}{_word(key)}:"
            yield from _block(value, indent + "  ")
        else:
            yield f"{indent}{_word(key)}: {inline(value)}"


def _float(value: float) -> str:
    if not math.isfinite(value):
        raise ValueError(f"{value} cannot be written: not finite")
    mantissa, e, exponent = repr(value).partition("e")
    # YAML 1.1 takes 1e-05 for a word; with a point it is a number everywhere.
    return f"{mantissa if '.' in mantissa else mantissa + '.0'}{e}{exponent}"


def _word(text: str) -> str:
    if _PLAIN.fullmatch(text) and _is_word(text):
        return text
    return json.dumps(text, ensure_ascii=False)


def _is_word(text: str) -> bool:
    """Whether YAML 1.2 and YAML 1.1 both read the plain scalar as text."""
    rules = yaml.SafeLoader.yaml_implicit_resolvers.get(text[0], ())
    try:
        return isinstance(_resolve(text), str) and not any(pattern.match(text) for _, pattern in rules)
    except ValueError:
        return False


def _resolve(text: str) -> Value:
    """Meaning of a plain scalar. Raises ValueError for a number out of reach."""
    if text in _NULLS:
        return None
    if text in _TRUES or text in _FALSES:
        return text in _TRUES
    if _NON_FINITE.fullmatch(text):
        raise ValueError(f"{text} is not a finite number")
    if not _FLOAT.fullmatch(text) and not _OTHER_BASE.fullmatch(text):
        return text
    if len(text) > MAX_DIGITS:
        raise ValueError(f"a number has at most {MAX_DIGITS} characters, found {len(text)}")
    if _DECIMAL.fullmatch(text):
        return int(text)
    if _OTHER_BASE.fullmatch(text):
        return int(text, 0)
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"{text} is beyond the largest number a float holds")
    return number


class _StopReading(Exception):
    """The text is refused as a whole; the problem is noted already."""


def _read(text: str, at: Callable[[int], str], root: str = "") -> "_Reader":
    if len(text.encode("utf-8", "surrogatepass")) > MAX_BYTES:
        raise ConfigError([f"{at(1)}: larger than {MAX_BYTES} bytes; a recipe is a few kilobytes"])
    reader = _Reader(at)
    try:
        reader.document(yaml.parse(text, Loader=yaml.SafeLoader), root)
    except _StopReading:
        pass
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        reader.note(line, root, "not valid YAML: a character that does not belong in a text")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        reader.note(mark.line + 1 if mark else 1, root, f"not valid YAML: {error.problem}")
    except (ValueError, OverflowError):  # an escape such as "\UFFFFFFFF", which PyYAML does not check
        reader.note(reader.line, root, "not valid YAML: a number in an escape or directive is too large")
    if reader.problems:
        raise ConfigError(reader.problems)
    return reader


class _Reader:
    """Walks the parser's events once, building values and noting every problem."""

    def __init__(self, at: Callable[[int], str]) -> None:
        self.at = at
        self.value: Value = None
        self.lines: dict[str, int] = {}
        self.problems: list[str] = []
        self.line = 1
        self._events: Iterator[Any] = iter(())
        self._count = 0

    def document(self, events: Iterator[Any], root: str) -> None:
        """Read the one document of a text into `value` and `lines`."""
        self._events = events
        next(events)
        event = self._next()
        if isinstance(event, yaml.StreamEndEvent):
            self.lines[root] = 1
            return
        if event.version or event.tags:
            self._problem(root, "a directive (%…) is not allowed")
        self.value = self._node(self._next(), root, 0)
        next(events)
        if not isinstance(self._next(), yaml.StreamEndEvent):
            self._problem(root, "a second document (---) is not allowed")

    def _next(self) -> Any:
        event = next(self._events)
        self.line = event.start_mark.line + 1
        return event

    def note(self, line: int, key: str, what: str) -> None:
        """Note what is wrong with a key, or with the whole text where the key is empty."""
        self.problems.append(f"{self.at(line)}: {key}: {what}" if key else f"{self.at(line)}: {what}")

    def _problem(self, key: str, what: str) -> None:
        self.note(self.line, key, what)
        if len(self.problems) >= MAX_PROBLEMS:
            raise _StopReading

    def _stop(self, key: str, what: str) -> _StopReading:
        self._problem(key, what)
        return _StopReading()

    def _node(self, event: Any, key: str, depth: int) -> Value:
        self.lines.setdefault(key, self.line)
        self._count += 1
        if self._count > MAX_VALUES:
            raise self._stop(key, f"more than {MAX_VALUES} values")
        if depth > MAX_DEPTH:
            raise self._stop(key, f"nested deeper than {MAX_DEPTH} levels")
        if isinstance(event, yaml.AliasEvent):
            self._problem(key, "an alias (*name) is not allowed; write the value out")
            return None
        if event.anchor is not None:
            self._problem(key, "an anchor (&name) is not allowed; write the value out where it is used")
        if event.tag is not None:
            self._problem(key, "a tag (!name) is not allowed")
        if isinstance(event, yaml.MappingStartEvent):
            return self._mapping(key, depth)
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(key, depth)
        return self._scalar(event, key)

    def _sequence(self, key: str, depth: int) -> list[Value]:
        values: list[Value] = []
        while not isinstance(event := self._next(), yaml.SequenceEndEvent):
            values.append(self._node(event, _join(key, str(len(values))), depth + 1))
        return values

    def _mapping(self, key: str, depth: int) -> dict[str, Value]:
        values: dict[str, Value] = {}
        while not isinstance(event := self._next(), yaml.MappingEndEvent):
            name = self._name(event, key, depth)
            child = _join(key, name)
            if name in values and name != "?":
                self._problem(child, f"given twice, first on line {self.lines[child]}")
            self.lines.setdefault(child, self.line)
            values[name] = self._node(self._next(), child, depth + 1)
        return values

    def _name(self, event: Any, key: str, depth: int) -> str:
        """A key of a mapping; a bad one is noted, consumed, and called `?`."""
        line = self.line
        name = self._node(event, _join(key, "?"), depth + 1)
        self.lines.pop(_join(key, "?"), None)
        self.line = line
        if not isinstance(name, str) or not name or "." in name or "\n" in name or len(name) > MAX_KEY:
            self._problem(key, "a key is one word without a point, quoted if it looks like a number")
            return "?"
        if name == "<<":
            self._problem(_join(key, name), "merging (<<) is not allowed; use `extends` or an overlay")
        return name

    def _scalar(self, event: Any, key: str) -> Value:
        text: str = event.value
        if not all(character.isprintable() or character == "\n" for character in text):
            self._problem(key, "a text holds a character that cannot be printed")
            return None
        if event.style is not None:
            return text
        try:
            return _resolve(text)
        except ValueError as error:
            self._problem(key, str(error))
            return None


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name
