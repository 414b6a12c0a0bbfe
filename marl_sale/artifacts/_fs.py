"""Every file system call of the artifact layer, and nothing else: one place to read, one to intercept.

Writing: a file or a folder appears under its name complete and durable, or not at all. Each file is
flushed before it is renamed, and the folder that names it after.
Reading: regular files only, and no symbolic link anywhere below the artifact folder.
"""

import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from marl_sale.errors import ArtifactError, DiskFullError, UnreachableError

TEMPORARY = ".tmp-"
"""Prefix of everything not yet committed, and of what is being deleted; resuming sweeps it away."""

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""The disk, the user's share of it (quota), or what one file may take (ulimit -f)."""

_HINTS = {
    **dict.fromkeys(
        (errno.EACCES, errno.EPERM, errno.EROFS), "change its permissions, or choose another place"
    ),
    errno.EIO: "the disk fails: copy elsewhere what can still be read",
}

_PASSING = (errno.ESTALE, errno.ETIMEDOUT, errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM)
"""A file server that is away for a moment, or too much open at once."""

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_CHUNK = 1 << 20


@contextmanager
def explained(action: str, path: Path) -> Iterator[None]:
    """Translate what the system refuses: DiskFullError when there is no space, UnreachableError where it may
    pass, else ArtifactError.
    """
    try:
        yield
    except OSError as error:
        if error.errno in NO_SPACE:
            why = "no space left on the disk" if error.errno == errno.ENOSPC else f"{error.strerror}".lower()
            raise DiskFullError(
                f"{path}: cannot {action}: {why}; everything committed before is intact",
                "free some space, or have the limit raised; then continue with --resume",
            ) from error
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        what = f"{path}: cannot {action}: {reason}"
        if error.errno in _PASSING:
            raise UnreachableError(what, "nothing is damaged by that: try again") from error
        if error.errno in _HINTS:
            raise ArtifactError(what, _HINTS[error.errno]) from error
        raise ArtifactError(what) from error


# --- reading


def _open_below(root: Path, name: str) -> int:
    """Descriptor of `root/name`, no component of `name` being a link; never waits on a FIFO."""
    *folders, last = name.split("/")
    here = os.open(root, _FOLDER)
    try:
        for folder in folders:
            below = os.open(folder, _FOLDER | os.O_NOFOLLOW, dir_fd=here)
            os.close(here)
            here = below
        return os.open(last, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=here)
    finally:
        os.close(here)


@contextmanager
def opened(root: Path, name: str) -> Iterator[tuple[BinaryIO, int]]:
    """The regular file `name` (parts joined by `/`) under `root`, and its size in bytes."""
    with explained("read", root / name):
        descriptor = _open_below(root, name)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                raise ArtifactError(f"{root / name}: not a regular file")
            with open(descriptor, "rb", closefd=False) as file:
                yield file, status.st_size
        finally:
            os.close(descriptor)


def read(root: Path, name: str, *, limit: int) -> bytes:
    """Content of a file of at most `limit` bytes."""
    with opened(root, name) as (file, size):
        if size > limit:
            raise ArtifactError(f"{root / name}: {size} bytes, at most {limit} are allowed")
        return file.read(size)


def digest(root: Path, name: str, *, durable: bool = False) -> tuple[str, int]:
    """sha256 (hex) and size of a file; `durable` also flushes it to the disk."""
    sha256, size = hashlib.sha256(), 0
    with opened(root, name) as (file, _):
        while chunk := file.read(_CHUNK):
            sha256.update(chunk)
            size += len(chunk)
        if durable:
            os.fsync(file.fileno())
    return sha256.hexdigest(), size


def names(folder: Path) -> list[str]:
    """Names in `folder`, sorted."""
    with explained("list", folder):
        return sorted(path.name for path in folder.iterdir())


def subfolders(folder: Path) -> list[str]:
    """Names of the folders in `folder`, links left out, sorted; empty where `folder` is missing."""
    if not folder.is_dir():
        return []
    with explained("list", folder), os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))


def walk(root: Path, below: str = "") -> Iterator[str]:
    """Names (relative to `root`) of everything under it that is not a folder; links are not followed."""
    with explained("list", root / below), os.scandir(root / below) as entries:
        found = sorted(entries, key=lambda entry: entry.name)
    for entry in found:
        if entry.is_dir(follow_symlinks=False):
            yield from walk(root, f"{below}{entry.name}/")
        else:
            yield f"{below}{entry.name}"


# --- writing


def sync_folder(folder: Path) -> None:
    """Make the names in `folder` durable."""
    descriptor = os.open(folder, _FOLDER)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folders(root: Path) -> None:
    """Make the names in `root` and in every folder below it durable."""
    with explained("flush", root):
        for folder, _, _ in os.walk(root, topdown=False):
            sync_folder(Path(folder))


