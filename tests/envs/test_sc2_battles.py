"""What has to be minded with the packages of SMAC and SMACv2, on an environment that only seems to be theirs.

Each test would fail without the handling; neither the packages nor the game are needed.
"""

import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from marl_sale.envs import _sc2
from marl_sale.envs._sc2 import Battles, Drawn, findings, require_game, require_package, smacv2_max_reward
from marl_sale.errors import EnvironmentFault

LIMIT = 4


class Scripted:
    """An environment of the packages: `ends` maps the number of an env step to how the battle ends there."""

    def __init__(self, seed: int, ends: dict[int, str], returns_none: bool = False) -> None:
        self.seed, self._ends, self._returns_none = seed, ends, returns_none
        self.force_restarts = self.timeouts = self.resets = self.observed = 0
        self.n_enemies, self.reward_death_value, self.reward_win = 2, 10, 200
        self.max_reward, self.map_x, self.map_y = 0.0, 32, 32
        place = SimpleNamespace(x=3.0, y=4.0)
        unit = SimpleNamespace(health_max=40, shield_max=5, health=1, pos=place)
        self.enemies, self.agents = {0: unit, 1: unit}, {0: unit}
        self.closed = False

    def get_env_info(self) -> dict[str, int]:
        return {"n_agents": 1, "n_actions": 2, "obs_shape": 3, "state_shape": 2, "episode_limit": LIMIT}

    def reset(self) -> Any:
        self.resets, self._time = self.resets + 1, 0
        self.drawn = random.random()
        if self._ends.get(0) == "breaks":
            self.force_restarts += 1
        return None if self._returns_none else (self.get_obs(), self.get_state())

    def get_obs(self) -> list[np.ndarray]:
        self.observed += 1
        return [np.full(3, random.random())]

    def get_state(self) -> np.ndarray:
        return np.zeros(2)

    def get_avail_actions(self) -> list[list[int]]:
        return [[0, 1]]

    def step(self, actions: list[int]) -> tuple[float, bool, dict[str, bool]]:
        self._time += 1
        match self._ends.get(self._time):
            case "breaks":  # the packages start another game and say: lost
                self.force_restarts += 1
                return 0, True, {}
            case None if self._time == LIMIT:
                self.timeouts += 1
                return 0, True, {"battle_won": False}
            case None:
                return 1.5, False, {"battle_won": False}
            case how:
                return 2.0, True, {"battle_won": how == "won"}

    def close(self) -> None:
        self.closed = True


@pytest.fixture(autouse=True)
def _no_game(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sc2, "require_game", lambda map_file: f"StarCraft II 1.2.3 with {map_file}")


@pytest.fixture
def built() -> list[Scripted]:
    """Every environment that was built, in order; the first one only tells its sizes."""
    return []


@pytest.fixture
def battles(built: list[Scripted]) -> Callable[..., Battles]:
    def make(ends: dict[int, str], max_reward: float | None = None, **settings: Any) -> Battles:
        def build(seed: int) -> Scripted:
            built.append(Scripted(seed, ends, **settings))
            return built[-1]

        return Battles(build, "3m", max_reward)

    return make


def play(copy: Battles, seed: int = 0) -> list[Any]:
    """One battle; the outcome of every step."""
    copy.reset(seed)
    outcomes = [copy.step([1])[1]]
    while not (outcomes[-1].terminated or outcomes[-1].truncated):
        outcomes.append(copy.step([1])[1])
    return outcomes


def test_sizes_and_notes_are_known_before_the_game_has_started(
    battles: Callable[..., Battles], built: list[Scripted]
) -> None:
    copy = battles({})
    assert copy.sizes == (1, 2, 3, 2, LIMIT)
    assert copy.notes.startswith("StarCraft II 1.2.3 with 3m")
    assert [env.resets for env in built] == [0]


@pytest.mark.parametrize(
    ("ends", "last"),
    [
        ({2: "won"}, (2.0, True, False, True)),
        ({2: "lost"}, (2.0, True, False, False)),
        ({}, (0.0, False, True, False)),
        ({LIMIT: "won"}, (2.0, True, False, True)),
        ({LIMIT: "lost"}, (2.0, True, False, False)),
    ],
)
def test_only_the_time_limit_truncates(
    ends: dict[int, str], last: tuple[float, bool, bool, bool], battles: Callable[..., Battles]
) -> None:
    """The package says `terminated` in every case."""
    outcomes = play(battles(ends))
    assert outcomes[-1] == last
    assert all(outcome == (1.5, False, False, False) for outcome in outcomes[:-1])


def test_one_game_plays_battle_after_battle(battles: Callable[..., Battles], built: list[Scripted]) -> None:
    copy = battles({2: "won"})
    for seed in (5, 6, 7):
        play(copy, seed)
    assert [env.resets for env in built] == [0, 3]
    assert built[1].seed == 5


def test_a_battle_that_is_left_gets_a_new_game(
    battles: Callable[..., Battles], built: list[Scripted]
) -> None:
    """A second reset of one environment would change the scale of rewards, and leave a process behind."""
    copy = battles({})
    copy.reset(1)
    copy.step([0])
    copy.reset(2)
    copy.reset(3)  # at once: no battle had ended either
    assert [env.resets for env in built] == [0, 1, 1, 1]
    assert [env.closed for env in built] == [False, True, True, False]


