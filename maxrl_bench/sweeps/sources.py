"""Which experiment file a folder of results belongs to, so that two files never write one folder by turns."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from maxrl_bench import inputs
from maxrl_bench.names import is_name, shorten
from maxrl_bench.storage.files import inside
from maxrl_bench.storage.tables import METRICS, ORIGIN, PASS_RATES
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.recipes import BUILT_IN

INSTALLED = "built-in"  # instead of the path of a built-in experiment: the package may lie anywhere


def record(experiment: Experiment, root: str | Path) -> dict[str, Any]:
    """What the provenance of tables tells of their experiment's file; `path` is as seen from results/, with "/"."""
    path = os.path.relpath(os.path.realpath(experiment.path), os.path.realpath(root)).replace(os.sep, "/")
    path = INSTALLED if experiment.path.parent == BUILT_IN else path
    return {"file": experiment.path.name, "path": path, "profile": experiment.profile}


def check(experiment: Experiment, root: str | Path) -> None:
    """Raises ValueError if results/<experiment>/ holds the tables of another experiment file, or of another profile.

    A file that has been moved, and is where it was no longer, is not another one. A provenance that cannot be read
    belongs to nobody: reading the tables tells what is wrong with it. Tables without any are a user's own, since it is
    written first: they raise ValueError too, and so do links in the place of any of these.
    """
    origin, *tables = (inside(root, experiment.name, name) for name in (ORIGIN, METRICS, PASS_RATES))
    for table in tables:
        if os.path.lexists(table) and not os.path.lexists(origin):
            raise ValueError(f"{table} was not written by maxrl-bench and is not replaced; move it away")
    try:
        made = inputs.read_json(origin)
    except (ValueError, OSError):
        return
    if not isinstance(made, dict):
        return
    whose = made.get("file"), made.get("profile")
    if all(isinstance(part, str) for part in whose) and whose != (experiment.path.name, experiment.profile):
        file, profile = (shorten(part) for part in whose)
        raise ValueError(_refusal(experiment, root, f"{file} under profile {profile}"))
    recorded = place(made, root)
    if recorded is not None and recorded != os.path.realpath(experiment.path) and os.path.isfile(recorded):
        installed = made.get("path") == INSTALLED
        other = f"the built-in {experiment.path.name}" if installed else os.path.relpath(recorded)
        raise ValueError(_refusal(experiment, root, other))


def place(made: Mapping[str, Any], root: str | Path) -> str | None:
    """Where the experiment file of a provenance is or was, without links; None if it does not say."""
    file, path = made.get("file"), made.get("path")
    if path == INSTALLED and isinstance(file, str) and is_name(file):
        return os.path.realpath(BUILT_IN / file)
    if not isinstance(path, str) or "\0" in path:
        return None
    return os.path.realpath(os.path.join(os.path.realpath(root), path))


def _refusal(experiment: Experiment, root: str | Path, whose: str) -> str:
    folder = Path(root) / experiment.name
    return (
        f"{experiment.path}: its folder of results, {folder}, holds those of {whose}; rename the file, remove the "
        "folder, or choose another with --results"
    )
