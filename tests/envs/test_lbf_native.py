"""Native Level-Based Foraging: rules against the published package, starts against its distribution."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from lbf_package import package_game
from lbforaging.foraging.environment import Action
from torch import Tensor

from marl_sale.envs.lbf.native import NativeForaging
from marl_sale.envs.lbf.original import OriginalForaging
from marl_sale.envs.lbf.task import LOAD, N_ACTIONS, TIME_LIMIT, Task

TRANSITIONS = 9_000
"""Compared for each task below, at least."""
TASKS = (
    "5x5-2p-1f-coop",
    "8x8-2p-2f-coop",
    "8x8-2p-3f",
    "2s-8x8-2p-2f-coop",
    "1s-6x6-4p-3f",
    "10x10-4p-3f-pen",
    "2s-12x12-5p-4f-ind-pen",
    "10x10-3p-5f-v2",
    "15x15-4p-5f",
    "5x5-2p-4f",
    "2s-6x9-3p-2f",
    "9x6-6p-3f",
)
COPIES = 64


def native(task: Task | str, num_envs: int, *, mask_actions: bool = True) -> NativeForaging:
    task = Task.parse(task) if isinstance(task, str) else task
    return NativeForaging(task, mask_actions, scale_obs=False, num_envs=num_envs)


def put(env: NativeForaging, index: int, game: Any) -> None:
    """Give one environment the positions of the package's game."""
    cols, nowhere = game.cols, (game.rows + 2) * game.cols
    env.cell[index] = torch.tensor([int(p.position[0]) * cols + int(p.position[1]) for p in game.players])
    env.level[index] = torch.tensor([float(p.level) for p in game.players])
    env.food_cell[index], env.food_level[index], env.time[index] = nowhere, 0.0, 0
    for k, (row, col) in enumerate(np.argwhere(game.field).tolist()):
        env.food_cell[index, k], env.food_level[index, k] = row * cols + col, float(game.field[row, col])
    env.spawned[index] = float(game._food_spawned)


def foragers(rng: np.random.Generator, avail: Tensor) -> Tensor:
    """Load whenever they can; otherwise anything, useless actions included."""
    random = torch.from_numpy(rng.integers(N_ACTIONS, size=avail.shape[:2]))
    eager = avail[..., LOAD] & torch.from_numpy(rng.random(avail.shape[:2]) < 0.8)
    return random.masked_fill(eager, LOAD)


def compare(task: Task, transitions: int) -> tuple[int, int]:
    """Play both from the package's starts; how many steps were compared, how many of them with a reward."""
    env, games = native(task, COPIES), [package_game(task) for _ in range(COPIES)]
    rng, compared, rewarded, seed = np.random.default_rng(0), 0, 0, 0
    while compared < transitions:
        env.reset(np.arange(COPIES))
        expected = []
        for index, game in enumerate(games):
            for player in game.players:
                player.position = None
            expected.append(np.stack(game.reset(seed=seed)[0]))
            put(env, index, game)
            seed += 1
        shown, over = env._observe(), [False] * COPIES
        while not all(over):
            actions = foragers(rng, shown.avail_actions)
            for index, game in enumerate(games):
                assert np.array_equal(shown.obs[index].numpy(), expected[index])
                for player, row in zip(game.players, shown.avail_actions[index], strict=True):
                    assert [Action(a) for a in row.nonzero().flatten().tolist()] == game._valid_actions[
                        player
                    ]
            done = env.step(actions)
            for index, game in enumerate(games):
                if over[index]:
                    assert float(done.reward[index]) == 0
                    continue
                obs, rewards, over[index], _, _ = game.step(actions[index].tolist())
                expected[index], everything = np.stack(obs), bool(game.field.sum() == 0)
                assert float(done.reward[index]) == pytest.approx(sum(rewards), abs=1e-6)
                assert bool(done.terminated[index]) == bool(done.success[index]) == everything
                assert bool(done.truncated[index]) == (over[index] and not everything)
                compared += 1
                rewarded += sum(rewards) > 0
            shown = done.observation
    return compared, rewarded


@pytest.mark.parametrize("name", TASKS)
def test_equals_the_package_on_every_transition(name: str) -> None:
    compared, rewarded = compare(Task.parse(name), TRANSITIONS)
    assert compared >= TRANSITIONS
    assert rewarded >= 10


