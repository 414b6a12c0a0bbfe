"""`marl-sale pretrain-wm`."""

from pathlib import Path
from typing import Annotated

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
def pretrain_wm(
    recipe: RecipeName,
    policy: Annotated[
        Path | None,
        typer.Option(
            "--policy",
            parser=given_path,
            metavar="AGENT",
            help="Gather the episodes with this agent instead of at random.",
        ),
    ] = None,
    dataset: Annotated[
        Path | None,
        typer.Option(
            "--dataset",
            parser=given_path,
            metavar="ARTIFACT",
            help="Fit to a stored dataset instead of gathering episodes.",
        ),
    ] = None,
    save_dataset: Annotated[
        Path | None,
        typer.Option(
            "--save-dataset",
            parser=given_path,
            metavar="DIR",
            help="Also keep the gathered episodes, as a dataset artifact.",
        ),
    ] = None,
    expect_sha256: ExpectSha256 = None,
    resume: Resume = False,
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
    """Pre-train a world model.

    Gathers episodes and fits the world model and the embeddings to them.

    Reads: a recipe; with --policy an agent artifact, with --dataset a dataset artifact of the same task; with
    --resume the unfinished world-model artifact in the output folder.

    Writes: a world-model artifact, for `marl-sale train --world-model`, with its errors on held-out episodes
    in report.json; by default in results/RECIPE/pretrain-wm/.

    Example: marl-sale pretrain-wm tiny/match+tiny --out wm
    """
    from marl_sale.artifacts.reader import require_digest
    from marl_sale.errors import UsageError
    from marl_sale.stages import folders, plan
    from marl_sale.stages import pretrain_wm as stage

    if expect_sha256 is not None:
        read = policy or dataset
        if read is None:
            raise UsageError("--expect-sha256 says which --policy or --dataset is meant, and none is named")
        require_digest(read, expect_sha256)
    resolved = resolve(recipe, overrides, quiet=quiet)
    folder = out or folders.default_out(resolved, "pretrain-wm", seed)
    if dry_run:
        planned = plan.pretrain_wm(
            resolved,
            folder,
            seed=seed,
            device=device,
            policy=policy,
            dataset=dataset,
            save_dataset=save_dataset,
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
            policy=policy,
            dataset=dataset,
            save_dataset=save_dataset,
            resume=resume,
            allow_overcommit=allow_overcommit,
        )
    deliver(result, as_json=as_json, quiet=quiet)
