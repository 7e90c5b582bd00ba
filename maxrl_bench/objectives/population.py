"""Bias and variance of an objective as functions of the pass rate p: exact second moments, a lower bound, orders.

Nothing is simulated: each function is a binomial sum over success counts (`binomials.binomial_mean`).
Derivations: docs/objectives.md.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from maxrl_bench.objectives.binomials import binomial_mean
from maxrl_bench.objectives.formula import Objective

_TABULATED = 4096


@dataclass(frozen=True)
class Scores:
    """Moments of a rollout's score S = grad log-probability on one instance, which decide the variance of a gradient.

    pass_rate: p. success, failure: E[|S|^2] given success and given failure. signal: |grad p|^2.
    The defaults are the *orthogonal-score proxy*: the scores of different rollouts are orthogonal and have norm 1, as
    in a wide network, where different rollouts change different parameters. Then |grad p| = 0, and only noise is left.
    """

    pass_rate: float
    success: float = 1.0
    failure: float = 1.0
    signal: float = 0.0


def softmax_scores(logits: np.ndarray, accepted: np.ndarray) -> Scores:
    """The exact `Scores` of a categorical policy softmax(logits) [A] whose outcomes `accepted` [A] (bool) succeed.

    The score of outcome z with respect to the logits is e_z - pi. Raises ValueError unless some outcomes succeed and
    some fail.
    """
    logits, accepted = np.asarray(logits, np.float64), np.asarray(accepted, bool)
    if logits.ndim != 1 or logits.shape != accepted.shape or accepted.all() or not accepted.any():
        raise ValueError("logits and accepted must be vectors of one length, with accepted and rejected outcomes")
    shares = np.exp(logits - logits.max())
    shares /= shares.sum()
    p = float(shares[accepted].sum())
    squares = 1 - 2 * shares + np.sum(shares**2)
    return Scores(
        pass_rate=p,
        success=float(shares[accepted] @ squares[accepted] / p),
        failure=float(shares[~accepted] @ squares[~accepted] / shares[~accepted].sum()),
        signal=float(np.sum((shares * (accepted - p)) ** 2)),
    )


def second_moment(objective: Objective, scores: Scores) -> float:
    """E|g|^2 of the gradient estimate of one instance, g = (1/N) sum_j a_j S_j, exactly.

    = (1/N) E[p A s(J+1)^2 + q B f(J)^2] + (N-1)/N |grad p|^2 E[s(I+2)^2 + f(I)^2 - 2 s(I+1) f(I+1)]
    with J ~ Binomial(N-1, p), I ~ Binomial(N-2, p), A and B the second moments of scores given success and failure.
    Without an entropy bonus or smoothing. Raises ValueError for exact maximum likelihood, which estimates nothing, and
    where the weights of an instance depend on the successes of the whole batch.
    """
    _refuse_pooled(objective)
    p, n = scores.pass_rate, objective.num_rollouts

    def own(others: np.ndarray) -> np.ndarray:
        s, f = objective.weights(others + 1)[0], objective.weights(others)[1]
        return p * scores.success * s**2 + (1 - p) * scores.failure * f**2

    def pairs(others: np.ndarray) -> np.ndarray:
        s, f = objective.weights(others + 1)
        return objective.weights(others + 2)[0] ** 2 + objective.weights(others)[1] ** 2 - 2 * s * f

    total = binomial_mean(own, n - 1, p) / n
    if n > 1 and scores.signal:
        total += (n - 1) / n * scores.signal * binomial_mean(pairs, n - 2, p)
    return total


def variance(objective: Objective, scores: Scores) -> float:
    """E|g - E g|^2, the variance of a gradient estimate, summed over components: `second_moment` - |w grad p|^2."""
    weight = float(objective.population_weight(np.array(scores.pass_rate)))
    return second_moment(objective, scores) - weight**2 * scores.signal


def least_second_moment(objective: Objective, p: float) -> float:
    """The smallest E|g|^2 that weights by counts can have with the same expectation, under the orthogonal-score proxy.

    = p (1-p) / N E[(s(J+1) - f(J))^2]: theorem 2 of docs/objectives.md. Reaching it takes weights that depend on p.
    """
    _refuse_pooled(objective)
    return (
        p
        * (1 - p)
        / objective.num_rollouts
        * binomial_mean(lambda j: objective.gap(j) ** 2, objective.num_rollouts - 1, p)
    )


def effective_order(objective: Objective, p: np.ndarray) -> np.ndarray:
    """The T for which MaxRL of order T has the same population weight at p: log(1 - p w) / log(1 - p).

    It is the same for all p only in the MaxRL family; infinite for maximum likelihood. NaN where w exceeds the weight
    1/p of maximum likelihood, or is within a relative 1e-9 of it, where rounding would decide. p in (0, 1), any shape.
    """
    p = np.asarray(p, np.float64)
    if objective.is_likelihood:
        return np.full_like(p, np.inf)
    share = p * objective.population_weight(p)
    clear = share < 1 - 1e-9
    return np.where(clear, np.log1p(-np.where(clear, share, 0)) / np.log1p(-p), np.nan)


def order_within(tolerance: float, p: np.ndarray) -> np.ndarray:
    """The least order T at which MaxRL's weight is within `tolerance` of maximum likelihood's: (1-p)^T <= tolerance.

    Equations 9 and 10 have order T with N = T rollouts, Algorithm 1 with N = T + 1. p in (0, 1), any shape; float64.
    """
    return np.maximum(1, np.ceil(np.log(tolerance) / np.log1p(-np.asarray(p, np.float64)) - 1e-9))


def tabulated(objective: Objective) -> Objective:
    """The same objective with its weights looked up, for N up to 4096: for many pass rates, which take the same counts.

    Maximum likelihood, which has no weights, and larger N come back as they are.
    """
    n = objective.num_rollouts
    if objective.is_likelihood or n > _TABULATED:
        return objective
    (success, _), (_, failure) = objective.weights(np.arange(1, n + 1)), objective.weights(np.arange(n))
    gaps = objective.gap(np.arange(n))
    row = replace(
        objective.row,
        on_success=lambda K, N, **_: success[K.astype(np.int64) - 1],
        on_failure=lambda K, N, **_: failure[K.astype(np.int64)],
        gap=lambda J, N, **_: gaps[J.astype(np.int64)],
    )
    return replace(objective, row=row)


def _refuse_pooled(objective: Objective) -> None:
    """Raises ValueError where weights are divided by the batch's share of successes."""
    if objective.row.pooled:
        raise ValueError(f"objective '{objective.name}' weighs an instance by its batch: it has no moments of its own")
