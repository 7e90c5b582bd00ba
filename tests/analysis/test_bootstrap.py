"""Resampling against enumeration and against a bootstrap written out in loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from scipy import stats as reference

from maxrl_bench.analysis import bootstrap, stats

RNG = np.random.default_rng(11)
# Two tasks: five seeds with seven instances, and six seeds without any.
STRATA = [RNG.exponential(1.0, (5, 1)) + RNG.exponential(2.0, (1, 7)), 3 + RNG.exponential(1.5, 6)]
OTHERS = [STRATA[0] * 0.8 + RNG.exponential(0.5, (5, 7)), 3.3 + RNG.exponential(1.5, 6)]


@pytest.fixture(autouse=True)
def all_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bootstrap, "RESAMPLES", 200_000)


def means(tasks: list[bootstrap.Task]) -> np.ndarray:
    return np.mean([scores.mean(axis=1) for (scores,) in tasks], axis=0)


def test_of_three_seeds_all_resamples_occur_as_often_as_enumerated() -> None:
    """All 27 draws of three seeds: how often each mean occurs, within five deviations of 200,000 draws."""
    scores = np.array([0.0, 1.0, 10.0])
    expected = np.array(sorted(np.mean(draw) for draw in itertools.product(scores, repeat=3)))
    drawn = bootstrap.resamples([(scores,)], means)
    assert len(drawn) == 200_000
    for value in np.unique(expected):
        share = (expected == value).mean()
        assert np.isclose(drawn, value).mean() == pytest.approx(share, abs=5 * np.sqrt(share / 200_000))


def test_the_variance_over_seeds_and_instances_is_that_of_both() -> None:
    """Additive scores: seeds with ddof 0 over S; of instances a sample without replacement, of binomial size n.

    Its variance is s^2 (1/n - 1/I). The deviation of 200,000 variances is 0.3 %; of independent tasks they add up.
    """
    rng = np.random.default_rng(3)
    seeds, instances = rng.normal(size=6), 3 * rng.normal(size=50)
    n = np.arange(1, 51)
    of_instances = (reference.binom.pmf(n, 50, 0.5) * (1 / n - 1 / 50)).sum() * instances.var(ddof=1)
    expected = seeds.var() / 6 + of_instances
    scores = seeds[:, None] + instances
    assert bootstrap.resamples([(scores,)], means).var() == pytest.approx(expected, rel=0.02)
    assert bootstrap.resamples([(scores,), (-scores,)], means).var() == pytest.approx(expected / 2, rel=0.02)


def test_arrays_of_one_task_are_redrawn_together() -> None:
    curves = RNG.normal(size=(5, 7, 3))
    together = bootstrap.resamples([(curves, curves + 1)], lambda tasks: tasks[0][1] - tasks[0][0], points=1, number=50)
    assert together.shape == (50, 5, 3)
    assert together == pytest.approx(np.ones((50, 5, 3)))


def test_the_same_arguments_give_the_same_resamples() -> None:
    first, again, other = (bootstrap.resamples([(STRATA[0],)], means, number=100, seed=seed) for seed in (7, 7, 8))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    scores = RNG.normal(size=(5, 64))
    assert len(set(bootstrap.resamples([(scores,)], means, number=5000))) > 4900  # no chunk repeats another


@pytest.mark.parametrize("n", [5, 7, 10])
def test_of_normal_means_the_limits_are_students(n: int) -> None:
    """Resampled means of n values scatter by the deviation with ddof 0; Student's interval takes that with ddof 1."""
    values = np.linspace(-1, 1, n)
    samples = reference.norm.ppf((np.arange(400_000) + 0.5) / 400_000) * values.std() / np.sqrt(n)
    low, high = bootstrap.limits(samples, n)
    assert (low, high) == pytest.approx(reference.t.interval(0.95, n - 1, 0, reference.sem(values)), rel=0.01)


def test_limits_hang_little_on_the_resamples() -> None:
    """At five seeds: over five draws a limit moves by at most 3 % of the interval's width."""
    scores = np.random.default_rng(0).normal(size=(5, 64)) + np.arange(5)[:, None]
    limits = np.array([bootstrap.limits(bootstrap.resamples([(scores,)], means, seed=seed), 5) for seed in range(5)])
    assert np.ptp(limits, axis=0).max() < 0.03 * (limits[:, 1] - limits[:, 0]).mean()


