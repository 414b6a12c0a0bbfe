"""Metrics for TensorBoard, an extra; the artifact's own metrics stay the record."""

from collections.abc import Mapping
from pathlib import Path

from marl_sale.errors import UsageError

try:
    from torch.utils.tensorboard import SummaryWriter
except ImportError:
    raise UsageError(
        "--tensorboard: TensorBoard is not installed", "Install it with: pip install 'marl-sale[tensorboard]'"
    ) from None

_STEPS = ("env_steps", "updates", "epoch")
"""Columns that can be the x axis, best first."""


class Scalars:
    """An observer that writes every metrics row as scalars.

    The writer opens at the first row, since the stage must find its folder empty; what an interrupted run
    wrote after the checkpoint it resumes from is then hidden by TensorBoard. Each row is flushed, so that the
    file no longer changes once the stage has hashed it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._writer: SummaryWriter | None = None

    def start(self, stage: str, total: int, unit: str) -> None: ...
    def progress(self, done: int, figures: Mapping[str, float]) -> None: ...
    def note(self, text: str) -> None: ...

    def row(self, stream: str, values: Mapping[str, float | None]) -> None:
        axis = next((name for name in _STEPS if values.get(name) is not None), None)
        step = int(values[axis] or 0) if axis else 0
        if self._writer is None:
            self._writer = SummaryWriter(str(self._folder), purge_step=step)
        for name, value in values.items():
            if value is not None and name != axis:
                self._writer.add_scalar(f"{stream}/{name}", value, step)
        self._writer.flush()

    def finish(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._writer = None
