"""Artifacts that want something: each is made from a sound one by code, and sealed again where that helps.

Whoever makes an artifact also makes its hashes. So most of these have sound hashes, and must be refused for
what they are; the others are what a bad disk or a careless copy leaves.
"""

import hashlib
import io
import json
import os
import pickle
import shutil
import socket
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

Harm = Callable[[Path], object]

COMMANDS: dict[str, tuple[str, list[str]]] = {
    "eval": ("agent", ["eval", "{artifact}", "--episodes", "2", "--out", "{out}", "--device", "cpu"]),
    "plot": ("agent", ["plot", "{artifact}", "--out", "{out}"]),
    "plot an evaluation": ("evaluation", ["plot", "{agent}", "{artifact}", "--out", "{out}"]),
    "show": ("agent", ["runs", "show", "{artifact}"]),
    "verify": ("agent", ["runs", "verify", "{artifact}"]),
    "lineage": ("agent", ["runs", "lineage", "{artifact}", "--root", "{artifact}"]),
    "train from": (
        "world-model",
        ["train", "{recipe}", "--world-model", "{artifact}", "--out", "{out}", "--device", "cpu"],
    ),
    "pretrain from": (
        "dataset",
        ["pretrain-wm", "{recipe}", "--dataset", "{artifact}", "--out", "{out}", "--device", "cpu"],
    ),
    "resume": ("interrupted", ["train", "{recipe}", "--resume", "--out", "{artifact}", "--device", "cpu"]),
}
"""By name: the kind of artifact that is harmed, and the command that reads it."""


@dataclass(frozen=True)
class Case:
    """`harm` changes the artifact that `command` reads; the refusal must hold `told`."""

    command: str
    told: str
    harm: Harm


# --- tools of the trade


def seal(root: Path) -> None:
    """Give every manifest below `root` the sizes and hashes of the files as they are now."""
    checkpoints = sorted((root / "checkpoints").glob("*/manifest.json"))
    for manifest in (*checkpoints, root / "manifest.json"):
        values = json.loads(manifest.read_text())
        for name in values["files"]:
            if (path := manifest.parent / name).is_file():
                data = path.read_bytes()
                values["files"][name] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        manifest.write_text(json.dumps(values))


def edit(root: Path, **changes: Any) -> None:
    path = root / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def raw(root: Path, old: str, new: str) -> None:
    """Change the text of the manifest."""
    path = root / "manifest.json"
    text = path.read_text()
    assert old in text, old
    path.write_text(text.replace(old, new, 1))


def checkpoint(root: Path) -> Path:
    return max((root / "checkpoints").iterdir())


def find(root: Path, name: str) -> Path:
    """A file of the artifact, or of its latest checkpoint."""
    return root / name if (root / name).exists() else checkpoint(root) / name


def planted(name: str, data: bytes | Callable[[bytes], bytes]) -> Harm:
    """Another content, with sound hashes."""

    def harm(root: Path) -> None:
        path = find(root, name)
        path.write_bytes(data if isinstance(data, bytes) else data(path.read_bytes()))
        seal(root)

    return harm


def damaged(name: str, change: Callable[[bytes], bytes]) -> Harm:
    """Another content, with the hashes of the old one."""

    def harm(root: Path) -> None:
        path = find(root, name)
        path.write_bytes(change(path.read_bytes()))

    return harm


def replaced(name: str, make: Callable[[Path], object]) -> Harm:
    """Something that is no regular file, or is elsewhere; the old one lies beside the artifact."""

    def harm(root: Path) -> None:
        path = find(root, name)
        path.rename(root.parent / "moved")
        make(path)

    return harm


def manifest(**changes: Any) -> Harm:
    return lambda root: edit(root, **changes)


def manifest_text(old: str, new: str) -> Harm:
    return lambda root: raw(root, old, new)


def in_json(name: str, change: Callable[[dict[str, Any]], object]) -> Harm:
    """Change the value in a JSON file, with sound hashes."""

    def harm(root: Path) -> None:
        path = find(root, name)
        values = json.loads(path.read_text())
        change(values)
        path.write_text(json.dumps(values))
        seal(root)

    return harm


