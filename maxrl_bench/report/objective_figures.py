"""Figures of the objectives themselves: population weights, bias and variance, rollouts needed. No run is needed.

Every curve is exact (see `population`). Each function but `draw_card` writes NAME.png to a folder, byte
for byte the same.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import MaxNLocator

from maxrl_bench.objectives.formula import Objective, maxrl_weight
from maxrl_bench.objectives.population import Scores, least_second_moment, order_within, second_moment
from maxrl_bench.objectives.table import bind
from maxrl_bench.report import theory
from maxrl_bench.report.palette import style_of
from maxrl_bench.report.style import GREY, WIDTH, Drawing, power_ticks, save, style

_CURVE: dict[str, Any] = {"markeredgecolor": "white", "markeredgewidth": 0.5}
# A white outline, for text over curves.
_CLEAR: dict[str, Any] = {"path_effects": [withStroke(linewidth=2.5, foreground="white")], "zorder": 4}
_ORDERS = (1, 2, 4, 8, 16, 32, 64, 128)
_NOISIEST = 300  # where the axis of the noise over the least ends
_GRPO_ROLLOUTS = (4, 16, 64, 256)
_COMPARED = ("reinforce", "rloo", "grpo", "maxrl_eq9", "maxrl_eq10", "maxrl_alg1", "maxrl_order_loo", "pkpo_loo")


def _compared(num_rollouts: int, names: Sequence[str] = _COMPARED) -> list[Objective]:
    """The named objectives, of full order where they have one, and with k = 4."""
    knobs = {
        "maxrl_order_loo": {"order": num_rollouts},
        "pkpo_loo": {"k": 4},
        "pass_at_k_training": {"k": 4},
    }
    return [bind(name, num_rollouts, **knobs.get(name, {})) for name in names]


def _pass_rates(low: float, high: float, points: int = 81) -> np.ndarray:
    """Pass rates that are evenly spaced in the log-odds, so that both ends can be seen."""
    odds = np.linspace(math.log(low / (1 - low)), math.log(high / (1 - high)), points)
    return 1 / (1 + np.exp(-odds))


def _curve(
    axes: Axes, x: np.ndarray, y: np.ndarray, name: str, label: str, offset: int, rank: float | None = None
) -> None:
    spacing = max(4, len(x) // 6)  # markers begin at different points, so that equal curves can all be seen
    axes.plot(x, y, **style_of(name, rank), **_CURVE, label=label, markevery=(3 * offset % spacing, spacing))


def _maximum_likelihood(axes: Axes, p: np.ndarray, label: str = "Exact ML, 1/p") -> None:
    axes.plot(p, 1 / p, color="black", linewidth=1.2, label=label, zorder=1)


def _weight_axes(axes: Axes, title: str, low: float, high: float) -> None:
    axes.set(xscale="log", yscale="log", xlabel="pass rate p", ylim=(low, high))
    axes.set_title(title, loc="left", fontweight="bold")


def weights(folder: Path) -> Path:
    """The population weights w(p) (the paper's figure 1), and what finitely many rollouts make of them."""
    p = _pass_rates(3e-4, 0.995)
    with style():
        figure = Figure(figsize=(WIDTH, 4.6), layout="constrained")
        orders, grpo, sixteen = figure.subplots(1, 3, sharey=True)
        _maximum_likelihood(orders, p)
        for i, order in enumerate(_ORDERS):
            look = style_of("maxrl_order", i / (len(_ORDERS) - 1))
            orders.plot(p, maxrl_weight(p, order), color=look["color"])
            orders.annotate(
                f"T = {order}", (p[0], order), (2, 4), textcoords="offset points", fontsize=7.5, color=GREY, **_CLEAR
            )
        orders.plot(p, 1 / np.sqrt(p * (1 - p)), color=style_of("grpo")["color"], linestyle="--", label="GRPO, N = ∞")
        orders.plot([], [], color=style_of("maxrl_order")["color"], label="MaxRL of order T")
        _weight_axes(orders, "From RL (T = 1) to ML", 0.3, 3500)
        orders.set_ylabel("population weight w(p)")
        _maximum_likelihood(grpo, p)
        for i, n in enumerate(_GRPO_ROLLOUTS):
            exact = bind("grpo", n).population_weight(p)
            _curve(grpo, p, exact, "grpo", f"GRPO, N = {n}, exact", i, i / (len(_GRPO_ROLLOUTS) - 1))
            grpo.lines[-1].set(marker="^sDo"[i], linestyle="-")
        grpo.plot(p, 1 / np.sqrt(p * (1 - p)), color=GREY, linestyle="--", label="GRPO, N = ∞")
        _weight_axes(grpo, "GRPO at N rollouts", 0.3, 3500)
        _maximum_likelihood(sixteen, p)
        names = ("rloo", "grpo", "f_grpo", "maxrl_alg1", "pkpo_loo", "pass_at_k_training")
        for i, objective in enumerate(_compared(16, names)):
            _curve(sixteen, p, objective.population_weight(p), objective.name, objective.label, i)
        _weight_axes(sixteen, "Six objectives, 16 rollouts, exact", 0.3, 3500)
        for axes in (orders, grpo, sixteen):
            axes.legend(frameon=False, fontsize=8, loc="upper right", handlelength=3)
        alt = (
            "Three log-log panels of weight against pass rate. MaxRL rises from flat (order 1) towards 1/p (order 128)."
        )
        return save(
            Drawing(figure, "What each objective weighs an instance of pass rate p by.", alt), folder / "weights"
        )


def _bias_and_variance(axes: np.ndarray, x: np.ndarray, table: Sequence[Sequence[tuple[Objective, float]]]) -> None:
    """One column of panels: share of ML's weight, noise, noise over the least. One row of the table per objective."""
    for i, points in enumerate(table):
        objective = points[0][0]
        share = np.array([p * float(o.population_weight(np.array(p))) for o, p in points])
        noise = np.array([second_moment(o, Scores(p)) for o, p in points])
        least = np.array([least_second_moment(o, p) for o, p in points])
        for row, values in enumerate((share, noise, noise / least)):
            _curve(axes[row], x, values, objective.name, objective.label, i)
    axes[0].axhline(1, color="black", linewidth=1.2, zorder=1)
    for row in axes:
        row.set(xscale="log", yscale="log")


def _three_rows(titles: Sequence[str], xlabel: str) -> tuple[Figure, np.ndarray]:
    figure = Figure(figsize=(WIDTH, 8.0), layout="constrained")
    axes = figure.subplots(3, len(titles), sharex=True, sharey="row")
    for column, title in zip(axes.T, titles, strict=True):
        column[0].set_title(title, loc="left", fontweight="bold")
        column[-1].set_xlabel(xlabel)
    axes[0, 0].set_ylabel("share of ML's weight, p w(p)\n(1: no bias)")
    axes[1, 0].set_ylabel("noise E|g|²\n(orthogonal scores of norm 1)")
    axes[2, 0].set_ylabel("noise, times the least\nany estimator of this w(p) has")
    axes[2, 0].set_ylim(0.9, _NOISIEST)
    return figure, axes


def _finish(figure: Figure, axes: np.ndarray) -> None:
    """One legend for all values of N, in which knobs that depend on N are written as formulas."""
    names = {"maxrl_order_loo": "MaxRL LOO T=N", "pkpo_loo": "PKPO-LOO k=4"}
    for line, name in zip(axes[0, 0].get_lines(), _COMPARED, strict=False):
        line.set_label(names.get(name, line.get_label()))
    handles = [line for line in axes[0, 0].get_lines() if not str(line.get_label()).startswith("_")]
    handles.append(Line2D([], [], color="black", linewidth=1.2, label="Exact ML"))
    figure.legend(handles=handles, loc="outside upper left", ncols=5, frameon=False, handlelength=3.2)
    note = (
        "Exact binomial sums. MaxRL (eq. 9), (eq. 10) and LOO have one and the same weight; so have REINFORCE and "
        f"RLOO. The last row is cut at {_NOISIEST}."
    )
    figure.supxlabel(note, fontsize=7.5, color=GREY, x=0.01, ha="left")


def bias_and_variance_by_pass_rate(folder: Path) -> Path:
    """Bias against maximum likelihood, and noise, as functions of the pass rate, at 8, 64 and 512 rollouts."""
    p, sizes = _pass_rates(1e-4, 0.99), (8, 64, 512)
    with style():
        figure, axes = _three_rows([f"{n} rollouts" for n in sizes], "pass rate p")
        for column, n in zip(axes.T, sizes, strict=True):
            _bias_and_variance(column, p, [[(objective, float(rate)) for rate in p] for objective in _compared(n)])
        axes[0, 0].set_ylim(1e-4, 12)
        axes[1, 0].set_ylim(1e-7, 5)
        _finish(figure, axes)
        alt = "Nine log-log panels; MaxRL's share of ML's weight reaches 1 above p = 1/N, with more noise at low p."
        return save(Drawing(figure, "Bias and noise against the pass rate.", alt), folder / "bias_variance_pass_rate")


def bias_and_variance_by_rollouts(folder: Path) -> Path:
    """Bias against maximum likelihood, and noise, as functions of the number of rollouts, at three pass rates."""
    sizes, rates = 2 ** np.arange(2, 13), (0.001, 0.03, 0.5)
    with style():
        figure, axes = _three_rows([f"pass rate {rate:g}" for rate in rates], "rollouts N")
        bound = [_compared(int(n)) for n in sizes]
        for column, rate in zip(axes.T, rates, strict=True):
            _bias_and_variance(column, sizes, [[(group[i], rate) for group in bound] for i in range(len(_COMPARED))])
        for row in axes.flat:
            power_ticks(row, sizes.tolist())
        _finish(figure, axes)
        alt = (
            "Nine log-log panels; only MaxRL's share of ML's weight approaches 1 as rollouts grow, at every pass rate."
        )
        return save(Drawing(figure, "Bias and noise against the rollouts.", alt), folder / "bias_variance_rollouts")


def rollouts_needed(folder: Path) -> Path:
    """How many rollouts bring MaxRL's weight within x % of maximum likelihood's, against the pass rate."""
    p = _pass_rates(1e-6, 0.95, 801)  # so many that the steps near p = 1 stand upright
    with style():
        figure = Figure(figsize=(WIDTH * 0.72, 4.6), layout="constrained")
        axes = figure.subplots()
        for i, tolerance in enumerate((0.5, 0.1, 0.01, 0.001)):
            need = order_within(tolerance, p)
            look = style_of("maxrl_eq9", 0.3 + 0.7 * i / 3)
            look |= {"marker": "osD^"[i], "linestyle": ("-", "--", "-.", ":")[i]}
            axes.plot(
                p, need, **look, **_CURVE, markevery=(30 * i, 160), label=f"within {tolerance:.1%}".replace(".0%", "%")
            )
        for n in (16, 128, 1024):
            axes.axhline(n, color=GREY, linewidth=0.7, zorder=1)
            axes.annotate(f"{n} rollouts", (1e-6, n), (0, 2), textcoords="offset points", fontsize=8, color=GREY)
        axes.set(xscale="log", yscale="log", xlabel="pass rate p", ylabel="rollouts N needed (eq. 9 and 10)")
        axes.set_title("How many rollouts make MaxRL maximum likelihood", loc="left", fontweight="bold")
        axes.legend(frameon=False, title="weight within x of 1/p", alignment="left")
        figure.supxlabel(
            "Exact: the least N with (1-p)^N ≤ x. Algorithm 1 needs one more. No number suffices for GRPO or RLOO.",
            fontsize=7.5,
            color=GREY,
            x=0.01,
            ha="left",
        )
        alt = "Log-log lines of slope -1: about 0.7/p rollouts bring MaxRL within 50 % of ML, 4.6/p within 1 %."
        return save(Drawing(figure, "Rollouts needed.", alt), folder / "rollouts_needed")


def _say(axes: Axes, text: str, height: float = 0.5) -> None:
    axes.annotate(text, (0.5, height), xycoords="axes fraction", ha="center", va="center", color=GREY, fontsize=9)


def _card_weights(axes: Axes, objective: Objective) -> None:
    n = objective.num_rollouts
    K = np.arange(n + 1) if n <= 200 else np.unique([0, *np.geomspace(1, n, 200).astype(int)])
    on_success, on_failure = objective.weights(K)
    success, failure = K > 0, n > K
    size = 4 if n <= 40 else 0
    color = style_of(objective.name)["color"]
    axes.plot(K[success], on_success[success], "o-", color=color, markersize=size, label="on success, s(K)")
    axes.plot(K[failure], on_failure[failure], "s--", color=GREY, markersize=size, label="on failure, f(K)")
    axes.axhline(0, color=GREY, linewidth=0.7, zorder=1)
    axes.set(xlabel=f"successes K among {n} rollouts", ylabel="weight of a rollout")
    axes.margins(y=0.15)  # room for the legend
    if not (on_success.any() or on_failure.any()):
        axes.set_ylim(-1, 1)
    axes.legend(frameon=False, fontsize=8)
    if n > 200:
        axes.set_xscale("symlog", linthresh=1)  # logarithmic, but for K = 0
        axes.set_xlim(-0.1, 1.2 * n)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))


