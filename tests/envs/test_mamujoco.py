"""Multi-Agent MuJoCo: names, the package step by step, and everything of it that could trip us up."""

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from marl_sale.config import schema
from marl_sale.envs._load import make_env
from marl_sale.envs._pool import WORKERS, Pool
from marl_sale.envs.mamujoco.task import JOINTS, REFUSED, Task
from marl_sale.errors import ConfigError, EnvironmentFault
from marl_sale.spec import Observation

pytest.importorskip("gymnasium_robotics", reason="the extra mamujoco is not installed")

import gymnasium
import mujoco
from gymnasium_robotics import mamujoco_v1
from gymnasium_robotics.envs.multiagent_mujoco import many_segment_swimmer

from marl_sale.envs.mamujoco import body as body_module
from marl_sale.envs.mamujoco.env import InProcess


@pytest.fixture(autouse=True)
def _one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "1")


def config(task: str, **changes: Any) -> schema.Env:
    values: dict[str, Any] = {
        "family": "mamujoco",
        "task": task,
        "backend": "original",
        "mask_actions": False,
        "scale_obs": False,
        "bootstrap_at_time_limit": True,
    }
    return schema.Env(**{**values, **changes})


def build(task: str, num_envs: int = 1) -> InProcess:
    env = make_env(config(task), num_envs)
    assert isinstance(env, InProcess)
    return env


def random_actions(env: InProcess, rng: np.random.Generator) -> torch.Tensor:
    """One available action per unit of one environment."""
    avail = env._copies[0]._avail_actions
    return torch.tensor([[rng.choice(row.nonzero()[0]) for row in avail]])


