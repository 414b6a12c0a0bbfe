"""Before a stage writes anything: whether memory and disk are enough for what its recipe asks.

The figures are estimates from above: every episode as long as it may be, every part at its largest at once.
Processes beside it, simulators and roll-out workers, are not in them; nor, on a GPU, is what lies in its
memory.
"""

import math
import os
import shutil
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch

from marl_sale.algorithms._api import Algorithm
from marl_sale.artifacts.manifest import MANIFEST
from marl_sale.data.replay import replay_bytes
from marl_sale.errors import ResourceError
from marl_sale.spec import EnvSpec
from marl_sale.stages._readable import most_saves

SHARE = 0.8
"""Of the available memory that a stage may plan to use."""

_FLOAT, _INDEX = 4, 8
_COPIES_OF_A_SAVE = 4  # of new episodes while they are written: padded, packed, on the CPU, as bytes
_KEPT_CHECKPOINTS = 3  # the latest, the best, and the one being written


@dataclass(frozen=True)
class Needs:
    """Bytes of memory and of disk."""

    memory_with: Callable[[int], Mapping[str, int]]
    """Memory by part, where so many episodes are kept: the more, the more."""
    disk: int
    asked: str
    """What decides how many episodes are kept: what to type before the number."""
    episodes: int
    """That number."""

    @property
    def memory(self) -> Mapping[str, int]:
        return self.memory_with(self.episodes)

    @property
    def total(self) -> int:
        return sum(self.memory.values())

    def fitting(self, memory: int) -> int:
        """How many episodes fit where so much memory is available; 0 where it is too little for one."""
        numbers = range(1, self.episodes + 1)
        return bisect_right(
            numbers, SHARE * memory, key=lambda number: sum(self.memory_with(number).values())
        )

    def advice(self, memory: int) -> str:
        """What to type where so much memory is available."""
        if fits := self.fitting(memory):
            return f"{self.asked}{fits} would fit (now {self.episodes})"
        return "too little for any replay: make networks and replay.batch_episodes smaller (--set)"


def training(algorithm: Algorithm) -> Needs:
    """What `train` needs at most, with an algorithm as it is built from the recipe."""
    config, spec = algorithm.config, algorithm.spec
    kind = getattr(torch, config.replay.observations)
    one, steps = replay_bytes(spec, 1, kind), spec.episode_limit + 1
    # Memory is taken only where rows are written: a run of few env steps writes few, each step at most two.
    written = 2 * config.train.env_steps
    period = min(config.train.checkpoint_period + config.train.num_envs * spec.episode_limit, written)
    _, learner = _model(algorithm)
    update = _update(algorithm)
    on_cpu = _on_cpu(algorithm)
    played = max(config.train.num_envs, min(config.evaluation.num_envs, config.evaluation.episodes))

    def filled(capacity: int) -> int:
        return math.ceil(one * min(capacity, written / steps))

    def saved(capacity: int) -> int:
        return min(filled(capacity), math.ceil(one * 2 * period / steps))

    def memory(capacity: int) -> Mapping[str, int]:
        return {
            "replay": filled(capacity) + capacity * 2 * _INDEX * steps,
            "model and optimiser": learner if on_cpu else 0,
            "one update": update if on_cpu else 0,
            "playing and evaluating": _playing(spec, played),
            "checkpoints": _COPIES_OF_A_SAVE * saved(capacity) + 2 * learner,
        }

    capacity = config.replay.capacity_episodes
    kept = _KEPT_CHECKPOINTS
    if config.train.keep_checkpoints == "every":
        kept = max(kept, 1 + most_saves(config))
    return Needs(
        memory_with=memory,
        disk=filled(capacity) + 2 * saved(capacity) + kept * learner,
        asked="--set replay.capacity_episodes=",
        episodes=capacity,
    )


def pretraining(algorithm: Algorithm, *, saves_dataset: bool, stored: int | None = None) -> Needs:
    """What `pretrain-wm` needs at most; `stored`: episodes of a dataset, which are read instead of played."""
    config, spec = algorithm.config, algorithm.spec
    one = replay_bytes(spec, 1)
    row_index = 2 * _INDEX * (spec.episode_limit + 1)
    copies = 1 + _COPIES_OF_A_SAVE
    weights, learner = _model(algorithm)
    update = _update(algorithm)
    on_cpu = _on_cpu(algorithm)

    def memory(count: int) -> Mapping[str, int]:
        return {
            "episodes": count * (copies * one + row_index),
            "model and optimiser": learner + weights if on_cpu else 0,  # the best weights are kept beside
            "checkpoints": 2 * learner,
            "one update": update if on_cpu else 0,
            "playing": _playing(spec, config.train.num_envs),
        }

    count = config.pretrain.episodes if stored is None else stored
    written = int(stored is None) + int(saves_dataset)
    return Needs(
        memory_with=memory,
        disk=weights + _KEPT_CHECKPOINTS * learner + count * one * written,
        asked="--set pretrain.episodes=" if stored is None else "a dataset of ",
        episodes=count,
    )


def _on_cpu(algorithm: Algorithm) -> bool:
    return next(algorithm.parameters()).device.type == "cpu"


