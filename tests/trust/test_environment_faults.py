"""Environments that crash, hang, or show nonsense: no result changes, and what stays broken ends the run."""

import os
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from faulty_copy import FAULTS, LongWalk

from marl_sale.artifacts.reader import Artifact
from marl_sale.config.recipe import load_recipe
from marl_sale.data.collect import Exploration, play
from marl_sale.data.episodes import Episodes
from marl_sale.envs import _pool
from marl_sale.envs._pool import Pool
from marl_sale.envs._worker import Sizes
from marl_sale.errors import EnvironmentFault, ExitCode
from marl_sale.observer import Silent
from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec, Observation, Transition
from marl_sale.stages import evaluate

EPISODES = 6


def describe(sizes: Sizes, notes: str) -> EnvSpec:
    return EnvSpec(
        "walk", "long", "pool", **sizes._asdict(), masks_actions=True, has_success=True, notes=notes
    )


@pytest.fixture(scope="module")
def order(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("order") / "fault"


@pytest.fixture(scope="module")
def pool(order: Path) -> Iterator[Pool]:
    """Walks in one worker; a fault is ordered by writing it to `order`."""
    workers = os.environ.get("MARL_SALE_WORKERS")
    os.environ["MARL_SALE_WORKERS"] = "1"
    made = Pool(partial(LongWalk, order=order), 3, describe, patience=0.4)
    try:
        yield made
    finally:
        made.close()
        os.environ.pop("MARL_SALE_WORKERS")
        if workers is not None:
            os.environ["MARL_SALE_WORKERS"] = workers


class Kept:
    """A pool that a stage does not close."""

    def __init__(self, pool: Pool) -> None:
        self.spec, self.num_envs = pool.spec, pool.num_envs
        self.reset, self.step, self.render = pool.reset, pool.step, pool.render

    def close(self) -> None:
        pass


def evaluated(pool: Pool, out: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[bytes, dict[str, Any]]:
    """Rows and report of an evaluation of random play."""
    monkeypatch.setattr(evaluate, "make_env", lambda *_: Kept(pool))
    evaluate.run_random(
        load_recipe("tiny/match"), out, seed=0, observer=Silent(), command="test", episodes=EPISODES
    )
    return (out / "episodes.jsonl").read_bytes(), Artifact.open(out, kind="evaluation").json("report")


def test_a_fault_at_any_step_changes_no_result(
    pool: Pool,
    order: Path,
    is_long: bool,
    record: Callable[..., None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each kind of fault at each of the first 20 env steps (short: two of them): the same evaluation."""
    monkeypatch.setattr(_pool, "_MOST_IN_WINDOW", 1000)  # here every evaluation has a fault
    rows, report = evaluated(pool, tmp_path / "undisturbed", monkeypatch)
    assert 0 < report["win_rate"] < 1
    assert report["rounds_replayed"] == 0
    steps = range(1, 21) if is_long else (1, 20)
    faulty = [(kind, step) for kind in FAULTS for step in steps]
    for kind, step in faulty:
        order.write_text(f"{kind} {step}")
        disturbed = evaluated(pool, tmp_path / f"{kind}-{step}", monkeypatch)
        assert not order.exists(), f"{kind} at {step}: did not happen"
        assert disturbed == (rows, report | {"rounds_replayed": 1}), f"{kind} at {step}"
    record(evaluations=len(faulty), win_rate=report["win_rate"], different_results=0)


def test_a_fault_that_is_not_played_again_would_be_seen(
    pool: Pool, order: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What others do, and the proof above must notice: the half episode counts as one that was lost."""
    honest = evaluated(pool, tmp_path / "honest", monkeypatch)
    real = evaluate.play

    @torch.inference_mode()
    def counting_it(env: Any, policy: Any, seeds: Any, *rest: Any) -> Episodes:
        played = real(env, policy, seeds, *rest)
        played.success[0], played.reward[0] = False, 0.0
        return played

    monkeypatch.setattr(evaluate, "play", counting_it)
    assert evaluated(pool, tmp_path / "careless", monkeypatch) != honest


def test_too_many_faults_among_good_episodes_end_the_run(
    pool: Pool, order: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker fails twice in a row, but more than one episode in twenty fails."""
    monkeypatch.setattr(_pool, "_WINDOW", 40)
    monkeypatch.setattr(_pool, "_MOST_IN_WINDOW", 2)
    pool._faults.clear()
    begun = pool._begun

    def round_of_three(kind: str | None) -> None:
        if kind is not None:
            order.write_text(f"{kind} 2")
        noise = Exploration.of_episodes(pool.spec, 1.0, 0, 0, 3)
        play(pool, None, episode_seeds(0, 0, 3), noise)

    for _ in range(3):  # one fault in twenty-one episodes: no end to it
        round_of_three("raises")
        for _ in range(5):
            round_of_three(None)
    assert pool._begun - begun == 63
    round_of_three("raises")
    with pytest.raises(
        EnvironmentFault, match=r"walk/long: 3 faults in 40 episodes, more than 5% of"
    ) as told:
        round_of_three("exits")
    assert told.value.exit_code == ExitCode.ENVIRONMENT
    assert "--resume" in told.value.hint
    pool._faults.clear()
    for worker in pool._workers:  # it is not started again: the run has ended
        worker.start()
        worker.greet()


class InProcess:
    """A user's own environment, two copies at once, in which one thing goes wrong at env step 3."""

    def __init__(self, wrong: str) -> None:
        self.num_envs, self._wrong, self._time = 2, wrong, 0
        self.spec = EnvSpec("mine", "own", "native", 2, 3, 4, 5, 6, masks_actions=True, has_success=True)

    def reset(self, seeds: np.ndarray, mask: torch.Tensor | None = None) -> Observation:
        self._time = 0
        return self._shown()

    def _shown(self) -> Observation:
        obs, state, avail = torch.ones(2, 2, 4), torch.ones(2, 5), torch.ones(2, 2, 3, dtype=torch.bool)
        if self._time == 3:
            match self._wrong:
                case "obs is nan":
                    obs[1, 0, 2] = float("nan")
                case "state is infinite":
                    state[1, 1], state[1, 2] = float("inf"), -float("inf")
                case "obs would be broadcast":
                    obs = obs[:, :, :1]
                case "state would be broadcast":
                    state = state[:1]
                case "availability would be broadcast":
                    avail = avail[:, :1]
                case "nothing can be done":
                    avail[1, 1] = False
        return Observation(obs, state, avail)

    def step(self, actions: torch.Tensor) -> Transition:
        self._time += 1
        reward, over = torch.full((2,), 3e38), torch.full((2,), self._time == 6)
        now = self._time == 3
        if now and self._wrong == "reward is nan":
            reward[1] = float("nan")
        if now and self._wrong == "reward would be broadcast":
            reward = reward[:1]
        none = torch.zeros(1 if now and self._wrong == "flags would be broadcast" else 2, dtype=torch.bool)
        return Transition(self._shown(), reward, none, over, none.clone())

    def render(self, index: int) -> np.ndarray:
        return np.zeros((2, 3, 3), dtype=np.uint8)

    def close(self) -> None:
        pass


WRONG = {
    "obs is nan": "obs is not finite in environment 1",
    "state is infinite": "state is not finite in environment 1",
    "reward is nan": "reward is not finite in environment 1",
    "obs would be broadcast": r"obs has shape \(2, 2, 1\), expected \(2, 2, 4\)",
    "state would be broadcast": r"state has shape \(1, 5\), expected \(2, 5\)",
    "availability would be broadcast": r"avail_actions has shape \(2, 1, 3\), expected \(2, 2, 3\)",
    "reward would be broadcast": r"reward has shape \(1,\), expected \(2,\)",
    "flags would be broadcast": r"terminated has shape \(1,\), expected \(2,\)",
    "nothing can be done": "no action is available to an agent of environment 1",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_nonsense_of_an_environment_in_this_process_ends_the_run(wrong: str) -> None:
    """It would be the same again, so it is told at once, with its step, before anything is stored."""
    env = InProcess(wrong)
    noise = Exploration.of_episodes(env.spec, 1.0, 0, 0, 2)
    with pytest.raises(EnvironmentFault, match=f"mine/own: after 3 env steps {WRONG[wrong]}") as told:
        play(env, None, episode_seeds(0, 0, 2), noise)
    assert told.value.exit_code == ExitCode.ENVIRONMENT
    assert "check_contract" in told.value.hint


def test_large_numbers_are_no_nonsense() -> None:
    """Their sum is beyond what a float holds; each of them is not."""
    env = InProcess("")
    noise = Exploration.of_episodes(env.spec, 1.0, 0, 0, 2)
    assert play(env, None, episode_seeds(0, 0, 2), noise).length.tolist() == [6, 6]
