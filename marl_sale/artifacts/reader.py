"""Artifacts being read: nothing in them is run, and every file is checked before it is believed.

A file counts only with the size and sha256 its manifest gives. Only what a run that is still going (or was
killed) has not yet entered in its manifest is read without. torch is imported when tensors are.
"""

import hashlib
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from marl_sale.artifacts import _fs, _json, metrics
from marl_sale.artifacts.manifest import (
    MADE_BY,
    MANIFEST,
    MAX_MANIFEST_BYTES,
    CheckpointManifest,
    FileEntry,
    Input,
    Manifest,
    is_relative,
    kinds,
    parse,
    plain,
    read_manifest,
)
from marl_sale.errors import ArtifactError

if TYPE_CHECKING:
    import torch

CHECKPOINTS = "checkpoints"
LOCK = "lock"
CONFIG = "config.yaml"
MAX_CONFIG_BYTES = 1 << 20

_STEP = re.compile(r"\d{12}")


def with_suffix(name: str, suffix: str) -> str:
    """`name` with `suffix`, which may be left out where a file is named."""
    return name if name.endswith(suffix) else name + suffix


def checkpoint_folder(step: int) -> str:
    """Where the checkpoint of `step` is, relative to its artifact."""
    return f"{CHECKPOINTS}/{step:012d}"


def checkpoint_steps(artifact: Path) -> list[int]:
    """Steps of the committed checkpoints, ascending."""
    return [int(name) for name in _fs.subfolders(artifact / CHECKPOINTS) if _STEP.fullmatch(name)]


def best_step(scores: Mapping[int, float | None]) -> int | None:
    """Step with the highest score, the later one where two are equal; None where nothing was scored."""
    scored = [(score, step) for step, score in scores.items() if score is not None]
    return max(scored)[1] if scored else None


class _Folder:
    """Files below `prefix` of the artifact at `root`, against the entries of a manifest."""

    def __init__(self, root: Path, prefix: str, entries: Mapping[str, FileEntry], *, sealed: bool) -> None:
        self._root, self._prefix, self._entries, self._sealed = root, prefix, entries, sealed

    @property
    def path(self) -> Path:
        """The folder."""
        return self._root / self._prefix

    def _entry(self, name: str) -> FileEntry | None:
        """The manifest's entry for `name`; None only where a file may be read without one."""
        if not is_relative(name):
            raise ArtifactError(f"{name!a} is not the name of a file in an artifact")
        entry = self._entries.get(name)
        if entry is None and self._sealed:
            there = ", ".join(self._entries) or "nothing"
            raise ArtifactError(f"{self.path}: {name} is not part of it; there is: {there}")
        return entry

    def _read(self, name: str, limit: int) -> bytes:
        entry = self._entry(name)
        data = _fs.read(self._root, self._prefix + name, limit=limit)
        if entry is not None:
            _compare(self.path / name, (hashlib.sha256(data).hexdigest(), len(data)), entry)
        return data

    def tensors(
        self, name: str, expected: "Mapping[str, torch.Tensor] | None" = None
    ) -> "dict[str, torch.Tensor]":
        """Tensors of `<name>.safetensors`, on the CPU; see `weights.read_tensors` for `expected`."""
        from marl_sale.artifacts import weights

        name = with_suffix(name, ".safetensors")
        entry = self._entry(name)
        return weights.load_tensors(
            self._root,
            self._prefix + name,
            sha256=entry.sha256 if entry else None,
            size=entry.bytes if entry else None,
            expected=expected,
        )

    def json(self, name: str) -> Any:
        """Value of `<name>.json`."""
        name = with_suffix(name, ".json")
        return _json.parse(self._read(name, _json.MAX_BYTES), where=self.path / name)

    def rows(self, name: str) -> list[dict[str, metrics.Value]]:
        """Rows of `<name>.jsonl`, for instance of `metrics/train`; while it grows, those written so far."""
        name = with_suffix(name, ".jsonl")
        data = self._read(name, metrics.MAX_FILE_BYTES)
        return metrics.parse_rows(data, where=self.path / name, growing=name not in self._entries)


def _compare(where: Path, found: tuple[str, int], entry: FileEntry) -> None:
    """ArtifactError unless sha256 and size are those of the entry."""
    sha256, size = found
    if size != entry.bytes:
        raise ArtifactError(f"{where}: damaged: {size} bytes, its manifest says {entry.bytes}")
    if sha256 != entry.sha256:
        raise ArtifactError(f"{where}: damaged: its sha256 is {sha256}, its manifest says {entry.sha256}")


class Checkpoint(_Folder):
    """One committed checkpoint of a run."""

    def __init__(self, root: Path, manifest: CheckpointManifest) -> None:
        super().__init__(root, checkpoint_folder(manifest.step) + "/", manifest.files, sealed=True)
        self.manifest = manifest

    @classmethod
    def open(cls, artifact: Path, step: int, *, run: str, entry: FileEntry | None = None) -> "Checkpoint":
        """Checkpoint `step` of the artifact with the id `run`. `entry`: what that says of the manifest."""
        name = f"{checkpoint_folder(step)}/{MANIFEST}"
        where = artifact / name
        data = _fs.read(artifact, name, limit=MAX_MANIFEST_BYTES)
        if entry is not None:
            _compare(where, (hashlib.sha256(data).hexdigest(), len(data)), entry)
        manifest = parse(CheckpointManifest, data, where=where)
        if (manifest.step, manifest.run) != (step, run):
            raise ArtifactError(
                f"{where}: damaged: it is of step {manifest.step} of {manifest.run}, not of {step} of {run}"
            )
        return cls(artifact, manifest)

    @property
    def step(self) -> int:
        return self.manifest.step

    @property
    def counters(self) -> dict[str, int | float]:
        return self.manifest.counters

    @property
    def score(self) -> float | None:
        return self.manifest.score


