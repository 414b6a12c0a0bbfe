"""`marl-sale plot`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._console import deliver, observing
from ._errors import translated
from ._options import (
    Debug,
    DryRun,
    Json,
    Out,
    Quiet,
    Seed,
    command_line,
    given_path,
)


@translated
def plot(
    runs: Annotated[
        list[Path],
        typer.Argument(
            parser=given_path,
            metavar="RUN...",
            help="Agent and evaluation artifacts, or folders that hold some at any depth.",
            show_default=False,
        ),
    ],
    x: Annotated[
        Literal["env_steps", "seconds"],
        typer.Option("--x", metavar="env_steps|seconds", help="What the curves are drawn over."),
    ] = "env_steps",
    out: Out = None,
    seed: Seed = 0,
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Draw the learning curves of runs.

    One line per recipe: the interquartile mean over its seeds, with a bootstrap band. Seeds that failed
    are drawn to their last row, and counted. In folders, evaluations that are not finished are left out.

    Reads: agent artifacts, and evaluation artifacts for the final table.

    Writes: a report artifact with each figure as PNG, SVG and the CSV behind it, and a final table; by
    default in results/plots/.

    Example: marl-sale plot agent --out figures
    """
    from marl_sale.stages import folders, plan
    from marl_sale.stages import plot as stage

    found, below = folders.runs_below(runs)
    folder = out or folders.default_plot_out(found, x, seed)
    if dry_run:
        deliver(plan.plot(found, folder, seed=seed, x=x, below=below), as_json=as_json, quiet=quiet)
        return
    with observing(folder, quiet=quiet) as observer:
        result = stage.run(
            found, folder, seed=seed, observer=observer, command=command_line(), x=x, below=below
        )
    deliver(result, as_json=as_json, quiet=quiet)