@pytest.mark.parametrize(
    ("written", "canonical"),
    [
        ("HalfCheetah-2x3", "HalfCheetah-2x3"),
        ("HalfCheetah-2x3,agent_obsk=1,bins=5,limit=1000,heads=factorised", "HalfCheetah-2x3"),
        ("Humanoid-9|8,limit=50,agent_obsk=0", "Humanoid-9|8,agent_obsk=0,limit=50"),
        ("Humanoid-9-8", "Humanoid-9|8"),
        ("Reacher-2x1,limit=50", "Reacher-2x1"),
        ("Reacher-2x1,limit=1000", "Reacher-2x1,limit=1000"),
        ("ManySegmentSwimmer-10x2,full_obs=true", "ManySegmentSwimmer-10x2,full_obs=true"),
    ],
)
def test_a_name_has_one_canonical_form(written: str, canonical: str) -> None:
    assert str(Task.parse(written)) == canonical
    assert Task.parse(canonical) == Task.parse(written)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("HalfCheeta-2x3", "did you mean HalfCheetah"),
        ("Spider-8x1", "allowed in family 'mamujoco': <body>-<partition>"),
        ("HalfCheetah-3x2", "partitions of HalfCheetah: 2x3, 6x1"),
        ("HalfCheetah", "partitions of HalfCheetah: 2x3, 6x1"),
        ("ManySegmentSwimmer-1x4", "from 2 agents to 64 segments"),
        ("ManySegmentAnt-20x4", "from 2 agents to 64 segments"),
        ("Ant-2x4,bins=4", "must be odd"),
        ("Ant-2x4,full_obs=true,agent_obsk=0", "agent_obsk=0: full_obs=true shows"),
        ("Ant-2x4,heads=wide", "allowed: factorised, table"),
        *((f"{body}-1p1", reason[:30]) for body, reason in REFUSED.items()),
    ],
)
def test_wrong_names_say_what_is_allowed(task: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Task.parse(task)
    assert message in str(caught.value)


def test_what_the_family_cannot_honour_is_refused() -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(config("Hopper-3x1", backend="native", mask_actions=True), 1)
    assert [problem.partition(":")[0] for problem in caught.value.problems] == [
        "env.backend",
        "env.mask_actions",
    ]


def test_the_refused_body_is_still_broken() -> None:
    """When this fails, the package has been mended: allow CoupledHalfCheetah."""
    with pytest.raises(IndexError):
        mamujoco_v1.parallel_env("CoupledHalfCheetah", "1p1").reset()


@pytest.mark.parametrize(
    ("task", "units", "actions", "obs", "state"),
    [
        ("HalfCheetah-2x3", 6, 5, 12 + 3, 17),
        ("HalfCheetah-2x3,agent_obsk=0", 6, 5, 11 + 3, 17),
        ("HalfCheetah-2x3,heads=table", 2, 125, 12, 17),
        ("HalfCheetah-6x1,bins=11", 6, 11, 9, 17),
        ("Ant-2x4d", 8, 5, 63 + 4, 105),
        ("Ant-4x2,heads=table", 4, 25, 42, 105),
        ("Hopper-3x1,full_obs=true", 3, 5, 11, 11),
        ("Humanoid-9|8", 17, 5, 242 + 9, 348),
        ("HumanoidStandup-9|8", 17, 5, 242 + 9, 348),
        ("ManySegmentSwimmer-10x2", 20, 5, 6 + 2, 44),
        ("ManySegmentAnt-2x3", 24, 5, 167 + 12, 311),
        ("Pusher-3p", 7, 5, 16 + 3, 23),
        ("Walker2d-2x3", 6, 5, 12 + 3, 17),
    ],
)
def test_sizes(task: str, units: int, actions: int, obs: int, state: int) -> None:
    spec = build(task).spec
    assert (spec.n_agents, spec.n_actions, spec.obs_size, spec.state_size) == (units, actions, obs, state)
    assert spec.task == task
    assert not spec.has_success
    assert not spec.masks_actions


FOLLOWED = (
    "HalfCheetah-2x3,agent_obsk=0",
    "HalfCheetah-6x1,bins=3",
    "Ant-4x2",
    "Humanoid-9|8,bins=11",
    "ManySegmentSwimmer-10x2",
    "Pusher-3p",
    "Reacher-2x1",
    "Swimmer-2x1",
    "Walker2d-2x3",
)


@pytest.mark.parametrize("name", FOLLOWED)
def test_every_step_is_the_packages(name: str) -> None:
    """Observations, state, the reward of one agent and the fall, from the same seed with the same torques."""
    task, env, rng = Task.parse(name), build(name), np.random.default_rng(1)
    package = mamujoco_v1.parallel_env(task.body, task.partition, agent_obsk=task.agent_obsk)
    package.k_dicts = env._copies[0]._body._package.k_dicts  # see the test of the order of joints
    shown = env.reset(np.array([7]))
    seen, _ = package.reset(seed=7)
    for _ in range(min(60, task.limit)):
        _assert_same_view(shown, seen, package)
        actions = random_actions(env, rng)
        digits = iter(actions[0].tolist())
        torques = {}
        for agent, own in zip(package.possible_agents, package.agent_action_partitions, strict=True):
            low, high = package.single_agent_env.action_space.low, package.single_agent_env.action_space.high
            torques[agent] = np.array(
                [
                    low[joint.act_ids]
                    + next(digits) * (high[joint.act_ids] - low[joint.act_ids]) / (task.bins - 1)
                    for joint in own
                ]
            )
        transition = env.step(actions)
        seen, rewards, ended, _, _ = package.step(torques)
        shown = transition.observation
        assert float(transition.reward[0]) == pytest.approx(rewards["agent_0"], abs=1e-5)
        assert bool(transition.terminated[0]) == ended["agent_0"]
        if ended["agent_0"]:
            break
    _assert_same_view(shown, seen, package)


def _assert_same_view(shown: Observation, seen: dict[str, np.ndarray], package: Any) -> None:
    """Each unit sees what its agent sees, zeros up to the longest observation, and which joint it is."""
    longest = max(map(len, seen.values()))
    joints = [len(own) for own in package.agent_action_partitions]
    expected = [
        [*view, *[0] * (longest - len(view)), *(np.eye(max(joints))[k] if max(joints) > 1 else ())]
        for view, own in zip(seen.values(), joints, strict=True)
        for k in range(own)
    ]
    np.testing.assert_allclose(shown.obs[0].numpy(), np.array(expected), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(shown.state[0].numpy(), package.state(), rtol=1e-5, atol=1e-6)


def test_fast_joints_are_seen_as_the_package_sees_them() -> None:
    """Walker2d's state clips velocities, its observations do not: they must not be taken from the state."""
    env = build("Walker2d-2x3")
    env.reset(np.array([0]))
    body = env._copies[0]._body
    simulation = body._simulation
    simulation.set_state(simulation.init_qpos, np.full(simulation.model.nv, 25.0))
    assert body._package.state().max() == 10
    assert np.max(body.view(body._package.state())) == 25
    assert not body.gathered
    assert build("HalfCheetah-2x3")._copies[0]._body.gathered


def test_the_order_of_joints_does_not_hang_on_addresses() -> None:
    """The package sorts by label alone what it takes out of a set, and two joints of Pusher share a label."""
    orders = set()
    package = build("Pusher-3p")._copies[0]._body._package
    labels = [joint.label for joint in package.agent_action_partitions[0]]
    assert len(set(labels)) < len(labels)
    for _ in range(8):
        for seen in package.k_dicts:
            for distance, joints in seen.items():
                seen[distance] = random.sample(joints, len(joints))
        body_module._fix_order(package)
        orders.add(
            str(
                [[joint.qpos_ids for joints in seen.values() for joint in joints] for seen in package.k_dicts]
            )
        )
    assert len(orders) == 1


def test_full_obs_shows_every_agent_the_state() -> None:
    """The package's own agent_obsk=None would make a single agent of the body."""
    env = build("HalfCheetah-2x3,full_obs=true")
    shown = env.reset(np.array([3]))
    assert env.spec.n_agents == 6
    for unit in range(6):
        assert torch.equal(shown.obs[0, unit, :17], shown.state[0])


def test_torques_span_the_range_and_have_zero() -> None:
    copy = build("Humanoid-9|8")._copies[0]
    torques = [copy.torques([action] * 17) for action in range(5)]
    np.testing.assert_allclose(torques[0], -0.4, rtol=1e-6)
    np.testing.assert_allclose(torques[4], 0.4, rtol=1e-6)
    assert (torques[2] == 0).all()


def test_a_table_moves_the_joints_as_units_do() -> None:
    """Digits of an agent's action, the first joint's the lowest, are its units' actions."""
    table, factorised = build("HalfCheetah-2x3,bins=3,heads=table"), build("HalfCheetah-2x3,bins=3")
    rng = np.random.default_rng(0)
    for env in (table, factorised):
        env.reset(np.array([5]))
    for _ in range(10):
        digits = rng.integers(3, size=6)
        actions = digits.reshape(2, 3) @ [1, 3, 9]
        one = table.step(torch.from_numpy(actions).unsqueeze(0))
        other = factorised.step(torch.from_numpy(digits).unsqueeze(0))
        assert torch.equal(one.observation.state, other.observation.state)


def test_agents_with_fewer_joints_have_fewer_actions_in_a_table() -> None:
    env = build("Pusher-3p,heads=table,bins=3")
    assert env.spec.masks_actions
    assert env.reset(np.array([0])).avail_actions[0].sum(1).tolist() == [27, 3, 27]


def test_large_tables_are_refused() -> None:
    with pytest.raises(ConfigError, match="5 torques for each of 9 joints are 1,953,125 actions"):
        Task.parse("Humanoid-9|8,heads=table")


def test_where_agents_have_one_joint_the_heads_are_the_same() -> None:
    assert build("HalfCheetah-6x1,heads=table").spec == build("HalfCheetah-6x1").spec


def test_the_limit_truncates_and_a_fall_terminates() -> None:
    env = build("HalfCheetah-2x3,limit=4")
    env.reset(np.array([0]))
    flags = [env.step(torch.zeros(1, 6, dtype=torch.int64)) for _ in range(4)]
    assert [bool(step.truncated) for step in flags] == [False, False, False, True]
    assert not any(bool(step.terminated) for step in flags)

    hopper, rng = build("Hopper-3x1"), np.random.default_rng(0)
    hopper.reset(np.array([0]))
    for _ in range(1000):
        step = hopper.step(random_actions(hopper, rng))
        if step.terminated or step.truncated:
            break
    assert bool(step.terminated)
    assert not bool(step.truncated)


def test_the_limits_are_those_the_package_registers() -> None:
    for body in JOINTS:
        registered = gymnasium.spec(f"{body}-v5").max_episode_steps
        assert Task.parse(f"{body}-{next(iter(JOINTS[body]))}").limit == registered, body


def test_a_fall_on_the_last_step_is_a_fall() -> None:
    actions, steps = torch.zeros(1, 3, dtype=torch.int64), 1
    env = build("Hopper-3x1")
    env.reset(np.array([0]))
    while not bool(env.step(actions).terminated):
        steps += 1
    env = build(f"Hopper-3x1,limit={steps}")
    env.reset(np.array([0]))
    for _ in range(steps):
        last = env.step(actions)
    assert bool(last.terminated)
    assert not bool(last.truncated)


def test_nothing_is_printed_and_no_log_is_started(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """HalfCheetah's description makes MuJoCo print a notice to stdout and write MUJOCO_LOG.TXT."""
    monkeypatch.chdir(tmp_path)
    build("HalfCheetah-2x3")
    assert capfd.readouterr() == ("", "")
    assert list(tmp_path.iterdir()) == []


def test_a_simulation_that_bursts_is_told_once_on_stderr(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(body_module, "_told", set())
    simulation = build("Swimmer-2x1")._copies[0]._body._simulation
    for _ in range(2):
        simulation.set_state(simulation.init_qpos, np.full(simulation.model.nv, 1e11))
        mujoco.mj_step(simulation.model, simulation.data)
    out, err = capfd.readouterr()
    assert out == ""
    assert err.count("MuJoCo: ") == 1
    assert "unstable" in err
    assert list(tmp_path.iterdir()) == []


def test_segmented_bodies_are_described_outside_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """The package writes into its own folder, where processes that start together race."""
    written, generate = [], many_segment_swimmer.gen_asset

    def watched(n_segs: int, asset_path: str) -> None:
        written.append(Path(asset_path))
        generate(n_segs, asset_path)

    monkeypatch.setattr(many_segment_swimmer, "gen_asset", watched)
    build("ManySegmentSwimmer-2x2", num_envs=2)
    package = Path(many_segment_swimmer.__file__).parent
    assert len(set(written)) == 2
    assert not any(path.is_relative_to(package) or path.exists() for path in written)


def test_workers_play_the_same_and_load_no_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(WORKERS, "2")
    pool, alone = make_env(config("Pusher-3p,limit=3"), 2), build("Pusher-3p,limit=3")
    try:
        assert isinstance(pool, Pool)
        assert pool.spec == alone.spec
        seeds, actions = np.array([4, 9]), torch.arange(14).view(2, 7) % 5
        shown, ends = pool.reset(seeds), [pool.step(actions) for _ in range(3)]
        for index in range(2):
            single = alone.reset(seeds[index : index + 1])
            assert all(map(torch.equal, (part[index] for part in shown), (part[0] for part in single)))
            for end in ends:
                other = alone.step(actions[index : index + 1])
                assert torch.equal(end.observation.obs[index], other.observation.obs[0])
                assert end.reward[index] == other.reward[0]
                assert end.truncated[index] == other.truncated[0]
    finally:
        pool.close()
    code = "import sys, marl_sale.envs.mamujoco.copy; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_pictures_need_no_display() -> None:
    env = build("Hopper-3x1")
    env.reset(np.array([0]))
    try:
        picture = env.render(0)
    except EnvironmentFault as fault:
        pytest.skip(str(fault))
    assert picture.shape == (240, 320, 3)
    assert picture.std() > 0


def test_where_nothing_can_be_drawn_the_error_says_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    env = build("Hopper-3x1")
    blind = type("Blind", (), {"render": lambda self: 1 / 0})()
    monkeypatch.setattr(env._copies[0]._body, "_simulation", blind)
    with pytest.raises(EnvironmentFault, match="could not draw a picture") as caught:
        env.render(0)
    assert "MUJOCO_GL=egl" in caught.value.hint
