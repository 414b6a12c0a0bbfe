"""What a task is to the battle: who fights, by which rules it is seen, and how an episode starts."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from marl_sale.envs.micro.terrain import SIZE, Terrain


class Start(NamedTuple):
    """Units at the start of some episodes; agents first, then enemies."""

    kind: Int64[Tensor, "units episodes"]
    place: Float32[Tensor, "2 units episodes"]


def numbered(start: Start, agents: int) -> Start:
    """The same, with the agents in the order of SMAC: by kind, then from west to east."""
    key = start.kind[:agents].double() * (2 * SIZE) + start.place[0, :agents]
    order = torch.cat(
        [key.argsort(0), torch.arange(agents, len(start.kind))[:, None].expand(-1, key.shape[1])]
    )
    return Start(start.kind.gather(0, order), start.place.gather(1, order.expand(2, -1, -1)))


@dataclass(frozen=True)
class Rules:
    """By which package's rules agents see and are rewarded, with its default options."""

    package: Literal["smac", "smacv2"]
    shielded: tuple[bool, bool]
    """Whether shields of agents and of enemies are shown: their race is Protoss."""
    agent_bits: tuple[str, ...]
    """Kinds in the order of their bits in the one-hot code; empty where all are of one kind."""
    enemy_bits: tuple[str, ...]


@dataclass(frozen=True)
class Scenario:
    """A task."""

    name: str
    limit: int
    """Env steps."""
    agents: tuple[tuple[str, ...], ...]
    """Kinds that each agent can be."""
    enemies: tuple[tuple[str, ...], ...]
    rules: Rules
    terrain: Terrain
    goal: tuple[float, float] | None
    """Where enemies walk, attacking whom they see; None: to the nearest agent."""
    start: Callable[[Int64[np.ndarray, " episodes"]], Start]
    """Units of the episodes with these seeds."""
