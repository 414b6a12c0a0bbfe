"""The rules of micro: who hits whom how hard, who heals, walls, wins, rewards, starts."""

import numpy as np
import pytest
import torch
from torch import Tensor

from benchmarks.micro import focus_fire, random_play, win_rate
from marl_sale.config import schema
from marl_sale.envs._load import make_env
from marl_sale.envs.micro import scenario_of
from marl_sale.envs.micro.battle import Battle
from marl_sale.envs.micro.maps import SMAC_MAPS
from marl_sale.envs.micro.smacv2 import RACES
from marl_sale.envs.micro.terrain import SIZE, Terrain
from marl_sale.envs.micro.units import KINDS
from marl_sale.errors import ConfigError

STOP, NORTH, EAST, FIRST = 1, 2, 4, 6
FAR = 31.0


def battle(task: str, seeds: int = 1) -> Battle:
    scenario = scenario_of(task)
    assert scenario is not None
    env = Battle(scenario, seeds)
    env.reset(np.arange(seeds))
    return env


def put(env: Battle, **places: tuple[float, float]) -> None:
    """Put units of copy 0 somewhere (`a0`: the first agent, `e1`: the second enemy); the others are dead."""
    keep = []
    for name, place in places.items():
        row = int(name[1:]) + (env.combat.agents if name[0] == "e" else 0)
        env.combat.place[:, row, 0] = torch.tensor(place)
        keep.append(row)
    lost = [row for row in range(env.combat.count) if row not in keep]
    env.combat.health[lost, 0] = 0
    env.combat.shield[lost, 0] = 0


def act(env: Battle, *actions: int) -> Tensor:
    """One step in which the first agents do this, and the others stop if they live."""
    rest = (env.combat.health[: env.spec.n_agents, 0] > 0).long()
    rest[: len(actions)] = torch.tensor(actions)
    return env.step(rest[None]).reward


def test_a_marine_takes_six_health_every_shot() -> None:
    env = battle("3m")
    put(env, a0=(10, 16), e0=(14, 16))
    env.combat.health[3, 0] = 1000
    lost = []
    for _ in range(10):
        before = float(env.combat.health[3, 0])
        act(env, FIRST)
        lost.append(before - float(env.combat.health[3, 0]))
    assert set(lost) <= {0.0, 6.0}
    assert 5 <= sum(loss > 0 for loss in lost) <= 7  # 80 loops, 12.7 to 15.7 between two shots


@pytest.mark.parametrize(
    ("task", "agent", "enemy", "health", "shield"),
    [
        ("MMM", "marine", "marauder", 5, 0),  # armour
        ("MMM", "marauder", "marauder", 19, 0),  # bonus to armored, armour
        ("2s3z", "stalker", "stalker", 0, 18),  # shields have no armour
        ("2s3z", "zealot", "zealot", 0, 16),  # two hits
        ("6h_vs_8z", "hydralisk", "zealot", 0, 12),
    ],
)
def test_first_shots(task: str, agent: str, enemy: str, health: float, shield: float) -> None:
    env = battle(task)
    mine = [kinds[0] for kinds in env.combat.scenario.agents].index(agent)
    other = [kinds[0] for kinds in env.combat.scenario.enemies].index(enemy)
    put(env, **{f"a{mine}": (12.0, 16.0), f"e{other}": (13.0, 16.0)})
    row = env.spec.n_agents + other
    before = env.combat.health[row, 0].clone(), env.combat.shield[row, 0].clone()
    orders = [0] * env.spec.n_agents
    orders[mine] = FIRST + other
    act(env, *orders)
    assert float(before[0] - env.combat.health[row, 0]) == health
    assert float(before[1] - env.combat.shield[row, 0]) == shield


def test_a_hit_through_shields_goes_on_to_health_less_armour() -> None:
    env = battle("2s3z")
    put(env, a0=(12, 16), e2=(13, 16))
    env.combat.shield[7, 0] = 5
    act(env, FIRST + 2)
    assert float(env.combat.health[7, 0]) == 100 - (13 - 5 - 1)
    assert float(env.combat.shield[7, 0]) == 0


