"""Figures of coverage: pass@k against k with the samples saved, and pass@1 against pass@k with the Pareto frontier."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.style import (
    GREY,
    Drawing,
    NotDrawable,
    finish,
    label_x,
    label_y,
    line,
    listed,
    power_ticks,
    seeds_of,
    series_by_panel,
    small_multiples,
)

REFERENCE, CHALLENGER = "grpo", "maxrl"  # names (or how they begin) of the objectives whose samples are compared


class Saving(NamedTuple):
    """Samples saved at equal coverage: theirs with k samples, ours with k / factor; see stats.samples_saved."""

    ours: Series
    theirs: Series
    k: int
    largest: int  # the largest k of the curves
    coverage: float
    factor: stats.Estimate

    def words(self) -> str:
        """ "2.3x [1.9x, 2.8x]", with > and < where a limit is censored."""
        value, low, high = (self._bound(v) for v in self.factor[:3])
        if np.isnan(self.factor.low):
            return value
        return f"{value} [{low}, {high}]" + ", unclear" * (not self.clear)

    @property
    def clear(self) -> bool:
        """Whether the interval, if there is one, leaves no doubt on which side of 1 the factor is."""
        return not self.factor.low <= 1 <= self.factor.high

    def _bound(self, value: float) -> str:
        if value == np.inf:
            return f">{self.k}x"
        return f"{value:.2g}x" if value > 0 else f"<{self.k / self.largest:.2g}x"


def final_pass_curves(evidence: Evidence, runs: list[str]) -> np.ndarray:
    """Final pass@k at evidence.ks: [S, I, X] where the pass-rate table holds it, else [S, X]."""
    instances = evidence.instance_pass_at_k(runs, evidence.ks)
    if instances is not None:
        return instances
    return np.stack([evidence.scores(runs, f"pass@{k}") for k in evidence.ks], axis=-1)


def saving(evidence: Evidence, panel: Panel, series: list[Series]) -> Saving | None:
    """The samples that the first MaxRL series saves over the first GRPO one at the latter's pass@high_k."""
    ours = next((s for s in series if s.objective_name.startswith(CHALLENGER)), None)
    theirs = next((s for s in series if s.objective_name.startswith(REFERENCE)), None)
    if ours is None or theirs is None or evidence.high_k == 1:
        return None
    groups = evidence.in_common([evidence.members(s, panel) for s in (ours, theirs)])
    if not groups[0]:
        return None
    curves = [final_pass_curves(evidence, runs) for runs in groups]
    k, ks = evidence.high_k, np.array(evidence.ks, np.float64)
    means = [c.reshape(-1, len(ks)).mean(axis=0) for c in curves]
    limits = stats.saving_limits(ks, curves[0], curves[1], k)
    factor = stats.Estimate(float(stats.samples_saved(ks, means[0], means[1], k)), *limits, len(curves[0]))
    return Saving(ours, theirs, k, max(evidence.ks), float(means[1][evidence.ks.index(k)]), factor)


def coverage(evidence: Evidence) -> Drawing:
    """Final pass@k against k, with the factor of samples saved at equal coverage."""
    ks = evidence.ks
    if len(ks) < 2:
        raise NotDrawable("the tables hold pass@k for one k only")
    shown, look = series_by_panel(evidence)
    figure, axes = small_multiples(shown, 1, height=2.7)
    savings: dict[str, Saving] = {}
    for (panel, present), (ax,) in zip(shown.items(), axes, strict=True):
        for offset, series in enumerate(present):
            runs = evidence.members(series, panel)
            values = np.stack([evidence.curves(runs, f"pass@{k}")[1][:, -1] for k in ks], axis=1)
            line(ax, np.array(ks), stats.curve(values), look[series], offset)
        saved = saving(evidence, panel, present)
        power_ticks(ax, ks)
        # Under the axis, where no line can run through it.
        ax.set_xlabel("k, rollouts per instance" + (f"\n{_told(saved)}" if saved else ""))
        if saved:
            if saved.clear:
                _mark_saving(ax, saved, min(ks))
            savings[panel.title] = saved
        label_y(ax, "pass@k")
    seeds = seeds_of(evidence, shown)
    over = "seeds and held-out instances" if _has_instances(evidence) else "seeds"
    doubted = any(not np.isnan(saved.factor.low) for saved in savings.values())
    note = f"Lines: mean over {seeds.number} after training. Bands: {seeds.note}"
    figure.align_ylabels()
    finish(figure, note + (f"; of the samples saved: over {over}." if doubted else "."), look)
    caption = (
        f"Coverage: the share of held-out instances that at least one of k rollouts solves after training, mean over "
        f"{seeds.number} {seeds.intervals}. A line that starts high but stays flat has lost variety."
    )
    pairs = {(saved.ours.label, saved.theirs.label): saved.k for saved in savings.values()}
    for (ours, theirs), k in pairs.items():
        parts = [
            f"{title} {saved.words()}"
            for title, saved in savings.items()
            if (saved.ours.label, saved.theirs.label) == (ours, theirs)
        ]
        caption += (
            f" Arrows, where it is clear: for the coverage of {theirs} with k = {k}, {ours} needs so many times fewer "
            f"samples (below 1: more; < and >: beyond the measured k{f'; intervals over {over}' if doubted else ''}): "
            f"{listed(parts)}."
        )
    return Drawing(figure, caption, "Line plots of final pass@k against k on a log axis, one panel per task.")


