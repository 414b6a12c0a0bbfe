"""From the name in a recipe to an algorithm, ready to update."""

import torch

from marl_sale.algorithms.mmsa import Mmsa
from marl_sale.algorithms.qmix import Qmix
from marl_sale.config.schema import Config
from marl_sale.seeding import derive
from marl_sale.spec import EnvSpec

REGISTRY: dict[str, type[Qmix]] = {"mmsa": Mmsa, "qmix": Qmix, "vdn": Qmix, "iql": Qmix}


def build(config: Config, spec: EnvSpec, *, seed: int = 0, device: torch.device | str = "cpu") -> Qmix:
    """The algorithm named by the recipe, with weights initialised from the run's seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive(seed, "weights"))
        algorithm = REGISTRY[config.algorithm](config, spec)
    if isinstance(algorithm, Mmsa):
        algorithm.noise_generator.manual_seed(derive(seed, "latent noise"))
    algorithm.to(device)
    algorithm.start()
    return algorithm
