"""Figures along training: a metric against steps, rollouts or seconds; one line per series, one panel per task."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.ticker import FuncFormatter, MaxNLocator

from maxrl_bench import stats
from maxrl_bench.evidence import Evidence, Panel, Series
from maxrl_bench.figures_style import (
    Drawing,
    NotDrawable,
    count,
    footnote,
    is_left,
    legend,
    line,
    looks,
    seeds_phrase,
    small_multiples,
)

X_LABELS = {"step": "training step", "rollouts": "training rollouts", "seconds": "training seconds"}
Y_LABELS = {
    "entropy": "policy entropy (nats)",
    "success_share": "instances with a success",
    "cosine_ml": "cosine with ML gradient",
    "grad_norm": "gradient norm",
    "log_p": "mean log pass rate",
}


def draw_curves(evidence: Evidence, metrics: Sequence[str], x: str = "step") -> tuple[Drawing, list[Panel]]:
    """Metrics (rows) against x for each panel; the caption says what is drawn and lists what cannot be."""
    metrics = [m for m in metrics if evidence.has(m)]
    if not metrics:
        raise NotDrawable("the tables hold no values of it")
    facets = evidence.faceted()
    panels = evidence.panels(facets)
    look = looks(evidence.series(ignore=facets))
    figure, axes = small_multiples(panels, len(metrics))
    absent: dict[str, None] = {}
    drawn: set[Series] = set()
    for panel, column in zip(panels, axes, strict=True):
        for offset, series in enumerate(evidence.series(panel, facets)):
            runs = evidence.members(series, panel)
            for metric, ax in zip(metrics, column, strict=True):
                at, values = evidence.curves(runs, metric, x)
                if values.shape[1] < 2 or (x != "step" and at[-1] <= 0):
                    absent[
                        f"{series.label} on {panel.title} (no {X_LABELS[x] if values.shape[1] >= 2 else 'such values'})"
                    ] = None
                    continue
                drawn.add(series)
                line(ax, at, stats.curve(values), look[series], offset)
        for metric, ax in zip(metrics, column, strict=True):
            ax.xaxis.set_major_locator(MaxNLocator(4))
            ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: count(value)))
            if is_left(ax):
                ax.set_ylabel(Y_LABELS.get(metric, metric))
        column[-1].set_xlabel(X_LABELS[x])
    if not drawn:
        raise NotDrawable("the tables hold no values of it")
    legend(figure, {s: style for s, style in look.items() if s in drawn})
    seeds = seeds_phrase(evidence, panels, lambda panel: evidence.series(panel, facets))
    footnote(figure, f"Lines: mean over {seeds}. Bands: 95 % bootstrap intervals over seeds.")
    names = " and ".join(Y_LABELS.get(m, m) for m in metrics)
    missing = f" Not drawn: {'; '.join(absent)}." if absent else ""
    caption = f"{names if names.startswith('pass@') else names.capitalize()} against {X_LABELS[x]}, mean over {seeds} with 95 % intervals over seeds.{missing}"
    alt = f"Line plots of {names} against {X_LABELS[x]}, one panel per task, one line per objective."
    return Drawing(figure, caption, alt), panels


def ranking(evidence: Evidence, metric: str, when: str = "final") -> str:
    """ "on fourrooms: MaxRL 0.71, GRPO 0.62, ..." for each panel, best first: the numbers behind a caption."""
    parts = []
    facets = evidence.faceted()
    for panel in evidence.panels(facets):
        values = []
        for series in evidence.series(panel, facets):
            scores = evidence.scores(evidence.members(series, panel), metric, when)
            if np.isfinite(scores).all():
                values.append((float(scores.mean()), series.label))
        values.sort(key=lambda pair: -pair[0])
        if values:
            parts.append(f"{panel.title}: " + ", ".join(f"{label} {value:.3g}" for value, label in values))
    return "; ".join(parts)


def training_curves(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k on held-out instances along training."""
    return _with(evidence, draw_curves(evidence, _pass_metrics(evidence)), "Last values of pass@1", "pass@1")


def cost_rollouts(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k against the rollouts spent in training."""
    drawing, _ = draw_curves(evidence, _pass_metrics(evidence), "rollouts")
    return _say(drawing, "Equal height further left means the same skill for fewer rollouts.")


def cost_seconds(evidence: Evidence) -> Drawing:
    """pass@1 and pass@k against the seconds spent in training."""
    drawing, _ = draw_curves(evidence, _pass_metrics(evidence), "seconds")
    return _say(drawing, "Seconds are of training alone, without evaluation, on the machine named in the provenance.")


def entropy(evidence: Evidence) -> Drawing:
    """Policy entropy along training."""
    return _with(evidence, draw_curves(evidence, ["entropy"]), "Last values", "entropy")


def success_share(evidence: Evidence) -> Drawing:
    """Share of training instances with at least one success among their rollouts."""
    drawing = draw_curves(evidence, ["success_share"])
    return _with(
        evidence, drawing, "An instance without a success teaches nothing. Mean over training", "success_share", "area"
    )


def cosine_ml(evidence: Evidence) -> Drawing:
    """Cosine between each objective's gradient and that of exact maximum likelihood on the same instances."""
    drawing = draw_curves(evidence, ["cosine_ml"])
    text = "1 is the direction that maximum likelihood would take with the same policy on the same instances. Mean over training"
    return _with(evidence, drawing, text, "cosine_ml", "area")


def _pass_metrics(evidence: Evidence) -> list[str]:
    return ["pass@1"] + ([f"pass@{evidence.high_k}"] if evidence.high_k > 1 else [])


def _with(
    evidence: Evidence, drawn: tuple[Drawing, list[Panel]], text: str, metric: str, when: str = "final"
) -> Drawing:
    return _say(drawn[0], f"{text} (best first): {ranking(evidence, metric, when)}.")


def _say(drawing: Drawing, text: str) -> Drawing:
    return Drawing(drawing.figure, f"{drawing.caption} {text}", drawing.alt)
