"""`marl-sale sweep`."""

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from ._console import complain, table
from ._errors import translated
from ._options import (
    Debug,
    Device,
    DryRun,
    Json,
    Quiet,
    given_path,
)

if TYPE_CHECKING:
    from marl_sale.artifacts.sweep import Sweep
    from marl_sale.sweeps.engines import Engine
    from marl_sale.sweeps.run import Status


@translated
def sweep(
    recipes: Annotated[
        list[str],
        typer.Argument(metavar="RECIPE...", show_default=False, help="Recipes, each as `train` takes it."),
    ],
    seeds: Annotated[
        str, typer.Option("--seeds", metavar="LIST", help="Seeds and ranges of seeds, e.g. 0-4,7.")
    ] = "0",
    changes: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="KEY=VALUE,VALUE",
            help="Try each of these values of a key; one that holds a comma stands in quotes. Repeatable.",
        ),
    ] = None,
    pretrain: Annotated[
        bool, typer.Option("--pretrain", help="Pre-train a world model in each cell that has one.")
    ] = False,
    engine: Annotated[
        Literal["local", "slurm", "ray"],
        typer.Option("--engine", metavar="local|slurm|ray", help="Where cells run; docs/sweeps.md."),
    ] = "local",
    max_parallel: Annotated[
        int | None,
        typer.Option(
            "--max-parallel",
            metavar="N",
            min=1,
            show_default=False,
            help="Cells at a time. Default: as many as there are CPUs; on a cluster, as it takes.",
        ),
    ] = None,
    retries: Annotated[
        int,
        typer.Option(
            "--retries", metavar="R", min=0, help="Tries again of a cell that ends without coming further."
        ),
    ] = 2,
    slurm: Annotated[
        list[str] | None,
        typer.Option(
            "--slurm", metavar="OPTION=VALUE", help="An option of sbatch, e.g. partition=gpu. Repeatable."
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            parser=given_path,
            metavar="DIR",
            help="Folder of the sweep; new or empty. Default: below results/sweeps/, named after its cells.",
            show_default=False,
        ),
    ] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Go on with the sweep in the output folder.")
    ] = False,
    device: Device = "auto",
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train every recipe with every seed and every choice of values.

    Each such cell is a `marl-sale train` of its own. What is interrupted is resumed, what fails is tried
    again; a cell is done when its agent is complete and every file is as its manifest says.

    Reads: recipes; with --resume the sweep in the output folder.

    Writes: sweep.json with the command of every cell, and a folder per cell with its agent artifact and the
    output of its commands. Exit code 9 where cells failed, 75 where the sweep was stopped.

    Example: marl-sale sweep tiny/match+tiny --seeds 0-2 --set discount=0.9,0.99 --out sweep --dry-run
    """
    from marl_sale.artifacts.sweep import check_folder, hold
    from marl_sale.errors import UsageError
    from marl_sale.stop import stop_on_signal
    from marl_sale.sweeps import run as loop
    from marl_sale.sweeps.product import make_sweep, seeds_of

    from ._sweep_view import summary, view

    made, folder = make_sweep(recipes, changes or (), seeds_of(seeds), out, pretrain=pretrain, device=device)
    if slurm and engine != "slurm":
        raise UsageError("--slurm is for --engine slurm", "leave it out, or name that engine")
    if pretrain and all(len(cell.steps) == 1 for cell in made.cells):
        raise UsageError("--pretrain: no recipe here has a world model or SALE", "leave it out")
    check_folder(folder, made, resume=resume)
    if dry_run:
        statuses = loop.inspect(made, folder)
        if not quiet:
            complain(f"{folder}: {summary(statuses)}")
        _print(made, folder, statuses, "dry-run", as_json=as_json)
        return
    with hold(folder, made, resume=resume):
        machine = _engine(engine, made, folder, slurm or (), max_parallel)
        try:
            with stop_on_signal() as stop, view(quiet) as show:
                statuses = loop.run(
                    made,
                    folder,
                    machine,
                    parallel=max_parallel or machine.parallel,
                    retries=retries,
                    stopped=lambda: bool(stop),
                    report=show,
                )
        finally:
            machine.close()
    _end(made, folder, statuses, stop.signal, as_json=as_json)


def _engine(name: str, made: "Sweep", folder: Path, slurm: Sequence[str], parallel: int | None) -> "Engine":
    """The engine with room for the largest cell."""
    cpus, gpus = (max(getattr(cell, what) for cell in made.cells) for what in ("cpus", "gpus"))
    match name:
        case "slurm":
            from marl_sale.sweeps.on_slurm import Slurm, sbatch_options

            return Slurm(folder / "slurm", sbatch_options(slurm), cpus=cpus, gpus=gpus)
        case "ray":
            from marl_sale.sweeps.on_ray import Ray

            return Ray(cpus=cpus, gpus=gpus, parallel=parallel)
        case _:
            from marl_sale.sweeps.engines import Local

            return Local(cpus)


def _end(
    made: "Sweep", folder: Path, statuses: Sequence["Status"], signal: str | None, *, as_json: bool
) -> None:
    """The result on stdout, what failed on stderr, and the error that the whole amounts to."""
    from marl_sale.errors import StoppedError, SweepError

    done = sum(status.state == "done" for status in statuses)
    failed = [status for status in statuses if status.state == "failed"]
    ended = "complete" if done == len(statuses) else "interrupted" if signal else "failed"
    if failed:
        rows = [(status.cell.name, status.tries, status.error) for status in failed]
        complain(table(rows, heading=("failed", "tries", "last error")))
    if as_json or ended == "complete":
        _print(made, folder, statuses, ended, as_json=as_json)
    what = f"{folder}: {done} of {len(statuses)} cells are done"
    if ended == "interrupted":
        raise StoppedError(f"{what}; stopped by {signal}", "continue with the same command and --resume")
    if ended == "failed":
        raise SweepError(
            f"{what}, {len(failed)} failed",
            "the output of each is in its folder; put right what ended it, then repeat with --resume",
        )


def _print(made: "Sweep", folder: Path, statuses: Sequence["Status"], status: str, *, as_json: bool) -> None:
    """The result: one JSON object; without --json the folder, or of a dry run every command."""
    from marl_sale.sweeps.state import digest

    if as_json:
        cells = [
            {
                "name": each.cell.name,
                "recipe": each.cell.recipe,
                "overrides": list(each.cell.overrides),
                "seed": each.cell.seed,
                "fingerprint": each.cell.fingerprint,
                "state": each.state,
                "artifact": str(folder / each.cell.steps[-1].out),
                "manifest_sha256": digest(folder / each.cell.steps[-1].out) if each.state == "done" else None,
                "tries": each.tries,
                "error": each.error or None,
                "commands": [list(step.argv) for step in each.cell.steps],
            }
            for each in statuses
        ]
        typer.echo(json.dumps({"sweep": str(folder), "id": made.id, "status": status, "cells": cells}))
    elif status == "dry-run":
        for each in statuses:
            for step in each.cell.steps:
                typer.echo(shlex.join(step.argv))
    else:
        typer.echo(str(folder))
