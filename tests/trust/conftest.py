"""What the proofs of docs/trust.md share: a short form for every test run; a long one keeps its figures."""

import json
import platform
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
import torch

KEPT = Path(__file__).parents[2] / "results" / "trust"

Record = Callable[..., None]


@pytest.fixture
def is_long(request: pytest.FixtureRequest) -> bool:
    """Whether this is the long form (`make trust`)."""
    return bool(request.config.getoption("--long"))


@pytest.fixture
def record(request: pytest.FixtureRequest, is_long: bool) -> Record:
    """Call it with figures by name: the long form writes them to results/trust, one file a test."""

    def write(**figures: float | str) -> None:
        if not is_long:
            return
        name = f"{Path(str(request.node.path)).stem.removeprefix('test_')}.{request.node.originalname}"
        about = {
            "test": f"pytest --long '{request.node.nodeid}'",
            "date": datetime.now(UTC).date().isoformat(),
            "machine": f"{platform.system()} {platform.machine()}",
            "python": sys.version.split()[0],
            "torch": torch.__version__,
        }
        KEPT.mkdir(parents=True, exist_ok=True)
        case = getattr(request.node, "callspec", None)
        path = KEPT / f"{name}{'-' + case.id if case else ''}.json"
        path.write_text(json.dumps({**about, "figures": figures}, indent=2) + "\n")

    return write
