"""Statistics against hand calculations, scipy and identities. Seeds are fixed, false-alarm rates stated."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as reference

from maxrl_bench.analysis import stats

# Mean 23.25, median 6.5, interquartile mean 68/6: no two agree, so that none can stand in for another.
SCORES = np.array([60.0, 0, 3, 100, 5, 0, 8, 20, 2, 1, 30, 50])


def test_aggregates_by_hand_and_by_scipy() -> None:
    assert stats.mean(SCORES) == pytest.approx(279 / 12)
    assert stats.iqm(SCORES) == pytest.approx((2 + 3 + 5 + 8 + 20 + 30) / 6)
    for size in range(1, 13):
        assert stats.iqm(SCORES[:size]) == pytest.approx(reference.trim_mean(SCORES[:size], 0.25))
    assert stats.iqm(np.stack([SCORES, SCORES + 1])) == pytest.approx([68 / 6, 68 / 6 + 1])


def test_profile_is_the_share_strictly_above() -> None:
    assert stats.profile(np.array([0.1, 0.5, 0.5, 0.9]), np.array([0.0, 0.1, 0.5, 0.9])).tolist() == [1, 0.75, 0.25, 0]


def test_interval_covers_95_of_100_where_the_plain_percentiles_do_not() -> None:
    """1,500 samples of five normals. Coverage is 0.933 (plain percentiles: 0.857); 0.90 is five sigma away."""
    rng = np.random.default_rng(1)
    intervals = [stats.estimate([rng.normal(size=5)]) for _ in range(1500)]
    covered = np.mean([interval.low <= 0 <= interval.high for interval in intervals])
    assert 0.90 < covered < 0.97


@pytest.mark.parametrize("n", [5, 7, 10])
def test_of_normal_means_the_limits_are_students(n: int) -> None:
    """Resampled means of n values scatter by the deviation with ddof 0; Student's interval takes that with ddof 1."""
    values = np.linspace(-1, 1, n)
    samples = reference.norm.ppf((np.arange(400_000) + 0.5) / 400_000) * values.std() / np.sqrt(n)
    low, high = stats.limits(samples, n)
    assert (low, high) == pytest.approx(reference.t.interval(0.95, n - 1, 0, reference.sem(values)), rel=0.01)


def test_seeds_needed_have_the_power() -> None:
    """Of 20,000 paired t tests with so many seeds 80 % tell the difference; 5 deviations of that share are 1.4 %."""
    differences = np.array([0.9, 0.1, 0.5, 0.2, 0.8])
    n = int(stats.seeds_needed([differences]))
    rng = np.random.default_rng(0)
    drawn = rng.normal(differences.mean(), differences.std(ddof=1), size=(20_000, n))
    share = (reference.ttest_1samp(drawn, 0, axis=1).pvalue < 0.05).mean()
    fewer = (reference.ttest_1samp(drawn[:, : n - 1], 0, axis=1).pvalue < 0.05).mean()
    assert fewer < 0.8 + 0.014
    assert 0.8 - 0.014 < share < 0.9
    assert stats.seeds_needed([differences], threshold=float(differences.mean())) == np.inf
    assert np.isnan(stats.seeds_needed([differences[:1]]))
    assert stats.seeds_needed([differences * 10]) == n


@pytest.mark.parametrize("spread", [0.4, 1.0, 1.7, 3.0])
def test_seeds_needed_are_the_fewest_with_the_power_by_the_noncentral_f(spread: float) -> None:
    """t squared is F, of noncentrality n times the squared effect; the spread is that of a sample (ddof 1)."""
    differences = 0.5 + spread * np.array([0.4, -0.4, 0.0, -0.3, 0.3])

    def power(n: int, effect: float) -> float:
        bound = reference.f.ppf(0.95, 1, n - 1)
        return float(reference.ncf.sf(bound, 1, n - 1, n * effect**2))

    for threshold in (0.0, -0.2):
        effect = (differences.mean() - threshold) / differences.std(ddof=1)
        expected = next(n for n in range(2, 1000) if power(n, effect) >= 0.8)
        assert stats.seeds_needed([differences], threshold) == expected
        with_other_task = [differences, np.full(5, 2 * threshold - 0.5)]  # of which the mean is the threshold
        assert stats.seeds_needed(with_other_task, threshold) == np.inf


def test_many_seeds_give_the_interval_of_student() -> None:
    """Of 40 normals; the quantiles of 4,000 resamples vary by about 3 % of the width."""
    values = np.random.default_rng(2).normal(size=40)
    result = stats.estimate([values])
    expected = reference.t.interval(0.95, 39, values.mean(), reference.sem(values))
    assert (result.low, result.high) == pytest.approx(expected, abs=0.1 * (expected[1] - expected[0]))
    assert result.value == pytest.approx(values.mean())
    assert result.seeds == 40


def test_seeds_and_instances_both_add_their_variance() -> None:
    """Crossed and additive: the bootstrap variance of the mean is their sum; 12 % is five sigma of 4,000 resamples."""
    rng = np.random.default_rng(3)
    seeds, instances = rng.normal(size=6), 3 * rng.normal(size=50)
    drawn = stats.resample(seeds[:, None] + instances).mean(axis=1)
    assert drawn.var() == pytest.approx(seeds.var() / 6 + instances.var() / 50, rel=0.12)
    only_seeds = stats.resample((seeds[:, None] + instances).mean(axis=1)).mean(axis=1)
    assert only_seeds.var() == pytest.approx(seeds.var() / 6, rel=0.12)


