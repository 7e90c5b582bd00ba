"""How much room a task leaves: what exact maximum likelihood gains on it, and which part of that each objective does.

Gains are over the held-out instances that the first and the last evaluation have in common: the last has more.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.report.numbers import rounded
from maxrl_bench.report.style import series_by_panel
from maxrl_bench.sweeps.claim_model import MARGIN

LIKELIHOOD = "ml"
LAST = 0.2  # the share of the training, at its end, in which little is gained where learning is over
Row = dict[str, Any]


def room(evidence: Evidence) -> list[Row]:
    """A row per task (and value of what several objectives vary); none unless maximum likelihood and another ran.

    Each has the scores of the base policy, and for each objective its final scores and the shares of maximum
    likelihood's gain that it reaches: means over seeds, by metric. None: there is no value, or no gain beyond MARGIN.
    """
    shown, look = series_by_panel(evidence)
    if {series.objective_name == LIKELIHOOD for series in look} != {True, False}:
        return []
    rows = []
    for panel, present in shown.items():
        runs = {series.label: evidence.members(series, panel) for series in present}
        likelihood = [runs[series.label] for series in present if series.objective_name == LIKELIHOOD]
        base = {m: _base(evidence, (run for own in runs.values() for run in own), m) for m in evidence.pass_metrics}
        most = {m: _gain(evidence, likelihood[0], m) if len(likelihood) == 1 else np.nan for m in base}
        late = {label: _late_gain(evidence, own) for label, own in runs.items()}
        known = {label: gain for label, gain in late.items() if np.isfinite(gain)}
        slowest = max(known, key=known.__getitem__, default="")
        reached = [
            {
                "objective": label,
                "scores": {m: rounded(float(stats.by_seed(evidence.scores(own, m)).mean())) for m in base},
                "shares": {m: rounded(_gain(evidence, own, m) / most[m]) if most[m] > MARGIN else None for m in base},
            }
            for label, own in runs.items()
        ]
        rows.append(
            {
                "task": panel.title,
                "steps": max(evidence.last_step(run) for own in runs.values() for run in own),
                "base": {m: rounded(value) for m, value in base.items()},
                "reached": reached,
                "last_fifth": rounded(known.get(slowest, np.nan)),
                "slowest": slowest,
            }
        )
    return rows


def flat(rooms: Sequence[Row]) -> list[Row]:
    """The rows with a column for each number, for a CSV."""
    objectives = dict.fromkeys(one["objective"] for row in rooms for one in row["reached"])
    rows = []
    for row in rooms:
        flat_row: Row = {"task": row["task"], "steps": row["steps"]}
        flat_row |= {f"base {metric}": value for metric, value in row["base"].items()}
        reached = {one["objective"]: one for one in row["reached"]}
        for label in objectives:
            own = reached.get(label, {"scores": {}, "shares": {}})
            flat_row |= {f"{label} {metric}": own["scores"].get(metric) for metric in row["base"]}
            flat_row |= {f"{label} share of {metric}": own["shares"].get(metric) for metric in row["base"]}
        rows.append(flat_row | {"last fifth": row["last_fifth"], "slowest": row["slowest"]})
    return rows


def _base(evidence: Evidence, runs: Iterable[str], metric: str) -> float:
    """The base policy's score, the mean over seeds: one run of each has it."""
    of_seed = {evidence.runs[run]["seed"]: run for run in runs}
    return float(evidence.scores(list(of_seed.values()), metric, "start").mean())


def _gain(evidence: Evidence, runs: Sequence[str], metric: str) -> float:
    """What training gained, the mean over seeds."""
    return float((_end(evidence, runs, metric) - evidence.scores(runs, metric, "start")).mean())


def _late_gain(evidence: Evidence, runs: Sequence[str]) -> float:
    """What the last fifth of the training gained in pass@1, the mean over seeds."""
    steps, values = evidence.curves(runs, "pass@1")
    if len(steps) < 2:
        return np.nan
    curve = values.mean(axis=0)
    curve[-1] = _end(evidence, runs, "pass@1").mean()
    return float(curve[-1] - np.interp((1 - LAST) * steps[-1], steps, curve))


def _end(evidence: Evidence, runs: Sequence[str], metric: str) -> np.ndarray:
    """Final scores [S] over the instances of the first evaluation, where the pass-rate table has them, or over all."""
    first, last = evidence.instance_rates(runs, "start"), evidence.instance_rates(runs)
    k = int(metric.removeprefix("pass@"))
    if first is None or last is None or 0 < last[1] < k:
        return stats.by_seed(evidence.scores(runs, metric))
    rates, sampled = last
    return np.asarray(pass_at_k(rates[:, : first[0].shape[1]], sampled, k).mean(axis=1))
