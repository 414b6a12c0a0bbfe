"""Fitting a pre-training to a fixed set of episodes, some of them held out, and judging what came of it."""

import copy
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

import torch
from torch import Tensor

from marl_sale.algorithms.pretraining import Part, Pretraining
from marl_sale.analysis.world_model_report import averaged, open_loop_errors
from marl_sale.artifacts.store import Run
from marl_sale.artifacts.writer import CheckpointWriter
from marl_sale.data.batch import Batch
from marl_sale.data.replay import Replay
from marl_sale.observer import Observer
from marl_sale.seeding import torch_generator
from marl_sale.stages._learner import below, learner_tensors, load_learner
from marl_sale.stages._readable import require_rows

CHUNKS_PER_PASS = 64
"""Chunks of episodes (whole ones, where the recipe has no chunks) of one pass without gradient; bounds the
memory, not the result."""


@dataclass
class Split:
    """Whole episodes, some to fit and some held out; read in chunks, so that long ones need little memory."""

    replay: Replay
    fit: Tensor
    held_out: Tensor
    chunk_length: int
    burn_in: int

    def chunks(self, episodes: Tensor) -> Tensor:
        """Of some of the episodes: what `pack` takes."""
        return self.replay.chunks_of(episodes, self.chunk_length)

    def pack(self, chunks: Tensor, device: torch.device) -> Batch:
        place, start, stop = chunks.unbind(1)
        burn_in = self.burn_in if self.chunk_length else 0
        return self.replay.pack_chunks(place, start, stop, burn_in).to(device)

    def passes(self, episodes: Tensor, device: torch.device) -> Iterator[Batch]:
        """All steps of some of the episodes, a few chunks at a time."""
        return (self.pack(part, device) for part in self.chunks(episodes).split(CHUNKS_PER_PASS))


def split_episodes(
    replay: Replay, holdout: float, generator: torch.Generator, chunk_length: int = 0, burn_in: int = 0
) -> Split:
    """At least one episode on either side."""
    order = torch.randperm(len(replay), generator=generator)
    count = min(max(1, round(holdout * len(replay))), len(replay) - 1)
    return Split(replay, order[count:], order[:count], chunk_length, burn_in)


@torch.no_grad()
def held_out_losses(fit: Pretraining, batches: list[Batch]) -> dict[str, float]:
    """Each loss, averaged over held-out batches by their chunks; the latent noise is the same each time."""
    state = fit.mmsa.noise_generator.get_state()
    fit.mmsa.noise_generator.manual_seed(0)
    sums: dict[str, float] = {}
    episodes = sum(batch.n_episodes for batch in batches)
    for batch in batches:
        for name, value in fit.losses(batch).items():
            sums[name] = sums.get(name, 0.0) + float(value) * batch.n_episodes / episodes
    fit.mmsa.noise_generator.set_state(state)
    return sums


@dataclass
class Fitted:
    """How far the fit of one part is, and what its best epoch so far reached."""

    epochs: int = 0
    best_epoch: int = 0
    heldout_loss: float = 0.0
    heldout_losses: dict[str, float] = field(default_factory=dict)

    def improves(self, loss: float, min_improvement: float) -> bool:
        return self.epochs == 1 or loss < self.heldout_loss * (1 - min_improvement)

    def on_plateau(self, patience_epochs: int) -> bool:
        return self.epochs - self.best_epoch >= patience_epochs


def columns(fit: Pretraining) -> list[str]:
    """Of metrics/pretrain.jsonl."""
    core = ("core",) if "core" in fit.parts else ()
    names = (*core, *fit.mmsa.representation_loss_names)
    losses = [f"{kind}_{name}" for name in names for kind in ("train", "heldout")]
    return ["epoch", "updates", "seconds", *losses]


def require_readable(fit: Pretraining) -> None:
    """UsageError where there may be more epochs than could be read again."""
    epochs = fit.config.pretrain.max_epochs
    require_rows(f"pretrain.max_epochs={epochs}", len(fit.parts) * epochs, columns(fit))


