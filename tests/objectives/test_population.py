"""Exactness of the binomial sums, second moments against enumeration, and the theorems of docs/objectives.md."""

from __future__ import annotations

import itertools

import mpmath
import numpy as np
import pytest
from objective_cases import all_bound, case_id, default_bound
from scipy.integrate import quad

from maxrl_bench.objectives.binomials import hit, miss
from maxrl_bench.objectives.population import (
    Scores,
    effective_order,
    least_second_moment,
    order_within,
    second_moment,
    softmax_scores,
    variance,
)
from maxrl_bench.objectives.table import Objective, bind

LOGITS = np.array([0.3, -1.0, 0.2, 0.7])
ACCEPTED = np.array([True, False, False, True])
WITH_MOMENTS = [o for n in (2, 3) for o in default_bound(n) if not (o.is_likelihood or o.row.pooled)]


@pytest.mark.unbiased
@pytest.mark.parametrize("total", [1, 2, 8, 17, 40, 1000, 10**6])
def test_ratios_of_binomial_coefficients_against_60_digits(total: int) -> None:
    rng = np.random.default_rng(total)
    spread = np.exp(rng.uniform(0, np.log(total + 1), (60, 2))).astype(int).clip(1, total)
    for successes, drawn in [
        *spread.tolist(),
        (1, total - 1),
        (total, 1),
        (0, total),
        (total // 2, total - total // 2),
    ]:
        with mpmath.workdps(60):
            exact = mpmath.binomial(total - successes, drawn) / mpmath.binomial(total, drawn)
            expected = float(exact), float(1 - exact)
        probabilities = miss(total, np.array([successes]), drawn)[0], hit(total, np.array([successes]), drawn)[0]
        np.testing.assert_allclose(probabilities, expected, rtol=1e-12, atol=1e-300)


@pytest.mark.unbiased
@pytest.mark.parametrize("n", [2, 64, 4096, 10**6])
@pytest.mark.parametrize("p", [1e-9, 1e-6, 1e-3, 0.03, 0.5, 0.97, 1 - 1e-9])
def test_population_weights_to_twelve_digits_at_any_size(n: int, p: float) -> None:
    for objective in [o for o in all_bound([n]) if o.order is not None]:
        with mpmath.workdps(60):
            expected = float((1 - (1 - mpmath.mpf(p)) ** objective.order) / mpmath.mpf(p))
        assert float(objective.population_weight(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=0)
        assert float(objective.closed_form(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=0)
    for name in ("pkpo_plain", "pkpo_loo"):
        k = min(10, n)
        with mpmath.workdps(60):
            expected = float(k * (1 - mpmath.mpf(p)) ** (k - 1))
        assert float(bind(name, n, k=k).population_weight(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.parametrize("p", [1e-9, 0.02, 0.5, 0.9])
def test_grpo_weight_at_2000_rollouts_against_40_digits(p: float) -> None:
    n = 2000
    with mpmath.workdps(40):
        q, total, chance = 1 - mpmath.mpf(p), mpmath.mpf(0), (1 - mpmath.mpf(p)) ** (n - 1)
        for j in range(n):
            success = mpmath.sqrt(mpmath.mpf(n - j - 1) / (j + 1))
            total += chance * (success + mpmath.sqrt(mpmath.mpf(j) / (n - j)))
            chance *= mpmath.mpf(n - 1 - j) / (j + 1) * mpmath.mpf(p) / q
        expected = float(total)
    assert float(bind("grpo", n).population_weight(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=0)


def _miss(n: int, successes: int, k: int) -> mpmath.mpf:
    return mpmath.binomial(n - successes, k) / mpmath.binomial(n, k) if successes <= n - k else mpmath.mpf(0)


@pytest.mark.unbiased
@pytest.mark.parametrize("p", [1e-9, 1e-6, 1 - 1e-6, 1 - 1e-9])
def test_weights_without_a_closed_form_at_a_million_rollouts_against_40_digits(p: float) -> None:
    """Near p = 1 the failures decide, whose weights must not be differences of numbers near 1."""
    n, k = 10**6, 4

    def grpo(j: int, gamma: float) -> mpmath.mpf:
        """s(j+1) - f(j) of GRPO (ddof 0), times the share of failures to the power gamma."""
        success = mpmath.sqrt(mpmath.mpf(n - j - 1) / (j + 1)) * (mpmath.mpf(n - j - 1) / n) ** gamma
        return success + mpmath.sqrt(mpmath.mpf(j) / (n - j)) * (mpmath.mpf(n - j) / n) ** gamma

    def pass_at_k(j: int) -> mpmath.mpf:
        missed = _miss(n, j + 1, k)
        failure = mpmath.mpf(j) / (n - j) * mpmath.sqrt(_miss(n, j, k) / (1 - _miss(n, j, k))) if j else 0
        return mpmath.sqrt(missed / (1 - missed)) + failure

    with mpmath.workdps(40):
        rare = mpmath.mpf(p) if p < 0.5 else 1 - mpmath.mpf(p)  # successes or failures: at most a few dozen
        chance = [mpmath.binomial(n - 1, i) * rare**i * (1 - rare) ** (n - 1 - i) for i in range(60)]
        counts = [i if p < 0.5 else n - 1 - i for i in range(60)]
        for objective, gap in (
            (bind("grpo", n), lambda j: grpo(j, 0)),
            (bind("f_grpo", n, gamma=1.0), lambda j: mpmath.sqrt(mpmath.mpf(n - 1) / n) * grpo(j, 1)),
            (bind("f_grpo", n, gamma=2.5), lambda j: mpmath.sqrt(mpmath.mpf(n - 1) / n) * grpo(j, 2.5)),
            (bind("pass_at_k_training", n, k=k), pass_at_k),
        ):
            expected = float(sum(c * gap(j) for c, j in zip(chance, counts, strict=True)))
            assert float(objective.population_weight(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=0), (
                objective.label
            )


def test_the_ends_of_the_pass_rates() -> None:
    ends = np.array([0.0, 1.0])
    np.testing.assert_allclose(bind("maxrl_eq9", 8).population_weight(ends), [8, 1], rtol=1e-14)
    np.testing.assert_allclose(bind("maxrl_eq9", 8).closed_form(ends), [8, 1], rtol=1e-14)
    np.testing.assert_allclose(bind("grpo", 8).population_weight(ends), [np.sqrt(7), np.sqrt(7)])
    np.testing.assert_allclose(bind("ml", 8).population_weight(ends), [np.inf, 1])
    assert bind("grpo", 8).population_weight(np.full((2, 3), 0.5)).shape == (2, 3)


@pytest.mark.unbiased
@pytest.mark.parametrize("objective", WITH_MOMENTS, ids=case_id)
def test_second_moment_of_a_softmax_policy_by_enumeration(objective: Objective) -> None:
    n, policy = objective.num_rollouts, np.exp(LOGITS) / np.exp(LOGITS).sum()
    scores = np.eye(4) - policy
    moment, mean = 0.0, np.zeros(4)
    for rollouts in itertools.product(range(4), repeat=n):
        z = list(rollouts)
        on_success, on_failure = objective.weights(ACCEPTED[z].sum(keepdims=True))
        g = np.where(ACCEPTED[z], on_success, on_failure) @ scores[z] / n
        moment += policy[z].prod() * (g @ g)
        mean += policy[z].prod() * g
    of_policy = softmax_scores(LOGITS, ACCEPTED)
    assert second_moment(objective, of_policy) == pytest.approx(moment, rel=1e-12, abs=0)
    assert variance(objective, of_policy) == pytest.approx(moment - mean @ mean, rel=1e-9, abs=1e-12)


@pytest.mark.unbiased
@pytest.mark.parametrize("objective", WITH_MOMENTS, ids=case_id)
def test_second_moment_of_orthogonal_scores_by_enumeration(objective: Objective) -> None:
    n, p = objective.num_rollouts, 0.3
    expected = 0.0
    for outcome in itertools.product([0, 1], repeat=n):
        r = np.array(outcome)
        on_success, on_failure = objective.weights(r.sum(keepdims=True))
        weights = np.where(r == 1, on_success, on_failure)
        expected += p ** r.sum() * (1 - p) ** (n - r.sum()) * np.sum(weights**2) / n**2
    assert second_moment(objective, Scores(p)) == pytest.approx(expected, rel=1e-12, abs=0)


@pytest.mark.unbiased
@pytest.mark.parametrize("objective", default_bound(6), ids=case_id)
def test_no_estimator_beats_the_least_second_moment(objective: Objective) -> None:
    if objective.is_likelihood or objective.row.pooled:
        return
    for p in (0.001, 0.2, 0.6, 0.95):
        assert second_moment(objective, Scores(p)) >= least_second_moment(objective, p) * (1 - 1e-12)


def baselined(gap: np.ndarray, baseline: np.ndarray, p: float) -> float:
    """E|g|^2 for orthogonal scores of the estimator a = gap(J) r - baseline(J), J the successes among the others."""
    others = len(gap) - 1
    chance = np.array([float(mpmath.binomial(others, j)) * p**j * (1 - p) ** (others - j) for j in range(others + 1)])
    return float(chance @ (p * (gap - baseline) ** 2 + (1 - p) * baseline**2)) / len(gap)


@pytest.mark.unbiased
def test_theorem_1_every_estimator_is_a_gap_and_a_baseline() -> None:
    for objective in [o for o in all_bound([5]) if not o.is_likelihood]:
        gap, baseline = objective.gap(np.arange(5)), -objective.weights(np.arange(5))[1]
        assert second_moment(objective, Scores(0.3)) == pytest.approx(baselined(gap, baseline, 0.3), rel=1e-12, abs=0)


@pytest.mark.unbiased
def test_theorem_2_the_best_baseline_is_p_times_the_gap() -> None:
    rng = np.random.default_rng(0)
    for objective in [o for o in all_bound([5]) if not o.is_likelihood]:
        gap = objective.gap(np.arange(5))
        for p in (0.01, 0.4, 0.9):
            least = baselined(gap, p * gap, p)
            assert least == pytest.approx(least_second_moment(objective, p), rel=1e-12, abs=0)
            others = [baselined(gap, p * gap + rng.normal(size=5) * 0.1, p) for _ in range(20)]
            assert min(others) > least


@pytest.mark.unbiased
@pytest.mark.parametrize(("order", "n"), [(1, 5), (3, 5), (5, 5)])
def test_theorem_3_leave_one_out_is_best_for_log_odds_uniform_pass_rates(order: int, n: int) -> None:
    """Second moments integrated over dp / (p (1-p)); an estimator that moves at K = 0 or K = N has none."""
    objective = bind("maxrl_order_loo", n, order=order)
    gap, baseline = objective.gap(np.arange(n)), -objective.weights(np.arange(n))[1]

    def integrated(candidate: np.ndarray) -> float:
        return quad(lambda p: baselined(gap, candidate, p) / (p * (1 - p)), 0, 1, limit=200)[0]

    assert baseline[0] == 0  # what makes the integral finite
    assert baseline[-1] == pytest.approx(gap[-1])
    best, rng = integrated(baseline), np.random.default_rng(1)
    for _ in range(10):
        nudge = np.concatenate([[0], rng.normal(size=n - 2) * 0.1, [0]])
        assert integrated(baseline + nudge) > best


@pytest.mark.unbiased
def test_theorem_3_the_uniform_member_is_best_for_uniform_pass_rates() -> None:
    n = 5
    objective = bind("maxrl_uniform", n)
    gap, baseline = objective.gap(np.arange(n)), -objective.weights(np.arange(n))[1]

    def integrated(candidate: np.ndarray) -> float:
        return quad(lambda p: baselined(gap, candidate, p), 0, 1)[0]

    best, rng = integrated(baseline), np.random.default_rng(1)
    for _ in range(10):
        assert integrated(baseline + rng.normal(size=n) * 0.1) > best
    for rival in ("maxrl_eq9", "maxrl_eq10", "maxrl_alg1_exact"):
        assert integrated(-bind(rival, n).weights(np.arange(n))[1]) > best


@pytest.mark.unbiased
def test_the_best_constant_baseline_of_order_n_is_pass_at_n() -> None:
    n, p = 5, 0.2
    gap, best = bind("maxrl_eq9", n).gap(np.arange(n)), 1 - (1 - p) ** n
    noise = [baselined(gap, np.full(n, c), p) for c in (best - 0.01, best, best + 0.01)]
    assert noise[1] < min(noise[0], noise[2])


@pytest.mark.unbiased
def test_rloo_is_within_one_part_in_n_of_the_least_noise() -> None:
    for n, p in itertools.product((2, 8, 500), (1e-4, 0.3, 0.99)):
        ratio = second_moment(bind("rloo", n), Scores(p)) / least_second_moment(bind("rloo", n), p)
        assert ratio == pytest.approx(n / (n - 1), rel=1e-10, abs=0)


def test_effective_order() -> None:
    p = np.array([1e-5, 0.01, 0.2])
    np.testing.assert_allclose(effective_order(bind("maxrl_alg1", 32), p), 31, rtol=1e-9)
    assert np.isinf(effective_order(bind("ml", 32), p)).all()
    assert np.isnan(effective_order(bind("grpo", 32), np.array([0.9]))).all()  # GRPO weighs more than ML does there


def test_orders_that_come_within_a_tolerance_of_maximum_likelihood() -> None:
    for p, tolerance in itertools.product((1e-4, 0.013, 0.3, 0.7), (0.5, 0.1, 0.01)):
        order = int(order_within(tolerance, np.array(p)))
        assert 1 - p * bind("maxrl_eq9", order).population_weight(np.array(p)) <= tolerance + 1e-12
        if order > 1:
            assert 1 - p * bind("maxrl_eq9", order - 1).population_weight(np.array(p)) > tolerance
    assert order_within(0.25, np.array(0.5)) == 2  # exactly on the edge


def test_what_has_no_moments_is_refused() -> None:
    with pytest.raises(ValueError, match="no moments of its own"):
        second_moment(bind("raft", 4), Scores(0.5))
    with pytest.raises(ValueError, match="no weights"):
        second_moment(bind("ml", 4), Scores(0.5))
    with pytest.raises(ValueError, match="accepted and rejected outcomes"):
        softmax_scores(LOGITS, np.ones(4, bool))
