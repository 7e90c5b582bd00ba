"""Paired differences judged at every look: seeds may be added until a claim is decided, and the level still holds.

The e-process of the scale-invariant t test (arXiv 2310.03722, 2210.08589): whatever the spread, it is 1 in the mean
after any number of seeds if the mean difference is `value`, so that it ever exceeds 1 / level with probability `level`
at most (Ville's inequality). Student's t (`compare`) is for a number of seeds that was fixed before; its level is lost
where one stops on seeing it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from maxrl_bench.analysis.crossed import LEVEL

# Seeds' worth of prior on the effect: small, for effects of 1 to 3 standard deviations. With 1, no five seeds could
# pass Holm's correction.
PRIOR_SEEDS = 0.25


def e_values(differences: Sequence[float] | np.ndarray, value: float = 0.0) -> np.ndarray:
    """The e-process against a mean difference of `value`, after 2, 3, ... S seeds: [..., S - 1].

    differences: [..., S], in the order in which seeds were run. Raises ValueError on fewer than two, or one that is not
    finite.
    """
    count, mean, spread = _running(differences)
    ratio = PRIOR_SEEDS / (PRIOR_SEEDS + count)
    distance = count * (mean - value) ** 2  # t^2 s^2
    ours, null = spread + distance, spread + ratio * distance
    certain = null == 0  # equal numbers, and the mean is `value`
    with np.errstate(divide="ignore", invalid="ignore"):
        bet = np.where(certain, 0.0, count / 2 * (np.log(ours) - np.log(null)))
    return np.exp(np.minimum(0.5 * np.log(ratio) + bet, 700.0))


def p_value(differences: Sequence[float] | np.ndarray, value: float = 0.0, first: int = 2) -> float:
    """A p value against a mean difference of `value` that holds at every look from `first` seeds on."""
    looks = e_values(differences, value)[_counts(_running(differences)[2], first)]
    return min(1.0, 1.0 / float(looks.max())) if len(looks) else 1.0


def confidence_sequence(
    differences: Sequence[float] | np.ndarray, level: float = LEVEL, first: int = 2
) -> tuple[float, float]:
    """The mean differences that no look from `first` seeds on has excluded; infinite where the seeds are too few.

    With v = n - 1, r = g / (g + n) and c = (1 / (alpha sqrt(r)))^(2 / n) each look leaves the mean plus or minus
    sqrt(s^2 v (c - 1) / (n (1 - r c))). The limits are those of all looks; where no value is
    left, of the last.
    """
    count, mean, spread = _running(differences)
    ratio = PRIOR_SEEDS / (PRIOR_SEEDS + count)
    bound = (1 / ((1 - level) * np.sqrt(ratio))) ** (2 / count)
    room = 1 - ratio * bound
    with np.errstate(divide="ignore", invalid="ignore"):
        half = np.where(room > 0, np.sqrt(spread * (bound - 1) / (count * room)), math.inf)
    looks = _counts(spread, first)
    low, high = (mean - half)[looks], (mean + half)[looks]
    if not len(low):
        return -math.inf, math.inf
    if low.max() > high.min():
        return float(low[-1]), float(high[-1])
    return float(low.max()), float(high.min())


def _counts(spread: np.ndarray, first: int) -> np.ndarray:
    """Which looks count, [S - 1]: from `first` seeds on, and none at equal numbers if a later seed differs.

    Such a look would leave its mean alone. Of normal differences it has probability 0; scores at a bound may have it.
    """
    return (np.arange(2, len(spread) + 2) >= first) & ((spread > 0) | (spread[-1] == 0))


def _running(differences: Sequence[float] | np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """After 2, 3, ... seeds: how many [S - 1], and their mean and the sum of squares around it, [..., S - 1]."""
    scores = np.asarray(differences, np.float64)
    if scores.ndim == 0 or scores.shape[-1] < 2 or not np.isfinite(scores).all():
        raise ValueError(f"differences must be two or more finite numbers, one per seed; got shape {scores.shape}")
    first = scores[..., :1]
    moved = scores - first  # equal differences have a spread of exactly 0
    count = np.arange(1.0, scores.shape[-1] + 1)
    mean = np.cumsum(moved, axis=-1) / count
    spread = np.cumsum((moved[..., 1:] - mean[..., :-1]) * (moved[..., 1:] - mean[..., 1:]), axis=-1)
    return count[1:], first + mean[..., 1:], spread
