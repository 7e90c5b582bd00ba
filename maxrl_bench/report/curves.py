"""Figures along training: a metric against steps, rollouts or seconds; one line per series, one panel per task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.reference import along_training, pairs, reference, seeds_in
from maxrl_bench.report.style import (
    UNPAIRED,
    Drawing,
    NotDrawable,
    count,
    count_seeds,
    end_at_rates,
    finish,
    further,
    highest,
    label_x,
    label_y,
    line,
    listed,
    seeds_of,
    series_by_panel,
    small_multiples,
)

Curve = tuple[np.ndarray, np.ndarray]  # x [X] and values [S, X]
X_LABELS = {"step": "training step", "rollouts": "training rollouts", "seconds": "training seconds"}
Y_LABELS = {
    "entropy": "policy entropy (nats)",
    "success_share": "instances with a success",
    "cosine_ml": "cosine with ML gradient",
    "grad_norm": "gradient norm",
    "log_p": "mean log pass rate",
}


def _is_rate(metric: str) -> bool:
    """Whether the metric's values are between 0 and 1."""
    return metric.startswith("pass@") or metric == "success_share"


def draw_curves(evidence: Evidence, metrics: Sequence[str], x: str = "step", differences: bool = False) -> Drawing:
    """Metrics (rows) against x for each panel; the caption says what is drawn and names what cannot be.

    differences: below them as many rows with the paired differences to the reference objective.
    """
    metrics = [metric for metric in metrics if metric in evidence.metrics]
    shown, look = series_by_panel(evidence)
    lines_of: dict[Panel, dict[Series, list[Curve]]] = {}
    absent: dict[str, list[str]] = {}
    for panel, present in shown.items():
        for series in present:
            runs = evidence.members(series, panel)
            curves = [evidence.curves(runs, m, x) for m in metrics]
            if any(len(xs) > 1 and xs[-1] > 0 for xs, _ in curves):
                lines_of.setdefault(panel, {})[series] = curves
            else:
                absent.setdefault(series.label, []).append(panel.title)
    if not lines_of:
        raise NotDrawable("the tables hold no values of it")
    to = reference(evidence, {panel: list(lines) for panel, lines in lines_of.items()}) if differences else None
    paired = pairs(evidence, {panel: list(lines) for panel, lines in lines_of.items()}, to)
    if paired:
        figure, axes = small_multiples(lines_of, 2 * len(metrics), height=1.85)
    else:
        figure, axes = small_multiples(lines_of, len(metrics))
    for (panel, lines), column in zip(lines_of.items(), axes, strict=True):
        for series, curves in lines.items():
            for (xs, values), ax in zip(curves, column, strict=False):
                line(ax, xs, stats.curve(values), look[series], shown[panel].index(series))
        for metric, ax in zip(metrics, column, strict=False):
            label_y(ax, Y_LABELS.get(metric, metric))
            if _is_rate(metric):
                end_at_rates(ax)
        if to is not None:
            for metric, ax in zip(metrics, column[len(metrics) :], strict=False):
                for series, groups in paired.get(panel, {}).items():
                    steps, values = along_training(evidence, groups, metric)
                    line(ax, steps, stats.curve(values), look[series], shown[panel].index(series))
                ax.axhline(0, color=look[to]["color"], linewidth=1, zorder=1)
                label_y(ax, f"{Y_LABELS.get(metric, metric)}\nminus {to.label}")
                if panel not in paired:
                    ax.set_axis_off()
        for ax in column:
            ax.xaxis.set_major_locator(MaxNLocator(4, integer=x != "seconds"))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
        label_x(column, X_LABELS[x])
    drawn = {series for lines in lines_of.values() for series in lines}
    seeds = seeds_of(evidence, lines_of)
    note = f"Lines: mean over {seeds.number}. Bands: {seeds.note}, {UNPAIRED}."
    common = count_seeds(seeds_in(paired)) if paired else None
    if common and to:
        note += f" Minus {to.label}: paired; bands: {common.note}."
    figure.align_ylabels()
    finish(figure, note, {series: style for series, style in look.items() if series in drawn})
    names = " and ".join(Y_LABELS.get(m, m) for m in metrics)
    caption = f"{names[0].upper()}{names[1:]}" if not names.startswith("pass@") else f"Held-out {names}"
    caption += f" against {X_LABELS[x]}, mean over {seeds.number} {seeds.intervals}."
    if common and to:
        caption += f" {further(figure)}: the difference to {to.label}, paired, over the {common.number} that both "
        caption += f"have, {common.intervals}."
    gaps = [
        evidence.missing([r for s in own for r in evidence.members(s, p)], m)
        for p, own in lines_of.items()
        for m in metrics
    ]
    if any(lacking for lacking, _ in gaps):
        lacking, asked = (sum(numbers) for numbers in zip(*gaps, strict=True))
        caption += f" {lacking} of {asked} values are missing; where one is, its line has no point."
    if absent:
        caption += f" Without values, not drawn: {_absent(absent, [panel.title for panel in shown])}."
    return Drawing(figure, caption, f"Line plots of {names} against {X_LABELS[x]}, one panel per task.")


