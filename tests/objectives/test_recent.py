"""The rows of `objectives.recent`: by their definitions in exact arithmetic, and where they end in other rows."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.recent import RECENT
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind

pytestmark = pytest.mark.unbiased
SIZES = [2, 3, 5, 8]


def same(first: Objective, second: Objective, scale: float = 1.0) -> None:
    counts = np.arange(first.num_rollouts + 1)
    for ours, theirs in zip(first.weights(counts), second.weights(counts), strict=True):
        np.testing.assert_allclose(ours, scale * theirs, rtol=1e-12, atol=1e-12)


def test_every_recent_row_is_an_objective() -> None:
    assert RECENT.keys() <= OBJECTIVES.keys()


@pytest.mark.parametrize("n", SIZES)
def test_where_they_end_in_other_rows(n: int) -> None:
    same(bind("power", n, q=0), bind("mean_baseline", n))
    same(bind("power", n, q=1), bind("maxrl_alg1", n))
    same(bind("maxrl_clipped", n, floor=0), bind("maxrl_alg1", n))
    same(bind("maxrl_clipped", n, floor=1 / n), bind("maxrl_alg1", n))
    same(bind("maxrl_clipped", n, floor=1), bind("mean_baseline", n))
    same(bind("w_reinforce", n, share=0), bind("nsr", n))
    same(bind("maxpo", n, k=1), bind("rloo", n))
    same(bind("log_pass_at_k", n, k=1), bind("maxrl_alg1", n), n / (n - 1))
    same(bind("maxrl_order_constant", n, order=n), bind("maxrl_eq10", n))
    for order in range(1, n + 1):
        same(bind("power_order", n, order=order, q=1), bind("maxrl_order", n, order=order))
        same(bind("power_order", n, order=order, q=0), bind("reinforce", n))
    same(bind("power_order", n, order=1, q=0.7), bind("reinforce", n))
    tame, keen = bind("rs_grpo", n, beta=0.001), bind("rs_grpo", n, beta=20)
    np.testing.assert_allclose(
        tame.weights(np.arange(n + 1)), bind("mean_baseline", n).weights(np.arange(n + 1)), atol=1e-3
    )
    np.testing.assert_allclose(
        20 * keen.weights(np.arange(n + 1))[0], bind("maxrl_alg1", n).weights(np.arange(n + 1))[0], rtol=1e-7
    )


@pytest.mark.parametrize("n", SIZES)
def test_rs_grpo_is_its_definition(n: int) -> None:
    for beta in (0.5, 2.0, 8.0):
        for k in range(1, n):
            tilted = 1 + (math.exp(beta) - 1) * k / n
            success, failure = (math.exp(beta) / tilted - 1) / beta, (1 / tilted - 1) / beta
            ours = bind("rs_grpo", n, beta=beta).weights(np.array([k]))
            assert (ours[0][0], ours[1][0]) == (pytest.approx(success), pytest.approx(failure))


@pytest.mark.parametrize("n", SIZES)
def test_a_power_of_order_t_is_its_series(n: int) -> None:
    """sum_{m<T} C(q+m-1, m) (1-p)^m, in exact arithmetic: every weight and, from its definition, the population's."""
    q, p = Fraction(1, 2), Fraction(1, 10)
    coefficients = [Fraction(1)]
    for m in range(n):
        coefficients.append(coefficients[-1] * (q + m) / (m + 1))
    for order in range(1, n + 1):
        objective = bind("power_order", n, order=order, q=0.5)
        expected = [
            sum(coefficients[m] * Fraction(math.comb(n - k, m), math.comb(n - 1, m)) for m in range(order))
            for k in range(1, n + 1)
        ]
        np.testing.assert_allclose(objective.weights(np.arange(1, n + 1))[0], [float(w) for w in expected], rtol=1e-13)
        weight = sum(coefficients[m] * (1 - p) ** m for m in range(order))
        assert objective.population_weight(np.array(0.1)) == pytest.approx(float(weight), rel=1e-12)


