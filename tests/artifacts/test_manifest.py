import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marl_sale.artifacts import _json
from marl_sale.artifacts.manifest import (
    CheckpointManifest,
    FileEntry,
    Git,
    Input,
    Manifest,
    differences,
    is_relative,
    new_id,
    now,
    parse,
    plain,
    read_manifest,
)
from marl_sale.errors import ArtifactError

HASH = "0123456789abcdef" * 4


def a_manifest(**changes: Any) -> Manifest:
    values: dict[str, Any] = {
        "kind": "agent",
        "status": "complete",
        "id": "agent-0123456789",
        "created": "2026-01-02T03:04:05Z",
        "updated": "2026-01-02T03:04:06Z",
        "recipe": "lbf/8x8-2p-2f-coop",
        "overrides": ("discount=0.95",),
        "fingerprint": HASH,
        "seed": 0,
        "env_spec": {"task": "8x8", "n_agents": 2, "has_success": True, "scale": 0.5, "notes": None},
        "inputs": (Input(role="world-model", id="wm-1", path="results/wm", manifest_sha256=HASH),),
        "files": {"weights/agent.safetensors": FileEntry(sha256=HASH, bytes=12)},
        "counters": {"env_steps": 100, "seconds": 1.5},
        "versions": {"torch": "2.13.0+cpu"},
        "git": Git(commit="a" * 40, dirty=True),
        "device": "cpu",
        "notes": (),
    }
    return Manifest(**{**values, **changes})


def as_json(**changes: Any) -> dict[str, Any]:
    return {**json.loads(a_manifest().to_bytes()), **changes}


names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", fullmatch=True)
paths = st.lists(names, min_size=1, max_size=8).map("/".join)
texts = st.text(max_size=40).map(plain)
numbers = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
hashes = st.text("0123456789abcdef", min_size=64, max_size=64)
entries = st.builds(FileEntry, sha256=hashes, bytes=st.integers(0, 2**63 - 1))
manifests = st.builds(
    a_manifest,
    kind=st.sampled_from(["world-model", "agent", "evaluation", "report", "dataset"]),
    status=st.sampled_from(["running", "complete", "interrupted", "failed"]),
    id=names,
    recipe=texts,
    overrides=st.lists(texts, max_size=3).map(tuple),
    fingerprint=st.none() | hashes,
    seed=st.integers(0, 2**63 - 1),
    env_spec=st.none() | st.dictionaries(texts, st.none() | st.booleans() | numbers | texts, max_size=4),
    inputs=st.lists(
        st.builds(Input, role=names, id=names, path=st.none() | paths, manifest_sha256=hashes), max_size=2
    ).map(tuple),
    files=st.dictionaries(paths, entries, max_size=4),
    counters=st.dictionaries(names, numbers, max_size=4),
    versions=st.dictionaries(names, texts, max_size=3),
    git=st.none() | st.builds(Git, commit=st.just("0" * 40), dirty=st.booleans()),
    device=texts,
    notes=st.lists(texts, max_size=3).map(tuple),
)


@given(manifests)
@settings(deadline=None, derandomize=True, max_examples=60)
def test_a_manifest_reads_back_as_it_was_written(manifest: Manifest) -> None:
    assert parse(Manifest, manifest.to_bytes(), where="m") == manifest


def test_numbers_keep_their_type() -> None:
    read = parse(Manifest, a_manifest(counters={"a": 1, "b": 1.0}).to_bytes(), where="m")
    assert [type(value) for value in read.counters.values()] == [int, float]
    assert read.env_spec is not None
    assert read.env_spec["has_success"] is True


@pytest.mark.parametrize(
    "changes",
    [
        {"extra": 1},
        {"kind": "policy"},
        {"status": "done"},
        {"id": "../agent"},
        {"created": "yesterday"},
        {"recipe": "clear\x1b[2Jscreen"},
        {"fingerprint": HASH.upper()},
        {"seed": -1},
        {"seed": True},
        {"seed": "3"},
        {"counters": {"env_steps": True}},
        {"counters": {"env_steps": None}},
        {"env_spec": {"task": ["a"]}},
        {"files": {"../escape": {"sha256": HASH, "bytes": 1}}},
        {"files": {"/etc/passwd": {"sha256": HASH, "bytes": 1}}},
        {"files": {"weights/../../x": {"sha256": HASH, "bytes": 1}}},
        {"files": {"weights//x": {"sha256": HASH, "bytes": 1}}},
        {"files": {"a\\b": {"sha256": HASH, "bytes": 1}}},
        {"files": {"a\n": {"sha256": HASH, "bytes": 1}}},
        {"files": {"a": {"sha256": HASH, "bytes": -1}}},
        {"files": {"a": {"sha256": "0", "bytes": 1}}},
        {"inputs": [{"role": "x", "id": "y", "path": "/root", "manifest_sha256": HASH}]},
        {"git": {"commit": "$(id)", "dirty": False}},
        {"schema_version": 0},
        {"schema_version": "1"},
    ],
    ids=str,
)
def test_wrong_values_are_refused(changes: dict[str, Any]) -> None:
    data = json.dumps(as_json(**changes)).encode()
    with pytest.raises(ArtifactError, match="where-it-is: damaged: "):
        parse(Manifest, data, where="where-it-is")


