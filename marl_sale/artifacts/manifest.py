"""What an artifact says about itself: the typed content of `manifest.json`. Imports no torch."""

import hashlib
import json
import re
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, ValidationError

from marl_sale.artifacts import _fs, _json
from marl_sale.errors import ArtifactError, RunExistsError

FORMAT = "marl-sale"
CHECKPOINT_FORMAT = "marl-sale-checkpoint"
SCHEMA_VERSION = 1
MANIFEST = "manifest.json"
MAX_MANIFEST_BYTES = 4 << 20
MAX_FILES, MAX_ENTRIES = 20_000, 5_000
"""Of a manifest's list of files, and of any other part of it."""
MAX_PROBLEMS = 20
"""Named of one manifest; a damaged one may have as many as it has entries."""

Kind = Literal["world-model", "agent", "evaluation", "report", "dataset"]
Status = Literal["running", "complete", "interrupted", "failed"]

MADE_BY: Mapping[str, str] = {
    "world-model": "marl-sale pretrain-wm",
    "agent": "marl-sale train",
    "evaluation": "marl-sale eval",
    "report": "marl-sale plot",
    "dataset": "marl-sale pretrain-wm --save-dataset",
}
"""The command that makes each kind."""

_NAME = r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}"
_PART = r"[A-Za-z0-9][A-Za-z0-9._+-]{0,127}"
"""Of a path; also holds a recipe's name, in which `+` joins overlays."""
_PATH = rf"{_PART}(/{_PART}){{0,15}}"

