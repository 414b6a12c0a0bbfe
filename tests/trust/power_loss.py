"""What a disk may hold after the power went: crash states of a recorded sequence of calls, under two models.

Both are more forgetful than real file systems. A file's data is certain only up to its last fsync; each later
write may be there, be missing, be there by half, or read as zeros, whatever became of the other writes.

- `journal` (ext4 with data=ordered, XFS): names and sizes change in the order of the calls, and any fsync
  makes all earlier changes certain. What survives is a prefix of these changes.
- `weak` (all that POSIX promises): a name is certain only once its folder was flushed after the change, and
  a size once its file was. Of everything since, any subset survives. A rename in a folder is one change.
"""

import random
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from file_calls import Call

Model = Literal["journal", "weak"]
Tree = dict[str, bytes | None]
"""Path → content of a file; None for a folder."""


@dataclass(frozen=True)
class Names:
    """A change of the names in a folder: which file or folder each now stands for; None: nothing any more."""

    node: int
    changes: tuple[tuple[str, int | None], ...]


@dataclass(frozen=True)
class Data:
    """Bytes written at an offset."""

    node: int
    at: int
    data: bytes


@dataclass(frozen=True)
class Size:
    """A truncation."""

    node: int
    size: int


@dataclass(frozen=True)
class Sync:
    """An fsync of one file or folder."""

    node: int


@dataclass(frozen=True)
class Acknowledged:
    """Something was reported as saved."""

    text: str


Step = Names | Data | Size | Sync | Acknowledged
Fate = Literal["whole", "half", "zeros"]
"""What became of a write that survived in some way."""


class Recorder:
    """Intercepts calls, performs them (but for fsync), and keeps them as steps on files and folders.

    `leave_out` says which calls are neither performed nor recorded: a mutation of the library.
    """

    def __init__(self, leave_out: Callable[[Call], bool] = lambda _: False) -> None:
        self.steps: list[Step] = []
        self.folders = {0}
        self._at: dict[str, int] = {"": 0}
        self._leave_out = leave_out
        self._nodes = 1

    def __call__(self, call: Call, go: Callable[..., Any]) -> Any:
        if self._leave_out(call):
            return None
        done = None if call.name == "fsync" else go()
        self._note(call)
        return done

    def acknowledge(self, text: str) -> None:
        self.steps.append(Acknowledged(text))

    def _note(self, call: Call) -> None:
        path = "" if call.path == "." else call.path
        parent, _, name = path.rpartition("/")
        match call.name:
            case "create" | "mkdir":
                node = self._at[path] = self._nodes
                self._nodes += 1
                if call.name == "mkdir":
                    self.folders.add(node)
                self.steps.append(Names(self._at[parent], ((name, node),)))
            case "write":
                self.steps.append(Data(self._at[path], call.at, call.data))
            case "truncate":
                self.steps.append(Size(self._at[path], call.at))
            case "fsync":
                self.steps.append(Sync(self._at[path]))
            case "unlink" | "rmdir":
                del self._at[path]
                self.steps.append(Names(self._at[parent], ((name, None),)))
            case "rename":
                into, _, new = call.target.rpartition("/")
                assert into == parent, "a rename from one folder to another is two changes"
                self.steps.append(Names(self._at[parent], ((name, None), (new, self._at[path]))))
                self._at = {_moved(p, path, call.target): node for p, node in self._at.items()}


def _moved(path: str, source: str, target: str) -> str:
    return target + path[len(source) :] if path == source or path.startswith(f"{source}/") else path


