"""Statistics over few seeds: intervals, aggregates over tasks, paired comparisons, curves.

One data convention: the scores of an objective on a task are `[S]` (one number per seed) or `[S, I]` (one per seed and
held-out instance, the same instances for every seed). Tasks are strata: a list of such arrays. Resampling draws seeds
and, where there are any, instances (independently, since they are crossed), never tasks.

Percentile intervals of so few seeds are too narrow (five cover about 84 % instead of 95), so the percentiles are the
expanded ones of Hesterberg 2015 (arXiv 1411.5279, section 5.3): those at which the interval for a mean of normal values
has the width of Student's. Below five seeds no resample lies so far out: the interval is then their whole range.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

RESAMPLES = 4000
LEVEL = 0.95
FEWEST_SEEDS = 3  # for an interval: the range of two values says next to nothing about others
MOST_SEEDS = 1000  # a difference that needs more is reported as none
Statistic = Callable[[np.ndarray], np.ndarray]  # [..., M] -> [...]


class Estimate(NamedTuple):
    """A value and its 95 % interval; NaN limits where there are fewer than FEWEST_SEEDS."""

    value: float
    low: float
    high: float
    seeds: int


# --- aggregates, over the last axis ---------------------------------------------------------------------------------


def mean(scores: np.ndarray) -> np.ndarray:
    """The mean over the last axis."""
    return np.asarray(scores, np.float64).mean(axis=-1)


def iqm(scores: np.ndarray) -> np.ndarray:
    """The interquartile mean over the last axis: the mean without the lowest and the highest quarter.

    A quarter of M is rounded down. Source: Agarwal et al. 2021 (arXiv 2108.13264).
    """
    from scipy.stats import trim_mean  # scipy.stats takes longer to import than all the rest

    return np.asarray(trim_mean(np.asarray(scores, np.float64), 0.25, axis=-1))


def profile(scores: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """Performance profile: the share of scores above each level, [..., M], [L] -> [..., L].

    Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.2.
    """
    return (np.asarray(scores)[..., None] > np.asarray(levels)).mean(axis=-2)


# --- resampling -----------------------------------------------------------------------------------------------------


Seed = int | tuple[int, ...]


@functools.lru_cache(maxsize=64)
def seed_draws(num_seeds: int, seed: Seed, resamples: int = RESAMPLES) -> np.ndarray:
    """The seeds of each resample: [R, S] indices, drawn with replacement; the same for the same arguments."""
    return np.random.default_rng((0, *_tuple(seed))).integers(num_seeds, size=(resamples, num_seeds))


@functools.lru_cache(maxsize=32)
def instance_weights(num_instances: int, seed: Seed, resamples: int = RESAMPLES) -> np.ndarray:
    """The share that each instance has in a resample: [R, I], rows sum to 1; the same for the same arguments."""
    rng = np.random.default_rng((1, *_tuple(seed)))
    return rng.multinomial(num_instances, np.full(num_instances, 1 / num_instances), size=resamples) / num_instances


def _tuple(seed: Seed) -> tuple[int, ...]:
    return seed if isinstance(seed, tuple) else (seed,)


def resample(scores: np.ndarray, seed: Seed = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Bootstrap scores [S] or [S, I] -> [R, S]: seeds redrawn, each scored by its mean over redrawn instances.

    Scores of equal shape and seed share their resamples, so that their differences are paired.
    """
    draws = seed_draws(len(scores), seed, resamples)
    if scores.ndim == 1:
        return scores[draws]
    by_seed = instance_weights(scores.shape[1], seed, resamples) @ scores.T
    return np.take_along_axis(by_seed, draws, axis=1)


def resample_strata(strata: Sequence[np.ndarray], seed: int = 0, resamples: int = RESAMPLES) -> np.ndarray:
    """Bootstrap the scores of several tasks, each on its own: [S_t] or [S_t, I_t] each -> [R, sum of S_t]."""
    return np.concatenate([resample(s, (seed, t), resamples) for t, s in enumerate(strata)], axis=1)


def by_seed(scores: np.ndarray) -> np.ndarray:
    """Scores [S] or [S, I] -> [S], averaged over instances."""
    return scores if scores.ndim == 1 else scores.mean(axis=1)


