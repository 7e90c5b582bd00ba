"""Estimates over few seeds, aggregates over tasks, chances of improvement, correction for many tests, and curves.

One data convention: the scores of an objective on a task are `[S]` (one number per seed) or `[S, I]` (one per seed and
held-out instance, the same instances for every seed). Tasks are strata: a list of such arrays. Means have their
intervals in closed form (`crossed`); what is no mean is resampled (`bootstrap`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from maxrl_bench.analysis import bootstrap
from maxrl_bench.analysis.crossed import FEWEST_SEEDS as FEWEST_SEEDS
from maxrl_bench.analysis.crossed import LEVEL as LEVEL
from maxrl_bench.analysis.crossed import mean_of


class Estimate(NamedTuple):
    """A value and its 95 % interval; NaN limits where there are fewer than FEWEST_SEEDS."""

    value: float
    low: float
    high: float
    seeds: int


def by_seed(scores: np.ndarray) -> np.ndarray:
    """Scores [S] or [S, I] -> [S], averaged over instances."""
    return scores if scores.ndim == 1 else scores.mean(axis=1)


def estimate(strata: Sequence[np.ndarray]) -> Estimate:
    """The mean over tasks, seeds and instances; strata: [S] or [S, I] per task. Seeds: of the task with the fewest."""
    mean = mean_of(strata)
    low, high = mean.limits()
    return Estimate(float(mean.value), float(low), float(high), mean.seeds)


def curve(values: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds (and instances) at each of X points, and the limits of its interval: three [X] arrays.

    values: [S, X], or [S, I, X] with instances. The intervals are of each point, not of all together.
    """
    mean = mean_of([values], points=1)
    return mean.value, *mean.limits()


def profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Performance profile: the share of scores above each level, [..., M], [L] ascending -> [..., L].

    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.2.
    """
    scores = np.asarray(scores)
    rows, bins = scores.size // scores.shape[-1], len(levels) + 1
    below = np.searchsorted(levels, scores.reshape(rows, -1))  # how many levels each score is above
    counts = np.bincount((below + bins * np.arange(rows)[:, None]).ravel(), minlength=rows * bins).reshape(rows, bins)
    above = counts[:, ::-1].cumsum(axis=1)[:, -2::-1]
    return (above / scores.shape[-1]).reshape(*scores.shape[:-1], -1)


def profile_curve(strata: Sequence[np.ndarray], levels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The performance profile of the runs of all tasks, and the limits of its interval: three [L] arrays."""
    drawn = bootstrap.resamples(
        [(s,) for s in strata], lambda tasks: profile(np.concatenate([s for (s,) in tasks], axis=1), levels)
    )
    plain = profile(np.concatenate([by_seed(s) for s in strata]), levels)
    return plain, *bootstrap.limits(drawn, min(map(len, strata)))


def probability_of_improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray]) -> Estimate:
    """The chance that a run of ours scores above one of theirs (ties count half), averaged over tasks.

    ours, theirs: per task [S] or [S, I] on common seeds (and instances), which are redrawn together. Per task it is the
    Mann-Whitney U over S * S. Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3. Raises ValueError where the
    two differ in shape.
    """
    for a, b in zip(ours, theirs, strict=True):
        if a.shape != b.shape:
            raise ValueError(f"scores on common seeds have one shape, not {a.shape} and {b.shape}")
    value = _wins([(by_seed(a)[None], by_seed(b)[None]) for a, b in zip(ours, theirs, strict=True)])
    seeds = min(len(a) for a in ours)
    low, high = bootstrap.limits(bootstrap.resamples(list(zip(ours, theirs, strict=True)), _wins), seeds)
    return Estimate(float(value[0]), float(low), float(high), seeds)