@pytest.mark.parametrize("q", [0.5, 1.0, 1.5, 2.0])
def test_a_power_of_high_order_is_a_power(q: float) -> None:
    """T = N terms sum to Gamma(N+q) Gamma(K) / (Gamma(K+q) Gamma(N)) (Chu and Vandermonde), about (K/N)^-q."""
    n = 200_000
    counts = np.array([1, 2, 10, 1000, n // 2, n])
    ours = bind("power_order", n, order=n, q=q).weights(counts)[0]
    expected = [math.exp(math.lgamma(n + q) + math.lgamma(k) - math.lgamma(k + q) - math.lgamma(n)) for k in counts]
    np.testing.assert_allclose(ours, expected, rtol=1e-8)


@pytest.mark.parametrize("n", SIZES)
def test_maxpo_has_the_gaps_of_pass_at_k(n: int) -> None:
    for k in range(1, n + 1):
        expected = [k * math.comb(n - 1 - j, k - 1) / math.comb(n - 1, k - 1) for j in range(n)]
        weights = bind("maxpo", n, k=k).weights(np.arange(n + 1))
        np.testing.assert_allclose(weights[0][1:] - weights[1][:-1], expected, atol=1e-12)


def test_noise_of_leave_two_out_where_easy_prompts_hurt() -> None:
    """At N = 64, k = 4 and p = 0.9 within 1.03 of the least, where leaving one out has 10 times it."""
    from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment

    for name, expected in (("maxpo", 1.03), ("pkpo_loo", 10.0)):
        objective = bind(name, 64, k=4)
        assert second_moment(objective, Scores(0.9)) / least_second_moment(objective, 0.9) == pytest.approx(
            expected, abs=0.05
        )


def test_pooled_rows_divide_by_their_share_of_the_batch() -> None:
    rewards = np.array([[1, 0, 0, 0], [0, 0, 0, 0], [1, 1, 1, 1], [1, 1, 0, 0]], float)
    np.testing.assert_allclose(advantages(rewards, "dapo"), advantages(rewards, "grpo") / (2 / 4))
    np.testing.assert_allclose(advantages(rewards, "gpg"), advantages(rewards, "mean_baseline") / rewards.mean())
    for name in ("dapo", "gpg"):
        assert not advantages(np.zeros((3, 4)), name).any()
    assert not advantages(np.ones((3, 4)), "dapo").any()


def test_curverl_is_its_histogram() -> None:
    """f/F over the mixed groups of the last t batches, the one at hand not among them; by hand."""
    objective = bind("curverl", 4, window=2)
    for batch in ([1, 1, 1, 1], [1, 2, 0, 4], [3, 1, 4, 4]):  # the first is forgotten by the third
        objective = objective.after(np.array(batch))
    # Remembered: 1, 2 and 3, 1: F counts 2, 3, 4 of 4 and f 2, 1, 1.
    on_success, on_failure = objective.weights(np.arange(5))
    np.testing.assert_allclose(on_success, [0, 1 * 3 / 4, 1 / 3 * 2 / 4, 1 / 4 * 1 / 4, 0])
    np.testing.assert_allclose(on_failure, [0, -1 * 1 / 4, -1 / 3 * 2 / 4, -1 / 4 * 3 / 4, 0])
    hard = bind("curverl", 4).after(np.array([2, 2, 3]))
    np.testing.assert_allclose(hard.weights(np.arange(5))[0], [0, 0, 2 / 4, 1 / 3 * 1 / 4, 0])  # no group had 1
    # Batches without a mixed group are remembered as batches, and push others out.
    for _ in range(2):
        objective = objective.after(np.array([0, 4, 4, 0]))
    same(objective, bind("curverl", 4))


@pytest.mark.parametrize("n", SIZES)
def test_a_flat_reference_is_algorithm_1_over_n(n: int) -> None:
    first = bind("curverl", n)
    same(first, bind("maxrl_alg1", n), 1 / n)
    same(first.after(np.array([0, n])), bind("maxrl_alg1", n), 1 / n)  # still nothing to refer to
    same(first.after(np.arange(n + 1)), bind("maxrl_alg1", n), 1 / n)  # as many groups at each count


def test_positives_and_negatives_alone_are_reinforce_in_expectation_and_noisier() -> None:
    from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment

    for name, weight in (("nsr", 1.0), ("w_reinforce", 1.1)):
        objective = bind(name, 64)
        assert objective.population_weight(np.array(0.001)) == pytest.approx(weight)
        ratio = second_moment(objective, Scores(0.001)) / least_second_moment(objective, 0.001)
        assert 800 < ratio < 1001
