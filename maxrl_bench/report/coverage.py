"""Coverage: pass@k against k, with the samples saved, and its difference to a reference objective."""

from __future__ import annotations

import textwrap
from typing import NamedTuple

import numpy as np
from matplotlib.axes import Axes

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.reference import difference, pairs, reference, seeds_in
from maxrl_bench.report.style import (
    UNPAIRED,
    Drawing,
    NotDrawable,
    count_seeds,
    end_at_rates,
    finish,
    further,
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
        """ "2.3x [1.9x, 2.8x]"; where a number is beyond the measured k, in words which bound it is."""
        value, low, high = (self._bound(v) for v in self.factor[:3])
        why = ""
        if self.factor.value == np.inf:
            why = f" (one sample of {self.ours.label} covers more)"
        elif self.factor.value == 0:
            why = f" ({self.ours.label} does not get there with {self.largest:,} samples)"
        bounded = not 0 < self.factor.value < np.inf and value == low == high
        both = "all of the interval" if bounded else f"{low}, {high}"
        limits = "" if np.isnan(self.factor.low) else f" [{both}]" + ", unclear" * (not self.clear)
        return f"{value}{limits}{why}"

    @property
    def clear(self) -> bool:
        """Whether the interval, if there is one, leaves no doubt on which side of 1 the factor is."""
        return not self.factor.low <= 1 <= self.factor.high

    def _bound(self, value: float) -> str:
        if value == np.inf:
            return f"more than {self.k}x"
        return f"{_two_digits(value)}x" if value > 0 else f"less than {_two_digits(self.k / self.largest)}x"


def _two_digits(value: float) -> str:
    return f"{float(f'{value:.2g}'):g}"  # 110, not 1.1e+02


def saving(evidence: Evidence, panel: Panel, series: list[Series]) -> Saving | None:
    """The samples that the first MaxRL series saves over the first GRPO one at the latter's pass@high_k."""
    ours = next((s for s in series if s.objective_name.startswith(CHALLENGER)), None)
    theirs = next((s for s in series if s.objective_name.startswith(REFERENCE)), None)
    if ours is None or theirs is None or evidence.high_k == 1:
        return None
    groups = evidence.in_common([evidence.members(s, panel) for s in (ours, theirs)])
    if not groups[0]:
        return None
    curves = [evidence.final_pass_curves(runs) for runs in groups]
    k, ks = evidence.high_k, np.array(evidence.ks, np.float64)
    means = [c.reshape(-1, len(ks)).mean(axis=0) for c in curves]
    limits = stats.saving_limits(ks, curves[0], curves[1], k)
    factor = stats.Estimate(float(stats.samples_saved(ks, means[0], means[1], k)), *limits, len(curves[0]))
    return Saving(ours, theirs, k, max(evidence.ks), float(means[1][evidence.ks.index(k)]), factor)


def coverage(evidence: Evidence) -> Drawing:
    """Final pass@k against k, with the factor of samples saved at equal coverage, and the paired difference below."""
    ks = evidence.ks
    if len(ks) < 2:
        raise NotDrawable("the tables hold pass@k for one k only")
    shown, look = series_by_panel(evidence)
    to = reference(evidence, shown)
    paired = pairs(evidence, shown, to)
    figure, axes = small_multiples(shown, 2 if paired else 1, height=2.4)
    savings: dict[str, Saving] = {}
    for (panel, present), (ax, *below) in zip(shown.items(), axes, strict=True):
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
        end_at_rates(ax)
        for second in below:
            for series, groups in paired.get(panel, {}).items():
                both = [evidence.final_pass_curves(runs) for runs in groups]
                values = difference(both[0], both[1], points=1)
                line(second, np.array(ks), stats.curve(values), look[series], present.index(series))
            if to is None or panel not in paired:
                second.set_axis_off()
                continue
            second.axhline(0, color=look[to]["color"], linewidth=1, zorder=1)
            power_ticks(second, ks)
            second.set_xlabel("k, rollouts per instance")
            label_y(second, f"pass@k\nminus {to.label}")
    seeds = seeds_of(evidence, shown)
    over = "seeds and held-out instances" if _has_instances(evidence) else "seeds"
    doubted = any(not np.isnan(saved.factor.low) for saved in savings.values())
    note = f"Lines: mean over {seeds.number} after training. Bands: {seeds.note}, {UNPAIRED}"
    note += f"; of the samples saved: over {over}." if doubted else "."
    if paired and to:
        common = count_seeds(seeds_in(paired)).over(over)
        note += f" {further(figure)}: minus {to.label}, paired; bands: {common.note}."
    figure.align_ylabels()
    finish(figure, note, look)
    caption = (
        f"Coverage: the share of held-out instances that at least one of k rollouts solves after training, mean over "
        f"{seeds.number} {seeds.intervals}. A line that starts high but stays flat has lost variety."
    )
    if paired and to:
        caption += f" {further(figure)}: the difference to {to.label}, paired, over the {common.number} that both "
        caption += f"have, {common.intervals}."
    compared = {(saved.ours.label, saved.theirs.label): saved.k for saved in savings.values()}
    for (ours, theirs), k in compared.items():
        parts = [
            f"{title} {saved.words()}"
            for title, saved in savings.items()
            if (saved.ours.label, saved.theirs.label) == (ours, theirs)
        ]
        caption += (
            f" Arrows, where it is clear: for the coverage of {theirs} with k = {k}, {ours} needs so many times fewer "
            f"samples (below 1: more{f'; intervals over {over}' if doubted else ''}): "
            f"{listed(parts)}."
        )
    return Drawing(figure, caption, "Line plots of final pass@k against k on a log axis, one panel per task.")


def _told(saved: Saving) -> str:
    """Under the axis, in lines of a panel's width."""
    if not saved.clear:
        return "saving unclear"
    return "\n".join(textwrap.wrap(f"saves {saved.words()}", 34))


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
