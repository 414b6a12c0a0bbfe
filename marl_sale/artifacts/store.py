"""Artifacts being written: a run owns its folder, and whatever it has committed survives anything."""

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any, Literal

from marl_sale.artifacts import _fs, _lock
from marl_sale.artifacts.manifest import (
    MANIFEST,
    CheckpointManifest,
    FileEntry,
    Input,
    Manifest,
    differences,
    is_relative,
    kinds,
    new_id,
    now,
    plain,
    read_manifest,
    require_outside,
)
from marl_sale.artifacts.metrics import MetricsWriter
from marl_sale.artifacts.provenance import git, versions, went_on
from marl_sale.artifacts.reader import (
    CHECKPOINTS,
    CONFIG,
    LOCK,
    Checkpoint,
    best_step,
    checkpoint_folder,
    checkpoint_steps,
    with_suffix,
)
from marl_sale.artifacts.writer import CheckpointWriter, Writer, checked
from marl_sale.errors import ArtifactError, MarlSaleError, RunExistsError, StoppedError

Keep = Literal["latest", "best", "every"]
"""Which checkpoints of a run stay; `best` is the latest and the best."""

COMMAND = "command.txt"
_FIXED = (CONFIG, COMMAND)
"""Written at creation, and where a run becomes a longer one; listed in the manifest from then on."""
_SAYS_WHY = ("interrupted", "failed")
"""How a run ends whose last note says why."""


def check_vacant(folder: Path, *, locked: bool = False, option: str = "--out") -> None:
    """RunExistsError unless `folder` is missing, empty, or holds nothing but a run killed before it had a
    manifest, and lies in no other artifact, which it would damage; StoppedError where another process writes
    to it (`locked`: it is ours). `option` is the one that named it.
    """
    hint = f"choose another folder with {option}"
    for above in folder.absolute().parents:
        if above.exists() and not above.is_dir():
            raise RunExistsError(f"{folder}: {above} is not a folder", hint)
    require_outside(folder, hint)
    if not folder.exists():
        return
    if not folder.is_dir():
        raise RunExistsError(f"{folder}: exists and is not a folder", hint)
    found = _fs.names(folder)
    ours = [name for name in found if name in {LOCK, *_FIXED} or name.startswith(_fs.TEMPORARY)]
    if not found or (LOCK in found and ours == found):
        return
    if not locked and _fs.is_locked(folder / LOCK):
        raise _lock.in_use(folder)
    raise RunExistsError(f"{folder}: not empty; nothing in it was touched", hint)