def make_folder(folder: Path) -> None:
    """Create `folder` and its parents, durably, where they are missing."""
    with explained("create the folder", folder):
        missing = [path for path in (folder, *folder.parents) if not path.is_dir()]
        for path in reversed(missing):
            path.mkdir(exist_ok=True)
            sync_folder(path.parent)


def _temporary_name() -> str:
    return TEMPORARY + secrets.token_hex(8)


def make_temporary_folder(parent: Path) -> Path:
    """A new folder in `parent`, under a temporary name."""
    with explained("create a folder", parent):
        folder = parent / _temporary_name()
        folder.mkdir()
        return folder


def _write_all(descriptor: int, data: bytes) -> None:
    rest = memoryview(data)
    while rest:
        rest = rest[os.write(descriptor, rest) :]


def _write_new(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        _write_all(descriptor, data)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write(path: Path, data: bytes) -> None:
    """Put `data` at `path`: whoever reads, even after a power cut, finds the old content or the new."""
    make_folder(path.parent)
    temporary = path.parent / _temporary_name()
    with explained("write", path):
        try:
            _write_new(temporary, data)
            os.rename(temporary, path)  # noqa: PTH104
        except BaseException:
            with suppress(OSError):
                temporary.unlink()
            raise
        sync_folder(path.parent)


def _rename(old: Path, new: Path) -> None:
    """Durably, within a folder; after an error the old name is back."""
    os.rename(old, new)  # noqa: PTH104 — the system call by its name
    try:
        sync_folder(new.parent)
    except BaseException:
        with suppress(OSError):
            os.rename(new, old)  # noqa: PTH104
        raise


def commit(temporary: Path, folder: Path) -> None:
    """Give a complete temporary folder its name; on return it is durable, after an error still temporary."""
    sync_folders(temporary)
    with explained("write", folder):
        _rename(temporary, folder)


def discard(temporary: Path) -> None:
    """Delete a temporary file or folder as far as possible; what stays is swept by the next resume."""
    if temporary.is_dir() and not temporary.is_symlink():
        shutil.rmtree(temporary, ignore_errors=True)
    else:
        with suppress(OSError):
            temporary.unlink()


def remove(folder: Path) -> None:
    """Delete a committed folder; it loses its name first, so that no reader meets half of it.

    After an error it is still there.
    """
    temporary = folder.parent / _temporary_name()
    with explained("delete", folder):
        _rename(folder, temporary)
    discard(temporary)


def sweep(root: Path) -> None:
    """Delete what interrupted writers left under `root`."""
    for folder, folders, files in os.walk(root):
        for name in (*folders, *files):
            if name.startswith(TEMPORARY):
                discard(Path(folder) / name)
        folders[:] = [name for name in folders if not name.startswith(TEMPORARY)]


# --- growing files


def open_growing(path: Path, size: int) -> int:
    """Descriptor of a file that grows at its end, first cut to `size` bytes; created where size is 0."""
    make_folder(path.parent)
    with explained("open", path):
        flags = os.O_RDWR | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC | (0 if size else os.O_CREAT)
        descriptor = os.open(path, flags, 0o666)
        try:
            os.ftruncate(descriptor, size)
            os.fsync(descriptor)
            sync_folder(path.parent)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def grow(descriptor: int, data: bytes, *, size: int, path: Path) -> None:
    """Append to a file that is `size` bytes long; where that fails, the file is cut back to `size`."""
    with explained("append", path):
        try:
            if os.fstat(descriptor).st_size != size:  # an earlier failure could not be cut off
                os.ftruncate(descriptor, size)
            _write_all(descriptor, data)
        except BaseException:
            with suppress(OSError):
                os.ftruncate(descriptor, size)
            raise


def sync(descriptor: int, path: Path) -> None:
    """Flush an open file to the disk."""
    with explained("flush", path):
        os.fsync(descriptor)


def close(descriptor: int) -> None:
    """Release a descriptor, and the lock held through it."""
    os.close(descriptor)


# --- locks


def lock(path: Path, *, holder: bytes) -> int | None:
    """Take the lock file `path` and write in it who holds it. None where another process has it.

    The kernel drops the lock when the process ends, however it ends; children do not inherit it.
    """
    with explained("lock", path):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o666)
        if not _taken(descriptor):
            os.close(descriptor)
            return None
        try:
            # Before anything else is written here: only beside a lock is what a crash left taken for ours.
            sync_folder(path.parent)
            os.ftruncate(descriptor, 0)
            _write_all(descriptor, holder)
        except BaseException:
            os.close(descriptor)
            raise
        return descriptor


def _taken(descriptor: int) -> bool:
    """Whether the lock could be had; one who only looks (`is_locked`) holds it for some microseconds."""
    for pause in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, None):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if pause is not None:
                time.sleep(pause)
    return False


def is_locked(path: Path) -> bool:
    """Whether another process holds the lock file `path`; changes nothing."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    else:
        return False
    finally:
        os.close(descriptor)
