"""One measurement, as it stands in the JSON and in a row of a table."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from benchmarks.timing import Lap

Parameter = int | float | str


@dataclass(frozen=True)
class Record:
    """Laps of one piece, what it was, and what follows from them."""

    name: str
    """What was measured, in the words of its table."""
    shape: str
    """Task or sizes it was measured on."""
    unit: str
    """What the seconds are for: an update, an env step."""
    laps: Sequence[Lap]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    figures: Mapping[str, float] = field(default_factory=dict)
    """Rates, ratios and bytes; the key names the unit."""

    @property
    def cpu(self) -> list[float]:
        return [lap.cpu for lap in self.laps]

    @property
    def wall(self) -> list[float]:
        return [lap.wall for lap in self.laps]

    def to_dict(self) -> dict[str, Any]:
        """For JSON, with every lap."""
        found = asdict(self)
        del found["laps"]
        return {**found, "cpu_seconds": _spread(self.cpu), "wall_seconds": _spread(self.wall)}


def _spread(values: Sequence[float]) -> dict[str, Any]:
    return {
        "repeats": len(values),
        "median": statistics.median(values),
        "min": min(values),
        "raw": list(values),
    }
