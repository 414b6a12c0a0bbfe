"""What every stage returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageResult:
    """The artifact a stage wrote, and its headline figures (JSON values only)."""

    artifact: Path
    kind: str
    status: str
    metrics: Mapping[str, Any]

    def to_json(self) -> dict[str, Any]:
        return {
            "artifact": str(self.artifact),
            "kind": self.kind,
            "status": self.status,
            "metrics": dict(self.metrics),
        }