def limits(samples: np.ndarray, num_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval that bootstrap samples [R, ...] give: two [...] arrays, NaN for fewer than FEWEST_SEEDS.

    Expanded percentiles (see the module). Samples may be infinite (censored); the limits are then values that occur.
    """
    if num_seeds < FEWEST_SEEDS:
        return np.full(samples.shape[1:], np.nan), np.full(samples.shape[1:], np.nan)
    quantile = special.stdtrit(num_seeds - 1, (1 - LEVEL) / 2) * math.sqrt(num_seeds / (num_seeds - 1))
    tail = float(special.ndtr(quantile))
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high


def estimate(strata: Sequence[np.ndarray], statistic: Statistic = mean, seed: int = 0) -> Estimate:
    """A statistic of the scores of all strata together, with its stratified bootstrap interval.

    strata: one [S] or [S, I] array per task; statistic: [..., M] -> [...], given one score per (task, seed). The
    interval's number of seeds is that of the smallest stratum.
    """
    scores = np.concatenate([by_seed(s) for s in strata])
    samples = statistic(resample_strata(strata, seed))
    seeds = min(len(s) for s in strata)
    low, high = limits(samples, seeds)
    return Estimate(float(statistic(scores)), float(low), float(high), seeds)


def curve(values: np.ndarray, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean over seeds (and instances) at each of X points, and the limits of its interval: three [X] arrays.

    values: [S, X], or [S, I, X] with instances. All points share the resamples; curves of equal shape and seed too.
    """
    samples = curve_samples(values, seed)
    low, high = limits(samples, len(values))
    return values.reshape(-1, values.shape[-1]).mean(axis=0), low, high


def curve_samples(values: np.ndarray, seed: int = 0) -> np.ndarray:
    """Bootstrap mean curves [R, X] of values [S, X] or [S, I, X]."""
    draws = seed_draws(len(values), seed)
    share = (draws[:, :, None] == np.arange(len(values))).mean(axis=1)  # [R, S]
    if values.ndim == 2:
        return share @ values
    instances = instance_weights(values.shape[1], seed)
    points = [((instances @ values[:, :, x].T) * share).sum(axis=1) for x in range(values.shape[2])]
    return np.stack(points, axis=1)


# --- comparisons on common seeds ------------------------------------------------------------------------------------


def paired_p_value(differences: Sequence[np.ndarray], threshold: float = 0.0) -> float:
    """Two-sided paired t test over seeds that the mean difference is `threshold`; NaN for fewer than two seeds.

    differences: per task [S] or [S, I], the same seeds in each; tasks and instances are averaged within a seed.
    """
    means = np.mean([by_seed(d) for d in differences], axis=0) - threshold
    if len(means) < 2:
        return math.nan
    spread = float(means.std(ddof=1))
    if spread <= 1e-12 * max(1.0, float(np.abs(means).max())):
        return 1.0 if abs(means.mean()) < 1e-12 else 0.0
    from scipy.stats import ttest_1samp

    return float(ttest_1samp(means, 0.0).pvalue)


def seeds_needed(differences: Sequence[np.ndarray], threshold: float = 0.0, power: float = 0.8) -> float:
    """The fewest seeds with which a paired t test at 5 % would tell the mean difference from `threshold`.

    With the given power, if mean and spread of the seeds are those seen (by the noncentral t distribution). Infinite if
    more than MOST_SEEDS; NaN for fewer than two seeds.
    """
    from scipy.stats import nct

    means = np.mean([by_seed(d) for d in differences], axis=0) - threshold
    if len(means) < 2:
        return math.nan
    spread = float(means.std(ddof=1))
    n = np.arange(2, MOST_SEEDS + 1)
    shift = np.sqrt(n) * abs(float(means.mean())) / max(spread, 1e-12)
    enough = nct.sf(special.stdtrit(n - 1, 1 - (1 - LEVEL) / 2), n - 1, np.minimum(shift, 30)) >= power
    return float(n[enough.argmax()]) if enough.any() else math.inf


def probability_of_improvement(ours: Sequence[np.ndarray], theirs: Sequence[np.ndarray], seed: int = 0) -> Estimate:
    """The chance that a run of ours scores above one of theirs (ties count half), averaged over tasks.

    ours, theirs: per task [S] or [S, I] on common seeds (and instances), which are redrawn together. Per task it is the
    Mann-Whitney U over S * S. Source: Agarwal et al. 2021 (arXiv 2108.13264), section 4.3. Raises ValueError where the
    two differ in shape.
    """
    values, samples = [], []
    for t, (a, b) in enumerate(zip(ours, theirs, strict=True)):
        if a.shape != b.shape:
            raise ValueError(f"scores on common seeds have one shape, not {a.shape} and {b.shape}")
        values.append(_wins(by_seed(a)[None], by_seed(b)[None])[0])
        samples.append(_wins(resample(a, (seed, t)), resample(b, (seed, t))))
    seeds = min(len(a) for a in ours)
    low, high = limits(np.mean(samples, axis=0), seeds)
    return Estimate(float(np.mean(values)), float(low), float(high), seeds)


def _wins(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    above, equal = a[:, :, None] > b[:, None, :], a[:, :, None] == b[:, None, :]
    return (above + 0.5 * equal).mean(axis=(1, 2))


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


def non_dominated(points: np.ndarray) -> np.ndarray:
    """Which points [M, 2] are on the Pareto front: no other is at least as good in both and better in one; [M] bool."""
    points = np.asarray(points, np.float64)
    at_least = (points[:, None, :] >= points[None, :, :]).all(axis=2)
    better = (points[:, None, :] > points[None, :, :]).any(axis=2)
    return np.asarray(~(at_least & better).any(axis=0))
