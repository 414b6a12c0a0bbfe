"""Training episodes played by actors of Ray: neither their number nor their death changes a result."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.pipeline,
    pytest.mark.skipif(find_spec("ray") is None, reason="Ray is not installed: pip install '.[ray]'"),
]

Record = Callable[..., None]

PROGRAM = """
import json, os, signal, sys, threading, time
from pathlib import Path

from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import load_recipe
from marl_sale.observer import Silent
from marl_sale.stages import rollouts, train
from test_sweeps import SMALL, _parent, digest

out, recipe, actors, kills, sync, env_steps = json.loads(sys.argv[1])
played = []


def descends(pid):
    while pid > 1 and pid != os.getpid():
        pid = _parent(pid)
    return pid == os.getpid()


def workers():
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if path.read_bytes().startswith(b"ray::RolloutWorker") and descends(int(path.parent.name)):
                yield int(path.parent.name)
        except OSError:
            pass  # it ended meanwhile


class Watched(rollouts.Actors):
    left = kills

    def order(self, asked, agent):
        ordered = super().order(asked, agent)
        if Watched.left and asked.first >= 6:  # while they play, in one round after the other
            Watched.left -= 1
            os.kill(sorted(workers())[Watched.left % actors], signal.SIGKILL)

        def finish(clock):
            episodes = ordered(clock)
            played.append((asked.first, len(episodes)))
            return episodes

        return finish


train.Actors = Watched
steps = "train.env_steps=" + str(env_steps)
result = train.run(
    load_recipe(recipe, [*SMALL, "train.num_envs=3", steps]), Path(out), seed=0, device="cpu",
    observer=Silent(), command="", actors=actors, sync=sync,
)
assert not Watched.left
firsts = [first for first, _ in played]
assert firsts == list(range(0, 3 * len(firsts), 3)), played  # none lost, none twice
notes = Artifact.open(Path(out), kind="agent").manifest.notes
replayed = result.metrics["rounds_replayed"]
print(json.dumps({"digest": digest(Path(out)), "notes": notes, "rounds_replayed": replayed}))
"""


QMIX = "tiny/match+tiny+qmix"


def said_by(program: str, argument: str, folder: Path) -> str:
    """What a program prints. In a process of its own: Ray keeps threads and handlers of signals."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment["PYTHONPATH"] = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    done = subprocess.run(
        [sys.executable, "-c", program, argument], env=environment, capture_output=True, text=True, cwd=folder
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def trained(
    out: Path, actors: int, *, kills: int = 0, sync: bool = True, recipe: str = QMIX, steps: int = 120
) -> dict[str, Any]:
    """What a training came to; 0 actors: without Ray."""
    said = said_by(PROGRAM, json.dumps([str(out), recipe, actors, kills, sync, steps]), out.parent)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def test_neither_their_number_nor_a_kill_changes_a_result(
    tmp_path: Path, is_long: bool, record: Record
) -> None:
    recipes = {QMIX: 120}  # and their env steps
    if is_long:
        recipes = {QMIX: 300, "tiny/match+tiny": 300, "lbf/8x8-2p-2f-coop+qmix": 1800}
    cases = [(3, 1), *([(1, 0), (2, 0), (3, 0), (2, 4)] if is_long else [])]
    kills = replayed = 0
    for n, (recipe, steps) in enumerate(recipes.items()):
        alone = trained(tmp_path / f"{n}-alone", 0, recipe=recipe, steps=steps)
        for actors, killed in cases:
            out = tmp_path / f"{n}-{actors}-{killed}"
            found = trained(out, actors, kills=killed, recipe=recipe, steps=steps)
            assert found["digest"] == alone["digest"], (recipe, actors, killed)
            kills, replayed = kills + killed, replayed + found["rounds_replayed"]
    assert 0 < replayed <= kills
    trainings = len(recipes) * len(cases)
    record(recipes=len(recipes), trainings=trainings, actors_killed=kills, different_results=0)


def test_one_round_behind(tmp_path: Path, is_long: bool) -> None:
    """--no-sync: other results, still a function of the seed, and said in the manifest."""
    if not is_long:
        pytest.skip("long form only (make trust)")
    first, again = (trained(tmp_path / str(n), actors, sync=False) for n, actors in enumerate((1, 2)))
    assert first["digest"] == again["digest"]
    assert first["digest"] != trained(tmp_path / "sync", 0)["digest"]
    assert "one round behind" in first["notes"][0]


FAILING = """
import sys
from marl_sale.config.recipe import load_recipe
from marl_sale.data.collect import Clock
from marl_sale.errors import EnvironmentFault
from marl_sale.algorithms._load import build
from marl_sale.envs._load import describe
from marl_sale.stages import rollouts


WHEN = sys.argv[1]  # the actors' own arguments are others


class Failing(rollouts.RolloutWorker):
    def __init__(self, *given):
        super().__init__(*given)
        if WHEN == "at the start":
            raise EnvironmentFault("no game", "install one")

    def play(self, played, weights):
        if WHEN == "always dies":
            import os
            os._exit(3)
        raise EnvironmentFault("no game", "install one")


rollouts.RolloutWorker = Failing
config = load_recipe("tiny/match+tiny+qmix", []).config
spec = describe(config.env)
actors = rollouts.Actors(config, spec, 1)
try:
    actors.order(rollouts.Round(0, 0, config.train.num_envs, 1.0), build(config, spec).agent)(Clock())
except EnvironmentFault as error:
    told = str(error)
finally:
    actors.close()
print(told)
"""


WHY = {
    "in a round": "no game\n  install one",
    "at the start": "could not start: marl_sale.errors.EnvironmentFault: no game",
    "always dies": "died 4 times",
}


@pytest.mark.parametrize("when", WHY)
def test_an_actor_that_cannot_play_says_why(when: str, tmp_path: Path, is_long: bool) -> None:
    if not is_long and when != "in a round":
        pytest.skip("long form only (make trust)")
    said = said_by(FAILING, when, tmp_path)
    assert WHY[when] in said
    assert len(said.splitlines()) == 2  # and not what Ray has to say
