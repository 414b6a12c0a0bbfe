"""What the proofs of docs/trust.md share: a short form for every test run; a long one keeps its figures."""

import json
import platform
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch
from life import SCORES, Life

from marl_sale.artifacts import store
from marl_sale.artifacts.provenance import versions
from marl_sale.config.recipe import Recipe

KEPT = Path(__file__).parents[2] / "results" / "trust"

Record = Callable[..., None]


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form (`make trust`)."""
    return bool(request.config.getoption("--long"))


def keep(name: str, test: str, figures: Mapping[str, object]) -> None:
    """Write results/trust/<name>.json."""
    about = {
        "test": f"pytest --long '{test}'",
        "date": datetime.now(UTC).date().isoformat(),
        "machine": f"{platform.system()} {platform.machine()}",
        "python": sys.version.split()[0],
        "torch": torch.__version__,
    }
    KEPT.mkdir(parents=True, exist_ok=True)
    path = KEPT / f"{name}.json"
    path.write_text(json.dumps({**about, "figures": figures}, indent=2) + "\n")


def _module(request: pytest.FixtureRequest) -> str:
    return Path(str(request.path)).stem.removeprefix("test_")


@pytest.fixture
def record(request: pytest.FixtureRequest, is_long: bool) -> Record:
    """Call it with figures by name: the long form writes them to results/trust, one file a test."""

    def write(**figures: float | str) -> None:
        if is_long:
            case = getattr(request.node, "callspec", None)
            name = f"{_module(request)}.{request.node.originalname}{'-' + case.id if case else ''}"
            keep(name, request.node.nodeid, figures)

    return write


@pytest.fixture(scope="module")
def _tallies(request: pytest.FixtureRequest) -> Iterator[dict[str, dict[str, object]]]:
    tallies: dict[str, dict[str, object]] = {}
    yield tallies
    if request.config.getoption("--long"):
        for test, figures in tallies.items():
            keep(f"{_module(request)}.{test}", f"{request.node.nodeid}::{test}", figures)


@pytest.fixture
def tally(request: pytest.FixtureRequest, _tallies: dict[str, dict[str, object]]) -> Record:
    """As `record`, for a test of many cases: all of them in one file. Not for cases in several processes."""

    def write(**figures: float | str) -> None:
        _tallies.setdefault(request.node.originalname, {})[request.node.callspec.id] = figures

    return write


@pytest.fixture
def life(
    small_recipe: Callable[..., Recipe], is_long: bool, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., None]:
    """See life.py. Asks neither git nor the installed packages each time, which would be half the work."""
    found = versions()
    monkeypatch.setattr(store, "git", lambda: None)
    monkeypatch.setattr(store, "versions", lambda: found)
    return Life(small_recipe("qmix"), rounds=len(SCORES) if is_long else 3)
