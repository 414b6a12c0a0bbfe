"""The stage `plot`: learning curves and final tables from any number of finished or unfinished runs."""

import re
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Literal

from marl_sale.analysis import figures, tables
from marl_sale.analysis.curves import aggregate
from marl_sale.analysis.figures import Line, Panel, XAxis
from marl_sale.analysis.groups import Group, group
from marl_sale.analysis.report import QUANTITIES as TITLES
from marl_sale.analysis.report import report as contents
from marl_sale.analysis.runs import EvaluationRun, Task, TrainingRun, read
from marl_sale.artifacts.manifest import MAX_ENTRIES
from marl_sale.errors import UsageError
from marl_sale.observer import Observer
from marl_sale.seeding import numpy_generator
from marl_sale.stages._occupied import Asked, create
from marl_sale.stages.result import StageResult

Quantity = Literal["episode_return", "win_rate", "losses"]
QUANTITIES: tuple[Quantity, ...] = ("episode_return", "win_rate", "losses")

SAME_LENGTH = 0.02
"""Runs whose env steps differ by less, relatively, count as equally long: episodes end where they end."""


def run(
    runs: Sequence[Path],
    out: Path,
    *,
    seed: int,
    observer: Observer,
    command: str,
    x: XAxis = "env_steps",
    quantities: Sequence[Quantity] = QUANTITIES,
    below: Collection[Path] = (),
) -> StageResult:
    """Draw agent artifacts, tabulate them and evaluation artifacts, and write a report artifact to `out`.

    `below`: those of `runs` that were found in a folder; of them, what shows nothing (yet) is left out.

    One figure per quantity with one panel per task and protocol; for losses one figure per task, with one
    panel per loss. Each is a PNG, an SVG, and the CSV of what it shows. `seed` is that of the bootstrap.

    Raises UsageError for no run, a run given twice, or a seed that a recipe has twice; ArtifactError for
    what cannot be read or has no evaluation yet; RunExistsError where `out` is not empty.
    """
    if not runs:
        raise UsageError("no run to draw", "name agent artifacts: marl-sale plot RUN…")
    agents, evaluations, left_out = read(runs, below=below)
    groups = group(agents)
    notes = [*left_out, *_notes(groups, evaluations)]
    drawings = [drawing for quantity in quantities for drawing in _drawings(groups, quantity, x, seed)]
    asked = asked_for(agents, evaluations, seed, x)
    recipes = sorted({run.recipe for run in agents} | {run.recipe for run in evaluations})
    ids = [run.id for member in groups for run in member.runs]
    with create(
        out,
        asked,
        recipe=", ".join(recipes),
        overrides=(),
        config_text=None,
        env_spec=None,
        command=command,
        device="cpu",
    ) as report:
        observer.start("plot", len(drawings), "figures")
        try:
            for done, (stem, title, columns, panels) in enumerate(drawings, start=1):
                figure = figures.draw(panels, x, columns=columns, title=title)
                for kind in ("png", "svg"):
                    report.write_bytes(
                        f"figures/{stem}.{kind}", figures.encode(figure, kind, title=stem, runs=ids)
                    )
                report.write_text(f"figures/{stem}.csv", figures.table(panels, x))
                observer.progress(done, {})
            for note in notes:
                observer.note(note)
        finally:
            observer.finish()
        content = contents(groups, evaluations, numpy_generator(seed, "table"))
        report.write_json("report.json", {**asked.facts, "notes": notes, **content})
        report.write_text("table.md", tables.markdown(content, notes))
        counters = {"runs": len(agents), "evaluations": len(evaluations), "figures": len(drawings)}
        report.finish("complete", counters=counters, notes=notes)
    return StageResult.complete(
        out,
        "report",
        {
            **counters,
            "figure_files": [str(out / "figures" / f"{stem}.png") for stem, *_ in drawings],
            "table": str(out / "table.md"),
            "notes": notes,
        },
    )


def asked_for(
    agents: Sequence[TrainingRun], evaluations: Sequence[EvaluationRun], seed: int, x: XAxis
) -> Asked:
    """The report on these runs as they are now; of one under way the rows tell more than its manifest."""
    if len(agents) + len(evaluations) > MAX_ENTRIES:
        raise UsageError(f"{len(agents) + len(evaluations):,} runs: at most {MAX_ENTRIES:,} make a report")
    rows = sum(len(run.train) + len(run.evaluation) for run in agents)
    inputs = [*(run.as_input for run in agents), *(run.as_input for run in evaluations)]
    return Asked("report", seed, None, inputs, {"x": x, "rows": rows})


_Drawing = tuple[str, str, int, list[Panel]]
"""Stem of its files, title, columns, panels."""


