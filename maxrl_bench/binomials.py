"""Binomial sums and ratios of binomial coefficients, accurate to about 1e-13 for counts up to a million and beyond.

Differences of log-gamma functions lose nine digits at such counts, and so does `scipy.stats.binom`; both functions here
avoid them. Everything that objectives need of combinatorics is in this file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.special import gammaln, xlog1py

# Bernstein's inequality puts all probabilities above exp(-750), which is below the smallest float, in the window.
_LOG_NEGLIGIBLE = 750.0
_STIRLING_FROM = 16  # the asymptotic series is exact to 1e-16 from here on


def miss(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """C(total - successes, drawn) / C(total, drawn): the chance that `drawn` of `total` rollouts hold no success.

    Drawing is without replacement; `successes` is an array of counts in [0, total], `drawn` an integer in [0, total].
    """
    return np.exp(_log_miss(total, successes, drawn))


def hit(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """1 - miss, precise where it is tiny: the unbiased estimate of pass@drawn (Chen et al. 2021, arXiv 2107.03374)."""
    return -np.expm1(_log_miss(total, successes, drawn))


def _log_miss(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """log of (N-K)! (N-k)! / (N! (N-K-k)!) by Stirling's formula, with the large terms cancelled by hand.

    With c = N-K-k the leading terms are c log1p(Kk/(Nc)) + k log1p(-K/N) + K log1p(-k/N), each of the size of the
    result. -inf where c < 0: more drawn than there are failures.
    """
    n, k = float(total), float(drawn)
    K = np.asarray(successes, np.float64)
    if drawn == 0:
        return np.zeros_like(K)
    c = n - K - k
    safe = np.maximum(c, 1.0)
    excess = np.log1p(K * k / (n * safe))
    leading = safe * excess + xlog1py(k, -np.minimum(K, n - k) / n) + xlog1py(np.minimum(K, n - k), -k / n)
    inner = leading + 0.5 * excess + (_stirling_error(n - K) - _stirling_error(n)) + _stirling_error(n - k)
    inner -= _stirling_error(safe)
    # c = 0 is 1 / C(N, k), at most 1/N: far from 1, so that plain log-gammas lose nothing that matters.
    edge = gammaln(k + 1) + gammaln(n - k + 1) - gammaln(n + 1)
    return np.where(c >= 1, np.where(K == 0, 0.0, inner), np.where(c == 0, edge, -np.inf))


def _stirling_error(n: np.ndarray | float) -> np.ndarray:
    """log n! minus Stirling's (n + 1/2) log n - n + log(2 pi) / 2; only ever used for n >= 1 (0 counts as 1)."""
    n = np.maximum(n, 1.0)
    small = np.minimum(n, _STIRLING_FROM)
    direct = gammaln(small + 1) - ((small + 0.5) * np.log(small) - small + 0.5 * np.log(2 * np.pi))
    x = 1 / (n * n)
    series = (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / n
    return np.where(n < _STIRLING_FROM, direct, series)


def binomial_mean(value: Callable[[np.ndarray], np.ndarray], trials: int, p: float) -> float:
    """E[value(J)] for J ~ Binomial(trials, p), exactly: a sum over every J whose probability a float can hold.

    `value` maps an int64 array of counts to floats. The probabilities grow outwards from the mode by their ratios and
    are normalised by their own sum, so that no factorial is ever formed; a rounding of p/(1-p) is all that remains.
    """
    q = 1.0 - p
    slack = _LOG_NEGLIGIBLE / 3
    reach = slack + np.sqrt(slack**2 + 2 * _LOG_NEGLIGIBLE * trials * p * q) + 2
    mode = min(int((trials + 1) * p), trials)
    above = np.arange(mode, min(trials, int(trials * p + reach)))  # steps J -> J + 1
    below = np.arange(mode, max(0, int(trials * p - reach)), -1)  # steps J -> J - 1
    with np.errstate(under="ignore"):
        up = np.cumprod((trials - above) * p / ((above + 1) * q)) if len(above) else np.empty(0)
        down = np.cumprod(below * q / ((trials - below + 1) * p)) if len(below) else np.empty(0)
        probability = np.concatenate([down[::-1], [1.0], up])
        counts = np.arange(mode - len(down), mode + len(up) + 1)
        return float(np.sum(probability * value(counts)) / np.sum(probability))