def test_intervals_of_censored_samples_are_values_that_occur() -> None:
    samples = np.array([1.0] * 2000 + [np.inf] * 2000)
    assert bootstrap.limits(samples, 5) == (1.0, np.inf)
    assert np.isnan(bootstrap.limits(samples, 2)).all()


def redrawn(scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Which seeds a resample holds, and which instances: each with even odds, all where that leaves none."""
    seeds = rng.integers(len(scores), size=len(scores))
    chosen = rng.integers(2, size=scores.shape[1]) if scores.ndim > 1 else None
    return seeds, chosen if chosen is None or chosen.any() else chosen + 1


def of_seeds(scores: np.ndarray, draw: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
    """One number, or curve, for each seed of a resample."""
    seeds, shares = draw
    return scores[seeds] if shares is None else np.array([np.average(scores[s], axis=0, weights=shares) for s in seeds])


def agree(interval: tuple[float, float], samples: np.ndarray, seeds: int) -> None:
    """Limits of an interval and those of 1,000 other resamples, whose outer quantiles vary by some % of the width."""
    low, high = bootstrap.limits(samples, seeds)
    assert interval == pytest.approx((float(low), float(high)), abs=0.15 * float(high - low))


def test_chances_to_win_over_tasks() -> None:
    """Seeds and instances of both sides redrawn together, by task; averaged, not by the middle task."""
    rng = np.random.default_rng(3)
    ours, theirs = [*STRATA, np.arange(5.0)], [*OTHERS, np.arange(5.0) - 9]  # the third is certain

    def wins(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]))

    estimate = stats.probability_of_improvement(ours, theirs)
    plain = [wins(stats.by_seed(a), stats.by_seed(b)) for a, b in zip(ours, theirs, strict=True)]
    assert estimate.value == pytest.approx(np.mean(plain))
    assert np.mean(plain) != pytest.approx(np.median(plain))
    samples = []
    for _ in range(1000):
        draws = [redrawn(a, rng) for a in ours]
        samples.append(
            np.mean([wins(of_seeds(a, d), of_seeds(b, d)) for a, b, d in zip(ours, theirs, draws, strict=True)])
        )
    agree(estimate[1:3], np.array(samples), 5)
    assert estimate.seeds == 5


def test_samples_saved_are_paired_by_seed_and_instance() -> None:
    """Ours is theirs with twice the samples, whatever the seed and instance: nothing is left to chance."""
    ks = 2.0 ** np.arange(8)
    rates = RNG.uniform(0.001, 0.1, (5, 6, 1))
    theirs, ours = 1 - (1 - rates) ** ks, 1 - (1 - rates) ** (2 * ks)
    assert stats.saving_limits(ks, ours, theirs, 64) == pytest.approx((2, 2), rel=1e-6)
    by_seed = stats.saving_limits(ks, ours.mean(axis=1), theirs, 64)  # instances stored for one side
    assert by_seed == pytest.approx((2, 2), rel=1e-6)
    apart = stats.saving_limits(ks, ours, theirs[::-1, ::-1], 64)
    assert apart[0] < 1.9 < 2.1 < apart[1]


def test_profiles_have_bands_over_seeds() -> None:
    rng = np.random.default_rng(4)
    levels = np.linspace(0, 8, 5)
    plain, low, high = stats.profile_curve(STRATA, levels)
    assert plain == pytest.approx([np.mean([*STRATA[0].mean(axis=1), *STRATA[1]] > level) for level in levels])
    samples = []
    for _ in range(1000):
        scores = np.concatenate([of_seeds(scores, redrawn(scores, rng)) for scores in STRATA])
        samples.append([np.mean(scores > level) for level in levels])
    expected = bootstrap.limits(np.array(samples), 5)
    assert low == pytest.approx(expected[0], abs=0.19)  # two runs of eleven: 1,000 resamples
    assert high == pytest.approx(expected[1], abs=0.19)


def test_by_seed_is_the_mean_over_instances() -> None:
    scores = np.array([[0.0, 0.0, 9.0], [1.0, 2.0, 6.0]])
    assert stats.by_seed(scores).tolist() == [3, 3]
    assert stats.by_seed(scores[:, 0]).tolist() == [0, 1]
