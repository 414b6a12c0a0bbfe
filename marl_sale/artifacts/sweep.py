"""What a sweep is, in `sweep.json` of its folder: the commands of every cell. Its state is nowhere but in
the artifacts that these commands write. Imports no torch.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from marl_sale.artifacts import _fs, _json, _lock
from marl_sale.artifacts.manifest import (
    Count,
    Kind,
    Name,
    RelativePath,
    Sha256,
    Text,
    _Record,
    plain,
    require_outside,
)
from marl_sale.artifacts.reader import LOCK
from marl_sale.errors import ArtifactError, RunExistsError

SWEEP = "sweep.json"
MAX_SWEEP_BYTES = _json.MAX_BYTES


class Step(_Record):
    """One command of a cell."""

    kind: Kind
    """Of the artifact that it writes."""
    out: RelativePath
    """That artifact, below the folder of the sweep."""
    argv: tuple[Text, ...]
    """The whole command; `--resume` is added where there is something to go on from."""


class Cell(_Record):
    """One recipe with one choice of values and one seed."""

    name: RelativePath
    """Its folder below that of the sweep."""
    recipe: Text
    overrides: tuple[Text, ...]
    seed: Count
    fingerprint: Sha256
    env_steps: Count
    cpus: Count
    """Threads that each of its commands computes with."""
    gpus: Count
    steps: tuple[Step, ...]
    """In order; each reads what the ones before wrote."""


class Sweep(_Record):
    """Content of sweep.json."""

    format: Literal["marl-sale-sweep"] = "marl-sale-sweep"
    schema_version: Literal[1] = 1
    id: Name
    """The same for every sweep of the same cells."""
    cells: tuple[Cell, ...]


def read_sweep(folder: Path) -> Sweep:
    """The sweep whose folder this is. ArtifactError where there is none, or it is damaged."""
    where = folder / SWEEP
    if not where.exists():
        raise ArtifactError(f"{folder}: not a sweep: it has no {SWEEP}", "marl-sale sweep makes one")
    data = _fs.read(folder, SWEEP, limit=_json.MAX_BYTES)
    _json.parse(data, where=where)  # bounds, and keys given twice
    try:
        return Sweep.model_validate_json(data)
    except ValidationError as error:
        problems = [
            f"{where}: damaged: {plain('.'.join(map(str, problem['loc'])))}: {problem['msg']}"
            for problem in error.errors(include_url=False, include_input=False)
        ]
        raise ArtifactError("\n".join(problems)) from None


@contextmanager
def hold(folder: Path, sweep: Sweep, *, resume: bool) -> Iterator[None]:
    """Own the folder of a sweep: written where it is new; the same one where it is resumed.

    Raises RunExistsError where `folder` holds anything else, or this sweep without `resume`; ArtifactError
    where there is nothing to resume; StoppedError where another process works on it.
    """
    check_folder(folder, sweep, resume=resume)
    _fs.make_folder(folder)
    lock = _lock.take(folder)
    try:
        check_folder(folder, sweep, resume=resume)  # another process may have come and gone
        if not (folder / SWEEP).exists() or read_sweep(folder) != sweep:  # the device, say, is another
            _fs.write(folder / SWEEP, sweep.to_bytes())
        yield
    finally:
        _fs.close(lock)


def check_folder(folder: Path, sweep: Sweep, *, resume: bool) -> None:
    """What `hold` would refuse, without touching anything."""
    require_outside(folder, "choose another folder with --out")
    if folder.exists() and not folder.is_dir():
        raise RunExistsError(f"{folder}: exists and is not a folder", "choose another folder with --out")
    found = [name for name in _fs.names(folder) if name != LOCK] if folder.exists() else []
    if SWEEP not in found:
        if any(not name.startswith(_fs.TEMPORARY) for name in found):
            raise RunExistsError(
                f"{folder}: not empty, and no sweep; nothing in it was touched", "choose another --out"
            )
        if resume:
            raise ArtifactError(f"{folder}: no sweep to resume", "leave out --resume to start one")
        return
    there = read_sweep(folder)
    if there.id != sweep.id:
        raise RunExistsError(
            "\n".join(
                [f"{folder}: holds another sweep; nothing in it was touched:", *_changes(there, sweep)]
            ),
            "repeat its command with --resume, or choose another folder with --out",
        )
    if not resume:
        raise RunExistsError(
            f"{folder}: this sweep is there already; nothing in it was touched",
            "go on with it: the same command and --resume",
        )


def _changes(there: Sweep, asked: Sweep) -> list[str]:
    found, wanted = ([cell.name for cell in sweep.cells] for sweep in (there, asked))
    lines = [f"not in it: {name}" for name in wanted if name not in found]
    lines += [f"in it, and not asked for: {name}" for name in found if name not in wanted]
    lines = lines or ["the same cells in another order, or with other commands"]
    return lines if len(lines) <= 8 else [*lines[:8], f"and {len(lines) - 8} more"]
