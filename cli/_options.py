"""The arguments and options that commands share, and their common reading."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer


def given_path(text: str) -> Path:
    """A path from the command line. An empty one would be the current folder."""
    if not text:
        raise typer.BadParameter("is empty: the command that should have printed it did not finish.")
    return Path(text)


RecipeName = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE",
        show_default=False,
        help="Recipe name with overlays joined by +, or a path of a .yaml file; see `marl-sale recipes ls`.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set", metavar="KEY=VALUE", help="Change one key of the recipe, e.g. discount=0.95. Repeatable."
    ),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out",
        parser=given_path,
        metavar="DIR",
        help="The artifact folder itself; new or empty. Default: below results/.",
        show_default=False,
    ),
]
Seed = Annotated[
    int,
    typer.Option(  # a manifest holds no larger one
        "--seed", metavar="N", min=0, max=2**63 - 1, help="Seed of everything random."
    ),
]
Device = Annotated[
    Literal["auto", "cpu", "cuda"],
    typer.Option(
        "--device", metavar="auto|cpu|cuda", help="Where to compute; auto: cuda where there is one."
    ),
]
ExpectSha256 = Annotated[
    str | None,
    typer.Option(
        "--expect-sha256",
        metavar="HEX",
        help="Refuse the artifact unless its manifest has this sha256, as printed when it was made.",
        show_default=False,
    ),
]
Resume = Annotated[
    bool,
    typer.Option(
        "--resume", help="Go on with the unfinished run in the output folder, from its last checkpoint."
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout.")]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Check everything, say what would be done, and write nothing.")
]
AllowOvercommit = Annotated[
    bool,
    typer.Option("--allow-overcommit", help="Start even where memory or disk seem too small for the recipe."),
]
TensorBoard = Annotated[
    bool, typer.Option("--tensorboard", help="Also write the metrics to DIR/tensorboard (needs the extra).")
]
Quiet = Annotated[bool, typer.Option("--quiet", help="Nothing on stderr but errors.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]


def command_line() -> str:
    """The command as typed, for the artifact's record."""
    return shlex.join(["marl-sale", *sys.argv[1:]])
