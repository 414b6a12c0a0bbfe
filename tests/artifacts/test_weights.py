import hashlib
import json
import math
import os
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.artifacts.weights import DTYPES, MAX_HEADER_BYTES, dump_tensors, read_tensors, write_tensors
from marl_sale.errors import ArtifactError, DivergedError

F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


def a_file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(dtype: Any, shape: list[Any], begin: Any, end: Any) -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


HOSTILE = {
    "empty": (b"", "truncated in the header"),
    "length only": (b"\x10\0\0\0\0\0\0\0", "truncated in the header"),
    "header longer than the file": (a_file({}, length=1000), "truncated in the header"),
    "header of 2^63 bytes": (a_file({}, length=2**63), "truncated in the header"),
    "oversized header": (a_file(b" " * (MAX_HEADER_BYTES + 1)), "a header of 1048577 bytes, at most 1048576"),
    "header is no JSON": (a_file(b"\x80\x04K\x01."), "damaged"),
    "header is a list": (a_file([]), "not a JSON object"),
    "deep header": (a_file(b"[" * 40 + b"]" * 40), "nested deeper"),
    "bomb of brackets": (a_file(b"[" * 900_000), "more than 200000 lists"),
    "bomb of fewer brackets": (a_file(b"[" * 100_000), "nested deeper"),
    "duplicate names": (
        a_file(b'{"a":%b,"a":%b}' % ((json.dumps(F32).encode(),) * 2), bytes(8)),
        "appears twice",
    ),
    "too many tensors": (
        a_file({str(i): entry("U8", [0], 0, 0) for i in range(4097)}),
        "4097 tensors, at most 4096",
    ),
    "overlapping": (
        a_file({"a": F32, "b": entry("F32", [2], 4, 12)}, bytes(12)),
        "b: overlaps the tensor before it",
    ),
    "the same data twice": (a_file({"a": F32, "b": F32}, bytes(8)), "overlaps"),
    "hole": (a_file({"a": F32, "b": entry("F32", [2], 12, 20)}, bytes(20)), "b: leaves a hole"),
    "hole at the start": (a_file({"a": entry("F32", [2], 4, 12)}, bytes(12)), "a: leaves a hole"),
    "truncated data": (a_file({"a": F32}, bytes(7)), "describes 8 bytes of data, the file holds 7"),
    "trailing data": (a_file({"a": F32}, bytes(9)), "the file holds 9"),
    "span too long": (a_file({"a": entry("F32", [2], 0, 12)}, bytes(12)), "span 12 bytes"),
    "backwards": (a_file({"a": entry("F32", [2], 8, 0)}, bytes(8)), "span -8 bytes"),
    "unknown dtype": (a_file({"a": entry("F8_E5M2", [8], 0, 8)}, bytes(8)), "dtype must be one of"),
    "dtype is a list": (a_file({"a": entry([], [2], 0, 8)}, bytes(8)), "dtype must be one of"),
    "negative size": (a_file({"a": entry("F32", [-2], 0, 8)}, bytes(8)), "non-negative"),
    "size is a float": (a_file({"a": entry("F32", [2.0], 0, 8)}, bytes(8)), "non-negative"),
    "size is a bool": (a_file({"a": entry("F32", [True, 2], 0, 8)}, bytes(8)), "non-negative"),
    "nine dimensions": (a_file({"a": entry("F32", [1] * 8 + [2], 0, 8)}, bytes(8)), "at most 8"),
    "sizes that overflow": (a_file({"a": entry("F32", [0, 2**40, 2**40], 0, 0)}), "larger than"),
    "offset is a string": (a_file({"a": entry("F32", [2], "0", 8)}, bytes(8)), "two non-negative"),
    "three offsets": (a_file({"a": {**F32, "data_offsets": [0, 8, 8]}}, bytes(8)), "two non-negative"),
    "missing field": (a_file({"a": {"dtype": "F32", "shape": [2]}}, bytes(8)), "its fields must be"),
    "extra field": (a_file({"a": {**F32, "code": "x"}}, bytes(8)), "its fields must be"),
    "metadata": (a_file({"__metadata__": {"a": "b"}, "a": F32}, bytes(8)), "not a name for a tensor"),
    "name with an escape": (a_file({"\x1b[2J": F32}, bytes(8)), r"'\x1b[2J' is not a name"),
    "NaN": (a_file({"a": F32}, bytes(4) + b"\0\0\xc0\x7f"), "NaN, infinity or no truth value in a"),
    "infinity": (a_file({"a": F32}, bytes(4) + b"\0\0\x80\x7f"), "infinity"),
    "bool that is 2": (a_file({"a": entry("BOOL", [2], 0, 2)}, b"\1\2"), "no truth value in a"),
}


