"""What an algorithm needs to go on exactly: weights and buffers, the optimiser's slots, its generators."""

from collections.abc import Mapping

import torch
from torch import Tensor

from marl_sale.algorithms._api import Algorithm

Generators = Mapping[str, torch.Generator]


def learner_tensors(algorithm: Algorithm, generators: Generators) -> dict[str, Tensor]:
    """All of it, as tensors; `load_learner` is the way back."""
    tensors = {f"learner.{name}": value for name, value in algorithm.state_dict().items()}
    for index, slots in algorithm.optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{index}.{name}": value for name, value in slots.items()}
    return tensors | {f"generator.{name}": each.get_state() for name, each in generators.items()}


def load_learner(tensors: Mapping[str, Tensor], algorithm: Algorithm, generators: Generators) -> None:
    """Put an algorithm, built from the same recipe, where another one was.

    Raises RuntimeError, LookupError or ValueError for the tensors of another recipe.
    """
    algorithm.load_state_dict(below("learner.", tensors))
    slots: dict[int, dict[str, Tensor]] = {}
    for name, value in below("optimiser.", tensors).items():
        index, slot = name.split(".", 1)
        slots.setdefault(int(index), {})[slot] = value
    trained = [p for group in algorithm.optimiser.param_groups for p in group["params"]]
    for place, values in slots.items():
        if any(value.dim() and value.shape != trained[place].shape for value in values.values()):
            raise ValueError(f"optimiser.{place} is of another shape than its parameter")
    groups = algorithm.optimiser.state_dict()["param_groups"]
    algorithm.optimiser.load_state_dict({"state": slots, "param_groups": groups})
    for name, generator in generators.items():
        generator.set_state(tensors[f"generator.{name}"])


def below(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
