"""`discovery`, its targets coming back by the episode's own random numbers.

The package places the targets covered in a step with draws for the whole batch, repeated until every world of
it has a place: an episode would depend on its neighbours.
"""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from vmas.scenarios import discovery

from marl_sale.seeding import numpy_generator


class Discovery(discovery.Scenario):  # type: ignore[misc]  # the package has no types
    """The package's scenario; only where covered targets come back is drawn for each world alone."""

    targets_respawn: bool

    def __init__(self, num_envs: int) -> None:
        super().__init__()
        self._draws: list[np.random.Generator | None] = [None] * num_envs

    def start(self, index: int, seed: int) -> None:
        """World `index` begins the episode of `seed`."""
        self._draws[index] = numpy_generator(seed, "vmas targets")

    def reward(self, agent: Any) -> Tensor:
        comes_back = self.targets_respawn and agent is self.world.agents[-1]
        if not comes_back:
            return self._package_reward(agent)
        # The package's other rule moves covered targets away and counts them; it draws nothing that matters.
        self.targets_respawn = False
        reward = self._package_reward(agent)
        self.targets_respawn = True
        self.all_time_covered_targets[:] = False
        for world, target in self.covered_targets.nonzero().tolist():
            self._place(world, target)
        return reward

    def _package_reward(self, agent: Any) -> Tensor:
        given: Tensor = super().reward(agent)
        return given

    def _place(self, world: int, target: int) -> None:
        """By the package's rule: uniform in the arena, at a distance from agents and other targets."""
        draws = self._draws[world]
        if draws is None:
            return  # a world whose first episode has not begun
        targets = self.targets_pos[world]  # before the step's moves, as the package has it
        others = torch.cat([self.agents_pos[world], targets[:target], targets[target + 1 :]])
        while True:
            x = draws.uniform(-self.world.x_semidim, self.world.x_semidim)
            y = draws.uniform(-self.world.y_semidim, self.world.y_semidim)
            place = targets.new_tensor([x, y])
            if (others - place).norm(dim=1).min() >= self._min_dist_between_entities:
                break
        targets[target] = place
        self._targets[target].state.pos[world] = place
