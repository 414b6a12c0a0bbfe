"""Environments that are not batched, in worker processes: E copies over W workers, as one VectorEnv.

Every worker is a process of its own (spawn) with its share of the copies; one request and one reply per step,
numbers through shared memory (`_worker.py`). The number of workers changes no result: a copy knows its seed
and its actions, nothing else.

A worker that dies, raises, or does not answer in time is killed with everything it started, and started
again. What its copies were playing is then lost: `EpisodeLost` tells whoever plays to play it again from the
same seeds (`marl_sale/data/collect.py` does). Where that happens again and again, to one worker in a row or
to more than one episode in twenty, EnvironmentFault ends it.
"""

import os
import pickle
import signal
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing import get_context
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from multiprocessing.reduction import recv_handle
from typing import Any, NoReturn

import numpy as np
import torch
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from marl_sale.envs._worker import Buffers, Done, Factory, Failed, Ready, Sizes, serve
from marl_sale.errors import EnvironmentFault, EpisodeLost, UsageError
from marl_sale.spec import EnvSpec, Observation, Transition

WORKERS = "MARL_SALE_WORKERS"
"""Environment variable: most workers of one pool; without it, as many as there are cores to run on."""
_MOST_FAULTS = 5  # of one worker, in a row
_WINDOW, _MOST_IN_WINDOW = 400, 20  # episodes begun, and faults in them: 5 %
_RESUME = "--resume goes on from the last checkpoint once its cause is gone"
_TO_START = 180.0  # seconds until all copies of a worker are built
_TO_CLOSE = 10.0  # seconds a worker may take to close its copies before it is killed


class Pool:
    """E copies of one task in worker processes.

    `restarts` counts the workers that had to be started again.
    """

    def __init__(
        self, factory: Factory, num_envs: int, describe: Callable[[Sizes, str], EnvSpec], *, patience: float
    ) -> None:
        """`describe` completes what a copy knows about itself (its sizes and notes) to an EnvSpec.

        `patience`: seconds that one copy may take for a reset or a step. Raises EnvironmentFault where the
        copies cannot be built, ModuleNotFoundError where their package is missing.
        """
        self.num_envs, self.restarts = num_envs, 0
        self._begun = 0
        self._faults: list[int] = []
        """How many episodes had begun at each of the latest faults."""
        shares = np.array_split(np.arange(num_envs), min(most_workers(), num_envs))
        self._workers = [_Worker(pickle.dumps(factory), indices, patience) for indices in shares]
        try:
            for worker in self._workers:
                worker.start()
            ready = [worker.greet() for worker in self._workers]
            self.spec = describe(ready[0].sizes, ready[0].notes)
        except _Fault as fault:
            self.close()
            if fault.failed.missing:
                raise ModuleNotFoundError(fault.failed.text, name=fault.failed.missing) from fault
            raise EnvironmentFault(fault.failed.text, fault.failed.hint) from fault
        except BaseException:
            self.close()
            raise

    def reset(
        self, seeds: Int64[np.ndarray, " envs"], mask: Bool[Tensor, " envs"] | None = None
    ) -> Observation:
        chosen = np.ones(self.num_envs, dtype=bool) if mask is None else mask.numpy()
        requests = []
        for worker in self._workers:
            worker.forgive()
            places = enumerate(worker.indices.tolist())
            due = [(slot, int(seeds[index])) for slot, index in places if chosen[index]]
            self._begun += len(due)
            if due:
                requests.append((worker, "reset", due))
        self._exchange(requests)
        return self._observation()

    def step(self, actions: Int64[Tensor, "envs agents"]) -> Transition:
        given, requests = actions.numpy(), []
        for worker in self._workers:
            worker.buffers.actions[:] = given[worker.indices]
            if worker.buffers.over.all():
                worker.buffers.reward[:] = 0
            else:
                requests.append((worker, "step", None))
        self._exchange(requests)
        flags = self._gather("flags")
        return Transition(
            self._observation(), self._gather("reward"), *(flags[:, column].clone() for column in range(3))
        )

    def render(self, index: int) -> UInt8[np.ndarray, "height width 3"]:
        (worker,) = (worker for worker in self._workers if index in worker.indices)
        (picture,) = self._exchange([(worker, "render", index - int(worker.indices[0]))])
        return np.asarray(picture)

    def close(self) -> None:
        for worker in self._workers:
            worker.ask_to_close()
        for worker in self._workers:
            worker.end(_TO_CLOSE)

    def _exchange(self, requests: Sequence[tuple["_Worker", str, Any]]) -> list[Any]:
        """Send all requests, then wait for all replies; the workers play at the same time."""
        for worker, name, argument in requests:
            worker.ask(name, argument)
        values: list[Any] = []
        faults: list[tuple[_Worker, _Fault]] = []
        for worker, _, _ in requests:
            try:
                values.append(worker.answer())
            except _Fault as fault:
                faults.append((worker, fault))
        if faults:
            self._recover(faults)
        return values

    def _recover(self, faults: Sequence[tuple["_Worker", "_Fault"]]) -> NoReturn:
        """Start the faulty workers again. Raises EpisodeLost, or EnvironmentFault where it is no use."""
        for worker, fault in faults:
            worker.end(0)
            worker.faults += 1
            if fault.failed.final:
                raise EnvironmentFault(fault.failed.text, fault.failed.hint)
            if worker.faults > _MOST_FAULTS:
                raise EnvironmentFault(
                    f"{self.spec.family}/{self.spec.task}: an environment failed {worker.faults} times "
                    f"in a row; the last time: {fault.failed.text}",
                    _RESUME,
                )
        self._faults = [begun for begun in self._faults if begun > self._begun - _WINDOW]
        self._faults += [self._begun] * len(faults)
        if len(self._faults) > _MOST_IN_WINDOW:
            raise EnvironmentFault(
                f"{self.spec.family}/{self.spec.task}: {len(self._faults)} faults in "
                f"{min(self._begun, _WINDOW)} episodes, more than {_MOST_IN_WINDOW / _WINDOW:.0%} of "
                f"{_WINDOW}; the last: {faults[-1][1].failed.text}",
                _RESUME,
            )
        time.sleep(max(0.0 if worker.faults == 1 else 2.0 ** (worker.faults - 2) for worker, _ in faults))
        for worker, fault in faults:
            self.restarts += 1
            worker.start()
            try:
                worker.greet()
            except _Fault as again:
                raise EnvironmentFault(
                    f"{self.spec.family}/{self.spec.task}: an environment failed ({fault.failed.text}) and "
                    f"cannot be started again: {again.failed.text}",
                    again.failed.hint,
                ) from again
        raise EpisodeLost(f"{self.spec.family}/{self.spec.task}: {faults[0][1].failed.text}")

    def _observation(self) -> Observation:
        return Observation(*(self._gather(name) for name in Observation._fields))

    def _gather(self, name: str) -> Tensor:
        """An array of all copies, in new memory."""
        return torch.from_numpy(np.concatenate([getattr(worker.buffers, name) for worker in self._workers]))


