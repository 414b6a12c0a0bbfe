"""Learning curves for a paper: drawn without pyplot, so without global state, a display or a window.

Text from recipes and tasks is foreign: it is never read as matplotlib math, as a spreadsheet formula, or
as a control character.
"""

import csv
import io
import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from marl_sale.analysis.curves import Aggregate, SeedCurve

XAxis = Literal["env_steps", "seconds"]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe & Ito's palette, told apart with every kind of colour blindness; its yellow is too pale."""
DASHES = ("-", "--", ":", "-.")
"""When the colours are used up, the next round is dashed."""

INK, GRID = "#333333", "#E3E3E3"
STYLE: dict[str, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8,
    "axes.titlesize": 9,
    "axes.labelsize": 8,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.linewidth": 0.6,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.grid": True,
    "grid.color": GRID,
    "grid.linewidth": 0.5,
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.labelsize": 7,
    "ytick.labelsize": 7,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "legend.fontsize": 8,
    "legend.frameon": False,
    "lines.solid_capstyle": "round",
    "svg.hashsalt": "marl-sale",  # otherwise the ids in an SVG are random
}
RC: Any = {**matplotlib.rcParamsDefault, **STYLE}
"""Everything is set, so that a user's matplotlibrc changes nothing."""


@dataclass(frozen=True)
class Line:
    """One recipe in one panel. `style` is its colour: the same recipe has the same one in every panel."""

    label: str
    style: int
    seeds: Sequence[SeedCurve]
    aggregate: Aggregate | None
    failed: int = 0
    """How many of the seeds ended in a failure, where their curve ends too."""


@dataclass(frozen=True)
class Panel:
    """One quantity on one task in one protocol."""

    task: str
    protocol: str
    quantity: str
    """Name of the column, for the CSV."""
    title: str
    subtitle: str
    y_label: str
    lines: Sequence[Line]
    y_range: tuple[float, float] | None = None
    """Fixed limits, for a proportion; None: as the data need."""
    decades: bool = False
    """Whether the y axis may be logarithmic, which it is where the values are positive and span decades."""


