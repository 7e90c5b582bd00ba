"""Figures of end results: every objective's final scores, aggregates over tasks, and who is likely to beat whom."""

from __future__ import annotations

import textwrap

import numpy as np
from matplotlib.ticker import MaxNLocator

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.compare import SIGNIFICANCE, compare
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.style import (
    Drawing,
    NotDrawable,
    count_seeds,
    finish,
    footnote,
    highest,
    label_rows,
    label_y,
    line,
    listed,
    looks,
    seeds_of,
    series_by_panel,
    small_multiples,
)


def over(evidence: Evidence) -> str:
    """What intervals of final pass@k are over, in words: "seeds and 128 held-out instances"."""
    stored = [evidence.instance_rates([run]) for run in evidence.runs]
    counts = sorted({rates[0].shape[1] if rates else 0 for rates in stored})
    if counts == [0]:
        return "seeds"
    if len(counts) == 1:
        return f"seeds and {counts[0]} held-out instances"
    return "seeds and, where stored, held-out instances"


def end_points(evidence: Evidence) -> Drawing:
    """Final pass@1 and pass@k of every series: a point and its interval per row, one column of panels per task."""
    metrics = evidence.pass_metrics
    shown, look = series_by_panel(evidence)
    rows = {series: len(look) - 1 - i for i, series in enumerate(look)}
    figure, axes = small_multiples(shown, len(metrics), height=0.7 + 0.2 * len(rows))
    best = []
    for (panel, present), column in zip(shown.items(), axes, strict=True):
        for metric, ax in zip(metrics, column, strict=True):
            values = {}
            for series in present:
                scores = evidence.scores(evidence.members(series, panel), metric)
                estimate = stats.estimate([scores])
                style = {"markersize": 7, **look[series], "linestyle": "none"}
                ax.hlines(rows[series], estimate.low, estimate.high, color=style["color"], linewidth=2)
                ax.plot(estimate.value, rows[series], **style, markeredgecolor="white")
                if np.isfinite(estimate.value):
                    values[series.label] = estimate.value
            if values:
                who, top = highest(values)
                best.append(f"{metric} on {panel.title} {who} ({top:.3g})")
            label_rows(ax, [s.label for s in rows])
            ax.set_xlabel(metric)
            ax.xaxis.set_major_locator(MaxNLocator(3))
    seeds = seeds_of(evidence, shown).over(over(evidence))
    footnote(figure, f"Mean over {seeds.number}. Bars: {seeds.note}.")
    caption = (
        f"Final held-out scores, mean over {seeds.number} {seeds.intervals}. Intervals may overlap and a paired "
        f"difference still be clear. Highest means: {listed(best)}."
    )
    return Drawing(
        figure, caption, "Dot plots with intervals of final pass@1 and pass@k, one panel per task and metric."
    )


def common_scores(evidence: Evidence, metric: str) -> dict[Series, list[np.ndarray]]:
    """Per series its scores on each task, for series and seeds that all tasks have; the strata of the aggregates."""
    panels = [Panel(task) for task in evidence.tasks]
    scores = {}
    for series in evidence.series():
        runs = [evidence.members(series, panel) for panel in panels]
        if all(runs):
            scores[series] = [evidence.scores(own, metric) for own in runs]
    return scores


def aggregates(evidence: Evidence) -> Drawing:
    """Over all tasks: performance profiles, and the mean of final pass@1 and pass@k."""
    metrics = evidence.pass_metrics
    scores = {metric: common_scores(evidence, metric) for metric in metrics}
    if len(scores[metrics[0]]) < 2:
        raise NotDrawable("fewer than two objectives have runs on every task")
    all_series = list(scores[metrics[0]])
    look = looks(all_series)
    rows = {series: len(all_series) - 1 - i for i, series in enumerate(all_series)}
    figure, axes = small_multiples([Panel(f"final {metric}, all tasks") for metric in metrics], 2, height=2.6)
    levels = np.linspace(0, 1, 41)
    words = []
    for metric, (top, bottom) in zip(metrics, axes, strict=True):
        middle, intervals = {}, {}
        for offset, (series, strata) in enumerate(scores[metric].items()):
            line(top, levels, stats.profile_curve(strata, levels), look[series], offset)
            estimate = stats.estimate(strata)
            bottom.hlines(rows[series], estimate.low, estimate.high, color=look[series]["color"], linewidth=1.6)
            bottom.plot(estimate.value, rows[series], **look[series] | {"linestyle": "none"})
            if np.isfinite(estimate.value):
                limits = "" if np.isnan(estimate.low) else f" [{estimate.low:.3g}, {estimate.high:.3g}]"
                middle[series.label], intervals[series.label] = estimate.value, limits
        if middle:
            who, value = highest(middle)
            words.append(f"{metric} {value:.3g}, {who.rstrip(',')}{intervals.get(who, '')}")
        top.set_xlabel(f"level of {metric}")
        bottom.set_xlabel(f"mean {metric}")
        bottom.xaxis.set_major_locator(MaxNLocator(3))
        label_rows(bottom, [s.label for s in rows])
        label_y(top, "share of runs above level")
    panels = [Panel(task) for task in evidence.tasks]
    seeds = seeds_of(evidence, dict.fromkeys(panels, all_series)).over(over(evidence))
    finish(figure, f"{_tasks(panels)}, {seeds.number} each, tasks as strata. Bands and bars: {seeds.note}.", look)
    caption = (
        f"{_tasks(panels)} together, {seeds.number} each, {seeds.intervals} (profiles: by bootstrap, which errs wide). "
        "Profiles: the share of runs whose score exceeds a level (higher is better). Points: means over tasks. Highest "
        f"means: {'; '.join(words)}.{_left_out(evidence, all_series)}"
    )
    return Drawing(figure, caption, "Performance profiles, and means with intervals.")


