"""One worker process of a pool (`_pool.py`): builds copies of an environment and plays them on request.

Nothing here imports torch, and a family's copies should not either: a worker then starts at once and stays
small. Numbers travel through shared memory; only requests and replies of a few bytes go through the pipe.
"""

import mmap
import os
import pickle
import signal
import sys
import tempfile
import threading
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.reduction import send_handle
from pathlib import Path
from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from marl_sale.errors import MarlSaleError


class Sizes(NamedTuple):
    """What a copy knows about itself once it is built: the part of EnvSpec that its package decides."""

    n_agents: int
    n_actions: int
    obs_size: int
    state_size: int
    episode_limit: int


class View(NamedTuple):
    """What one copy shows: arrays, or nested lists, of these shapes."""

    obs: Any
    """[agents, obs]"""
    state: Any
    """[state]"""
    avail_actions: Any
    """[agents, actions], true where available"""


class Outcome(NamedTuple):
    """What one env step of one copy brought."""

    reward: float
    terminated: bool
    truncated: bool
    success: bool


@runtime_checkable
class Copy(Protocol):
    """One copy of a task, in a worker process. Any exception it raises counts as a crash of the worker."""

    sizes: Sizes
    notes: str
    """What a reader of a result must know and only the package can tell; goes into EnvSpec.notes."""

    def reset(self, seed: int) -> View:
        """Start the episode of this seed; nothing of what was played before may show."""
        ...

    def step(self, actions: list[int]) -> tuple[View, Outcome]:
        """One env step; never called after the end of an episode."""
        ...

    def render(self) -> np.ndarray:
        """[height, width, 3] uint8, without a display."""
        ...

    def close(self) -> None: ...


Factory = Callable[[], Copy]
"""Builds one copy. Must be picklable: functools.partial of a module's function and plain arguments."""


class Buffers:
    """Arrays of `copies` copies on one block of memory that the worker and its pool share."""

    def __init__(self, sizes: Sizes, copies: int, handle: int) -> None:
        """Map the open file `handle`, which `make_file` made."""
        block, offset = mmap.mmap(handle, 0), 0
        arrays = {}
        for name, dtype, shape in _layout(sizes, copies):
            flat = np.frombuffer(block, dtype, int(np.prod(shape)), offset)
            arrays[name] = flat.reshape(shape)
            offset += _padded(flat.nbytes)
        self.actions: np.ndarray = arrays["actions"]
        self.obs: np.ndarray = arrays["obs"]
        self.state: np.ndarray = arrays["state"]
        self.avail_actions: np.ndarray = arrays["avail_actions"]
        self.reward: np.ndarray = arrays["reward"]
        self.flags: np.ndarray = arrays["flags"]
        """[copies, 3]: terminated, truncated, success."""

    @property
    def over(self) -> np.ndarray:
        """[copies] bool: the episode has ended."""
        ended: np.ndarray = np.any(self.flags[:, :2], axis=1)
        return ended


def make_file(sizes: Sizes, copies: int) -> Any:
    """An open file without a name, in memory where there is a place for it: gone when nobody maps it."""
    memory = Path("/dev/shm")
    file = tempfile.TemporaryFile(dir=memory if memory.is_dir() else None)  # noqa: SIM115  its caller closes it
    length = sum(
        _padded(np.dtype(dtype).itemsize * int(np.prod(shape))) for _, dtype, shape in _layout(sizes, copies)
    )
    file.write(bytes(length))  # written, not truncated to: a full disk must show here, not as a bus error
    file.flush()
    return file


def _layout(sizes: Sizes, copies: int) -> tuple[tuple[str, str, tuple[int, ...]], ...]:
    agents = (copies, sizes.n_agents)
    return (
        ("actions", "int64", agents),
        ("obs", "float32", (*agents, sizes.obs_size)),
        ("state", "float32", (copies, sizes.state_size)),
        ("reward", "float32", (copies,)),
        ("avail_actions", "bool", (*agents, sizes.n_actions)),
        ("flags", "bool", (copies, 3)),
    )