def draw(panels: Sequence[Panel], x: XAxis, *, columns: int, title: str = "") -> Figure:
    """A grid of panels with one legend below: IQM (line), bootstrap band (shade), single seeds (faint)."""
    columns = min(columns, len(panels))
    rows = -(-len(panels) // columns)
    furthest = max(float(curve.x[-1]) for panel in panels for line in panel.lines for curve in line.seeds)
    divisor, x_label = _x_unit(x, furthest)
    width = max(3.2 * columns, 3.6)
    fits = int(width * 17)  # characters across the figure
    styles, labels = _legend(panels)
    columns_of_legend = max(1, min(len(labels), fits // (max(map(len, labels)) + 6)))
    labels = [textwrap.fill(label, fits - 12) for label in labels]
    lines = sum(label.count("\n") + 1 for label in labels) / columns_of_legend
    with matplotlib.rc_context(RC):
        # A long legend makes the figure higher, not its panels lower.
        figure = Figure(figsize=(width, 2.5 * rows + 0.24 + 0.16 * lines), layout="constrained")
        grid = figure.subplots(rows, columns, squeeze=False)
        for index, (panel, axes) in enumerate(zip(panels, grid.flat, strict=False)):
            _draw_panel(axes, panel, divisor)
            if index + columns >= len(panels):  # nothing is drawn below it
                axes.set_xlabel(x_label)
        for axes in grid.flat[len(panels) :]:
            axes.set_axis_off()
        figure.legend(
            [Line2D([], [], lw=1.4, **_stroke(style)) for style in styles],
            labels,
            loc="outside lower center",
            ncols=columns_of_legend,
        )
        if title:
            figure.suptitle(printable(title), fontsize=10)
        figure.draw_without_rendering()  # lay out once: every further draw would shift things a little
        figure.set_layout_engine("none")
    return figure


def encode(figure: Figure, kind: Literal["png", "svg"], *, title: str, runs: Sequence[str]) -> bytes:
    """The figure as a PNG (200 dpi) or SVG file, with its title and run ids inside.

    The same figure gives the same bytes on the same machine: no date, no random id.
    """
    facts = {"Title": printable(title), "Source": "runs: " + " ".join(map(printable, runs))}
    facts |= {"Software": "marl-sale"} if kind == "png" else {"Creator": "marl-sale"}
    buffer = io.BytesIO()
    with matplotlib.rc_context(RC):
        figure.savefig(
            buffer, format=kind, dpi=200, metadata=facts | ({"Date": None} if kind == "svg" else {})
        )
    return buffer.getvalue()


def table(panels: Sequence[Panel], x: XAxis) -> str:
    """What the panels show, as CSV: a row per point of each aggregate, then of each seed."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    head = ("task", "protocol", "quantity", "recipe", "series", "seed", "run", x, "value", "low", "high")
    writer.writerow(head)
    for panel in panels:
        for line in panel.lines:
            where = (panel.task, panel.protocol, panel.quantity, line.label)
            for cells in _points(line):
                writer.writerow([_cell(value) for value in (*where, *cells)])
    return buffer.getvalue()


def printable(text: str) -> str:
    """Foreign text without control characters (an SVG with one is not valid XML)."""
    return "".join(letter if letter.isprintable() else "?" for letter in text)


def short_number(value: float, _position: int | None = None) -> str:
    """A tick label: 0, 500, 20k, 1.5M, 2G."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{letter}".replace("-", "−")
    return f"{value:g}".replace("-", "−")


def _legend(panels: Sequence[Panel]) -> tuple[list[int], list[str]]:
    """Styles and labels in the order of the styles; a label says how many seeds it stands for, and failed."""
    lines: dict[tuple[int, str], list[Line]] = {}
    for panel in panels:
        for line in panel.lines:
            lines.setdefault((line.style, line.label), []).append(line)
    labels = []
    for (_, label), drawn in sorted(lines.items()):
        seeds, failed = _range(len(line.seeds) for line in drawn), _range(line.failed for line in drawn)
        text = f"{seeds} {'seed' if seeds == '1' else 'seeds'}"
        text += f", {failed} failed" if failed != "0" else ""
        labels.append(printable(f"{label} ({text})"))
    return [style for style, _ in sorted(lines)], labels


def _range(counts: Iterable[int]) -> str:
    """`3`, or `3–5` where panels differ."""
    found = sorted(counts)
    return "–".join(map(str, dict.fromkeys((found[0], found[-1]))))


def _draw_panel(axes: Axes, panel: Panel, divisor: float) -> None:
    for line in panel.lines:
        stroke, aggregate = _stroke(line.style), line.aggregate
        if aggregate is None or len(line.seeds) > 1:
            faint: dict[str, Any] = {"lw": 0.6, "alpha": 0.35} if aggregate else {"lw": 1.0, "alpha": 0.8}
            for curve in line.seeds:
                axes.plot(
                    curve.x / divisor, curve.y, zorder=2, marker=_marker(curve.x), ms=3, **stroke, **faint
                )
        if aggregate is None:
            continue
        at = aggregate.x / divisor
        if aggregate.low is not None and aggregate.high is not None:
            axes.fill_between(
                at, aggregate.low, aggregate.high, color=stroke["color"], alpha=0.18, lw=0, zorder=1
            )
        axes.plot(at, aggregate.centre, lw=1.4, zorder=3, marker=_marker(at), ms=4, **stroke)
    axes.set_title(printable(panel.title), pad=15 if panel.subtitle else None)
    axes.text(
        0.5, 1.02, printable(panel.subtitle), transform=axes.transAxes, ha="center", va="bottom", fontsize=7
    )
    axes.set_ylabel(printable(panel.y_label))
    axes.xaxis.set_major_locator(MaxNLocator(6, steps=[1, 2, 2.5, 5, 10]))
    axes.xaxis.set_major_formatter(FuncFormatter(short_number))
    axes.margins(x=0.02)
    if panel.y_range:
        low, high = panel.y_range
        margin = 0.03 * (high - low)
        axes.set_ylim(low - margin, high + margin)
    elif panel.decades and _spans_decades(panel):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(numticks=6))
        axes.yaxis.set_major_formatter(FuncFormatter(short_number))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        axes.yaxis.set_major_formatter(FuncFormatter(short_number))


def _spans_decades(panel: Panel) -> bool:
    values = np.concatenate([curve.y for line in panel.lines for curve in line.seeds])
    return bool(values.min() > 0 and values.max() > 100 * values.min())


def _stroke(style: int) -> dict[str, Any]:
    dashes = DASHES[style // len(COLOURS) % len(DASHES)]
    return {"color": COLOURS[style % len(COLOURS)], "ls": dashes}


def _marker(x: np.ndarray) -> str:
    return "o" if len(x) == 1 else ""


def _x_unit(x: XAxis, furthest: float) -> tuple[float, str]:
    if x == "env_steps":
        return 1.0, "Environment steps"
    if furthest >= 3 * 3600:
        return 3600.0, "Wall-clock time (hours)"
    return (60.0, "Wall-clock time (minutes)") if furthest >= 300 else (1.0, "Wall-clock time (seconds)")


def _points(line: Line) -> Iterator[tuple[object, ...]]:
    """Cells of one line after the first four: series, seed, run, x, value, low, high."""
    if line.aggregate is not None:
        nothing = np.full(len(line.aggregate.x), np.nan)
        low = nothing if line.aggregate.low is None else line.aggregate.low
        high = nothing if line.aggregate.high is None else line.aggregate.high
        for cells in zip(line.aggregate.x, line.aggregate.centre, low, high, strict=True):
            yield ("iqm", "", "", *cells)
    for curve in line.seeds:
        for at, value in zip(curve.x, curve.y, strict=True):
            yield ("seed", curve.seed, curve.run, at, value, "", "")


def _cell(value: object) -> object:
    """A CSV cell: text that a spreadsheet would run as a formula gets a leading quote; NaN is empty."""
    if isinstance(value, str):
        return "'" + value if value.startswith(("=", "+", "-", "@", "\t", "\r")) else value
    if isinstance(value, float):
        return "" if np.isnan(value) else float(value)
    return value