def _wins(tasks: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
    """Per resample, the mean over tasks of the share of pairs that ours wins: ours, theirs [R, S] each -> [R]."""
    means = []
    for a, b in tasks:
        signs = [np.sign(a - b[:, i : i + 1]).sum(axis=1) for i in range(b.shape[1])]
        means.append((np.sum(signs, axis=0) / (a.shape[1] * b.shape[1]) + 1) / 2)
    return np.asarray(np.mean(means, axis=0))


def holm(p_values: Sequence[float]) -> np.ndarray:
    """Holm's adjusted p values (Holm 1979): valid for all the tests together. NaNs stay NaN and do not count."""
    p = np.asarray(p_values, np.float64)
    adjusted = np.full(len(p), np.nan)
    tested = np.flatnonzero(~np.isnan(p))
    order = tested[np.argsort(p[tested], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * p[order]))
    return adjusted


# --- curves ---------------------------------------------------------------------------------------------------------


def area(x: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Mean height of curves [..., X] over [x[0], x[-1]], by the trapezoidal rule: the area under them, normalised."""
    if len(x) < 2:
        return np.asarray(values, np.float64)[..., 0]
    return np.trapezoid(values, x, axis=-1) / (x[-1] - x[0])


def crossing(x: np.ndarray, values: np.ndarray, level: np.ndarray | float) -> np.ndarray:
    """Where curves [..., X] first reach `level` [...], linear between points; infinite where never (censored)."""
    values = np.asarray(values, np.float64)
    level = np.broadcast_to(np.asarray(level, np.float64), values.shape[:-1])
    reached = values >= level[..., None]
    after = reached.argmax(axis=-1)
    before = np.maximum(after - 1, 0)
    high = np.take_along_axis(values, after[..., None], -1)[..., 0]
    low = np.take_along_axis(values, before[..., None], -1)[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = np.where(after > before, (level - low) / (high - low), 0.0)
    position = x[before] + share * (x[after] - x[before])
    return np.where(reached.any(axis=-1), position, np.inf)


def samples_saved(ks: np.ndarray, ours: np.ndarray, theirs: np.ndarray, k: float) -> np.ndarray:
    """How many times fewer samples ours needs for the coverage that theirs has with k: k / (k' with equal pass@k').

    ks: [X] increasing, k one of them; ours, theirs: pass@k curves [..., X]. Interpolated linearly in log k. Infinite
    where ours has more with the fewest samples already, 0 where it gets there with none of ks (both censored).
    """
    column = int(np.flatnonzero(np.asarray(ks) == k)[0])
    target = np.asarray(theirs, np.float64)[..., column]
    needed = np.exp(crossing(np.log(ks), ours, target))
    return np.where(np.asarray(ours)[..., 0] > target, np.inf, k / needed)


def front_gap(ours: np.ndarray, theirs: np.ndarray) -> float:
    """How much higher the front of ours lies, on average over the values x of pass@1 that both attained in training.

    ours, theirs: [2, X], pass@1 and a metric at each evaluation. A run's front at x is its highest metric at a pass@1
    of x or more. From the first evaluation's pass@1 (the greater) to the best (the lesser); NaN where that is no way.
    """
    if not (ours.shape[1] and theirs.shape[1]):
        return math.nan
    low, high = max(ours[0, 0], theirs[0, 0]), min(ours[0].max(), theirs[0].max())
    if high <= low:
        return math.nan
    steps = np.unique(np.concatenate([[low, high], ours[0], theirs[0]]))
    ends = steps[(steps > low) & (steps <= high)]  # a front is constant up to each, and from there on lower
    heights = [np.where(run[0] >= ends[:, None], run[1], -np.inf).max(axis=1) for run in (ours, theirs)]
    return float((heights[0] - heights[1]) @ np.diff(ends, prepend=low) / (high - low))


def saving_limits(ks: np.ndarray, ours: np.ndarray, theirs: np.ndarray, k: float) -> tuple[float, float]:
    """The limits of the interval of `samples_saved` between mean curves.

    ours, theirs: [S, X] or [S, I, X] on common seeds, paired; by instance too where both have the same.
    """
    if ours.shape != theirs.shape:
        ours, theirs = (curves.mean(axis=1) if curves.ndim == 3 else curves for curves in (ours, theirs))

    def saved(tasks: Sequence[tuple[np.ndarray, ...]]) -> np.ndarray:
        a, b = (curves.mean(axis=1) for curves in tasks[0])
        return samples_saved(ks, a, b, k)

    low, high = bootstrap.limits(bootstrap.resamples([(ours, theirs)], saved, points=1), len(ours))
    return float(low), float(high)


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which points [M, 2] are on the Pareto front: no other is at least as good in both and better in one; [M] bool."""
    points = np.asarray(points, np.float64)
    at_least = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))
