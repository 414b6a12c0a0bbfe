"""A copy for the tests of the worker pool: a walk that its seed decides, and faults on request.

Imported by workers, so without torch.
"""

import os
import signal
import subprocess
import time
from pathlib import Path

import numpy as np

from marl_sale.envs._worker import Copy, Outcome, Sizes, View
from marl_sale.errors import EnvironmentFault

SIZES = Sizes(n_agents=2, n_actions=3, obs_size=2, state_size=3, episode_limit=9)


class Walk:
    """Two agents push a number; ±4 ends the episode, +4 with success. `fault` happens at env step 5, once:
    the file `armed` is removed then.
    """

    sizes, notes = SIZES, "a walk"

    def __init__(self, fault: str = "", armed: Path | None = None) -> None:
        self._fault, self._armed = fault, armed
        print("said by a copy")  # noqa: T201  must not reach stdout

    def reset(self, seed: int) -> View:
        self._random = np.random.default_rng(seed)
        self._time, self._place = 0, float(self._random.integers(-1, 2))
        return self._view()

    def step(self, actions: list[int]) -> tuple[View, Outcome]:
        self._time += 1
        self._place += sum(actions) - 2 + self._random.uniform(-0.5, 0.5)
        if self._time == 5 and self._armed is not None and self._armed.exists():
            if self._fault != "always":
                self._armed.unlink()
            return self._faulty()
        terminated = abs(self._place) >= 4
        truncated = not terminated and self._time == SIZES.episode_limit
        return self._view(), Outcome(self._place, terminated, truncated, terminated and self._place > 0)

    def render(self) -> np.ndarray:
        return np.full((2, 3, 3), self._time, dtype=np.uint8)

    def close(self) -> None:
        pass

    def _view(self) -> View:
        avail = [[True, abs(self._place) < 2, True], [True, True, self._time % 2 == 0]]
        return View([[self._place, self._time], [-self._place, 1]], [self._place, self._time, 0.5], avail)

    def _faulty(self) -> tuple[View, Outcome]:
        ended = Outcome(0.0, False, False, False)
        match self._fault:
            case "exits":
                os._exit(3)
            case "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            case "hangs":
                time.sleep(1000)
            case "shape":
                return self._view()._replace(state=[0.0]), ended
            case "nan":
                return self._view(), ended._replace(reward=float("nan"))
            case "misconfigured":
                raise EnvironmentFault("the game is too old", "renew it")
        raise RuntimeError("out of luck")


class WithChild(Walk):
    """A walk that has started another process, as StarCraft II is; its id goes into a file."""

    def __init__(self, file: Path) -> None:
        super().__init__()
        with file.open("a") as out:
            out.write(f"{os.getpid()} {subprocess.Popen(['sleep', '1000']).pid} ")


def broken(kind: str) -> Copy:
    """A factory that builds nothing."""
    if kind == "missing":
        import marl_sale_no_such_package  # noqa: F401
    if kind == "game":
        raise EnvironmentFault("no game", "install one")
    raise RuntimeError("no luck")
