"""Values turned into the files of one folder.

`weights` (and with it torch) is imported when the first tensors are written.
"""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from marl_sale.artifacts import _fs, _json
from marl_sale.artifacts.manifest import MANIFEST, FileEntry, is_relative
from marl_sale.artifacts.reader import CHECKPOINTS, LOCK, with_suffix

if TYPE_CHECKING:
    import torch


def checked(name: str) -> str:
    """`name`, if a stage may write a file of that name. ValueError otherwise."""
    if not is_relative(name) or name.split("/")[0] in {MANIFEST, LOCK, CHECKPOINTS}:
        raise ValueError(f"{name!r} is not a name for a file of an artifact")
    return name


class Writer:
    """Turns values into the files of one folder."""

    def _put(self, name: str, data: bytes) -> None:
        raise NotImplementedError

    def write_tensors(self, name: str, tensors: "Mapping[str, torch.Tensor]") -> None:
        """Write `<name>.safetensors`. DivergedError where a value is not finite."""
        from marl_sale.artifacts import weights

        self._put(with_suffix(name, ".safetensors"), weights.dump_tensors(tensors))

    def write_json(self, name: str, value: object) -> None:
        """Write `<name>.json`. ValueError for NaN, infinity, or more than can be read back."""
        self._put(with_suffix(name, ".json"), _json.dump(value))

    def write_text(self, name: str, text: str) -> None:
        """Write a text file; `name` with its suffix."""
        self._put(name, text.encode())

    def write_bytes(self, name: str, data: bytes) -> None:
        """Write a file as it is, for instance a picture; `name` with its suffix."""
        self._put(name, data)


class CheckpointWriter(Writer):
    """A checkpoint being written; it has no name, and so does not exist, before it is complete."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.files: dict[str, FileEntry] = {}

    def _put(self, name: str, data: bytes) -> None:
        _fs.write(self._folder / checked(name), data)
        self.files[name] = FileEntry(sha256=hashlib.sha256(data).hexdigest(), bytes=len(data))
