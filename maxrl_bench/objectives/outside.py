"""Objectives by names that are no row of the table: aliases, and the entry-point group `maxrl_bench.objectives`.

An entry point `NAME = "module:attribute"` adds the objective NAME; the attribute is a `Formula`, made with its public
constructor. A package's module is imported when its row is first asked for, by name or by a list of all.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

from maxrl_bench import plugins
from maxrl_bench.objectives.formula import Formula, Objective

ENTRY_POINTS = "maxrl_bench.objectives"
# A family's name stands for the estimator to begin with; the cards say why. No run is stored under such a name.
ALIASES: Mapping[str, str] = {"maxrl": "maxrl_alg1", "pkpo": "pkpo_loo"}


def names(taken: Iterable[str]) -> dict[str, str]:
    """The name and the "module:attribute" of every row on offer whose name is free; nothing is imported."""
    return plugins.find(ENTRY_POINTS, {*taken, *ALIASES})[0]


def left_out(taken: Iterable[str]) -> list[str]:
    """One line on each entry point that `names` leaves out, with the reason."""
    return plugins.find(ENTRY_POINTS, {*taken, *ALIASES})[1]


def load_row(name: str, value: str) -> Formula:
    """The row that an entry point stands for. Raises ValueError, in one line, if it fails or is no `Formula`."""
    try:
        found = plugins.load(value)
    except (Exception, SystemExit) as error:  # foreign code: any error of it becomes one line
        reason = " ".join(str(error).split())
        raise ValueError(f"{_plugin(name, value)} cannot be loaded: {type(error).__name__}: {reason}") from error
    if not isinstance(found, Formula):
        raise ValueError(f"{_plugin(name, value)} is no objective: it must be a Formula, got {type(found).__name__}")
    if found.on_success is None:
        raise ValueError(f"{_plugin(name, value)} has no weights: only 'ml' needs none")
    return found


def weights(objective: Objective, successes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """As `objective.weights`. Raises ValueError, in one line, where its formulas fail or give no finite number."""
    try:
        both = objective.weights(successes)
        good = all(bool(np.isfinite(part).all()) for part in both)
    except Exception as error:  # foreign code
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"objective '{objective.name}' gives no weights: {reason}") from error
    if not good:
        n = objective.num_rollouts
        raise ValueError(f"objective '{objective.name}' gives weights that are not finite, for groups of {n} rollouts")
    return both


def _plugin(name: str, value: str) -> str:
    return f"plug-in objective '{name}' ({value})"
