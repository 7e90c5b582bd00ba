"""Where a result comes from: the code that made it, the packages, the machine."""

from __future__ import annotations

import functools
import importlib.metadata
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

from maxrl_bench.objectives import outside
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.storage.fingerprint import fingerprint
from maxrl_bench.tasks import check_task_name

PACKAGE = Path(__file__).parents[1]
PACKAGES = ("maxrl-bench", "torch", "numpy", "scipy", "pandas", "gymnasium", "minigrid", "scikit-learn")


@functools.cache
def code_fingerprint(task: str, objective: str, run_function: str) -> str:
    """Hex digits of all code that can influence a run's numbers, see `fingerprint`; of names, without options.

    `run_function` is "module:function". Kept for the life of the process. Raises ValueError on an unknown task.
    """
    entry = check_task_name(task)
    roots = [entry.factory.partition(":")[0], run_function.partition(":")[0]]
    standing = json.dumps([entry.factory, entry.options], sort_keys=True, default=str)
    return fingerprint(roots, objective, standing, plug_in=_plug_in(objective))


@functools.cache
def _plug_in(objective: str) -> str:
    """The "module:attribute" of an objective of another package, "" for one of ours."""
    return "" if objective in OBJECTIVES else outside.names(OBJECTIVES).get(objective, "")


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(["git", *arguments], cwd=PACKAGE, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def environment() -> dict[str, Any]:
    """Code version, packages and machine, stored with every result; None where they are not known."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    # An environment may lie inside another project's repository, of which an installed package is no part.
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", "__init__.py") else None
    return {
        "commit": commit,
        # Only source files count: results that a sweep has written must not make its version "dirty".
        "dirty": None if commit is None else bool(_git("status", "--porcelain", "--", ".", "../envs")),
        "python": platform.python_version(),
        "packages": versions,
        "platform": platform.platform(),
        "processor": _processor(),
        "accelerator": _accelerator(),
        "cores": os.cpu_count(),
        "memory_gb": round(_memory() / 2**30, 1),
    }


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _accelerator() -> str | None:
    torch = sys.modules.get("torch")  # if torch is not loaded, nothing ran on a GPU
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB; NaN where the system does not report it."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