def _absent(absent: dict[str, list[str]], panels: list[str]) -> str:
    """Series with the panels that lack them (no panels named if all do); a panel that nothing is on, once."""
    empty = [title for title in panels if all(title in titles for titles in absent.values()) and len(absent) > 1]
    parts = [f"everything on {title}" for title in empty]
    for label, titles in absent.items():
        rest = [title for title in titles if title not in empty]
        if rest:
            parts.append(label if len(titles) == len(panels) else f"{label} ({', '.join(rest)})")
    return ", ".join(parts)


def leaders(evidence: Evidence, metric: str, when: str = "final") -> str:
    """ "MaxRL on fourrooms (0.71, next GRPO 0.62); ...": the highest mean of each panel, and the one after it."""
    parts = []
    for panel, present in series_by_panel(evidence)[0].items():
        values = {}
        for series in present:
            scores = stats.by_seed(evidence.scores(evidence.members(series, panel), metric, when))
            if np.isfinite(scores).all():
                values[series.label] = float(scores.mean())
        if values:
            who, top = highest(values)
            rest = {label: value for label, value in values.items() if f"{value:.3g}" != f"{top:.3g}"}
            following = f", next {max(rest, key=rest.__getitem__)} {max(rest.values()):.3g}" if rest else ""
            parts.append(f"{who} on {panel.title} ({top:.3g}{following})")
    return listed(parts)


def training_curves(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k on held-out instances along training."""
    drawing = draw_curves(evidence, evidence.pass_metrics, differences=True)
    return _say(drawing, f"Highest pass@1 at the end: {leaders(evidence, 'pass@1')}.")


def cost_rollouts(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k against the rollouts spent in training."""
    drawing = draw_curves(evidence, evidence.pass_metrics, "rollouts")
    return _say(drawing, "The same height further left is the same skill for fewer rollouts.")


def cost_seconds(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k against the seconds spent in training."""
    drawing = draw_curves(evidence, evidence.pass_metrics, "seconds")
    return _say(drawing, "Seconds are of training alone, without evaluation, on the machine that the provenance names.")


def entropy(evidence: Evidence) -> Drawing:
    """Policy entropy along training."""
    drawing = draw_curves(evidence, ["entropy"])
    return _say(drawing, f"Most entropy left at the end: {leaders(evidence, 'entropy')}.")


def success_share(evidence: Evidence) -> Drawing:
    """Share of training instances with at least one success among their rollouts."""
    drawing = draw_curves(evidence, ["success_share"])
    return _say(
        drawing,
        "Training instances of which at least one rollout succeeded: without one there is nothing to reinforce. "
        f"Highest mean over training: {leaders(evidence, 'success_share', 'area')}.",
    )


def cosine_ml(evidence: Evidence) -> Drawing:
    """Cosine between each objective's gradient and that of exact maximum likelihood on the same instances."""
    drawing = draw_curves(evidence, ["cosine_ml"])
    return _say(
        drawing,
        "1 is the direction in which exact maximum likelihood would move the same policy on the same instances; "
        f"sampling noise lowers it too. Highest mean over training: {leaders(evidence, 'cosine_ml', 'area')}.",
    )


def _say(drawing: Drawing, text: str) -> Drawing:
    return Drawing(drawing.figure, f"{drawing.caption} {text}", drawing.alt)
