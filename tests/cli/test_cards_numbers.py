"""The numbers of cards and of the objectives' figures, recomputed from weights alone: by sums over success counts."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from objective_cases import case_id, default_bound
from scipy.stats import binom

from maxrl_bench.cli import cards
from maxrl_bench.objectives.population import Scores, second_moment, variance
from maxrl_bench.objectives.table import Objective, bind
from maxrl_bench.report import objective_figures

COUNTED = [o for n in (1, 2, 7) for o in default_bound(n) if not (o.is_likelihood or o.row.pooled)]


def card(objective: Objective) -> dict[str, Any]:
    return json.loads(cards.card(objective.name, objective.num_rollouts, dict(objective.knobs), True, None))


def noise(objective: Objective, p: float) -> float:
    """E|g|^2 of g = (1/N) sum_j a_j S_j, whose scores are orthogonal and of norm 1: each rollout counts by itself."""
    n = objective.num_rollouts
    on_success, on_failure = objective.weights(np.arange(n + 1))
    K = np.arange(n + 1)
    return float(binom.pmf(K, n, p) @ (K * on_success**2 + (n - K) * on_failure**2)) / n**2


def least_noise(objective: Objective, p: float) -> float:
    """p (1-p) / N E[(s(J+1) - f(J))^2], J among the N - 1 others."""
    n = objective.num_rollouts
    on_success, on_failure = objective.weights(np.arange(n + 1))
    return p * (1 - p) / n * float(binom.pmf(np.arange(n), n - 1, p) @ (on_success[1:] - on_failure[:-1]) ** 2)


@pytest.mark.parametrize("objective", COUNTED, ids=case_id)
def test_second_moments_of_cards(objective: Objective) -> None:
    """At one rollout as well, where there are no others."""
    numbers = card(objective)
    rates = numbers["pass_rate"]
    np.testing.assert_allclose(numbers["second_moment"], [noise(objective, p) for p in rates], rtol=1e-9, atol=1e-300)
    np.testing.assert_allclose(
        numbers["least_second_moment"], [least_noise(objective, p) for p in rates], rtol=1e-9, atol=1e-300
    )
    n = objective.num_rollouts
    gaps = np.array(numbers["on_success"]) - np.array(numbers["on_failure"])
    weights = [binom.pmf(np.arange(n), n - 1, p) @ gaps for p in rates]
    np.testing.assert_allclose(numbers["weight"], weights, rtol=1e-9, atol=1e-12)


@pytest.mark.unbiased
@pytest.mark.parametrize("objective", COUNTED, ids=case_id)
def test_moments_of_a_coin(objective: Objective) -> None:
    """A policy of one logit, whose score is r - p: the mean and the square of every outcome, by its count."""
    n, p = objective.num_rollouts, 0.3
    K = np.arange(n + 1)
    on_success, on_failure = objective.weights(K)
    g = (K * on_success * (1 - p) - (n - K) * on_failure * p) / n
    chance = binom.pmf(K, n, p)
    coin = Scores(p, success=(1 - p) ** 2, failure=p**2, signal=(p * (1 - p)) ** 2)
    assert second_moment(objective, coin) == pytest.approx(chance @ g**2, rel=1e-9, abs=1e-14)
    assert variance(objective, coin) == pytest.approx(chance @ g**2 - (chance @ g) ** 2, rel=1e-8, abs=1e-12)


def test_limits_of_cards_are_what_many_rollouts_weigh() -> None:
    """And not what eight do, where the two differ: of at least the objectives named."""
    apart = set()
    for objective in default_bound(8):
        if objective.row.pooled:
            continue
        numbers = card(objective)
        if numbers["limit"] is None:
            continue
        chosen = [i for i, p in enumerate(numbers["pass_rate"]) if 0.05 < p < 0.95]
        rates, limit = np.array(numbers["pass_rate"])[chosen], np.array(numbers["limit"])[chosen]
        many = bind(objective.name, 20_000, **objective.knobs).population_weight(rates)
        np.testing.assert_allclose(limit, many, rtol=2e-3)
        if not np.allclose(limit, np.array(numbers["weight"])[chosen], rtol=0.02):
            apart.add(objective.name)
    assert {"mean_baseline", "grpo", "maxrl_eq9", "maxrl_alg1", "maxrl_uniform", "f_grpo"} <= apart


@pytest.mark.parametrize("name", ["grpo", "mean_baseline", "maxrl_alg1", "pkpo_loo"])
def test_effective_orders_of_cards(name: str) -> None:
    """The T for which MaxRL of order T weighs as much at p; none at or beyond maximum likelihood."""
    n, knobs = 12, {"k": 4} if name == "pkpo_loo" else {}
    numbers = card(bind(name, n, **knobs))
    known = 0
    for p, weight, order in zip(numbers["pass_rate"], numbers["weight"], numbers["effective_order"], strict=True):
        if order is None:
            assert p * weight >= 1 - 1e-8
        else:
            known += 1
            assert (1 - (1 - p) ** order) / p == pytest.approx(weight, rel=1e-6)
    assert known > 3


@pytest.mark.parametrize("name", ["grpo", "maxrl_eq10", "rloo"])
def test_tables_of_text_cards(name: str) -> None:
    objective = bind(name, 6)
    lines = cards.card(name, 6, {}, False, None).splitlines()
    start = next(i for i, line in enumerate(lines) if "successes K" in line)
    on_success, on_failure = objective.weights(np.arange(7))
    for K, line in enumerate(lines[start + 1 : start + 8]):
        count, success, failure = line.split()
        assert int(count) == K
        assert success == ("-" if K == 0 else f"{on_success[K]:.6g}")
        assert failure == ("-" if K == 6 else f"{on_failure[K]:.6g}")
    header = next(i for i, line in enumerate(lines) if "noise E|g|^2" in line)
    for line, p in zip(lines[header + 1 :], card(objective)["pass_rate"], strict=False):
        *_, moment, ratio = line.split()
        assert float(moment) == pytest.approx(noise(objective, p), rel=1e-3)
        assert float(ratio) == pytest.approx(noise(objective, p) / least_noise(objective, p), rel=1e-3)


@pytest.mark.parametrize("name", ["reinforce", "grpo", "maxrl_eq9", "maxrl_alg1"])
def test_population_tables_of_text_cards(name: str) -> None:
    """Every cell from the card's JSON; a difference is one in proportion to the closed form."""
    text, numbers = cards.card(name, 60, {}, False, None), card(bind(name, 60))
    lines = text.splitlines()
    header = next(i for i, line in enumerate(lines) if line.lstrip().startswith("pass rate p"))
    rows = list(zip(numbers["pass_rate"], numbers["weight"], numbers["effective_order"], strict=True))
    closed = numbers["closed_form"] or [None] * len(rows)
    for line, (p, weight, order), form in zip(lines[header + 1 :], rows, closed, strict=False):
        difference = "-" if form is None else f"{abs(weight - form) / form:.1e}"
        expected = [f"{p:.6g}", f"{weight:.8g}", "-" if form is None else f"{form:.8g}", difference]
        assert line.split()[:5] == [*expected, "-" if order is None else f"{order:.6g}"]


