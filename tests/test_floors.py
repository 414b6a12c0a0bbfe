"""The import contract of pyproject.toml holds, covers every part of the library, and catches violations."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
(LAYERS,) = (contract["layers"] for contract in PROJECT["tool"]["importlinter"]["contracts"])


def lint(source: Path) -> subprocess.CompletedProcess[str]:
    """Check the contract on the library as it lies in `source`."""
    return subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache", "--config", ROOT / "pyproject.toml"],
        cwd=source,
        env={**os.environ, "PYTHONPATH": str(source)},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """The library, to be spoiled."""
    for package, folder in (
        ("marl_sale", "marl_sale"),
        ("marl_sale_cli", "cli"),
        ("marl_sale_recipes", "recipes"),
    ):
        shutil.copytree(ROOT / folder, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def test_the_contract_holds() -> None:
    result = lint(ROOT)
    assert result.returncode == 0, result.stdout + result.stderr


VIOLATIONS = (  # file, what it imports, the import found
    ("functional/embed.py", "import marl_sale.nn.mlp", "marl_sale.functional.embed -> marl_sale.nn.mlp"),
    ("nn/mlp.py", "from marl_sale.data import batch", "marl_sale.nn.mlp -> marl_sale.data.batch"),
    (
        "algorithms/qmix.py",
        "def late():\n    import marl_sale.stages.train",
        "marl_sale.algorithms.qmix -> marl_sale.stages.train",
    ),
    ("errors.py", "import marl_sale.spec", "marl_sale.errors -> marl_sale.spec"),
    ("stages/result.py", "import marl_sale_cli.app", "marl_sale.stages.result -> marl_sale_cli.app"),
)


def test_violations_are_caught(copy: Path) -> None:
    """Upward, between neighbours, hidden in a function, on the ground floor, and to the roof."""
    for file, line, _ in VIOLATIONS:
        spoiled = copy / "marl_sale" / file
        spoiled.write_text(f"{spoiled.read_text()}\n{line}\n")
    result = lint(copy)
    assert result.returncode == 1
    for _, _, found in VIOLATIONS:
        assert found in " ".join(result.stdout.split())


def test_every_part_stands_on_a_floor() -> None:
    on_floors = {name.strip() for layer in LAYERS for name in layer.split("|")}
    parts = {
        f"marl_sale.{path.stem}"
        for path in (ROOT / "marl_sale").iterdir()
        if path.name not in ("__init__.py", "__pycache__") and (path.is_dir() or path.suffix == ".py")
    }
    assert parts | {"marl_sale_cli"} == on_floors


def test_the_command_line_starts_without_torch() -> None:
    """Help must be instant: neither torch nor anything that imports it is loaded with the commands."""
    probe = "import sys, marl_sale_cli.app; print(sorted({'torch', 'numpy', 'pandas'} & set(sys.modules)))"
    result = subprocess.run(
        [sys.executable, "-c", probe], capture_output=True, text=True, check=True, cwd=ROOT
    )
    assert result.stdout.strip() == "[]"
