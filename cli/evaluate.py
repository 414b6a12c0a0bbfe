"""`marl-sale eval`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._console import deliver, observing
from ._errors import translated
from ._options import Debug, Device, DryRun, ExpectSha256, Json, Out, Quiet, Seed, command_line
from ._recipe import resolve


def _checkpoint(value: str | None) -> str | None:
    if value is not None and value not in ("latest", "best") and not (value.isdecimal() and len(value) <= 18):
        raise typer.BadParameter(f"{value!r} is neither latest nor best nor a step.")
    return value


def _gif(value: Path | None) -> Path | None:
    if value is not None and value.suffix.lower() != ".gif":
        raise typer.BadParameter(f"only .gif is written; try {value.parent / (value.stem or 'episode')}.gif")
    return value


@translated
def evaluate(
    agent: Annotated[
        str,
        typer.Argument(
            metavar="AGENT",
            help="Agent artifact written by `marl-sale train`; with --random, a recipe.",
            show_default=False,
        ),
    ],
    episodes: Annotated[
        int | None,
        typer.Option(
            "--episodes",
            metavar="N",
            min=1,
            help="Episodes to play. Default: evaluation.episodes of the recipe.",
        ),
    ] = None,
    checkpoint: Annotated[
        str | None,
        typer.Option(
            "--checkpoint",
            callback=_checkpoint,
            metavar="latest|best|STEP",
            help="Which of the agent's checkpoints. Default: latest.",
            show_default=False,
        ),
    ] = None,
    backend: Annotated[
        Literal["native", "original"] | None,
        typer.Option(
            "--backend",
            metavar="native|original",
            help="Play in this backend of the task. Default: that of the agent or the recipe.",
            show_default=False,
        ),
    ] = None,
    render: Annotated[
        Path | None,
        typer.Option(
            "--render",
            callback=_gif,
            metavar="FILE.gif",
            help="Also draw the first episode; needs no display.",
        ),
    ] = None,
    random: Annotated[
        bool,
        typer.Option(
            "--random",
            help="Play random available actions on the task of a recipe. Not with --checkpoint,"
            " --expect-sha256 or --device cuda, which are about an agent.",
        ),
    ] = False,
    expect_sha256: ExpectSha256 = None,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    as_json: Json = False,
    dry_run: DryRun = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Test agents on fixed seeds.

    The episodes are greedy; every figure comes with its interval.

    Reads: an agent artifact; with --random, a recipe, to show what random play achieves.

    Writes: an evaluation artifact with one row per episode in episodes.jsonl; by default in
    results/RECIPE/eval/.

    Example: marl-sale eval agent --episodes 16 --out evaluation
    """
    from marl_sale.artifacts.reader import require_digest
    from marl_sale.errors import UsageError
    from marl_sale.stages import evaluate as stage
    from marl_sale.stages import folders, plan

    if random:
        if expect_sha256 is not None:
            raise UsageError("--expect-sha256 says which agent is meant, and --random plays none")
        if checkpoint is not None:
            raise UsageError("--checkpoint says which weights of an agent play, and --random plays none")
        if device == "cuda":
            raise UsageError("--device cuda is for the network of an agent, and --random plays none")
        recipe = resolve(agent, None if backend is None else [f"env.backend={backend}"], quiet=quiet)
        folder = out or folders.default_random_out(recipe, seed, episodes, backend)
        if dry_run:
            planned = plan.evaluate_random(recipe, folder, seed=seed, episodes=episodes, render=render)
            deliver(planned, as_json=as_json, quiet=quiet)
            return
        with observing(folder, quiet=quiet) as observer:
            result = stage.run_random(
                recipe,
                folder,
                seed=seed,
                observer=observer,
                command=command_line(),
                episodes=episodes,
                render=render,
            )
        deliver(result, as_json=as_json, quiet=quiet)
        return
    if not agent:
        raise UsageError("AGENT is empty: the command that should have printed its path did not finish")
    path = Path(agent)
    if expect_sha256 is not None:
        require_digest(path, expect_sha256)
    artifact, chosen, _ = stage.open_agent(path, checkpoint or "latest", backend)
    step = str(chosen.step)  # by its number from here on: an agent that trains on may save a later one
    folder = out or folders.default_eval_out(artifact, chosen.step, seed, episodes, backend)
    if dry_run:
        planned = plan.evaluate(
            path,
            folder,
            seed=seed,
            device=device,
            episodes=episodes,
            checkpoint=step,
            backend=backend,
            render=render,
        )
        deliver(planned, as_json=as_json, quiet=quiet)
        return
    with observing(folder, quiet=quiet) as observer:
        result = stage.run(
            path,
            folder,
            seed=seed,
            device=device,
            observer=observer,
            command=command_line(),
            episodes=episodes,
            checkpoint=step,
            backend=backend,
            render=render,
        )
    deliver(result, as_json=as_json, quiet=quiet)
