"""With what an artifact is made: versions and source commit. Imports neither torch nor numpy."""

import os
import platform
import subprocess
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path

import marl_sale
from marl_sale.artifacts.manifest import Git, plain

PACKAGES = (
    "torch",
    "numpy",
    "safetensors",
    "lbforaging",
    "gymnasium",
    "gymnasium-robotics",
    "mujoco",
    "vmas",
    "smac",
    "smacv2",
    "pysc2",
)
"""Distributions whose version can change a result."""
SOURCES = ("marl_sale", "cli", "recipes")
"""Folders of a checkout whose files can."""


def versions() -> dict[str, str]:
    """Version of everything that can change a result, as far as it is installed."""
    found = {
        "python": platform.python_version(),
        "platform": f"{platform.system()}-{platform.machine()}",
        "marl-sale": marl_sale.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = plain(metadata.version(package))
        except metadata.PackageNotFoundError:
            continue
    kernels = sys.modules.get("marl_sale.kernels")  # loaded wherever something is computed
    return found if kernels is None else {**found, "kernels": kernels.instruction_set()}


def _git(checkout: Path, *arguments: str) -> str:
    # GIT_DIR and its like are set inside git hooks and would point elsewhere.
    environment = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    return subprocess.run(
        ["git", "--no-optional-locks", *arguments],
        cwd=checkout,
        env=environment,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=5,
        check=True,
    ).stdout


def git(checkout: Path | None = None, folders: Sequence[str] = SOURCES) -> Git | None:
    """Commit of the source checkout marl-sale runs from, and whether `folders` differ from it; None where it
    does not run from one.
    """
    checkout = checkout or Path(marl_sale.__file__).parents[1]
    if not (checkout / ".git").exists():
        return None
    try:
        commit = _git(checkout, "rev-parse", "HEAD").strip()
        changes = _git(checkout, "status", "--porcelain", "--", *folders)
        return Git(commit=commit, dirty=bool(changes.strip()))
    except (OSError, ValueError, subprocess.SubprocessError):
        return None
