"""Figures of single instances: how hard they are at the start, and how much gradient each of them gets."""

from __future__ import annotations

import numpy as np
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series
from maxrl_bench.report.style import (
    GREY,
    Drawing,
    NotDrawable,
    count_seeds,
    finish,
    footnote,
    label_y,
    line,
    listed,
    seeds_of,
    series_by_panel,
    small_multiples,
)

BASE = (  # settings that change the base policy, or what is measured of it
    "warm_start_steps", "warm_start_batch_size", "warm_start_learning_rate", "policy", "device", "dtype",
    "eval_instances", "eval_split", "eval_rollouts",
)  # fmt: skip
DECADES = 4  # pass rates below 10^-4 share the lowest bin


def initial_pass_rates(evidence: Evidence) -> Drawing:
    """How the pass rates of the held-out instances are distributed before training."""
    import seaborn  # loads pyplot, which nothing else here needs

    panels = evidence.panels([setting for setting in evidence.varied if setting in BASE])
    figure, axes = small_multiples(panels, 1, height=2.4)
    edges = np.linspace(-DECADES, 0, 2 * DECADES + 1)
    words: list[str] = []
    counts: dict[str, dict[str, int]] = {}
    for panel, (ax,) in zip(panels, axes, strict=True):
        # All objectives of a seed start from one policy: one run per seed holds it.
        first: dict[int, str] = {}
        for series in evidence.series(panel):
            for run in evidence.members(series, panel):
                first.setdefault(evidence.runs[run]["seed"], run)
        runs = [first[seed] for seed in sorted(first)]
        stored = evidence.instance_rates(runs, "start")
        if stored is None:
            ax.text(0.5, 0.5, "no pass rates of step 0", transform=ax.transAxes, ha="center", color=GREY)
            continue
        rates, n = stored
        counts[panel.title] = {"base policy": len(runs)}
        exponents = np.log10(np.clip(rates, 10.0**-DECADES, 1))
        shares = np.stack([np.histogram(row, edges)[0] / len(row) for row in exponents])
        seaborn.histplot(
            x=exponents.ravel(), bins=list(edges), stat="proportion", ax=ax, color="#7f9fbf", edgecolor="white", alpha=1
        ).set(xlabel="pass rate at step 0", ylabel="")
        mean, low, high = stats.curve(shares)
        if len(runs) >= stats.FEWEST_SEEDS:
            ax.errorbar(
                (edges[:-1] + edges[1:]) / 2, mean, np.clip([mean - low, high - mean], 0, None),
                fmt="none", ecolor="black", elinewidth=1, capsize=2,
            )  # fmt: skip
        middle = float(np.median(rates))
        ax.axvline(np.log10(max(middle, 10.0**-DECADES)), color="black", linestyle="--", linewidth=1.2)
        none = f", {np.mean(rates == 0):.0%} without a success among {n}" if n else ""
        words.append(f"{panel.title} mean {rates.mean():.2g}, median {middle:.2g}{none}")
        ax.xaxis.set_major_locator(FixedLocator(range(-DECADES, 1)))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda e, _: ("≤" if e == -DECADES else "") + _decade(e)))
        ax.grid(axis="x", visible=False)
        label_y(ax, "share of instances")
    if not counts:
        raise NotDrawable("the pass-rate table holds no rows of the first evaluation")
    seeds = count_seeds(counts)
    footnote(figure, f"Mean over {seeds.number}. Whiskers: {seeds.note}. Dashed: median instance.")
    caption = (
        f"How hard the held-out instances are before training: share of instances per pass rate, mean over "
        f"{seeds.number} {seeds.intervals}. Objectives differ most on instances far to the left. "
        f"{listed(words)}."
    )
    return Drawing(figure, caption, "Histograms of initial pass rates on a log axis, one panel per task.")


def gradient_norms(evidence: Evidence) -> Drawing:
    """Per-instance gradient norm against the instance's pass rate (the paper's Fig. 6)."""
    if "grad_norm" not in evidence.pass_rates or not evidence.pass_rates["grad_norm"].notna().any():
        raise NotDrawable("the pass-rate table has no column grad_norm")
    shown, look = series_by_panel(evidence)
    pairs_of: dict[Panel, dict[Series, list[tuple[np.ndarray, np.ndarray]]]] = {}
    for panel, present in shown.items():
        for series in present:
            pairs = [evidence.per_instance([run], "grad_norm") for run in evidence.members(series, panel)]
            stored = [pair for pair in pairs if pair is not None]
            if stored:
                pairs_of.setdefault(panel, {})[series] = stored
    centres = np.linspace(-DECADES, 0, 2 * DECADES + 1)[:-1] + 0.25
    figure, axes = small_multiples(pairs_of, 1, height=2.7)
    hard = []
    for (panel, lines), (ax,) in zip(pairs_of.items(), axes, strict=True):
        shares = []
        for offset, (series, runs) in enumerate(lines.items()):
            means = np.stack([_binned(rates, norms) for rates, norms in runs])
            whole = ~np.isnan(means).any(axis=0)
            line(ax, 10 ** centres[whole], stats.curve(means[:, whole]), look[series], offset)
            parts = [norms[rates <= 0.1].sum() / norms.sum() for rates, norms in runs if norms.sum() > 0]
            shares.append(f"{series.label} {np.mean(parts):.0%}" if parts else f"{series.label} no gradient")
        ax.set_xscale("log")
        ax.set_xlim(10.0**-DECADES, 1.2)
        ax.set_xlabel("pass rate of the instance")
        ax.xaxis.set_major_locator(FixedLocator([10.0**e for e in range(-DECADES, 1)]))
        ax.xaxis.set_minor_locator(NullLocator())
        ax.xaxis.set_major_formatter(FuncFormatter(lambda value, _: _decade(np.log10(value))))
        label_y(ax, "gradient norm")
        hard.append(f"{panel.title}: {', '.join(shares)}")
    seeds = seeds_of(evidence, pairs_of)
    finish(figure, f"Mean over {seeds.number} within half decades of pass rate. Bands: {seeds.note}.", look)
    caption = (
        f"Norm of each instance's gradient against its pass rate, before and after training, mean over {seeds.number} "
        f"{seeds.intervals}, within half decades: high on the left is learning from hard instances. Share of the "
        f"summed norm on instances with a pass rate of at most 0.1: {listed(hard)}."
    )
    return Drawing(figure, caption, "Line plots of per-instance gradient norm against pass rate, one panel per task.")


def _decade(exponent: float) -> str:
    """A power of ten for a narrow axis."""
    return f"$10^{{{exponent:.0f}}}$" if exponent < -0.5 else "1"


def _binned(rates: np.ndarray, norms: np.ndarray) -> np.ndarray:
    """Mean norm per half decade of pass rate, the lowest open below; NaN where no instance falls."""
    exponents = np.log10(np.clip(rates, 10.0**-DECADES, 1))
    bins = np.clip(np.floor(2 * (exponents + DECADES)).astype(int), 0, 2 * DECADES - 1)
    counts = np.bincount(bins, minlength=2 * DECADES)
    totals = np.bincount(bins, norms, minlength=2 * DECADES)
    return np.where(counts > 0, totals / np.maximum(counts, 1), np.nan)
