"""Choose each objective's learning rate on the validation split, from the tables of a sweep over learning rates.

The objectives' weights differ in scale by up to a factor N, so one learning rate for all would favour some. The rule is
the same for all: the rate with the largest area under the curve of validation pass@1 (its mean over the evaluations
after the first), averaged over seeds. An area and not an end point, because onsets of learning vary from seed to seed.
"""

from __future__ import annotations

import tomllib
from pathlib import Path

import pandas as pd

from maxrl_bench import results
from maxrl_bench.experiment import LEARNING_RATES, Experiment
from maxrl_bench.store import write_file

CRITERION = "pass@1"


def scores(metrics: pd.DataFrame) -> pd.DataFrame:
    """Area under the curve of every learning rate: one row per (task, objective_name, learning_rate), mean over seeds.

    Columns area (mean over seeds), spread (standard deviation over seeds, NaN for one), seeds.
    """
    after = metrics[metrics["step"] > 0]
    keys = ["task", "objective_name", "learning_rate"]
    areas = after.groupby([*keys, "seed"], sort=False)[CRITERION].mean()
    table = areas.groupby(keys, sort=False).agg(area="mean", spread="std", seeds="count")
    return table.reset_index()


def choose(table: pd.DataFrame) -> pd.DataFrame:
    """The best rate per task and objective; `edge` says that a better one may lie beyond the rates tried.

    Of equally good rates the smallest. Raises ValueError if seeds are missing for some rates, which would be unfair.
    """
    if table["seeds"].nunique() > 1:
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
    """Write the choice into learning_rates.toml beside the experiment, keeping other tasks' rates; returns a summary.

    Raises ValueError where the tables are missing, or the experiment evaluates on another split than validation.
    """
    if any(run.eval_split != "validation" for run in experiment.runs):
        raise ValueError(
            f'{experiment.path}: learning rates are chosen on held-out data: set eval_split = "validation"'
        )
    chosen = choose(scores(results.load(experiment.name, results_root).metrics))
    path = experiment.path.parent / LEARNING_RATES
    kept = tomllib.loads(path.read_text()) if path.exists() else {}
    for task, rows in chosen.groupby("task", sort=False):
        kept.setdefault(str(task), {}).update(zip(rows["objective_name"], rows["learning_rate"], strict=True))
    lines = [
        f"# Chosen by `make tune` from results/{experiment.name}/: largest area under validation {CRITERION}, per task."
    ]
    for task in sorted(kept):
        lines += ["", f'["{task}"]', *(f"{name} = {rate:g}" for name, rate in sorted(kept[task].items()))]
    write_file(path, ("\n".join(lines) + "\n").encode())
    edges = chosen[chosen["edge"]]
    note = "".join(
        f"\n  {row.task} {row.objective_name}: {row.learning_rate:g} is the end of the range tried"
        for row in edges.itertuples()
    )
    return f"{path}: {len(chosen)} learning rates chosen{note}"
