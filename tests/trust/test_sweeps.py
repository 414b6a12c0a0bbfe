"""A sweep gives the same results on every engine, whatever was killed."""

import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import pytest

from marl_sale.artifacts.reader import Artifact, in_use
from marl_sale.artifacts.sweep import Sweep, hold, read_sweep
from marl_sale.config.recipe import load_recipe
from marl_sale.observer import Silent
from marl_sale.stages import train
from marl_sale.sweeps import run as loop
from marl_sale.sweeps.engines import Engine, Local
from marl_sale.sweeps.product import make_sweep

Record = Callable[..., None]

SMALL = (
    "agent.hidden_size=8",
    "sale.size=6",
    "sale.hidden_size=7",
    "world_model.hidden_size=8",
    "mixer.size=5",
    "mixer.hypernet_size=6",
    "replay.batch_episodes=4",
    "replay.capacity_episodes=24",
    "train.num_envs=2",
    "train.env_steps=300",
    "train.checkpoint_period=40",
    "train.log_period=40",
    "evaluation.period=100",
)
"""A cell takes seconds, and is killed at many places."""
NO_RESULTS = (
    "seconds",
    "time_environment",
    "time_acting",
    "time_learning",
    "time_evaluation",
    "rounds_replayed",
)


def digest(agent: Path) -> str:
    """Of what a run has learned and measured, without clocks; the artifact has to be complete and intact."""
    artifact = Artifact.open(agent, kind="agent")
    assert artifact.verify() == []
    files = artifact.checkpoint().manifest.files
    rows = [
        {name: value for name, value in row.items() if name not in NO_RESULTS}
        for stream in ("train", "evaluation")
        for row in artifact.rows(f"metrics/{stream}")
    ]
    tensors = [files[name].sha256 for name in ("weights.safetensors", "state.safetensors")]
    return hashlib.sha256(json.dumps([artifact.manifest.fingerprint, tensors, rows]).encode()).hexdigest()


def digests(sweep: Sweep, folder: Path) -> dict[str, str]:
    """Cell → digest."""
    return {cell.name: digest(folder / cell.steps[-1].out) for cell in sweep.cells}