def test_equals_the_package_with_other_levels_and_penalty() -> None:
    task = replace(
        Task.parse("7x7-3p-3f"), max_player_level=4, min_food_level=2, max_food_level=5, penalty=0.25
    )
    assert compare(task, 3_000)[1] >= 10


def test_transitions_compared_are_a_hundred_thousand() -> None:
    assert len(TASKS) * TRANSITIONS >= 100_000


def starts(env: Any, count: int) -> Tensor:
    """Observations of the first agent at the start of `count` episodes (all levels and places are in it)."""
    return torch.cat(
        [
            env.reset(np.arange(first, first + env.num_envs)).obs[:, 0]
            for first in range(0, count, env.num_envs)
        ]
    )


@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("5x5-2p-1f-coop", 4_000),
        ("6x6-3p-3f", 4_000),
        ("8x8-4p-2f-v2", 4_000),
        ("6x9-2p-2f-ind", 4_000),
        ("5x5-2p-4f", 500),  # four foods never fit, which takes the package a while to find out
    ],
)
def test_starts_have_the_packages_distribution(name: str, count: int) -> None:
    """Every row, column and level at the start takes each value as often, within sampling error."""
    task = Task.parse(name)
    ours = starts(native(task, 500), count)
    theirs = starts(OriginalForaging(task, True, False, 500), count)
    for entry in range(task.obs_size):
        for value in torch.cat([ours[:, entry], theirs[:, entry]]).unique():
            shares = [(x[:, entry] == value).double().mean().item() for x in (ours, theirs)]
            p = sum(shares) / 2
            error = (2 * p * (1 - p) / count) ** 0.5
            assert abs(shares[0] - shares[1]) <= 4.5 * error, (entry, value.item(), shares)


def test_an_episode_is_the_same_in_any_batch() -> None:
    alone, many = native("2s-8x8-3p-2f", 1), native("2s-8x8-3p-2f", 50)
    crowd = many.reset(np.arange(100, 150))
    for index in (0, 17, 49):
        one = alone.reset(np.array([100 + index]))
        assert torch.equal(one.obs[0], crowd.obs[index])


def test_what_was_shown_is_not_written_to_later() -> None:
    env = native("8x8-2p-2f-coop", 4)
    shown = env.reset(np.arange(4))
    kept = [x.clone() for x in shown]
    env.step(torch.full((4, 2), 1))
    env.step(torch.full((4, 2), 4))
    assert all(torch.equal(a, b) for a, b in zip(shown, kept, strict=True))


def test_games_go_on_outside_inference_mode() -> None:
    """Playing is done inside; pictures of a game are drawn outside."""
    env = native("8x8-2p-2f-coop", 3)
    with torch.inference_mode():
        env.reset(np.arange(3))
        env.step(torch.full((3, 2), 1))
    env.reset(np.arange(3), torch.tensor([True, False, True]))
    env.step(torch.full((3, 2), 2))
    assert env.time.tolist() == [1, 2, 1]


def test_time_limit_freezes_the_game() -> None:
    env = native("8x8-2p-2f-coop", 2)
    env.reset(np.array([0, 1]))
    for _ in range(TIME_LIMIT):
        done = env.step(torch.zeros(2, 2, dtype=torch.int64))
    assert done.truncated.all()
    after = env.step(torch.full((2, 2), 1))
    assert torch.equal(after.observation.obs, done.observation.obs)
    assert after.truncated.all()
    assert not after.terminated.any()


def test_pictures_of_both_backends_agree() -> None:
    game = OriginalForaging(Task.parse("8x8-2p-2f-coop"), True, False, 1)
    game.reset(np.array([3]))
    env = native("8x8-2p-2f-coop", 1)
    env.reset(np.array([3]))
    put(env, 0, game._games[0])
    assert np.array_equal(env.render(0), game.render(0))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_plays_the_same_episodes() -> None:
    task = Task.parse("2s-8x8-3p-2f")
    on_cpu, on_cuda = native(task, 8), NativeForaging(task, True, False, 8, "cuda")
    rng = np.random.default_rng(0)
    here, there = on_cpu.reset(np.arange(8)), on_cuda.reset(np.arange(8))
    for _ in range(TIME_LIMIT):
        assert torch.equal(here.obs, there.obs.cpu())
        actions = foragers(rng, here.avail_actions)
        here, there = on_cpu.step(actions).observation, on_cuda.step(actions.cuda()).observation
