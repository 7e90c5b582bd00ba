"""The numbers of an experiment's page: final scores of every series, and how many runs collapsed."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence

THRESHOLD = 0.5  # of pass@1, for the rollouts that a run needs to reach it
Row = dict[str, Any]


def summarise(evidence: Evidence) -> list[Row]:
    """Final scores of every series on every task, as estimates, and the rollouts to reach pass@1 = THRESHOLD."""
    rows = []
    metrics = evidence.pass_metrics
    for panel in evidence.panels():
        for series in evidence.series(panel):
            runs = evidence.members(series, panel)
            row: Row = {"task": panel.task, "objective": series.label, "seeds": len(runs)}
            for metric in (*metrics, "log_p"):
                row[metric] = _numbers(stats.estimate([evidence.scores(runs, metric)]))
            row["area of pass@1"] = _numbers(stats.estimate([evidence.scores(runs, "pass@1", "area")]))
            row["collapsed"] = sum(evidence.collapsed(run) for run in runs)
            needed = evidence.scores(runs, "pass@1", "rollouts_to", THRESHOLD)
            row["reached"] = int(np.isfinite(needed).sum())
            # The median over seeds is known as long as more than half of them get there.
            middle = float(np.sort(needed)[len(needed) // 2])
            sampled = evidence.curves(runs, "rollouts")[1].max(initial=0) > 0
            row["rollouts"] = middle if sampled and math.isfinite(middle) else None
            rows.append(row)
    return rows


def _numbers(estimate: stats.Estimate) -> list[float] | None:
    """Value and limits; None where there is no value (log p of a sampled task), limits None for one seed."""
    if math.isnan(estimate.value):
        return None
    return [rounded(v) for v in estimate[:3]]  # type: ignore[misc]


def rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def flat(summary: list[Row]) -> list[Row]:
    """Estimates as three columns each, for a CSV."""
    rows = []
    for row in summary:
        own: Row = {}
        for key, value in row.items():
            if isinstance(value, list):
                own |= {key: value[0], f"{key} low": value[1], f"{key} high": value[2]}
            else:
                own[f"rollouts to pass@1 = {THRESHOLD}" if key == "rollouts" else key] = value
        rows.append(own)
    return rows


def collapses(evidence: Evidence) -> list[Row]:
    """Per objective, over tasks and settings: runs, how many collapsed, and the rate with its exact binomial interval.

    A run collapses if its pass@1 falls below half of its best and stays there (`Evidence.collapsed`). The interval is
    that of Clopper and Pearson (1934), over runs, at 95 %.
    """
    from scipy.stats import binomtest  # scipy.stats takes longer to import than all the rest

    groups: dict[str, list[bool]] = {}
    for run, row in evidence.runs.items():
        groups.setdefault(str(row["objective"]), []).append(evidence.collapsed(run))
    rows = []
    for objective, fallen in groups.items():
        test = binomtest(sum(fallen), len(fallen))
        low, high = test.proportion_ci(stats.LEVEL, method="exact")
        rate = rounded(test.statistic)
        shares = {"rate": rate, "low": rounded(low), "high": rounded(high)}
        rows.append({"objective": objective, "runs": len(fallen), "collapsed": sum(fallen), **shares})
    return rows
