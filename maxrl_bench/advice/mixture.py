"""The pass rates of prompts, inferred from counts: the nonparametric maximum likelihood of a binomial mixture.

A prompt with 0 successes in 8 attempts may have any small pass rate; K/n calls it impossible. Here the distribution of
pass rates over prompts is what is fitted: shares of a grid of rates under which all counts together are likeliest
(Kiefer and Wolfowitz 1956), found by Newton steps with non-negative least squares (Wang 2007, doi
10.1111/j.1467-9868.2007.00583.x). What few attempts cannot tell, the estimate does not know either; the intervals say
so: the least and the largest value under all distributions that the counts do not rule out (Ignatiadis and Wager 2022,
arXiv 1902.02774), by linear programmes over the band of Dvoretzky, Kiefer, Wolfowitz and Massart.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from scipy.optimize import linprog, nnls
from scipy.special import bdtr, xlog1py, xlogy

from maxrl_bench.advice.counts import Counts
from maxrl_bench.names import shorten

CONFIDENCE = 0.95
_LOG_ODDS = math.log(1e6)  # the grid goes from a pass rate of 1e-6 to 1 - 1e-6, and has 0 and 1 beside
_GRID = 241
_MOST_PAIRS = 20_000  # different (K, n) that are fitted
_MOST_RATES = 200  # different ones that are given; more are put into cells of the log-odds
_CELL = 0.12
_THRESHOLDS = 60
_GAP = 1e-6  # of the mean log-likelihood, below which a fit is done
_STEPS = 200


@dataclass(frozen=True)
class PassRates:
    """A distribution of pass rates over prompts: `shares` [G] of the prompts have the pass rates `rates` [G].

    counts: what they are inferred from; None where they are given.
    """

    rates: np.ndarray
    shares: np.ndarray
    counts: Counts | None = None

    @functools.cached_property
    def support(self) -> np.ndarray:
        """Where there are prompts: indices into `rates`."""
        return np.flatnonzero(self.shares > 0)

    def mean(self, values: np.ndarray) -> float:
        """The mean over prompts of a function of the pass rate, given by its values [G] at `rates`."""
        return float(self.shares[self.support] @ np.asarray(values, np.float64)[self.support])

    def interval(self, values: np.ndarray, over: np.ndarray | None = None) -> tuple[float, float] | None:
        """95 % limits of the mean of `values` [G] (of its ratio to the mean of `over` [G] > 0), for all values at once.

        None where the pass rates are known, and where the counts are no mixture of binomials.
        """
        if self.counts is None or self._band is None:
            return None
        low, high = (_extreme(self._band, sign * np.asarray(values, np.float64), over) for sign in (1, -1))
        if low is None or high is None:
            return None
        estimate = self.mean(values) / (1.0 if over is None else self.mean(over))
        return min(low, estimate), max(-high, estimate)

    @functools.cached_property
    def _band(self) -> tuple[np.ndarray, np.ndarray] | None:
        """(A, b) with A shares <= b for every distribution that the counts allow; None if they allow none."""
        counts = self.counts
        assert counts is not None  # asked for by `interval` alone
        attempts, times = np.unique(counts.attempts, return_counts=True)
        observed = np.sort(counts.successes / counts.attempts)
        edges = np.unique(observed)
        if len(edges) > _THRESHOLDS:
            edges = np.unique(np.quantile(observed, np.linspace(0, 1, _THRESHOLDS), method="inverted_cdf"))
        # The distribution function of K/n at each edge, and just before it.
        below = np.concatenate([np.searchsorted(observed, edges, side=side) for side in ("right", "left")])
        reach = np.zeros((len(below), len(self.rates)))
        for n, many in zip(attempts, times, strict=True):
            most = np.concatenate([np.floor(edges * n * (1 + 1e-12)), np.ceil(edges * n * (1 - 1e-12)) - 1])
            share = bdtr(np.maximum(most, 0)[:, None], int(n), self.rates[None, :])
            reach += many / len(observed) * np.where(most[:, None] < 0, 0.0, share)
        width = math.sqrt(math.log(2 / (1 - CONFIDENCE)) / (2 * len(observed)))
        band = (
            np.vstack([reach, -reach]),
            np.concatenate([below / len(observed) + width, width - below / len(observed)]),
        )
        return band if _extreme(band, np.zeros(len(self.rates)), None) is not None else None


def known(pass_rates: np.ndarray) -> PassRates:
    """The distribution of pass rates that are given, one for each prompt. Raises ValueError on what are none.

    Of more than 200 different ones, those whose log-odds differ by less than 0.12 are taken together, at their mean.
    """
    rates = np.atleast_1d(np.asarray(pass_rates, np.float64)).ravel()
    wrong = rates[~((rates >= 0) & (rates <= 1))]
    if wrong.size or not rates.size:
        raise ValueError(f"pass rates must lie in [0, 1], got {f'{wrong[0]:g}' if wrong.size else 'none'}")
    values, times = np.unique(rates, return_counts=True)
    if len(values) > _MOST_RATES:
        inside = np.clip(rates, 1e-300, 1 - 1e-16)
        cell = np.rint((np.log(inside) - np.log1p(-inside)) / _CELL)
        _, where, times = np.unique(cell, return_inverse=True, return_counts=True)
        values = np.bincount(where, rates) / times
    return PassRates(values, times / len(rates))


def infer(counts: Counts) -> PassRates:
    """The distribution of pass rates that makes counts likeliest, on a grid that is even in the log-odds.

    The same counts give the same bits. Of more than 20,000 different pairs (K, n), so many prompts are taken, by a
    generator of fixed seed.
    """
    inner = 1 / (1 + np.exp(-np.linspace(-_LOG_ODDS, _LOG_ODDS, _GRID)))
    rates = np.concatenate([[0.0], inner, [1.0]])
    if counts.successes.min() < 0 or (counts.successes > counts.attempts).any():
        raise ValueError(f"successes must be from 0 to the attempts, got {shorten(counts.successes.min())}")
    pairs, times = _pairs(counts)
    if len(pairs) > _MOST_PAIRS:
        rng = np.random.default_rng(0)
        chosen = rng.choice(len(counts.successes), _MOST_PAIRS, replace=False)
        pairs, times = _pairs(Counts(counts.successes[chosen], counts.attempts[chosen]))
    K, n = pairs.T[:, :, None].astype(np.float64)
    log_likelihood = xlogy(K, rates) + xlog1py(n - K, -rates)
    return PassRates(rates, _fit(log_likelihood, times / times.sum()), counts)


def _pairs(counts: Counts) -> tuple[np.ndarray, np.ndarray]:
    """The different (K, n) [U, 2] and how many prompts have them [U]."""
    wide = int(counts.attempts.max()) + 1
    codes, times = np.unique(counts.successes * wide + counts.attempts, return_counts=True)
    return np.stack([codes // wide, codes % wide], axis=1), times


def _fit(log_likelihood: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The shares [G] that maximise sum_u weights_u log sum_j share_j exp(log_likelihood_uj); the maximum is convex."""
    likelihood = np.exp(log_likelihood - log_likelihood.max(axis=1, keepdims=True))
    columns = likelihood.shape[1]
    shares = np.full(columns, 1 / columns)
    for _ in range(_STEPS):
        mixed = likelihood @ shares
        scaled = likelihood / mixed[:, None]
        if (weights @ scaled).max() - 1 <= _GAP:  # what any other distribution can gain, by concavity
            break
        # The log-likelihood to second order is -|sqrt(weights) (scaled s - 2)|^2 / 2, for shares s that sum to 1.
        matrix = np.sqrt(weights)[:, None] * (scaled - 2)
        matrix = np.linalg.qr(matrix).R if len(matrix) > columns else matrix
        towards, _ = nnls(np.vstack([matrix, np.ones(columns)]), np.append(np.zeros(len(matrix)), 1.0))
        step = towards / towards.sum() - shares
        slope, length = float(weights @ (scaled @ step)), 1.0
        before = float(weights @ np.log(mixed))
        while length > 1e-6 and _value(weights, likelihood, shares + length * step) < before + 0.3 * length * slope:
            length /= 2
        shares = np.maximum(shares + length * step, 0.0)
        shares[shares < 1e-12] = 0.0
        shares /= shares.sum()
    return shares


def _value(weights: np.ndarray, likelihood: np.ndarray, shares: np.ndarray) -> float:
    mixed = likelihood @ shares
    return float(weights @ np.log(mixed)) if (mixed > 0).all() else -math.inf


def _extreme(band: tuple[np.ndarray, np.ndarray], values: np.ndarray, over: np.ndarray | None) -> float | None:
    """The least mean of `values` (over the mean of `over`) within a band; None if there is none.

    A ratio is linear in shares divided by the mean of `over` (Charnes and Cooper 1962).
    """
    matrix, bound = band
    if over is None:
        found = linprog(values, matrix, bound, np.ones((1, len(values))), [1.0])
    else:
        # y = shares t, t = 1 / mean(over): values y is least subject to over y = 1, sum y = t, matrix y <= bound t.
        rows = np.hstack([matrix, -bound[:, None]])
        equal = np.vstack([np.append(over, 0.0), np.append(np.ones(len(values)), -1.0)])
        found = linprog(np.append(values, 0.0), rows, np.zeros(len(rows)), equal, [1.0, 0.0])
    return float(found.fun) if found.status == 0 else None
