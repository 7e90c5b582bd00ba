"""Binomial sums, ratios of binomial coefficients and pass@k, accurate to about 1e-13 for counts up to a million.

Differences of log-gamma functions lose nine digits at such counts, and so does `scipy.stats.binom`; the functions here
avoid them. Everything that objectives and evaluations need of combinatorics is in this file.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

# Bernstein's inequality puts all probabilities above exp(-750), which is below the smallest float, in the window.
_LOG_NEGLIGIBLE = 750.0


def miss(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """C(total - successes, drawn) / C(total, drawn): the chance that `drawn` of `total` rollouts are all failures.

    Drawing is without replacement; `successes` is an array of counts in [0, total], `drawn` an integer in [0, total].
    """
    return np.exp(_log_miss(total, successes, drawn))


def hit(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """1 - miss, precise where it is tiny: the unbiased estimate of pass@drawn (Chen et al. 2021, arXiv 2107.03374)."""
    return -np.expm1(_log_miss(total, successes, drawn))


def pass_at_k(pass_rates: np.ndarray, n: int, k: float) -> np.ndarray:
    """pass@k of each instance from its pass rate, elementwise: exact if n = 0, else unbiased from n rollouts.

    Exact: 1 - (1-p)^k, for any real k > 0, precise also where p is far below 1/k. Sampled: 1 - C(n-c, k) / C(n, k) with
    c = n * pass rate successes (Chen et al. 2021, arXiv 2107.03374, eq. 1). Raises ValueError if k > n there, where no
    unbiased estimate exists. Time and memory grow with the number of instances alone.
    """
    rates = np.clip(np.asarray(pass_rates, np.float64), 0, 1)  # a sum of probabilities can end an ulp above 1
    if n == 0:
        with np.errstate(divide="ignore"):  # p = 1 goes through log 0 = -inf and comes out as exactly 1
            return -np.expm1(k * np.log1p(-rates)) + 0.0  # (which turns -0.0 into 0.0)
    if not 1 <= k <= n or k != int(k):
        raise ValueError(
            f"pass@{k} cannot be estimated without bias from {n} rollouts; k must be a whole number from 1 to {n}"
        )
    successes = np.rint(n * rates)
    return successes / n if k == 1 else hit(n, successes, int(k)) + 0.0


def _log_miss(total: int, successes: np.ndarray, drawn: int) -> np.ndarray:
    """log of (N-K)! (N-k)! / (N! (N-K-k)!) by Stirling's formula, with the large terms cancelled by hand.

    With c = N-K-k the leading terms are c log1p(Kk/(Nc)) + k log1p(-K/N) + K log1p(-k/N), each of the size of the
    result. -inf where c < 0: more drawn than there are failures.
    """
    if drawn == 0:
        return np.zeros(np.shape(successes))
    n, k = float(total), float(drawn)
    K = np.asarray(successes, np.float64)
    c = n - K - k
    drawable, left = np.minimum(K, n - k), np.maximum(c, 1.0)  # replaces c < 1, which is computed below
    excess = np.log1p(drawable * k / (n * left))
    general = (left + 0.5) * excess + k * _log_share(n - drawable, drawable) + drawable * _log_share(n - k, k)
    general += (_stirling_error(n - drawable) - _stirling_error(n)) + (_stirling_error(n - k) - _stirling_error(left))
    # c = 0: all failures are drawn, with chance 1 / C(N, k); Stirling's formula does not hold for 0!.
    all_failures = k * _log_share(k, n - k) + drawable * _log_share(drawable, n - drawable)
    all_failures += (
        0.5 * np.log(2 * np.pi * k * np.maximum(drawable, 1) / n)
        + _stirling_error(k)
        + _stirling_error(drawable)
        - _stirling_error(n)
    )
    return np.where(K == 0, 0.0, np.where(c >= 1, general, np.where(c == 0, all_failures, -np.inf)))


def _log_share(part: np.ndarray | float, rest: np.ndarray | float) -> np.ndarray:
    """log(part / (part + rest)) without rounding a share near 1; a part of 0 counts as 1."""
    part = np.maximum(part, 1.0)
    total = part + rest
    return np.where(part > rest, np.log1p(-np.minimum(rest, 0.5 * total) / total), np.log(part / total))


def _stirling_series(n: np.ndarray | float) -> np.ndarray | float:
    x = 1 / (n * n)
    return (1 / 12 - x * (1 / 360 - x * (1 / 1260 - x * (1 / 1680 - x / 1188)))) / n


def _small_stirling_errors() -> np.ndarray:
    """Errors of 1.._SERIES_FROM, downwards from the series: e(n) = e(n+1) + (n+1/2) log1p(1/n) - 1; entry 0 is idle."""
    errors = np.zeros(_SERIES_FROM + 1)
    errors[_SERIES_FROM] = _stirling_series(float(_SERIES_FROM))
    for n in range(_SERIES_FROM - 1, 0, -1):
        errors[n] = errors[n + 1] + (n + 0.5) * np.log1p(1 / n) - 1
    return errors


_SERIES_FROM = 16  # the asymptotic series is exact to 1e-16 from here on
_SMALL_STIRLING_ERRORS = _small_stirling_errors()


def _stirling_error(n: np.ndarray | float) -> np.ndarray:
    """log n! minus Stirling's (n + 1/2) log n - n + log(2 pi) / 2, for integers n."""
    table = _SMALL_STIRLING_ERRORS[np.minimum(n, _SERIES_FROM).astype(np.int64)]
    return np.where(n < _SERIES_FROM, table, _stirling_series(np.maximum(n, float(_SERIES_FROM))))


def binomial_mean(value: Callable[[np.ndarray], np.ndarray], trials: int, p: float) -> float:
    """E[value(J)] for J ~ Binomial(trials, p), exactly: a sum over every J whose probability a float can hold.

    `value` maps an int64 array of counts to floats. The probabilities grow outwards from the mode by their ratios and
    are normalised by their own sum, so that no factorial is computed; the only error left is the rounding of p/(1-p).
    Raises ValueError unless p lies in [0, 1].
    """
    if not 0 <= p <= 1:
        raise ValueError(f"pass rates must lie in [0, 1], got {p:g}")
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
