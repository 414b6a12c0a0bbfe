"""`marl-sale recipes`: what can be run, and with which settings."""

import json
from itertools import groupby
from pathlib import Path
from typing import Annotated

import typer

from marl_sale import __version__
from marl_sale.errors import ConfigError, UsageError

from ._console import complain, table
from ._errors import translated
from ._options import Debug, Json, Overrides

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List, read, copy, compare and check recipes.\n\n"
    "A recipe says everything that decides a result, except the seed. Overlays change parts of it and are "
    "joined with +, as in lbf/8x8-2p-2f-coop+qmix.",
)

Name = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", show_default=False, help="Recipe or overlay, names joined by +, or a .yaml file."
    ),
]


@app.command("ls")
@translated
def ls(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[WORD]...",
            show_default=False,
            help="Only what has all these words in its name; default: everything.",
        ),
    ] = None,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """List recipes by family, overlays and ablations.

    Reads: the packaged recipes. Writes: nothing.

    Example: marl-sale recipes ls lbf/ coop
    """
    from marl_sale.config.recipe import list_recipes

    known, wanted = list_recipes(), [word.lower() for word in words or ()]
    listed = [recipe for recipe in known if all(word in recipe.name.lower() for word in wanted)]
    if not listed:
        families = dict.fromkeys(r.name.partition("/")[0] for r in known if "/" in r.name)
        raise UsageError(
            f"nothing has {' and '.join(words or ())} in its name",
            f"families: {', '.join(families)}; everything: marl-sale recipes ls",
        )
    if as_json:
        typer.echo(json.dumps([recipe._asdict() for recipe in listed]))
        return
    rows = [(r.name if r.kind == "recipe" else f"+{r.name}", r.kind, r.about) for r in listed]
    heading, *lines = table(rows, heading=("name", "kind", "about")).splitlines()
    typer.echo(heading)
    for _, together in groupby(zip(listed, lines, strict=True), key=lambda row: _family(*row[0])):
        typer.echo("\n".join(["", *(line for _, line in together)]))


def _family(name: str, about: str, kind: str) -> str:
    """What is listed together."""
    family, slash, _ = name.partition("/")
    return family if slash else kind


@app.command("cat")
@translated
def cat(
    name: Name,
    resolved: Annotated[
        bool, typer.Option("--resolved", help="Every key with its value, as a run would use it.")
    ] = False,
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Print a recipe; `base` explains every key.

    Reads: a recipe. Writes: nothing. Names joined by +, files and --set print the resolved recipe.

    Example: marl-sale recipes cat base
    """
    typer.echo(_text(name, overrides or [], resolved=resolved), nl=False)


@app.command("cp")
@translated
def cp(
    name: Name,
    file: Annotated[
        Path, typer.Argument(metavar="FILE.yaml", show_default=False, help="Where to; must not exist yet.")
    ],
    debug: Debug = False,
) -> None:
    """Copy a recipe to a file of your own.

    Reads: a recipe. Writes: the file, which every command takes in place of a recipe name.

    Example: marl-sale recipes cp lbf/8x8-2p-2f-coop mine.yaml
    """
    if file.suffix != ".yaml":
        raise UsageError(
            f"{file}: the name of a recipe file ends in .yaml",
            f"Try {file.parent / (file.stem or 'mine')}.yaml",
        )
    header = (
        f"# Copied from {name} of marl-sale {__version__}.\n"
        f"# Check it:  marl-sale recipes validate {file}\n"
        f"# Use it:    marl-sale train {file}    (overlays join as usual: {file}+tiny)\n"
    )
    try:
        content = (header + _text(name, [])).encode()
    except UnicodeEncodeError:
        raise UsageError(f"{str(file)!r}: not UTF-8", "Choose another name.") from None
    try:
        with file.open("xb") as new:
            new.write(content)
    except FileExistsError:
        raise UsageError(f"{file}: exists; it was not touched", "Choose another name.") from None
    except FileNotFoundError:
        raise UsageError(f"{file.parent}: there is no such folder", "Create it first.") from None
    typer.echo(str(file))


@app.command("diff")
@translated
def diff(a: Name, b: Name, as_json: Json = False, debug: Debug = False) -> None:
    """Show the keys in which two recipes differ.

    Reads: two recipes. Writes: nothing.

    Example: marl-sale recipes diff lbf/8x8-2p-2f-coop lbf/8x8-2p-2f-coop+qmix
    """
    from marl_sale.config import recipe

    rows = recipe.diff(recipe.load_recipe(a), recipe.load_recipe(b))
    if as_json:
        typer.echo(json.dumps({key: {"a": left, "b": right} for key, left, right in rows}))
    elif rows:
        shown = [(key, json.dumps(left), json.dumps(right)) for key, left, right in rows]
        typer.echo(table(shown, heading=("key", a, b)))
    else:
        complain("no key differs")


@app.command("validate")
@translated
def validate(
    names: Annotated[
        list[str],
        typer.Argument(
            metavar="RECIPE...", show_default=False, help="Recipes, names joined by +, or .yaml files."
        ),
    ],
    overrides: Overrides = None,
    debug: Debug = False,
) -> None:
    """Check recipes and report every problem at once.

    Reads: recipes. Writes: nothing. The valid ones are listed with their fingerprints.

    Example: marl-sale recipes validate lbf/8x8-2p-2f-coop+no-sale
    """
    from marl_sale.config.recipe import load_recipe

    problems: list[str] = []
    hints: list[str] = []
    for name in names:
        try:
            typer.echo(f"{load_recipe(name, overrides or ()).fingerprint[:8]}  {name}")
        except ConfigError as error:
            problems += error.problems
            hints.append(error.hint)
    if problems:
        raise ConfigError(list(dict.fromkeys(problems)), "; ".join(dict.fromkeys(filter(None, hints))))


def _text(name: str, overrides: list[str], *, resolved: bool = False) -> str:
    """A packaged file as it is; whatever must be put together first, resolved."""
    from marl_sale.config.recipe import load_recipe, recipe_text

    joined = "+" in name[1:] or name.endswith(".yaml")
    return load_recipe(name, overrides).text if resolved or joined or overrides else recipe_text(name)
