"""Records as tables of markdown: a row each, the figures that follow from the seconds beside them."""

from collections.abc import Mapping, Sequence

from benchmarks.record import Parameter, Record


def page(heading: Mapping[str, Parameter], results: Mapping[str, Sequence[Record]]) -> str:
    """What it was measured on, then one table per benchmark."""
    lines = ["# Benchmarks", "", *(f"- {name}: {value}" for name, value in heading.items())]
    lines += ["", "Seconds per unit: the median, and in brackets the minimum, of so many repeats."]
    for name, records in results.items():
        lines += ["", f"## {name}", "", *(_table(records) if records else ["Not measurable here."])]
    return "\n".join(lines) + "\n"


def _table(records: Sequence[Record]) -> list[str]:
    parameters = list(dict.fromkeys(key for record in records for key in record.parameters))
    figures = list(dict.fromkeys(key for record in records for key in record.figures))
    head = ["name", "shape", *parameters, "unit", "CPU", "wall", "repeats", *figures]
    rows = [
        [
            record.name,
            record.shape,
            *(str(record.parameters.get(key, "")) for key in parameters),
            record.unit,
            _seconds(record.to_dict()["cpu_seconds"]),
            _seconds(record.to_dict()["wall_seconds"]),
            str(len(record.laps)),
            *(number(record.figures[key]) if key in record.figures else "" for key in figures),
        ]
        for record in records
    ]
    return ["| " + " | ".join(row) + " |" for row in (head, ["---"] * len(head), *rows)]


def _seconds(spread: Mapping[str, float]) -> str:
    """Median and minimum in the unit that suits the median."""
    scales = {"s": 1.0, "ms": 1e3, "µs": 1e6}
    unit = next((unit for unit, scale in scales.items() if spread["median"] * scale >= 1), "µs")
    scale = scales[unit]
    return f"{number(spread['median'] * scale)} ({number(spread['min'] * scale)}) {unit}"


def number(value: float) -> str:
    """Three digits that matter, and whole numbers in full: 0.0123, 12.3, 12346."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
