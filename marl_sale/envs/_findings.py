"""What a family needs of the machine, found without importing what may be missing.

A family may define `diagnose() -> Iterable[Finding]` in its module, for `marl-sale doctor`. Without it, the
doctor tells whether the module can be imported. Everything here is cheap.
"""

import ctypes.util
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from marl_sale.envs._requirement import requirement

GRAPHICS = {"EGL": "libegl1", "GL": "libgl1", "GLU": "libglu1-mesa"}
"""Libraries that draw without a display, and the packages of Debian that have them."""


@dataclass(frozen=True)
class Finding:
    """One thing a family needs: what was found of it, and what to type where it is not `ok`."""

    what: str
    ok: bool
    found: str
    fix: str = ""
    needed: bool = True
    """False: the family can be played without it."""


def package(name: str, fix: str = "") -> Finding:
    """An installed distribution, with its version."""
    try:
        return Finding(f"package {name}", True, metadata.version(name))
    except metadata.PackageNotFoundError:
        return Finding(f"package {name}", False, "not installed", fix or f'pip install "{requirement(name)}"')


def folder(what: str, path: Path, fix: str) -> Finding:
    """A folder that must exist, such as that of a game or its maps."""
    return Finding(what, path.is_dir(), str(path) if path.is_dir() else f"no folder {path}", fix)


def graphics() -> Iterator[Finding]:
    """What pictures need where there is no display."""
    missing = [name for name in GRAPHICS if ctypes.util.find_library(name) is None]
    fix = " ".join(["apt install", *(GRAPHICS[name] for name in missing)])
    found = f"no {', '.join(missing)}" if missing else ", ".join(GRAPHICS)
    yield Finding("pictures (--render)", not missing, found, fix, needed=False)