@pytest.mark.parametrize("case", HOSTILE, ids=str)
def test_hostile_files_are_refused(case: str, tmp_path: Path) -> None:
    data, reason = HOSTILE[case]
    path = tmp_path / "x.safetensors"
    path.write_bytes(data)
    with pytest.raises(ArtifactError) as caught:
        read_tensors(path)
    assert caught.value.what.startswith(f"{path}: ")
    assert reason in caught.value.what


def test_the_sound_file_the_hostile_ones_derive_from_is_read(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(a_file({"a": F32}, bytes(8)))
    assert torch.equal(read_tensors(tmp_path / "x")["a"], torch.zeros(2))


def test_only_regular_files_are_opened(tmp_path: Path) -> None:
    write_tensors(tmp_path / "real", {"a": torch.ones(2)})
    (tmp_path / "link").symlink_to("real")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name, reason in {
        "link": "symbolic link",
        "fifo": "not a regular file",
        "folder": "not a regular file",
        "nothing": "No such file",
    }.items():
        with pytest.raises(ArtifactError, match=reason):
            read_tensors(tmp_path / name)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z][a-z0-9_.]{0,20}", fullmatch=True),
        st.tuples(st.sampled_from(list(DTYPES.values())), st.lists(st.integers(0, 3), max_size=4)),
        max_size=6,
    )
)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_every_dtype_and_shape_round_trips(
    tmp_path_factory: pytest.TempPathFactory, layout: dict[str, Any]
) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {
        name: torch.randint(0, 2, shape, generator=generator).to(dtype)
        for name, (dtype, shape) in layout.items()
    }
    path = tmp_path_factory.mktemp("weights") / "x.safetensors"
    sha256 = write_tensors(path, tensors)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == sha256
    read = read_tensors(path, sha256=sha256, expected=tensors)
    assert set(read) == set(tensors)
    for name, tensor in tensors.items():
        assert read[name].dtype == tensor.dtype
        assert torch.equal(read[name], tensor)


def test_views_and_shared_memory_are_stored_by_value(tmp_path: Path) -> None:
    base = torch.arange(6.0).reshape(2, 3).requires_grad_()
    write_tensors(tmp_path / "x", {"a": base, "b": base, "t": base.t(), "row": base[1]})
    read = read_tensors(tmp_path / "x")
    assert torch.equal(read["t"], base.detach().t())
    assert torch.equal(read["b"], base.detach())
    read["a"].add_(1.0)  # writable, and its own memory
    assert torch.equal(read["b"], base.detach())


def test_writing_tensors_of_many_sizes_leaves_nothing_in_memory() -> None:
    def write(sizes: range) -> int:
        for size in sizes:
            dump_tensors({"x": torch.zeros(size)})
        return sys.getallocatedblocks()

    write(range(1, 20))
    before = sys.getallocatedblocks()
    assert write(range(1000, 1500)) - before < 100


def test_a_wrong_hash_is_refused(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.ones(2)})
    with pytest.raises(ArtifactError, match="its sha256 is"):
        read_tensors(tmp_path / "x", sha256="0" * 64)


def test_all_differences_to_the_model_are_listed(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.ones(2), "b": torch.ones(3), "d": torch.ones(1)})
    expected = {
        "a": torch.ones(2, dtype=torch.float64),
        "b": torch.ones(3, 1),
        "c": torch.ones(1),
        "d": torch.ones(1),
    }
    with pytest.raises(ArtifactError) as caught:
        read_tensors(tmp_path / "x", expected=expected)
    assert caught.value.what.splitlines()[1:] == [
        'a: found "float32 [2]", expected "float64 [2]"',
        'b: found "float32 [3]", expected "float32 [3, 1]"',
        'c: found absent, expected "float32 [1]"',
    ]


def test_what_could_not_be_read_back_is_not_written(tmp_path: Path) -> None:
    for bad in (math.nan, math.inf):
        with pytest.raises(DivergedError, match="in b: not saved"):
            write_tensors(tmp_path / "x", {"a": torch.ones(1), "b": torch.tensor([bad])})
    with pytest.raises(ValueError, match="cannot be stored"):
        dump_tensors({"a": torch.ones(1, dtype=torch.complex64)})
    with pytest.raises(ValueError, match="cannot be stored"):
        dump_tensors({"a b": torch.ones(1)})
    with pytest.raises(ValueError, match="at most 8"):
        dump_tensors({"a": torch.ones([1] * 9)})
    with pytest.raises(ValueError, match="at most 4096"):
        dump_tensors({str(i): torch.ones(1) for i in range(4097)})
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x"
    write_tensors(path, {"a": torch.ones(2)})

    def fail(*_: object) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(ArtifactError, match="cannot write: Input/output error"):
        write_tensors(path, {"a": torch.zeros(2)})
    assert torch.equal(read_tensors(path)["a"], torch.ones(2))
    assert [entry.name for entry in tmp_path.iterdir()] == ["x"]