class Run(Writer):
    """An artifact being written. Use it in a `with` statement; `finish` says how it ended.

    Leaving the statement by an exception marks the run failed (interrupted after StoppedError and
    KeyboardInterrupt), so does leaving it without `finish`. Made by `create` and `resume`.
    """

    def __init__(
        self, path: Path, manifest: Manifest, lock: int, checkpoints: Mapping[int, Checkpoint], keep: Keep
    ) -> None:
        latest = checkpoints.get(max(checkpoints, default=-1))
        self.path = path
        self._manifest = manifest
        self._lock: int | None = lock
        self._keep = keep
        self._checkpoints = {step: checkpoint.manifest for step, checkpoint in checkpoints.items()}
        self._offsets = dict(latest.manifest.offsets) if latest else {}
        self._streams: dict[str, MetricsWriter] = {}
        self._goes_on: Callable[[Manifest], str | None] | None = None

    @classmethod
    def create(
        cls,
        out: Path,
        *,
        kind: str,
        recipe: str,
        overrides: Sequence[str],
        config_text: str | None,
        fingerprint: str | None,
        seed: int,
        env_spec: Mapping[str, Any] | None,
        inputs: Sequence[Input],
        command: str,
        device: str,
        keep: Keep = "best",
    ) -> "Run":
        """Start an artifact in the folder `out`, which is created where missing and must be empty.

        `keep`: which checkpoints stay beside the latest: the best (highest score, the later one where equal),
        all, or none.
        Raises RunExistsError where it is not, StoppedError where another process writes to it.
        """
        (kind,) = kinds(kind)
        check_vacant(out)
        _fs.make_folder(out)
        lock = _lock.take(out)
        try:
            check_vacant(out, locked=True)  # another process may have come and gone
            _fs.sweep(out)
            files = _write_texts(out, command, config_text)
            time = now()
            manifest = Manifest.model_validate(
                {
                    "kind": kind,
                    "status": "running",
                    "id": new_id(kind),
                    "created": time,
                    "updated": time,
                    "recipe": plain(recipe),
                    "overrides": tuple(map(plain, overrides)),
                    "fingerprint": fingerprint,
                    "seed": seed,
                    "env_spec": None if env_spec is None else dict(env_spec),
                    "inputs": tuple(inputs),
                    "files": files,
                    "counters": {},
                    "versions": versions(),
                    "git": git(),
                    "device": plain(device),
                    "notes": (),
                }
            )
            _fs.write(out / MANIFEST, manifest.to_bytes())
            return cls(out, manifest, lock, {}, keep)
        except BaseException:
            _fs.close(lock)
            raise

    @classmethod
    def resume(
        cls,
        out: Path,
        *,
        kind: str,
        fingerprint: str | None,
        seed: int,
        env_spec: Mapping[str, Any] | None,
        recipe: str = "",
        overrides: Sequence[str] = (),
        config_text: str | None = None,
        command: str = "",
        device: str = "",
        longer_than: str | None = None,
        keep: Keep = "best",
        from_scheduled: bool = False,
    ) -> "Run":
        """Continue the unfinished run in `out` from its latest checkpoint (from nothing where it has none).

        `longer_than`: the fingerprint of the run that is there, finished or not, if what is asked for is
        that run and more; it becomes the one asked for, with its recipe, configuration and command.
        `from_scheduled`: from its latest scheduled one; those after it are deleted.
        A program, source or device (where named) that it did not begin with is noted in the manifest, before
        the first checkpoint that it writes.
        Raises ArtifactError with every difference to what is asked, RunExistsError where the run is
        complete, StoppedError where another process holds it.
        """
        read_manifest(out)  # leaves no lock file in a folder that is no artifact
        lock = _lock.take(out)
        try:
            manifest, _ = read_manifest(out)
            found = {"kind": manifest.kind, "fingerprint": manifest.fingerprint, "seed": manifest.seed}
            expected = {"kind": kind, "fingerprint": longer_than or fingerprint, "seed": seed}
            problems = differences(
                {**found, "env_spec": manifest.env_spec}, {**expected, "env_spec": env_spec}
            )
            if problems:
                raise ArtifactError(
                    "\n".join([f"{out}: another run than the one asked for:", *problems]),
                    f"resume it with the recipe in its {CONFIG} and its seed, or start a new run with --out",
                )
            if manifest.status == "complete" and longer_than is None:
                raise RunExistsError(f"{out}: this run is complete", "start a new run with --out")
            _fs.sweep(out)
            files = {name: entry for name, entry in manifest.files.items() if name in _FIXED}
            if damaged := [name for name, entry in files.items() if _entry(out, name) != entry]:
                raise ArtifactError(f"{out}: damaged: {', '.join(damaged)} changed since the run began")
            checkpoints = {
                step: Checkpoint.open(out, step, run=manifest.id) for step in checkpoint_steps(out)
            }
            if checkpoints:  # the crash may have come before the latest was sure of its name
                _fs.sync_folders(out / CHECKPOINTS)
            if from_scheduled:
                scheduled = [step for step, found in checkpoints.items() if found.manifest.scheduled]
                for step in [step for step in checkpoints if step > max(scheduled, default=-1)]:
                    _fs.remove(out / checkpoint_folder(step))
                    del checkpoints[step]
            notes = manifest.notes[:-1] if manifest.status in _SAYS_WHY else manifest.notes
            manifest = manifest.changed(status="running", updated=now(), files=files, notes=notes)
            if longer_than is not None:
                manifest = manifest.changed(
                    recipe=plain(recipe),
                    overrides=tuple(map(plain, overrides)),
                    fingerprint=fingerprint,
                    files={},
                )
            _fs.write(out / MANIFEST, manifest.to_bytes())
            if not manifest.files:  # it has just become a longer one, or a crash came between these two lines
                manifest = manifest.changed(files=_write_texts(out, command, config_text))
                _fs.write(out / MANIFEST, manifest.to_bytes())
            run = cls(out, manifest, lock, checkpoints, keep)
            run._goes_on = partial(went_on, device=device, step=max(checkpoints, default=0))
            run._thin()  # the crash may have come between a checkpoint and the deletions that follow it
            return run
        except BaseException:
            _fs.close(lock)
            raise

    @property
    def manifest(self) -> Manifest:
        """What its manifest says now."""
        return self._manifest

    def _check_open(self) -> None:
        if self._lock is None:
            raise ValueError(f"{self.path}: the run is finished")

    def _put(self, name: str, data: bytes) -> None:
        self._check_open()
        _fs.write(self.path / checked(name), data)

    def _update(self, **changes: Any) -> None:
        manifest = self._manifest.changed(updated=now(), **changes)
        _fs.write(self.path / MANIFEST, manifest.to_bytes())
        self._manifest = manifest

    def metrics(
        self, stream: str, columns: Sequence[str], *, truncate_at: int | None = None
    ) -> MetricsWriter:
        """The writer of `metrics/<stream>.jsonl`; see `rows`."""
        return self.rows(f"metrics/{stream}", columns, truncate_at=truncate_at)

    def rows(self, name: str, columns: Sequence[str], *, truncate_at: int | None = None) -> MetricsWriter:
        """The writer of `<name>.jsonl`; the run flushes it at each checkpoint and closes it at the end.

        A resumed run goes on at `truncate_at` bytes, by default where the latest checkpoint left off;
        rows written after it are dropped, as the work they report is done again.
        """
        self._check_open()
        name = checked(with_suffix(name, ".jsonl"))
        if name in self._streams:
            raise ValueError(f"{name} is already being written")
        start = self._offsets.get(name, 0) if truncate_at is None else truncate_at
        self._streams[name] = MetricsWriter(self.path / name, columns, truncate_at=start)
        return self._streams[name]

    @property
    def scheduled_steps(self) -> list[int]:
        """Steps of the scheduled checkpoints there are, ascending."""
        return [step for step, manifest in self._checkpoints.items() if manifest.scheduled]

    def latest_checkpoint(self) -> Checkpoint | None:
        """The checkpoint to continue from; None before the first."""
        if not self._checkpoints:
            return None
        return Checkpoint.open(self.path, max(self._checkpoints), run=self._manifest.id)

    @contextmanager
    def checkpoint(
        self,
        step: int,
        *,
        counters: Mapping[str, int | float],
        score: float | None,
        scheduled: bool = True,
    ) -> Iterator[CheckpointWriter]:
        """Write the checkpoint of `step`, which must be later than all before (ValueError).

        After a clean exit it is durable, and older ones are deleted unless the run keeps them. One that was
        not `scheduled` (the clock or a signal asked for it) goes in any case with the next, and the latest
        scheduled one stays beside it: what is left of a run does not tell how often it was interrupted. After
        an exception, in the body or here, everything is as before.
        """
        self._check_open()
        if step <= max(self._checkpoints, default=-1):
            raise ValueError(f"step {step} is not after the latest checkpoint ({max(self._checkpoints)})")
        if score is not None and not math.isfinite(score):
            raise ValueError(f"the score of a checkpoint must be finite or None, not {score}")
        self._note_what_it_goes_on_with()
        _fs.make_folder(self.path / CHECKPOINTS)
        temporary = _fs.make_temporary_folder(self.path / CHECKPOINTS)
        try:
            writer = CheckpointWriter(temporary)
            yield writer
            for stream in self._streams.values():
                stream.sync()
            manifest = CheckpointManifest(
                run=self._manifest.id,
                step=step,
                created=now(),
                counters=dict(counters),
                score=score,
                scheduled=scheduled,
                offsets={**self._offsets, **{name: s.offset for name, s in self._streams.items()}},
                files=writer.files,
            )
            _fs.write(temporary / MANIFEST, manifest.to_bytes())
            _fs.commit(temporary, self.path / checkpoint_folder(step))
        except BaseException:
            _fs.discard(temporary)
            raise
        self._checkpoints[step] = manifest
        self._thin()
        self._update(counters=dict(counters))

    def _thin(self) -> None:
        """Delete the checkpoints that do not stay."""
        lasting = self.scheduled_steps
        kept = {max(self._checkpoints, default=None), *(lasting if self._keep == "every" else lasting[-1:])}
        if self._keep == "best":
            kept.add(best_step({step: self._checkpoints[step].score for step in lasting}))
        for old in set(self._checkpoints) - kept:
            _fs.remove(self.path / checkpoint_folder(old))
            del self._checkpoints[old]

    def note(self, text: str) -> None:
        """Say something of the run in its manifest, once, however it goes on or ends."""
        self._check_open()
        if plain(text) not in self._manifest.notes:
            self._update(notes=(*self._manifest.notes, plain(text)))

    def _note_what_it_goes_on_with(self) -> None:
        if self._goes_on is not None:
            text, self._goes_on = self._goes_on(self._manifest), None
            if text:
                self.note(text)

    def prune(self, folder: str, keep: Collection[str]) -> None:
        """Delete every file in a folder of the run but those to keep (and the folder, where there are none):
        what no checkpoint needs any more.
        """
        self._check_open()
        path = self.path / checked(folder)
        if not keep:
            _fs.discard(path)
        elif path.is_dir():
            for name in set(_fs.names(path)).difference(keep):
                _fs.discard(path / name)

    def finish(
        self,
        status: Literal["complete", "interrupted", "failed"],
        *,
        counters: Mapping[str, int | float],
        notes: Sequence[str] = (),
    ) -> None:
        """Make every file durable, enter its hash in the manifest, and let go of the folder."""
        self._check_open()
        if status == "complete":
            self._note_what_it_goes_on_with()
        for stream in self._streams.values():
            stream.close()
        names = [name for name in _fs.walk(self.path) if _is_listed(name)]
        files = {name: _entry(self.path, name) for name in names}
        _fs.sync_folders(self.path)
        self._update(
            status=status,
            counters=dict(counters),
            files=files,
            notes=(*self._manifest.notes, *map(plain, notes)),
        )
        self._release()

    def _release(self) -> None:
        if self._lock is not None:
            lock, self._lock = self._lock, None
            _fs.close(lock)

    def __enter__(self) -> "Run":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is None:
            return
        stopped = isinstance(error, StoppedError | KeyboardInterrupt)
        note = f"{type(error).__name__}: {error}" if error else "the stage ended without saying how"
        try:
            self.finish(
                "interrupted" if stopped else "failed", counters=self._manifest.counters, notes=[note]
            )
        except MarlSaleError:
            # Not even that can be written: the run stays "running" without a holder, which resumes as well.
            if error is None:
                raise
        finally:
            for stream in self._streams.values():
                with suppress(MarlSaleError):
                    stream.close()
            self._release()


def _write_texts(out: Path, command: str, config_text: str | None) -> dict[str, FileEntry]:
    """What says how the run was asked for, written; for its manifest's list of files."""
    texts = {COMMAND: command.rstrip("\n") + "\n"}
    if config_text is not None:
        texts[CONFIG] = config_text
    for name, text in texts.items():
        _fs.write(out / name, text.encode(errors="backslashreplace"))  # a path may be no text
    return {name: _entry(out, name) for name in texts}


def _entry(root: Path, name: str) -> FileEntry:
    sha256, size = _fs.digest(root, name, durable=True)
    return FileEntry(sha256=sha256, bytes=size)


def _is_listed(name: str) -> bool:
    """Whether an artifact's manifest lists the file; a checkpoint's files are in its own manifest."""
    if name in {MANIFEST, LOCK} or not is_relative(name):
        return False
    return not name.startswith(f"{CHECKPOINTS}/") or (name.count("/") == 2 and name.endswith(f"/{MANIFEST}"))
