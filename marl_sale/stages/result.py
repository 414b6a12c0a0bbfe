"""What every stage returns."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from marl_sale.artifacts.manifest import read_manifest


@dataclass(frozen=True)
class StageResult:
    """The artifact a stage wrote, and its figures (JSON values only)."""

    artifact: Path
    kind: str
    status: str
    metrics: Mapping[str, Any]
    manifest_sha256: str | None = None
    """Fixes the manifest, and through it every file; None for a dry run, which writes nothing."""
    summary: Mapping[str, Any] | None = None
    """The figures that people are shown; None: all of them."""

    @classmethod
    def complete(
        cls, artifact: Path, kind: str, metrics: Mapping[str, Any], summary: Mapping[str, Any] | None = None
    ) -> "StageResult":
        """Of an artifact that is finished."""
        return cls(artifact, kind, "complete", metrics, read_manifest(artifact)[1], summary)

    def to_json(self) -> dict[str, Any]:
        return {
            "artifact": str(self.artifact),
            "kind": self.kind,
            "status": self.status,
            "manifest_sha256": self.manifest_sha256,
            "metrics": dict(self.metrics),
        }
