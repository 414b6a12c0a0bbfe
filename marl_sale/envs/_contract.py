"""What every environment must do, as a check that runs: `check_contract(lambda n: make_env(config, n))`.

Random legal episodes are played twice: in three environments side by side, and one by one in the opposite
order. Each clause that breaks is named in a ContractViolation.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from marl_sale.seeding import episode_seeds
from marl_sale.spec import EnvSpec, Observation, Transition, VectorEnv

_COPIES = 3
_Row = tuple[Tensor, ...]


class ContractViolation(AssertionError):
    """An environment breaks a clause of the contract."""


def check_contract(make: Callable[[int], VectorEnv], *, episodes: int = 30, seed: int = 0) -> None:
    """Play `episodes` (at least 3) random episodes and check every clause; `make(E)` builds E copies.

    Raises ContractViolation naming the first clause that does not hold.
    """
    seeds = episode_seeds(seed, 0, max(episodes, _COPIES))
    together = _play(make, _COPIES, seeds)
    alone = _play(make, 1, seeds[::-1])[::-1]
    for number, (one, other) in enumerate(zip(together, alone, strict=True)):
        same = len(one) == len(other) and all(map(_equal, one, other))
        _require(
            same,
            "an episode depends on its seed and the actions alone, not on E, its neighbours or the past",
            f"episode {number} (seed {seeds[number]}) differs between E = {_COPIES} and E = 1",
        )
    spec = _spec(make)
    never_masked = all(bool(row[2].all()) for episode in together for row in episode)
    _require(
        never_masked != spec.masks_actions,
        "spec.masks_actions says whether an action is ever unavailable",
        f"it is {spec.masks_actions}, but "
        + ("every action was always available" if never_masked else "actions were unavailable"),
    )


def _play(make: Callable[[int], VectorEnv], copies: int, seeds: np.ndarray) -> list[list[_Row]]:
    """Play one episode per seed in `copies` environments; what each showed, step by step."""
    env = make(copies)
    try:
        return _Player(env, seeds).play()
    finally:
        env.close()


@dataclass
class _Player:
    """Keeps every environment busy: next episode after one or two steps in the frozen state."""

    env: VectorEnv
    seeds: np.ndarray
    kept: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """Every tensor the environment returned, and a copy made at once."""

    def play(self) -> list[list[_Row]]:
        count, copies = len(self.seeds), self.env.num_envs
        _check_spec(self.env.spec)
        histories: list[list[_Row]] = [[] for _ in range(count)]
        actors = [np.random.default_rng(int(seed)) for seed in self.seeds]
        playing, frozen, following = list(range(copies)), [0] * copies, copies
        shown = self._reset(playing, None)
        for index in range(copies):
            histories[index].append(tuple(part[index] for part in shown))
        last: Transition | None = None
        while following < count or min(frozen) < 2:
            transition = self._step(shown, [actors[episode] for episode in playing])
            for index, episode in enumerate(playing):
                row = (
                    *(part[index] for part in transition.observation),
                    *(part[index] for part in transition[1:]),
                )
                if frozen[index]:
                    _check_frozen(last, row, index)
                else:
                    histories[episode].append(row)
                    _check_end(self.env.spec, row, len(histories[episode]) - 1)
                frozen[index] += frozen[index] > 0 or bool(row[4] | row[5])
            shown, last = transition.observation, transition
            due = [k for k in range(copies) if frozen[k] > 1 + playing[k] % 2][: count - following]
            if due:
                for index in due:
                    playing[index], frozen[index] = following, 0
                    following += 1
                before, shown = shown, self._reset(playing, due)
                for index in range(copies):
                    row = tuple(part[index] for part in shown)
                    if index in due:
                        histories[playing[index]].append(row)
                    else:
                        _require(
                            _equal(row, tuple(part[index] for part in before)),
                            "reset with a mask leaves the other environments as they are",
                            f"environment {index} changed when {due} were reset",
                        )
        for tensor, copy in self.kept:
            _require(
                torch.equal(tensor, copy),
                "returned tensors belong to the caller",
                "one was overwritten by a later call",
            )
        return histories

    def _reset(self, playing: Sequence[int], due: Sequence[int] | None) -> Observation:
        mask = None if due is None else torch.tensor([k in due for k in range(len(playing))])
        seeds = np.array([self.seeds[episode] for episode in playing])
        if mask is not None:
            seeds[~mask.numpy()] += 1  # seeds outside the mask mean nothing
        shown = self.env.reset(seeds, mask)
        self._keep(*shown)
        _check_observation(self.env.spec, self.env.num_envs, shown)
        return shown

    def _step(self, shown: Observation, actors: Sequence[np.random.Generator]) -> Transition:
        """One random available action for every agent; the choice depends on the episode alone."""
        actions = torch.tensor(
            [
                [actor.choice(row.nonzero()[0]) for row in avail]
                for actor, avail in zip(actors, shown.avail_actions.cpu().numpy(), strict=True)
            ]
        )
        given = actions.clone()
        transition = self.env.step(actions)
        _require(torch.equal(actions, given), "step leaves its argument as it is", "the actions changed")
        self._keep(*transition.observation, *transition[1:])
        _check_observation(self.env.spec, self.env.num_envs, transition.observation)
        _check_transition(self.env.num_envs, transition)
        return transition

    def _keep(self, *tensors: Tensor) -> None:
        apart = len({tensor.untyped_storage().data_ptr() for tensor in tensors}) == len(tensors)
        _require(apart, "returned tensors belong to the caller", "two share memory")
        self.kept += [(tensor, tensor.clone()) for tensor in tensors]


def _check_spec(spec: EnvSpec) -> None:
    for name in ("n_agents", "n_actions", "obs_size", "state_size", "episode_limit"):
        _require(getattr(spec, name) >= 1, "sizes are positive", f"spec.{name} is {getattr(spec, name)}")


def _check_observation(spec: EnvSpec, envs: int, shown: Observation) -> None:
    _check_tensor("obs", shown.obs, (envs, spec.n_agents, spec.obs_size), torch.float32)
    _check_tensor("state", shown.state, (envs, spec.state_size), torch.float32)
    _check_tensor("avail_actions", shown.avail_actions, (envs, spec.n_agents, spec.n_actions), torch.bool)
    _require(
        bool(shown.avail_actions.any(dim=2).all()),
        "every agent always has an available action",
        f"none in (environment, agent) {(~shown.avail_actions.any(dim=2)).nonzero().tolist()}",
    )


def _check_transition(envs: int, transition: Transition) -> None:
    _check_tensor("reward", transition.reward, (envs,), torch.float32)
    for name in ("terminated", "truncated", "success"):
        _check_tensor(name, getattr(transition, name), (envs,), torch.bool)


def _check_tensor(name: str, tensor: Tensor, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    _require(
        tuple(tensor.shape) == shape and tensor.dtype == dtype,
        "shapes and types are those of the spec",
        f"{name}: {tuple(tensor.shape)} {tensor.dtype}, expected {shape} {dtype}",
    )
    _require(bool(tensor.isfinite().all()), "numbers are finite", f"{name} is not")


def _check_end(spec: EnvSpec, row: _Row, length: int) -> None:
    """The flags after env step `length` (from 1) of an episode."""
    terminated, truncated, success = (bool(flag) for flag in row[4:])
    where = f"env step {length}, limit {spec.episode_limit}"
    _require(not (terminated and truncated), "terminated and truncated exclude each other", where)
    over = terminated or truncated
    _require(over or length < spec.episode_limit, "an episode is over at episode_limit at the latest", where)
    _require(not truncated or length == spec.episode_limit, "only the time limit truncates", where)
    _require(not success or over, "success is told at the end", where)
    _require(not success or spec.has_success, "no success where spec.has_success is False", where)


def _check_frozen(last: Transition | None, row: _Row, index: int) -> None:
    assert last is not None
    clause = "an environment whose episode is over stays as it is until it is reset"
    _require(float(row[3]) == 0.0, clause, f"environment {index} gave reward {float(row[3]):g} after its end")
    before = (*last.observation, *last[2:])
    kept = _equal((*row[:3], *row[4:]), tuple(part[index] for part in before))
    _require(kept, clause, f"flags or observation of environment {index} changed after its end")


def _spec(make: Callable[[int], VectorEnv]) -> EnvSpec:
    env = make(1)
    env.close()
    return env.spec


def _equal(one: _Row, other: _Row) -> bool:
    return len(one) == len(other) and all(map(torch.equal, one, other))


def _require(holds: bool, clause: str, found: str) -> None:
    if not holds:
        raise ContractViolation(f"contract: {clause}\n  found: {found}")
