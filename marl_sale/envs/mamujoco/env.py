"""Copies of one Multi-Agent MuJoCo task, in this process or in workers."""

from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from marl_sale.envs._pool import Pool, most_workers
from marl_sale.envs._worker import Sizes
from marl_sale.envs.mamujoco.copy import MujocoCopy
from marl_sale.envs.mamujoco.task import Task
from marl_sale.spec import EnvSpec, Observation, Transition, VectorEnv

_PATIENCE = 10.0
"""Seconds that one copy may take for a step."""


def copies(task: Task, num_envs: int) -> VectorEnv:
    """E copies over the cores there are; in this process where there is one core, or one copy."""
    if min(num_envs, most_workers()) == 1:
        return InProcess(task, num_envs)
    return Pool(partial(MujocoCopy, task), num_envs, partial(describe_task, task), patience=_PATIENCE)


def describe_task(task: Task, sizes: Sizes, notes: str = "") -> EnvSpec:
    """Sizes and rules, and what a reader of a result must know."""
    units = "one acting unit per joint" if task.per_joint else "one acting unit each"
    sight = "the state" if task.full_obs else f"joints up to {task.agent_obsk} away"
    return EnvSpec(
        family="mamujoco",
        task=str(task),
        backend="original",
        **sizes._asdict(),
        masks_actions=task.masks_actions,
        has_success=False,
        notes=f"{len(task.joints)} agents, {units}, {task.bins} torques per joint; "
        f"agents see {sight}; Gymnasium's v5 bodies",
    )


class InProcess:
    """E copies, stepped one after the other."""

    def __init__(self, task: Task, num_envs: int) -> None:
        self.num_envs = num_envs
        self._copies = [MujocoCopy(task) for _ in range(num_envs)]
        sizes = self._copies[0].sizes
        self.spec = describe_task(task, sizes)
        self._obs = np.zeros((num_envs, sizes.n_agents, sizes.obs_size), dtype=np.float32)
        self._state = np.zeros((num_envs, sizes.state_size), dtype=np.float32)
        self._avail_actions = np.ones((num_envs, sizes.n_agents, sizes.n_actions), dtype=bool)
        self._terminated, self._truncated = (np.zeros(num_envs, dtype=bool) for _ in range(2))

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = range(self.num_envs) if mask is None else mask.nonzero().flatten().tolist()
        for index in chosen:
            view = self._copies[index].reset(int(seeds[index]))
            self._obs[index], self._state[index], self._avail_actions[index] = view
            self._terminated[index] = self._truncated[index] = False
        return self._observation()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        reward = np.zeros(self.num_envs, dtype=np.float32)
        over = (self._terminated | self._truncated).tolist()
        for index, joint_action in enumerate(actions.tolist()):
            if over[index]:
                continue
            view, outcome = self._copies[index].step(joint_action)
            self._obs[index], self._state[index], _ = view
            reward[index], self._terminated[index], self._truncated[index], _ = outcome
        return Transition(
            self._observation(),
            torch.from_numpy(reward),
            torch.from_numpy(self._terminated.copy()),
            torch.from_numpy(self._truncated.copy()),
            torch.zeros(self.num_envs, dtype=torch.bool),
        )

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        return self._copies[index].render()

    def close(self) -> None:
        for copy in self._copies:
            copy.close()

    def _observation(self) -> Observation:
        shown = (self._obs, self._state, self._avail_actions)
        return Observation(*(torch.from_numpy(numbers.copy()) for numbers in shown))
