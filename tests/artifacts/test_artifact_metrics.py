import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.artifacts.metrics import MAX_ROWS, MetricsWriter, parse_rows
from marl_sale.errors import ArtifactError


def read(path: Path) -> list[dict[str, object]]:
    return [dict(row) for row in parse_rows(path.read_bytes(), where=path)]


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(st.lists(st.tuples(st.integers(), finite, st.text()), max_size=5))
@settings(deadline=None, derandomize=True, max_examples=60)
def test_rows_round_trip_exactly(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[int, float, str]]
) -> None:
    path = tmp_path_factory.mktemp("metrics") / "train.jsonl"
    writer = MetricsWriter(path, ["steps", "loss", "name"])
    expected = [{"steps": a, "loss": b, "name": c} for a, b, c in rows]
    for row in expected:
        writer.append(row)
    assert writer.offset == path.stat().st_size
    writer.close()
    assert read(path) == expected


def test_what_is_no_number_becomes_null_and_numpy_scalars_are_numbers(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl", ["a", "b", "c", "d", "e"])
    writer.append({"e": np.int64(3), "a": math.nan, "b": -math.inf, "c": None, "d": np.float32(0.5)})
    writer.close()
    assert (tmp_path / "m.jsonl").read_text() == '{"a": null, "b": null, "c": null, "d": 0.5, "e": 3}\n'


def test_a_row_has_exactly_the_columns(tmp_path: Path) -> None:
    writer = MetricsWriter(tmp_path / "m.jsonl", ["a", "b"])
    with pytest.raises(ValueError, match=r"missing \['b'\], unknown \['c'\]"):
        writer.append({"a": 1, "c": 2})
    with pytest.raises(TypeError, match="not list"):
        writer.append({"a": 1, "b": [2]})
    assert writer.offset == 0
    writer.close()
    with pytest.raises(ValueError, match="closed"):
        writer.append({"a": 1, "b": 2})
    with pytest.raises(ValueError, match="distinct"):
        MetricsWriter(tmp_path / "n.jsonl", ["a", "a"])


def test_a_torn_tail_is_dropped_when_continuing(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    writer = MetricsWriter(path, ["a"])
    writer.append({"a": 1})
    offset = writer.offset
    writer.append({"a": 2})
    writer.close()
    path.write_bytes(path.read_bytes() + b'{"a": 3')
    writer = MetricsWriter(path, ["a"], truncate_at=offset)
    writer.append({"a": 4})
    writer.close()
    assert read(path) == [{"a": 1}, {"a": 4}]


def test_a_file_that_does_not_fit_its_offset_is_refused_and_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "m.jsonl"
    path.write_bytes(b'{"a": 1}\n')
    for offset in (5, 10):
        with pytest.raises(ArtifactError, match=f"no row ends at byte {offset}"):
            MetricsWriter(path, ["a"], truncate_at=offset)
    with pytest.raises(ArtifactError, match="its columns are a, not a, b"):
        MetricsWriter(path, ["a", "b"], truncate_at=9)
    with pytest.raises(ArtifactError, match="No such file"):
        MetricsWriter(tmp_path / "gone.jsonl", ["a"], truncate_at=9)
    assert path.read_bytes() == b'{"a": 1}\n'
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b'{"a": 1}', "the last line is incomplete"),
        (b'{"a": 1}\n{"b": 1}\n', "m:2: damaged: other columns"),
        (b'{"a": 1}\n{"a": 1, "b": 1}\n', "other columns"),
        (b'{"a": [1]}\n', "not a flat JSON object"),
        (b"{}\n", "not a flat JSON object"),
        (b"3\n", "not a flat JSON object"),
        (b"\n", "m:1: damaged"),
        (b'{"a": NaN}\n', "NaN"),
        (b'{"a": 1, "a": 1}\n', "appears twice"),
        (b'{"a": "' + b"x" * 70_000 + b'"}\n', "at most 65536"),
        (b"\n" * (MAX_ROWS + 1), "at most 500000"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_rows_are_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse_rows(data, where="m")
    assert reason in caught.value.what


def test_a_growing_file_is_read_up_to_its_last_whole_line() -> None:
    assert parse_rows(b'{"a": 1}\n{"a"', where="m", growing=True) == [{"a": 1}]
    assert parse_rows(b"", where="m") == []
