"""Tensors on disk: safetensors, written by the library and read by checks of our own.

The library alone accepts duplicate names and headers that cost minutes, and a file truncated under its
memory map kills the process. So: a bounded header is checked first, then names, shapes and types; then each
tensor is read into its own memory, so that the file is never in memory twice; then come the hash, and whether
every number is finite. What is read here the library reads alike, and what it refuses is refused here:
tests/trust fuzzes both.
"""

import hashlib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import safetensors.numpy
import torch
from torch import Tensor

from marl_sale.artifacts import _fs, _json
from marl_sale.artifacts.manifest import differences
from marl_sale.errors import ArtifactError, DivergedError, ResourceError

MAX_HEADER_BYTES = 1 << 20
MAX_TENSORS = 4096
MAX_DIMENSIONS = 8
MAX_TENSOR_BYTES = 1 << 48
_PART = 1 << 22

DTYPES: Mapping[str, torch.dtype] = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}
"""The types allowed in a file."""

_TENSOR_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,255}")


@dataclass(frozen=True)
class _Entry:
    """One tensor as the header declares it; `begin` and `end` are offsets into the data."""

    dtype: torch.dtype
    shape: tuple[int, ...]
    begin: int
    end: int


def _describe(dtype: torch.dtype, shape: tuple[int, ...]) -> str:
    return f"{str(dtype).removeprefix('torch.')} {list(shape)}"


def _is_count(value: object) -> bool:
    return type(value) is int and value >= 0


def _entry(fields: Any) -> _Entry:
    """One checked header entry. ValueError says what is wrong with it."""
    if not isinstance(fields, dict) or set(fields) != {"dtype", "shape", "data_offsets"}:
        raise ValueError("its fields must be dtype, shape and data_offsets")
    dtype, shape, offsets = fields["dtype"], fields["shape"], fields["data_offsets"]
    if not isinstance(dtype, str) or dtype not in DTYPES:
        raise ValueError(f"dtype must be one of {', '.join(DTYPES)}")
    if not isinstance(shape, list) or len(shape) > MAX_DIMENSIONS or not all(map(_is_count, shape)):
        raise ValueError(f"shape must be a list of at most {MAX_DIMENSIONS} non-negative integers")
    # Zeros count as ones here: torch multiplies the other sizes to get the strides.
    if math.prod(max(size, 1) for size in shape) * DTYPES[dtype].itemsize > MAX_TENSOR_BYTES:
        raise ValueError(f"larger than {MAX_TENSOR_BYTES} bytes")
    if not isinstance(offsets, list) or len(offsets) != 2 or not all(map(_is_count, offsets)):
        raise ValueError("data_offsets must be two non-negative integers")
    begin, end = offsets
    size = math.prod(shape) * DTYPES[dtype].itemsize
    if end - begin != size:
        raise ValueError(f"data_offsets span {end - begin} bytes, dtype and shape need {size}")
    return _Entry(DTYPES[dtype], tuple(shape), begin, end)


def _check_layout(header: Any, data_bytes: int) -> dict[str, _Entry]:
    """Every entry of a parsed header, in the order of the data. ValueError unless they tile the data."""
    if not isinstance(header, dict):
        raise ValueError("the header is not a JSON object")
    if len(header) > MAX_TENSORS:
        raise ValueError(f"{len(header)} tensors, at most {MAX_TENSORS} are allowed")
    entries: dict[str, _Entry] = {}
    for name, fields in header.items():
        if not _TENSOR_NAME.fullmatch(name):
            raise ValueError(f"{name[:64]!a} is not a name for a tensor")
        try:
            entries[name] = _entry(fields)
        except ValueError as error:
            raise ValueError(f"{name}: {error}") from None
    position = 0
    ordered = dict(sorted(entries.items(), key=lambda item: (item[1].begin, item[1].end)))
    for name, entry in ordered.items():
        if entry.begin != position:
            kind = "overlaps the tensor before it" if entry.begin < position else "leaves a hole before it"
            raise ValueError(f"{name}: {kind} (begins at {entry.begin}, expected {position})")
        position = entry.end
    if position != data_bytes:
        raise ValueError(f"the header describes {position} bytes of data, the file holds {data_bytes}")
    return ordered


def _read_header(file: BinaryIO, size: int, where: Path) -> tuple[bytes, dict[str, _Entry]]:
    """The start of a file up to its data, and what that says is in it; no tensor is read."""
    start = file.read(8)
    header_bytes = int.from_bytes(start, "little")
    if len(start) < 8 or header_bytes > size - 8:
        raise ArtifactError(f"{where}: damaged: truncated in the header")
    if header_bytes > MAX_HEADER_BYTES:
        raise ArtifactError(
            f"{where}: damaged: a header of {header_bytes} bytes, at most {MAX_HEADER_BYTES} are allowed"
        )
    header = file.read(header_bytes)
    parsed = _json.parse(header, where=f"{where}: header", limit=MAX_HEADER_BYTES)
    try:
        return start + header, _check_layout(parsed, size - 8 - header_bytes)
    except ValueError as error:
        raise ArtifactError(f"{where}: damaged: {error}") from None


