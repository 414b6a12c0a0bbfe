"""One copy of a StarCraft II task, in a worker process; for the families `smac` and `smacv2`.

The published packages are used as they are; what has to be minded with them is minded here, and each case is
in the table of docs/env-smac.md. The two packages are never imported into one process: both define the same
maps of pysc2.
"""

import os
import random
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib import import_module, metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marl_sale.envs import _sc2_protobuf
from marl_sale.envs._board import FOOD, Piece, agent_colour, draw_board
from marl_sale.envs._findings import Finding, folder, package
from marl_sale.envs._worker import Outcome, Sizes, View
from marl_sale.errors import EnvironmentFault

_EPISODES_OF_A_GAME = 500  # a process of the game grows with time: a new one after so many
_INSTALL = {
    "smac": 'pip install --no-deps "git+https://github.com/oxwhirl/smac@d6aab33f76abc3849c50463a8592a84f59a5ef84"',
    "smacv2": "pip install --no-deps "
    '"git+https://github.com/oxwhirl/smacv2@577ab5a2cff2391f8df582da5731ea9cd6adf3c6"',
}


class Battles:
    """One game of StarCraft II, battle after battle."""

    def __init__(self, build: Callable[[int], Any], map_file: str, max_reward: float | None = None) -> None:
        """`build(seed)` makes the package's environment; the game starts with its first reset.

        `max_reward`: what rewards are scaled by; None takes it from the enemies there are.
        """
        version = require_game(map_file)
        self.notes = f"{version}; its own random draws are not repeatable"
        self._build, self._max_reward = build, max_reward
        self._env: Any = None
        self._episodes, self._under_way, self._time = 0, False, 0
        info = build(0).get_env_info()
        self.sizes = Sizes(
            info["n_agents"], info["n_actions"], info["obs_shape"], info["state_shape"], info["episode_limit"]
        )

    def reset(self, seed: int) -> View:
        # A reset within an episode counts the enemies' health into the scale of rewards once more, and a
        # first one that is repeated starts another game and leaves the former behind: so never twice.
        if self._env is None or self._under_way or self._episodes == _EPISODES_OF_A_GAME:
            self.close()
            self._env, self._episodes = self._build(seed % 2**31), 0
        self._under_way = True
        self._seed_draws(seed)
        with self._own_draws():
            shown = self._env.reset()
            self._require_unbroken()
            # smacv2 returns nothing where it had to try twice. Observations are taken once per step: taking
            # them draws numbers.
            obs = self._env.get_obs() if shown is None else shown[0]
        game = getattr(self._env, "env", self._env)  # smacv2 wraps the game
        health = sum(unit.health_max + unit.shield_max for unit in game.enemies.values())
        whole = game.n_enemies * game.reward_death_value + game.reward_win + health
        game.max_reward = whole if self._max_reward is None else self._max_reward
        self._time = 0
        return self._view(obs)

    def step(self, actions: list[int]) -> tuple[View, Outcome]:
        timeouts = self._env.timeouts
        with self._own_draws():
            reward, over, info = self._env.step(actions)
            self._require_unbroken()
            obs = self._env.get_obs()
        self._time += 1
        if over:
            self._under_way = False
            self._episodes += 1
        # The package calls both ends by one name, and counts those by the limit.
        truncated = self._env.timeouts > timeouts
        return self._view(obs), Outcome(reward, over and not truncated, truncated, info["battle_won"])

    def render(self) -> np.ndarray:
        """Units on the map: agents as discs, enemies as squares. The package's own needs a display."""
        env = self._env
        height, width = int(env.map_y), int(env.map_x)

        def cell(unit: Any) -> tuple[int, int]:
            return height - 1 - int(unit.pos.y), int(unit.pos.x)

        agents = [
            Piece(*cell(unit), "", agent_colour(index))
            for index, unit in env.agents.items()
            if unit.health > 0
        ]
        enemies = [Piece(*cell(unit), "", FOOD, "square") for unit in env.enemies.values() if unit.health > 0]
        pieces, caption = agents + enemies, f"step {self._time}   ·   {len(agents)} against {len(enemies)}"
        return draw_board(height, width, pieces, caption)

    def close(self) -> None:
        if self._env is not None:
            with suppress(Exception):  # a game that is gone already cannot be told to go
                self._env.close()
            self._env = None

    def _seed_draws(self, seed: int) -> None:
        """Python's generator, which smacv2 draws from, belongs to this copy while it plays."""
        self._draws = random.Random(seed).getstate()

    @contextmanager
    def _own_draws(self) -> Iterator[None]:
        outside = random.getstate()
        random.setstate(self._draws)
        try:
            yield
        finally:
            self._draws = random.getstate()
            random.setstate(outside)

    def _view(self, obs: Any) -> View:
        return View(obs, self._env.get_state(), self._env.get_avail_actions())

    def _require_unbroken(self) -> None:
        """The packages hide a crash of the game: they start another and call the episode lost."""
        if self._env.force_restarts:
            raise ConnectionError("StarCraft II broke off")


class Drawn(Battles):
    """Battles of SMACv2, whose teams and positions are drawn: here from the episode's seed."""

    def _seed_draws(self, seed: int) -> None:
        # The package's own seed reaches the game only; its distributions draw from generators without one.
        super()._seed_draws(seed)
        for index, owner in enumerate(_generators(self._env.env_key_to_distribution_map.values())):
            owner.rng = np.random.default_rng([seed, index])


def smac_battles(map_name: str, difficulty: str) -> Battles:
    """A copy of a map of SMAC."""
    require_package("smac")
    from smac.env import StarCraft2Env

    return Battles(lambda seed: StarCraft2Env(map_name, difficulty=difficulty, seed=seed), map_name)


