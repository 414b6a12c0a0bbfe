"""A long walk that its seed decides, whose faults are ordered from outside. Imported by workers: no torch."""

import os
import random
import time
from pathlib import Path

import numpy as np

from marl_sale.envs._worker import Outcome, Sizes, View

SIZES = Sizes(n_agents=2, n_actions=3, obs_size=2, state_size=3, episode_limit=24)
FAULTS = ("raises", "exits", "hangs", "nan", "shape")


class LongWalk:
    """Two agents push a number; who reaches ±12, or is above 0 at the limit of 24 steps, has won or lost.

    `order`: a file that says which fault comes at which env step; it is removed when that happens.
    `chance`: of a random fault at a random step, for every episode; no seed decides it.
    """

    sizes, notes = SIZES, "a long walk"

    def __init__(self, order: Path | None = None, chance: float = 0.0) -> None:
        self._order, self._chance = order, chance
        self._dice = random.SystemRandom()

    def reset(self, seed: int) -> View:
        self._random = np.random.default_rng(seed)
        self._time, self._place = 0, float(self._random.uniform(-1, 1))
        faulty = self._dice.random() < self._chance
        self._at = self._dice.randrange(1, 21) if faulty else 0
        return self._view()

    def step(self, actions: list[int]) -> tuple[View, Outcome]:
        self._time += 1
        self._place += sum(actions) - 2 + self._random.uniform(-0.5, 0.5)
        if self._time == self._at:
            return self._faulty(self._dice.choice(FAULTS))
        if self._order is not None and self._order.exists():
            kind, step = self._order.read_text().split()
            if self._time == int(step):
                self._order.unlink()
                return self._faulty(kind)
        terminated = abs(self._place) >= 12
        truncated = not terminated and self._time == SIZES.episode_limit
        over = terminated or truncated
        return self._view(), Outcome(self._place, terminated, truncated, over and self._place > 0)

    def render(self) -> np.ndarray:
        return np.zeros((2, 3, 3), dtype=np.uint8)

    def close(self) -> None:
        pass

    def _view(self) -> View:
        avail = [[True, abs(self._place) < 2, True], [True, True, self._time % 2 == 0]]
        return View([[self._place, self._time], [-self._place, 1]], [self._place, self._time, 0.5], avail)

    def _faulty(self, kind: str) -> tuple[View, Outcome]:
        going_on = Outcome(0.0, False, False, False)
        match kind:
            case "exits":
                os._exit(3)
            case "hangs":
                time.sleep(1000)
            case "nan":
                return self._view()._replace(obs=[[float("nan"), 0.0], [0.0, 0.0]]), going_on
            case "shape":
                return self._view()._replace(state=[0.0]), going_on
        raise RuntimeError("out of luck")
