"""When numbers go wrong: which updates may be left out, and what is kept of the one that ends a run.

An update whose gradient is not finite touches no weight. A few may happen; where they come in a row, or too
often, training goes back to its last checkpoint with half the learning rate and other batches. When that has
not helped twice, the run ends and leaves a bundle from which that update can be repeated.
"""

from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from marl_sale.algorithms._load import build
from marl_sale.algorithms.qmix import Qmix
from marl_sale.artifacts.reader import Artifact
from marl_sale.artifacts.store import Run
from marl_sale.data.batch import Batch
from marl_sale.errors import ArtifactError, DivergedError, NotFiniteError
from marl_sale.stages._artifacts import recipe_of, spec_of

MOST_ROLLBACKS = 2
RATE_AFTER_ROLLBACK = 0.5
"""Factor of the learning rate after each return to a checkpoint."""
_IN_A_ROW, _WINDOW, _IN_WINDOW = 3, 1000, 10
_BUNDLE = "diverged"
_AS_BITS = {torch.float32: torch.int32, torch.float16: torch.int16, torch.float64: torch.int64}


@dataclass
class Guard:
    """Which of the last updates were left out."""

    skipped: list[int] = field(default_factory=list)

    def too_many(self, update: int) -> bool:
        """Note that `update` was left out; True after more than 3 in a row or 10 of the last 1,000."""
        self.skipped = [number for number in self.skipped if number > update - _WINDOW] + [update]
        in_a_row = self.skipped[-_IN_A_ROW - 1 :] == list(range(update - _IN_A_ROW, update + 1))
        return in_a_row or len(self.skipped) > _IN_WINDOW


class TooManySkippedError(DivergedError):
    """Training cannot go on from here; carries what the last update left out was made of."""

    def __init__(self, cause: NotFiniteError, batch: Batch, noise: dict[str, Tensor], rollbacks: int) -> None:
        super().__init__(cause.what, cause.hint)
        self.first, self.batch, self.noise, self.rollbacks = cause.first, batch, noise, rollbacks
        self.can_go_back = False


def noise_state(algorithm: Qmix) -> dict[str, Tensor]:
    """Where the generators of updates stand."""
    return {name: generator.get_state() for name, generator in algorithm.generators().items()}


def keep(written: Run, algorithm: Qmix, error: TooManySkippedError) -> None:
    """Write the bundle: weights, batch, and the noise of the update, floats as their bits (NaN included)."""
    tensors = {f"learner.{name}": value for name, value in algorithm.state_dict().items()}
    tensors |= {f"batch.{name}": value for name, value in error.batch.tensors().items()}
    tensors |= {f"noise.{name}": state for name, state in error.noise.items()}
    bits = {name: value.cpu().view(_AS_BITS.get(value.dtype, value.dtype)) for name, value in tensors.items()}
    written.write_tensors(f"{_BUNDLE}/update", bits)
    about = {"updates": algorithm.updates, "first_not_finite": error.first, "what": error.what}
    written.write_json(f"{_BUNDLE}/update", about)


def repeat(path: Path) -> NotFiniteError:
    """Repeat, on the CPU, the update that ended the run in `path`; returns what it raised.

    Raises ArtifactError where that run left no bundle, or the update works here.
    """
    artifact = Artifact.open(path, kind="agent", status=("failed", "interrupted", "complete"))
    if f"{_BUNDLE}/update.safetensors" not in artifact.manifest.files:
        raise ArtifactError(f"{path}: did not diverge: there is no {_BUNDLE}/update.safetensors in it")
    algorithm = build(recipe_of(artifact).config, spec_of(artifact))
    number = artifact.json(f"{_BUNDLE}/update").get("updates")
    algorithm.updates = number if isinstance(number, int) else 0
    stored = artifact.tensors(f"{_BUNDLE}/update")

    def part(prefix: str, like: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: stored[f"{prefix}.{name}"].view(value.dtype) for name, value in like.items()}

    algorithm.load_state_dict(part("learner", algorithm.state_dict()))
    for name, generator in algorithm.generators().items():
        generator.set_state(stored[f"noise.{name}"])
    batch = {
        name.removeprefix("batch."): value.view(torch.float32) if value.dtype == torch.int32 else value
        for name, value in stored.items()
        if name.startswith("batch.")
    }
    try:
        algorithm.update(Batch.of(batch))
    except NotFiniteError as error:
        return error
    raise ArtifactError(f"{path}: the update that ended the run works here", "another machine, or version")
