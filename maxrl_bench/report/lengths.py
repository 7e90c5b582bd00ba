"""What one would have concluded of an objective after a part of the training, and at its end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from maxrl_bench.analysis.compare import BETTER, CANNOT, EQUAL, UNDECIDED, WORSE, Comparison, compare
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.coverage import CHALLENGER
from maxrl_bench.report.reference import along_training, pairs, seeds_in
from maxrl_bench.report.style import (
    Drawing,
    NotDrawable,
    count_seeds,
    finish,
    label_x,
    label_y,
    listed,
    series_by_panel,
    share_limits,
    small_multiples,
)
from maxrl_bench.sweeps.claim_model import MARGIN

SHARES = (0.1, 0.3, 1.0)  # of the training length
TOLERANCE = 0.02  # of it: how far the evaluation that stands for a share may be from it
_AGAINST = {BETTER: "than", WORSE: "than", EQUAL: "to", UNDECIDED: "against"}  # what follows a verdict
_BAND: dict[str, Any] = {"color": "#EBEBEB", "linewidth": 0}


class Point(NamedTuple):
    """The difference in a metric at one share of the training length."""

    share: float
    step: int  # of the evaluation that is nearest to it
    length: int  # of the training, in steps
    result: Comparison

    @property
    def exact(self) -> bool:
        """Whether the evaluation is at the share, to the step."""
        return abs(self.step - self.share * self.length) < 1


class Way(NamedTuple):
    """The differences to one opponent in one metric on one panel, in the order of the shares."""

    panel: Panel
    metric: str
    opponent: Series
    points: list[Point]

    @property
    def change(self) -> tuple[float, str, float, str]:
        """The first share and its verdict, the last share and its verdict."""
        first, last = self.points[0], self.points[-1]
        return first.share, first.result.verdict, last.share, last.result.verdict


def points(evidence: Evidence, groups: Sequence[Sequence[str]], metric: str) -> list[Point]:
    """The difference of two groups of runs at each share that has an evaluation within TOLERANCE of the length."""
    steps, differences = along_training(evidence, groups, metric)
    length = max(evidence.last_step(run) for runs in groups for run in runs)
    found = []
    for share in SHARES if len(steps) else ():
        at = int(np.abs(steps - share * length).argmin())
        if abs(steps[at] - share * length) <= TOLERANCE * length:
            fallen = sum(evidence.collapsed(run, until=steps[at]) for runs in groups for run in runs)
            result = compare(differences[:, at], margin=MARGIN, collapsed=fallen)
            found.append(Point(share, int(steps[at]), length, result))
    return found


def lengths(evidence: Evidence) -> Drawing:
    """MaxRL minus each other objective at 10 %, 30 % and 100 % of the training length, with the verdict at each."""
    shown, look = series_by_panel(evidence)
    ours = _challenger(shown)
    rivals = {panel: [s for s in own if s == ours or s.objective_name != "ml"] for panel, own in shown.items()}
    paired = pairs(evidence, rivals, ours)
    if ours is None or not paired:
        raise NotDrawable("needs a MaxRL objective and another, besides exact maximum likelihood, with common seeds")
    metrics = evidence.pass_metrics
    ways = [
        Way(panel, metric, opponent, points(evidence, groups[::-1], metric))
        for panel, own in paired.items()
        for metric in metrics
        for opponent, groups in own.items()
    ]
    ways = [way for way in ways if len(way.points) > 1]
    if not ways:
        near = f"within {_percent(TOLERANCE)} of the training length"
        raise NotDrawable(f"needs evaluations at two at least of {_shares(SHARES)} of the training, {near}")
    panels = list(dict.fromkeys(way.panel for way in ways))
    opponents = [series for series in look if any(way.opponent == series for way in ways)]
    figure, axes = small_multiples(panels, len(metrics))
    for panel, column in zip(panels, axes, strict=True):
        for metric, ax in zip(metrics, column, strict=True):
            own = {way.opponent: way.points for way in ways if (way.panel, way.metric) == (panel, metric)}
            _draw(ax, [(look[series], own.get(series, [])) for series in opponents])
            label_y(ax, f"{metric} of {ours.label} minus the other's")
        steps = max(point.length for way in ways if way.panel == panel for point in way.points)
        label_x(column, f"share of {steps:,} steps")
    for row in zip(*axes, strict=True):
        share_limits(row)
    figure.align_ylabels()
    drawn = {panel: {s: groups for s, groups in paired[panel].items() if s in opponents} for panel in panels}
    seeds = count_seeds(seeds_in(drawn))
    note = (
        f"{ours.label} minus each other objective, paired, mean over {seeds.number}: above 0 it is better. "
        f"Bars: {seeds.note}; practically equal where they are inside the margin."
    )
    finish(figure, note, {series: {**look[series], "linestyle": "none"} for series in opponents}, _key())
    names = " and ".join(metrics)
    caption = (
        f"What one would have concluded at {_shares(SHARES)} of the training length: {names} of {ours.label} minus "
        f"each other objective's, paired, mean over the {seeds.number} that both have, {seeds.intervals}. Marks are "
        f"filled where {ours.label} is better (above 0) or worse (below 0), half where the two are practically equal "
        f"(inside ±{MARGIN:g}), hollow where that is undecided, each by its own interval alone. "
        f"{_changes(ways)} All points are of evaluations along training (metrics.csv.xz); the last may have more "
        f"held-out instances than the others.{_other_steps(ways)}"
    )
    absent = [panel.title for panel in shown if panel not in panels]
    if absent:
        caption += f" Not drawn, for want of common seeds or of evaluations there: {listed(absent)}."
    alt = f"Dot plots of differences in {names} at {_shares(SHARES)} of the training length, one panel per task."
    return Drawing(figure, caption, alt)


def _challenger(shown: Mapping[Panel, Sequence[Series]]) -> Series | None:
    """The first MaxRL series; one that more panels have goes before."""
    every = [s for own in shown.values() for s in own if s.objective_name.startswith(CHALLENGER)]
    return max(every, key=every.count, default=None)  # of equals the first


def _draw(ax: Axes, ways: Sequence[tuple[Mapping[str, Any], Sequence[Point]]]) -> None:
    """The points of each opponent, slightly apart; filled where something is declared."""
    apart = min(0.2, 0.8 / len(ways))
    for number, (look, own) in enumerate(ways):
        places = [SHARES.index(point.share) + apart * (number - (len(ways) - 1) / 2) for point in own]
        color, results = look["color"], [point.result for point in own]
        ax.plot(places, [r.effect for r in results], color=color, linewidth=0.8, alpha=0.5, zorder=2)
        ax.vlines(places, [r.low for r in results], [r.high for r in results], color=color, linewidth=1.4, zorder=3)
        for place, result in zip(places, results, strict=True):
            ax.plot(place, result.effect, color=color, marker=look["marker"], **_mark(result.verdict), zorder=4)
    ax.axhspan(-MARGIN, MARGIN, **_BAND, zorder=0)
    ax.axhline(0, color="black", linewidth=0.8, zorder=1)
    ax.set_xticks(range(len(SHARES)), [_percent(share) for share in SHARES])
    ax.set_xlim(-0.5, len(SHARES) - 0.5)
    ax.grid(visible=False, axis="x")


def _mark(verdict: str) -> dict[str, Any]:
    """How a point of this verdict is filled: whole, by half, or not at all."""
    hollow = {"markerfacecolor": "white"} if verdict in (UNDECIDED, CANNOT) else {}
    return {"linestyle": "none", "markersize": 6.5, "fillstyle": "bottom" if verdict == EQUAL else "full", **hollow}


def _key() -> list[Line2D]:
    """What the legend says of marks and of the margin."""
    verdicts = {"better or worse": BETTER, EQUAL: EQUAL, UNDECIDED: UNDECIDED}
    marks = [Line2D([], [], color="black", marker="o", **_mark(v), label=label) for label, v in verdicts.items()]
    return [*marks, Line2D([], [], **{**_BAND, "linewidth": 8}, label=f"margin, ±{MARGIN:g}")]


def _changes(ways: Sequence[Way]) -> str:
    """Where the last verdict is another than the first, in words; what misleads most comes first."""
    if all(way.points[-1].result.verdict == CANNOT for way in ways):
        return "Too few seeds for verdicts."
    opponents: dict[tuple[Any, ...], list[str]] = {}
    for way in ways:
        if way.change[1] != way.change[3]:
            opponents.setdefault((way.panel.title, way.metric, *way.change), []).append(way.opponent.label)
    if not opponents:
        return f"No verdict at {_percent(SHARES[0])} is another at the end."
    told = [
        f"{title}, {metric}: {before} {_AGAINST[before]} {_joined(labels)} at {_percent(first)}, "
        f"{after} at {_percent(last)}"
        for (title, metric, first, before, last, after), labels in sorted(opponents.items(), key=_misled)
    ]
    return f"Verdicts that change: {listed(told, most=24)}."


def _misled(item: tuple[tuple[Any, ...], Any]) -> tuple[bool, bool]:
    """How far the first verdict misleads: reversals sort first, then differences that are gone at the end."""
    _, _, _, before, _, after = item[0]
    return {before, after} != {BETTER, WORSE}, before not in (BETTER, WORSE)


def _other_steps(ways: Sequence[Way]) -> str:
    """Which evaluations stand for a share without being exactly at it, and which shares have none, in words."""
    near: dict[str, None] = {}
    none: dict[str, None] = {}
    for way in ways:
        here = {point.share: point for point in way.points}
        near |= {
            f"{way.panel.title} step {point.step:,} of {point.length:,} for {_percent(share)}": None
            for share, point in here.items()
            if not point.exact
        }
        none |= {f"{_percent(share)} on {way.panel.title}": None for share in SHARES if share not in here}
    text = f" The nearest evaluations: {listed(list(near))}." if near else ""
    return text + (f" Without an evaluation near: {listed(list(none))}." if none else "")


def _percent(share: float) -> str:
    return f"{100 * share:g} %"


def _shares(shares: Sequence[float]) -> str:
    return _joined([_percent(share) for share in shares])


def _joined(parts: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(parts[:-1]), parts[-1]]))
