"""From the name in a recipe to an algorithm, ready to update."""

from typing import TypeVar

import torch

from marl_sale.algorithms._api import Algorithm
from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.algorithms.pretraining import Pretraining
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.schema import Config
from marl_sale.nn.agent import Agent
from marl_sale.seeding import derive
from marl_sale.spec import EnvSpec

REGISTRY: dict[str, type[Qmix]] = {"mmsa": Mmsa, "qmix": Qmix, "vdn": Qmix, "iql": Qmix}


AnyAlgorithm = TypeVar("AnyAlgorithm", bound=Algorithm)


def _build(
    kind: type[AnyAlgorithm], config: Config, spec: EnvSpec, seed: int, device: torch.device | str
) -> AnyAlgorithm:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        algorithm = kind(config, spec)
    for name, generator in algorithm.generators().items():
        generator.manual_seed(derive(seed, name.replace("_", " ")))
    algorithm.to(device)
    algorithm.start()
    return algorithm


def build(config: Config, spec: EnvSpec, *, seed: int = 0, device: torch.device | str = "cpu") -> Qmix:
    """The algorithm named by the recipe, with weights initialised from the run's seed."""
    return _build(REGISTRY[config.algorithm], config, spec, seed, device)


def build_pretraining(
    config: Config, spec: EnvSpec, *, seed: int = 0, device: torch.device | str = "cpu"
) -> Pretraining:
    """The world model and embeddings of the recipe, to be fitted without values."""
    return _build(Pretraining, config, spec, seed, device)


def build_policy(config: Config, spec: EnvSpec) -> Agent:
    """The agents' network alone, on the CPU: what an agent artifact's weights are loaded into."""
    return REGISTRY[config.algorithm].policy(config, spec)
