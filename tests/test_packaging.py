"""What is installed: every package, the recipes, and a command that works outside the checkout."""

import os
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
SOURCES = {"marl_sale": "marl_sale", "marl_sale_cli": "cli", "marl_sale_recipes": "recipes"}


def folders(package: str, source: str) -> set[str]:
    """Importable packages below a source folder."""
    found = {path.parent for path in (ROOT / source).rglob("__init__.py")}
    return {".".join([package, *path.relative_to(ROOT / source).parts]) for path in found}


def test_the_list_of_packages_is_that_of_the_folders() -> None:
    settings = PROJECT["tool"]["setuptools"]
    expected = set[str]().union(*(folders(package, source) for package, source in SOURCES.items()))
    assert set(settings["packages"]) == expected
    assert settings["package-dir"] == {name: path for name, path in SOURCES.items() if name != path}


def test_no_folder_of_modules_is_forgotten() -> None:
    """A folder with modules but without __init__.py would be left out of the wheel."""
    for source in SOURCES.values():
        for module in (ROOT / source).rglob("*.py"):
            assert (module.parent / "__init__.py").exists(), module


def run(*command: str | Path, cwd: Path, **variables: str) -> str:
    result = subprocess.run(
        command,
        cwd=cwd,
        env={**os.environ, "PIP_DISABLE_PIP_VERSION_CHECK": "1", "PIP_NO_INDEX": "1", **variables},
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy: building writes into its source."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in SOURCES.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out)),
        cwd=source,
    )
    (built,) = out.glob("*.whl")
    return built


@pytest.mark.pipeline
def test_the_wheel_holds_every_module_and_every_recipe(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        packed = {name for name in archive.namelist() if ".dist-info/" not in name}
    expected = {
        f"{package}/{path.relative_to(ROOT / source).as_posix()}"
        for package, source in SOURCES.items()
        for path in (ROOT / source).rglob("*")
        if path.suffix in (".py", ".yaml") or path.name == "py.typed"
    }
    assert packed == expected
    assert {
        "marl_sale_recipes/base.yaml",
        "marl_sale_recipes/tiny/match.yaml",
        "marl_sale/py.typed",
    } <= packed


@pytest.mark.pipeline
def test_the_command_works_where_the_wheel_is_installed(wheel: Path, tmp_path: Path) -> None:
    target, elsewhere = tmp_path / "site", tmp_path / "elsewhere"
    elsewhere.mkdir()
    run(
        *(
            sys.executable,
            "-m",
            "pip",
            "install",
            "--quiet",
            "--no-deps",
            "--target",
            str(target),
            str(wheel),
        ),
        cwd=elsewhere,
    )
    probe = "import marl_sale, marl_sale_cli, marl_sale_recipes as r; print(marl_sale.__file__, r.__file__)"
    located = run(sys.executable, "-c", probe, cwd=elsewhere, PYTHONPATH=str(target))
    assert all(path.startswith(str(target)) for path in located.split())

    command = target / "bin" / "marl-sale"
    listed = run(command, "recipes", "ls", cwd=elsewhere, PYTHONPATH=str(target))
    assert "tiny/match" in listed
    assert "lbf/8x8-2p-2f-coop" in listed
    shown = run(command, "recipes", "cat", "tiny/match", cwd=elsewhere, PYTHONPATH=str(target))
    assert "family: tiny" in shown
