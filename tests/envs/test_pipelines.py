"""Every family through the four commands, as a user types them, from episodes to a figure and a picture."""

import json
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest
from marl_sale_cli.app import app
from PIL import Image
from typer.testing import CliRunner, Result

from marl_sale.artifacts.reader import Artifact
from marl_sale.envs._findings import graphics
from marl_sale.envs._load import families
from marl_sale.envs._pool import WORKERS


class Tried(NamedTuple):
    """A recipe of a family, and what makes its episodes short."""

    recipe: str
    task: str | None = None
    package: str | None = None
    """Must be installed."""
    draws_with_gl: bool = False


TRIED: Mapping[str, Tried] = {
    "lbf": Tried("lbf/5x5-2p-1f-coop"),
    "mamujoco": Tried("mamujoco/hopper-3x1", "Hopper-3x1,limit=12", "gymnasium_robotics", True),
    "micro": Tried("micro/3m"),
    "smac": Tried("smac/3m"),
    "smacv2": Tried("smacv2/terran_5_vs_5"),
    "vmas": Tried("vmas/balance", "balance,n_agents=4,limit=12", "vmas", True),
}
SECONDS = (
    *("agent.hidden_size=8", "sale.size=6", "sale.hidden_size=6", "mixer.size=4", "mixer.hypernet_size=4"),
    *("world_model.latent_size=3", "world_model.hidden_size=8", "pretrain.episodes=4"),
    *("train.env_steps=40", "train.num_envs=1", "train.checkpoint_period=40", "train.log_period=20"),
    *("train.updates_per_episode=1.0", "replay.batch_episodes=1", "replay.capacity_episodes=4"),
    *("evaluation.period=40", "evaluation.episodes=1", "evaluation.num_envs=1"),
)
"""One environment at a time: starting those of SC2 and MuJoCo costs more than playing them."""


def test_every_family_is_tried() -> None:
    assert set(TRIED) == set(families()) - {"tiny"}  # the examples of the help texts run that


def marl_sale(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def run(*arguments: object) -> str:
    """What a command that succeeds prints: the path of its artifact."""
    done = marl_sale(*arguments, "--quiet")
    assert done.exit_code == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.pipeline
@pytest.mark.parametrize("family", TRIED)
def test_the_four_commands(
    family: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    tried = TRIED[family]
    if tried.package and find_spec(tried.package) is None:
        pytest.skip(f"not installed: {tried.package} (pip install '.[{family}]')")
    if family in ("smac", "smacv2"):
        request.getfixturevalue("stand_in")
    monkeypatch.setenv(WORKERS, "1")
    monkeypatch.chdir(tmp_path)
    changes = [*SECONDS, *([f"env.task={tried.task}"] if tried.task else [])]
    recipe = (f"{tried.recipe}+tiny", *(f"--set={change}" for change in changes))

    world_model = run("pretrain-wm", *recipe, "--out", "world-model")
    agent = run("train", *recipe, "--world-model", world_model, "--out", "agent")
    drawn = marl_sale("eval", agent, "--episodes", 2, "--out", "evaluation", "--render", "episode.gif")
    if tried.draws_with_gl and not all(finding.ok for finding in graphics()):
        assert drawn.exit_code == 7
        assert "apt install" in drawn.stderr  # and the evaluation is whole all the same
    else:
        assert drawn.exit_code == 0, drawn.stderr
        with Image.open("episode.gif") as picture:
            assert picture.n_frames > 1  # type: ignore[attr-defined]
            assert len(picture.convert("RGB").getcolors(10**6) or ()) > 3
    report = json.loads(run("plot", agent, "evaluation", "--out", "report", "--json"))["metrics"]

    assert report["figure_files"]
    assert all(Path(figure).stat().st_size > 1000 for figure in report["figure_files"])
    trained = Artifact.open(Path(agent), kind="agent").manifest
    assert trained.counters["updates"] > 0
    assert [entry.role for entry in trained.inputs] == ["world-model"]
    spec = trained.env_spec
    assert spec is not None
    assert spec["family"] == family
    figures = Artifact.open(Path("evaluation"), kind="evaluation").json("report")
    assert figures["episodes"] == 2
    assert 1 <= figures["episode_length"] <= spec["episode_limit"]
    assert (figures["win_rate"] is not None) == spec["has_success"]
    if family.startswith("smac"):  # nobody can take it for a result of the game
        assert "build 99999" in spec["notes"]
