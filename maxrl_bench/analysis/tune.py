"""Choose each objective's learning rate on the validation split, from the tables of a sweep over learning rates.

The objectives' weights differ in scale by up to a factor N, so one learning rate for all would favour some. The rule is
the same for all: the rate with the largest area under the curve of validation pass@1 (its mean over the evaluations
after the first), averaged over seeds. An area and not an end point, because onsets of learning vary from seed to seed.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pandas as pd

from maxrl_bench import inputs
from maxrl_bench.analysis import rates_file
from maxrl_bench.config import SETTINGS, RunConfig, brief
from maxrl_bench.names import label
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.files import write_file
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.grid import Rates, tuned_rate
from maxrl_bench.sweeps.recipes import LEARNING_RATES, beside

CRITERION = "pass@1"
_HEADER = f"# Chosen by `make tune` from results/{{}}/: largest area under validation {CRITERION}, per task."


def scores(metrics: pd.DataFrame) -> pd.DataFrame:
    """Area under the curve of every learning rate: one row per (task, objective_name, learning_rate), mean over seeds.

    Columns area (mean over seeds), spread (standard deviation over seeds, NaN for one), seeds. Raises ValueError where
    values are missing.
    """
    after = metrics[metrics["step"] > 0]
    if not len(after) or CRITERION not in after or not np.isfinite(after[CRITERION].astype(float)).all():
        raise ValueError(f"learning rates are chosen by {CRITERION} after the first step; values of it are missing")
    keys = ["task", "objective_name", "learning_rate"]
    areas = after.groupby([*keys, "seed"], sort=False)[CRITERION].mean()
    table = areas.groupby(keys, sort=False).agg(area="mean", spread="std", seeds="count")
    return table.reset_index()


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """The best rate per task and objective; `edge` says that a better one may lie beyond the rates tried.

    Of equally good rates the smallest. Raises ValueError if seeds are missing for some rates, which would be unfair.
    """
    if (table.groupby(["task", "objective_name"])["seeds"].nunique() > 1).any():
        raise ValueError("learning rates were tried on different numbers of seeds; finish the sweep first")
    ordered = table.sort_values("learning_rate", kind="stable")
    groups = ordered.groupby(["task", "objective_name"], sort=False)
    best = ordered.loc[groups["area"].idxmax()].copy()
    limits = (
        groups["learning_rate"].agg(["min", "max"]).reindex(pd.MultiIndex.from_frame(best[["task", "objective_name"]]))
    )
    rate = best["learning_rate"].to_numpy()
    best["edge"] = (rate == limits["min"].to_numpy()) | (rate == limits["max"].to_numpy())
    return best.sort_values(["task", "objective_name"], kind="stable").reset_index(drop=True)


def tune(experiment: Experiment, results_root: Path) -> str:
    """Write the choice into learning_rates.toml beside the experiment (`recipes.beside`); returns a summary.

    Rates are chosen for each objective with its knobs; the bare name of one that was tried with other knobs than the
    defaults stands for the knobs that were not, with the best mean over those that were. What else the file holds stays
    as it is, comments too; it is read back before it replaces the old one. Raises ValueError, and leaves the file as it
    was, where runs or values are missing, the experiment evaluates on another split than validation or varies more than
    learning rates, or the file cannot be edited.
    """
    if any(run.eval_split != "validation" for run in experiment.runs):
        raise ValueError(
            f'{experiment.path}: learning rates are chosen on held-out data: set eval_split = "validation"'
        )
    runs = {run.hash: run for run in experiment.runs}
    _refuse_other_axes(experiment)
    metrics = results.load(experiment.name, results_root).metrics
    missing = len(runs.keys() - set(metrics["run"]))
    if missing:
        raise ValueError(
            f"{experiment.path}: {missing} of {len(runs)} runs have no result; finish the sweep first, and take out "
            "learning rates with which runs fail"
        )
    metrics = metrics[metrics["run"].isin(runs)]
    # Names and rates as configurations write them, which may differ from the tables.
    variants = {run: label(brief(config.objective)) for run, config in runs.items()}
    exact = {run: config.learning_rate for run, config in runs.items()}
    table = scores(metrics.assign(objective_name=metrics["run"].map(variants), learning_rate=metrics["run"].map(exact)))
    chosen = choose(table)
    names = {variants[run]: str(config.objective.name) for run, config in runs.items()}
    pooled = table.assign(objective_name=table["objective_name"].map(names))
    pooled = pooled[~pooled["objective_name"].isin(set(names))]  # the defaults have the bare name
    rates: dict[str, dict[str, float]] = {}
    for part in [chosen, *([_pool(pooled)] if len(pooled) else [])]:
        for row in part.itertuples():
            rates.setdefault(str(row.task), {})[str(row.objective_name)] = float(row.learning_rate)
    path = beside(experiment.path) / LEARNING_RATES
    old = inputs.read_text(path) if os.path.lexists(path) else f"{_HEADER.format(experiment.name)}\n"
    text = rates_file.merge(old, rates, str(path))
    kept = Rates(inputs.from_toml(text, str(path)), path)
    for config in runs.values():
        expected = rates[config.task_label][variants[config.hash]]
        if tuned_rate([kept], config.task, config.objective) != expected:
            raise ValueError(f"{path}: another entry stands before that of {label(config.objective)}; take it out")
    write_file(path, text.encode())
    edges = chosen[chosen["edge"]]
    note = "".join(
        f"\n  {row.task} {row.objective_name}: {row.learning_rate} is the end of the range tried"
        for row in edges.itertuples()
    )
    return f"{path}: {len(chosen)} learning rates chosen{note}"


def _pool(table: pd.DataFrame) -> pd.DataFrame:
    """The choice for the mean over the knobs that were tried, of the rates that all of them were tried with."""
    keys = ["task", "objective_name"]
    variants = table.groupby([*keys, "learning_rate"])["area"].transform("size")
    most = variants.groupby([table[key] for key in keys]).transform("max")
    groups = table[variants == most].groupby([*keys, "learning_rate"], sort=False)
    return choose(groups.agg(area=("area", "mean"), seeds=("seeds", "min")).reset_index())


def _refuse_other_axes(experiment: Experiment) -> None:
    """One rate is stored for each task and objective: the runs behind it may differ in rates and seeds only."""
    first: dict[tuple[str, str], RunConfig] = {}
    for run in experiment.runs:
        other = first.setdefault((run.task_label, label(run.objective)), run)
        for name in SETTINGS:
            if name != "learning_rate" and getattr(run, name) != getattr(other, name):
                raise ValueError(
                    f"{experiment.path}: a learning rate is stored for each task and objective, so key '{name}' must "
                    f"have one value for {run.task_label} with {label(run.objective)}"
                )
