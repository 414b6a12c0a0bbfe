"""On what a benchmark ran: the figures mean nothing without it."""

import os
import platform
import re
from pathlib import Path

import torch

from marl_sale.artifacts.provenance import SOURCES, git, versions


def describe() -> dict[str, str | int]:
    """Processor, cores, threads, GPU, versions, and the commit that was measured."""
    commit = git(folders=(*SOURCES, "benchmarks"))
    found: dict[str, str | int] = {
        "cpu": _cpu(),
        "cores": os.cpu_count() or 0,
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        "commit": "none" if commit is None else commit.commit + " with changes" * commit.dirty,
    }
    return {**found, **versions(), "torch": torch.__version__}


def tag(machine: dict[str, str | int]) -> str:
    """A folder's name for it."""
    gpu = "" if machine["gpu"] == "none" else f"-{machine['gpu']}"
    name = f"{machine['cpu']}-{machine['cores']}-cores{gpu}".lower().replace("(r)", "")
    return re.sub(r"[^a-z0-9.]+", "-", name).strip("-")


def _cpu() -> str:
    """The name the system gives it; elsewhere than on Linux, that of its architecture."""
    system = Path("/proc/cpuinfo")
    text = system.read_text() if system.exists() else ""
    found = re.search(r"^model name\s*:\s*(.+)$", text, re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()
