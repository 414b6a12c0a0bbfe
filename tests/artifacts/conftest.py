"""A run as a stage would start it, and what it is started with."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from marl_sale.artifacts.store import Run

FINGERPRINT = "ab" * 32
ENV_SPEC = {"family": "lbf", "task": "5x5-2p-1f-coop", "n_agents": 2, "has_success": True, "notes": ""}


@pytest.fixture
def asked() -> dict[str, Any]:
    """What a resumed run is compared with."""
    return {"kind": "agent", "fingerprint": FINGERPRINT, "seed": 3, "env_spec": dict(ENV_SPEC)}


@pytest.fixture
def start(tmp_path: Path, asked: dict[str, Any]) -> Callable[..., Run]:
    """Run.create in `tmp_path/run`, with changes."""

    def create(out: Path = tmp_path / "run", **changes: Any) -> Run:
        arguments = {
            **asked,
            "recipe": "lbf/5x5-2p-1f-coop",
            "overrides": ["discount=0.95"],
            "config_text": "algorithm: mmsa\n",
            "inputs": (),
            "command": "marl-sale train lbf/5x5-2p-1f-coop",
            "device": "cpu",
            **changes,
        }
        return Run.create(out, **arguments)

    return create
