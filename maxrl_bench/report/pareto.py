"""pass@1 against pass@k: the way of each objective from the base policy to the end, and its difference to another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report.reference import difference, pairs, reference, seeds_in
from maxrl_bench.report.style import (
    GREY,
    Drawing,
    NotDrawable,
    count_seeds,
    finish,
    further,
    label_y,
    listed,
    seeds_of,
    series_by_panel,
    share_limits,
    small_multiples,
)
from maxrl_bench.report.summary import over

_BASE = Line2D([], [], color="black", marker="x", linestyle="none", markersize=6, label="base policy")
_RING: dict[str, Any] = {"marker": "o", "markerfacecolor": "none", "markeredgecolor": GREY, "markeredgewidth": 1}
_DOTTED: dict[str, Any] = {"color": "black", "linestyle": (0, (1, 1)), "linewidth": 1.2}


def pareto(evidence: Evidence) -> Drawing:
    """pass@1 against pass@k along training, with the frontier at the end, and below it the differences at the end."""
    k = evidence.high_k
    if k == 1 or 1 not in evidence.ks:
        raise NotDrawable("the tables hold no pass@1, or no pass@k beside it")
    metrics = ("pass@1", f"pass@{k}")
    shown, look = series_by_panel(evidence)
    to = reference(evidence, shown)
    paired = pairs(evidence, shown, to)
    figure, axes = small_multiples(shown, 2 if paired else 1, height=2.6)
    ends = {}
    for (panel, present), column in zip(shown.items(), axes, strict=True):
        runs = {series: evidence.members(series, panel) for series in present}
        ends[panel] = [_way(column[0], evidence, runs[series], metrics, look[series]) for series in present]
        column[0].plot(*base_policy(evidence, (run for own in runs.values() for run in own), k), "x", color="black",
                       markersize=6, zorder=5)  # fmt: skip
        label_y(column[0], f"pass@{k}")
        column[0].set_xlabel("pass@1")
        if not paired:
            continue
        for series, groups in paired.get(panel, {}).items():
            ours, theirs = groups
            both = [difference(evidence.scores(ours, m), evidence.scores(theirs, m)) for m in metrics]
            _cross(column[1], both, look[series])
        if panel not in paired:
            column[1].set_axis_off()
        label_y(column[1], f"pass@{k}\nminus {to.label}" if to else "")
        column[1].set_xlabel("pass@1" + (f", minus {to.label}" if to else ""))
    for row in zip(*axes, strict=True):
        share_limits(row)
    fronts = []
    for (panel, present), column in zip(shown.items(), axes, strict=True):
        front = stats.non_dominated(np.array(ends[panel]))
        _draw_front(column[0], np.array(ends[panel])[front])
        fronts.append(f"{panel.title}: {', '.join(s.label for s, on in zip(present, front, strict=True) if on)}")
        for ax in column[1:]:
            ax.axhline(0, color=look[to]["color"] if to else GREY, linewidth=1, zorder=1)
            ax.axvline(0, color=look[to]["color"] if to else GREY, linewidth=1, zorder=1)
    seeds = seeds_of(evidence, shown)
    note = f"Lines: mean over {seeds.number}, from the base policy to the end (large). Small: single seeds at the end."
    caption = (
        f"pass@1 against pass@{k}, from the base policy (x) along training to the end (large), mean over "
        f"{seeds.number}; small: single seeds at the end. Up and to the right is better on both; all panels have one "
        f"scale. Rings and dotted line: the frontier at the end, objectives whose means no other beats on both axes: "
        f"{listed(fronts)}."
    )
    if paired and to:
        common = count_seeds(seeds_in(paired)).over(over(evidence))
        note += f" {further(figure)}: end minus {to.label}, paired by seed and instance, on one scale."
        note += f" Crosses: {common.note}."
        caption += (
            f" {further(figure)}, on a scale of its own: the difference to {to.label} at the end, paired, over the "
            f"{common.number} that both have, {common.intervals}; a cross that meets no line differs from it in both."
        )
    figure.align_ylabels()
    frontier = Line2D([], [], **_DOTTED, **_RING, markersize=10, label="frontier at the end")
    finish(figure, note, look, [_BASE, frontier])
    return Drawing(figure, caption, f"pass@1 against pass@{k} along training, and differences, one panel per task.")


def base_policy(evidence: Evidence, runs: Iterable[str], k: int) -> np.ndarray:
    """(pass@1, pass@k) before training, the mean over all seeds: one run of each has it."""
    of_seed = {evidence.runs[run]["seed"]: run for run in runs}
    both = [evidence.scores(list(of_seed.values()), metric, "start") for metric in ("pass@1", f"pass@{k}")]
    return np.array([scores.mean() for scores in both])


def _way(ax: Axes, evidence: Evidence, runs: list[str], metrics: tuple[str, str], look: dict[str, Any]) -> np.ndarray:
    """Draw the mean along training and each seed's end; returns the mean at the end [2]."""
    curves = np.stack([evidence.curves(runs, metric)[1] for metric in metrics])  # [2, S, X]
    mean = curves.mean(axis=1)
    ax.plot(*mean, **{**look, "marker": None}, linewidth=1.1, alpha=0.8, zorder=2)
    _points(ax, curves[:, :, -1], mean[:, -1], look)
    return np.asarray(mean[:, -1])


def _cross(ax: Axes, both: list[np.ndarray], look: dict[str, Any]) -> None:
    """The mean of two differences, [S] or [S, I] each, with the interval of each."""
    x, y = (stats.estimate([scores]) for scores in both)
    ax.hlines(y.value, x.low, x.high, color=look["color"], linewidth=1.2, zorder=3)
    ax.vlines(x.value, y.low, y.high, color=look["color"], linewidth=1.2, zorder=3)
    _points(ax, np.stack([stats.by_seed(scores) for scores in both]), np.array([x.value, y.value]), look)


def _points(ax: Axes, seeds: np.ndarray, mean: np.ndarray, look: dict[str, Any]) -> None:
    marker, color = look["marker"], look["color"]
    ax.plot(*seeds, marker, color=color, alpha=0.45, markersize=2.5, zorder=2.5)
    ax.plot(*mean, marker, color=color, markersize=7.5, markeredgecolor="white", zorder=4)


def _draw_front(ax: Axes, front: np.ndarray) -> None:
    front = front[np.argsort(front[:, 0])]
    left, bottom = ax.get_xlim()[0], ax.get_ylim()[0]
    # The staircase under the front: everything below and to the left of it is dominated.
    xs = np.concatenate([[left], np.repeat(front[:, 0], 2)])
    ys = np.concatenate([np.repeat(front[:, 1], 2), [bottom]])
    limits = ax.get_xlim(), ax.get_ylim()
    ax.fill_between(xs, bottom, ys, color="#999999", alpha=0.10, linewidth=0, zorder=0)
    ax.plot(xs, ys, **_DOTTED, zorder=1)
    ax.plot(*front.T, linestyle="none", **_RING, markersize=13, zorder=1)
    ax.set(xlim=limits[0], ylim=limits[1])
