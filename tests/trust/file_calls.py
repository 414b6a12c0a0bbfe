"""Every call that changes a file below one folder, seen before it happens: to record, forbid, or die at it.

The artifact layer makes these calls through the functions of `os`, all of them in `_fs.py`
(test_file_calls.py guards both). What an interceptor does with a call is up to it.
"""

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal
from unittest.mock import patch

from marl_sale.artifacts import _fs

Name = Literal["create", "write", "truncate", "fsync", "rename", "mkdir", "unlink", "rmdir"]
WRITE_LIKE = ("create", "write", "truncate", "fsync", "rename", "mkdir")
"""Calls that a full disk can refuse."""


@dataclass(frozen=True)
class Call:
    """One call. `path` and `target` (of a rename) are relative to the folder that is watched."""

    name: Name
    path: str
    target: str = ""
    data: bytes = b""
    at: int = 0
    """Offset of a write; size that a truncation leaves."""
    folder: bool = False
    """Of an fsync: whether it flushes a folder."""
    sites: tuple[str, ...] = ()
    """Functions of the artifact layer's `_fs.py` on the stack, innermost first."""


Intercept = Callable[[Call, Callable[..., Any]], Any]
"""Given a call and what performs it. Performing a write takes the bytes that are really written."""


def perform(_: Call, go: Callable[..., Any]) -> Any:
    """The interceptor that changes nothing."""
    return go()


def _sites() -> tuple[str, ...]:
    found, frame = [], sys._getframe(1)
    while frame is not None:
        if frame.f_code.co_filename == _fs.__file__:
            found.append(frame.f_code.co_name)
        frame = frame.f_back  # type: ignore[assignment]
    return tuple(found)


@contextmanager
def intercepted(root: Path, intercept: Intercept) -> Iterator[None]:
    """Hand each call below `root` (absolute) to `intercept`, until the end of the block."""
    real = {name: getattr(os, name) for name in ("open", "close", "write", "ftruncate", "fsync", "fstat")}
    real |= {name: getattr(os, name) for name in ("rename", "mkdir", "unlink", "rmdir")}
    opened: dict[int, str] = {}  # descriptors of what lies below `root`

    def below(path: Any, dir_fd: int | None = None) -> str | None:
        """`path` relative to `root`; None where it lies elsewhere."""
        text = os.fspath(path)
        if dir_fd is not None and not Path(text).is_absolute():
            return os.path.join(opened[dir_fd], text) if dir_fd in opened else None  # noqa: PTH118
        return os.path.relpath(text, root) if Path(text).is_relative_to(root) else None

    def open_(path: Any, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        name = below(path, dir_fd)

        def go() -> int:
            return real["open"](path, flags, mode, dir_fd=dir_fd)

        if name is None:
            return go()
        creates = flags & os.O_CREAT and not os.path.lexists(root / name)
        descriptor = intercept(Call("create", name, sites=_sites()), go) if creates else go()
        opened[descriptor] = name
        return descriptor

    def close(descriptor: int) -> None:
        opened.pop(descriptor, None)
        real["close"](descriptor)

    def write(descriptor: int, data: Any) -> int:
        if descriptor not in opened:
            return real["write"](descriptor, data)
        size = real["fstat"](descriptor).st_size  # whatever is written here is written at the end
        call = Call("write", opened[descriptor], data=bytes(data), at=size, sites=_sites())
        return intercept(call, lambda part=data: real["write"](descriptor, part))

    def on_descriptor(name: Name, function: str) -> Callable[..., Any]:
        def called(descriptor: int, *arguments: int) -> Any:
            if descriptor not in opened:
                return real[function](descriptor, *arguments)
            path = opened[descriptor]
            is_folder = (root / path).is_dir()
            call = Call(name, path, at=sum(arguments), folder=is_folder, sites=_sites())
            return intercept(call, lambda: real[function](descriptor, *arguments))

        return called

    def on_path(name: Name, function: str) -> Callable[..., Any]:
        def called(path: Any, *arguments: Any, dir_fd: int | None = None, **more: Any) -> Any:
            if dir_fd is not None:
                more["dir_fd"] = dir_fd
            found = below(path, dir_fd)
            if found is None:
                return real[function](path, *arguments, **more)
            target = below(arguments[0]) or "" if name == "rename" else ""
            call = Call(name, found, target=target, sites=_sites())
            return intercept(call, lambda: real[function](path, *arguments, **more))

        return called

    replaced = {
        "open": open_,
        "close": close,
        "write": write,
        "ftruncate": on_descriptor("truncate", "ftruncate"),
        "fsync": on_descriptor("fsync", "fsync"),
        "rename": on_path("rename", "rename"),
        "mkdir": on_path("mkdir", "mkdir"),
        "unlink": on_path("unlink", "unlink"),
        "rmdir": on_path("rmdir", "rmdir"),
    }
    with ExitStack() as stack:
        for name, function in replaced.items():
            stack.enter_context(patch.object(os, name, function))
        yield