def together(found: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()


def reference(sweep: Sweep, folder: Path) -> dict[str, str]:
    """The same runs one after the other in this process, without any sweep."""
    for cell in sweep.cells:
        train.run(
            load_recipe(cell.recipe, cell.overrides),
            folder / cell.steps[-1].out,
            seed=cell.seed,
            device="cpu",
            observer=Silent(),
            command="",
        )
    return digests(sweep, folder)


class Killer(threading.Thread):
    """Kills (SIGKILL) cells at random moments: every other time not the cell, but the worker that runs it."""

    def __init__(self, sweep: Sweep, folder: Path, kills: int, *, spare: int, delay: float = 1.0) -> None:
        super().__init__(daemon=True)
        self.locks = [folder / cell.steps[-1].out for cell in sweep.cells]
        self.left, self.cells, self.workers = kills, 0, 0
        self.done = threading.Event()
        self.spare = spare
        """The sweep itself: where it has no workers, only cells are killed."""
        self._delay = delay
        """Longest time, seconds, that a cell lives on after it was found; every cell is gone after some."""
        self._random = random.Random(0)
        self._killed: set[int] = set()

    def run(self) -> None:
        while self.left and not self.done.wait(0.02):
            for agent in self.locks:
                if self.left and in_use(agent):
                    self._kill(agent)

    def _kill(self, agent: Path) -> None:
        self.done.wait(self._random.uniform(0.0, self._delay))
        try:
            cell = int(json.loads((agent / "lock").read_text())["pid"])
            worker = _parent(cell)
            if not in_use(agent) or worker in self._killed or cell in self._killed:
                return
            if self.workers < self.cells and worker not in (1, self.spare):
                os.kill(worker, signal.SIGKILL)
                self._killed.add(worker)
                self.workers += 1
            else:
                os.kill(cell, signal.SIGKILL)
                self.cells += 1
            self._killed.add(cell)
            self.left -= 1
        except (OSError, ValueError):
            pass  # it ended meanwhile


def _parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


@contextmanager
def killing(killer: Killer) -> Iterator[None]:
    killer.start()
    try:
        yield
    finally:
        killer.done.set()
        killer.join()


ENGINES = ("local", "slurm", "ray")


def make_engine(name: str, folder: Path, parallel: int) -> Engine:
    if name == "slurm":
        if find_spec("submitit") is None:
            pytest.skip("submitit is not installed: pip install '.[slurm]'")
        from marl_sale.sweeps.on_slurm import Slurm

        return Slurm(folder / "slurm", {}, cpus=1, gpus=0, cluster="local")
    if name == "ray":
        if find_spec("ray") is None:
            pytest.skip("Ray is not installed: pip install '.[ray]'")
        from marl_sale.sweeps.on_ray import Ray

        return Ray(cpus=1, gpus=0, parallel=parallel)
    return Local(1)


def swept(
    sweep: Sweep, folder: Path, name: str, *, kills: int, parallel: int = 2
) -> tuple[dict[str, str], Killer]:
    """The digests of a sweep on an engine while so many processes are killed."""
    killer = Killer(sweep, folder, kills, spare=os.getpid())
    with (
        hold(folder, sweep, resume=False),
        closing(make_engine(name, folder, parallel)) as engine,
        killing(killer),
    ):
        statuses = loop.run(
            sweep,
            folder,
            engine,
            parallel=parallel,
            retries=kills,
            stopped=lambda: False,
            report=lambda statuses: None,
            pause=0.1,
        )
    assert [(status.state, status.error) for status in statuses] == [("done", "")] * len(sweep.cells)
    return digests(sweep, folder), killer


def command(folder: Path, *options: str) -> list[str]:
    changes = [word for change in SMALL for word in ("--set", change)]
    cells = ["tiny/match+tiny+qmix", "--seeds", "0-1", *changes, "--max-parallel", "2"]
    return [sys.executable, "-m", "marl_sale_cli", "sweep", *cells, "--out", str(folder), *options]


@pytest.mark.pipeline
def test_killed_stopped_and_resumed_a_sweep_comes_to_the_same(tmp_path: Path) -> None:
    """The short form: two cells killed, then the sweep itself stopped by SIGTERM (75), then resumed (0)."""
    out = tmp_path / "out"
    sweep, _ = make_sweep(["tiny/match+tiny+qmix"], SMALL, (0, 1), out)
    with subprocess.Popen(command(out), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        killer = Killer(sweep, out, kills=2, spare=process.pid, delay=0.0)
        with killing(killer):
            while killer.left and process.poll() is None:
                time.sleep(0.05)
        process.terminate()
        _, said = process.communicate(timeout=120)
    assert process.returncode == 75, said
    assert killer.cells == 2
    assert "--resume" in said
    assert read_sweep(out).id == sweep.id
    assert not any(in_use(out / cell.steps[-1].out) for cell in sweep.cells)

    done = subprocess.run(command(out, "--resume", "--json"), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert (result["status"], [cell["state"] for cell in result["cells"]]) == ("complete", ["done"] * 2)
    assert digests(sweep, out) == reference(sweep, tmp_path / "reference")


def twelve(out: Path) -> Sweep:
    recipes = ["tiny/match+tiny", "tiny/match+tiny+qmix"]
    sweep, _ = make_sweep(recipes, [*SMALL, "discount=0.9,0.99"], (0, 1, 2), out)
    assert len(sweep.cells) == 12
    return sweep


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], dict[str, str]]:
    """The digests without any sweep; made when first asked for, and once."""

    @cache
    def made() -> dict[str, str]:
        folder = tmp_path_factory.mktemp("reference")
        return reference(twelve(folder), folder)

    return made


@pytest.mark.pipeline
@pytest.mark.parametrize("kills", [0, 8])
@pytest.mark.parametrize("engine", ENGINES)
def test_the_same_digest_on_every_engine_whatever_is_killed(
    engine: str,
    kills: int,
    tmp_path: Path,
    is_long: bool,
    record: Record,
    expected: Callable[[], dict[str, str]],
) -> None:
    """Twelve cells: two recipes, three seeds, two values; against the same runs without any sweep."""
    if not is_long:
        pytest.skip("long form only (make trust)")
    out = tmp_path / "out"
    sweep = twelve(out)
    began = time.perf_counter()
    found, killer = swept(sweep, out, engine, kills=kills)
    seconds = time.perf_counter() - began
    assert killer.cells + killer.workers == kills
    assert engine == "local" or not kills or killer.workers >= 3
    assert found == expected()
    record(
        cells=len(sweep.cells),
        cells_killed=killer.cells,
        workers_killed=killer.workers,
        digest=together(found),
        digest_without_a_sweep=together(expected()),
        seconds=round(seconds),
    )
