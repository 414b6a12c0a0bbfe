"""`marl-sale train`."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from ._console import deliver, observing
from ._errors import translated
from ._options import (
    AllowOvercommit,
    Debug,
    Device,
    DryRun,
    ExpectSha256,
    Json,
    Out,
    Overrides,
    Quiet,
    RecipeName,
    Resume,
    Seed,
    TensorBoard,
    command_line,
    given_path,
)
from ._recipe import resolve


@translated
def train(
    recipe: RecipeName,
    world_model: Annotated[
        Path | None,
        typer.Option(
            "--world-model",
            parser=given_path,
            metavar="ARTIFACT",
            help="Start from this pre-trained world model.",
        ),
    ] = None,
    expect_sha256: ExpectSha256 = None,
    resume: Resume = False,
    engine: Annotated[
        Literal["local", "ray"],
        typer.Option(
            "--engine", metavar="local|ray", help="Who plays the training episodes; docs/sweeps.md."
        ),
    ] = "local",
    rollout_workers: Annotated[
        int | None,
        typer.Option(
            "--rollout-workers",
            metavar="N",
            min=1,
            help="With --engine ray: so many actors play; no result depends on it. Default: one a CPU; with "
            "RAY_ADDRESS, of a cluster whose size is not known here, one an environment.",
            show_default=False,
        ),
    ] = None,
    sync: Annotated[
        bool,
        typer.Option(
            "--sync/--no-sync",
            help="--no-sync, with --engine ray: play the next round while learning from this one, with the "
            "weights of before.",
        ),
    ] = True,
    out: Out = None,
    seed: Seed = 0,
    device: Device = "auto",
    overrides: Overrides = None,
    as_json: Json = False,
    dry_run: DryRun = False,
    allow_overcommit: AllowOvercommit = False,
    tensorboard: TensorBoard = False,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Train agents.

    Without a pre-trained world model, it is learned jointly from the start. With --resume, --out and
    a larger train.env_steps, a finished agent is trained for longer.

    Reads: a recipe; with --world-model a world-model artifact of the same task; with --resume the agent
    artifact in the output folder.

    Writes: an agent artifact, for `marl-sale eval` and `marl-sale plot`, with its latest and best checkpoints
    and its learning curves; by default in results/RECIPE/train/.

    Example: marl-sale train tiny/match+tiny --world-model wm --out agent
    """
    from marl_sale.artifacts.reader import require_digest
    from marl_sale.errors import UsageError
    from marl_sale.stages import folders, plan
    from marl_sale.stages import train as stage
    from marl_sale.stages.rollouts import rollout_workers as workers_for

    if expect_sha256 is not None:
        if world_model is None:
            raise UsageError("--expect-sha256 says which --world-model is meant, and none is named")
        require_digest(world_model, expect_sha256)
    if engine == "local" and (rollout_workers or not sync):
        raise UsageError(
            "--rollout-workers and --no-sync are for --engine ray", "leave them out, or name that engine"
        )
    resolved = resolve(recipe, overrides, quiet=quiet)
    actors = workers_for(rollout_workers, resolved.config.train.num_envs) if engine == "ray" else 0
    folder = out or folders.default_out(resolved, "train", seed)
    if dry_run:
        planned = plan.train(
            resolved,
            folder,
            seed=seed,
            device=device,
            world_model=world_model,
            resume=resume,
            allow_overcommit=allow_overcommit,
        )
        deliver(planned, as_json=as_json, quiet=quiet)
        return
    with observing(folder, quiet=quiet, tensorboard=tensorboard) as observer:
        result = stage.run(
            resolved,
            folder,
            seed=seed,
            device=device,
            observer=observer,
            command=command_line(),
            world_model=world_model,
            resume=resume,
            allow_overcommit=allow_overcommit,
            actors=actors,
            sync=sync,
        )
    deliver(result, as_json=as_json, quiet=quiet)