def _told(saved: Saving) -> str:
    return f"saves {saved.words()}" if saved.clear else "saving unclear"


def _has_instances(evidence: Evidence) -> bool:
    return all(evidence.instance_rates([run]) is not None for run in evidence.runs)


def _mark_saving(ax: Axes, saved: Saving, lowest: int) -> None:
    end = (
        saved.k / saved.factor.value
        if 0 < saved.factor.value < np.inf
        else (lowest if saved.factor.value else saved.largest)
    )
    ax.annotate(
        "",
        xy=(end, saved.coverage),
        xytext=(saved.k, saved.coverage),
        arrowprops={"arrowstyle": "->", "color": "black", "linewidth": 1.1, "shrinkA": 0, "shrinkB": 0},
    )


def best_checkpoint_scores(evidence: Evidence, runs: list[str], k: int) -> np.ndarray:
    """[S, 2]: pass@1 and pass@k at the evaluation of each run where their mean is highest."""
    _, pass_1 = evidence.curves(runs, "pass@1")
    _, pass_k = evidence.curves(runs, f"pass@{k}")
    best = (pass_1 + pass_k).argmax(axis=1)
    rows = np.arange(len(runs))
    return np.stack([pass_1[rows, best], pass_k[rows, best]], axis=1)


def pareto(evidence: Evidence) -> Drawing:
    """pass@1 against pass@k at the final and the best checkpoints, with the non-dominated frontier."""
    k = evidence.high_k
    if k == 1 or 1 not in evidence.ks:
        raise NotDrawable("the tables hold no pass@1, or no pass@k beside it")
    shown, look = series_by_panel(evidence)
    figure, axes = small_multiples(shown, 2, height=2.6)
    fronts: dict[str, list[str]] = {"final": [], "best": []}
    for (panel, present), column in zip(shown.items(), axes, strict=True):
        for when, ax in zip(fronts, column, strict=True):
            means = []
            for series in present:
                runs = evidence.members(series, panel)
                if when == "best":
                    points = best_checkpoint_scores(evidence, runs, k)
                else:
                    points = np.stack([evidence.curves(runs, m)[1][:, -1] for m in ("pass@1", f"pass@{k}")], axis=1)
                mean, low, high = stats.curve(points)
                means.append(mean)
                ax.plot(
                    *points.T, look[series]["marker"], color=look[series]["color"], alpha=0.3, markersize=2.5, zorder=2
                )
                if len(points) >= stats.FEWEST_SEEDS:
                    ax.hlines(mean[1], low[0], high[0], color=look[series]["color"], linewidth=1.2, zorder=3)
                    ax.vlines(mean[0], low[1], high[1], color=look[series]["color"], linewidth=1.2, zorder=3)
                ax.plot(
                    *mean,
                    look[series]["marker"],
                    color=look[series]["color"],
                    markersize=7.5,
                    markeredgecolor="white",
                    zorder=4,
                )
            front = stats.non_dominated(np.array(means))
            _draw_front(ax, np.array(means)[front])
            fronts[when].append(
                f"{panel.title}: {', '.join(s.label for s, on in zip(present, front, strict=True) if on)}"
            )
            label_y(ax, f"pass@{k}, {when} checkpoint")
        label_x(column, "pass@1")
    frontier = Line2D(
        [],
        [],
        color="black",
        linestyle=(0, (1, 1)),
        marker="o",
        markerfacecolor="none",
        markersize=10,
        linewidth=1.2,
        label="frontier; grey: dominated",
    )
    seeds = seeds_of(evidence, shown)
    note = f"Large: mean over {seeds.number}; small: single seeds. Crosses: {seeds.note}."
    figure.align_ylabels()
    finish(figure, note, {s: {**style, "linestyle": "none"} for s, style in look.items()}, [frontier])
    caption = (
        f"pass@1 against pass@{k}: up and to the right is better on both. Large markers are means over "
        f"{seeds.number} {seeds.intervals}, small ones single seeds. Rings and dotted line: the frontier, objectives "
        f"whose means no other beats on both axes. At the end: {listed(fronts['final'])}. At each run's best "
        f"evaluation (highest mean of the two axes, chosen with hindsight): {listed(fronts['best'])}."
    )
    return Drawing(figure, caption, f"Scatter plots of pass@1 against pass@{k}, one panel per task and checkpoint.")


def _draw_front(ax: Axes, front: np.ndarray) -> None:
    front = front[np.argsort(front[:, 0])]
    left, bottom = ax.get_xlim()[0], ax.get_ylim()[0]
    # The staircase under the front: everything below and to the left of it is dominated.
    xs = np.concatenate([[left], np.repeat(front[:, 0], 2)])
    ys = np.concatenate([np.repeat(front[:, 1], 2), [bottom]])
    limits = ax.get_xlim(), ax.get_ylim()
    ax.fill_between(xs, bottom, ys, color="#999999", alpha=0.10, linewidth=0, zorder=0)
    ax.plot(xs, ys, color="black", linestyle=(0, (1, 1)), linewidth=1.2, zorder=1)
    ax.plot(*front.T, "o", markerfacecolor="none", markeredgecolor=GREY, markersize=13, markeredgewidth=1, zorder=1)
    ax.set(xlim=limits[0], ylim=limits[1])
