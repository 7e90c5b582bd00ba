"""Partial credit: rewards between 0 and 1 are weighed without bias, or refused."""

from __future__ import annotations

import itertools
import math
import re
from fractions import Fraction

import numpy as np
import pytest
from objective_cases import case_id

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.binomials import binomial_mean
from maxrl_bench.objectives.continuous import PARTIAL_CREDIT
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind
from maxrl_bench.testing.objective_checks import knob_settings

pytestmark = pytest.mark.unbiased


def bound(n: int) -> list[Objective]:
    """Every objective that takes partial credit, at every knob setting."""
    rows = {name: OBJECTIVES[name] for name in PARTIAL_CREDIT if n >= OBJECTIVES[name].min_rollouts}
    return [bind(name, n, **knobs) for name, row in rows.items() for knobs in knob_settings(row, n)]


def weigh(objective: Objective, rewards: object) -> np.ndarray:
    return advantages(np.asarray(rewards, np.float64), objective.name, **objective.knobs)


def order_t(rewards: list[Fraction], order: int) -> list[Fraction]:
    """r_j sum_{m<T} e_m(1 - r_{-j}) / C(N-1, m), term by term."""
    n, weights = len(rewards), []
    for j, own in enumerate(rewards):
        failures = [1 - r for i, r in enumerate(rewards) if i != j]
        terms = (
            sum((math.prod(some, start=Fraction(1)) for some in itertools.combinations(failures, m)), Fraction(0))
            / math.comb(n - 1, m)
            for m in range(order)
        )
        weights.append(own * sum(terms, Fraction(0)))
    return weights


def test_the_worked_example() -> None:
    weights = advantages([[0.5, 0.25, 0, 1]], "maxrl_order", order=2)
    np.testing.assert_allclose(weights, [[0.791667, 0.375, 0, 1.75]], atol=5e-7)


@pytest.mark.parametrize("n", [1, 2, 3, 6])
def test_order_t_is_its_sum_of_symmetric_polynomials(n: int) -> None:
    eighths = np.random.default_rng(n).integers(0, 9, (5, n))
    for row in eighths:
        exact = [Fraction(int(eighth), 8) for eighth in row]
        for order in range(1, n + 1):
            expected = [[float(weight) for weight in order_t(exact, order)]]
            np.testing.assert_allclose(advantages([row / 8], "maxrl_order", order=order), expected, rtol=1e-13)


@pytest.mark.parametrize("values", [(0, Fraction(1, 4), 1), (Fraction(1, 2), 1), (Fraction(1, 8), Fraction(2, 3), 0)])
def test_order_t_is_unbiased_in_exact_arithmetic(values: tuple[Fraction, ...]) -> None:
    """E[g] = sum_z grad pi(z) E[a_j | z_j = z]: w grad p if that mean is w r(z), and a constant, which adds nothing."""
    chances = [Fraction(2, 7), Fraction(1, 7), Fraction(4, 7)] if len(values) == 3 else [Fraction(1, 3), Fraction(2, 3)]
    p = sum(c * v for c, v in zip(chances, values, strict=True))
    for n, order in [(1, 1), (2, 2), (3, 2), (4, 1), (4, 3), (4, 4)]:
        means = dict.fromkeys(values, Fraction(0))
        for others in itertools.product(range(len(values)), repeat=n - 1):
            chance = math.prod((chances[z] for z in others), start=Fraction(1))
            for own in values:
                means[own] += chance * order_t([Fraction(own), *(Fraction(values[z]) for z in others)], order)[0]
        weight = sum((1 - p) ** m for m in range(order))
        assert {mean - weight * Fraction(own) for own, mean in means.items()} == {0}


@pytest.mark.parametrize("objective", [o for n in (1, 2, 4) for o in bound(n)], ids=case_id)
def test_every_such_objective_is_unbiased_over_all_outcomes(objective: Objective) -> None:
    values, chances, n = np.array([0.0, 0.3, 1.0]), np.array([0.65, 0.25, 0.1]), objective.num_rollouts
    outcomes = np.array(list(itertools.product(range(3), repeat=n)))
    of_first = weigh(objective, values[outcomes])[:, 0] * chances[outcomes[:, 1:]].prod(axis=1)
    means = np.array([of_first[outcomes[:, 0] == z].sum() for z in range(3)])
    weight = float(objective.population_weight(np.array(chances @ values)))
    apart = means - weight * values
    np.testing.assert_allclose(apart, apart[0], atol=1e-12)