Name = Annotated[str, Field(pattern=f"^{_NAME}$")]
RelativePath = Annotated[str, Field(pattern=f"^{_PATH}$")]
"""Parts joined by `/`; none starts with a dot, so it can neither be absolute nor climb."""
Text = Annotated[str, Field(max_length=8192, pattern=r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$")]
"""For people. No control characters: a manifest may come from anyone and ends up on a terminal."""
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Time = Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]
Count = Annotated[int, Field(ge=0, lt=2**63)]
Number = int | FiniteFloat


class _Record(BaseModel):
    model_config = ConfigDict(strict=True, extra="forbid", frozen=True)

    def to_bytes(self) -> bytes:
        return (self.model_dump_json(indent=2) + "\n").encode()


class FileEntry(_Record):
    sha256: Sha256
    bytes: Count


class Input(_Record):
    """An artifact another one was made from."""

    role: Name
    id: Name
    path: RelativePath | None = None
    """Where it was, as far as that is a plain relative path; the id and the hash say which it was."""
    manifest_sha256: Sha256


class Git(_Record):
    commit: Annotated[str, Field(pattern=r"^[0-9a-f]{40,64}$")]
    dirty: bool


class Manifest(_Record):
    format: Literal["marl-sale"] = "marl-sale"
    schema_version: Literal[1] = 1
    kind: Kind
    status: Status
    id: Name
    created: Time
    updated: Time
    recipe: Text
    overrides: tuple[Text, ...]
    fingerprint: Sha256 | None
    """sha256 of the resolved config; None where no config decides the content (a report)."""
    seed: Count
    env_spec: dict[Text, bool | Number | Text | None] | None
    inputs: tuple[Input, ...]
    files: dict[RelativePath, FileEntry]
    counters: dict[Name, Number]
    versions: dict[Name, Text]
    git: Git | None
    device: Text
    notes: tuple[Text, ...]

    def changed(self, **changes: Any) -> "Manifest":
        """A copy with other values, checked like the original."""
        return Manifest(**{**dict(self), **changes})


class CheckpointManifest(_Record):
    """Of one folder under `checkpoints/`."""

    format: Literal["marl-sale-checkpoint"] = "marl-sale-checkpoint"
    schema_version: Literal[1] = 1
    run: Name
    """`id` of the artifact it belongs to."""
    step: Count
    created: Time
    counters: dict[Name, Number]
    score: Number | None
    scheduled: bool = True
    """Whether the recipe's env steps asked for it, not the clock or a signal."""
    offsets: dict[RelativePath, Count]
    """Length of each metrics file of the run at this step, in bytes."""
    files: dict[RelativePath, FileEntry]


AnyManifest = TypeVar("AnyManifest", Manifest, CheckpointManifest)


def now() -> str:
    """The time, UTC, to the second."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def new_id(kind: str) -> str:
    """A name for one artifact, for instance `agent-4f09c2ab31`."""
    return f"{kind}-{secrets.token_hex(5)}"


def plain(text: str) -> str:
    """`text` with whatever `Text` refuses replaced or cut off."""
    return re.sub(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]", "?", text)[:8192]


def is_relative(name: str) -> bool:
    """Whether `name` may stand in a manifest as the path of a file."""
    return re.fullmatch(_PATH, name) is not None


def parse(model: type[AnyManifest], data: bytes, *, where: object) -> AnyManifest:
    """The manifest in `data`. ArtifactError says what is wrong with it."""
    value = _json.parse(data, where=where, limit=MAX_MANIFEST_BYTES)
    expected = FORMAT if model is Manifest else CHECKPOINT_FORMAT
    found = value.get("format") if isinstance(value, dict) else None
    if found != expected:
        raise ArtifactError(f"{where}: not a {expected} manifest (format: {_shown(found)})")
    version = value.get("schema_version")
    if type(version) is not int:  # pydantic takes true for 1
        raise ArtifactError(f"{where}: damaged: schema_version: {_shown(version)} is not a whole number")
    if type(version) is int and version > SCHEMA_VERSION:
        raise ArtifactError(
            f"{where}: written by a newer marl-sale: schema {version}, this one reads up to {SCHEMA_VERSION}",
            "upgrade: pip install --upgrade marl-sale",
        )
    for key, part in value.items():
        if isinstance(part, dict | list) and len(part) > (
            most := MAX_FILES if key == "files" else MAX_ENTRIES
        ):
            raise ArtifactError(
                f"{where}: damaged: {plain(key)}: {len(part)} entries, at most {most} are allowed"
            )
    try:
        return model.model_validate_json(data)
    except ValidationError as error:
        found = error.errors(include_url=False, include_input=False, include_context=False)
        problems = [
            f"{where}: damaged: {plain('.'.join(map(str, problem['loc'])))[:200]}: {problem['msg']}"
            for problem in found[:MAX_PROBLEMS]
        ]
        if len(found) > MAX_PROBLEMS:
            problems.append(f"{where}: damaged: … and {len(found) - MAX_PROBLEMS} problems more")
        raise ArtifactError("\n".join(problems)) from None


def read_manifest(folder: Path) -> tuple[Manifest, str]:
    """The manifest of an artifact and the sha256 (hex) of its file.

    Raises ArtifactError where there is no artifact at `folder`, or its manifest is damaged.
    """
    if not folder.is_dir():
        raise ArtifactError(f"{folder}: no such folder", "marl-sale runs ls shows the artifacts there are")
    if not (folder / MANIFEST).exists():
        raise ArtifactError(
            f"{folder}: not an artifact: it has no {MANIFEST}",
            "name the folder a marl-sale command printed; marl-sale runs ls shows the artifacts there are",
        )
    data = _fs.read(folder, MANIFEST, limit=MAX_MANIFEST_BYTES)
    return parse(Manifest, data, where=folder / MANIFEST), hashlib.sha256(data).hexdigest()


def require_outside(path: Path, hint: str) -> None:
    """RunExistsError where `path`, which need not exist, lies inside an artifact, which it would damage."""
    for above in dict.fromkeys((*path.absolute().parents, *path.resolve().parents)):
        if (above / MANIFEST).exists():
            with suppress(ArtifactError):  # somebody else's manifest.json is no artifact
                inside = read_manifest(above)[0]
                raise RunExistsError(f"{path}: lies inside an artifact, {inside.id} at {above}", hint)


def _shown(value: object) -> str:
    return plain(json.dumps(value, ensure_ascii=False, default=str))


def _leaves(value: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, child in value.items():
        if isinstance(child, Mapping) and child:
            yield from _leaves(child, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(child) if isinstance(child, tuple) else child


def _same(a: object, b: object) -> bool:
    return a == b and isinstance(a, bool) == isinstance(b, bool)


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """One line per leaf that differs: `key: found …, expected …`, keys dotted, in the order of `expected`."""
    a, b = dict(_leaves(found)), dict(_leaves(expected))

    def shown(leaves: Mapping[str, Any], key: str) -> str:
        return _shown(leaves[key]) if key in leaves else "absent"

    return [
        f"{plain(key)}: found {shown(a, key)}, expected {shown(b, key)}"
        for key in dict.fromkeys((*b, *a))
        if key not in a or key not in b or not _same(a[key], b[key])
    ]


def kinds(kind: str | Sequence[str]) -> tuple[str, ...]:
    """`kind` as a tuple; ValueError for one that does not exist."""
    wanted = (kind,) if isinstance(kind, str) else tuple(kind)
    if unknown := set(wanted) - set(get_args(Kind)):
        raise ValueError(f"no such kind of artifact: {sorted(unknown)}")
    return wanted