class Fitting:
    """Fits each part of a pre-training until its held-out loss stops falling, and logs every epoch."""

    def __init__(self, fit: Pretraining, data: Split, written: Run, observer: Observer, seed: int) -> None:
        self.fit, self.data, self.observer = fit, data, observer
        self.seed, self.generator = seed, torch.Generator()
        self.parts: dict[Part, Fitted] = {}
        self.best: dict[str, Tensor] = {}
        self.started = perf_counter()
        self.device = fit.agent.core.input.bias.device
        self.held_out = list(data.passes(data.held_out, self.device))
        self.rows = written.metrics("pretrain", columns(fit))

    @property
    def epochs(self) -> int:
        """Of all parts."""
        return sum(fitted.epochs for fitted in self.parts.values())

    def figures(self) -> dict[str, Any]:
        """What each part reached, and the held-out losses of the weights that were kept."""
        patience = self.fit.config.pretrain.patience_epochs
        parts = {
            part: {**asdict(fitted), "stopped_on_plateau": fitted.on_plateau(patience)}
            for part, fitted in self.parts.items()
        }
        losses = {name: value for part in self.parts.values() for name, value in part.heldout_losses.items()}
        return {
            "parts": parts,
            "epochs": self.epochs,
            "updates": self.fit.updates,
            "seconds": perf_counter() - self.started,
            "heldout_losses": losses,
        }

    def run(self) -> Iterator[bool]:
        """All parts, from the one last begun. Yields after each epoch whether its part is done."""
        for part in self.fit.parts[max(0, len(self.parts) - 1) :]:
            yield from self.until_plateau(part)

    def until_plateau(self, part: Part) -> Iterator[bool]:
        """Epochs until the held-out loss has not improved for `patience_epochs`; keeps the best weights."""
        fit, settings = self.fit, self.fit.config.pretrain
        fit.part = part
        if part not in self.parts:
            self.parts[part] = Fitted()
            self.generator = torch_generator(self.seed, f"pretraining batches ({part})")
        fitted = self.parts[part]
        self.observer.start(f"pretrain-wm ({part})", settings.max_epochs, "epochs")

        def ended() -> bool:
            plateau = fitted.epochs > 0 and fitted.on_plateau(settings.patience_epochs)
            return plateau or fitted.epochs == settings.max_epochs

        while not ended():
            trained, found = self._pass(), held_out_losses(fit, self.held_out)
            fitted.epochs += 1
            self._log(trained, found)
            total = sum(getattr(fit.config.loss_weights, name) * value for name, value in found.items())
            self.observer.progress(fitted.epochs, {"heldout_loss": total})
            if fitted.improves(total, settings.min_improvement):
                fitted.best_epoch, fitted.heldout_loss, fitted.heldout_losses = fitted.epochs, total, found
                self.best = copy.deepcopy(fit.state_dict())
            yield ended()
        fit.load_state_dict(self.best)

    def save(self, writer: CheckpointWriter) -> dict[str, Any]:
        """Write the tensors of a checkpoint; returns what `load` needs besides."""
        best = {f"best.{name}": value for name, value in self.best.items()}
        writer.write_tensors("fit", {**learner_tensors(self.fit, self._generators()), **best})
        return {
            "parts": {part: asdict(fitted) for part, fitted in self.parts.items()},
            "updates": self.fit.updates,
            "seconds": perf_counter() - self.started,
        }

    def load(self, tensors: dict[str, Tensor], state: dict[str, Any]) -> None:
        """Go on from a checkpoint."""
        load_learner(tensors, self.fit, self._generators())
        self.best = below("best.", tensors)
        self.parts = {
            part: Fitted(**state["parts"][part]) for part in self.fit.parts if part in state["parts"]
        }
        self.fit.updates = state["updates"]
        self.started -= state["seconds"]

    def _generators(self) -> dict[str, torch.Generator]:
        return {"batches": self.generator, **self.fit.generators()}

    def _pass(self) -> dict[str, float]:
        """One update on every batch of the episodes to fit; mean of each loss over episodes or chunks."""
        chunks = self.data.chunks(self.data.fit)
        order = chunks[torch.randperm(len(chunks), generator=self.generator)]
        sums = dict.fromkeys(self.fit.loss_names, 0.0)
        for part in order.split(self.fit.config.replay.batch_episodes):
            figures = self.fit.update(self.data.pack(part, self.device))
            for name in sums:
                sums[name] += float(figures[f"loss_{name}"]) * len(part) / len(order)
        return sums

    def _log(self, trained: dict[str, float], held_out: dict[str, float]) -> None:
        """A row of the metrics; losses of the other part are null."""
        row: dict[str, float | None] = dict.fromkeys(self.rows.columns)
        row |= {"epoch": self.epochs, "updates": self.fit.updates, "seconds": perf_counter() - self.started}
        row |= {f"train_{name}": value for name, value in trained.items()}
        row |= {f"heldout_{name}": value for name, value in held_out.items()}
        self.rows.append(row)
        self.observer.row("pretrain", row)


@torch.no_grad()
def report(fit: Pretraining, data: Split) -> dict[str, Any]:
    """Open-loop errors on held-out episodes, against trivial predictors fitted on the others.

    Predictions do not reach beyond the chunk they start in.
    """
    device, model = fit.agent.core.input.bias.device, fit.mmsa.world_model
    if model is None:
        return {"open_loop": []}
    sums, rows = torch.zeros(fit.spec.n_agents, fit.config.agent.hidden_size, device=device), 0
    for batch in data.passes(data.fit, device):
        h = fit.unroll(batch)
        sums, rows = sums + h.sum(0), rows + len(h)
    depth = max(1, fit.mmsa.imagination_length)
    errors = [
        open_loop_errors(model, fit.agent, batch, fit.unroll(batch), sums / rows, depth)
        for batch in data.passes(data.held_out, device)
    ]
    return {"open_loop": [error.to_json() for error in averaged(errors)]}


def summary(figures: Mapping[str, Any]) -> dict[str, Any]:
    """What tells a good fit from a bad one; report.json has all the rest."""
    shown = {
        name: figures[name] for name in ("episodes", "heldout_episodes", "env_steps", "updates", "seconds")
    }
    for part, fitted in figures["parts"].items():
        end = "no longer improves" if fitted["stopped_on_plateau"] else "still improved"
        epochs = f"after epoch {fitted['best_epoch']} of {fitted['epochs']}; {end}"
        shown[f"heldout_loss ({part})"] = f"{fitted['heldout_loss']:.4g} {epochs}"
    for ahead in figures["open_loop"]:
        baselines = f"(repeat last: {ahead['repeat_last']:.4g}, mean: {ahead['mean']:.4g})"
        shown[f"error {ahead['steps']} ahead"] = f"{ahead['error']:.4g} {baselines}"
    return shown
