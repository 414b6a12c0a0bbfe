"""One simulated body of the package `gymnasium_robotics`, and who moves and sees what of it."""

import contextlib
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import mujoco
import numpy as np
from jaxtyping import Float64, Int64, UInt8

with contextlib.redirect_stderr(io.StringIO()):  # news of robot hands, which are not here
    import gymnasium
    from gymnasium_robotics.envs.multiagent_mujoco import many_segment_ant, many_segment_swimmer
    from gymnasium_robotics.envs.multiagent_mujoco.mamujoco_v1 import parallel_env

from marl_sale.envs.mamujoco.task import SEGMENTED, Task
from marl_sale.errors import EnvironmentFault

PICTURE = {"width": 320, "height": 240}
"""Pixels; MuJoCo draws in software where there is no graphics card."""
_PROBES, _PROBE_SPEED = 20, 20.0


class Body:
    """One body: physics, reward and end are the package's; the time limit is the caller's.

    `view` is what observations are gathered from: the state where the package's observations are entries of
    it, otherwise all agents' observations one after the other. `seen[i]` are agent i's entries of it.
    """

    joints: list[Int64[np.ndarray, " own"]]
    """Of each agent: the joints it moves, as places in the joint torques."""
    seen: list[Int64[np.ndarray, " entries"]]
    low: Float64[np.ndarray, " joints"]
    high: Float64[np.ndarray, " joints"]
    state_size: int

    def __init__(self, task: Task) -> None:
        self._package = _create(task)
        _fix_order(self._package)
        self._simulation = self._package.single_agent_env.unwrapped
        partition = self._package.agent_action_partitions
        self.joints = [np.array([joint.act_ids for joint in own]) for own in partition]
        space = self._simulation.action_space
        self.low, self.high = space.low.astype(np.float64), space.high.astype(np.float64)
        self.state_size = int(self._simulation.observation_space.shape[0])
        self._agents = range(len(self.joints))
        self.gathered = task.full_obs or self._observations_are_in_state()
        self.view_size = self.state_size
        if task.full_obs:
            self.seen = [np.arange(self.state_size) for _ in self._agents]
        elif self.gathered:
            self.seen = [np.array(entries) for entries in self._package.observation_factorization.values()]
        else:
            ends = np.cumsum([len(self._observation(agent)) for agent in self._agents])
            self.view_size = int(ends[-1])
            self.seen = np.split(np.arange(self.view_size), ends[:-1])

    def reset(self, seed: int) -> Float64[np.ndarray, " state"]:
        """The state of a new start."""
        state: np.ndarray = self._simulation.reset(seed=seed)[0]
        return state

    def step(
        self, torques: Float64[np.ndarray, " joints"]
    ) -> tuple[Float64[np.ndarray, " state"], float, bool]:
        """State, team reward, and whether the body fell. The package gives every agent the same reward."""
        state, reward, fell, _, _ = self._simulation.step(torques)
        return state, float(reward), bool(fell)

    def view(self, state: Float64[np.ndarray, " state"]) -> Float64[np.ndarray, " view"]:
        """What observations are gathered from, after a step or reset that gave `state`."""
        if self.gathered:
            return state
        return np.concatenate([self._observation(agent) for agent in self._agents])

    def render(self) -> UInt8[np.ndarray, "height width 3"]:
        """A picture, drawn off screen. Raises EnvironmentFault where OpenGL cannot do that."""
        if sys.platform == "linux":
            os.environ.setdefault("MUJOCO_GL", "egl")
        try:
            picture: np.ndarray = self._simulation.render()
        except Exception as error:  # whatever the OpenGL library at hand raises
            raise EnvironmentFault(
                "env.family 'mamujoco' could not draw a picture with "
                f"MUJOCO_GL={os.environ.get('MUJOCO_GL')}: {type(error).__name__}: {error}",
                "drawing without a display needs EGL (Debian: apt install libegl1 libgl1-mesa-dri) and "
                "MUJOCO_GL=egl, or OSMesa and MUJOCO_GL=osmesa",
            ) from error
        return picture

    def close(self) -> None:
        self._package.close()

    def _observation(self, agent: int) -> np.ndarray:
        seen: np.ndarray = self._package._get_obs_agent(agent)
        return seen

    def _observations_are_in_state(self) -> bool:
        """Whether the package's own map from the state gives its observations, bit for bit.

        Tried in random motion, with contacts, and at speeds that motion would not reach soon: Walker2d's
        state clips velocities where its observations do not. Leaves the body in no particular state.
        """
        if self._package.observation_factorization is None:
            return False
        simulation, rng = self._simulation, np.random.default_rng(0)
        simulation.reset(seed=0)
        same = True
        for _ in range(_PROBES):
            simulation.step(rng.uniform(self.low, self.high))
            same = same and self._observations_match()
        for _ in range(_PROBES):
            qvel = _PROBE_SPEED * rng.standard_normal(simulation.model.nv)
            simulation.set_state(simulation.init_qpos, qvel)
            same = same and self._observations_match()
        return same

    def _observations_match(self) -> bool:
        local = self._package.map_global_state_to_local_observations(self._package.state())
        return all(
            np.array_equal(entries, self._observation(agent)) for agent, entries in enumerate(local.values())
        )


def _fix_order(package: Any) -> None:
    """Sort the joints an agent sees, also those that bear the same label.

    The package takes them out of a set and sorts by label alone. Two joints of Pusher share one, so that what
    stands where in an observation differs from one process to the next.
    """
    package.k_dicts = [
        {
            distance: sorted(
                joints, key=lambda joint: (joint.label, str(joint.qpos_ids), str(joint.qvel_ids))
            )
            for distance, joints in seen.items()
        }
        for seen in package.k_dicts
    ]
    package.observation_factorization = package.create_observation_mapping()


_told: set[str] = set()


def _tell(notice: str) -> None:
    """Say a notice of MuJoCo's once, on stderr.

    Left alone, MuJoCo prints to stdout, where this program's result goes and nothing else, and starts a file
    MUJOCO_LOG.TXT wherever the user happens to be.
    """
    kind = notice.partition(" at DOF")[0].strip()
    if "settotalmass" not in kind and kind not in _told:  # HalfCheetah's own description, and no fault
        _told.add(kind)
        print(f"MuJoCo: {notice.strip()}", file=sys.stderr)  # noqa: T201


mujoco.set_mju_user_warning(_tell)


def _create(task: Task) -> Any:
    """The package's environment. Segmented bodies are described in a folder of their own: the package would
    write into its own, where processes that do the same at once delete each other's file.
    """
    settings: dict[str, Any] = {"agent_obsk": task.agent_obsk}
    drawn: dict[str, Any] = {"render_mode": "rgb_array", **PICTURE}
    if task.body not in SEGMENTED:
        return parallel_env(task.body, task.partition, **settings, **drawn)
    single, generate = {
        "ManySegmentAnt": ("Ant-v5", many_segment_ant.gen_asset),
        "ManySegmentSwimmer": ("Swimmer-v5", many_segment_swimmer.gen_asset),
    }[task.body]
    with tempfile.TemporaryDirectory() as folder:
        description = Path(folder) / "body.xml"
        generate(n_segs=task.segments, asset_path=str(description))
        base = gymnasium.make(single, xml_file=str(description), **drawn)
    return parallel_env(task.body, task.partition, gym_env=base, **settings)
