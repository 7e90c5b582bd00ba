"""The mean of scores over seeds and held-out instances, and how sure it is, in closed form.

Scores are `[S]` (one number per seed) or `[S, I]` (one per seed and held-out instance, the same instances for every
seed). Seeds and instances are then crossed, two samples of which every pair is seen once, and the mean varies with
both: over other seeds, and over other instances. Several tasks are independent of each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

LEVEL = 0.95
FEWEST_SEEDS = 3  # for an interval: of two seeds Student's is 13 times wider than they are apart
MOST_DF = 4  # times S - 1: of three seeds, more let one interval in thirteen miss the mean (docs/statistics.md)
_ROUNDING = 1e-12  # of the largest score: differences so small are none


class Mean(NamedTuple):
    """Means [...], their variances and degrees of freedom [...]; over how many seeds and instances (0: none stored)."""

    value: np.ndarray
    variance: np.ndarray
    df: np.ndarray
    seeds: int
    instances: int

    @property
    def error(self) -> np.ndarray:
        """The standard error."""
        return np.sqrt(self.variance)

    def limits(self, level: float = LEVEL) -> tuple[np.ndarray, np.ndarray]:
        """The limits of the interval, by Student's t; NaN for fewer than FEWEST_SEEDS seeds."""
        half = special.stdtrit(self.df, (1 + level) / 2) * self.error
        return self.value - half, self.value + half


def mean_of(tasks: Sequence[np.ndarray], points: int = 0) -> Mean:
    """The mean over tasks of each task's mean score.

    tasks: per task [S] or [S, I]; with points = 1 [S, X] or [S, I, X], and a mean for each of X points. Variances add
    up as V = sum V_t / T^2, and the degrees of freedom are Satterthwaite's (1946) from all mean squares: of one task
    without instances S - 1, of several Welch's, and at most MOST_DF times those of the seeds. Raises ValueError without
    tasks or seeds.
    """
    if not tasks or not all(len(scores) for scores in tasks):
        raise ValueError("a mean needs scores of at least one task and one seed")
    values: list[np.ndarray] = []
    parts: list[np.ndarray] = []
    dfs: list[int] = []
    instances: list[int] = []
    fewest = min(len(scores) for scores in tasks)
    for scores in tasks:
        scores = np.asarray(scores, np.float64)
        if scores.ndim - points == 2 and scores.shape[1] == 1:
            scores = scores[:, 0]
        two_way = scores.ndim - points == 2
        instances.append(scores.shape[1] if two_way else 0)
        values.append(scores.mean(axis=(0, 1) if two_way else 0))
        if fewest >= FEWEST_SEEDS:
            own, own_dfs = _crossed(scores) if two_way else _seeds(scores)
            parts.append(own / len(tasks) ** 2)
            dfs += own_dfs
    value = np.mean(values, axis=0)
    if fewest < FEWEST_SEEDS:
        missing = np.full(value.shape, np.nan)
        return Mean(value, missing, missing, fewest, min(instances))
    terms = np.concatenate(parts)  # [P, ...]
    variance = terms.sum(axis=0)
    squares = np.tensordot(1 / np.array(dfs), terms**2, axes=1)
    exact = squares == 0
    most = MOST_DF * sum(len(scores) - 1 for scores in tasks)
    df = np.where(exact, fewest - 1, np.minimum(most, variance**2 / np.where(exact, 1, squares)))
    return Mean(value, variance, df, fewest, min(instances))


def _seeds(scores: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """[S, ...] -> the variance of its mean, as one part [1, ...] with S - 1 degrees of freedom."""
    return _cleared(scores.var(axis=0, ddof=1), scores)[None] / len(scores), [len(scores) - 1]


def _crossed(scores: np.ndarray) -> tuple[np.ndarray, list[int]]:
    """[S, I, ...] -> the parts [3, ...] of the variance (MS_s + MS_i - MS_e) / (S I) of its mean, and their df.

    Mean squares of the unreplicated two-way layout. Where instances vary less than the interaction lets them, the
    seeds' mean square stands alone.
    """
    seeds, instances = scores.shape[:2]
    mean = scores.mean(axis=(0, 1))
    by_seed, by_instance = scores.mean(axis=1) - mean, scores.mean(axis=0) - mean
    ms_s = instances * (by_seed**2).sum(axis=0) / (seeds - 1)
    ms_i = seeds * (by_instance**2).sum(axis=0) / (instances - 1)
    rest = scores - by_seed[:, None] - by_instance[None] - mean
    ms_e = (rest**2).sum(axis=(0, 1)) / ((seeds - 1) * (instances - 1))
    alone = ms_i < ms_e
    parts = np.stack([_cleared(ms_s, scores), np.where(alone, 0, ms_i), np.where(alone, 0, -ms_e)])
    return parts / (seeds * instances), [seeds - 1, instances - 1, (seeds - 1) * (instances - 1)]


def _cleared(variance: np.ndarray, scores: np.ndarray) -> np.ndarray:
    """Variances, 0 where they are the rounding of equal numbers."""
    return np.where(variance <= (_ROUNDING * max(1.0, float(np.abs(scores).max(initial=0)))) ** 2, 0.0, variance)
