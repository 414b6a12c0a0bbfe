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


def source_in(source: Path) -> Path:
    """A copy to build from: building writes into its source."""
    for name in SOURCES.values():
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__", "*.so"))
    for name in ("pyproject.toml", "setup.py", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source / name)
    return source


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    source, out = source_in(tmp_path_factory.mktemp("source")), tmp_path_factory.mktemp("wheel")
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
    compiled = {name for name in packed if name.endswith(".so")}
    packed -= compiled
    expected = {
        f"{package}/{path.relative_to(ROOT / source).as_posix()}"
        for package, source in SOURCES.items()
        for path in (ROOT / source).rglob("*")
        if path.suffix in (".py", ".yaml", ".c", ".h") or path.name == "py.typed"
    }
    assert packed == expected
    assert {
        "marl_sale_recipes/base.yaml",
        "marl_sale_recipes/tiny/match.yaml",
        "marl_sale/py.typed",
    } <= packed


@pytest.mark.pipeline
@pytest.mark.skipif(shutil.which("cc") is None, reason="no C compiler here")
def test_the_wheel_holds_the_kernels_for_this_machine(wheel: Path, tmp_path: Path) -> None:
    run(
        *(sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", tmp_path, wheel),
        cwd=tmp_path,
    )
    probe = "from marl_sale import kernels; print(kernels.__file__, kernels.instruction_set())"
    where, found = run(sys.executable, "-c", probe, cwd=tmp_path, PYTHONPATH=str(tmp_path)).split()
    assert where.startswith(str(tmp_path))
    assert found in ("any", "avx2", "avx512")


@pytest.mark.pipeline
def test_without_a_compiler_it_is_installed_all_the_same(tmp_path: Path) -> None:
    source = source_in(tmp_path / "source")
    run(
        *(sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", tmp_path / "wheel"),
        cwd=source,
        CC="no-such-compiler",
    )
    (built,) = (tmp_path / "wheel").glob("*.whl")
    with zipfile.ZipFile(built) as archive:
        names = archive.namelist()
    assert "marl_sale/kernels/__init__.py" in names
    assert not [name for name in names if name.endswith(".so")]


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