def test_shields_recover_after_ten_seconds_and_smac_rewards_it() -> None:
    env = battle("3s_vs_3z")
    put(env, a0=(1, 1), e0=(FAR, FAR))
    env.combat.shield[3, 0] = 10
    rewards = []
    for _ in range(25):
        env.combat.place[:, 0, 0], env.combat.place[:, 3, 0] = (
            torch.tensor([1.0, 1.0]),
            torch.tensor([FAR, FAR]),
        )
        rewards.append(float(act(env, STOP)))
    assert rewards[:20] == [0.0] * 20
    assert all(reward > 0 for reward in rewards[20:])
    assert float(env.combat.shield[3, 0]) == 15


def test_smacv2_does_not_reward_recovered_shields() -> None:
    env = battle("protoss_5_vs_5")
    put(env, a0=(1, 1), e0=(FAR, FAR))
    env.combat.shield[5, 0] = 10
    for _ in range(25):
        env.combat.place[:, 0, 0], env.combat.place[:, 5, 0] = (
            torch.tensor([1.0, 1.0]),
            torch.tensor([FAR, FAR]),
        )
        assert float(act(env, STOP)) == 0
    assert float(env.combat.shield[5, 0]) == 15


def test_those_who_hit_the_ground_only_leave_flyers_alone() -> None:
    env = battle("MMM")
    put(env, a0=(1, 9), a9=(14, 16), e7=(13, 16))  # our medivac beside their marauder
    for _ in range(6):
        act(env)
    assert float(env.combat.health[9, 0]) == 150
    env = battle("MMM")
    put(env, a0=(13, 16), e0=(31, 9), e9=(14, 16))  # our marauder told to shoot their medivac
    for _ in range(3):
        act(env, FIRST + 9)
    assert float(env.combat.health[19, 0]) == 150


def test_medivacs_heal_for_energy() -> None:
    env = battle("MMM")
    put(env, a2=(12, 16), a9=(13, 16), e0=(FAR, 16))
    env.combat.health[2, 0] = 20
    act(env, 0, 0, STOP, 0, 0, 0, 0, 0, 0, FIRST + 2)
    assert float(env.combat.health[2, 0]) == 20 + 2 * 2.25
    assert float(env.combat.energy[9, 0]) == 50 + 2 * (0.140625 - 0.75)


def test_enemy_medivacs_find_the_wounded_themselves() -> None:
    env = battle("MMM")
    put(env, a0=(1, 16), e0=(28, 16), e9=(26, 16))
    env.combat.health[10, 0] = 20
    act(env)
    act(env)
    assert float(env.combat.health[10, 0]) > 20


def test_a_baneling_dies_with_all_foes_around_its_target_and_spares_its_mates() -> None:
    env = battle("bane_vs_bane")
    # Agents: banelings 0 to 3, zerglings 4 to 23; enemies: zerglings 0 to 19.
    put(env, a0=(16, 15), a4=(15.5, 15), e0=(16, 15.5), e1=(17, 15.5), e2=(16, 21))
    env.combat.health[24:, 0] = env.combat.health[24:, 0].clamp(max=30)
    act(env, FIRST)
    assert float(env.combat.health[0, 0]) == 0
    assert env.combat.health[[24, 25, 26], 0].tolist() == [0, 0, 30]
    assert float(env.combat.health[4, 0]) > 0


def test_a_colossus_hits_the_neighbours_of_its_target() -> None:
    env = battle("1c3s5z")
    put(env, a0=(10, 16), e4=(14, 16), e5=(14, 17.2), e6=(14, 22))
    act(env, FIRST + 4)
    shields = env.combat.shield[[13, 14, 15], 0]
    assert float(shields[0]) == float(shields[1]) == 50 - 2 * (10 + 5)
    assert float(shields[2]) == 50


def test_agents_act_on_orders_only_and_enemies_on_their_own() -> None:
    env = battle("3m", 4)
    for _ in range(env.spec.episode_limit):
        done = env.step((env.combat.health[:3] > 0).long().T)
    assert bool(done.terminated.all())
    assert not bool(done.success.any())
    assert bool((env.combat.health[3:] == 45).all())


