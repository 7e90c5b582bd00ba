"""Comparisons against scipy, an enumerated two-way layout, and the words that they declare."""

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from maxrl_bench.analysis.compare import (
    BETTER,
    CANNOT,
    COLLAPSE_SEEDS,
    EQUAL,
    UNDECIDED,
    WORSE,
    compare,
)
from maxrl_bench.analysis.crossed import mean_of


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


@pytest.mark.parametrize("seeds", [3, 5, 10])
def test_over_seeds_it_is_the_paired_t_test(seeds: int) -> None:
    ours, theirs = rng(1).normal(0.5, 0.1, seeds), rng(2).normal(0.4, 0.1, seeds)
    result, expected = compare(ours, theirs), reference.ttest_rel(ours, theirs)
    assert (result.low, result.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert result.p_at(0) == pytest.approx(expected.pvalue)
    assert (result.df, result.seeds, result.instances) == (seeds - 1, seeds, 0)


def test_over_two_tasks_it_is_welchs_test() -> None:
    """Twice the mean of a and -b is the difference of the means of a and b, which Welch's test judges."""
    a, b = rng(1).normal(0.5, 0.1, 6), rng(2).normal(0.4, 0.3, 4)
    result, expected = compare([a, -b]), reference.ttest_ind(a, b, equal_var=False)
    assert result.df == pytest.approx(expected.df)
    assert (2 * result.low, 2 * result.high) == pytest.approx(tuple(expected.confidence_interval()))
    assert result.p_at(0) == pytest.approx(expected.pvalue)


def test_the_variance_over_seeds_and_instances_is_unbiased() -> None:
    """Exactly: over all draws of seed and instance effects, V has the variance of the mean as its mean.

    Effects of seeds a, of instances 2 b; no interaction, so that MS_e = 0 and no case is cut off. All 2^3 * 2^3 draws.
    """
    means, variances = [], []
    for a in itertools.product((-1.0, 1.0), repeat=3):
        for b in itertools.product((-2.0, 2.0), repeat=3):
            mean = mean_of([np.add.outer(np.array(a), np.array(b))])
            means.append(mean.value)
            variances.append(mean.variance)
    assert np.mean(variances) == pytest.approx(np.var(means))


def test_satterthwaites_degrees_of_freedom_by_hand() -> None:
    """Rows (0, 2), (3, 7), (6, 6): row means 1, 5, 6 and column means 3, 5 about 4.

    MS_s = 2 (9 + 1 + 4) / 2 = 14; MS_i = 3 (1 + 1) / 1 = 6; the residuals are 0, 0; -1, 1; 1, -1: MS_e = 4 / 2 = 2.
    V = (14 + 6 - 2) / 6 = 3; df = 18^2 / (14^2 / 2 + 6^2 / 1 + 2^2 / 2) = 324 / 136.
    """
    scores = np.array([[0.0, 2], [3, 7], [6, 6]])
    mean = mean_of([scores])
    assert (mean.value, mean.variance, mean.df) == pytest.approx((4, 3, 324 / 136))
    assert (mean.seeds, mean.instances) == (3, 2)


def test_where_instances_vary_less_than_the_interaction_the_seeds_stand_alone() -> None:
    scores = np.array([[0.0, 2], [3, 1], [6, 6]])
    result, over_seeds = compare(scores), compare(scores.mean(axis=1))
    assert (result.low, result.high, result.df) == pytest.approx((over_seeds.low, over_seeds.high, 2))


def test_one_instance_is_none_and_equal_instances_add_nothing() -> None:
    scores = rng().normal(size=5)
    alone = compare(scores)
    one, many = compare(scores[:, None]), compare(np.repeat(scores[:, None], 7, axis=1))
    assert (one.low, one.high, one.instances) == (alone.low, alone.high, 0)
    assert (many.low, many.high, many.df) == pytest.approx((alone.low, alone.high, 4))


def test_points_are_judged_one_by_one() -> None:
    curves = rng().normal(size=(5, 8, 3)) + rng(1).normal(size=(5, 1, 3)) + rng(2).normal(size=(1, 8, 3))
    together = mean_of([curves], points=1)
    for x in range(3):
        alone = mean_of([curves[:, :, x]])
        assert np.array(together[:3])[:, x] == pytest.approx(np.array(alone[:3]))


@pytest.mark.parametrize(
    ("low", "high", "options", "word"),
    [
        (0.03, 0.05, {}, BETTER),
        (0.001, 0.05, {}, BETTER),
        (0.001, 0.05, {"by_margin": True}, UNDECIDED),
        (0.021, 0.05, {"by_margin": True}, BETTER),
        (-0.05, -0.001, {"by_margin": True}, WORSE),
        (-0.05, -0.001, {}, WORSE),
        (-0.05, 0.001, {}, UNDECIDED),
        (-0.019, 0.019, {}, EQUAL),
        (0.001, 0.019, {}, EQUAL),  # certain, and too small to count
        (-0.019, -0.001, {}, EQUAL),
        (-0.019, 0.021, {}, UNDECIDED),
        (0.001, 0.019, {"margin": None}, BETTER),
        (-0.019, 0.019, {"margin": None}, UNDECIDED),
        (-0.05, -0.001, {"direction": "lower"}, BETTER),
        (0.001, 0.05, {"direction": "lower"}, WORSE),
        (-0.05, -0.021, {"direction": "lower", "by_margin": True}, BETTER),
        (-0.019, 0.019, {"direction": "equal"}, EQUAL),
        (0.001, 0.05, {"direction": "equal"}, UNDECIDED),
        (0.021, 0.05, {"direction": "equal"}, BETTER),
        (-0.05, -0.021, {"direction": "equal"}, WORSE),
    ],
)
def test_what_an_interval_declares(low: float, high: float, options: dict, word: str) -> None:
    """Scores whose 95 % interval has these limits; the p value of what is declared agrees with it, whatever it is."""
    unit = np.array([-2.0, -1, 0, 1, 2])
    half = reference.t.ppf(0.975, 4) * reference.sem(unit)
    result = compare((low + high) / 2 + unit * (high - low) / 2 / half, **options)
    assert (result.low, result.high) == pytest.approx((low, high))
    assert result.verdict == word
    assert (result.p < 0.05) == (word != UNDECIDED)


def test_two_one_sided_tests_at_half_the_level_are_the_interval() -> None:
    """By scipy's one-sided t tests: equal where both have p < 0.025."""
    for seed in range(50):
        scores = rng(seed).normal(0.005, 0.015, 5)
        above = reference.ttest_1samp(scores, -0.02, alternative="greater").pvalue
        below = reference.ttest_1samp(scores, 0.02, alternative="less").pvalue
        result = compare(scores)
        assert (result.verdict == EQUAL) == (max(above, below) < 0.025)
        if abs(result.effect) < 0.02:
            assert result.p_values[EQUAL] == pytest.approx(2 * max(above, below))


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_and_two_seeds_give_no_interval_and_no_verdict(seeds: int) -> None:
    for scores in (np.ones(seeds), np.ones((seeds, 10))):
        result = compare(scores)
        assert result.verdict == CANNOT
        assert np.isnan([result.low, result.high, result.df, result.p]).all()
    assert compare([np.ones(5), np.ones(seeds)]).verdict == CANNOT  # on one of two tasks


def test_differences_that_do_not_vary() -> None:
    assert compare(np.full(5, 0.1)).verdict == BETTER
    assert compare(np.full(5, -0.1)).verdict == WORSE
    assert compare(np.zeros(5)).verdict == EQUAL
    assert compare(np.zeros(5), margin=None).verdict == UNDECIDED
    assert compare(np.zeros((5, 4)), margin=None).p == 1


def test_after_a_collapse_ten_seeds_are_needed() -> None:
    scores = np.full(COLLAPSE_SEEDS, 0.3) + rng().normal(0, 0.01, COLLAPSE_SEEDS)
    assert compare(scores, collapsed=1).verdict == BETTER
    assert compare(scores[1:], collapsed=1).verdict == UNDECIDED
    assert compare(scores[1:]).verdict == BETTER


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: compare(np.ones(5), margin=-0.02), "margin must be above 0"),
        (lambda: compare(np.ones(5), margin=0), "margin must be above 0"),
        (lambda: compare(np.ones(5), margin=float("nan")), "margin must be above 0"),
        (lambda: compare(np.ones(5), margin=None, direction="equal"), "needs a margin"),
        (lambda: compare(np.ones(5), margin=None, by_margin=True), "needs a margin"),
        (lambda: compare(np.ones(5), direction="equal", by_margin=True), "by_margin goes with"),
        (lambda: compare(np.ones(5), np.ones(4)), "one shape on both sides"),
        (lambda: compare(np.ones((5, 2)), np.ones((5, 3))), "one shape on both sides"),
        (lambda: compare(np.array([1, np.nan, 2])), "finite"),
        (lambda: compare(np.ones((2, 2, 2))), r"not of shape \(2, 2, 2\)"),
        (lambda: compare([]), "at least one task"),
        (lambda: compare(np.ones(0)), "not of shape"),
    ],
)
def test_what_cannot_be_compared_is_one_line(call, message: str) -> None:
    with pytest.raises(ValueError, match=message) as error:
        call()
    assert "\n" not in str(error.value)
