"""doctor: what of each environment family is here, what is missing, and whether it trains."""

import os
import platform
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from marl_sale import __version__, kernels
from marl_sale.algorithms._load import build
from marl_sale.config.recipe import list_recipes, load_recipe
from marl_sale.envs._findings import Finding
from marl_sale.envs._load import describe, diagnose, families, require_family
from marl_sale.errors import MarlSaleError, StoppedError
from marl_sale.observer import Silent
from marl_sale.stages import preflight, train

_SHORT = (
    *("agent.hidden_size=16", "mixer.size=8", "mixer.hypernet_size=8", "optimiser.target_update_period=1"),
    *("train.env_steps=1", "train.num_envs=1", "train.updates_per_episode=1.0", "replay.batch_episodes=1"),
    *("replay.capacity_episodes=1", "evaluation.episodes=1", "evaluation.num_envs=1"),
)
"""One episode to learn from and one update, with an evaluation before and after: some seconds."""


@dataclass(frozen=True)
class Diagnosis:
    """All findings of one family."""

    family: str
    findings: tuple[Finding, ...]

    @property
    def ok(self) -> bool:
        return all(finding.ok for finding in self.findings if finding.needed)

    def to_json(self) -> dict[str, Any]:
        return {"family": self.family, "ok": self.ok, "findings": [asdict(f) for f in self.findings]}


def machine() -> dict[str, Any]:
    """What everything runs on."""
    return {
        "marl_sale": __version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "cuda": torch.cuda.is_available(),
        "kernels": kernels.instruction_set(),
        "cpus": os.cpu_count(),
        "memory_bytes": preflight.available_memory(),
    }


def run(names: Sequence[str] = (), *, smoke: bool = False) -> list[Diagnosis]:
    """Findings of the named families, of all without a name. Raises ConfigError for one there is not.

    With `smoke`, each family that lacks nothing trains for some seconds in a temporary folder. Whatever stops
    it is a finding: packages of environments raise all kinds of errors.
    """
    for name in names:
        require_family(name)
    return [Diagnosis(name, tuple(_examine(name, smoke))) for name in names or families()]


def _examine(family: str, smoke: bool) -> Iterator[Finding]:
    found = diagnose(family)
    yield from found
    recipe = next((r.name for r in list_recipes() if r.name.startswith(f"{family}/")), None)
    if recipe is None or not all(finding.ok for finding in found if finding.needed):
        return
    try:
        yield _memory(recipe)
    except MarlSaleError as error:
        yield Finding(f"recipe {recipe}", False, error.what, error.hint)
        return
    if smoke:
        yield _trained(recipe)


def _memory(recipe: str) -> Finding:
    """Whether training on the recipe fits into the memory that is available."""
    config = load_recipe(recipe).config
    needs, memory = preflight.training(build(config, describe(config.env))), preflight.available_memory()
    return Finding(
        f"memory for {recipe}",
        needs.total <= preflight.SHARE * memory,
        f"training takes up to {preflight.size(needs.total)} of {preflight.size(memory)} available",
        needs.advice(memory),
        needed=False,
    )


def _trained(recipe: str) -> Finding:
    """Whether a short training comes to its end; what it says if not."""
    what, started = f"training {recipe}", time.perf_counter()
    try:
        with tempfile.TemporaryDirectory() as folder:
            result = train.run(
                load_recipe(f"{recipe}+tiny+qmix", _SHORT),
                Path(folder) / "agent",
                seed=0,
                device="cpu",
                observer=Silent(),
                command="marl-sale doctor --smoke",
            )
    except StoppedError:
        raise
    except MarlSaleError as error:
        return Finding(what, False, error.what, error.hint)
    except Exception as error:
        again = f"marl-sale train {recipe}+tiny+qmix --debug"
        return Finding(what, False, f"{type(error).__name__}: {error}", f"see where: {again}")
    counters = f"{result.metrics['env_steps']} env steps, {result.metrics['updates']} update"
    return Finding(what, True, f"{counters}, in {time.perf_counter() - started:.1f} s")
