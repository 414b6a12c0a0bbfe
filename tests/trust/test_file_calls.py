"""That files are written in one place, `marl_sale/artifacts/_fs.py`, which is what the other proofs watch."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WRITES = {
    *("write_text", "write_bytes", "mkdir", "makedirs", "unlink", "rename", "replace", "touch", "rmdir"),
    *("rmtree", "move", "copyfile", "copytree", "copy2", "symlink", "symlink_to", "link", "hardlink_to"),
    *(
        "truncate",
        "ftruncate",
        "fsync",
        "savefig",
        "NamedTemporaryFile",
        "TemporaryFile",
        "mkstemp",
        "mkdtemp",
    ),
    *("TemporaryDirectory", "save_file", "imsave"),
}
"""Functions and methods that change files."""
ELSEWHERE = {
    "marl_sale/stages/_render.py": "a GIF for the user, wherever --render says; no part of an artifact",
    "marl_sale/stages/doctor.py": "a smoke run, deleted before its line is printed",
    "marl_sale/envs/_worker.py": "memory shared with a worker, as a file without a name",
    "marl_sale/envs/mamujoco/body.py": "the body's XML while MuJoCo loads it",
    "marl_sale/analysis/figures.py": "savefig, into memory",
    "marl_sale/sweeps/engines.py": "what a cell prints; whether it is done its artifact says",
    "marl_sale/sweeps/on_slurm.py": "the exit code of a cell, read once; lost, the cell is looked at again",
    "cli/recipes.py": "a copy of a recipe for the user",
    "cli/_docs.py": "the page docs/cli.md",
    "cli/_console.py": "/dev/null, for messages that nobody reads",
}
"""Where else files are written, and why nothing there has to survive anything."""


def writing(tree: ast.AST) -> Iterator[str]:
    """Calls in a module that may change a file, as `line: name`."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call):
            continue
        name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        owner = getattr(node.func, "value", None)
        is_text = name == "replace" and len(node.args) == 2  # str.replace; that of Path takes one argument
        is_method = isinstance(node.func, ast.Attribute)
        given = (*node.args[not is_method :], *(keyword.value for keyword in node.keywords))
        modes = [str(argument.value) for argument in given if isinstance(argument, ast.Constant)]
        opens = name == "open" and any(len(mode) < 4 and set("wax+") & set(mode) for mode in modes)
        opens |= name == "open" and getattr(owner, "id", "") == "os"
        # A run's own `write_…` methods end in _fs.py; those of Path belong to no module named here.
        of_a_run = name in ("write_text", "write_bytes") and getattr(owner, "id", "") in RUNS
        is_dataclass = name == "replace" and isinstance(node.func, ast.Name)
        if opens or (name in WRITES and not (is_text or of_a_run or is_dataclass)):
            yield f"{node.lineno}: {name}"


RUNS = ("report", "written", "saved", "writer", "run")
"""What stages call an artifact that they write."""


def test_files_are_written_in_one_place() -> None:
    found = {}
    for source in sorted([*(ROOT / "marl_sale").rglob("*.py"), *(ROOT / "cli").rglob("*.py")]):
        name = source.relative_to(ROOT).as_posix()
        if calls := list(writing(ast.parse(source.read_text(encoding="utf-8")))):
            found[name] = calls
    del found["marl_sale/artifacts/_fs.py"]
    assert {name: calls for name, calls in found.items() if name not in ELSEWHERE} == {}
    assert set(ELSEWHERE) == set(found), "no longer needed"


@pytest.mark.parametrize(
    "source",
    [
        "Path('a').write_text('b')",
        "open('a', 'w')",
        "path.open(mode='ab')",
        "path.open('x')",
        "os.open(path, flags)",
        "os.rename(a, b)",
        "shutil.rmtree(a)",
        "path.replace(other)",
    ],
)
def test_a_write_is_noticed(source: str) -> None:
    assert list(writing(ast.parse(source)))


@pytest.mark.parametrize(
    "source", ["text.replace('a', 'b')", "path.open('rb')", "open('a')", "replace(a, b=c)"]
)
def test_nothing_else_is(source: str) -> None:
    assert not list(writing(ast.parse(source)))
