"""A game that stands in for StarCraft II, for whoever asks for it."""

from importlib.util import find_spec
from pathlib import Path

import pytest
import sc2_stand_in


def _installed(package: str) -> bool:
    """Whether the package is there, and that of the StarCraft Multi-Agent Challenge; without importing it."""
    found = find_spec(package)
    return found is not None and (Path(str(found.origin)).parent / "env/starcraft2").is_dir()


@pytest.fixture(scope="session")
def _stand_in_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return sc2_stand_in.install(tmp_path_factory.mktemp("stand-in") / "StarCraftII")


@pytest.fixture
def stand_in(_stand_in_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder of the stand-in, which SC2PATH names; skips where the packages are not installed."""
    missing = [name for name in ("smac", "smacv2") if not _installed(name)]
    missing += [name for name in ("pysc2", "s2clientprotocol") if find_spec(name) is None]
    if missing:
        pytest.skip(f"not installed: {', '.join(missing)} (make install-sc2)")
    monkeypatch.setenv("SC2PATH", str(_stand_in_folder))
    return _stand_in_folder