def test_a_missing_field_is_refused_and_every_problem_is_listed() -> None:
    value = as_json(seed=-1)
    del value["device"]
    with pytest.raises(ArtifactError) as caught:
        parse(Manifest, json.dumps(value).encode(), where="m")
    assert "m: damaged: seed: " in caught.value.what
    assert "m: damaged: device: Field required" in caught.value.what


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "Expecting value"),
        (b"[]", "not a marl-sale manifest"),
        (b'{"format": "zip"}', 'format: "zip"'),
        (b'{"format": "marl-sale", "schema_version": 2}', "newer marl-sale: schema 2"),
        (b'{"format": "marl-sale", "format": "marl-sale"}', 'the key "format" appears twice'),
        (b'{"seed": NaN}', "NaN is not a number"),
        (b'{"seed": -Infinity}', "-Infinity is not a number"),
        (b'{"seed": 1e999}', "1e999 is out of range"),
        (b'{"seed": ' + b"9" * 5000 + b"}", "integer string conversion"),
        (b"[" * 34 + b"]" * 34, "nested deeper than 32"),
        (b"[" * 1_000_000, "more than 200000 lists and objects"),
        (b'"\xff"', "utf-8"),
        (b" " * ((4 << 20) + 1), "at most"),
    ],
    ids=lambda value: repr(value)[:40],
)
def test_hostile_json_is_refused(data: bytes, reason: str) -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(Manifest, data, where="m")
    assert reason in caught.value.what


def test_the_deepest_json_allowed_is_read() -> None:
    assert _json.parse(b"[" * 33 + b"]" * 33, where="m") is not None


def test_json_that_could_not_be_read_back_is_not_written() -> None:
    deep: object = 1
    for _ in range(40):
        deep = [deep]
    for value in (float("nan"), deep, ["x" * 10_000] * 1000):
        with pytest.raises(ValueError, match=r"nan|nested deeper|at most"):
            _json.dump(value)


def test_one_manifest_is_not_taken_for_the_other() -> None:
    checkpoint = CheckpointManifest(
        run="agent-1", step=5, created=now(), counters={}, score=None, offsets={}, files={}
    )
    assert parse(CheckpointManifest, checkpoint.to_bytes(), where="m") == checkpoint
    with pytest.raises(ArtifactError, match="not a marl-sale manifest"):
        parse(Manifest, checkpoint.to_bytes(), where="m")


def test_no_folder_and_no_manifest_are_different_messages(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="no such folder"):
        read_manifest(tmp_path / "nothing")
    with pytest.raises(ArtifactError, match=r"has no manifest\.json"):
        read_manifest(tmp_path)


def test_ids_are_unique_and_safe() -> None:
    ids = {new_id("world-model") for _ in range(1000)}
    assert len(ids) == 1000
    assert all(is_relative(name) and "/" not in name for name in ids)


def test_differences_lists_every_leaf_with_both_values() -> None:
    found = {"env": {"task": "5x5", "n": 2, "same": 1.0}, "sizes": (1, 2), "flag": 1, "old": None}
    expected = {"env": {"task": "8x8", "n": 3, "same": 1}, "sizes": [1, 2], "flag": True, "new": {}}
    assert differences(found, expected) == [
        'env.task: found "5x5", expected "8x8"',
        "env.n: found 2, expected 3",
        "flag: found 1, expected true",
        "new: found absent, expected {}",
        "old: found null, expected absent",
    ]
    assert differences(found, found) == []


def test_nothing_here_imports_torch() -> None:
    program = (
        "import sys; from marl_sale.artifacts import manifest, metrics, provenance, reader, store;"
        "sys.exit(bool({'torch', 'numpy', 'safetensors'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