def _card_population(axes: Axes, objective: Objective, p: np.ndarray) -> None:
    weight, limit, closed = objective.population_weight(p), objective.limit(p), objective.closed_form(p)
    _curve(axes, p, weight, objective.name, "this objective, exact", 0)
    if not weight.any():
        _say(axes, "w(p) = 0: learns nothing", 0.1)
    known = [1 / p] if closed is None else [1 / p, closed]
    if limit is not None and not any(np.allclose(limit, other) for other in known):
        axes.plot(p, limit, color=GREY, linestyle="--", label="its limit as N grows", zorder=1.5)


def _card_noise(axes: Axes, objective: Objective, p: np.ndarray) -> None:
    noise = np.array([second_moment(objective, Scores(float(rate))) for rate in p])
    least = np.array([least_second_moment(objective, float(rate)) for rate in p])
    if not noise.any():
        axes.set(xticks=[], yticks=[])
        return _say(axes, "none: learns nothing")
    _curve(axes, p, noise, objective.name, "this objective, exact", 0)
    axes.plot(p, least, color=GREY, linestyle="--", label="the least for this w(p)", zorder=1.5)
    axes.set(xscale="log", yscale="log", xlabel="pass rate p", ylabel="E|g|², orthogonal scores of norm 1")
    top = noise.max()
    axes.set_ylim(max(min(noise.min(), least.min()), 1e-6 * top) / 2, 30 * top)  # 30: room for the legend
    axes.legend(frameon=False, fontsize=8, loc="upper left")


