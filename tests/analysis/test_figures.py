import csv
import io
import xml.etree.ElementTree as ET

import matplotlib
import numpy as np
import pytest
from PIL import Image

from marl_sale.analysis.curves import SeedCurve, aggregate
from marl_sale.analysis.figures import COLOURS, Line, Panel, draw, encode, short_number, table

RUNS = ["agent-0123456789", "agent-abcdef0123"]


def line(label="mmsa", style=0, seeds=3, scale=1.0):
    generator = np.random.default_rng(style)
    x = np.arange(0, 110_000, 10_000.0)
    curves = [SeedCurve(RUNS[0], k, x, scale * generator.uniform(0.1, 1, len(x))) for k in range(seeds)]
    return Line(label, style, curves, aggregate(curves, 10_000.0, generator))


def panel(*lines, title="lbf/8x8-2p-2f-coop", y_range=(0.0, 1.0), decades=False):
    protocol = "published protocol"
    return Panel(title, protocol, "win_rate", title, protocol, "Win rate", lines, y_range, decades)


def test_png_holds_title_and_runs_and_no_date():
    data = encode(draw([panel(line())], "env_steps", columns=2), "png", title="win_rate", runs=RUNS)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.info["Source"] == f"runs: {' '.join(RUNS)}"
        assert picture.info["Title"] == "win_rate"
        assert picture.size == (720, 580)


def test_svg_is_xml_that_holds_the_runs_and_no_date():
    data = encode(draw([panel(line())], "env_steps", columns=2), "svg", title="win_rate", runs=RUNS)
    text = "".join(ET.fromstring(data.decode()).itertext())
    assert all(run in text for run in RUNS)
    assert b"<dc:date" not in data


@pytest.mark.parametrize("kind", ["png", "svg"])
def test_the_same_figure_has_the_same_bytes_whatever_matplotlibrc_says(kind):
    def make():
        figure = draw([panel(line())], "env_steps", columns=1)
        first, again = (encode(figure, kind, title="t", runs=RUNS) for _ in range(2))
        assert first == again
        return first

    first = make()
    with matplotlib.rc_context({"font.size": 20, "axes.facecolor": "red", "savefig.dpi": 10}):
        assert make() == first


def test_no_global_figure_is_left_behind():
    draw([panel(line())], "env_steps", columns=1)
    from matplotlib import _pylab_helpers

    assert _pylab_helpers.Gcf.get_all_fig_managers() == []


def test_a_panel_shows_iqm_band_and_seeds():
    figure = draw([panel(line("mmsa", 0), line("qmix", 1, seeds=1))], "env_steps", columns=1)
    (axes,) = figure.axes
    assert len(axes.collections) == 1  # the band; a single seed has none
    assert [drawn.get_linewidth() for drawn in axes.lines] == [0.6, 0.6, 0.6, 1.4, 1.4]
    assert {drawn.get_color() for drawn in axes.lines} == set(COLOURS[:2])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["mmsa (3 seeds)", "qmix (1 seed)"]
    assert axes.get_xlabel() == "Environment steps"


def test_a_recipe_keeps_its_colour_in_every_panel():
    panels = [panel(line("mmsa", 0), line("qmix", 1)), panel(line("qmix", 1)), panel(line("mmsa", 0))]
    figure = draw(panels, "env_steps", columns=2)
    assert figure.axes[1].lines[-1].get_color() == COLOURS[1]
    assert len(figure.legends[0].get_texts()) == 2
    assert [axes.axison for axes in figure.axes] == [True, True, True, False]


def test_past_the_palette_lines_are_dashed():
    figure = draw([panel(line("many", len(COLOURS)))], "env_steps", columns=1)
    assert figure.axes[0].lines[-1].get_linestyle() == "--"
    assert figure.axes[0].lines[-1].get_color() == COLOURS[0]


def test_a_log_scale_only_where_asked_for_values_over_decades():
    wide = line()
    wide.seeds[0].y[0] = 1e-6
    cases = [(wide, True), (wide, False), (line(), True), (line(scale=-1.0), True)]
    panels = [panel(drawn, y_range=None, decades=decades) for drawn, decades in cases]
    scales = [axes.get_yscale() for axes in draw(panels, "env_steps", columns=2).axes]
    assert scales == ["log", "linear", "linear", "linear"]


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (500.0, "500"),
        (2e4, "20k"),
        (1.5e6, "1.5M"),
        (2e9, "2G"),
        (-2.5, "−2.5"),
        (0.01, "0.01"),
    ],
)
def test_short_number(value, shown):
    assert short_number(value) == shown


@pytest.mark.parametrize(
    ("furthest", "label"), [(200, "(seconds)"), (4000, "(minutes)"), (50_000, "(hours)")]
)
def test_time_has_a_unit_for_people(furthest, label):
    curves = [SeedCurve("run", 0, np.array([0.0, float(furthest)]), np.array([0.0, 1.0]))]
    drawn = Line("mmsa", 0, curves, aggregate(curves, None, np.random.default_rng(0)))
    axes = draw([panel(drawn)], "seconds", columns=1).axes[0]
    assert axes.get_xlabel().endswith(label)
    assert axes.get_xlim()[1] < 250


def test_foreign_text_is_neither_math_nor_markup_nor_a_control_character():
    evil = "$\\frac{$ <script>\x07\n$x$"
    figure = draw([panel(line(label=evil), title=evil)], "env_steps", columns=1, title=evil)
    data = encode(figure, "svg", title=evil, runs=[evil])
    encode(figure, "png", title=evil, runs=[evil])
    tags = {element.tag.split("}")[-1] for element in ET.fromstring(data.decode()).iter()}
    assert "script" not in tags
    assert figure.axes[0].get_title() == "$\\frac{$ <script>??$x$"


def test_the_table_holds_what_is_drawn_to_the_last_digit():
    drawn = line()
    rows = list(csv.DictReader(io.StringIO(table([panel(drawn)], "env_steps"))))
    assert len(rows) == 11 + 3 * 11
    assert drawn.aggregate is not None
    assert [float(row["value"]) for row in rows[:11]] == drawn.aggregate.centre.tolist()
    assert [float(row["low"]) for row in rows[:11]] == drawn.aggregate.low.tolist()
    assert [float(row["value"]) for row in rows[11:22]] == drawn.seeds[0].y.tolist()
    assert {row["run"] for row in rows[11:]} == {RUNS[0]}


@pytest.mark.parametrize("first", "=+-@\t")
def test_no_cell_of_the_table_is_a_formula(first):
    text = table([panel(line(label=first + "cmd", scale=-1.0), title=first + "task")], "env_steps")
    rows = list(csv.DictReader(io.StringIO(text)))
    assert rows[0]["recipe"] == "'" + first + "cmd"
    assert rows[0]["task"] == "'" + first + "task"
    assert float(rows[-1]["value"]) < 0  # a number keeps its sign


def test_a_long_name_stays_within_the_figure():
    """Names of recipes with overrides are longer than a panel is wide."""
    figure = draw([panel(line("qmix " + "evaluation.period=20000 " * 6))], "env_steps", columns=1)
    (legend,) = figure.legends
    within = legend.get_window_extent()
    assert 0 <= within.x0 <= within.x1 <= figure.bbox.x1