@dataclass
class Disk:
    """Names of each folder and content of each file."""

    names: dict[int, dict[str, int]] = field(default_factory=dict)
    data: dict[int, bytes] = field(default_factory=dict)

    def copy(self) -> "Disk":
        return Disk({node: dict(names) for node, names in self.names.items()}, dict(self.data))

    def apply(self, step: Step, fate: Fate = "whole") -> None:
        match step:
            case Names(node, changes):
                names = self.names.setdefault(node, {})
                for name, meant in changes:
                    if meant is None:
                        names.pop(name, None)
                    else:
                        names[name] = meant
            case Data(node, at, data):
                written = {"whole": data, "half": data[: len(data) // 2], "zeros": bytes(len(data))}[fate]
                old = self.data.get(node, b"").ljust(at, b"\0")
                self.data[node] = old[:at] + written + old[at + len(written) :]
            case Size(node, size):
                self.data[node] = self.data.get(node, b"")[:size].ljust(size, b"\0")

    def tree(self, folders: set[int], node: int = 0, below: str = "") -> Tree:
        """What can be reached from the root."""
        found: Tree = {}
        for name, child in self.names.get(node, {}).items():
            if child in folders:
                found[f"{below}{name}"] = None
                found |= self.tree(folders, child, f"{below}{name}/")
            else:
                found[f"{below}{name}"] = self.data.get(child, b"")
        return found


@dataclass(frozen=True)
class Crash:
    """One state of the disk, and what had been acknowledged before the power went."""

    at: int
    acknowledged: tuple[str, ...]
    tree: Tree


def crashes(
    recorder: Recorder, model: Model, *, most: int, at: Collection[int] | None = None, seed: int = 0
) -> Iterator[Crash]:
    """For a crash after each step (those in `at`): up to `most` different states, no state twice.

    First those in which everything pending has survived, nothing, all but one change, and one change only;
    then random ones.
    """
    generator, seen = random.Random(seed), set[int]()
    steps = recorder.steps
    acknowledged: list[str] = []
    for end in range(len(steps) + 1):
        if end and isinstance(steps[end - 1], Acknowledged):
            acknowledged.append(steps[end - 1].text)
        if at is not None and end not in at:
            continue
        pending = _pending(steps[:end], model)
        disk, uncertain = Disk(), set(pending)
        for index, step in enumerate(steps[:end]):
            if index not in uncertain:
                disk.apply(step)
        found = 0
        for survived in _choices(steps, pending, model, generator, 4 * most):
            state = disk.copy()
            for index in pending:
                if index in survived:
                    state.apply(steps[index], survived[index])
            tree = state.tree(recorder.folders)
            key = hash((len(acknowledged), frozenset(tree.items())))
            if key not in seen:
                seen.add(key)
                found += 1
                yield Crash(end, tuple(acknowledged), tree)
            if found == most:
                break


def _pending(steps: Sequence[Step], model: Model) -> list[int]:
    """Indices of the changes that are not certain at the end of `steps`."""
    synced = {step.node: index for index, step in enumerate(steps) if isinstance(step, Sync)}
    last = max(synced.values(), default=-1)
    pending = []
    for index, step in enumerate(steps):
        if isinstance(step, Names | Data | Size):
            own = synced.get(step.node, -1)
            if index > (last if model == "journal" and not isinstance(step, Data) else own):
                pending.append(index)
    return pending


def _choices(
    steps: Sequence[Step], pending: list[int], model: Model, generator: random.Random, tries: int
) -> Iterator[dict[int, Fate]]:
    """Ways in which the pending changes may have survived."""
    everything: dict[int, Fate] = dict.fromkeys(pending, "whole")
    chosen: list[dict[int, Fate]] = [everything, {}]
    for index in pending:
        rest = {other: fate for other, fate in everything.items() if other != index}
        fates: tuple[Fate, ...] = ("half", "zeros") if isinstance(steps[index], Data) else ()
        chosen += [rest, {index: "whole"}, *({**rest, index: fate} for fate in fates)]
    for _ in range(tries if pending else 0):
        likely = generator.choice((0.2, 0.5, 0.8))
        chosen.append(
            {
                index: generator.choice(("whole", "half", "zeros"))
                if isinstance(steps[index], Data) and generator.random() < 0.5
                else "whole"
                for index in pending
                if generator.random() < likely
            }
        )
    for survived in chosen:
        if model == "journal":
            changes = [index for index in pending if not isinstance(steps[index], Data)]
            kept = generator.choice([*changes, len(steps)]) if changes else 0
            for index in changes:
                survived.pop(index, None)
                if index < kept:
                    survived[index] = "whole"
        yield survived
