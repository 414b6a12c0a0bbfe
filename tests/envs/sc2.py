"""What the tests of StarCraft II share: whether the packages are there, and a game that stands in."""

from importlib.util import find_spec
from pathlib import Path

import pytest


def _has(package: str) -> bool:
    """Whether the package of the StarCraft Multi-Agent Challenge is installed, without importing it."""
    found = find_spec(package)
    return found is not None and (Path(str(found.origin)).parent / "env/starcraft2").is_dir()


MISSING = [name for name in ("smac", "smacv2") if not _has(name)] + ["pysc2"] * (find_spec("pysc2") is None)
needs_packages = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (make install-sc2)"
)