def test_an_order_to_attack_walks_up_to_its_target() -> None:
    env = battle("2s3z")
    put(env, a2=(12, 16), e0=(17.5, 16))
    act(env, 0, 0, FIRST)
    assert float(env.combat.place[0, 2, 0]) == pytest.approx(12 + 8 * 2.25 / 16, abs=1e-4)


def test_moves_lead_at_most_two_cells_and_not_through_walls() -> None:
    env = battle("2s3z")
    put(env, a0=(12, 16), e0=(30, 9))
    act(env, EAST)
    assert env.combat.place[:, 0, 0].tolist() == pytest.approx([12 + 8 * 2.9531 / 16, 16], abs=1e-4)
    env.combat.place[:, 0, 0] = torch.tensor([12.0, 23.5])
    act(env, NORTH)
    assert 23.9 < float(env.combat.place[1, 0, 0]) < 24


@pytest.mark.parametrize(
    "task", ["corridor", "so_many_baneling", "2s_vs_1sc", "6h_vs_8z", "3m", "bane_vs_bane"]
)
def test_units_stay_on_open_cells(task: str) -> None:
    env = battle(task, 4)
    is_open = torch.from_numpy(env.combat.scenario.terrain.open())
    shown = env.reset(np.arange(4))
    generator = torch.Generator().manual_seed(0)
    for _ in range(40):
        shown = env.step(random_play(env, shown, generator)).observation
        x, y = env.combat.place.long()
        assert bool(is_open[x, y].all())


def test_enemies_find_the_way_through_the_corridor() -> None:
    env = battle("corridor")
    put(env, a0=(3, 3), e0=(27, 28), e1=(28, 27))
    for _ in range(30):
        env.combat.health[0, 0] = 100
        act(env, STOP)
    assert bool((env.combat.place[1, 6:8, 0] < 12).all())


def every_terrain() -> list[Terrain]:
    scenarios = (scenario_of(task) for task in [*SMAC_MAPS, *(f"{race}_5_vs_5" for race in RACES)])
    return sorted({s.terrain for s in scenarios if s.terrain.ways() is not None}, key=lambda t: t.rooms)


@pytest.mark.parametrize("terrain", every_terrain())
def test_every_way_ends(terrain: Terrain) -> None:
    """From corner to corner one gets everywhere: a cell as its own next corner would hold units for ever."""
    next_cell = terrain.ways()
    assert next_cell is not None
    cells = torch.from_numpy(terrain.open().ravel()).nonzero().flatten()
    start, goal = (pairs.flatten() for pairs in torch.meshgrid(cells, cells, indexing="ij"))
    here = start
    for _ in range(40):
        here = next_cell[here * SIZE**2 + goal]
    assert torch.equal(here, goal)


def test_a_win_without_shields_returns_twenty() -> None:
    env = battle("3m", 64)
    shown, total = env.reset(np.arange(64)), torch.zeros(64)
    generator = torch.Generator().manual_seed(0)
    for _ in range(env.spec.episode_limit):
        done = env.step(focus_fire(env, shown, generator))
        shown, total = done.observation, total + done.reward
    won = done.success
    assert bool(won.any())
    torch.testing.assert_close(total[won], torch.full_like(total[won], 20.0))
    assert bool((total[~won] < 11).all())


def test_medivacs_alone_have_lost() -> None:
    env = battle("MMM")
    put(env, a9=(5, 16), e0=(28, 16))
    done = env.step(torch.tensor([[0] * 9 + [STOP]]))
    assert bool(done.terminated)
    assert not bool(done.success)
    env = battle("MMM")
    put(env, a0=(5, 16), e9=(28, 16))
    done = env.step(torch.tensor([[STOP] + [0] * 9]))
    assert bool(done.success)
    assert float(done.reward) == pytest.approx(200 / (10 * 10 + 200 + 7 * 45 + 2 * 125 + 150) * 20)


