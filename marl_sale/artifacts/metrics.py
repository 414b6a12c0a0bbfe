"""Metrics on disk: one JSON object per line, the same columns in every line of a file."""

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from numbers import Integral, Real
from pathlib import Path

from marl_sale.artifacts import _fs, _json
from marl_sale.errors import ArtifactError, DiskFullError

Value = bool | int | float | str | None
"""What a cell can hold. Floats round-trip exactly; NaN and infinity are stored as null."""

MAX_FILE_BYTES = 64 << 20
MAX_LINE_BYTES = 1 << 16
MAX_ROWS = 500_000
_LONGEST_NUMBER = 24
"""Characters: those of -2.2250738585072014e-308."""


def _cell(value: object) -> Value:
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, Integral):
        return int(value)
    if isinstance(value, Real):
        return float(value) if math.isfinite(value) else None
    raise TypeError(f"a metric is a number, a text, a truth value or None, not {type(value).__name__}")


def rows_that_fit(columns: Sequence[str]) -> int:
    """How many rows of numbers a reader takes, however long the numbers are."""
    line = json.dumps(dict.fromkeys(columns, "-" * (_LONGEST_NUMBER - 2)), ensure_ascii=False)
    return min(MAX_ROWS, MAX_FILE_BYTES // (len(line.encode()) + 1))


class MetricsWriter:
    """Appends rows to one JSONL file. Each row is written at once, and flushed to disk by `sync`.

    While the disk is full, rows wait in memory, so that what they report need not be done again.
    """

    def __init__(self, path: Path, columns: Sequence[str], *, truncate_at: int = 0) -> None:
        """Continue the file at `truncate_at` bytes; what lies behind is dropped.

        Raises ArtifactError where the file is shorter, has other columns, or no row ends there.
        """
        if not columns or len(set(columns)) < len(columns):
            raise ValueError(f"columns must be distinct and at least one: {list(columns)}")
        self.path = path
        self.columns = tuple(columns)
        if truncate_at:
            self._check(truncate_at)
        self._offset = truncate_at
        self._waiting = b""
        self._descriptor: int | None = _fs.open_growing(path, truncate_at)

    def _check(self, truncate_at: int) -> None:
        data = _fs.read(self.path.parent, self.path.name, limit=MAX_FILE_BYTES)
        if len(data) < truncate_at or data[truncate_at - 1 : truncate_at] != b"\n":
            raise ArtifactError(
                f"{self.path}: damaged: no row ends at byte {truncate_at}, where its checkpoint continues it"
            )
        columns = tuple(_json.parse(data[: data.index(b"\n")], where=self.path, limit=MAX_LINE_BYTES))
        if columns != self.columns:
            raise ArtifactError(
                f"{self.path}: its columns are {', '.join(columns)}, not {', '.join(self.columns)}",
                "start a new run with --out",
            )

    @property
    def offset(self) -> int:
        """Bytes written so far: where a resumed run continues."""
        return self._offset

    def append(self, row: Mapping[str, object]) -> None:
        """Add a row; its keys must be exactly the columns (ValueError)."""
        if self._descriptor is None:
            raise ValueError(f"{self.path} is closed")
        if set(row) != set(self.columns):
            missing, extra = set(self.columns) - set(row), set(row) - set(self.columns)
            raise ValueError(f"{self.path}: columns missing {sorted(missing)}, unknown {sorted(extra)}")
        cells = {column: _cell(row[column]) for column in self.columns}
        line = (json.dumps(cells, ensure_ascii=False, allow_nan=False) + "\n").encode()
        if len(line) > MAX_LINE_BYTES:
            raise ValueError(f"{self.path}: a row of {len(line)} bytes, at most {MAX_LINE_BYTES} are allowed")
        self._waiting += line
        with suppress(DiskFullError):
            self._write(self._descriptor)

    def _write(self, descriptor: int) -> None:
        if self._waiting:
            _fs.grow(descriptor, self._waiting, size=self._offset, path=self.path)
            self._offset += len(self._waiting)
            self._waiting = b""

    def sync(self) -> None:
        """Make every row appended so far durable. DiskFullError where there is still no space for them."""
        if self._descriptor is not None:
            self._write(self._descriptor)
            _fs.sync(self._descriptor, self.path)

    def close(self) -> None:
        """Flush and release the file; idempotent. After DiskFullError for waiting rows it is still open."""
        if self._descriptor is not None:
            self._write(self._descriptor)
            descriptor, self._descriptor = self._descriptor, None
            try:
                _fs.sync(descriptor, self.path)
            finally:
                _fs.close(descriptor)


def parse_rows(data: bytes, *, where: object, growing: bool = False) -> list[dict[str, Value]]:
    """Rows of a JSONL file. `growing`: a last line without its end is being written, and left out.

    Raises ArtifactError for a line that is no flat JSON object, or has other columns than the first.
    """
    lines = data.split(b"\n")
    if lines.pop() and not growing:
        raise ArtifactError(f"{where}: damaged: the last line is incomplete")
    if len(lines) > MAX_ROWS:
        raise ArtifactError(f"{where}: {len(lines)} rows, at most {MAX_ROWS} are allowed")
    columns: tuple[str, ...] = ()
    rows: list[dict[str, Value]] = []
    for number, line in enumerate(lines, start=1):
        row = _json.parse(line, where=f"{where}:{number}", limit=MAX_LINE_BYTES)
        if not isinstance(row, dict) or not row or any(isinstance(v, dict | list) for v in row.values()):
            raise ArtifactError(f"{where}:{number}: damaged: not a flat JSON object")
        if number == 1:
            columns = tuple(row)
        elif tuple(row) != columns:
            raise ArtifactError(f"{where}:{number}: damaged: other columns than in the first line")
        rows.append(dict(zip(columns, row.values(), strict=True)))
    return rows
