"""What each objective can attain whatever its learning rate, and what the choice of a rate makes of it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes

from maxrl_bench.analysis import rates, stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.rates import CRITERIA, Choice
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.pareto import base_policy
from maxrl_bench.report.style import (
    Drawing,
    NotDrawable,
    Seeds,
    count_seeds,
    finish,
    further,
    label_x,
    label_y,
    listed,
    looks,
    share_limits,
    small_multiples,
)

RATE = "learning_rate"
MOST = 10  # lines: more staircases in one panel than these tell nothing apart
_ROWS = ("all rates", *CRITERIA)
_ROW_NAMES = {"all rates": "all rates", "pass@1": "best for pass@1", "both": "best for both"}


def choices_of(evidence: Evidence) -> list[Choice]:
    """The best rate of each task, objective (by its label) and N, by each criterion; see `rates.choices`.

    Raises ValueError where values or seeds are missing, where rates do not vary, and off the validation split.
    """
    if "test" in evidence.provenance.get("eval_splits", []):
        raise ValueError("rates are chosen on the validation split, and these runs were evaluated on another")
    if RATE not in evidence.varied:
        raise ValueError("the experiment has one learning rate only")
    known = evidence.metrics[evidence.metrics["run"].isin(evidence.runs)]
    labels = {run: row["objective"] for run, row in evidence.runs.items()}
    return rates.choices(known.assign(objective_name=known["run"].map(labels)))


def fronts(evidence: Evidence) -> Drawing:
    """The attainable front of (pass@1, pass@k) over rates and checkpoints: all rates, and those that are chosen."""
    k = evidence.high_k
    if k == 1:
        raise NotDrawable("the tables hold no pass@k beside pass@1")
    try:
        found = choices_of(evidence)
    except ValueError as error:
        raise NotDrawable(str(error)) from None
    best = {(choice.criterion, *choice[:3]): choice.rate for choice in found}
    facets = [setting for setting in evidence.faceted() if setting != RATE]
    panels = evidence.panels(facets)
    shown = {panel: _series(evidence, facets, panel) for panel in panels}
    look = looks(_series(evidence, facets))
    if len(look) > MOST:
        raise NotDrawable(f"{len(look)} lines are more than can be told apart; at most {MOST} are drawn")
    figure, axes = small_multiples(panels, len(_ROWS), height=2.2)
    for (panel, present), column in zip(shown.items(), axes, strict=True):
        for series in present:
            points = _points(evidence, panel, series, k)
            for row, ax in zip(_ROWS, column, strict=True):
                own = [
                    part
                    for (num_rollouts, rate), part in points.items()
                    if row == "all rates" or best[row, panel.task, series.objective, num_rollouts] == rate
                ]
                if own:
                    _draw(ax, np.concatenate(own), look[series])
        base = base_policy(evidence, (run for run, row in evidence.runs.items() if row["task"] == panel.task), k)
        for ax in column:
            ax.plot(*base, "x", color="black", markersize=6, zorder=5)
            ax.margins(0.06)
        share_limits(column)  # the rows of a panel are compared
        for row, ax in zip(_ROWS, column, strict=True):
            label_y(ax, f"pass@{k}\n{_ROW_NAMES[row]}")
        label_x(column, "pass@1")
    figure.align_ylabels()
    seeds = _seeds(found)
    note = (
        f"Staircases: no evaluation of any rate of the panel has more of both; means over {seeds.number}. x: base "
        f"policy. Second: rates with the largest area under pass@1; third: under the mean of pass@1 and pass@{k}. "
        f"Intervals of differences between rates (rates.csv): {seeds.note}."
    )
    finish(figure, note, {series: {**style, "marker": None} for series, style in look.items()})
    caption = (
        f"What each objective attains of (pass@1, pass@{k}) over all its learning rates and evaluations, mean over "
        f"{seeds.number}, which no choice of a rate can change; {further(figure).lower()} it the same at the rate with "
        f"the largest area under pass@1, and with the largest under the mean of pass@1 and pass@{k}. Up and to the "
        f"right is better. "
        f"{told(found, seeds)}"
    )
    return Drawing(figure, caption, f"Attainable fronts of pass@1 and pass@{k}, one panel per task, three rows.")


def _seeds(found: Sequence[Choice]) -> Seeds:
    counts: dict[str, dict[str, int]] = {}
    for choice in found:
        counts.setdefault(choice.task, {})[f"{choice.objective}, N = {choice.num_rollouts}"] = choice.seeds
    return count_seeds(counts)


def told(found: Sequence[Choice], seeds: Seeds) -> str:
    """How sure the choices are, in words; rates.csv has them all."""
    parts = []
    for criterion in CRITERIA:
        own = [choice for choice in found if choice.criterion == criterion]
        sure, edges = sum(choice.is_sure for choice in own), sum(bool(choice.edge) for choice in own)
        parts.append(f"by {criterion} {sure} of {len(own)} are above 0, {edges} at an end of the rates tried")
    by_group: dict[tuple[Any, ...], set[float]] = {}
    for choice in found:
        by_group.setdefault(choice[:3], set()).add(choice.rate)
    differing = [f"{group[1]} on {group[0]}" for group, chosen in by_group.items() if len(chosen) > 1]
    disagree = f" The criteria choose differently for {listed(differing)}." if differing else ""
    return f"Differences to the next rate, paired, {seeds.intervals}: {'; '.join(parts)} (rates.csv).{disagree}"


def _series(evidence: Evidence, facets: Sequence[str], panel: Panel | None = None) -> list[Series]:
    """The series of all rates together."""
    found = evidence.series(panel, [*facets, RATE])
    bare = [Series(s.objective, s.objective_name, tuple(p for p in s.settings if p[0] != RATE)) for s in found]
    return list(dict.fromkeys(bare))


def _points(evidence: Evidence, panel: Panel, series: Series, k: int) -> dict[tuple[int, float], np.ndarray]:
    """By N and rate: (pass@1, pass@k) at each evaluation after the first, means over seeds [X, 2]."""
    settings = {s: value for s, value in panel.settings if value in evidence.values(series.objective, s, panel.task)}
    where = {"objective": series.objective, **dict(series.settings), **settings}
    points = {}
    for rate in evidence.values(series.objective, RATE, panel.task):
        runs = evidence.select(panel.task, {**where, RATE: rate})
        if runs:
            curves = [evidence.curves(runs, metric)[1].mean(axis=0)[1:] for metric in ("pass@1", f"pass@{k}")]
            points[int(evidence.runs[runs[0]]["num_rollouts"]), float(rate)] = np.stack(curves, axis=1)
    return points


def _draw(ax: Axes, points: np.ndarray, look: dict[str, Any]) -> None:
    """The staircase of the points that no other one beats: what lies below and to the left of it is attained, too."""
    front = points[stats.non_dominated(points)]
    front = front[np.argsort(front[:, 0], kind="stable")]
    style = {**look, "marker": None}
    ax.step(*front.T, where="pre", **style)
    ax.plot(*front.T, look["marker"], color=look["color"], markersize=3.5, markeredgewidth=0)