class Artifact(_Folder):
    """A folder a stage wrote."""

    def __init__(self, path: Path, manifest: Manifest, digest: str) -> None:
        super().__init__(path, "", manifest.files, sealed=manifest.status != "running")
        self.manifest = manifest
        self.digest = digest
        """sha256 (hex) of manifest.json; with it every listed file is fixed too."""

    @property
    def path(self) -> Path:
        return self._root

    @classmethod
    def open(
        cls, path: Path, *, kind: str | Sequence[str], status: Sequence[str] = ("complete",)
    ) -> "Artifact":
        """The artifact at `path`, if it is of one of the kinds and in one of the states.

        Raises ArtifactError otherwise, and where it is missing, damaged, or of a newer schema.
        """
        wanted = kinds(kind)
        manifest, digest = read_manifest(path)
        if manifest.kind not in wanted:
            raise ArtifactError(
                f"{path}: its kind is {manifest.kind}; needed: {' or '.join(wanted)}",
                "; ".join(f"{MADE_BY[name]} makes {name} artifacts" for name in wanted),
            )
        if manifest.status not in status:
            hint = {
                "running": "wait until it has finished; if it was killed, make it again"
                " (pretrain-wm and train: or continue it with --resume)",
                "complete": "name one that is not finished",
            }.get(manifest.status, "make it again (pretrain-wm and train: or continue it with --resume)")
            raise ArtifactError(
                f"{path}: its status is {manifest.status}; needed: {' or '.join(status)}", hint
            )
        return cls(path, manifest, digest)

    @property
    def config_text(self) -> str | None:
        """The fully resolved recipe it was made with; None where it has none."""
        if CONFIG not in self._entries:
            return None
        try:
            return self._read(CONFIG, MAX_CONFIG_BYTES).decode("utf-8")
        except UnicodeDecodeError as error:
            raise ArtifactError(f"{self.path / CONFIG}: damaged: {error}") from error

    def checkpoints(self) -> list[int]:
        """Steps of its checkpoints, ascending."""
        return checkpoint_steps(self.path)

    def checkpoint(self, which: Literal["latest", "best"] | int = "latest") -> Checkpoint:
        """Its latest or best checkpoint, or that of a step. ArtifactError lists the steps there are."""
        steps = self.checkpoints()
        step: int | None
        if which == "best":
            step = best_step({step: self._open_checkpoint(step).score for step in steps})
        else:
            step = max(steps, default=None) if which == "latest" else which
        if step is None or step not in steps:
            raise ArtifactError(
                f"{self.path}: no checkpoint {which}; there is: {', '.join(map(str, steps)) or 'none'}",
                "name one of them, or latest" if steps else "it stopped before its first checkpoint",
            )
        return self._open_checkpoint(step)

    def _open_checkpoint(self, step: int) -> Checkpoint:
        entry = self._entry(f"{checkpoint_folder(step)}/{MANIFEST}")
        return Checkpoint.open(self.path, step, run=self.manifest.id, entry=entry)

    def verify(self) -> list[str]:
        """Every problem with its files: missing, damaged, or not listed (while it runs, they need not be)."""
        problems = _verify(self.path, "", self._entries)
        listed = set(self._entries)
        for step in self.checkpoints():
            prefix = f"{checkpoint_folder(step)}/"
            try:
                checkpoint = self._open_checkpoint(step)
            except ArtifactError as error:
                problems.append(error.what)
                continue
            problems += _verify(self.path, prefix, checkpoint.manifest.files)
            listed |= {prefix + MANIFEST, *(prefix + name for name in checkpoint.manifest.files)}
        if self._sealed:
            extra = set(_fs.walk(self.path)) - listed - {MANIFEST, LOCK}
            problems += [f"{self.path / plain(name)}: not listed in the manifest" for name in sorted(extra)]
        return list(dict.fromkeys(problems))

    def as_input(self, role: str) -> Input:
        """What a manifest says of this artifact as an input."""
        path = self.path.as_posix()
        return Input(
            role=role,
            id=self.manifest.id,
            path=path if is_relative(path) else None,
            manifest_sha256=self.digest,
        )


def _verify(root: Path, prefix: str, entries: Mapping[str, FileEntry]) -> list[str]:
    problems = []
    for name, entry in entries.items():
        try:
            _compare(root / prefix / name, _fs.digest(root, prefix + name), entry)
        except ArtifactError as error:
            problems.append(error.what)
    return problems


def require_digest(path: Path, expected: str) -> None:
    """ArtifactError unless the sha256 of the artifact's manifest is the one expected."""
    _, digest = read_manifest(path)
    if digest != expected.lower():
        raise ArtifactError(
            f"{path}: the sha256 of its manifest is {digest}, expected {plain(expected)}",
            "it is another artifact than the one meant, or was changed since",
        )


def find_artifacts(root: Path) -> Iterator[Path]:
    """Every folder with a manifest at or below `root`, by name; links and hidden folders are left out."""
    if os.path.lexists(root / MANIFEST):  # what is no file there is a damaged artifact
        yield root
    else:
        for name in _fs.subfolders(root):
            if not name.startswith("."):
                yield from find_artifacts(root / name)


def in_use(artifact: Path) -> bool:
    """Whether some process writes to the artifact (or is about to) and holds its lock; changes nothing."""
    return _fs.is_locked(artifact / LOCK)


def standing(artifact: Path, manifest: Manifest) -> str:
    """What has become of it: its status, or `killed` where that is running and nobody writes to it."""
    return "killed" if manifest.status == "running" and not in_use(artifact) else manifest.status