def improvement(evidence: Evidence) -> Drawing:
    """The chance that a run of the first MaxRL series scores above a run of each other objective, over all tasks."""
    metrics = evidence.pass_metrics
    all_series = list(common_scores(evidence, metrics[0]))
    ours = next((s for s in all_series if s.objective_name.startswith("maxrl")), None)
    panels = [Panel(task) for task in evidence.tasks]
    others = [s for s in all_series if ours is not None and s != ours and _common_seeds(evidence, panels, ours, s)]
    if ours is None or not others:
        raise NotDrawable("needs a MaxRL objective and another one with common seeds on every task")
    look = looks(all_series)
    figure, axes = small_multiples([Panel(f"final {m}") for m in metrics], 1, height=0.9 + 0.3 * len(others))
    words: list[str] = []
    counts: dict[str, int] = {}
    for metric, (ax,) in zip(metrics, axes, strict=True):
        p_values, means = [], []
        for row, series in enumerate(others):
            a, b = paired(evidence, panels, ours, series, metric)
            chance = stats.probability_of_improvement(a, b)
            comparison = compare(a, b, first=evidence.first)
            p_values.append(comparison.p_at(0))
            means.append(comparison.effect)
            counts[series.label] = chance.seeds
            y = len(others) - 1 - row
            ax.hlines(y, chance.low, chance.high, color=look[series]["color"], linewidth=2)
            style = {"markersize": 7, **look[series], "linestyle": "none"}
            ax.plot(chance.value, y, **style, markeredgecolor="white")
        clear = [
            f"{series.label} {mean:+.3f} (p = {p:.2g})"
            for series, mean, p in zip(others, means, stats.holm(p_values), strict=True)
            if p < SIGNIFICANCE and counts[series.label] >= stats.FEWEST_SEEDS
        ]
        words.append(f"{metric}: {', '.join(clear) or 'none'}")
        ax.axvline(0.5, color="black", linestyle=":", linewidth=1.2)
        ax.set(xlim=(-0.03, 1.03), xlabel=textwrap.fill(f"P({ours.label} above the other)", 28))
        label_rows(ax, [s.label for s in others])
    seeds = count_seeds({"all tasks": counts}).over(over(evidence))
    common = seeds.number.replace("seed", "common seed")
    test = "paired t test" if evidence.first is None else "at every look"
    footnote(figure, f"{_tasks(panels)}, {common}, tasks as strata. Bars: {seeds.note}.")
    caption = (
        f"The chance that a run of {ours.label} scores above a run of each other objective (dotted: even odds), "
        f"averaged over {_tasks(panels)}, {common}, {seeds.intervals}. "
        f"Mean paired differences that are clear (p < {SIGNIFICANCE}, {test}, Holm): {listed(words)}."
        f"{_left_out(evidence, [ours, *others])}"
    )
    return Drawing(figure, caption, f"Dot plots of the probability that {ours.label} improves on each other objective.")


def _left_out(evidence: Evidence, shown: list[Series]) -> str:
    """A sentence on the series that lack runs on some task, "" if there are none."""
    absent = [series.label for series in evidence.series() if series not in shown]
    return f" Left out, without (common) runs on every task: {', '.join(absent)}." if absent else ""


def _common_seeds(evidence: Evidence, panels: list[Panel], ours: Series, theirs: Series) -> bool:
    return bool(evidence.in_common([evidence.members(s, panel) for panel in panels for s in (ours, theirs)])[0])


def _tasks(panels: list[Panel]) -> str:
    return f"{len(panels)} task" + "s" * (len(panels) > 1)


def paired(
    evidence: Evidence, panels: list[Panel], ours: Series, theirs: Series, metric: str
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Scores of two series per task, on the seeds that both have on every task, seeds in the same order."""
    groups = evidence.in_common([evidence.members(s, panel) for panel in panels for s in (ours, theirs)])
    pairs = []
    for panel_groups in zip(groups[::2], groups[1::2], strict=True):
        scores = [evidence.scores(runs, metric) for runs in panel_groups]
        # With other held-out instances on one side (eval_instances as an axis) only the seeds are common.
        pairs.append(scores if scores[0].shape == scores[1].shape else [stats.by_seed(s) for s in scores])
    return [a for a, _ in pairs], [b for _, b in pairs]