def _padded(size: int) -> int:
    return -(-size // 8) * 8


class Ready(NamedTuple):
    """The first reply of a worker; the handle of its buffers follows."""

    sizes: Sizes
    notes: str


class Done(NamedTuple):
    """A request was carried out."""

    value: Any = None


class Failed(NamedTuple):
    """A request could not be carried out; the worker ends."""

    text: str
    hint: str = ""
    missing: str = ""
    """Name of a module that is not installed."""
    final: bool = False
    """It would fail again: nothing is gained by another start."""


def serve(connection: Connection, factory: bytes, copies: int) -> None:
    """Main function of a worker: build `copies` copies, then answer until told to close, or left alone."""
    _keep_to_itself()
    built: list[Copy] = []
    left_alone = False
    try:
        make: Factory = pickle.loads(factory)
        built.extend(make() for _ in range(copies))
        with make_file(built[0].sizes, copies) as file:
            host = _Host(built, Buffers(built[0].sizes, copies, file.fileno()))
            connection.send(Ready(built[0].sizes, built[0].notes))
            send_handle(connection, file.fileno(), os.getppid())
        while (request := connection.recv()) is not None:
            connection.send(Done(host.handle(*request)))
    except (EOFError, ConnectionError):
        left_alone = True
    except BaseException as error:
        with suppress(OSError):
            connection.send(_failure(error))
    finally:
        for copy in built:
            with suppress(Exception):
                copy.close()
        if left_alone:  # this thread may come to its end before the one that waits for the parent's does
            os.killpg(0, signal.SIGKILL)


class _Host:
    """Carries out requests; `handle(name, argument)` calls the method of that name."""

    def __init__(self, copies: Sequence[Copy], buffers: Buffers) -> None:
        self._copies, self._buffers = copies, buffers

    def handle(self, name: str, argument: Any) -> Any:
        methods: dict[str, Callable[[Any], Any]]
        methods = {"reset": self.reset, "step": self.step, "render": self.render}
        return methods[name](argument)

    def reset(self, seeds: Sequence[tuple[int, int]]) -> None:
        """Pairs of the index of a copy and the seed of its next episode."""
        for index, seed in seeds:
            self._show(index, self._copies[index].reset(seed))
            self._buffers.reward[index], self._buffers.flags[index] = 0, False

    def step(self, _: None) -> None:
        """Apply the actions in the buffers in every copy whose episode is not over."""
        buffers = self._buffers
        buffers.reward[:] = 0
        for index in np.flatnonzero(~buffers.over).tolist():
            view, outcome = self._copies[index].step(buffers.actions[index].tolist())
            if not np.isfinite(outcome.reward):
                raise ValueError(f"the reward is {outcome.reward}")
            self._show(index, view)
            buffers.reward[index], buffers.flags[index] = outcome.reward, outcome[1:]

    def render(self, index: int) -> np.ndarray:
        return self._copies[index].render()

    def _show(self, index: int, view: View) -> None:
        for name, numbers in view._asdict().items():
            place, shown = getattr(self._buffers, name)[index], np.asarray(numbers)
            if shown.shape != place.shape:  # a wrong one might be broadcast
                raise ValueError(f"{name} has shape {shown.shape}, expected {place.shape}")
            place[...] = shown
            if not np.isfinite(place).all():
                raise ValueError(f"{name} is not finite")


def _keep_to_itself() -> None:
    """No process may be left behind, whoever is killed; and stdout belongs to the command's result."""
    os.setpgid(0, 0)  # the pool can end this worker and whatever it started, at one stroke
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: os.killpg(0, signal.SIGKILL))
    threading.Thread(target=_end_with_the_pool, daemon=True).start()
    sys.stdout.flush()
    os.dup2(2, 1)


def _end_with_the_pool() -> None:
    """However long a step takes: when the parent is gone, so are this worker and what it started."""
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.killpg(0, signal.SIGKILL)


def _failure(error: BaseException) -> Failed:
    if isinstance(error, MarlSaleError):
        return Failed(error.what, error.hint, final=True)
    if isinstance(error, ModuleNotFoundError):
        return Failed(str(error), missing=error.name or "", final=True)
    frames = traceback.extract_tb(error.__traceback__)
    where = f" ({Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return Failed(f"{type(error).__name__}: {error}{where}")
