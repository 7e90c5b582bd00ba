"""From stored runs to what people read: the tables of an experiment, and its figures."""

from __future__ import annotations

import importlib
from collections.abc import Container
from pathlib import Path

from maxrl_bench import results
from maxrl_bench.experiment import Experiment
from maxrl_bench.store import Store


def publish(experiment: Experiment, root: str, plots: str | None, done: Container[str] | None = None) -> str:
    """Write the tables of an experiment from its runs (those in `done`), and draw its figures unless `plots` is None.

    Returns a line that says what there is now.
    """
    tables = results.write_tables(experiment, Store(Path(root) / "store"), root, only=done)
    if tables is None:
        return f"{experiment.name}: no finished run, so no tables and no figures"
    missing = len(tables.provenance["missing"])
    line = f"{experiment.name}: {Path(root) / experiment.name}/" + f" ({missing} runs missing)" * bool(missing)
    return line if plots is None else f"{line}, {draw(experiment, root, plots)}"


def draw(experiment: Experiment, root: str, plots: str) -> str:
    """Draw the figures of an experiment from its tables alone. Returns a line that says what there is now."""
    try:
        report = importlib.import_module("maxrl_bench.report")
    except ModuleNotFoundError as error:
        return f"no figures: {error}"
    report.draw(experiment, root, plots)
    return f"{plots}/"
