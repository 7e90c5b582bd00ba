"""Where a result comes from: the code that made it, the packages, the machine."""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from maxrl_bench.tasks import check_task_name

PACKAGES = ("maxrl-bench", "torch", "numpy", "scipy", "pandas", "gymnasium", "minigrid", "scikit-learn")
# What training imports but what cannot change a number: how configurations are read and results are kept.
NOT_COUNTED = (
    "maxrl_bench",
    "maxrl_bench.config",
    "maxrl_bench.experiment",
    "maxrl_bench.results",
    "maxrl_bench.store",
    __name__,
)


def code_fingerprint(task: str, run_function: str) -> str:
    """16 hex digits of all code that can influence a run's numbers: what the task and the training import, by source.

    Comments, docstrings and formatting do not count, nor do the modules of NOT_COUNTED or anything outside the
    top-level packages of the task, the run function and this library. `run_function` is "module:function".
    """
    return _fingerprint(check_task_name(task).factory.partition(":")[0], run_function.partition(":")[0])


@functools.cache
def _fingerprint(*roots: str) -> str:
    packages = {"maxrl_bench", *(root.split(".")[0] for root in roots)}
    sources: dict[str, str] = {}
    waiting = list(roots)
    while waiting:
        module = waiting.pop()
        if module in sources or module in NOT_COUNTED or module.split(".")[0] not in packages:
            continue
        try:
            spec = importlib.util.find_spec(module)
        except (ImportError, ValueError):  # the name of an object of a module, not of a module
            continue
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            continue
        tree = ast.parse(Path(spec.origin).read_bytes())
        sources[module] = _meaning(tree)
        waiting += _imports(tree)
    digest = hashlib.blake2b(digest_size=8)
    for module in sorted(sources):
        digest.update(f"{module}\0{sources[module]}\0".encode())
    return digest.hexdigest()


def _imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _meaning(tree: ast.Module) -> str:
    """The source without docstrings, comments and layout."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and ast.get_docstring(
            node, clean=False
        ):
            node.body = node.body[1:] or [ast.Pass()]
    return ast.unparse(tree)


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


@functools.cache
def environment() -> dict[str, Any]:
    """What a result needs to be understood later: code version, packages, machine. None where it cannot be told."""
    versions: dict[str, str | None] = {}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            versions[package] = None
    # Installed into an environment inside of somebody else's repository, we are no part of that.
    commit = _git("rev-parse", "HEAD") if _git("ls-files", "--error-unmatch", Path(__file__).name) else None
    return {
        "commit": commit,
        # Only source counts: the products of the sweep itself must not make its own version dirty.
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
    torch = sys.modules.get("torch")  # where it is not loaded, nothing ran on one
    return str(torch.cuda.get_device_name()) if torch is not None and torch.cuda.is_available() else None


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def peak_memory_mb() -> float:
    """The most memory that this process has held so far, in MB; NaN where the system does not tell."""
    try:
        import resource
    except ImportError:  # not on Windows
        return float("nan")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
