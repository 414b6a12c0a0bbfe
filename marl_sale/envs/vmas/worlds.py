"""The published package `vmas` behind our interface: E worlds of one scenario, stepped as one batch."""

import contextlib
import io
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float32, Int64, UInt8
from torch import Tensor

with contextlib.redirect_stderr(
    io.StringIO()
):  # where gym, which VMAS asks for its spaces, says it has ended
    import vmas

from marl_sale.envs.vmas.discovery import Discovery
from marl_sale.envs.vmas.random_state import random_state
from marl_sale.envs.vmas.success import success_of
from marl_sale.envs.vmas.task import Task
from marl_sale.errors import EnvironmentFault
from marl_sale.spec import EnvSpec, Observation, Transition

_BLOCK = 32
"""Worlds are simulated in multiples of this; one alone costs hardly less. What does not fill torch's vectors
(16 numbers, taken in pairs) is computed by other routines, whose last bits differ, and contacts amplify them:
an episode would depend on the size of its batch."""
_REACH = 0.01
"""How far beyond their outlines two entities can matter to each other: the package pushes lines and boxes
from 0.0067 on, and penalises what comes as near as 0.005."""
_DRAWING_HINT = "drawing needs EGL, OpenGL and GLU; on Debian: apt install libegl1 libgl1 libglu1-mesa"


class Worlds:
    """E worlds of one task.

    A finished world is stepped on by the package with no force; what is shown of it stays as it was.
    """

    def __init__(self, task: Task, num_envs: int) -> None:
        self.num_envs, self._task = num_envs, task
        self._success = success_of(task)
        worlds = -(-num_envs // _BLOCK) * _BLOCK
        scenario = Discovery(worlds) if task.scenario == "discovery" else task.scenario
        with _package_call(0):
            self._package = vmas.make_env(
                scenario,
                worlds,
                device="cpu",
                terminated_truncated=True,
                **task.arguments,
            )
            _let_every_contact_count(self._package.world)
            self._obs = self._observations()
        self._scenario: Any = self._package.scenario
        self._forces = _forces(self._package.agents, task.levels)
        self._time = torch.zeros(num_envs, dtype=torch.int64)
        self._flags = torch.zeros(3, num_envs, dtype=torch.bool)  # terminated, truncated, success
        agents, obs_size = self._obs.shape[1:]
        self.spec = EnvSpec(
            family="vmas",
            task=str(task),
            backend="original",
            n_agents=agents,
            n_actions=task.levels**2,
            obs_size=obs_size,
            state_size=agents * obs_size,
            episode_limit=task.limit,
            masks_actions=False,
            has_success=self._success is not None,
            notes=f"vmas {vmas.__version__}; reward: mean over agents; {task.levels} forces per axis",
        )

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = torch.ones(self.num_envs, dtype=torch.bool) if mask is None else mask.cpu()
        for index in chosen.nonzero().flatten().tolist():
            with _package_call(int(seeds[index])):
                self._package.reset_at(index, return_observations=False)
            if isinstance(self._scenario, Discovery):
                self._scenario.start(index, int(seeds[index]))
        with _package_call(0):
            self._obs = self._observations().where(chosen[:, None, None], self._obs)
        self._time = self._time.masked_fill(chosen, 0)
        self._flags = self._flags & ~chosen
        return self._shown()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        live = ~self._flags[:2].any(0)
        with _package_call(0):
            forces = self._forces.new_zeros(self._package.num_envs, self.spec.n_agents, 2)
            chosen = self._forces[torch.arange(self.spec.n_agents), actions.cpu()]
            forces[: self.num_envs] = chosen * live[:, None, None]
            obs, rewards, ended, _, _ = self._package.step(list(forces.unbind(1)))
            success = torch.zeros_like(ended) if self._success is None else self._success(self._scenario)
            per_agent = torch.stack([given.flatten() for given in rewards], 1)  # wheel's have two axes
            reward = per_agent.mean(1)[: self.num_envs].where(live, 0)
            ended, success = ended[: self.num_envs], success[: self.num_envs]
            self._obs = self._stacked(obs).where(live[:, None, None], self._obs)
            self._time = self._time + live
            limit = self._time == self._task.limit
            flags = torch.stack([ended, limit & ~ended, success & (ended | limit)])
            self._flags = flags.where(live, self._flags)
        return Transition(self._shown(), reward, *(flag.clone() for flag in self._flags))

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        try:
            with _package_call(0):
                picture = self._package.render(mode="rgb_array", env_index=index)
        except Exception as error:  # of pyglet, a library that is missing, or the display
            raise EnvironmentFault(
                f"vmas cannot draw: {type(error).__name__}: {error}", _DRAWING_HINT
            ) from error
        return np.array(picture, dtype=np.uint8)

    def close(self) -> None:
        if self._package.viewer is not None:
            self._package.viewer.close()
            self._package.viewer = None

    def _observations(self) -> Float32[Tensor, "envs agents obs"]:
        (obs,) = self._package.get_from_scenario(
            get_observations=True, get_rewards=False, get_infos=False, get_dones=False
        )
        return self._stacked(obs)

    def _stacked(self, obs: list[Tensor]) -> Float32[Tensor, "envs agents obs"]:
        return torch.stack(obs, 1)[: self.num_envs]

    def _shown(self) -> Observation:
        avail = torch.ones(self.num_envs, self.spec.n_agents, self.spec.n_actions, dtype=torch.bool)
        return Observation(self._obs.clone(), self._obs.flatten(1).clone(), avail)


@contextlib.contextmanager
def _package_call(seed: int) -> Iterator[None]:
    """The package draws from `seed` inside.

    It writes into its tensors, which must not be born in the inference mode that playing may be in.
    """
    with random_state(seed), torch.inference_mode(False), torch.no_grad():
        yield


def _let_every_contact_count(world: Any) -> None:
    """Make the package skip a pair of entities only where they are out of each other's reach in every world.

    It skips those whose outlines overlap in none. Near contacts of one world would then count or not by what
    happens in the others, the surplus ones included.
    """
    overlap = world.collides

    def collides(a: Any, b: Any) -> bool:
        for shape in (a.shape, b.shape):
            shape.circumscribed_radius = partial(_reach, shape)
        try:
            return bool(overlap(a, b))
        finally:
            for shape in (a.shape, b.shape):
                vars(shape).pop("circumscribed_radius", None)

    world.collides = collides


def _reach(shape: Any) -> float:
    return float(type(shape).circumscribed_radius(shape)) + _REACH / 2


def _forces(agents: list[Any], levels: int) -> Float32[Tensor, "agents actions 2"]:
    """Force of each action, in the package's order: none, then from negative to positive, y the faster."""
    ordered = torch.linspace(-1, 1, levels)
    axis = torch.cat([ordered.new_zeros(1), ordered[: levels // 2], ordered[levels // 2 + 1 :]])
    unit = torch.cartesian_prod(axis, axis)
    return torch.stack([unit * agent.action.u_range_tensor for agent in agents])
