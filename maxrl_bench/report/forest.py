"""The forest plot of all claims: a row per comparison, with effect, interval, margin, verdict and seeds."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from maxrl_bench.analysis.compare import (
    BETTER,
    CANNOT,
    CONTRADICTED,
    EQUAL,
    SUPPORTED,
    UNDECIDED,
    WORSE,
)
from maxrl_bench.report.folder import Claim, Comparison
from maxrl_bench.report.style import GREY, WIDTH, Drawing
from maxrl_bench.sweeps.claim_model import OWN_SCALE

MOST_ROWS = 150  # of a figure; the table has them all
ROW, HEAD, GAP = 0.165, 0.2, 0.07  # inches
LEFT, RIGHT = 0.3, 0.765  # of the width: between them the intervals, beside them the words
LETTERS = 40  # that fit to the left of a row
# Colours of Okabe and Ito; each verdict has its shape too.
_LOOKS = {
    BETTER: ("#0072B2", "^", "full"),
    WORSE: ("#D55E00", "v", "full"),
    EQUAL: ("#009E73", "s", "full"),
    UNDECIDED: ("#555555", "o", "none"),
    CANNOT: ("#999999", "x", "full"),
}
_COLOURS = {SUPPORTED: BETTER, CONTRADICTED: WORSE}
AT_EVERY_LOOK = (
    "Where seeds were added until the claims were decided, intervals are confidence sequences: they hold at every "
    "look, over seeds alone."
)
MEASURES = {
    "rollouts_to": "rollouts to {}",
    "collapsed": "collapsed",
    "front": "front of {}",
    "samples": "samples for {}",
}
LOGARITHMS = ("rollouts_to", "samples")
SIGNS = {SUPPORTED: "✔", CONTRADICTED: "✘", EQUAL: "≈", UNDECIDED: "?", CANNOT: "–"}


class Entry(NamedTuple):
    """A claim with the verdict that it has in its family, and its adjusted p value."""

    experiment: str
    claim: Claim
    verdict: str
    p: float | None


def forest(entries: Sequence[Entry]) -> Drawing | None:
    """All claims, those of pass@k on one scale, others below, each measure on a scale of its own; None without any."""
    drawn: list[tuple[Entry, list[Comparison]]] = []
    rows = 0
    for entry in entries:
        for of_pass in (True, False):
            own = [c for c in entry.claim.comparisons if c.effect is not None and _of_pass(c) == of_pass]
            if own and rows + len(own) <= MOST_ROWS:
                drawn.append((entry, own))
                rows += len(own)
    if not drawn:
        return None
    parts = [part for part in ([d for d in drawn if _of_pass(d[1][0]) == of_pass] for of_pass in (True, False)) if part]
    heights = [sum(HEAD + GAP + ROW * len(own) for _, own in part) for part in parts]
    top, bottom, between = 0.42, 0.95, 0.55
    total = top + sum(heights) + between * (len(parts) - 1) + bottom
    figure = Figure(figsize=(WIDTH, total))
    y = total - top
    for part, height in zip(parts, heights, strict=True):
        axes = figure.add_axes((LEFT, (y - height) / total, RIGHT - LEFT, height / total))
        _section(axes, part, height)
        y -= height + between
    _legend(figure, total)
    left_out = len(entries) - len({id(entry.claim) for entry, _ in drawn})
    return Drawing(figure, _caption(entries, left_out), _alt(entries))


def _of_pass(comparison: Comparison) -> bool:
    return comparison.metric.startswith("pass@") and comparison.when not in OWN_SCALE


def _section(axes: Axes, part: Sequence[tuple[Entry, list[Comparison]]], height: float) -> None:
    of_pass = _of_pass(part[0][1][0])
    ends: dict[tuple[str, str], float] = {}
    for _, own in part:
        for c in own:
            reach = max(abs(v) for v in (c.effect, c.low, c.high, c.margin) if v is not None)
            ends[_scale(c)] = max(ends.get(_scale(c), 0.0), reach)
    furthest = max(ends.values()) or 1.0
    axes.set(xlim=(-1.06, 1.06) if not of_pass else (-1.06 * furthest, 1.06 * furthest), ylim=(-height, 0))
    y = 0.0
    for entry, own in part:
        _head(axes, entry, y - HEAD / 2 - GAP)
        y -= HEAD + GAP
        axes.vlines(0, y, y - ROW * len(own), color="black", linewidth=0.9, zorder=1)
        for c in own:
            unit = 1.0 if of_pass else ends[_scale(c)] or 1.0
            _row(axes, c, y - ROW / 2, unit)
            y -= ROW
    axes.set_yticks([])
    axes.grid(axis="y", visible=False)
    axes.spines["left"].set_visible(False)
    if of_pass:
        axes.set_xlabel("difference in pass@k", fontsize=8.5)
    else:
        axes.set_xticks([0])
        axes.set_xlabel(
            "difference in other measures: each measure on a scale of its own, values at the right", fontsize=8.5
        )


def _scale(comparison: Comparison) -> tuple[str, str]:
    return comparison.metric, comparison.when if comparison.when in OWN_SCALE else ""


def measure(comparison: Comparison) -> str:
    """What is compared, in a word or two: the metric, or what is made of it."""
    return MEASURES.get(comparison.when, "{}").format(comparison.metric)


def _head(axes: Axes, entry: Entry, y: float) -> None:
    color = _LOOKS[_COLOURS.get(entry.verdict, entry.verdict)][0]
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 8, "clip_on": False}
    verdict = f"{SIGNS.get(entry.verdict, '?')} {entry.verdict}"
    if entry.p is not None:
        verdict += f", p = {entry.p:.2g}"
    left = -(LEFT - 0.012) / (RIGHT - LEFT)
    axes.axhspan(y - HEAD / 2, y + HEAD / 2, color="white", linewidth=0, zorder=0.5)  # no line runs through words
    words = textwrap.shorten(f"{entry.experiment}: {entry.claim.statement}", 106, placeholder=" ...")
    axes.text(left, y, words.replace("$", r"\$"), fontweight="bold", color="black", **place)
    right = 1 + (0.99 - RIGHT) / (RIGHT - LEFT)
    axes.text(right, y, verdict, ha="right", fontweight="bold", color=color, **place)


def _row(axes: Axes, c: Comparison, y: float, unit: float) -> None:
    color, marker, fill = _LOOKS.get(c.outcome, _LOOKS[UNDECIDED])
    if c.margin is not None:
        width = 2 * c.margin / unit
        axes.barh(y, width, ROW, left=-width / 2, color="#009E73", alpha=0.16, linewidth=0, zorder=0)
    effect = (c.effect or 0.0) / unit
    if c.low is not None and c.high is not None:
        axes.hlines(y, c.low / unit, c.high / unit, color=color, linewidth=1.7, zorder=2)
    face: dict[str, Any] = {"markerfacecolor": "white"} if fill == "none" else {}
    axes.plot(effect, y, marker, color=color, markersize=5.2, zorder=3, **face)
    place: dict[str, Any] = {"transform": axes.get_yaxis_transform(), "va": "center", "fontsize": 7.6, "clip_on": False}
    against = c.against.replace("num_rollouts", "N")
    left = f"{measure(c)} against " if c.task == "all" else f"{_cut(c.task, 12)}: {measure(c)} vs "
    left += _cut(against, max(6, LETTERS - len(left)))
    axes.text(-0.015, y, left.replace("$", r"\$"), ha="right", **place)
    digits = 3 if max(abs(v) for v in (c.effect, c.low, c.high) if v is not None) < 1 else 2
    limits = f" [{c.low:+.{digits}f}, {c.high:+.{digits}f}]" if c.low is not None and c.high is not None else ""
    axes.text(1.015, y, f"{c.effect:+.{digits}f}{limits}", ha="left", **place)
    axes.text(1 + (0.99 - RIGHT) / (RIGHT - LEFT), y, f"{c.seeds} seed{'s' * (c.seeds != 1)}", ha="right", **place)


def _cut(text: str, letters: int) -> str:
    return text if len(text) <= letters else f"{text[: letters - 1].rstrip()}…"


def _legend(figure: Figure, total: float) -> None:
    handles: list[Line2D | Patch] = []
    for word, (color, marker, fill) in _LOOKS.items():
        face: dict[str, Any] = {"markerfacecolor": "white"} if fill == "none" else {}
        handles.append(Line2D([], [], color=color, marker=marker, linewidth=1.7, markersize=5.2, label=word, **face))
    handles.append(Patch(color="#009E73", alpha=0.16, linewidth=0, label="within the margin"))
    place: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (0.005, 1 - 0.04 / total), "frameon": False}
    figure.legend(handles=handles, ncols=6, fontsize=8.5, handlelength=2.2, columnspacing=1.4, **place)
    note = (
        "Rows: 95 % interval of each comparison by itself, over seeds and (final pass@k) held-out instances, tasks "
        "averaged unless one is named.\n"
        "Words at the right of a claim: its verdict after Holm's correction over all claims of the profile."
    )
    figure.text(0.012, 0.1 / total, note, fontsize=7.5, color=GREY, va="bottom")


def _caption(entries: Sequence[Entry], left_out: int) -> str:
    counts = Counter(entry.verdict for entry in entries)
    told = ", ".join(f"{counts[word]} {word}" for word in SIGNS if counts[word])
    seeds = [c.seeds for entry in entries for c in entry.claim.comparisons]
    span = f"{min(seeds)}" if min(seeds) == max(seeds) else f"{min(seeds)} to {max(seeds)}"
    rest = f" {left_out} claims are in claims.csv alone." if left_out else ""
    if any(c.first is not None for entry in entries for c in entry.claim.comparisons):
        rest = f" {AT_EVERY_LOOK}{rest}"
    return (
        f"All claims ({told}): each comparison's paired difference with its 95 % interval, {span} seeds. Triangles up "
        "are better in the claim's sense, down worse, squares practically equal (inside the margin, shaded), circles "
        "undecided. Intervals of the last evaluation's pass@k are over seeds and held-out instances, of all else over "
        f"seeds; tasks are averaged, as independent, unless a row names one.{rest}"
    )


def _alt(entries: Sequence[Entry]) -> str:
    return f"Forest plot of {len(entries)} claims: effects with intervals, margins, verdicts and numbers of seeds."