def draw_card(objective: Objective) -> Drawing:
    """The figure beside a card: weights against K, population weight and noise against p."""
    p = _pass_rates(1e-4, 0.995)
    with style():
        figure = Figure(figsize=(WIDTH, 3.8), layout="constrained")
        counts, population, noise = figure.subplots(1, 3)
        _maximum_likelihood(population, p)
        if objective.is_likelihood or objective.row.pooled:
            for axes in (counts, noise):
                axes.set(xticks=[], yticks=[])
                _say(axes, "samples no rollouts" if objective.is_likelihood else "depends on the whole batch")
            if objective.row.pooled:
                _say(population, "none: depends on the whole batch", 0.1)
        else:
            _card_weights(counts, objective)
            _card_population(population, objective, p)
            _card_noise(noise, objective, p)
        _weight_axes(population, "Population weight w(p)", 0.05, 2e5)
        population.legend(frameon=False, fontsize=8, loc="upper right")
        counts.set_title("Weights", loc="left", fontweight="bold")
        noise.set_title("Noise", loc="left", fontweight="bold")
        title = objective.label if objective.is_likelihood else f"{objective.label}, {objective.num_rollouts} rollouts"
        figure.suptitle(f"{title}: {objective.row.paper}", x=0.01, ha="left", fontsize=10)
        alt = "Weights against counts of successes; population weight and noise against the pass rate."
        return Drawing(figure, objective.label, alt)


FIGURES = (weights, bias_and_variance_by_pass_rate, bias_and_variance_by_rollouts, rollouts_needed, *theory.FIGURES)


def draw_all(folder: Path) -> list[Path]:
    """Every figure of the objectives, into one folder."""
    return [draw(folder) for draw in FIGURES]