def tensors(name: str, change: Callable[[dict[str, torch.Tensor]], object]) -> Harm:
    """Change the tensors of a file, with sound hashes."""

    def harm(root: Path) -> None:
        path = find(root, name)
        values = safetensors.torch.load(path.read_bytes())
        change(values)
        path.write_bytes(safetensors.torch.save(values))
        seal(root)

    return harm


def a_file(header: object, data: bytes = b"", *, length: int | None = None) -> bytes:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return (len(text) if length is None else length).to_bytes(8, "little") + text + data


def entry(begin: int, end: int, shape: list[int] | None = None, dtype: str = "F32") -> dict[str, Any]:
    return {"dtype": dtype, "shape": shape or [(end - begin) // 4], "data_offsets": [begin, end]}


CANARY = "canary"
"""Name of the file, in the folder above the artifact, that nothing may touch."""


class Payload:
    """Pickled, it writes to the canary when it is read."""

    def __reduce__(self) -> tuple[Any, ...]:
        return exec, (f"open({CANARY!r}, 'w').write('sung')",)


def zipped(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, data)
    return file.getvalue()


def tarred(name: str, data: bytes) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        info = tarfile.TarInfo(name)
        info.size = len(data)
        archive.addfile(info, io.BytesIO(data))
    return file.getvalue()


def saved_by_torch(value: object) -> bytes:
    file = io.BytesIO()
    torch.save(value, file)
    return file.getvalue()


def saved_by_numpy(value: object) -> bytes:
    file = io.BytesIO()
    np.savez(file, a=np.array([value], dtype=object), allow_pickle=True)
    return file.getvalue()


def sparse(root: Path) -> None:
    """A file of a terabyte that takes no room, declared as such everywhere."""
    path = checkpoint(root) / "weights.safetensors"
    size = 1 << 40
    header = json.dumps({"a": entry(0, size - 8 - 64)}).encode().ljust(64)
    with path.open("wb") as file:
        file.write(len(header).to_bytes(8, "little") + header)
        file.truncate(size)
    declare(root, path.name, {"sha256": "0" * 64, "bytes": size})


def declare(root: Path, name: str, said: dict[str, Any]) -> None:
    """What the latest checkpoint's manifest says of a file, without looking at it."""
    own = checkpoint(root) / "manifest.json"
    values = json.loads(own.read_text())
    values["files"][name] = said
    own.write_text(json.dumps(values))
    data, outer = own.read_bytes(), json.loads((root / "manifest.json").read_text())
    outer["files"][f"checkpoints/{own.parent.name}/manifest.json"] = {
        "sha256": hashlib.sha256(data).hexdigest(),
        "bytes": len(data),
    }
    (root / "manifest.json").write_text(json.dumps(outer))


def linked_folder(root: Path) -> None:
    place = checkpoint(root)
    place.rename(root.parent / "moved")
    (root / "checkpoints" / place.name).symlink_to(root.parent / "moved")


def socket_file(path: Path) -> None:
    before = Path.cwd()
    os.chdir(path.parent)  # the name of a socket is short
    try:
        with socket.socket(socket.AF_UNIX) as made:
            made.bind(path.name)
    finally:
        os.chdir(before)


def unlisted(root: Path) -> None:
    (root / "sitecustomize.py").write_text(f"open({CANARY!r}, 'w')")


def yaml_line(key: str, value: str) -> Harm:
    """Another value of a key at the top of config.yaml."""

    def change(data: bytes) -> bytes:
        lines = data.decode().splitlines()
        found = [f"{key}: {value}" if line.startswith(f"{key}:") else line for line in lines]
        assert found != lines
        return "\n".join(found).encode() + b"\n"

    return planted("config.yaml", change)


LAUGHS = b"a: &a [x, x, x, x, x, x, x, x, x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (c, c, b", ".join([b"*%c" % (c - 1)] * 9)) for c in range(98, 107)
)


def row(index: int, change: Callable[[dict[str, Any]], object]) -> Callable[[bytes], bytes]:
    """Change one row of a JSONL file."""

    def changed(data: bytes) -> bytes:
        rows = [json.loads(line) for line in data.splitlines()]
        change(rows[index])
        return b"".join(json.dumps(each).encode() + b"\n" for each in rows)

    return changed


def update(**values: Any) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.update(values)


def drop(name: str) -> Callable[[dict[str, Any]], object]:
    return lambda found: found.pop(name)


def first(values: dict[str, torch.Tensor]) -> str:
    return max(values, key=lambda name: values[name].numel())


F8 = json.dumps(entry(0, 8)).encode()
W, M, C = "weights.safetensors", "manifest.json", "config.yaml"
WM = "weights/world_model.safetensors"
TRAIN, EVALUATION = "metrics/train.jsonl", "metrics/evaluation.jsonl"
PICKLE = pickle.dumps(Payload())
HUGE = b"{" + b",".join(b'"%d":{"dtype":"F32","shape":[0],"data_offsets":[0,0]}' % i for i in range(300_000))

CORPUS: dict[str, Case] = {
    # another format in the place of weights
    "a pickle that runs code": Case("eval", W, planted(W, PICKLE)),
    "a pickle behind a sound length": Case("eval", W, planted(W, a_file(PICKLE))),
    "torch.save of code": Case("eval", W, planted(W, saved_by_torch({"a": Payload()}))),
    "torch.save of tensors": Case("eval", W, planted(W, saved_by_torch({"a": torch.ones(2)}))),
    "npz of objects": Case("eval", W, planted(W, saved_by_numpy(Payload()))),
    "a zip bomb": Case("eval", W, planted(W, zipped("a", bytes(1 << 24)))),
    "a tar with a path that climbs": Case("eval", W, planted(W, tarred("../" + CANARY, b"sung"))),
    "a Python file": Case("eval", W, planted(W, b"import os; os.remove('canary')\n")),
    # the header of weights
    "nothing at all": Case("eval", W, planted(W, b"")),
    "truncated in the header": Case("eval", W, planted(W, a_file({}, length=1000))),
    "a header of 2^63 bytes": Case("eval", W, planted(W, a_file({}, length=2**63))),
    "a header of 16 MiB": Case("eval", W, planted(W, a_file(HUGE + b"}"))),
    "too many tensors": Case(
        "eval", W, planted(W, a_file({str(i): entry(0, 0, [0], "U8") for i in range(4097)}))
    ),
    "a bomb of brackets": Case("eval", W, planted(W, a_file(b"[" * 900_000))),
    "a name given twice": Case(
        "eval",
        W,
        planted(W, a_file(b'{"a":%b,"a":%b}' % ((json.dumps(entry(0, 8)).encode(),) * 2), bytes(8))),
    ),
    "tensors that overlap": Case(
        "eval", W, planted(W, a_file({"a": entry(0, 8), "b": entry(4, 12)}, bytes(12)))
    ),
    "offsets beyond the end": Case("eval", W, planted(W, a_file({"a": entry(0, 2**40)}, bytes(8)))),
    "offsets below the start": Case("eval", W, planted(W, a_file({"a": entry(-8, 0, [2])}, bytes(8)))),
    "a hole": Case("eval", W, planted(W, a_file({"a": entry(0, 8), "b": entry(12, 20)}, bytes(20)))),
    "sizes that overflow": Case("eval", W, planted(W, a_file({"a": entry(0, 0, [0, 2**40, 2**40])}))),
    "a size of 10^400": Case("eval", W, planted(W, a_file({"a": entry(0, 0, [0, 10**400])}))),
    "a dtype of the future": Case(
        "eval", W, planted(W, a_file({"a": entry(0, 8, [8], "F8_E5M2")}, b"8 bytes!"))
    ),
    "metadata": Case("eval", W, planted(W, a_file({"__metadata__": {"a": "b"}}))),
    "a name that clears the screen": Case("eval", W, planted(W, a_file({"\x1b[2J": entry(0, 8)}, bytes(8)))),
    "truncated data": Case("eval", W, planted(W, lambda data: data[:-4])),
    "a terabyte of zeros": Case("eval", W, sparse),
    # tensors that do not fit
    "NaN": Case("eval", W, tensors(W, lambda t: t[first(t)].view(-1)[0].fill_(float("nan")))),
    "infinity": Case("eval", W, tensors(W, lambda t: t[first(t)].view(-1)[-1].fill_(float("inf")))),
    "another dtype": Case("eval", W, tensors(W, lambda t: t.update({first(t): t[first(t)].double()}))),
    "another shape": Case("eval", W, tensors(W, lambda t: t.update({first(t): t[first(t)].flatten()}))),
    "a tensor less": Case("eval", W, tensors(W, lambda t: t.pop(first(t)))),
    "a tensor more": Case("eval", W, tensors(W, lambda t: t.update({"more": torch.ones(1)}))),
    "NaN in a world model": Case(
        "train from", WM, tensors(WM, lambda t: t[first(t)].view(-1)[0].fill_(float("nan")))
    ),
    "a pickle as a world model": Case("train from", WM, planted(WM, PICKLE)),
    "another shape in a world model": Case(
        "train from", WM, tensors(WM, lambda t: t.update({first(t): t[first(t)].flatten()}))
    ),
    "episodes that are too long": Case(
        "pretrain from",
        "not episodes of this task",
        tensors("episodes.safetensors", lambda t: t["length"].fill_(10**6)),
    ),
    "actions there are none of": Case(
        "pretrain from",
        "not episodes of this task",
        tensors("episodes.safetensors", lambda t: t["actions"].fill_(99)),
    ),
    # what is no file, or lies elsewhere
    "a link in the place of weights": Case(
        "eval", W, replaced(W, lambda path: path.symlink_to(path.parents[3] / "moved"))
    ),
    "a link to a device": Case("eval", C, replaced(C, lambda path: path.symlink_to("/dev/zero"))),
    "a linked folder": Case("eval", "checkpoint", linked_folder),
    "a link in the place of a manifest": Case(
        "show", M, replaced(M, lambda path: path.symlink_to(path.parents[1] / "moved"))
    ),
    "a FIFO in the place of weights": Case("eval", W, replaced(W, os.mkfifo)),
    "a FIFO in the place of a manifest": Case("show", M, replaced(M, os.mkfifo)),
    "a FIFO in the place of metrics": Case("plot", EVALUATION, replaced(EVALUATION, os.mkfifo)),
    "a FIFO in the place of the lock": Case("resume", "lock", replaced("lock", os.mkfifo)),
    "a socket in the place of a config": Case("eval", C, replaced(C, socket_file)),
    "a folder in the place of weights": Case("eval", W, replaced(W, Path.mkdir)),
    "a folder in the place of a manifest": Case("show", M, replaced(M, Path.mkdir)),
    "a link in the place of the replay": Case(
        "resume", "replay", replaced("replay", lambda path: path.symlink_to(path.parents[1] / "moved"))
    ),
    # what a manifest says
    "a path that climbs": Case("show", M, manifest(files={"../canary": {"sha256": "0" * 64, "bytes": 0}})),
    "a path that climbs inside": Case(
        "verify", M, manifest(files={"a/../../canary": {"sha256": "0" * 64, "bytes": 0}})
    ),
    "an absolute path": Case("show", M, manifest(files={"/etc/passwd": {"sha256": "0" * 64, "bytes": 0}})),
    "a hidden file": Case("show", M, manifest(files={".bashrc": {"sha256": "0" * 64, "bytes": 0}})),
    "an absolute input": Case(
        "lineage",
        M,
        manifest(inputs=[{"role": "a", "id": "a", "path": "/etc", "manifest_sha256": "0" * 64}]),
    ),
    "an input that climbs": Case(
        "lineage",
        M,
        manifest(inputs=[{"role": "a", "id": "a", "path": "../..", "manifest_sha256": "0" * 64}]),
    ),
    "an id that is a path": Case("show", M, manifest(id="../../canary")),
    "an unknown field": Case("show", M, manifest(hooks=["os.system"])),
    "another kind": Case("eval", "its kind is", manifest(kind="world-model")),
    "a kind there is not": Case("show", M, manifest(kind="checkpoint")),
    "another format": Case("show", M, manifest(format="pickle")),
    "a newer schema": Case("show", M, manifest(schema_version=2)),
    "a schema that is true": Case("show", M, manifest(schema_version=True)),
    "a key given twice": Case("show", M, manifest_text("{", '{"kind": "agent", ')),
    "NaN in a manifest": Case("show", M, manifest_text('"seed": 0', '"seed": NaN')),
    "a number beyond floats": Case("show", M, manifest_text('"seed": 0', '"seed": 1e999')),
    "an endless integer": Case("show", M, manifest_text('"seed": 0', f'"seed": {"9" * 5000}')),
    "an integer beyond 64 bits": Case("show", M, manifest(seed=2**70)),
    "a nested manifest": Case("show", M, manifest_text('"seed": 0', f'"seed": {"[" * 50_000}')),
    "deep, but complete": Case("show", M, manifest_text('"seed": 0', f'"seed": {"[" * 40 + "]" * 40}')),
    "a terminal escape in a note": Case("show", M, manifest(notes=["\x1b]0;owned\x07"])),
    "a line break of C1 in a recipe": Case("show", M, manifest(recipe="a\x9b2Jb")),
    "a list in the place of a manifest": Case("show", M, lambda root: (root / M).write_text("[]")),
    "a manifest that is no UTF-8": Case("show", M, lambda root: (root / M).write_bytes(b'{"a": "\xff"}')),
    "a manifest in UTF-16": Case("show", M, lambda root: (root / M).write_text("{}", encoding="utf-16")),
    "a manifest of 5 MiB": Case("show", M, lambda root: (root / M).write_bytes(b" " * (5 << 20))),
    "a million empty lists": Case(
        "show", M, lambda root: (root / M).write_bytes(b"[" + b"[]," * 1_300_000 + b"[]]")
    ),
    "a hundred thousand problems": Case("show", M, manifest(versions={f"{i}!": i for i in range(100_000)})),
    "a file that is missing": Case("verify", C, lambda root: (root / C).unlink()),
    "a file too many": Case("verify", "sitecustomize.py", unlisted),
    "a wrong hash": Case("verify", TRAIN, damaged(TRAIN, lambda data: data.replace(b"1", b"2", 1))),
    "a wrong size": Case("verify", TRAIN, damaged(TRAIN, lambda data: data + b"\n")),
    "one bit of the weights": Case("eval", W, damaged(W, lambda data: data[:-1] + bytes([data[-1] ^ 1]))),
    "a checkpoint of another run": Case("eval", M, lambda root: other_run(root)),
    # what a config says
    "a YAML tag that names code": Case("eval", C, yaml_line("algorithm", "!!python/name:os.system")),
    "a YAML tag": Case("eval", C, yaml_line("algorithm", "!x mmsa")),
    "an anchor": Case("eval", C, yaml_line("discount", "&a 0.9")),
    "an alias": Case("eval", C, yaml_line("discount", "*a")),
    "a merge": Case("eval", C, planted(C, lambda data: data + b"<<: {seed: 1}\n")),
    "a billion laughs": Case("eval", C, planted(C, LAUGHS)),
    "YAML in the depths": Case("eval", C, planted(C, b"[" * 100_000)),
    "a huge YAML integer": Case("eval", C, yaml_line("discount", "9" * 100_000)),
    "a YAML number that is none": Case("eval", C, yaml_line("discount", ".nan")),
    "a YAML key given twice": Case("eval", C, planted(C, lambda data: data + b"discount: 0.1\n")),
    "a second YAML document": Case("eval", C, planted(C, lambda data: data + b"---\na: 1\n")),
    "YAML of 2 MiB": Case("eval", C, planted(C, lambda data: data + b"#" * (2 << 20))),
    "YAML that is no UTF-8": Case("eval", C, planted(C, lambda data: data + b"# \xff\n")),
    "an algorithm by import path": Case("eval", C, yaml_line("algorithm", "os.system")),
    "a family by import path": Case(
        "eval", "env.family", planted(C, lambda data: data.replace(b"family: tiny", b"family: os"))
    ),
    "a family by path": Case(
        "eval", C, planted(C, lambda data: data.replace(b"family: tiny", b"family: ../os"))
    ),
    "an interpolation": Case("eval", C, yaml_line("discount", "${oc.env:HOME}")),
    "a number out of its range": Case(
        "eval", C, planted(C, lambda data: data.replace(b"kl_balance: ", b"kl_balance: 9"))
    ),
    "a config in the depths, drawn": Case("plot", C, planted(C, b"a: " + b"[" * 100_000)),
    "a tag, drawn": Case("plot", C, yaml_line("algorithm", "!!python/name:os.system")),
    # what metrics say
    "other columns in the third row": Case("plot", EVALUATION, planted(EVALUATION, row(2, update(more=1)))),
    "a column less": Case("plot", EVALUATION, planted(EVALUATION, row(1, drop("win_rate")))),
    "a list in a cell": Case("plot", EVALUATION, planted(EVALUATION, row(1, update(win_rate=[1])))),
    "a text in a cell": Case("plot", EVALUATION, planted(EVALUATION, row(1, update(episode_return="1")))),
    "NaN in a cell": Case(
        "plot", EVALUATION, planted(EVALUATION, row(1, update(episode_return=float("nan"))))
    ),
    "an integer of 400 digits": Case(
        "plot", EVALUATION, planted(EVALUATION, row(1, update(episode_return=10**400)))
    ),
    "steps that go back": Case("plot", EVALUATION, planted(EVALUATION, row(-1, update(env_steps=0)))),
    "a key twice in a row": Case("plot", TRAIN, planted(TRAIN, lambda data: b'{"a":1,"a":1}\n' + data)),
    "half a row": Case("plot", TRAIN, planted(TRAIN, lambda data: data[:-5])),
    "a row of 1 MiB": Case("plot", TRAIN, planted(TRAIN, lambda data: data + b" " * (1 << 20) + b"\n")),
    "a row in the depths": Case("plot", TRAIN, planted(TRAIN, lambda data: b"[" * 60_000 + b"\n" + data)),
    "a row that is no object": Case("plot", TRAIN, planted(TRAIN, lambda data: data + b"1\n")),
    "a column that clears the screen": Case(
        "plot", TRAIN, planted(TRAIN, lambda data: b'{"\\u001b[2J": [1]}\n' + data)
    ),
    "an evaluation of 400 digits": Case(
        "plot an evaluation",
        "episodes.jsonl",
        planted("episodes.jsonl", row(0, update(episode_return=10**400))),
    ),
    "a success that is a text": Case(
        "plot an evaluation", "episodes.jsonl", planted("episodes.jsonl", row(0, update(success="no")))
    ),
    "a report that is a list": Case("plot an evaluation", "episodes.jsonl", planted("report.json", b"[]")),
    "a report in the depths": Case(
        "plot an evaluation", "report.json", planted("report.json", b"[" * 100_000)
    ),
    # what a checkpoint to go on from says
    "a state without counters": Case("resume", "state", in_json("state.json", drop("counters"))),
    "a state that is a list": Case("resume", "state", planted("state.json", b"[]")),
    "a counter that is a text": Case(
        "resume", "state", in_json("state.json", lambda s: s["counters"].update(episodes="1"))
    ),
    "a segment by path": Case(
        "resume",
        "state",
        in_json("state.json", lambda s: s["segments"][0].update(first="../../canary")),
    ),
    "a segment that is negative": Case(
        "resume", "segment", in_json("state.json", lambda s: s["segments"][0].update(first=-5))
    ),
    "a segment of another hash": Case(
        "resume", "replay", in_json("state.json", lambda s: s["segments"][0].update(sha256="0" * 64))
    ),
    "a random state of another size": Case(
        "resume",
        "state",
        tensors(
            "state.safetensors", lambda t: t.update({"generator.sampling": torch.zeros(7, dtype=torch.uint8)})
        ),
    ),
    "a random state of noughts": Case(
        "resume", "state", tensors("state.safetensors", lambda t: t["generator.sampling"].zero_())
    ),
    "an optimiser of another shape": Case(
        "resume",
        "state",
        tensors(
            "state.safetensors",
            lambda t: t.update({n: torch.zeros(1) for n in t if n.startswith("optimiser.") and t[n].dim()}),
        ),
    ),
    "a learner without its target": Case(
        "resume",
        "state",
        tensors(
            "state.safetensors", lambda t: [t.pop(n) for n in list(t) if n.startswith("learner.target_")]
        ),
    ),
}


def other_run(root: Path) -> None:
    path = checkpoint(root) / M
    path.write_text(json.dumps({**json.loads(path.read_text()), "run": "agent-0000000000"}))
    seal(root)


def copy(sound: Path, to: Path) -> Path:
    shutil.copytree(sound, to)
    return to