def test_a_game_is_renewed_from_time_to_time(
    battles: Callable[..., Battles], built: list[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_sc2, "_EPISODES_OF_A_GAME", 2)
    copy = battles({1: "lost"})
    for _ in range(5):
        play(copy)
    assert [env.resets for env in built] == [0, 2, 2, 1]


@pytest.mark.parametrize("when", [0, 2, LIMIT])
def test_a_broken_game_is_no_lost_battle(when: int, battles: Callable[..., Battles]) -> None:
    copy = battles({when: "breaks"})
    with pytest.raises(ConnectionError, match="broke off"):
        play(copy)


@pytest.mark.parametrize("returns_none", [False, True])
def test_observations_are_taken_once_per_step(
    returns_none: bool, battles: Callable[..., Battles], built: list[Scripted]
) -> None:
    copy = battles({2: "won"}, returns_none=returns_none)
    play(copy)
    assert built[1].observed == 3  # of the start and of two steps


def test_rewards_have_one_scale(battles: Callable[..., Battles], built: list[Scripted]) -> None:
    """SMAC: of this map's enemies. SMACv2: given, as the package would take that of its first team."""
    play(battles({1: "won"}))
    assert built[1].max_reward == 200 + 2 * 10 + 2 * 45
    play(battles({1: "won"}, max_reward=707.5))
    assert built[3].max_reward == 707.5


def test_the_scale_of_rewards_of_smacv2() -> None:
    assert smacv2_max_reward("terran", 5) == pytest.approx(707.5)
    assert smacv2_max_reward("protoss", 11) == pytest.approx(
        200 + 11 * (10 + 0.45 * 160 + 0.45 * 150 + 0.1 * 350)
    )
    assert smacv2_max_reward("zerg", 5) == pytest.approx(200 + 5 * (10 + 15.75 + 36 + 3))


def test_draws_come_from_the_episodes_seed_whatever_else_draws(
    battles: Callable[..., Battles], built: list[Scripted]
) -> None:
    one, other = battles({}), battles({})

    def numbers(copy: Battles, disturbed: bool) -> list[float]:
        views = [copy.reset(11)]
        for _ in range(3):
            if disturbed:
                random.random()
                other.reset(12)
            views.append(copy.step([0])[0])
        return [float(view.obs[0][0]) for view in views]

    quiet = numbers(one, False)
    before = random.getstate()
    one.reset(11)
    assert random.getstate() == before
    assert numbers(one, True) == quiet
    assert len(set(quiet)) == 4


class Distribution:
    """As in smacv2: some have a generator, some have distributions inside."""

    def __init__(self, *inside: "Distribution", draws: bool = True) -> None:
        if draws:
            self.rng = np.random.default_rng()
        for number, distribution in enumerate(inside):
            setattr(self, f"inside_{number}", distribution)

    def generate(self) -> float:
        return float(self.rng.random())


def test_every_distribution_of_smacv2_draws_from_the_episodes_seed() -> None:
    """The package's `seed` does not reach them; one has no generator but two distributions within."""

    def drawn(seed: int) -> list[float]:
        leaves = [Distribution() for _ in range(4)]
        tree = {
            "team_gen": leaves[0],
            "start_positions": Distribution(leaves[1], Distribution(*leaves[2:], draws=False)),
        }

        def build(seed: int) -> Any:
            env = Scripted(seed, {})
            env.env_key_to_distribution_map = tree  # type: ignore[attr-defined]
            return env

        Drawn(build, "32x32_flat", 707.5).reset(seed)
        return [leaf.generate() for leaf in [*leaves, tree["start_positions"]]]

    assert drawn(3) == drawn(3)
    assert len({*drawn(3), *drawn(4)}) == 10


def test_a_picture_without_a_display(battles: Callable[..., Battles]) -> None:
    copy = battles({})
    copy.reset(0)
    picture = copy.render()
    assert picture.dtype == np.uint8
    assert picture.shape[2] == 3
    assert len(np.unique(picture.reshape(-1, 3), axis=0)) > 3


def test_a_game_that_is_not_there_is_named_with_the_line_that_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SC2PATH", str(tmp_path))
    with pytest.raises(EnvironmentFault, match=r"not installed in .*\n.*export SC2PATH="):
        require_game("3m")
    (tmp_path / "Versions").mkdir()
    with pytest.raises(EnvironmentFault, match=r"map 3m .*3m\.SC2Map\n.*SMAC_Maps folder to \$SC2PATH/Maps"):
        require_game("3m")


def forget(package: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As if nothing of the package had been imported."""
    for module in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)


@pytest.mark.parametrize("name", ["smac", "smacv2"])
def test_a_package_that_is_not_there(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    forget(name, monkeypatch)
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(EnvironmentFault) as raised:
        require_package(name)
    assert raised.value.what == f"the package {name!r} is not installed"
    assert f'pip install --no-deps "git+https://github.com/oxwhirl/{name}@' in raised.value.hint


def test_another_project_of_the_same_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`pip install smac` brings a program for tuning hyper-parameters."""
    (tmp_path / "smac").mkdir()
    (tmp_path / "smac/__init__.py").write_text("")
    (tmp_path / "smac-2.4.1.dist-info").mkdir()
    (tmp_path / "smac-2.4.1.dist-info/METADATA").write_text(
        "Metadata-Version: 2.1\nName: smac\nVersion: 2.4.1\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    forget("smac", monkeypatch)
    with pytest.raises(
        EnvironmentFault, match=r"'smac' 2\.4\.1 is another project(.|\n)*pip uninstall smac, then"
    ):
        require_package("smac")
    del sys.modules["smac"]
    (found,) = (finding for finding in findings("smac") if finding.what == "package smac")
    assert (found.ok, found.found) == (False, "2.4.1, another project")


def test_no_package_is_imported_into_the_program() -> None:
    """The two do not go into one process: each is imported where a copy is built, in a worker."""
    code = (
        "import sys; from marl_sale.envs import _sc2, _sc2_pool, smac, smacv2; "
        "print(sorted({'smac', 'smacv2', 'pysc2', 's2clientprotocol'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
