"""The oracle of micro: the environments of `smac` and `smacv2` themselves, on our units.

The packages reset, step, observe and reward with their own code; only the connection to the game is replaced.
What they show is kept in data/micro.npz, which guards our views where the packages are not installed:

    python tests/envs/micro_package.py
"""

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from marl_sale.envs import _sc2_protobuf
from marl_sale.envs.micro import scenario_of
from marl_sale.envs.micro.battle import Battle
from marl_sale.envs.micro.combat import NOISE_PERIOD
from marl_sale.envs.micro.maps import SMAC_MAPS
from marl_sale.envs.micro.smacv2 import RACES
from marl_sale.envs.micro.terrain import SIZE
from marl_sale.envs.micro.units import KINDS, UNITS
from marl_sale.spec import Observation, Transition

STORED = Path(__file__).parent / "data" / "micro.npz"
RANDOM_TEAMS = tuple(f"{race}_{size}" for race in RACES for size in ("5_vs_5", "10_vs_11"))
GAME_IDS = {
    "baneling": 9,
    "colossus": 4,
    "hydralisk": 107,
    "marauder": 51,
    "marine": 48,
    "medivac": 54,
    "spine_crawler": 98,
    "stalker": 74,
    "zealot": 73,
    "zergling": 105,
}
"""Types of enemies; agents have types of their own, numbered by the map in alphabetical order."""
_MAP_TYPES = 300


class Moment(NamedTuple):
    """One state of one battle: ours, and what the package shows of it."""

    units: np.ndarray
    kind: np.ndarray
    last_actions: np.ndarray
    sighted_by: np.ndarray
    turns: np.ndarray
    obs: np.ndarray
    state: np.ndarray
    avail_actions: np.ndarray


class _Controller:
    """The game's side of the connection: answers with the units of a battle."""

    def __init__(self, battle: Battle) -> None:
        self._battle = battle

    def observe(self) -> Any:
        raw = SimpleNamespace(units=self.units())
        return SimpleNamespace(observation=SimpleNamespace(raw_data=raw))

    def units(self) -> list[Any]:
        """Those alive; agents in the reverse order, as the packages sort them themselves."""
        combat = self._battle.combat
        agents = sorted({kind for kinds in combat.scenario.agents for kind in kinds})
        types = sorted(RACES["terran"] + RACES["protoss"] + RACES["zerg"])
        if combat.scenario.rules.package == "smac":
            types = agents
        first = _MAP_TYPES - len(types)
        units = []
        for tag, row in enumerate(combat.units[:, :, 0].T.tolist()):
            x, y, health, shield, cooldown, energy, _ = row
            kind, ours = KINDS[int(combat.kind[tag, 0])], tag < combat.agents
            units.append(
                SimpleNamespace(
                    tag=tag + 1,
                    owner=1 if ours else 2,
                    unit_type=first + types.index(kind) if ours else GAME_IDS[kind],
                    pos=SimpleNamespace(x=x, y=y, z=0.0),
                    health=health,
                    health_max=UNITS[kind].health,
                    shield=shield,
                    shield_max=UNITS[kind].shield,
                    weapon_cooldown=cooldown,
                    energy=energy,
                )
            )
        units = units[: combat.agents][::-1] + units[combat.agents :]
        return [unit for unit in units if unit.health > 0]

    def data(self) -> Any:
        return SimpleNamespace(units=range(_MAP_TYPES))

    def step(self, count: int) -> None:
        pass

    actions = debug = step


