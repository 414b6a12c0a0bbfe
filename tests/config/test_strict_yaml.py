"""The YAML reader: what it refuses, how it reads scalars, and that dumping and reading are inverse."""

from pathlib import Path

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from marl_sale.config import strict_yaml
from marl_sale.config.strict_yaml import MAX_BYTES, MAX_DEPTH, MAX_VALUES, Value
from marl_sale.errors import ConfigError

HOSTILE = {
    "tag": ("a: 1\nb: !!python/object/apply:os.system [ls]\n", "f:2: b: a tag"),
    "harmless tag": ("a: !!int 1", "f:1: a: a tag"),
    "own tag": ("a: !x 1", "f:1: a: a tag"),
    "tag on a key": ("!!str a: 1", "f:1: ?: a tag"),
    "undeclared tag": ("a: 1\nb: !x!y 1", "f:2: not valid YAML: found undefined tag handle"),
    "anchor": ("a: 1\nb: &x 2\n", "f:2: b: an anchor"),
    "anchor on a mapping": ("a: &x\n  b: 2\n", "f:1: a: an anchor"),
    "alias": ("a: &x 1\nb: *x\n", "f:2: b: an alias"),
    "alias before its anchor": ("a: *x\n", "f:1: a: an alias"),
    "alias as a key": ("*x : 1\n", "f:1: ?: an alias"),
    "merge": ("a:\n  <<: {b: 1}\n", "f:2: a.<<: merging"),
    "quoted merge": ("'<<': {b: 1}\n", "f:1: <<: merging"),
    "duplicate": ("a: 1\nb:\n  c: 1\n  d: 2\n  c: 3\n", "f:5: b.c: given twice, first on line 3"),
    "duplicate in another spelling": ("a: 1\n'a': 1\n", "f:2: a: given twice, first on line 1"),
    "number as key": ("a: 1\n1: 2\n", "f:2: a key is one word"),
    "no as key is a word, null is not": ("no: 1\nnull: 2\n", "f:2: a key is one word"),
    "empty key": ("'': 2\n", "f:1: a key is one word"),
    "dotted key": ("x:\n  a.b: 2\n", "f:2: x: a key is one word"),
    "long key": (f"{'k' * 129}: 1", "f:1: a key is one word"),
    "mapping as key": ("? {a: b}\n: 1\n", "f:1: a key is one word"),
    "directive": ("%YAML 1.1\n---\na: 1\n", "f:1: a directive"),
    "huge directive": (f"%YAML 1.{'9' * 5000}\n---\na: 1\n", "f:1: not valid YAML"),
    "tag directive": ("%TAG ! tag:x,2000:\n---\na: 1\n", "f:1: a directive"),
    "second document": ("a: 1\n---\nb: 1\n", "f:2: a second document"),
    "infinity": ("a: 1\nb: -.inf\n", "f:2: b: -.inf is not a finite number"),
    "not a number": ("a: [1, .NaN]", "f:1: a.1: .NaN is not a finite number"),
    "overflow": ("a: 1e999", "f:1: a: 1e999 is beyond"),
    "endless integer": (f"a: {'9' * 5000}", "f:1: a: a number has at most 64 characters"),
    "deep lists": ("[" * 100_000, f"nested deeper than {MAX_DEPTH} levels"),
    "deep mappings": ("{a: " * 1000, f"nested deeper than {MAX_DEPTH} levels"),
    "deep keys": ("? " * 1000, f"nested deeper than {MAX_DEPTH} levels"),
    "many values": (
        "- a\n" * (MAX_VALUES + 1),
        f"f:{MAX_VALUES}: {MAX_VALUES - 1}: more than {MAX_VALUES} values",
    ),
    "too large": ("#" * (MAX_BYTES + 1), "f:1: larger than"),
    "too large in bytes": ("#" + "é" * (MAX_BYTES // 2), "f:1: larger than"),
    "tabulator": ("a:\n\tb: 1\n", "f:2: not valid YAML: found character"),
    "unclosed": ("a: 1\nb: [1,\n", "f:3: not valid YAML"),
    "null byte": ("a: 1\nb: x\x00y\n", "f:2: not valid YAML: a character"),
    "terminal escape": ('a: 1\nb: "\\e[2J"\n', "f:2: b: a text holds a character that cannot be printed"),
    "lone surrogate": ('a: "\\ud800"\n', "f:1: a: a text holds a character"),
    "beyond Unicode": ('a: 1\nb: "\\UFFFFFFFF"\n', "not valid YAML: a number in an escape"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_text_is_refused_with_its_line(name: str) -> None:
    text, message = HOSTILE[name]
    with pytest.raises(ConfigError) as caught:
        strict_yaml.parse(text, "f")
    assert message in str(caught.value)


def test_all_problems_of_a_text_are_reported() -> None:
    with pytest.raises(ConfigError) as caught:
        strict_yaml.parse("a: &x 1\nb: *x\nc: .inf\na: !t 2\n", "f")
    assert [problem.partition(" ")[0] for problem in caught.value.problems] == [
        "f:1:",
        "f:2:",
        "f:3:",
        "f:4:",
        "f:4:",
    ]


SCALARS: dict[str, Value] = {
    "1e-3": 0.001,
    "1E3": 1000.0,
    "5e-324": 5e-324,
    "1.": 1.0,
    ".5": 0.5,
    "-0.0": -0.0,
    "+7": 7,
    "010": 10,
    "0o10": 8,
    "0x1F": 31,
    "1_000": "1_000",
    "1:30": "1:30",
    "2001-01-01": "2001-01-01",
    "no": "no",
    "yes": "yes",
    "on": "on",
    "Off": "Off",
    "y": "y",
    "inf": "inf",
    "nan": "nan",
    "e5": "e5",
    "1e": "1e",
    "٣": "٣",
    "0b1": "0b1",
    "=": "=",
    "true": True,
    "False": False,
    "tRUE": "tRUE",
    "": None,
    "~": None,
    "null": None,
    "'5'": "5",
    '"true"': "true",
    "'.inf'": ".inf",
}


@pytest.mark.parametrize("text", SCALARS)
def test_scalars_follow_yaml_1_2(text: str) -> None:
    value = strict_yaml.parse(f"a: {text}\n", "f").value
    assert repr(value) == repr({"a": SCALARS[text]})


def test_lines_of_nested_keys() -> None:
    document = strict_yaml.parse("# comment\na:\n  b: 1\n\n  c:\n    [1,\n     2]\nd: {e: 1}\n", "f")
    assert document.lines == {"": 2, "a": 2, "a.b": 3, "a.c": 5, "a.c.0": 6, "a.c.1": 7, "d": 8, "d.e": 8}
    assert document.at("a.c") == "f:5"


def test_an_empty_text_is_null() -> None:
    assert strict_yaml.parse("# nothing\n", "f").value is None


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    latin = tmp_path / "latin.yaml"
    latin.write_bytes(b"a: 1\nb: caf\xe9\n")
    large = tmp_path / "large.yaml"
    large.write_bytes(b" " * (MAX_BYTES + 1))
    with pytest.raises(ConfigError, match="latin:2: not UTF-8"):
        strict_yaml.read(latin, "latin")
    with pytest.raises(ConfigError, match="large:1: larger than"):
        strict_yaml.read(large, "large")
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match="there is no such file"):
            strict_yaml.read(path, "x")


PRINTABLE = st.characters(codec="utf-8").filter(
    lambda character: character.isprintable() or character == "\n"
)
WORDS = st.text(PRINTABLE, max_size=20) | st.sampled_from(
    [*SCALARS, "<<", "a: b", "# x", "- a", "1e-3", "1__0"]
)
NAMES = st.text(PRINTABLE, min_size=1, max_size=20).filter(
    lambda name: "." not in name and "\n" not in name and name != "<<"
)
LEAVES = (
    st.none()
    | st.booleans()
    | st.integers(-(10**60), 10**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | WORDS
)
VALUES = st.recursive(
    LEAVES, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NAMES, inner, max_size=4)
)


@settings(deadline=None, max_examples=60)
@given(st.dictionaries(NAMES, VALUES, max_size=5))
def test_dump_and_parse_are_inverse(values: dict[str, Value]) -> None:
    text = strict_yaml.dump(values)
    assert repr(strict_yaml.parse(text, "f").value) == repr(values)


@settings(deadline=None)
@given(st.floats(allow_nan=False, allow_infinity=False) | st.text("abcdefnoyestru0123456789.-_", max_size=12))
@example(1e-05)
@example("no")
@example("1_0")
@example("2001-01-01")
def test_other_readers_understand_the_dump(value: Value) -> None:
    assert repr(yaml.safe_load(strict_yaml.dump({"a": value}))) == repr({"a": value})


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_dump_refuses_what_parse_would_refuse(value: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        strict_yaml.dump({"a": value})


@settings(deadline=None)
@given(st.text(max_size=60) | st.text(" \n\t:-?[]{},&*!|>'\"%@#ab1.<~\\U", max_size=60))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        first, problems = strict_yaml.parse(text, "f").lines[""], []
    except ConfigError as error:
        first, problems = 0, list(error.problems)
    assert bool(first) != bool(problems)
    assert all(problem.startswith("f:") for problem in problems)
