"""The figure of an `Advice`: somebody's prompts, what more rollouts give them, and where gradients and gains go."""

from __future__ import annotations

from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from maxrl_bench.advice.effects import EASY, HARD, mixed, some_success
from maxrl_bench.advice.result import REACH, Advice
from maxrl_bench.report.palette import style_of
from maxrl_bench.report.style import GREY, WIDTH, Drawing, power_ticks, style

_MOST_ROLLOUTS = 12  # the figure goes to 2^12
# Of Okabe and Ito, dark to light: told apart in grey, too.
_CLASSES = (
    ("hard", f"p < {HARD:g}", "#0072B2"),
    ("middling", "between", "#56B4E9"),
    ("easy", f"p > {EASY:g}", "#F0E442"),
)


def draw_advice(advice: Advice) -> Drawing:
    """Pass rates, signal against N, and shares of the gradient and gains at the largest N."""
    at = advice.at[-1]
    with style():
        figure = Figure(figsize=(WIDTH, 3.2 + 0.24 * len(at.effects)), layout="constrained")
        parts: Any = figure.subfigures(2, 1, height_ratios=[2.6, 0.9 + 0.24 * len(at.effects)])
        rates, signal = parts[0].subplots(1, 2)
        shares, gains = parts[1].subplots(1, 2, sharey=True)
        _rates(rates, advice)
        _signal(signal, advice)
        names = [one.objective.label for one in at.effects]
        places = np.arange(len(names))
        left = np.zeros(len(names))
        for name, where, color in _CLASSES:
            widths = np.nan_to_num([getattr(one, name) for one in at.effects])
            shares.barh(places, widths, left=left, color=color, edgecolor="white", label=f"{name} ({where})")
            left = left + widths
        shares.set(xlim=(0, 1), xlabel="share of the expected gradient")
        shares.set_yticks(places, names)
        shares.invert_yaxis()
        shares.grid(visible=False)
        shares.set_title(f"Who gets the gradient, N = {at.num_rollouts}", loc="left", fontweight="bold", pad=20)
        shares.legend(frameon=False, ncols=3, loc="lower left", bbox_to_anchor=(0, 0.99), fontsize=7.5,
                      borderpad=0, handlelength=1, columnspacing=1)  # fmt: skip
        gains.barh(
            places, [one.gain for one in at.effects], color=[style_of(e.objective.name)["color"] for e in at.effects]
        )
        gains.grid(visible=False, axis="y")
        gains.set_xlabel("gain per length of a step (its own gradient: 1)")
        gains.set_title(f"Towards {advice.goal}", loc="left", fontweight="bold", pad=20)
        alt = (
            "Four panels: the distribution of pass rates; shares of prompts with a signal against the rollouts; "
            "shares of the gradient and gain per step of each objective."
        )
        return Drawing(figure, "What objectives do to these prompts.", alt)


def _rates(axes: Axes, advice: Advice) -> None:
    rates = advice.pass_rates
    p, shares = rates.rates[rates.support], rates.shares[rates.support]
    axes.step([0, *p, 1], [0, *np.cumsum(shares), 1], where="post", color="#0072B2", label="pass rate p")
    if rates.counts is not None:
        counted = np.sort(rates.counts.successes / rates.counts.attempts)
        share = np.arange(1, len(counted) + 1) / len(counted)
        axes.step(
            [0, *counted], [0, *share], where="post", color=GREY, linestyle="--", linewidth=1, label="K/n, as counted"
        )
        axes.lines[0].set_label("pass rate p, inferred")
    for edge in (HARD, EASY):
        axes.axvline(edge, color=GREY, linewidth=0.7, zorder=1)
    axes.set(xlim=(0, 1), ylim=(0, 1.02), xlabel="pass rate", ylabel="share of prompts at or below")
    axes.set_title("The prompts", loc="left", fontweight="bold")
    axes.legend(edgecolor="none", framealpha=1, fontsize=8, loc="lower right")


def _signal(axes: Axes, advice: Advice) -> None:
    rates, sizes = advice.pass_rates, [2**i for i in range(1, _MOST_ROLLOUTS + 1)]
    curves = (
        (some_success, "a success: P(K ≥ 1)", "#0072B2", "o", "-"),
        (mixed, "both outcomes: P(0 < K < N)", "#D55E00", "s", "--"),
    )
    for share, label, color, marker, line in curves:
        axes.plot(sizes, [rates.mean(share(rates.rates, n)) for n in sizes], color=color, marker=marker, linestyle=line,
                  markersize=4, label=label)  # fmt: skip
        limits = [rates.interval(share(rates.rates, n)) for n in sizes]
        if None not in limits:
            low, high = np.transpose(np.array(limits, np.float64))
            axes.fill_between(sizes, low, high, color=color, alpha=0.15, linewidth=0)
    for at in advice.at:
        axes.axvline(at.num_rollouts, color=GREY, linewidth=0.7, zorder=1)
    axes.axhline(REACH, color=GREY, linewidth=0.7, linestyle=":", zorder=1)
    power_ticks(axes, sizes)
    axes.set(ylim=(0, 1.02), xlabel="rollouts N", ylabel="share of prompts")
    axes.set_title("Who gives any signal", loc="left", fontweight="bold")
    axes.legend(frameon=False, fontsize=8, loc="lower right")
