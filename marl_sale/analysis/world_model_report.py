"""How far a world model can be trusted: its open-loop error against predictors that know nothing."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import zip_longest
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from marl_sale.data.batch import Batch
from marl_sale.nn.agent import Agent
from marl_sale.nn.world_model import WorldModel


@dataclass(frozen=True)
class OpenLoopError:
    """Mean squared error of recurrent states predicted `steps` ahead with the actions really taken."""

    steps: int
    error: float
    repeat_last: float
    """Error of predicting that nothing changes."""
    mean: float
    """Error of predicting the mean recurrent state of the training episodes."""
    avail_accuracy: float | None
    """Share of availability bits predicted right; None where the task never masks."""
    count: int

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


@torch.no_grad()
def open_loop_errors(
    world_model: WorldModel,
    agent: Agent,
    batch: Batch,
    h: Float[Tensor, "rows agents hidden"],
    mean_h: Float[Tensor, "agents hidden"],
    depth: int,
) -> list[OpenLoopError]:
    """Errors 1 … `depth` steps ahead, from every row that has that many real steps after it.

    The prior is fed its own means; the first latent is the posterior's mean of the real recurrent state.
    """
    step_after = torch.full((len(h),), -1, device=h.device)
    step_after[batch.now_rows] = torch.arange(len(batch.now_rows), device=h.device)
    start = row = torch.arange(len(h), device=h.device)
    z, imagined_h = world_model.posterior(h).mean, h
    errors = []
    for steps in range(1, depth + 1):
        alive = step_after[row] >= 0
        start, row, z, imagined_h = start[alive], row[alive], z[alive], imagined_h[alive]
        if not len(row):
            break
        actions = batch.actions[step_after[row]]
        row = step_after[row] + batch.n_episodes
        z = world_model.prior(z, actions, agent.z_sa(imagined_h, actions)).mean
        imagined_h = world_model.decode(z)
        logits = world_model.avail_logits(z)
        accuracy = (
            None if logits is None else float(((logits >= 0) == batch.avail_actions[row]).float().mean())
        )
        errors.append(
            OpenLoopError(
                steps,
                error=float((imagined_h - h[row]).square().mean()),
                repeat_last=float((h[start] - h[row]).square().mean()),
                mean=float((mean_h - h[row]).square().mean()),
                avail_accuracy=accuracy,
                count=len(row),
            )
        )
    return errors


def averaged(parts: Sequence[Sequence[OpenLoopError]]) -> list[OpenLoopError]:
    """Errors over several batches, each weighted by its predictions; as far ahead as any batch reaches."""
    averages = []
    for alike in zip_longest(*parts):
        found = [error for error in alike if error is not None]
        count = sum(error.count for error in found)
        means: dict[str, Any] = {
            name: None
            if getattr(found[0], name) is None
            else sum(getattr(error, name) * (error.count / count) for error in found)
            for name in ("error", "repeat_last", "mean", "avail_accuracy")
        }
        averages.append(OpenLoopError(found[0].steps, **means, count=count))
    return averages
