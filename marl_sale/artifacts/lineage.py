"""From what an artifact was made, as far back as its ancestors are still here."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from marl_sale.artifacts.manifest import Input, read_manifest
from marl_sale.artifacts.reader import find_artifacts
from marl_sale.errors import ArtifactError


@dataclass(frozen=True)
class Ancestor:
    """An artifact and what it was made from."""

    role: str
    """In what was made from it; empty for the artifact asked about."""
    id: str
    path: Path | None
    """None where it is not here."""
    state: Literal["same", "changed", "missing"]
    """Whether it is still what its descendant read; `changed` makes the descendant stale."""
    made_from: tuple["Ancestor", ...]


def lineage(path: Path, root: Path) -> Ancestor:
    """The artifact at `path`; ancestors that are not where they were are looked for, by id, below `root`.

    Raises ArtifactError where `path` is no artifact.
    """
    manifest, _ = read_manifest(path)
    return Ancestor(
        "",
        manifest.id,
        path,
        "same",
        tuple(_ancestor(each, root, (manifest.id,)) for each in manifest.inputs),
    )


def _ancestor(wanted: Input, root: Path, below: tuple[str, ...]) -> Ancestor:
    """`below`: ids of its descendants; who is among them claims to be made from itself: the search ends."""
    for place in _places(wanted, root):
        try:
            manifest, digest = read_manifest(place)
        except ArtifactError:
            continue
        if manifest.id == wanted.id and wanted.id not in below:
            made_from = (_ancestor(each, root, (*below, wanted.id)) for each in manifest.inputs)
            state: Literal["same", "changed"] = "same" if digest == wanted.manifest_sha256 else "changed"
            return Ancestor(wanted.role, wanted.id, place, state, tuple(made_from))
    return Ancestor(wanted.role, wanted.id, None, "missing", ())


def _places(wanted: Input, root: Path) -> Iterator[Path]:
    if wanted.path is not None:
        yield Path(wanted.path)
    yield from find_artifacts(root)
