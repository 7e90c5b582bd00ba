"""Figures against a setting: final pass@k against rollouts per instance, learning rate or truncation order."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, MaxNLocator, NullLocator

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.style import (
    Drawing,
    NotDrawable,
    end_at_rates,
    finish,
    highest,
    label_x,
    label_y,
    line,
    listed,
    looks,
    power_ticks,
    seeds_of,
    small_multiples,
)

# -log pass@k is drawn between these pass rates: beyond them lies nothing that the held-out instances could tell.
FLOOR, CEILING = 1e-4, 1 - 1e-4


@dataclass(frozen=True)
class Line:
    """A series along a setting: its runs at each value of x (the only one None where it has no such setting)."""

    series: Series
    points: list[tuple[float | None, list[str]]]


def rollout_scaling(evidence: Evidence) -> Drawing:
    """-log pass@k against the number of rollouts per instance in training (the paper's Fig. 3)."""
    ks = sorted({*evidence.reported_ks, *evidence.ks[-1:]})
    lines = _lines_along(evidence, "num_rollouts")

    def transform(value: np.ndarray) -> np.ndarray:
        return -np.log(np.clip(value, FLOOR, CEILING))

    drawing, ends = _draw(evidence, lines, ks, "rollouts per instance in training, N", transform, "-log pass@{}")
    low, high = f"{-np.log(CEILING):.0e}", f"{-np.log(FLOOR):.1f}"
    return Drawing(
        drawing.figure,
        f"{drawing.caption} Lower is better: a line that keeps falling still gains from more rollouts, a flat one no "
        f"longer does. Values are cut to [{low}, {high}]. pass@1 from the smallest to the largest N: {ends}.",
        drawing.alt,
    )


def learning_rate(evidence: Evidence) -> Drawing:
    """Final pass@1 and pass@k against the learning rate."""
    lines = _lines_along(evidence, "learning_rate")
    drawing, _ = _draw(evidence, lines, evidence.reported_ks, "learning rate")
    best = []
    for panel in evidence.panels():
        for line_ in lines(panel):
            means = {f"{x:g}": _mean(evidence, runs) for x, runs in line_.points if x is not None}
            means = {x: mean for x, mean in means.items() if np.isfinite(mean)}
            if means:
                best.append(f"{panel.task}, {line_.series.label} {highest(means)[0].rstrip(',')}")
    return Drawing(
        drawing.figure,
        f"{drawing.caption} A broad hump means that tuning matters little. Best for pass@1: {listed(best)}.",
        drawing.alt,
    )


def order(evidence: Evidence) -> Drawing:
    """Final pass@1 and pass@k against the truncation order T of MaxRL."""

    def lines(panel: Panel) -> list[Line]:
        by_base: dict[Series, Line] = {}
        for series in evidence.series(panel):
            matched = re.fullmatch(r"(.*) T=(\d+)", series.objective)
            base = Series(matched[1] if matched else series.objective, series.objective_name, series.settings)
            point = (float(matched[2]) if matched else None, evidence.members(series, panel))
            by_base.setdefault(base, Line(base, [])).points.append(point)
        return [Line(line_.series, sorted(line_.points, key=lambda p: p[0] or 0)) for line_ in by_base.values()]

    drawing, ends = _draw(evidence, lines, evidence.reported_ks, "truncation order T")
    return Drawing(
        drawing.figure,
        f"{drawing.caption} T = 1 is REINFORCE's objective, larger T comes closer to maximum likelihood. "
        f"pass@1 from the smallest to the largest T: {ends}.",
        drawing.alt,
    )


def _mean(evidence: Evidence, runs: list[str]) -> float:
    return float(evidence.scores(runs, "pass@1").mean())


def _lines_along(evidence: Evidence, setting: str) -> Callable[[Panel], list[Line]]:
    def lines(panel: Panel) -> list[Line]:
        result = []
        for series in evidence.series(panel, ignore=[setting]):
            where = {"objective": series.objective, **dict(series.settings)}
            values = evidence.values(series.objective, setting, panel.task)
            # An objective with one value of the setting (exact likelihood has no N) is drawn as a horizontal line.
            shown = [float(v) for v in values] if len(values) > 1 else [None]
            points = [
                (x, evidence.select(panel.task, where | {setting: value}))
                for x, value in zip(shown, values, strict=True)
            ]
            result.append(Line(series, [(x, runs) for x, runs in points if runs]))
        return result

    return lines


def _draw(
    evidence: Evidence,
    lines: Callable[[Panel], list[Line]],
    ks: Sequence[int],
    x_label: str,
    transform: Callable[[np.ndarray], np.ndarray] | None = None,
    y_label: str = "pass@{}",
) -> tuple[Drawing, str]:
    shown = {panel: lines(panel) for panel in evidence.panels()}
    all_lines = [line_ for own in shown.values() for line_ in own]
    xs = sorted({x for line_ in all_lines for x, _ in line_.points if x is not None})
    if len(xs) < 2:
        raise NotDrawable(f"the experiment has one value only of: {x_label}")
    look = looks(list(dict.fromkeys(line_.series for line_ in all_lines)))
    figure, axes = small_multiples(shown, len(ks))
    ends = []
    for (panel, own), column in zip(shown.items(), axes, strict=True):
        for line_ in own:
            points = [p for p in line_.points if p[1]]
            for k, ax in zip(ks, column, strict=True):
                curves = [
                    stats.curve(np.stack([evidence.curves([run], f"pass@{k}")[1][0, -1:] for run in runs]))
                    for _, runs in points
                ]
                mean, low, high = (np.concatenate(part) for part in zip(*curves, strict=True))
                if transform:
                    mean, low, high = transform(mean), transform(high), transform(low)
                positions = [x for x, _ in points if x is not None]
                if positions:
                    line(ax, np.array(positions), (mean, low, high), look[line_.series], 0)
                else:
                    _level(ax, xs, float(mean[0]), float(low[0]), float(high[0]), look[line_.series])
            if len(points) > 1:
                first, last = (_mean(evidence, points[i][1]) for i in (0, -1))
                ends.append(f"{panel.task}, {line_.series.label} {first:.3g} to {last:.3g}")
        for k, ax in zip(ks, column, strict=True):
            power_ticks(ax, xs)
            if transform:
                _log_y(ax)
            else:
                end_at_rates(ax)
            label_y(ax, y_label.format(k))
        label_x(column, x_label)
    seeds = seeds_of(evidence, {panel: evidence.series(panel) for panel in shown})
    levels = any(x is None for line_ in all_lines for x, _ in line_.points)
    note = f"Final evaluation, mean over {seeds.number}. Bands: {seeds.note}."
    figure.align_ylabels()
    finish(figure, note + " No marker: a level." * levels, look)
    names = ", ".join(y_label.format(k) for k in ks)
    caption = f"Final {names} against {x_label}, mean over {seeds.number} {seeds.intervals}."
    alt = f"Line plots of {names} against {x_label}, one panel per task, one line per objective."
    return Drawing(figure, caption, alt), listed(ends)


def _level(ax: Axes, xs: Sequence[float], mean: float, low: float, high: float, look: dict[str, object]) -> None:
    ends = np.array([xs[0], xs[-1]])
    ax.fill_between(ends, low, high, color=str(look["color"]), alpha=0.12, linewidth=0)
    ax.plot(ends, [mean, mean], **{**look, "marker": None})  # type: ignore[arg-type]


def _log_y(ax: Axes) -> None:
    """A log y axis labelled in full; evenly where it spans less than a factor of four."""
    ax.set_yscale("log")
    low, high = ax.get_ylim()
    if high < 4 * low:
        ax.yaxis.set_major_locator(MaxNLocator(5))
        ax.yaxis.set_minor_locator(NullLocator())

    def minor(value: float, _: object) -> str:
        return f"{value:g}" if high < 15 * low and f"{value:e}"[0] in "25" else ""

    ax.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    ax.yaxis.set_minor_formatter(FuncFormatter(minor))
