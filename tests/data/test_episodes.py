"""Stored episodes: real entries only, and refused where they are not episodes of the task."""

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from marl_sale.data.episodes import Episodes
from marl_sale.spec import EnvSpec

LENGTHS = [3, 6, 1]


@pytest.fixture
def stored(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> dict[str, Tensor]:
    return random_episodes(spec, LENGTHS).to_tensors()


def real(episodes: Episodes) -> list[Tensor]:
    found = []
    for i, length in enumerate(episodes.length.tolist()):
        found += [getattr(episodes, name)[i, : length + 1] for name in ("obs", "state", "avail_actions")]
        found += [getattr(episodes, name)[i, :length] for name in ("actions", "reward")]
    return [*found, episodes.terminated, episodes.success, episodes.length]


def test_round_trip(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    episodes = random_episodes(spec, LENGTHS)
    tensors = episodes.to_tensors()
    assert len(tensors["obs"]) == sum(LENGTHS) + 3
    assert len(tensors["reward"]) == sum(LENGTHS)
    assert not any(value.isnan().any() for value in tensors.values() if value.is_floating_point())
    back = Episodes.from_tensors(spec, tensors)
    assert all(torch.equal(a, b) for a, b in zip(real(episodes), real(back), strict=True))
    again = back.to_tensors()
    assert all(torch.equal(again[name], value) for name, value in tensors.items())


def test_sums(spec: EnvSpec, random_episodes: Callable[..., Episodes]) -> None:
    episodes = random_episodes(spec, LENGTHS)
    expected = [float(episodes.reward[i, :n].sum()) for i, n in enumerate(LENGTHS)]
    assert episodes.episode_return.tolist() == pytest.approx(expected)
    assert episodes.steps == 10
    assert len(episodes) == 3
    assert len(episodes.take(slice(0, 2))) == 2
    taken = episodes.take(torch.tensor([2, 0]))
    assert taken.length.tolist() == [1, 3]
    taken.actions[:] = -1
    assert bool((episodes.actions >= 0).all())  # a copy


@pytest.mark.parametrize(
    "name", ["obs", "state", "avail_actions", "actions", "reward", "terminated", "length"]
)
def test_a_missing_field_is_refused(name: str, spec: EnvSpec, stored: dict[str, Tensor]) -> None:
    del stored[name]
    with pytest.raises(ValueError, match=name):
        Episodes.from_tensors(spec, stored)


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("obs", lambda x: x[:-1], r"obs must be torch\.float32 of shape \(13, 3, 5\)"),
        ("obs", lambda x: x.double(), "obs must be"),
        ("state", lambda x: x[:, :-1], "state must be"),
        ("avail_actions", lambda x: x.float(), "avail_actions must be"),
        ("reward", lambda x: x[:-1], "reward must be"),
        ("success", lambda x: x[:-1], "success must be"),
        ("actions", lambda x: x + 1, "actions must be from 0 to 3"),
        ("actions", lambda x: x - 1, "actions must be from 0 to 3"),
        ("length", lambda x: x + 1, "lengths must be from 1 to 6"),
        ("length", lambda x: x - 1, "lengths must be from 1 to 6"),
        ("length", lambda x: x.int(), "length must be one integer"),
        ("length", lambda x: x[:0], "length must be one integer"),
        ("length", lambda x: x.flip(0)[:2], "must be"),
    ],
)
def test_what_is_not_episodes_is_refused(
    name: str,
    change: Callable[[Tensor], Tensor],
    message: str,
    spec: EnvSpec,
    stored: dict[str, Tensor],
) -> None:
    with pytest.raises(ValueError, match=message):
        Episodes.from_tensors(spec, {**stored, name: change(stored[name])})


def test_another_task_is_refused(spec: EnvSpec, stored: dict[str, Tensor]) -> None:
    for other in (replace(spec, n_agents=2), replace(spec, obs_size=6), replace(spec, episode_limit=5)):
        with pytest.raises(ValueError, match="must be"):
            Episodes.from_tensors(other, stored)