def _read_data(file: BinaryIO, entries: Mapping[str, _Entry], where: Path, sha256: Any) -> dict[str, Tensor]:
    """The tensors, each read into memory of its own; `sha256` is updated with what was read."""
    tensors = {}
    for name, entry in entries.items():
        try:
            tensor = torch.empty(entry.shape, dtype=entry.dtype)
        except RuntimeError:
            raise ResourceError(f"{where}: no memory for {name} ({entry.end - entry.begin} bytes)") from None
        if tensor.numel():
            memory = tensor.view(-1).view(torch.uint8).numpy().data
            if file.readinto(memory) != len(memory):  # type: ignore[attr-defined]
                raise ArtifactError(f"{where}: changed while it was read")
            sha256.update(memory)
        tensors[name] = tensor
    if file.read(1):
        raise ArtifactError(f"{where}: changed while it was read")
    return tensors


def _all_finite(tensor: Tensor) -> bool:
    # In parts: torch needs as much memory again to look at a tensor as a whole.
    return all(bool(torch.isfinite(part).all()) for part in tensor.view(-1).split(_PART))


def _with_bad_values(tensors: Mapping[str, Tensor]) -> list[str]:
    """Names of the (contiguous) tensors that hold NaN, infinity, or a truth value other than 0 and 1."""
    return [
        name
        for name, tensor in tensors.items()
        if (tensor.is_floating_point() and not _all_finite(tensor))
        or (tensor.dtype == torch.bool and bool((tensor.view(torch.uint8) > 1).any()))
    ]


def load_tensors(
    root: Path,
    name: str,
    *,
    sha256: str | None = None,
    size: int | None = None,
    expected: Mapping[str, Tensor] | None = None,
) -> dict[str, Tensor]:
    """`read_tensors` of the file `name` under `root`, where no part of `name` may be a symbolic link.

    `size` (bytes) must be that of the file: it is compared before anything is read.
    """
    where = root / name
    with _fs.opened(root, name) as (file, found_size):
        if size is not None and found_size != size:
            raise ArtifactError(f"{where}: damaged: {found_size} bytes, its manifest says {size}")
        header, entries = _read_header(file, found_size, where)
        if expected is not None:
            _require_fit(entries, expected, where)
        digest = hashlib.sha256(header)
        tensors = _read_data(file, entries, where, digest)
    if sha256 is not None and (found := digest.hexdigest()) != sha256:
        raise ArtifactError(f"{where}: damaged: its sha256 is {found}, its manifest says {sha256}")
    if bad := _with_bad_values(tensors):
        raise ArtifactError(f"{where}: damaged: NaN, infinity or no truth value in {', '.join(bad)}")
    return tensors


def _require_fit(entries: Mapping[str, _Entry], expected: Mapping[str, Tensor], where: Path) -> None:
    problems = differences(
        {key: _describe(entry.dtype, entry.shape) for key, entry in entries.items()},
        {key: _describe(tensor.dtype, tuple(tensor.shape)) for key, tensor in expected.items()},
    )
    if problems:
        raise ArtifactError(
            "\n".join([f"{where}: does not fit the model of this recipe:", *problems]),
            "use the recipe the artifact was made with (its config.yaml), or make the artifact again",
        )


def read_tensors(
    path: Path, *, sha256: str | None = None, expected: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Tensors of a file, on the CPU.

    `sha256` (hex) must be that of the file. Names, shapes and dtypes must equal those of `expected`; all
    differences are listed in one ArtifactError. Floats must be finite.
    """
    return load_tensors(path.parent, path.name, sha256=sha256, expected=expected)


def dump_tensors(tensors: Mapping[str, Tensor]) -> bytes:
    """File content for `tensors`, from any device; whatever it returns, `read_tensors` accepts.

    Raises DivergedError where a value is not finite, ValueError for a name or dtype outside the format.
    """
    plain = {name: tensor.detach().to("cpu").contiguous() for name, tensor in sorted(tensors.items())}
    for name, tensor in plain.items():
        if not _TENSOR_NAME.fullmatch(name) or tensor.dtype not in DTYPES.values():
            raise ValueError(f"{name!r} ({tensor.dtype}) cannot be stored")
        if tensor.dim() > MAX_DIMENSIONS:
            raise ValueError(f"{name!r} has {tensor.dim()} dimensions; at most {MAX_DIMENSIONS} are stored")
    if len(plain) > MAX_TENSORS:
        raise ValueError(f"{len(plain)} tensors, at most {MAX_TENSORS} fit one file")
    if bad := _with_bad_values(plain):
        raise DivergedError(
            f"values that are not finite in {', '.join(bad)}: not saved",
            "lower optimiser.learning_rate or optimiser.max_grad_norm, and continue from the last checkpoint",
        )
    # Not safetensors.torch: it makes a ctypes type of every size it meets, and those stay (replay segments
    # have many sizes).
    return safetensors.numpy.save({name: tensor.numpy() for name, tensor in plain.items()})


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> str:
    """Write `tensors` to `path`, at once or not at all; returns the sha256 (hex) of the file."""
    data = dump_tensors(tensors)
    _fs.write(path, data)
    return hashlib.sha256(data).hexdigest()