def package_env(battle: Battle) -> Any:
    """A new environment of the package, connected to copy 0 of ours instead of to the game."""
    scenario = battle.combat.scenario
    _sc2_protobuf.install()
    if scenario.rules.package == "smac":
        from smac.env import StarCraft2Env

        env = inner = StarCraft2Env(map_name=scenario.name)
    else:
        from smacv2.env.starcraft2 import starcraft2
        from smacv2.env.starcraft2.wrapper import StarCraftCapabilityEnvWrapper

        # The package shuffles who looks first: here, in our order.
        starcraft2.random = SimpleNamespace(
            shuffle=lambda agents: agents.sort(key=turns(battle).tolist().__getitem__)
        )
        race, agents, _, enemies = scenario.name.split("_")
        kinds = list(RACES[race])
        team = {
            "dist_type": "weighted_teams",
            "unit_types": kinds,
            "weights": [0.45, 0.45, 0.1],
            "observe": True,
        }
        place = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": SIZE, "map_y": SIZE}
        env = StarCraftCapabilityEnvWrapper(
            capability_config={
                "n_units": int(agents),
                "n_enemies": int(enemies),
                "team_gen": team,
                "start_positions": place,
            },
            map_name=f"10gen_{race}",
            use_unit_ranges=True,
            min_attack_range=2,
            obs_own_pos=True,
        )
        inner = env.env

    def launch() -> None:
        inner._controller = _Controller(battle)
        inner.map_x = inner.map_y = inner.max_distance_x = inner.max_distance_y = SIZE
        inner.pathing_grid = scenario.terrain.open()

    inner._launch = launch
    return env


def turns(battle: Battle) -> Tensor:
    """The order in which our agents look now."""
    combat = battle.combat
    return combat.noise[int(battle._time[0]) % NOISE_PERIOD, : combat.agents, 0]


class Compared(NamedTuple):
    """What both sides say after a step; at the start no reward and no end."""

    battle: Battle
    ours: Observation
    theirs: tuple[np.ndarray, np.ndarray, np.ndarray]
    """Observations, state and available actions."""
    done: Transition | None = None
    reward: float = 0.0
    ended: bool = False
    won: bool = False


def played(task: str, seed: int) -> Iterator[Compared]:
    """One episode in both: agents attack (heal) more than by chance, and in odd episodes drift to the west.

    The packages themselves assert that the actions are available.
    """
    scenario = scenario_of(task)
    assert scenario is not None
    battle = Battle(scenario, 1)
    package = package_env(battle)
    generator = torch.Generator().manual_seed(seed)
    shown = battle.reset(np.array([seed]))
    yield Compared(battle, shown, _shown(package, *package.reset()))
    ended = False
    while not ended:
        weight = shown.avail_actions[0].float()
        weight[:, 6:] *= 3
        weight[:, 5] *= 1 + 3 * (seed % 2)
        actions = torch.multinomial(weight, 1, generator=generator).T
        done = battle.step(actions)
        shown = done.observation
        reward, ended, info = package.step(actions[0].tolist())
        # Once a step: smacv2 remembers what it has shown.
        theirs = _shown(package, package.get_obs(), package.get_state())
        yield Compared(battle, shown, theirs, done, reward, ended, bool(info["battle_won"]))


def _shown(
    package: Any, obs: list[np.ndarray], state: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    return np.stack(obs), state, np.array(package.get_avail_actions(), dtype=bool)


def moments(task: str, seed: int, every: int) -> Iterator[Moment]:
    """Some of the states of an episode."""
    for number, (battle, _, theirs, *_) in enumerate(played(task, seed)):
        if number % every == 0:
            yield Moment(
                battle.combat.units[..., 0].numpy().copy(),
                battle.combat.kind[..., 0].numpy().copy(),
                battle._last_actions[:, 0].numpy().copy(),
                battle._sighted_by[:, 0].numpy().copy(),
                turns(battle).numpy().copy(),
                *theirs,
            )


def main() -> None:
    """Keeps five states of each task, the large ones two."""
    kept: dict[str, np.ndarray] = {}
    for task in (*SMAC_MAPS, *RANDOM_TEAMS):
        large = len(scenario_of(task).agents) > 12  # type: ignore[union-attr]
        for number, moment in zip(range(2 if large else 5), moments(task, 4, 8), strict=False):
            kept |= {f"{task}/{number}/{name}": value for name, value in moment._asdict().items()}
    STORED.parent.mkdir(exist_ok=True)
    np.savez_compressed(STORED, **kept)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
