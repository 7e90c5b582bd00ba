"""Rewards between 0 and 1, as partial credit: the unbiased form of the objectives that have one.

A reward r_j is read as the chance that rollout j succeeds: as if a coin with that chance decided. Under coins, an
objective's weights are unbiased for w_N(p) grad p at p = E r, and so are their means over the coins, with less noise:

    a_j = r_j E[s(J + 1)] + (1 - r_j) E[f(J)],    J: the successes among the coins of the other rollouts

For order T this is r_j sum_{m<T} e_m(1 - r_{-j}) / C(N-1, m), with e_m the elementary symmetric polynomials of the
other rollouts' 1 - r; for RLOO, r_j minus the mean of the others. Rewards of 0 and 1 give the weights of the table.
"""

from __future__ import annotations

import functools

import numpy as np

from maxrl_bench.objectives import outside
from maxrl_bench.objectives.formula import Objective

# Rows whose w_N(p) is known for every N. Not those of pass@k, though it is: their papers take the best of k rewards.
# The others divide by a deviation or an estimate: their published form for such rewards is unbiased for nothing.
PARTIAL_CREDIT = (
    "reinforce",
    "mean_baseline",
    "rloo",
    "nsr",
    "w_reinforce",
    "reinforce_rej",
    "maxrl_eq9",
    "maxrl_eq10",
    "maxrl_alg1",
    "maxrl_alg1_exact",
    "maxrl_uniform",
    "maxrl_order",
    "maxrl_order_failures",
    "maxrl_order_loo",
    "maxrl_order_constant",
    "power_order",
)


def weights(objective: Objective, rewards: np.ndarray) -> np.ndarray:
    """The weight of every rollout of one instance, from rewards [N] in [0, 1]: [N] float64, to about 12 digits.

    The laws of the successes of all others but one come from a tree of convolutions, whose terms are all positive, so
    that nothing cancels in them: N^2 log N operations, about 30 ms for N = 1,024.
    """
    n = objective.num_rollouts
    counts = np.arange(n + 1)
    on_success, on_failure = outside.weights(objective, counts)
    both = np.stack([on_success[1:], on_failure[:-1]], axis=1)  # by J, the successes among the others
    means = np.empty((n, 2))

    @functools.cache
    def law(first: int, last: int) -> np.ndarray:
        """How likely each number of successes is among the rollouts first to last - 1."""
        if last - first == 1:
            return np.array([1 - rewards[first], rewards[first]])
        middle = (first + last) // 2
        return np.convolve(law(first, middle), law(middle, last))

    def descend(first: int, last: int, outside_of_them: np.ndarray) -> None:
        if last - first == 1:
            means[first] = outside_of_them @ both
            return
        middle = (first + last) // 2
        descend(first, middle, np.convolve(outside_of_them, law(middle, last)))
        descend(middle, last, np.convolve(outside_of_them, law(first, middle)))

    descend(0, n, np.ones(1))
    return rewards * means[:, 0] + (1 - rewards) * means[:, 1] + 0.0
