"""`marl-sale doctor`: what environments need, what of it is here, what to type where it is not."""

import json
from typing import Annotated

import typer

from marl_sale.errors import EnvironmentFault

from ._console import complain, table
from ._errors import translated
from ._options import Debug, Json


@translated
def doctor(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="[FAMILY]...", show_default=False, help="Environment families; default: all."),
    ] = None,
    smoke: Annotated[
        bool, typer.Option("--smoke", help="Also train for seconds in each family that lacks nothing.")
    ] = False,
    as_json: Json = False,
    debug: Debug = False,
) -> None:
    """Say what environments need, what of it is here, and what to type where it is not.

    Reads: the installed packages, games and libraries. Writes: nothing. Exit code 7 when a family that was
    named lacks something it needs; what it only likes to have (pictures, say) is optional.

    Example: marl-sale doctor tiny --smoke
    """
    from marl_sale.stages import doctor as stage

    diagnoses = stage.run(names or (), smoke=smoke)
    if as_json:
        found = {"machine": stage.machine(), "families": [diagnosis.to_json() for diagnosis in diagnoses]}
        typer.echo(json.dumps(found))
    else:
        typer.echo("  ".join(f"{name} {value}" for name, value in stage.machine().items()))
        rows = []
        for diagnosis in diagnoses:
            rows.append((diagnosis.family, "ok" if diagnosis.ok else "MISSING", "", ""))
            for f in diagnosis.findings:
                state = "ok" if f.ok else "missing" if f.needed else "optional"
                rows.append((f"  {f.what}", state, f.found, "" if f.ok else f.fix))
        typer.echo(table(rows, heading=("what", "state", "found", "fix")))
    lacking = [diagnosis.family for diagnosis in diagnoses if not diagnosis.ok]
    if lacking and not names:
        complain(
            f"not ready: {', '.join(lacking)}. It is a failure (exit code 7) only of families that you name: "
            f"marl-sale doctor {lacking[0]}"
        )
    elif lacking:
        raise EnvironmentFault(
            f"not ready: {', '.join(lacking)}", "what is missing stands above, with what to type"
        )
