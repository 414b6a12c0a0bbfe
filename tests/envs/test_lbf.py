"""The original backend of Level-Based Foraging, and names of tasks, against the package itself."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lbf_package import package_game
from lbforaging.foraging.environment import Action

from marl_sale.config import schema
from marl_sale.envs._load import make_env
from marl_sale.envs.lbf.original import OriginalForaging
from marl_sale.envs.lbf.task import TIME_LIMIT, Task
from marl_sale.errors import ConfigError

LOAD = Action.LOAD.value


def build(
    task: str, num_envs: int = 1, *, mask_actions: bool = False, scale_obs: bool = False
) -> OriginalForaging:
    env = make_env(
        schema.Env(
            family="lbf",
            task=task,
            backend="original",
            mask_actions=mask_actions,
            scale_obs=scale_obs,
            bootstrap_at_time_limit=False,
        ),
        num_envs,
    )
    assert isinstance(env, OriginalForaging)
    return env


def forager(rng: np.random.Generator, avail: np.ndarray) -> list[int]:
    """Loads whenever it can, and is otherwise random, useless actions included."""
    return [LOAD if row[LOAD] and rng.random() < 0.9 else int(rng.integers(len(Action))) for row in avail]


@pytest.mark.parametrize(
    "name",
    [
        "5x5-2p-1f-coop",
        "8x8-2p-2f-coop",
        "2s-8x8-2p-2f-coop",
        "1s-6x6-4p-3f",
        "10x10-3p-5f",
        "15x15-4p-5f",
        "3s-12x12-5p-4f",
        "5x5-2p-4f",
        "6x9-3p-2f",
        "2s-9x6-3p-2f",
        "8x8-3p-2f-ind-pen",
    ],
)
def test_equals_the_package_bit_for_bit(name: str) -> None:
    """Several episodes in the same copies, each against a new environment of the package."""
    task, copies = Task.parse(name), 3
    env = build(name, copies, mask_actions=True)
    for first in range(0, 12, copies):
        seeds = np.arange(first, first + copies)
        rngs = [np.random.default_rng(seed) for seed in seeds]
        games = [package_game(task) for _ in seeds]
        expected = [np.stack(game.reset(seed=int(seed))[0]) for game, seed in zip(games, seeds, strict=True)]
        shown = env.reset(seeds)
        over = [False] * copies
        while not all(over):
            avail = shown.avail_actions.numpy()
            actions = [forager(rng, rows) for rng, rows in zip(rngs, avail, strict=True)]
            for k, game in enumerate(games):
                assert np.array_equal(shown.obs[k].numpy(), expected[k])
                assert np.array_equal(shown.state[k].numpy(), expected[k].ravel())
                for player, row in zip(game.players, avail[k], strict=True):
                    assert [Action(a) for a in row.nonzero()[0]] == game._valid_actions[player]
            done = env.step(torch.tensor(actions))
            for k, game in enumerate(games):
                if over[k]:
                    continue
                obs, rewards, over[k], _, _ = game.step(actions[k])
                expected[k] = np.stack(obs)
                everything = game.field.sum() == 0
                assert float(done.reward[k]) == np.float32(sum(rewards))
                assert bool(done.terminated[k]) == bool(done.success[k]) == (over[k] and everything)
                assert bool(done.truncated[k]) == (over[k] and not everything)
            shown = done.observation


def test_foragers_collect_everything_for_a_return_of_one() -> None:
    """Both ends of an episode occur above, and the rewards of a complete one add up to 1."""
    env = build("5x5-2p-1f-coop", 32, mask_actions=True)
    rng = np.random.default_rng(0)
    shown, total = env.reset(np.arange(32)).avail_actions, torch.zeros(32)
    for _ in range(TIME_LIMIT):
        done = env.step(torch.tensor([forager(rng, rows) for rows in shown.numpy()]))
        shown, total = done.observation.avail_actions, total + done.reward
    assert 4 < int(done.success.sum()) < 32
    assert torch.equal(done.success, done.terminated)
    assert torch.equal(done.truncated, ~done.success)
    torch.testing.assert_close(total, done.success.float())


def test_last_food_on_the_last_step_is_a_success() -> None:
    env = build("5x5-2p-1f-coop")
    env.reset(np.array([0]))
    game = env._games[0]
    ((row, col),) = game.foods
    game.players[0].position, game.players[1].position = (row - 1, col), (row + 1, col)
    game._gen_valid_moves()
    game.current_step = TIME_LIMIT - 1
    done = env.step(torch.full((1, 2), LOAD))
    assert bool(done.terminated)
    assert bool(done.success)
    assert not bool(done.truncated)
    assert float(done.reward) == 1.0


def test_observations_are_divided_by_the_longer_side() -> None:
    raw, scaled = build("6x9-3p-2f"), build("6x9-3p-2f", scale_obs=True)
    one, other = raw.reset(np.array([5])), scaled.reset(np.array([5]))
    assert torch.equal(one.obs / 9, other.obs)
    assert torch.equal(one.state / 9, other.state)
    assert "divided by 9" in scaled.spec.notes
    assert "divided" not in raw.spec.notes


def test_masks_are_a_choice_that_the_spec_tells() -> None:
    published, masked = build("8x8-2p-2f-coop"), build("8x8-2p-2f-coop", mask_actions=True)
    assert bool(published.reset(np.array([1])).avail_actions.all())
    assert not bool(masked.reset(np.array([1])).avail_actions.all())
    assert "published protocol" in published.spec.notes
    assert "masked" in masked.spec.notes


def test_a_useless_action_does_nothing() -> None:
    """What makes the published protocol, all actions available, playable."""
    idle, useless = build("8x8-2p-2f-coop"), build("8x8-2p-2f-coop", mask_actions=True)
    idle.reset(np.array([1]))
    refused = (~useless.reset(np.array([1])).avail_actions).int().argmax(dim=2)
    assert bool((refused > 0).all())  # both agents have an action that is unavailable
    assert torch.equal(
        idle.step(torch.zeros(1, 2, dtype=torch.int64)).observation.obs, useless.step(refused).observation.obs
    )


def levels(name: str) -> tuple[list[int], list[int]]:
    """Food levels of 200 episodes, and the largest that version 3 allows."""
    env = build(name, 200)
    env.reset(np.arange(200))
    found = [max(game.foods.values()) for game in env._games]
    return found, [sum(sorted(player.level for player in game.players)[:3]) for game in env._games]


def test_version_2_never_draws_the_highest_food_level() -> None:
    third, allowed = levels("Foraging-10x10-4p-3f-v3")
    assert max(f - a for f, a in zip(third, allowed, strict=True)) == 0
    second, allowed = levels("Foraging-10x10-4p-3f-v2")
    assert max(f - a for f, a in zip(second, allowed, strict=True)) == -1
    assert "version 2" in build("10x10-4p-3f-v2").spec.notes


def test_version_2_with_coop_equals_version_3() -> None:
    second, third = build("2s-8x8-2p-2f-coop-v2", 20), build("2s-8x8-2p-2f-coop", 20)
    assert torch.equal(second.reset(np.arange(20)).obs, third.reset(np.arange(20)).obs)


tasks = st.integers(5, 99).flatmap(
    lambda side: st.builds(
        Task,
        rows=st.just(side),
        cols=st.integers(5, 99),
        players=st.integers(1, 9),
        foods=st.integers(1, 9),
        sight=st.integers(1, side),
        coop=st.booleans(),
        version=st.sampled_from([2, 3]),
        max_food_level=st.sampled_from([None, 1]),
        penalty=st.sampled_from([0.0, 0.1]),
    )
)


@settings(deadline=None)
@given(tasks)
def test_names_round_trip(task: Task) -> None:
    assert Task.parse(str(task)) == task
    published = f"Foraging-{task}" + ("-v3" if task.version == 3 else "")
    assert Task.parse(published) == task


def test_equal_tasks_have_one_name() -> None:
    for name in ("Foraging-8x8-2p-2f-coop-v3", "8s-8x8-2p-2f-coop", "9s-8x8-2p-2f-coop-v3"):
        assert build(name).spec.task == "8x8-2p-2f-coop"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("8x8", "found '8x8', allowed in family 'lbf': .*<players>p"),
        ("Foraging-grid-8x8-2p-2f-v3", "allowed in family"),
        ("Foraging-8x8-2p-2f-v1", "allowed in family"),
        ("8x8-02p-2f", "allowed in family"),
        ("4x8-2p-2f", "4x8: the smallest grid is 5x5"),
        ("5x5-10p-11f", r"10p: at most 9 players(?s:.*)11f: at most 9 foods"),
    ],
)
def test_wrong_names_are_explained(name: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message) as caught:
        Task.parse(name)
    assert "Foraging-2s-8x8-2p-2f-coop-v3" in caught.value.hint


def test_render() -> None:
    env = build("8x8-2p-2f-coop", 2)
    env.reset(np.array([0, 1]))
    picture = env.render(0)
    assert picture.shape == (432, 400, 3)
    assert picture.dtype == np.uint8
    assert not np.array_equal(picture, env.render(1))
    assert build("15x15-4p-5f").reset(np.array([0])).obs.shape == (1, 4, 27)