def _model(algorithm: Algorithm) -> tuple[int, int]:
    """Bytes of the weights with their copies; and of these with gradients and optimiser."""
    weights = sum(tensor.nbytes for tensor in (*algorithm.parameters(), *algorithm.buffers()))
    trained = sum(tensor.nbytes for tensor in algorithm.parameters() if tensor.requires_grad)
    return weights, weights + trained * (3 if algorithm.config.optimiser.name == "adam" else 2)


def _update(algorithm: Algorithm) -> int:
    """Activations of one update and their gradients, imagination included, from the widths of the layers."""
    config, spec = algorithm.config, algorithm.spec
    chunk = config.replay.chunk_length
    length = min(chunk + config.replay.burn_in, spec.episode_limit) if chunk else spec.episode_limit
    rows, agents = config.replay.batch_episodes * (length + 1), spec.n_agents
    seen = spec.obs_size + 2 * spec.n_actions + agents
    per_agent = seen + 12 * config.agent.hidden_size + 4 * spec.n_actions
    per_row = 2 * spec.state_size + 4 * (config.mixer.size * agents + config.mixer.hypernet_size)
    sale, model = config.sale, config.world_model
    if config.with_sale:
        per_agent += spec.n_actions * sale.size + 6 * (sale.hidden_size + sale.size)
        per_row += 6 * (sale.hidden_size + sale.size)
    if config.with_world_model:
        layers = 4 * (model.hidden_size + model.latent_size)
        per_step = layers + config.agent.hidden_size + spec.n_actions * (1 + sale.size * config.with_sale)
        per_agent += 2 * layers + model.imagination_length * per_step
        per_row += 2 * spec.state_size
    return 2 * _FLOAT * rows * (agents * per_agent + per_row)


def _playing(spec: EnvSpec, num_envs: int) -> int:
    """Episodes being played, with their noise."""
    noise = spec.episode_limit * spec.n_agents * 2 * 8
    return num_envs * (replay_bytes(spec, 1) + noise)


# --- what there is


def available_memory(root: Path = Path("/")) -> int:
    """Bytes that can still be taken: of the machine, and of every control group (v1, v2) this process is in.

    What a group keeps of files it has read counts as available. `root` is where /proc and /sys lie.
    """
    found = [*_of_machine(root), *_of_groups(root)]
    return min(found) if found else 2**63 - 1


def _of_machine(root: Path) -> Iterator[int]:
    for line in _lines(root / "proc/meminfo"):
        if line.startswith("MemAvailable:"):
            yield int(line.split()[1]) << 10


def _of_groups(root: Path) -> Iterator[int]:
    """Room in each group with a limit; where the group's own folder is hidden, in those above it."""
    base = root / "sys/fs/cgroup"
    for line in _lines(root / "proc/self/cgroup"):
        number, controllers, path = line.split(":", 2)
        if "memory" in controllers.split(","):
            mount, names = base / "memory", _V1
        elif number == "0":
            mount, names = base, _V2
        else:
            continue
        inside = Path(path.lstrip("/"))
        for part in (inside, *inside.parents):
            yield from _room(mount / part, *names)


_V1 = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
_V2 = ("memory.max", "memory.current", "inactive_file")


def _room(group: Path, limit: str, usage: str, reclaimable: str) -> Iterator[int]:
    limits, used = _lines(group / limit), _lines(group / usage)
    if not limits or not used or limits[0] == "max":
        return
    files = [line.split()[1] for line in _lines(group / "memory.stat") if line.startswith(f"{reclaimable} ")]
    yield max(0, int(limits[0]) - int(used[0]) + int(files[0] if files else 0))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:  # not on this system
        return []


def free_disk(out: Path) -> int:
    """Bytes free where `out` is, or will be."""
    place = out.absolute()
    while not place.exists():
        place = place.parent
    return shutil.disk_usage(place).free


def held(out: Path) -> int:
    """Bytes that a run to go on with holds already; 0 where `out` is no artifact."""
    if not (out / MANIFEST).exists():
        return 0
    found = 0
    for folder, _, names in os.walk(out):
        for name in names:
            with suppress(OSError):  # somebody may be at work there
                found += (Path(folder) / name).lstat().st_size
    return found


def require(stage: str, needs: Needs, out: Path, *, overcommit: bool) -> None:
    """ResourceError where memory or disk will not do, with what would; nothing has been written then."""
    if overcommit:
        return
    memory, problems, hints = available_memory(), [], []
    if needs.total > SHARE * memory:
        parts = ", ".join(f"{name} {size(part)}" for name, part in needs.memory.items() if part)
        problems.append(
            f"{stage} may need {size(needs.total)} of memory ({parts}); {size(memory)} are available, of "
            f"which it may plan with {SHARE:.0%}: {size(int(SHARE * memory))}"
        )
        hints.append(needs.advice(memory))
    if needs.disk > (free := free_disk(out) + held(out)):
        problems.append(
            f"{stage} may write {size(needs.disk)} to {out}, where {size(free)} are free or its own already"
        )
        hints.append("free some space, or choose another folder with --out")
    if problems:
        hints.append("--allow-overcommit tries it all the same")
        raise ResourceError("\n".join(problems), "; ".join(hints))


def size(count: int) -> str:
    """Bytes for people."""
    for unit in ("bytes", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.4g} {unit}"
        count /= 1024  # type: ignore[assignment]
    return f"{count:,.1f} GiB"