def test_tasks_are_strata() -> None:
    """Resampling across tasks would mix the two levels and give the mean a width."""
    result = stats.estimate([np.zeros(5), np.ones(5)])
    assert (result.value, result.low, result.high) == (0.5, 0.5, 0.5)
    skewed = [np.arange(5.0), np.array([10, 20, 40, 80, 160.0])]
    assert stats.estimate(skewed, stats.iqm).value == pytest.approx(stats.iqm(np.concatenate(skewed)))


def test_every_task_has_resamples_of_its_own() -> None:
    """Shared ones would make the tasks' noises cancel here: the sum of both is the same on every seed."""
    up = np.arange(5.0)
    samples = stats.resample_strata([up, -up]).mean(axis=1)
    assert samples.std() == pytest.approx(up.std() / np.sqrt(5) / np.sqrt(2), rel=0.1)
    assert stats.estimate([up, -up]).low < 0 < stats.estimate([up, -up]).high
    # The same for instances, and for the chance of improvement: with common draws, gains and losses would cancel.
    grid = np.arange(20.0).reshape(1, 20).repeat(5, axis=0)
    assert stats.resample_strata([grid, -grid]).mean(axis=1).std() > 0.5
    noise = np.array([0.0, 1, 2, 3, 4])
    better = stats.probability_of_improvement([noise, np.full(5, 2.0)], [np.full(5, 2.0), noise])
    assert better.low < better.value == 0.5 < better.high


def test_the_number_of_seeds_is_that_of_the_task_with_the_fewest() -> None:
    """It decides how wide the interval is, and whether there is one."""
    few, many = np.arange(3.0), np.arange(8.0)
    for strata in ([few, many], [many, few]):
        result = stats.estimate(strata)
        assert result.seeds == 3
        samples = stats.resample_strata(strata).mean(axis=1)
        assert (result.low, result.high) == stats.limits(samples, 3) != stats.limits(samples, 8)
        assert stats.probability_of_improvement(strata, strata).seeds == 3
    assert np.isnan(stats.estimate([many, np.arange(2.0)]).low)


def test_a_statistic_is_computed_on_every_resample() -> None:
    """The interval of the interquartile mean ignores an outlier that widens that of the mean."""
    values = [np.array([*range(23), 1000.0])]
    assert stats.estimate(values, stats.iqm).high < 30 < stats.estimate(values, stats.mean).high


def test_resampling_is_seeded_and_large_enough() -> None:
    values = np.random.default_rng(4).normal(size=(5, 8))
    assert np.array_equal(stats.resample(values, 7), stats.resample(values, 7))
    assert not np.array_equal(stats.resample(values, 7), stats.resample(values, 8))
    assert len(stats.resample(values)) >= 2000
    assert stats.instance_weights(8, 0).sum(axis=1) == pytest.approx(1)


def test_one_seed_has_a_value_and_no_interval() -> None:
    result = stats.estimate([np.array([0.4])])
    assert result.value == 0.4
    assert np.isnan([result.low, result.high]).all()


def test_curves_are_means_with_intervals_at_every_point() -> None:
    values = np.random.default_rng(5).normal(size=(5, 30, 3)) + np.array([0, 10, 20])
    mean, low, high = stats.curve(values)
    assert mean == pytest.approx(values.mean(axis=(0, 1)))
    assert (low < mean).all()
    assert (mean < high).all()
    by_point = [stats.estimate([values[:, :, x]]) for x in range(3)]
    # Other resamples of the same distribution; the limits agree to a tenth of the width.
    assert high == pytest.approx([interval.high for interval in by_point], abs=0.1 * float((high - low).max()))
    flat = stats.curve(values.mean(axis=1))
    assert flat[0] == pytest.approx(mean)
    assert ((flat[2] - flat[1]) < (high - low)).all()


def test_paired_test_is_scipys() -> None:
    rng = np.random.default_rng(6)
    ours, theirs = rng.normal(size=7) + 0.4, rng.normal(size=7)
    assert stats.paired_p_value([ours - theirs]) == pytest.approx(reference.ttest_rel(ours, theirs).pvalue)
    shifted = reference.ttest_1samp(ours - theirs, 0.3).pvalue
    assert stats.paired_p_value([ours - theirs], 0.3) == pytest.approx(shifted)
    over_instances = np.stack([ours - theirs - 1, ours - theirs + 1], axis=1)
    assert stats.paired_p_value([over_instances]) == pytest.approx(stats.paired_p_value([ours - theirs]))
    two_tasks = [ours - theirs, rng.normal(size=7)]
    assert stats.paired_p_value(two_tasks) == pytest.approx(reference.ttest_1samp(sum(two_tasks) / 2, 0).pvalue)


def test_paired_test_without_spread() -> None:
    assert stats.paired_p_value([np.zeros(5)]) == 1
    assert stats.paired_p_value([np.full(5, 0.1)]) == 0
    assert np.isnan(stats.paired_p_value([np.ones(1)]))
    assert stats.paired_p_value([np.full(5, 0.1)], 0.1) == 1


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


def test_intervals_of_censored_samples_are_values_that_occur() -> None:
    samples = np.array([1.0] * 2000 + [np.inf] * 2000)
    assert stats.limits(samples, 5) == (1.0, np.inf)


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