def _drawings(groups: Sequence[Group], quantity: Quantity, x: XAxis, seed: int) -> Iterator[_Drawing]:
    """The figures of one quantity; none where no run has it."""
    styles = {label: style for style, label in enumerate(sorted({group.label for group in groups}))}
    tasks = list(dict.fromkeys(group.task for group in groups))

    def panel(task: Task, column: str, title: str, subtitle: str, y_label: str) -> Panel | None:
        lines = [
            line
            for member in groups
            if member.task == task and (line := _line(member, column, x, styles[member.label], seed))
        ]
        if not lines:
            return None
        y_range = (0.0, 1.0) if column == "win_rate" else None
        decades = quantity == "losses"
        return Panel(task.name, task.protocol, column, title, subtitle, y_label, lines, y_range, decades)

    if quantity != "losses":
        y_label = TITLES[quantity]
        drawn = [panel(task, quantity, task.name, task.protocol, y_label) for task in tasks]
        if panels := [panel for panel in drawn if panel]:
            yield quantity, "", 3, panels
        return
    for index, task in enumerate(tasks, start=1):
        rows = [
            row for member in groups if member.task == task for run in member.runs for row in run.train[:1]
        ]
        names = dict.fromkeys(
            name for row in rows for name in row if name == "loss" or name.startswith("loss_")
        )
        drawn = [
            panel(task, name, "total" if name == "loss" else name.removeprefix("loss_"), "", "Loss")
            for name in names
        ]
        if panels := [panel for panel in drawn if panel]:
            slug = re.sub(r"[^A-Za-z0-9]+", "-", f"{task.name} {task.protocol}")[:40].strip("-")
            stem = "losses" if len(tasks) == 1 else f"losses-{index}-{slug}"
            yield stem, f"{task.name} · {task.protocol}", 3, panels


def _line(member: Group, column: str, x: XAxis, style: int, seed: int) -> Line | None:
    """One recipe in one panel; None where none of its runs has the column."""
    stream = "evaluation" if column in TITLES else "train"
    drawn = [(run, curve) for run in member.runs if (curve := run.curve(stream, x, column))]
    if not drawn:
        return None
    curves = [curve for _, curve in drawn]
    first = member.runs[0]
    period = float(first.evaluation_period if stream == "evaluation" else first.log_period)
    generator = numpy_generator(
        seed, f"band/{member.task.name}/{member.task.protocol}/{member.label}/{column}"
    )
    centre = aggregate(curves, period if x == "env_steps" else None, generator)
    return Line(member.label, style, curves, centre, sum(run.status == "failed" for run, _ in drawn))


def _notes(groups: Sequence[Group], evaluations: Sequence[EvaluationRun]) -> Iterator[str]:
    """What a reader must know before comparing anything."""
    runs = [run for member in groups for run in member.runs]
    for member in groups:
        if failed := member.failed:
            names = ", ".join(f"{run.id} at {run.reached('env_steps'):,.0f} env steps" for run in failed)
            yield (
                f"{member.task.name}: {member.label}: {len(failed)} of {len(member.runs)} seeds failed "
                f"({names}); drawn to the last row of each, whose last evaluation counts as final"
            )
    if unfinished := [run for run in runs if run.status not in ("complete", "failed")]:
        names = ", ".join(f"{run.id} ({run.status})" for run in unfinished)
        yield f"{len(unfinished)} of {len(runs)} runs are not complete: {names}"
    for run in runs:
        yield from (f"{run.id}: {note.splitlines()[0]}" for note in run.notes if note)
        if "evaluation_episodes" in run.evaluation[-1] and run.evaluation[-1].get("episode_return") is None:
            yield f"{run.id}: its last evaluation has no return; the one before counts as final"
    if any("world-model" in run.input_roles for run in runs):
        yield "env steps do not count those of pre-training (recipes that start from world-model)"
    tasks = {run.task for run in runs} | {run.task for run in evaluations}
    if len({task.protocol for task in tasks}) > 1:
        protocols = "; ".join(sorted(f"{task.name}: {task.protocol}" for task in tasks))
        yield f"different protocols, drawn apart and not comparable: {protocols}"
    for task in dict.fromkeys(member.task for member in groups):
        of_task = [run for run in runs if run.task == task]
        where = f"{task.name} ({task.protocol})"
        reached = [run.reached("env_steps") for run in of_task]
        if max(reached) - min(reached) > SAME_LENGTH * max(reached):
            yield (
                f"{where}: runs of different length, {min(reached):,.0f} to {max(reached):,.0f} env steps; "
                "compare curves, not their final, best and area"
            )
        episodes = {str(run.evaluation[-1].get("evaluation_episodes")) for run in of_task}
        if len(episodes) > 1:
            yield f"{where}: evaluations of different size, {' and '.join(sorted(episodes))} episodes"
    for member in groups:
        if len(member.runs) == 1:
            yield f"{member.task.name}: {member.label}: a single seed says nothing about other seeds"
        curves = [run.curve("evaluation", "env_steps", "episode_return") for run in member.runs]
        if max(c.x[0] for c in curves if c) > min(c.x[-1] for c in curves if c):
            yield f"{member.task.name}: {member.label}: its runs share no range of env steps: no IQM drawn"
