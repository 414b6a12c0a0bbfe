"""Fuzzing of every reader: what ours accepts, the format's library reads alike; nothing else but a refusal.

The short form tries fixed cases; the long one new ones for ten minutes a target. A failure names its case.
"""

import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any

import pytest
import safetensors.torch
import torch
import yaml
from mutations import changed_json, changed_lines, changed_text, weights_file

from marl_sale.artifacts import _json
from marl_sale.artifacts.manifest import CheckpointManifest, Manifest, parse
from marl_sale.artifacts.metrics import parse_rows
from marl_sale.artifacts.weights import read_tensors
from marl_sale.config import strict_yaml
from marl_sale.config.recipe import load_recipe, recipe_from_text
from marl_sale.errors import ArtifactError, ConfigError

MINUTES = 10

Record = Callable[..., None]


def cases(target: str, count: int, is_long: bool) -> Iterator[tuple[int, Random]]:
    """Numbered cases with a generator each: `count` in the short form, ten minutes of them in the long."""
    deadline, number = time.monotonic() + 60 * MINUTES, 0
    while number < count or (is_long and time.monotonic() < deadline):
        yield number, Random(f"{target} {number}")
        number += 1


def reading(
    number: int, refusal: type[Exception], read: Callable[..., Any], *given: Any, **named: Any
) -> Any:
    """What `read` returns, or None where it refuses as it should."""
    try:
        return read(*given, **named)
    except refusal:
        return None
    except Exception as error:
        raise AssertionError(f"case {number}: {type(error).__name__}: {error}") from error


def finish(tally: Counter[str], record: Record, began: float) -> None:
    """Both outcomes must be common: a fuzzer that makes only rubbish, or nothing wrong, proves nothing."""
    total = tally["cases"]
    assert tally["accepted"] > total * 0.05, tally
    assert total - tally["accepted"] > total * 0.2, tally
    record(**tally, seconds=round(time.monotonic() - began, 1))


def library_reads(data: bytes) -> dict[str, torch.Tensor] | None:
    try:
        return safetensors.torch.load(data)
    except Exception:
        return None


def test_weights_against_the_safetensors_library(is_long: bool, record: Record, tmp_path: Path) -> None:
    tally, began = Counter[str](), time.monotonic()
    path = tmp_path / "x.safetensors"
    for number, random in cases("weights", 800, is_long):
        data = weights_file(random)
        path.write_bytes(data)
        ours = reading(number, ArtifactError, read_tensors, path)
        library = library_reads(data)
        tally["cases"] += 1
        tally["accepted"] += ours is not None
        tally["accepted_by_the_library"] += library is not None
        if ours is None:
            continue
        assert library is not None, f"case {number}: accepted, and refused by the library"
        assert ours.keys() == library.keys(), f"case {number}"
        for name, tensor in ours.items():
            other = library[name]
            assert (tensor.dtype, tensor.shape) == (other.dtype, other.shape), f"case {number}: {name}"
            assert torch.equal(as_bytes(tensor), as_bytes(other)), f"case {number}: {name}"
    assert tally["accepted_by_the_library"] > tally["accepted"], "the checks of ours refused nothing"
    finish(tally, record, began)