def test_an_enemy_nobody_sighted_wipes_those_before_it() -> None:
    """As in smacv2; there enemies 0 and 1 are hidden by enemy 2."""
    env = battle("terran_5_vs_5")
    places = {f"a{k}": (10.0 + k / 4, 16.0) for k in range(5)}
    put(env, **places, e0=(14, 16), e1=(14, 17), e2=(31, 31), e3=(14, 18), e4=(14, 19))
    env.combat.health[5:10, 0] = 40.0
    features = env._observe().obs[0, :, 4 : 4 + 5 * 8].unflatten(1, (5, 8))
    assert features.abs().sum(-1).bool().tolist() == [[False, False, False, True, True]] * 5
    env.combat.place[:, 7, 0] = torch.tensor([14.0, 15.0])
    assert bool(env._observe().obs[0, -1].any())
    first = env._observe().obs[0, :, 4 : 4 + 5 * 8].unflatten(1, (5, 8)).abs().sum(-1).bool()
    assert bool(first.all())


def test_smacv2_teams_have_their_shares_and_never_consist_of_the_rare_kind() -> None:
    env = battle("terran_10_vs_11", 500)
    shares = [float((env.combat.kind[:10] == KINDS.index(kind)).float().mean()) for kind in RACES["terran"]]
    assert shares == pytest.approx([0.45, 0.45, 0.1], abs=0.03)
    medivac = env.combat.kind == KINDS.index("medivac")
    assert not bool(medivac[20].any())  # the extra enemy
    assert env.combat.kind[:10].sort(0).values.equal(env.combat.kind[10:20].sort(0).values)
    assert env.combat.kind[:10].equal(env.combat.kind[:10].sort(0).values)


def test_smacv2_starts_are_mirrored_or_surrounded() -> None:
    env = battle("zerg_5_vs_5", 400)
    x = env.combat.place[0]
    reflected = (x[:5] < 15.01).all(0) & (x[5:] > 16.9).all(0)
    centred = ((env.combat.place[:, :5] - 16).abs() < 2).all(0).all(0)
    assert float(reflected.float().mean()) == pytest.approx(0.5, abs=0.1)
    assert bool((reflected | centred).all())


def test_an_episode_is_the_same_in_a_large_batch() -> None:
    for task in ("2s3z", "terran_5_vs_5"):
        many, one = battle(task, 33), battle(task, 1)
        one.reset(np.array([32]))
        generator = torch.Generator().manual_seed(0)
        shown = many.reset(np.arange(33))
        for _ in range(30):
            actions = random_play(many, shown, generator)
            shown = many.step(actions).observation
            alone = one.step(actions[32:]).observation
            assert all(torch.equal(a[32], b[0]) for a, b in zip(shown, alone, strict=True))


def test_battles_go_on_outside_inference_mode() -> None:
    env = battle("2s3z", 3)
    with torch.inference_mode():
        env.reset(np.arange(3))
        env.step(torch.ones(3, 5, dtype=torch.int64))
    env.reset(np.arange(3), torch.tensor([True, False, True]))
    env.step(torch.ones(3, 5, dtype=torch.int64))
    assert env._time.tolist() == [1, 2, 1]


def test_random_play_does_not_win_and_focus_fire_does_better() -> None:
    for task in ("3m", "2s3z"):
        chance, script = win_rate(task, random_play, 32), win_rate(task, focus_fire, 32)
        assert chance[0] <= 0.1
        assert script[1] > chance[1]


def config(task: str, *, mask_actions: bool = True) -> schema.Env:
    return schema.Env(
        family="micro",
        task=task,
        backend="native",
        mask_actions=mask_actions,
        scale_obs=False,
        bootstrap_at_time_limit=False,
    )


@pytest.mark.parametrize("task", [*SMAC_MAPS, "zerg_20_vs_23"])
def test_specs_say_that_this_is_not_the_game(task: str) -> None:
    spec = make_env(config(task), 1).spec
    assert spec.task == task
    assert spec.notes.startswith("not StarCraft II; rules ")
    assert spec.masks_actions
    assert spec.has_success


def test_wrong_names_and_masks_are_explained_together() -> None:
    with pytest.raises(ConfigError, match=r"mask_actions(?s:.*)found '3mm'") as caught:
        make_env(config("3mm", mask_actions=False), 1)
    assert "did you mean '3m'" in caught.value.hint


def test_pictures() -> None:
    env = battle("corridor", 2)
    picture = env.render(0)
    assert picture.shape == (32 * 14 + 28, 32 * 14, 3)
    assert picture.dtype == np.uint8
    env.step(torch.full((2, 6), STOP))
    assert not np.array_equal(picture, env.render(0))
