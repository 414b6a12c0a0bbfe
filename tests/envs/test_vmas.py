"""VMAS: against the package itself, its random state, ends and successes, names of tasks."""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_contract import TASKS

from marl_sale.config import schema
from marl_sale.config.recipe import list_recipes, load_recipe
from marl_sale.envs._load import make_env
from marl_sale.envs.vmas.task import REFUSED, SCENARIOS, Task
from marl_sale.errors import ConfigError, EnvironmentFault

vmas = pytest.importorskip("vmas", reason="the package vmas is not installed: pip install '.[vmas]'")

from marl_sale.envs.vmas.random_state import random_state  # noqa: E402
from marl_sale.envs.vmas.worlds import Worlds  # noqa: E402


def config(task: str, **changes: Any) -> schema.Env:
    return schema.Env(
        **{
            "family": "vmas",
            "task": task,
            "backend": "original",
            "mask_actions": False,
            "scale_obs": False,
            "bootstrap_at_time_limit": False,
            **changes,
        }
    )


def build(task: str, num_envs: int = 1) -> Worlds:
    env = make_env(config(task), num_envs)
    assert isinstance(env, Worlds)
    return env


def joint_actions(env: Worlds, steps: int, seed: int = 0) -> torch.Tensor:
    rng = np.random.default_rng(seed)
    shape = (steps, env.num_envs, env.spec.n_agents)
    return torch.from_numpy(rng.integers(env.spec.n_actions, size=shape))


def resting(env: Worlds) -> torch.Tensor:
    return torch.zeros(env.num_envs, env.spec.n_agents, dtype=torch.int64)


# -- the package itself ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "task",
    ["balance,n_agents=4", "navigation,shared_rew=false", "transport", "wheel,line_length=1", "give_way"],
)
@pytest.mark.parametrize("levels", [3, 5])
def test_equals_the_package_with_its_own_discrete_actions(task: str, levels: int) -> None:
    """Same start, same numbers of actions: equal observations and ends, the mean of the rewards."""
    env = build(f"{task},levels={levels}")
    parsed = Task.parse(task)
    bare = vmas.make_env(
        parsed.scenario, 32, continuous_actions=False, terminated_truncated=True, **parsed.arguments
    )
    for agent in bare.agents:
        agent.discrete_action_nvec = [levels] * 2
    shown = env.reset(np.array([7]))
    with random_state(7):
        obs = bare.reset_at(0)
    for actions in joint_actions(env, 40):
        assert torch.equal(shown.obs, torch.stack(obs, 1)[:1])
        assert torch.equal(shown.state, torch.cat(obs, 1)[:1])
        done = env.step(actions)
        obs, rewards, terminated, _, _ = bare.step([a.expand(32, 1) for a in actions.unbind(1)])
        assert torch.equal(done.reward, torch.stack(rewards, 1).mean(1).flatten()[:1])
        assert torch.equal(done.terminated, terminated[:1])
        shown = done.observation
        if done.terminated:
            break


def test_action_0_is_no_force_and_the_others_are_all_different() -> None:
    forces = build("give_way,levels=5")._forces
    assert forces.shape == (2, 25, 2)
    assert forces[:, 0].abs().sum() == 0
    assert len({tuple(force) for force in forces[0].tolist()}) == 25
    assert forces.abs().max() == 0.5  # the range of this scenario


@pytest.mark.parametrize("scenario", sorted({*SCENARIOS, *REFUSED}))
def test_every_scenario_of_the_package_is_played_or_refused(scenario: str) -> None:
    assert scenario in {*vmas.scenarios, *vmas.mpe_scenarios}
    if scenario in SCENARIOS:
        env = build(scenario, 2)
        env.reset(np.arange(2))
        assert env.step(resting(env)).reward.shape == (2,)


def test_every_scenario_that_is_played_keeps_the_contract() -> None:
    assert {task.partition(",")[0] for task in TASKS["vmas"]} == set(SCENARIOS)