def as_bytes(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.reshape(-1).view(torch.uint8)


def manifest_values() -> dict[str, Any]:
    entry = {"sha256": "ab" * 32, "bytes": 12}
    return {
        "format": "marl-sale",
        "schema_version": 1,
        "kind": "agent",
        "status": "complete",
        "id": "agent-0123456789",
        "created": "2026-01-01T00:00:00Z",
        "updated": "2026-01-01T00:00:01Z",
        "recipe": "tiny/match+tiny",
        "overrides": ["discount=0.9"],
        "fingerprint": "cd" * 32,
        "seed": 3,
        "env_spec": {"family": "tiny", "n_agents": 2, "masks_actions": True, "notes": ""},
        "inputs": [
            {"role": "world-model", "id": "world-model-1", "path": "wm", "manifest_sha256": "ef" * 32},
        ],
        "files": {"config.yaml": entry, "metrics/train.jsonl": entry},
        "counters": {"env_steps": 10, "seconds": 0.5},
        "versions": {"torch": "2.0"},
        "git": {"commit": "0" * 40, "dirty": False},
        "device": "cpu",
        "notes": [],
    }


def checkpoint_values() -> dict[str, Any]:
    return {
        "format": "marl-sale-checkpoint",
        "schema_version": 1,
        "run": "agent-0123456789",
        "step": 7,
        "created": "2026-01-01T00:00:00Z",
        "counters": {"env_steps": 7},
        "score": 0.5,
        "offsets": {"metrics/train.jsonl": 40},
        "files": {"weights.safetensors": {"sha256": "ab" * 32, "bytes": 12}},
    }


@pytest.mark.parametrize("kind", ["manifest", "checkpoint"])
def test_manifests_against_python_s_json(kind: str, is_long: bool, record: Record) -> None:
    """The typed manifest of what is accepted says what Python's own JSON reader finds in the text."""
    tally, began = Counter[str](), time.monotonic()
    model: type[Manifest] | type[CheckpointManifest]
    model, values = (
        (Manifest, manifest_values()) if kind == "manifest" else (CheckpointManifest, checkpoint_values())
    )
    for number, random in cases(kind, 1000, is_long):
        data = json.dumps(values).encode() if random.random() < 0.1 else changed_json(values, random)
        tally["cases"] += 1
        plain = reading(number, ArtifactError, _json.parse, data, where="x")
        if plain is not None:
            assert repr(plain) == repr(json.loads(data)), f"case {number}"
        found = reading(number, ArtifactError, parse, model, data, where="x")
        tally["accepted"] += found is not None
        if found is None:
            continue
        assert plain is not None, f"case {number}: accepted, but not as JSON"
        assert json.loads(found.model_dump_json(exclude_unset=True)) == plain, f"case {number}"
        assert parse(model, found.to_bytes(), where="x") == found, f"case {number}"
    finish(tally, record, began)


def row(random: Random) -> dict[str, Any]:
    return {"env_steps": random.randrange(1000), "win_rate": random.random(), "note": "é", "loss": None}


def test_metrics_against_python_s_json(is_long: bool, record: Record) -> None:
    tally, began = Counter[str](), time.monotonic()
    for number, random in cases("metrics", 1500, is_long):
        data = changed_lines([row(random) for _ in range(4)], random)
        growing = random.random() < 0.2
        found = reading(number, ArtifactError, parse_rows, data, where="x", growing=growing)
        tally["cases"] += 1
        tally["accepted"] += found is not None
        if found is None:
            continue
        lines = data.split(b"\n")[:-1]
        assert repr(found) == repr([json.loads(line) for line in lines]), f"case {number}"
        assert len({tuple(each) for each in found}) <= 1, f"case {number}: other columns"
        assert not any(isinstance(cell, list | dict) for each in found for cell in each.values())
    finish(tally, record, began)


def test_yaml_against_the_yaml_library(is_long: bool, record: Record) -> None:
    """What is accepted has the structure and the texts that PyYAML's simplest loader finds."""
    tally, began = Counter[str](), time.monotonic()
    sound = load_recipe("tiny/match+tiny").text
    short = "about: x\nchanges:\n  discount: 0.5\n  env:\n    task: match\n  list: [1, 'a', {b: 2}]\n"
    for number, random in cases("yaml", 150, is_long):
        text = changed_text(sound if random.random() < 0.2 else short, random)
        found = reading(number, ConfigError, strict_yaml.parse, text, "x")
        tally["cases"] += 1
        tally["accepted"] += found is not None
        if found is not None:
            assert alike(found.value, yaml.load(text, yaml.BaseLoader)), f"case {number}"
        recipe = reading(number, ConfigError, recipe_from_text, text, where="x", name="x")
        assert recipe is None or found is not None, f"case {number}"
    finish(tally, record, began)


def alike(ours: Any, plain: Any) -> bool:
    """Whether a value is what the library's texts say."""
    match ours:
        case dict():
            same_keys = isinstance(plain, dict) and ours.keys() == plain.keys()
            return same_keys and all(alike(ours[key], plain[key]) for key in ours)
        case list():
            return isinstance(plain, list) and len(ours) == len(plain) and all(map(alike, ours, plain))
        case None:
            return plain in ("", "~", "null", "Null", "NULL", None)
        case bool():
            return plain == str(ours) or plain.lower() == str(ours).lower()
        case int():
            digits = plain.lstrip("+-")
            return ours == (int(plain, 0) if digits[:2] in ("0x", "0o") else int(plain))
        case float():
            return ours == float(plain)
    return bool(ours == plain)