@pytest.mark.parametrize("objective", bound(5), ids=case_id)
def test_weights_are_the_means_over_coins(objective: Objective) -> None:
    rewards = np.array([0.2, 1.0, 0.5, 0.0, 0.9])
    coins = np.array(list(itertools.product([0.0, 1.0], repeat=5)))
    chances = np.where(coins == 1, rewards, 1 - rewards).prod(axis=1)
    np.testing.assert_allclose(weigh(objective, [rewards])[0], chances @ weigh(objective, coins), atol=1e-12)


def test_linear_ones_are_what_they_are_elsewhere() -> None:
    rewards = np.array([[0.2, 1.0, 0.5, 0.0, 0.9], [0.1, 0.1, 0.1, 0.1, 0.1]])
    mean = rewards.mean(axis=1, keepdims=True)
    for name, expected in {
        "reinforce": rewards,
        "mean_baseline": rewards - mean,
        "rloo": (rewards - mean) * 5 / 4,
        "nsr": rewards - 1,
        "w_reinforce": 1.1 * rewards - 1,
    }.items():
        np.testing.assert_allclose(advantages(rewards, name), expected, atol=1e-14)


def test_groups_of_zeros_and_ones_stay_what_they_are() -> None:
    rewards = np.array([[1.0, 0, 0, 1], [0.5, 0, 1, 0.25], [0, 0, 0, 0]])
    weights = advantages(rewards, "maxrl_alg1")
    assert weights[0].tolist() == [1, -1, -1, 1]
    assert weights[2].tolist() == [0, 0, 0, 0]
    nearly = np.array([[1.0, 1e-14, 0, 1 - 1e-14]])
    np.testing.assert_allclose(advantages(nearly, "maxrl_alg1"), [[1, -1, -1, 1]], atol=1e-12)


@pytest.mark.parametrize("share", [1e-9, 0.003, 0.4, 0.999])
def test_a_thousand_equal_rewards_against_the_binomial_sum(share: float) -> None:
    n = 1024
    for objective in (bind("maxrl_order", n, order=64), bind("maxrl_eq9", n), bind("maxrl_alg1", n), bind("rloo", n)):
        on_success = binomial_mean(lambda j, o=objective: o.weights(j + 1)[0], n - 1, share)
        on_failure = binomial_mean(lambda j, o=objective: o.weights(j)[1], n - 1, share)
        expected = share * on_success + (1 - share) * on_failure
        scale = share * abs(on_success) + (1 - share) * abs(on_failure)
        np.testing.assert_allclose(weigh(objective, [[share] * n]), expected, atol=1e-12 * scale + 1e-300)


@pytest.mark.parametrize("power", [1, 30])
def test_a_thousand_rewards_against_an_integral(power: int) -> None:
    """1/C(N-1, m) is a Beta integral, so that order N is N int prod_{i != j} (1 - t r_i) dt, exactly by quadrature."""
    rewards = np.random.default_rng(power).random(1024) ** power
    nodes, shares = np.polynomial.legendre.leggauss(512)
    t = (nodes + 1) / 2
    factors = 1 - t[:, None] * rewards
    products = np.exp(np.log(factors).sum(axis=1, keepdims=True)) / factors  # [nodes, rollouts]
    expected = rewards * 1024 * (shares / 2 @ products)
    np.testing.assert_allclose(advantages([rewards], "maxrl_eq9")[0], expected, rtol=1e-10)


@pytest.mark.parametrize("name", [name for name, row in OBJECTIVES.items() if row.on_success is not None])
def test_others_refuse_partial_credit_and_say_which_take_it(name: str) -> None:
    row = OBJECTIVES[name]
    knobs = {knob: 1 for knob, rule in row.knobs.items() if rule.default is None}
    if name in PARTIAL_CREDIT:
        with pytest.raises(ValueError, match=re.escape("rewards must lie in [0, 1], got -0.5 (1 of 2 do not)")):
            advantages([[-0.5, 1.0]], name, **knobs)
        with pytest.raises(ValueError, match=re.escape("rewards must lie in [0, 1], got NaN")):
            advantages([[math.nan, 1.0]], name, **knobs)
    elif not (row.smoothing or row.entropy_bonus):
        message = "rewards must be exactly 0 or 1, got 0.5 (1 of 2 are neither); partial credit is taken by reinforce, "
        with pytest.raises(ValueError, match=re.escape(message)) as caught:
            advantages([[0.5, 1.0]], name, **knobs)
        assert "\n" not in str(caught.value)
