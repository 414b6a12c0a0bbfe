"""The commit protocol done wrong, to see that the proofs notice."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from marl_sale.artifacts import _fs

Mutant = Callable[[pytest.MonkeyPatch], None]
"""Makes the library wrong, until the patch is undone."""


def deletes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Older checkpoints go before the new one has its name."""
    commit = _fs.commit

    def mutant(temporary: Path, folder: Path) -> None:
        for name in _fs.subfolders(folder.parent):
            if not name.startswith(_fs.TEMPORARY):
                _fs.discard(folder.parent / name)
        commit(temporary, folder)

    monkeypatch.setattr(_fs, "commit", mutant)
    monkeypatch.setattr(_fs, "remove", _fs.discard)


def overwrites_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are not renamed: the old content goes where the new one is written."""

    def mutant(path: Path, data: bytes) -> None:
        _fs.make_folder(path.parent)
        path.unlink(missing_ok=True)
        _fs._write_new(path, data)
        _fs.sync_folder(path.parent)

    monkeypatch.setattr(_fs, "write", mutant)


def renames_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint's folder has its name before its files are in it."""

    def mutant(temporary: Path, folder: Path) -> None:
        _fs.make_folder(folder)
        for name in _fs.names(temporary):
            _fs.write(folder / name, (temporary / name).read_bytes())
        _fs.discard(temporary)

    monkeypatch.setattr(_fs, "commit", mutant)


def renames_before_it_flushes(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file has its name before its content is on the disk."""

    def mutant(path: Path, data: bytes) -> None:
        _fs.make_folder(path.parent)
        temporary = path.parent / _fs._temporary_name()
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
        os.write(descriptor, data)
        os.close(descriptor)
        os.rename(temporary, path)  # noqa: PTH104
        _fs.sync_folder(path.parent)
        _fs.digest(path.parent, path.name, durable=True)

    monkeypatch.setattr(_fs, "write", mutant)


NOTICED_BY_A_KILL = (deletes_first, overwrites_in_place, renames_one_by_one)
MUTANTS = (*NOTICED_BY_A_KILL, renames_before_it_flushes)
"""The last one only a power loss shows: what is not flushed survives the process."""