def smacv2_battles(race: str, agents: int, enemies: int, difficulty: str) -> Battles:
    """A copy of a task of SMACv2, with the settings of the package's own `sc2_gen_*.yaml`."""
    require_package("smacv2")
    from smacv2.env import StarCraftCapabilityEnvWrapper

    units = TEAMS[race]

    def build(seed: int) -> Any:
        teams = {
            "dist_type": "weighted_teams",
            "unit_types": list(units),
            "weights": [unit.weight for unit in units.values()],
            "observe": True,
            "exception_unit_types": _NEVER_ALONE.get(race, []),
        }
        positions = {"dist_type": "surrounded_and_reflect", "p": 0.5, "map_x": 32, "map_y": 32}
        return StarCraftCapabilityEnvWrapper(
            map_name=f"10gen_{race}",
            difficulty=difficulty,
            seed=seed,
            conic_fov=False,
            use_unit_ranges=True,
            min_attack_range=2,
            obs_own_pos=True,
            capability_config={
                "n_units": agents,
                "n_enemies": enemies,
                "team_gen": teams,
                "start_positions": positions,
            },
        )

    return Drawn(build, "32x32_flat", smacv2_max_reward(race, enemies))


class DrawnUnit(NamedTuple):
    """A kind of unit of SMACv2: how often it is drawn, and its health and shield."""

    weight: float
    health: float


TEAMS = {
    "terran": {
        "marine": DrawnUnit(0.45, 45),
        "marauder": DrawnUnit(0.45, 125),
        "medivac": DrawnUnit(0.1, 150),
    },
    "protoss": {
        "stalker": DrawnUnit(0.45, 160),
        "zealot": DrawnUnit(0.45, 150),
        "colossus": DrawnUnit(0.1, 350),
    },
    "zerg": {
        "zergling": DrawnUnit(0.45, 35),
        "hydralisk": DrawnUnit(0.45, 80),
        "baneling": DrawnUnit(0.1, 30),
    },
}


_NEVER_ALONE = {"terran": ["medivac"], "zerg": ["baneling"]}
"""Units that never make up a whole team."""


def smacv2_max_reward(race: str, enemies: int) -> float:
    """The reward of a battle that kills all enemies, on average over teams: 200 + enemies (10 + health).

    The package takes the health of the first team that a copy happens to draw, so that each copy scales its
    rewards differently (580 to 740 on terran_5_vs_5). terran_5_vs_5: 200 + 5 (10 + 91.5) = 707.5.
    """
    return 200 + enemies * (10 + sum(unit.weight * unit.health for unit in TEAMS[race].values()))


def _generators(distributions: Iterable[Any]) -> Iterator[Any]:
    """Every object with a generator among distributions and the distributions within them."""
    for distribution in distributions:
        inside = vars(distribution)
        if "rng" in inside:
            yield distribution
        yield from _generators(value for value in inside.values() if hasattr(value, "generate"))


_GET_GAME = "export SC2PATH=FOLDER, the folder with Versions and Maps (docs/env-smac.md: how to get it)"
_GET_MAPS = "copy the packages' SMAC_Maps folder to $SC2PATH/Maps (docs/env-smac.md)"


def _game_folder() -> Path:
    return Path(os.environ.get("SC2PATH") or Path.home() / "StarCraftII")


def findings(name: str) -> Iterator[Finding]:
    """What a family needs, for `marl-sale doctor`; nothing of it is imported."""
    yield package("pysc2")
    found = package(name, _INSTALL[name])
    files = metadata.files(name) or [] if found.ok else []
    if found.ok and not any(file.match(f"{name}/env/starcraft2/*.py") for file in files):
        found = replace(
            found,
            ok=False,
            found=f"{found.found}, another project",
            fix=f"pip uninstall {name}; {_INSTALL[name]}",
        )
    yield found
    yield folder("StarCraft II", _game_folder() / "Versions", _GET_GAME)
    yield folder("maps", _game_folder() / "Maps/SMAC_Maps", _GET_MAPS)


def require_game(map_file: str) -> str:
    """The game's version. Raises EnvironmentFault where it, or the map, is not installed."""
    here = _game_folder()
    if not (here / "Versions").is_dir():
        raise EnvironmentFault(
            f"StarCraft II is not installed in {here}",
            _GET_GAME,
        )
    file = here / "Maps/SMAC_Maps" / f"{map_file}.SC2Map"
    if not file.is_file():
        raise EnvironmentFault(
            f"the map {map_file} of SMAC is not installed: there is no {file}",
            _GET_MAPS,
        )
    from pysc2.run_configs import get, lib

    build = get().version.build_version
    names = [known.game_version for known in lib.VERSIONS.values() if known.build_version == build]
    return f"StarCraft II {'/'.join(names)} (build {build})" if names else f"StarCraft II build {build}"


def require_package(name: str) -> None:
    """EnvironmentFault where the package of this name is not installed, or is another one of that name."""
    _sc2_protobuf.install()
    try:
        import_module(f"{name}.env.starcraft2.starcraft2")
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] != name:
            raise
        hint = f"{_INSTALL[name]}   (make install-sc2 in a clone does it all)"
        if find_spec(name) is None:
            raise EnvironmentFault(f"the package {name!r} is not installed", hint) from None
        raise EnvironmentFault(
            f"the installed package {name!r} {metadata.version(name)} is another project of that name, "
            "not the StarCraft Multi-Agent Challenge",
            f"pip uninstall {name}, then {hint}",
        ) from None
