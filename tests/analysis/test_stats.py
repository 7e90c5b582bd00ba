"""Statistics against hand calculations, scipy and identities. Seeds are fixed, false-alarm rates stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from maxrl_bench.analysis import stats


def test_profile_is_the_share_strictly_above() -> None:
    assert stats.profile(np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 0.1, 0.5, 0.9])).tolist() == [1, 0.75, 0.25, 0]


def test_one_seed_has_a_value_and_no_interval() -> None:
    result = stats.estimate([np.array([0.4])])
    assert result.value == 0.4
    assert np.isnan([result.low, result.high]).all()


def test_probability_of_improvement_is_mann_whitneys() -> None:
    ours, theirs = np.array([1.0, 5, 5, 9, 12]), np.array([0.0, 5, 6, 7, 8])
    u = reference.mannwhitneyu(ours, theirs).statistic
    estimate = stats.probability_of_improvement([ours], [theirs])
    assert estimate.value == pytest.approx(u / 25)
    assert estimate.low <= estimate.value <= estimate.high
    assert stats.probability_of_improvement([theirs], [ours]).value == pytest.approx(1 - u / 25)
    two = stats.probability_of_improvement([ours, theirs], [theirs, theirs])
    assert two.value == pytest.approx((u / 25 + 0.5) / 2)
    with pytest.raises(ValueError, match="one shape"):
        stats.probability_of_improvement([ours], [theirs[:3]])


def test_probability_of_improvement_draws_common_seeds_together() -> None:
    """Ours beats theirs on every seed, but by less than seeds differ: only paired resamples keep their ranks."""
    base = np.array([0.0, 10, 20, 30, 40])
    together = stats.probability_of_improvement([base + 1], [base])
    assert together.low >= 0.5


def test_holm_by_hand() -> None:
    """Sorted .005 .01 .03 .04 times 4, 3, 2, 1 = .02 .03 .06 .04; the last is raised to .06."""
    assert stats.holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert stats.holm([0.9, 0.8]) == pytest.approx([1, 1])
    with_gap = stats.holm([0.02, np.nan, 0.03])
    assert with_gap[[0, 2]] == pytest.approx([0.04, 0.04])
    assert np.isnan(with_gap[1])


def test_area_of_uneven_steps() -> None:
    """(0 to 2: mean 1) and (2 to 10: mean 3): (2 * 1 + 8 * 3) / 10."""
    assert stats.area(np.array([0.0, 2, 10]), np.array([0.0, 2, 4])) == pytest.approx(2.6)
    assert stats.area(np.array([5.0]), np.array([[0.3], [0.4]])) == pytest.approx([0.3, 0.4])


def test_crossing_interpolates_and_censors() -> None:
    x = np.array([0.0, 10, 20, 30])
    curves = np.array([[0, 0.2, 0.6, 0.4], [0.5, 0.1, 0.1, 0.1], [0, 0.1, 0.2, 0.29], [0, 0.3, 0.1, 0.6]])
    assert stats.crossing(x, curves, 0.3).tolist() == pytest.approx([12.5, 0, np.inf, 10])


@given(st.floats(1e-5, 0.01), st.sampled_from([2, 4, 16]))
@settings(max_examples=30, deadline=None)
def test_samples_saved_is_the_shift_along_log_k(p: float, factor: int) -> None:
    """Ours needs k where theirs needs factor * k: the curves are shifts of each other, whatever p."""
    ks = 2.0 ** np.arange(11)
    theirs, ours = (1 - (1 - p) ** (ks * shift) for shift in (1, factor))
    assert stats.samples_saved(ks, ours, theirs, 128) == pytest.approx(factor, rel=1e-6)
    assert stats.samples_saved(ks, theirs, ours, 16) == pytest.approx(1 / factor, rel=1e-6)


def test_samples_saved_between_the_measured_k() -> None:
    """0.6 lies halfway from 0.4 at 2 to 0.8 at 4: at 2 * sqrt 2 along the log axis."""
    ks = np.array([1.0, 2, 4])
    saved = stats.samples_saved(ks, np.array([0.2, 0.4, 0.8]), np.array([0.1, 0.2, 0.6]), 4)
    assert saved == pytest.approx(4 / (2 * np.sqrt(2)))


def test_samples_saved_is_censored_beyond_the_curve() -> None:
    ks = 2.0 ** np.arange(11)
    low, high = 0.1 + 0.01 * np.arange(11), 0.5 + 0.01 * np.arange(11)
    assert stats.samples_saved(ks, high, low, 128) == np.inf
    assert stats.samples_saved(ks, low, high, 128) == 0
    assert stats.samples_saved(ks, low, low, 1) == 1


def test_non_dominated_points() -> None:
    points = np.array([[0.9, 0.1], [0.5, 0.5], [0.1, 0.9], [0.5, 0.4], [0.4, 0.4], [0.5, 0.5]])
    assert stats.non_dominated(points).tolist() == [True, True, True, False, False, True]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_and_two_seeds_have_no_interval(seeds: int) -> None:
    """Two values have a range, not a 95 % interval."""
    result = stats.estimate([np.arange(seeds, dtype=float)])
    assert np.isnan([result.low, result.high]).all()
    assert np.isnan(stats.curve(np.ones((seeds, 4)))[1:]).all()
    assert np.isfinite(stats.estimate([np.arange(3.0)])[:3]).all()


def test_the_mean_over_tasks_and_its_seeds() -> None:
    result = stats.estimate([np.zeros(5), np.ones(8)])
    assert result == (0.5, 0.5, 0.5, 5)
    few = stats.estimate([np.arange(8.0), np.arange(2.0)])
    assert (few.value, few.seeds) == (2.0, 2)
    assert np.isnan(few.low)