class _Fault(Exception):
    """A worker died, raised, or did not answer in time."""

    def __init__(self, failed: Failed) -> None:
        super().__init__(failed.text)
        self.failed = failed


class _Worker:
    """A worker process as the pool sees it."""

    buffers: Buffers

    def __init__(self, factory: bytes, indices: Int64[np.ndarray, " copies"], patience: float) -> None:
        self.indices = indices
        """Which of the pool's environments its copies are."""
        self.faults = 0
        """In a row, since the last time that all its episodes came to their end."""
        self._factory, self._patience = factory, patience
        self._process: BaseProcess | None = None
        self._connection: Connection
        self._waiting = False

    def start(self) -> None:
        context = get_context("spawn")
        self._connection, theirs = context.Pipe()
        # A daemon, so that a program which ends without closing its environments does not wait for them.
        given = (theirs, self._factory, len(self.indices))
        process = context.Process(target=serve, args=given, name="marl-sale-worker", daemon=True)
        process.start()
        self._process = process
        theirs.close()  # the worker has the only one left: its death ends the connection
        self._waiting = True

    def greet(self) -> Ready:
        """What a started worker says first; its buffers are there then. Raises _Fault."""
        ready = self._receive(_TO_START)
        handle = recv_handle(self._connection)
        self.buffers = Buffers(ready.sizes, len(self.indices), handle)
        os.close(handle)
        assert isinstance(ready, Ready)
        return ready

    def forgive(self) -> None:
        """Where all copies have played to the end, earlier faults no longer count."""
        if self.buffers.over.all():
            self.faults = 0

    def ask(self, name: str, argument: Any) -> None:
        with suppress(OSError):  # it died in between: answer() tells
            self._connection.send((name, argument))
        self._waiting = True

    def answer(self) -> Any:
        """The value of what was asked for last. Raises _Fault."""
        done = self._receive(self._patience * len(self.indices))
        assert isinstance(done, Done)
        return done.value

    def ask_to_close(self) -> None:
        if self._process is not None and not self._waiting:
            with suppress(OSError):
                self._connection.send(None)

    def end(self, seconds: float) -> None:
        """Wait so long for the worker to end by itself, then kill it and everything it started."""
        if self._process is None or self._process.pid is None:
            return
        if not self._waiting:
            self._process.join(seconds)
        with suppress(ProcessLookupError, PermissionError):  # its group: what it started may outlive it
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.kill()
        self._process.join()
        self._process.close()
        self._connection.close()
        self._process = None

    def _receive(self, seconds: float) -> Any:
        assert self._process is not None
        if not wait([self._connection, self._process.sentinel], seconds):
            raise _Fault(Failed(f"no answer within {seconds:g} s"))
        try:
            reply = self._connection.recv() if self._connection.poll() else None
        except (EOFError, OSError):
            reply = None
        if reply is None:
            self._process.join(1)
            raise _Fault(Failed(f"its process ended with exit code {self._process.exitcode}"))
        self._waiting = False
        if isinstance(reply, Failed):
            raise _Fault(reply)
        return reply


def most_workers() -> int:
    given = os.environ.get(WORKERS, "")
    if given:
        if not given.isdecimal() or int(given) < 1:
            raise UsageError(f"{WORKERS}={given!r}: expected a number of processes, at least 1")
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