@pytest.mark.parametrize("name", ["mean_baseline", "grpo", "maxrl_alg1", "reinforce", "rloo", "ml"])
def test_cards_have_the_limit_that_the_closed_form_approaches(name: str) -> None:
    """Where a closed form holds for all N alike it is the limit; else the limit is that of many rollouts."""
    numbers = card(bind(name, 16))
    assert numbers["limit"] is not None
    pass_rate = np.array(numbers["pass_rate"])
    near = pass_rate * 200_000 > 1000  # where so many rollouts are many
    many = bind(name, 200_000).population_weight(pass_rate[near])
    np.testing.assert_allclose(np.array(numbers["limit"])[near], many, rtol=0.02)


@pytest.fixture
def drawings(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Figures as they would be written."""
    figures: list[Any] = []
    monkeypatch.setattr(objective_figures, "save", lambda drawing, path: figures.append(drawing.figure) or [path])
    return figures


@pytest.mark.parametrize("name", ["grpo", "maxrl_eq10", "maxrl_alg1"])
def test_figures_of_cards(name: str) -> None:
    objective = bind(name, 9)
    figure = objective_figures.draw_card(objective).figure
    counts, population, moments = figure.axes
    on_success, on_failure = objective.weights(np.arange(10))
    curves = {line.get_label(): line.get_data() for axes in figure.axes for line in axes.lines}
    np.testing.assert_allclose(curves["on success, s(K)"], [np.arange(1, 10), on_success[1:]])
    np.testing.assert_allclose(curves["on failure, f(K)"], [np.arange(9), on_failure[:-1]])
    p, weight = next(line.get_data() for line in population.lines if line.get_label() == "this objective, exact")
    gaps = on_success[1:] - on_failure[:-1]
    np.testing.assert_allclose(weight, [binom.pmf(np.arange(9), 8, x) @ gaps for x in p], rtol=1e-9)
    p, square = next(line.get_data() for line in moments.lines if line.get_label() == "this objective, exact")
    np.testing.assert_allclose(square, [noise(objective, x) for x in p], rtol=1e-9)
    p, least = next(line.get_data() for line in moments.lines if line.get_label() == "the least for this w(p)")
    np.testing.assert_allclose(least, [least_noise(objective, x) for x in p], rtol=1e-9)
    assert "successes" in counts.get_xlabel()
    if name != "maxrl_eq10":  # whose limit is the line of maximum likelihood
        assert ("its limit as N grows" in curves) == (name == "grpo")
    if name == "grpo":
        p, limit = curves["its limit as N grows"]
        np.testing.assert_allclose(limit, 1 / np.sqrt(p * (1 - p)))


BIAS_AND_VARIANCE = {
    objective_figures.bias_and_variance_by_pass_rate: [("rollouts", n) for n in (8, 64, 512)],
    objective_figures.bias_and_variance_by_rollouts: [("rate", p) for p in (0.001, 0.03, 0.5)],
}
NAMES = {"REINFORCE": "reinforce", "RLOO": "rloo", "GRPO": "grpo", "MaxRL (Alg. 1)": "maxrl_alg1",
         "MaxRL (eq. 9)": "maxrl_eq9", "MaxRL (eq. 10)": "maxrl_eq10"}  # fmt: skip


@pytest.mark.parametrize("draw", BIAS_AND_VARIANCE, ids=lambda draw: draw.__name__)
def test_figures_of_bias_and_variance(draw: Any, drawings: list[Any]) -> None:
    draw(Path())
    figure = drawings[0]
    axes = np.array(figure.axes).reshape(3, 3)
    (legend,) = figure.legends
    looks = {
        text.get_text(): (handle.get_color(), handle.get_marker())
        for text, handle in zip(legend.get_texts(), legend.legend_handles, strict=True)
    }
    assert NAMES.keys() <= looks.keys()
    for column, (kind, value) in zip(axes.T, BIAS_AND_VARIANCE[draw], strict=True):
        for label, name in NAMES.items():
            share, moment, ratio = (
                next(line for line in ax.lines if (line.get_color(), line.get_marker()) == looks[label]).get_data()
                for ax in column
            )
            for i in range(0, len(share[0]), 8):
                x = share[0][i]
                n, p = (value, float(x)) if kind == "rollouts" else (int(x), float(value))
                objective = bind(name, n)
                on_success, on_failure = objective.weights(np.arange(n + 1))
                weight = binom.pmf(np.arange(n), n - 1, p) @ (on_success[1:] - on_failure[:-1])
                assert share[1][i] == pytest.approx(p * weight, rel=1e-6)
                assert moment[1][i] == pytest.approx(noise(objective, p), rel=1e-6)
                assert ratio[1][i] == pytest.approx(noise(objective, p) / least_noise(objective, p), rel=1e-6)


def test_figure_of_rollouts_needed(drawings: list[Any]) -> None:
    """The least N with (1-p)^N <= x, tried one by one."""
    objective_figures.rollouts_needed(Path())
    for label, tolerance in (("within 50%", 0.5), ("within 10%", 0.1), ("within 1%", 0.01), ("within 0.1%", 0.001)):
        line = next(line for line in drawings[0].axes[0].lines if line.get_label() == label)
        rates, needed = line.get_data()
        for p, n in list(zip(rates, needed, strict=True))[500::50]:
            assert n == next(n for n in range(1, 10**5) if n * math.log1p(-p) <= math.log(tolerance) + 1e-9)


def test_figure_of_weights(drawings: list[Any]) -> None:
    objective_figures.weights(Path())
    orders, grpo, sixteen = drawings[0].axes
    for order in (1, 8, 128):
        (text,) = [text for text in orders.texts if text.get_text() == f"T = {order}"]
        assert text.xy[1] == order
        assert any(np.allclose(line.get_ydata(), (1 - (1 - line.get_xdata()) ** order) / line.get_xdata())
                   for line in orders.lines if len(line.get_xdata()))  # fmt: skip
    for n in (4, 256):
        line = next(line for line in grpo.lines if line.get_label() == f"GRPO, N = {n}, exact")
        np.testing.assert_allclose(line.get_ydata(), bind("grpo", n).population_weight(line.get_xdata()))
    line = next(line for line in sixteen.lines if line.get_label() == "MaxRL (Alg. 1)")
    np.testing.assert_allclose(line.get_ydata(), (1 - (1 - line.get_xdata()) ** 15) / line.get_xdata())
