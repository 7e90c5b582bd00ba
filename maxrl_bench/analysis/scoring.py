"""What runs scored: their curves along training, one number per run, and pass rates per held-out instance."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pandas as pd

from maxrl_bench.analysis import stats
from maxrl_bench.objectives.binomials import pass_at_k

COLLAPSE = 0.02  # of pass@1: the smallest fall that counts


def _pieces(*keys: np.ndarray) -> list[slice]:
    """The rows of each value of some sorted columns: one begins where a row differs from that before."""
    new = np.any([keys_[1:] != keys_[:-1] for keys_ in keys], axis=0)
    edges = [0, *(np.flatnonzero(new) + 1), len(keys[0])]
    return [slice(int(a), int(b)) for a, b in itertools.pairwise(edges) if a < b]


class Scores:
    """The metrics table (a row per run and evaluation) and the pass-rate table (one per held-out instance too)."""

    def __init__(self, metrics: pd.DataFrame, pass_rates: pd.DataFrame):
        self.metrics, self.pass_rates = metrics, pass_rates
        # Columns become arrays once, not run by run: of a thousand runs that would take most of a figure's time.
        table = metrics.sort_values(["run", "step"], kind="stable")
        columns = {str(c): table[c].to_numpy() for c in table}
        self._rows = {
            str(columns["run"][rows.start]): {c: values[rows] for c, values in columns.items()}
            for rows in _pieces(columns["run"])
        }
        table = pass_rates.sort_values(["run", "step", "instance"], kind="stable")
        runs, steps, ns, rates = (table[c].to_numpy() for c in ("run", "step", "n", "pass_rate"))
        self._rates = {
            (str(runs[rows.start]), int(steps[rows.start])): (ns[rows], rates[rows]) for rows in _pieces(runs, steps)
        }

    @property
    def ks(self) -> list[int]:
        """The k of the pass@k columns that every task has."""
        columns = [c for c in map(str, self.metrics) if c.startswith("pass@")]
        whole = [c for c in columns if not self.metrics[c].isna().any()]
        return sorted(int(c.removeprefix("pass@")) for c in whole)

    @property
    def high_k(self) -> int:
        """The k at which coverage is reported: 128, or the largest below it that was measured."""
        return max([k for k in self.ks if k <= 128], default=1)

    @property
    def reported_ks(self) -> list[int]:
        """The k of the scores that are reported: 1 and `high_k`, once if they are equal."""
        return sorted({1, self.high_k})

    @property
    def pass_metrics(self) -> list[str]:
        """The columns of the scores that are reported: pass@1 and, if another, pass@k for `high_k`."""
        return [f"pass@{k}" for k in self.reported_ks]

    def has(self, metric: str) -> bool:
        """Whether the tables hold any value of a metric: in a column of its own, or as pass@k of the pass rates."""
        if metric in self.metrics:
            return bool(self.metrics[metric].notna().any())
        k = metric.removeprefix("pass@")
        return k != metric and bool((self.pass_rates["n"].isin([0]) | (self.pass_rates["n"] >= int(k))).any())

    def last_step(self, run: str) -> int:
        """The training step of a run's last evaluation."""
        return int(self._rows[run]["step"][-1])

    def curves(
        self, runs: Sequence[str], metric: str, x: str = "step", beside: Sequence[str] = ()
    ) -> tuple[np.ndarray, np.ndarray]:
        """A metric along training, where every run has a value: x [X], the mean over the S runs, and values [S, X].

        beside: runs to be compared with, which must have a value there, too.
        """
        if not runs or not {metric, x} <= set(map(str, self.metrics)):
            return np.empty(0), np.empty((len(runs), 0))
        xs = np.stack([self._rows[run][x].astype(np.float64) for run in runs])
        values = np.stack([self._rows[run][metric].astype(np.float64) for run in runs])
        whole = ~np.isnan(values).any(axis=0)
        for run in beside:
            others = self._rows[run][metric].astype(np.float64)
            whole &= ~np.isnan(others) if others.shape == whole.shape else True
        return xs.mean(axis=0)[whole], values[:, whole]

    def missing(self, runs: Sequence[str], metric: str) -> tuple[int, int]:
        """How many values of a metric these runs lack, and of how many evaluations.

        Evaluations at which no run has a value, such as the first of what training measures, do not count.
        """
        if not runs or metric not in self.metrics:
            return 0, 0
        rows = [self._rows[run] for run in runs]
        there = [{step for step, value in zip(r["step"], r[metric], strict=True) if value == value} for r in rows]
        asked = set().union(*there)
        wanted = [asked.intersection(r["step"]) for r in rows]
        return sum(len(w - t) for w, t in zip(wanted, there, strict=True)), sum(map(len, wanted))

    def scores(
        self, runs: Sequence[str], metric: str, when: str = "final", level: float = 0.0, beside: Sequence[str] = ()
    ) -> np.ndarray:
        """One number per run, [S], or, where the pass-rate table holds them, per run and instance, [S, I].

        when: "start", the first evaluation; "final", the last; "last_three", the mean of the last three; "best", the
        highest; "area", the mean over training steps; "drop", best minus final; "rollouts_to", training rollouts until
        `level` is reached, infinite if never; "collapsed", 1 if the run did, else 0. Evaluations without a value, in
        these runs or those `beside`, are left out; see `missing`. Raises ValueError on another.
        """
        if when == "start":
            known = metric in self.metrics
            return np.array([float(self._rows[run][metric][0]) if known else np.nan for run in runs])
        if when == "final" and metric.startswith("pass@"):
            instances = self.instance_pass_at_k(runs, [int(metric.removeprefix("pass@"))])
            if instances is not None:
                return instances[:, :, 0]
        x, values = self.curves(runs, metric, "rollouts" if when == "rollouts_to" else "step", beside)
        if not values.shape[1]:
            return np.full(len(runs), np.nan)
        match when:
            case "final":
                return values[:, -1]
            case "last_three":
                return values[:, -3:].mean(axis=1)
            case "best":
                return values.max(axis=1)
            case "area":
                return stats.area(x, values)
            case "drop":
                return values.max(axis=1) - values[:, -1]
            case "rollouts_to":
                return stats.crossing(x, values, level)
            case "collapsed":
                return np.array([float(self.collapsed(run)) for run in runs])
        accepted = "start, final, last_three, best, area, drop, rollouts_to, collapsed"
        raise ValueError(f"unknown moment '{when}'; accepted: {accepted}")

    def beside_pass_at_1(self, runs: Sequence[str], metric: str) -> list[np.ndarray]:
        """Of each run pass@1 and a metric along training, [2, X].

        An evaluation at which a run lacks one of them is left out for all, where all have the same number.
        """
        columns = ["pass@1", metric]
        if not set(columns) <= set(map(str, self.metrics)):
            return [np.empty((2, 0)) for _ in runs]
        curves = [np.stack([self._rows[run][c].astype(np.float64) for c in columns]) for run in runs]
        whole = [~np.isnan(curve).any(axis=0) for curve in curves]
        if len({w.shape for w in whole}) == 1:
            whole = [np.logical_and.reduce(whole)] * len(whole)
        return [curve[:, w] for curve, w in zip(curves, whole, strict=True)]

    def collapsed(self, run: str, until: float = math.inf) -> bool:
        """Whether a run's pass@1 fell below half of its best and stayed there, for two evaluations at least.

        until: the last step of training that is looked at. A fall by less than COLLAPSE is none: a policy that never
        learned anything may halve.
        """
        rows = self._rows[run]
        values = rows["pass@1"][rows["step"] <= until] if "pass@1" in rows else np.zeros(0)
        values = values[~np.isnan(values)]
        best = values[:-2].max(initial=0)
        return bool((values[-2:] < min(0.5 * best, best - COLLAPSE)).all()) and len(values) > 2

    def instance_rates(self, runs: Sequence[str], end: str = "final") -> tuple[np.ndarray, int] | None:
        """Pass rates [S, I] at the last ("final") or first ("start") step, and the rollouts n behind each (0: exact).

        None if they are not stored for every run, for the same number of instances, with the same n.
        """
        stored: list[tuple[np.ndarray, np.ndarray]] = []
        for run in runs:
            step = int(self._rows[run]["step"][-1 if end == "final" else 0])
            rows = self._rates.get((run, step))
            if rows is None:
                return None
            stored.append(rows)
        if not stored or len({len(ns) for ns, _ in stored}) > 1 or len({int(ns[0]) for ns, _ in stored}) != 1:
            return None
        return np.stack([rates.astype(np.float64) for _, rates in stored]), int(stored[0][0][0])

    def instance_pass_at_k(self, runs: Sequence[str], ks: Sequence[int]) -> np.ndarray | None:
        """Final pass@k of every instance, [S, I, len(ks)]; None where the pass-rate table does not hold it."""
        stored = self.instance_rates(runs)
        if stored is None or (stored[1] and max(ks) > stored[1]):
            return None
        return np.stack([pass_at_k(stored[0], stored[1], k) for k in ks], axis=-1)

    def final_pass_curves(self, runs: Sequence[str]) -> np.ndarray:
        """Final pass@k at `ks`: [S, I, X] where the pass-rate table holds it, else [S, X]."""
        instances = self.instance_pass_at_k(runs, self.ks)
        if instances is not None:
            return instances
        return np.stack([self.scores(runs, f"pass@{k}") for k in self.ks], axis=-1)

    def per_instance(self, runs: Sequence[str], column: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Pass rates [M] and another column [M] of the pass-rate table, over all runs and steps; None if absent."""
        if column not in self.pass_rates:
            return None
        rows = self.pass_rates[self.pass_rates["run"].isin(runs) & self.pass_rates[column].notna()]
        return (rows["pass_rate"].to_numpy(np.float64), rows[column].to_numpy(np.float64)) if len(rows) else None
