"""One process at a time writes into a folder: who does holds its lock file, which says who that is."""

import os
import socket
from pathlib import Path

from marl_sale.artifacts import _fs, _json
from marl_sale.artifacts.manifest import now, plain
from marl_sale.artifacts.reader import LOCK
from marl_sale.errors import ArtifactError, StoppedError


def take(folder: Path) -> int:
    """Descriptor that holds the lock of a run. StoppedError names the process that has it."""
    holder = {"pid": os.getpid(), "host": socket.gethostname(), "since": now()}
    descriptor = _fs.lock(folder / LOCK, holder=_json.dump(holder))
    if descriptor is None:
        raise in_use(folder)
    return descriptor


def in_use(folder: Path) -> StoppedError:
    try:
        holder = _json.parse(_fs.read(folder, LOCK, limit=4096), where=folder / LOCK)
        name = plain(f"process {holder['pid']} on {holder['host']}, since {holder['since']}")
    except (ArtifactError, KeyError, TypeError):  # just created, or not by us
        name = "another process"
    return StoppedError(
        f"{folder}: in use by {name}", "wait for it or stop it, then use --resume; or choose another --out"
    )
