"""Intervals against a bootstrap written out in loops: tasks, seeds and instances differ in number."""

from __future__ import annotations

import numpy as np
import pytest

from maxrl_bench.analysis import stats

RNG = np.random.default_rng(11)
# Two tasks: five seeds with seven instances, and six seeds without any; mean, median and trimmed mean differ.
STRATA = [RNG.exponential(1.0, (5, 1)) + RNG.exponential(2.0, (1, 7)), 3 + RNG.exponential(1.5, 6)]
OTHERS = [STRATA[0] * 0.8 + RNG.exponential(0.5, (5, 7)), 3.3 + RNG.exponential(1.5, 6)]
RESAMPLES = 3000


def redrawn(scores: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray | None]:
    """Which seeds and which instances a resample holds."""
    seeds = rng.integers(len(scores), size=len(scores))
    return seeds, rng.integers(scores.shape[1], size=scores.shape[1]) if scores.ndim == 2 else None


def of_seeds(scores: np.ndarray, draw: tuple[np.ndarray, np.ndarray | None]) -> np.ndarray:
    """One number for each seed of a resample."""
    seeds, instances = draw
    return scores[seeds] if instances is None else scores[seeds][:, instances].mean(axis=1)


def agree(interval: tuple[float, float], samples: np.ndarray, seeds: int) -> None:
    """Limits of an interval and those of other resamples, whose outer quantiles vary by a few per cent of the width."""
    low, high = stats.limits(samples, seeds)
    assert interval == pytest.approx((float(low), float(high)), abs=0.12 * float(high - low))


@pytest.mark.parametrize("statistic", [stats.mean, stats.iqm])
def test_estimates_over_tasks(statistic: stats.Statistic) -> None:
    rng = np.random.default_rng(1)
    result = stats.estimate(STRATA, statistic)
    plain = np.concatenate([STRATA[0].mean(axis=1), STRATA[1]])
    assert result.value == pytest.approx(float(statistic(plain)))
    assert float(statistic(plain)) != pytest.approx(float(np.median(plain)))
    samples = [
        statistic(np.concatenate([of_seeds(scores, redrawn(scores, rng)) for scores in STRATA]))
        for _ in range(RESAMPLES)
    ]
    agree(result[1:3], np.array(samples), 5)
    assert result.seeds == 5


def test_curves() -> None:
    """[S, I, X]: every point with the same resamples, its seeds and instances redrawn."""
    rng = np.random.default_rng(2)
    values = STRATA[0][..., None] * np.array([0.1, 1.0, 4.0])
    mean, low, high = stats.curve(values)
    assert mean == pytest.approx(STRATA[0].mean() * np.array([0.1, 1.0, 4.0]))
    samples = np.array([of_seeds(STRATA[0], redrawn(STRATA[0], rng)).mean() for _ in range(RESAMPLES)])
    for point, factor in enumerate((0.1, 1.0, 4.0)):
        agree((low[point], high[point]), factor * samples, 5)
    np.testing.assert_allclose(low / low[0], [1, 10, 40])


def test_probability_of_improvement_over_tasks() -> None:
    """Seeds and instances of both sides redrawn together, by task; averaged, not by the middle task."""
    rng = np.random.default_rng(3)
    third = [np.arange(5.0)], [np.arange(5.0) - 9]  # certain
    ours, theirs = [*STRATA, *third[0]], [*OTHERS, *third[1]]

    def wins(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([(x > y) + 0.5 * (x == y) for x in a for y in b]))

    estimate = stats.probability_of_improvement(ours, theirs)
    plain = [wins(stats.by_seed(a), stats.by_seed(b)) for a, b in zip(ours, theirs, strict=True)]
    assert estimate.value == pytest.approx(np.mean(plain))
    assert np.mean(plain) != pytest.approx(np.median(plain))
    samples = []
    for _ in range(RESAMPLES):
        draws = [redrawn(a, rng) for a in ours]
        samples.append(
            np.mean([wins(of_seeds(a, d), of_seeds(b, d)) for a, b, d in zip(ours, theirs, draws, strict=True)])
        )
    agree(estimate[1:3], np.array(samples), 5)
    assert estimate.seeds == 5


def test_by_seed_is_the_mean_over_instances() -> None:
    scores = np.array([[0.0, 0.0, 9.0], [1.0, 2.0, 6.0]])
    assert stats.by_seed(scores).tolist() == [3, 3]
    assert stats.by_seed(scores[:, 0]).tolist() == [0, 1]
    assert stats.paired_p_value([scores - 3]) == 1  # no difference, by the mean; by the median there is one
