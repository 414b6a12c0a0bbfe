"""One copy of a task with discrete actions. Imports no torch, so that a worker process starts at once."""

import numpy as np
from jaxtyping import Float64, UInt8

from marl_sale.envs._worker import Outcome, Sizes, View
from marl_sale.envs.mamujoco.body import Body
from marl_sale.envs.mamujoco.task import Task


class MujocoCopy:
    """One body, moved by acting units.

    With factorised heads every joint is a unit of its own, so that an agent of m joints with b torques each
    has m · b values instead of bᵐ. Units of one agent see what the agent sees, and which of its joints they
    are: acting stays decentralised. With a table every agent is one unit, and its action a number whose
    digits in base b are the torques of its joints, the first joint's the lowest.
    """

    notes = ""

    def __init__(self, task: Task) -> None:
        self._task, self._time = task, 0
        body = self._body = Body(task)
        assert tuple(map(len, body.joints)) == task.joints, f"{task}: another partition than expected"
        # Who moves what: of each unit its agent, which of the agent's joints it is, and the joints it moves.
        agents = range(len(body.joints))
        units = (
            [(agent, k, [joint]) for agent in agents for k, joint in enumerate(body.joints[agent])]
            if task.per_joint
            else [(agent, 0, list(body.joints[agent])) for agent in agents]
        )
        # Of each joint: the unit that moves it, the place value of its digit, its torques.
        self._unit_of, self._place = (np.zeros(len(body.low), dtype=np.int64) for _ in range(2))
        for unit, (_, _, joints) in enumerate(units):
            self._unit_of[joints], self._place[joints] = unit, task.bins ** np.arange(len(joints))
        self._joints = np.arange(len(body.low))
        self._torques = np.linspace(body.low, body.high, task.bins, axis=1)
        self._torques[:, task.bins // 2] = (body.low + body.high) / 2  # 0, and not a rounding of it
        owned = np.array([task.bins ** len(joints) for _, _, joints in units])
        self._avail_actions = np.arange(task.n_actions) < owned[:, None]

        # A unit's observation is gathered from [view, 0, 1]: its agent's entries, zeros up to the longest
        # observation, and which of its agent's joints it is.
        longest, nothing, one = max(map(len, body.seen)), body.view_size, body.view_size + 1
        places = max(task.joints) if task.per_joint and max(task.joints) > 1 else 0
        self._entries = np.full((len(units), longest + places), nothing)
        for unit, (agent, k, _) in enumerate(units):
            self._entries[unit, : len(body.seen[agent])] = body.seen[agent]
            if places:
                self._entries[unit, longest + k] = one
        self._view = np.zeros(body.view_size + 2)
        self._view[one] = 1
        self.sizes = Sizes(len(units), task.n_actions, longest + places, body.state_size, task.limit)

    def reset(self, seed: int) -> View:
        """Start the episode of this seed."""
        self._time = 0
        return self._show(self._body.reset(seed))

    def step(self, actions: list[int]) -> tuple[View, Outcome]:
        """One env step with one action of each unit."""
        state, reward, fell = self._body.step(self.torques(actions))
        self._time += 1
        return self._show(state), Outcome(reward, fell, not fell and self._time == self._task.limit, False)

    def torques(self, actions: list[int]) -> Float64[np.ndarray, " joints"]:
        """What the actions do to the joints."""
        digit = np.array(actions)[self._unit_of] // self._place % self._task.bins
        torques: np.ndarray = self._torques[self._joints, digit]
        return torques

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        return self._body.render()

    def close(self) -> None:
        self._body.close()

    def _show(self, state: Float64[np.ndarray, " state"]) -> View:
        self._view[:-2] = self._body.view(state)
        return View(self._view[self._entries], state, self._avail_actions)
