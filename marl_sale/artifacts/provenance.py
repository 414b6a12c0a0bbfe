"""With what an artifact is made: versions and source commit. Imports neither torch nor numpy."""

import os
import platform
import subprocess
import sys
from collections.abc import Mapping, Sequence
from importlib import metadata
from pathlib import Path

import marl_sale
from marl_sale.artifacts.manifest import Git, Manifest, plain

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
_WENT_ON, _AS_IT_BEGAN = "went on at step ", "what it began with"


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


def went_on(manifest: Manifest, device: str, step: int) -> str | None:
    """With what a run goes on, where that is not what it last went on with, or began with; for its notes.

    `device` is empty where it is not known.
    """
    began = {**_made_with(manifest.versions, manifest.git), "device": manifest.device}
    here = {**_made_with(versions(), git()), "device": plain(device) or manifest.device}
    changed = ", ".join(
        f"{name} {here.get(name, 'absent')} (began with {began.get(name, 'absent')})"
        for name in dict.fromkeys((*here, *began))
        if here.get(name) != began.get(name)
    )
    last = next((note for note in reversed(manifest.notes) if note.startswith(_WENT_ON)), None)
    if (changed or _AS_IT_BEGAN) == (_AS_IT_BEGAN if last is None else last.partition(" with ")[2]):
        return None
    return plain(f"{_WENT_ON}{step} with {changed or _AS_IT_BEGAN}")


def _made_with(versions: Mapping[str, str], git: Git | None) -> dict[str, str]:
    """Versions and source as one."""
    return {**versions, **({"commit": git.commit + (", changed" if git.dirty else "")} if git else {})}
