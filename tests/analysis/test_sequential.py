"""The e-process of paired differences: its mean under the null, its false alarms over all looks, and its limits."""

import math

import numpy as np
import pytest
from scipy import stats

from maxrl_bench.analysis.sequential import confidence_sequence, e_values, p_value


def e_of_t(t, seeds):
    """E of `seeds` differences whose t statistics are t, [...]."""
    base = np.linspace(-1, 1, seeds)
    base = base / base.std(ddof=1)
    return e_values(base + np.asarray(t)[..., None] / math.sqrt(seeds))[..., -1]


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 40])
def test_it_is_one_in_the_mean_under_the_null(seeds):
    """By the trapezoid rule over t = sinh(x): the tail of large t, which is never sampled, makes half of the mean."""
    x = np.linspace(-40, 40, 20_001)
    t = np.sinh(x)
    weighted = e_of_t(t, seeds) * stats.t.pdf(t, seeds - 1) * np.cosh(x)
    assert np.trapezoid(weighted, x) == pytest.approx(1, abs=1e-9)


def test_each_look_is_one_in_the_mean_given_those_before():
    """A martingale, not only a sequence of e-values: the mean over the next seed.

    Given the first n (scale unknown, mean 0) the next seed is Student's t, with scale sqrt(sum of squares / n).
    """
    first = np.array([0.3, -0.1, 0.9, 0.4])
    n = len(first)
    scale = math.sqrt((first**2).sum() / n)
    last = scale * stats.t.ppf((np.arange(100_000) + 0.5) / 100_000, n)
    expected = e_values(np.column_stack([np.tile(first, (len(last), 1)), last]))[:, -1].mean()
    assert expected == pytest.approx(e_values(first)[-1], rel=2e-3)


@pytest.mark.parametrize("law", ["normal", "t3", "laplace"])
def test_false_alarms_over_all_looks_stay_below_the_level(law):
    """2,000 experiments, looks at every seed from 5 to 40. Rates are about 0.02; above 0.04 by chance: about 1e-6."""
    rng = np.random.default_rng(0)
    draw = {"normal": rng.standard_normal, "t3": lambda shape: rng.standard_t(3, shape), "laplace": None}[law]
    scores = rng.laplace(size=(2000, 40)) if draw is None else draw((2000, 40))
    assert np.mean(e_values(scores)[:, 3:].max(axis=1) > 20) < 0.04
    naive = np.min([stats.ttest_1samp(scores[:, :n], 0, axis=1).pvalue for n in range(5, 41)], axis=0) < 0.05
    assert naive.mean() > 0.2  # what the e-process is for


def test_a_sequence_contains_a_value_just_when_its_e_value_is_below_the_bound():
    rng = np.random.default_rng(1)
    scores = rng.normal(0.5, 1, 12)
    low, high = confidence_sequence(scores, 0.9, first=12)
    for limit in (low, high):
        assert e_values(scores, limit)[-1] == pytest.approx(10, rel=1e-9)
    assert e_values(scores, (low + high) / 2)[-1] < 10
    wide = confidence_sequence(scores, 0.9, first=2)
    assert low <= wide[0]  # earlier looks can only exclude more
    assert wide[1] <= high


def test_scale_and_shift_do_not_matter():
    scores = np.random.default_rng(2).normal(1, 1, 8)
    assert e_values(scores * 1e-6, 0) == pytest.approx(e_values(scores, 0))
    assert e_values(scores + 3, 3) == pytest.approx(e_values(scores, 0))


def test_few_or_equal_differences():
    assert confidence_sequence([0.1, 0.2]) == (-math.inf, math.inf)
    assert p_value([0.2, 0.2, 0.2], 0.2) == 1
    assert p_value([0.2] * 8, 0.0) < 1e-5
    assert confidence_sequence([0.2] * 8) == (0.2, 0.2)
    assert p_value([0.1, 0.2], first=5) == 1
    for bad in ([0.1], [], [0.1, math.nan], 0.1):
        with pytest.raises(ValueError, match="one per seed"):
            e_values(bad)


def test_equal_differences_exclude_nothing_once_a_later_seed_differs():
    """Scores at a bound: six equal seeds would leave their mean alone, which the seventh refutes."""
    bound = [7.0] * 6
    assert confidence_sequence(bound, first=6) == (7.0, 7.0)
    later = [*bound, 2.1]
    low, high = confidence_sequence(later, first=6)
    assert low < np.mean(later) < 7 < high
    alone = e_values(later)[-1]
    assert p_value(later, first=6) == pytest.approx(min(1.0, 1 / alone))
    assert p_value(bound, first=6) < 0.001 < p_value(later, first=6)
