"""The command line of marl-sale: `marl-sale --help`.

Commands parse, call a stage and print. Everything heavy is imported inside them, so that help is instant.
"""

from typing import Annotated

import typer

from marl_sale import __version__

from . import doctor, evaluate, plot, pretrain_wm, recipes, runs, sweep, train

app = typer.Typer(
    name="marl-sale",
    no_args_is_help=True,
    add_completion=False,
    # Plain help: a third faster than Rich's panels, and brackets in the texts stay brackets.
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    pretty_exceptions_show_locals=False,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"marl-sale {__version__}")
        raise typer.Exit


@app.callback()
def root(
    version: Annotated[
        bool, typer.Option("--version", is_eager=True, callback=_version, help="Print the version and exit.")
    ] = False,
) -> None:
    """Multi-agent model-based reinforcement learning with state-action learned embeddings.

    The pipeline: pretrain-wm, train, eval, plot. Each writes an artifact, a folder that says what it is and
    from what it was made, and prints its path; the next command takes it from there.

    Results go to stdout, everything else to stderr. Exit codes: 0 done, 1 bug, 2 usage or recipe, 3 artifact
    missing, damaged or incompatible, 4 output folder not empty, 5 not enough memory or disk, 6 diverged,
    7 environment missing or faulting, 8 disk full, 9 cells of a sweep failed, 75 stopped but resumable,
    130 interrupted.
    """


app.command("pretrain-wm")(pretrain_wm.pretrain_wm)
app.command("train")(train.train)
app.command("eval")(evaluate.evaluate)
app.command("plot")(plot.plot)
app.command("sweep")(sweep.sweep)
app.command("doctor")(doctor.doctor)
app.add_typer(recipes.app, name="recipes")
app.add_typer(runs.app, name="runs")


def main() -> None:
    """Entry point of the `marl-sale` command."""
    app()