def test_no_scenario_of_the_package_is_forgotten() -> None:
    assert {*SCENARIOS, *REFUSED} == {*vmas.scenarios, *vmas.mpe_scenarios}


# -- random state ---------------------------------------------------------------------------------------


def callers_draws() -> tuple[Any, ...]:
    return (torch.rand(3).tolist(), np.random.random(3).tolist(), random.random())  # noqa: NPY002


def set_callers_seeds() -> None:
    torch.manual_seed(5)
    np.random.seed(5)  # noqa: NPY002
    random.seed(5)


def test_the_callers_generators_are_left_alone() -> None:
    task = Task.parse("discovery")  # the checks of types in these tests draw numbers too
    set_callers_seeds()
    expected = callers_draws()
    set_callers_seeds()
    env = Worlds(task, 3)
    env.reset(np.arange(3))
    env.step(resting(env))
    env.reset(np.arange(3), torch.tensor([True, False, True]))
    env.close()
    assert callers_draws() == expected


def test_the_callers_generators_come_back_after_an_error_inside_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The package alone would leave its own in their place."""
    env = build("balance")
    env.reset(np.array([0]))

    def fails(*_: Any) -> None:
        torch.rand(1)
        raise ZeroDivisionError

    monkeypatch.setattr(env._scenario, "reward", fails)
    set_callers_seeds()
    expected = callers_draws()
    set_callers_seeds()
    with pytest.raises(ZeroDivisionError):
        env.step(resting(env))
    assert callers_draws() == expected


def test_the_packages_own_random_state_is_left_alone() -> None:
    """Whoever uses VMAS beside us in this process goes on as if we were not there."""
    bare = vmas.make_env("transport", 2, seed=3)
    expected = [obs.clone() for obs in bare.reset()]
    bare = vmas.make_env("transport", 2, seed=3)
    env = build("transport", 2)
    env.reset(np.arange(2))
    env.step(resting(env))
    assert all(map(torch.equal, bare.reset(), expected))


@pytest.mark.parametrize("task", ["balance", "discovery,n_targets=12,covering_range=0.6"])
def test_another_environment_in_between_changes_nothing(task: str) -> None:
    """As evaluation does during training."""

    def played(disturbed: bool) -> list[torch.Tensor]:
        env, seen = build(task, 2), []
        for round_ in range(2):
            seen.append(env.reset(np.arange(2) + 2 * round_).obs)
            for actions in joint_actions(env, 5, seed=round_):
                if disturbed:
                    other = build(task, 3)
                    other.reset(np.arange(3) + 90)
                    other.step(resting(other))
                done = env.step(actions)
                seen += [done.observation.obs, done.reward]
        return seen

    assert all(map(torch.equal, played(False), played(True)))


@pytest.mark.parametrize("scenario", sorted(SCENARIOS))
def test_an_episode_is_the_same_in_any_batch(scenario: str) -> None:
    """Bit for bit, in batches that fill vector registers and in those that do not."""
    copies, steps = 37, 6
    crowd = build(scenario, copies)
    actions = joint_actions(crowd, steps)
    shown = [crowd.reset(np.arange(100, 100 + copies)).obs]
    done = [crowd.step(joint) for joint in actions]
    shown += [each.observation.obs for each in done]
    alone = build(scenario)
    for index in (0, 17, 36):
        assert torch.equal(alone.reset(np.array([100 + index])).obs[0], shown[0][index])
        for t in range(steps):
            own = alone.step(actions[t, index : index + 1])
            assert torch.equal(own.observation.obs[0], shown[t + 1][index]), t
            assert own.reward[0] == done[t].reward[index], t


def place(env: Worlds, world: int, entity: Any, x: float, y: float) -> None:
    entity.state.pos[world] = torch.tensor([x, y])
    entity.state.vel[world] = 0


@pytest.mark.parametrize("neighbour", [1, 31], ids=["another world", "a surplus world"])
@pytest.mark.parametrize("scenario", ["navigation", "transport"])
def test_a_near_contact_counts_whatever_happens_in_the_other_worlds(scenario: str, neighbour: int) -> None:
    """The package looks at a pair of entities only where their outlines overlap in any world of the batch."""

    def step(neighbour_touches: bool) -> tuple[torch.Tensor, torch.Tensor]:
        env = build(scenario, 2)
        env.reset(np.arange(2))
        first, *others = env._package.agents
        second = others.pop(0) if scenario == "navigation" else env._scenario.packages[0]
        for world in (0, neighbour):
            for k, other in enumerate(others):
                place(env, world, other, -0.8 + 0.4 * k, -0.9)
            place(env, world, second, 0.0, 0.0)
            place(env, world, first, 0.9, 0.9)
        if scenario == "navigation":  # 3 mm apart, where 5 are penalised
            place(env, 0, first, first.shape.radius + second.shape.radius + 0.003, 0.0)
        else:  # 3 mm off a corner, where 7 push
            second.state.rot[:] = 0
            diagonal = (second.shape.circumscribed_radius() + first.shape.radius + 0.003) / 2**0.5
            place(env, 0, first, diagonal, diagonal)
        if neighbour_touches:
            place(env, neighbour, first, 0.0, 0.0)
        done = env.step(resting(env))
        return done.reward[:1], done.observation.obs[0]

    assert all(map(torch.equal, step(False), step(True)))


def cover_a_target(env: Worlds, world: int) -> None:
    """Put two agents of a world on its first target."""
    scenario = env._scenario
    for agent in scenario.world.agents[:2]:
        agent.state.pos[world] = scenario._targets[0].state.pos[world]


def test_targets_come_back_by_the_episodes_own_numbers() -> None:
    def places(copies: int, world: int, neighbours_too: bool) -> torch.Tensor:
        env = build("discovery,shared_reward=true", copies)
        env.reset(np.arange(copies) - world + 5)  # the world has seed 5 wherever it is
        found = []
        for _ in range(3):
            for k in range(copies):
                if k == world or neighbours_too:
                    cover_a_target(env, k)
            assert env.step(resting(env)).reward[world] > 0
            found.append(env._scenario._targets[0].state.pos[world].clone())
        return torch.stack(found)

    alone = places(1, 0, False)
    assert len({tuple(place) for place in alone.tolist()}) == 3
    assert torch.equal(alone, places(4, 2, True))
    assert torch.equal(alone, places(4, 2, False))


def test_targets_come_back_where_the_package_would_put_them() -> None:
    """Uniform in the arena, at a distance from everything else: shares of the quarters of the plane."""
    env = build("discovery", 64)
    env.reset(np.arange(64))
    scenario, found = env._scenario, []
    for _ in range(20):
        for k in range(64):
            cover_a_target(env, k)
        env.step(resting(env))
        everything = torch.stack([e.state.pos for e in [*scenario._targets, *scenario.world.agents]], 1)
        apart = (everything[:, :1] - everything[:, 1:]).norm(dim=2)
        assert apart.min() >= scenario._min_dist_between_entities - 1e-6
        found.append(everything[:, 0])
    places = torch.cat(found)
    assert places.abs().max() <= 1
    quarters = (places > 0).float() @ torch.tensor([1.0, 2.0])
    shares = torch.stack([(quarters == k).float().mean() for k in range(4)])
    assert (shares - 0.25).abs().max() < 5 * (0.25 * 0.75 / len(places)) ** 0.5


def test_games_go_on_outside_inference_mode() -> None:
    """Playing is done inside; pictures of a game are drawn outside."""
    env = build("navigation", 2)
    with torch.inference_mode():
        env.reset(np.arange(2))
        env.step(resting(env))
    env.reset(np.arange(2), torch.tensor([True, False]))
    env.step(resting(env))
    assert env._time.tolist() == [1, 2]


# -- ends, success, reward ------------------------------------------------------------------------------


def test_falling_ends_balance_without_success_and_delivery_with() -> None:
    env = build("balance", 2)
    env.reset(np.arange(2))
    scenario = env._scenario
    scenario.package.state.pos[0, 1] = -1.03  # dropped
    scenario.package.state.pos[1] = scenario.package.goal.state.pos[1]
    scenario.line.state.pos[1, 1] = 0.5
    done = env.step(resting(env))
    assert done.terminated.tolist() == [True, True]
    assert done.success.tolist() == [False, True]
    assert done.truncated.tolist() == [False, False]


@pytest.mark.parametrize(
    ("task", "arrange"),
    [
        ("transport", lambda s: [setattr(p.state, "pos", p.goal.state.pos.clone()) for p in s.packages]),
        (
            "navigation",
            lambda s: [setattr(a.state, "pos", a.goal.state.pos.clone()) for a in s.world.agents],
        ),
        ("passage", lambda s: [setattr(a.state, "pos", a.goal.state.pos.clone()) for a in s.world.agents]),
        ("reverse_transport", lambda s: setattr(s.package.state, "pos", s.package.goal.state.pos.clone())),
        (
            "dropout",
            lambda s: setattr(s.world.agents[0].state, "pos", s.world.landmarks[0].state.pos.clone()),
        ),
        ("ball_passage", lambda s: setattr(s.goal.state, "pos", s.ball.state.pos.clone())),
        ("discovery,targets_respawn=false", lambda s: s.all_time_covered_targets.fill_(True)),
        ("dispersion", lambda s: [food.eaten.fill_(True) for food in s.world.landmarks]),
    ],
)
def test_success_where_the_task_is_done(task: str, arrange: Any) -> None:
    env = build(task)
    env.reset(np.array([3]))
    assert not bool(env.step(resting(env)).success)
    arrange(env._scenario)
    done = env.step(resting(env))
    assert (bool(done.terminated), bool(done.success)) == (True, True)


@pytest.mark.parametrize("task", ["give_way,limit=2", "multi_give_way,limit=2"])
def test_goals_held_at_the_time_limit_are_a_success(task: str) -> None:
    env = build(task)
    env.reset(np.array([0]))
    for agent in env._scenario.world.agents:
        agent.goal.state.pos = agent.state.pos.clone()
    assert not bool(env.step(resting(env)).success)  # told at the end only
    done = env.step(resting(env))
    assert (bool(done.terminated), bool(done.truncated), bool(done.success)) == (False, True, True)


def test_time_limit_freezes_the_world() -> None:
    env = build("transport,limit=3", 2)
    env.reset(np.array([0, 1]))
    for actions in joint_actions(env, 3):
        done = env.step(actions)
    assert done.truncated.all()
    assert not done.terminated.any()
    env.reset(np.array([0, 5]), torch.tensor([False, True]))
    after = env.step(joint_actions(env, 1)[0])
    assert torch.equal(after.observation.obs[0], done.observation.obs[0])
    assert after.truncated.tolist() == [True, False]
    assert float(after.reward[0]) == 0.0


def test_team_reward_is_the_mean_over_agents() -> None:
    """In a scenario whose agents are rewarded apart."""
    env = build("navigation,shared_rew=false,n_agents=2")
    env.reset(np.array([1]))
    first = env._scenario.world.agents[0]
    before = float((first.state.pos - first.goal.state.pos)[0].norm())
    toward = (first.goal.state.pos - first.state.pos).sign()[0]
    forces = env._forces[0]
    action = int((forces == toward).all(1).nonzero())
    done = env.step(torch.tensor([[action, 0]]))
    gained = before - float((first.state.pos - first.goal.state.pos)[0].norm())
    assert gained > 0
    assert float(done.reward) == pytest.approx(gained / 2, rel=1e-3)
    assert "mean over agents" in env.spec.notes


def test_success_is_declared_where_it_is_defined() -> None:
    assert not build("discovery").spec.has_success
    assert build("discovery,targets_respawn=false").spec.has_success
    with_success = {name for name in SCENARIOS if build(name).spec.has_success}
    assert set(SCENARIOS) - with_success == {
        "discovery", "flocking", "sampling", "simple_spread", "wheel"
    }  # fmt: skip


# -- names ----------------------------------------------------------------------------------------------


def test_names_are_canonical() -> None:
    name = "balance,levels=3,limit=100,package_mass=5.0,n_agents=4"
    assert build(name).spec.task == "balance,n_agents=4"
    spec = build("dispersion,n_agents=6,limit=50,levels=5").spec
    assert spec.task == "dispersion,n_agents=6,limit=50,levels=5"
    assert (spec.n_agents, spec.n_actions, spec.episode_limit) == (6, 25, 50)
    assert spec.obs_size == 4 + 3 * 6  # as many foods as agents
    assert spec.state_size == 6 * spec.obs_size


@pytest.mark.parametrize(
    ("task", "message"),
    [
        ("balanse", "allowed in family 'vmas': balance"),
        ("simple_tag", "refused: its agents play against each other"),
        ("football", "refused: its scripted opponents draw random numbers"),
        ("simple_reference,limit=5", "refused: its agents have actions of speech"),
        ("balance,n_agent=4", "did you mean n_agents?"),
        ("balance,levels=4", "allowed: 3, 5, 7, 9"),
        ("balance,n_agents=1", "from 2 to 64"),
        ("navigation,n_agents=2,agents_with_same_goal=3,collisions=false", "more than n_agents=2"),
        ("navigation,agents_with_same_goal=2", "collisions=false"),
        ("navigation,n_agents=21", "20"),
        ("discovery,n_agents=40,n_targets=25", "room for 64 together"),
        ("navigation,split_goals=true", "half of n_agents"),
    ],
)
def test_wrong_names_are_explained(task: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Task.parse(task)


def test_what_vmas_cannot_do_is_refused_at_once() -> None:
    with pytest.raises(ConfigError) as caught:
        make_env(config("balance", backend="native", mask_actions=True), 1)
    assert len(caught.value.problems) == 2


# -- pictures, imports ----------------------------------------------------------------------------------


def test_render() -> None:
    env = build("balance,n_agents=4", 2)
    env.reset(np.arange(2))
    try:
        pictures = [env.render(index) for index in range(2)]
    except EnvironmentFault as fault:
        pytest.skip(f"nothing to draw with here: {fault.what}")
    assert pictures[0].shape[2] == 3
    assert pictures[0].dtype == np.uint8
    assert not np.array_equal(*pictures)
    env.close()


def test_a_machine_without_graphics_is_told_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    env = build("balance")
    env.reset(np.array([0]))

    def fails(**_: Any) -> None:
        raise ImportError('Library "GLU" not found.')

    monkeypatch.setattr(env._package, "render", fails)
    with pytest.raises(EnvironmentFault, match="GLU") as caught:
        env.render(0)
    assert "apt install libegl1 libgl1 libglu1-mesa" in caught.value.hint


def test_the_package_is_imported_quietly_and_only_when_played(tmp_path: Path) -> None:
    code = (
        "import sys, marl_sale.envs.vmas.task, marl_sale.envs.vmas as family\n"
        "print({'vmas', 'gym'} & set(sys.modules))\n"
        "import marl_sale.envs.vmas.worlds"
    )
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", code],
        cwd=tmp_path,
        env=os.environ,
        capture_output=True,
        text=True,
    )
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_recipes_train_in_many_worlds() -> None:
    """One world alone costs what 32 cost together."""
    names = [recipe.name for recipe in list_recipes() if recipe.name.startswith("vmas/")]
    assert names
    assert all(load_recipe(name).config.train.num_envs >= 32 for name in names)
