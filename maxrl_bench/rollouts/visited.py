"""What N rollouts are expected to weigh, given only which contexts they visited: Rao and Blackwell on a prefix tree.

The probabilities at every node of a prefix tree are known, and the verifier tells where each action leads, without the
network. So, given the nodes that were visited, how many rollouts ended where is no news: the gradient estimate can be
replaced by its mean over all counts that visit these nodes and no others. Derivation: docs/objectives.md.
"""

from __future__ import annotations

import numpy as np

from maxrl_bench.rollouts.prefix_tree import PrefixTree


def action_weights(
    tree: PrefixTree,
    log_probs: np.ndarray,
    ends: tuple[np.ndarray, np.ndarray],
    on_success: np.ndarray,
    on_failure: np.ndarray,
) -> np.ndarray:
    """E[sum of the weights of all rollouts that take an action | the nodes of the tree]: [n, A].

    log_probs [n, A] of all actions. ends: whether a rollout ends by an action with success, and with failure, [n, A]
    bool each. on_success, on_failure [N+1]: s(K) and f(K).
    """
    levels, parent, action = tree.levels(), tree.parent, tree.action
    reach = np.zeros(len(parent))  # log-probability of reaching each node
    for level in levels[1:]:
        reach[level] = reach[parent[level]] + log_probs[parent[level], action[level]]
    chance = np.exp(reach[:, None] + log_probs)  # of reaching a node and taking an action there
    success, failure = (np.where(end, chance, 0.0).sum(1) for end in ends)
    last = np.bincount(parent[tree.num_roots :], minlength=len(parent)) == 0
    weight = np.zeros_like(chance)
    for instance in range(tree.num_roots):
        own = np.flatnonzero(tree.instance == instance)
        both = expected_weights(success[own], failure[own], last[own], on_success, on_failure)
        for end, per_chance in zip(ends, both, strict=True):
            weight[own] += np.where(end[own], chance[own] * per_chance[:, None], 0.0)
    below = tree.sum_up(weight.sum(1))[tree.num_roots :]
    weight[parent[tree.num_roots :], action[tree.num_roots :]] += below
    return weight


def expected_weights(
    success: np.ndarray, failure: np.ndarray, last: np.ndarray, on_success: np.ndarray, on_failure: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """What a way to succeed at each visited node of an instance, and one to fail, is to weigh, per probability of it.

    success, failure [n]: the probability of reaching a node and ending there with either. last [n] bool: nodes without
    visited children. on_success, on_failure [N+1]: s(K) and f(K). Returns two arrays [n], of
    E[sum of weights of the rollouts that succeed at a node | the tree] / success, and the same of those that fail.

    Given the tree, the N rollouts fall into these 2n classes independently, but for two conditions: none falls
    elsewhere, and every last node has at least one. With t for a rollout and u for a success, the generating function
    of their counts is

        F(t, u) = exp(t (I+ u + I-)) prod_x [exp(t (e+_x u + e-_x)) - 1]       x: last nodes; I: sums over other nodes

    and what is asked for are ratios of its coefficients of t^N, and derivatives of it. They are read off by Fourier
    sums over two circles: |u| = 1, and |t| = r such that N is the mode.
    """
    n = len(on_success) - 1
    if not success.any() and not on_failure[0]:
        return np.zeros(len(last)), np.zeros(len(last))  # nowhere can a rollout succeed: K = 0, which weighs nothing
    mass = success + failure
    inner = ~last
    rate = mass[inner].sum()
    radius = _radius(rate, mass[last], n)
    # Conjugate points give conjugate terms: half a circle of t is enough. No multiple of 4: the factors of nodes that
    # only fail can be 0 at a quarter of the circle.
    size = 4 * (n // 2) + 26
    half = np.arange(size // 2 + 1)
    t = radius * np.exp(2j * np.pi * half / size)[:, None]
    u = np.exp(2j * np.pi * np.arange(n + 1) / (n + 1))[None]
    both = np.flatnonzero(last & (success > 0))
    fails = np.flatnonzero(last & (success == 0))
    # All factors are divided by their values at (r, 1), which are the largest.
    alone = np.expm1(failure[fails] * t)
    mixed = {x: np.expm1((success[x] * u + failure[x]) * t) for x in both}
    total = np.exp((success[inner].sum() * u + failure[inner].sum()) * t - rate * radius)
    total *= (alone / np.expm1(failure[fails] * radius)).prod(axis=1, keepdims=True)
    for x, factor in mixed.items():
        total *= factor / np.expm1(mass[x] * radius)
    twice = np.where((half == 0) | (half == size // 2), 1.0, 2.0)
    turn = (twice * np.exp(-2j * np.pi * n / size * half))[:, None]  # of F's values at t to its coefficient of t^N
    chance = (total[:, :1] * turn).real.sum()
    # From F's values at u to sums of its coefficients of u^k with weights s(k) or f(k).
    by_success, by_failure = (np.fft.fft(weights) / (n + 1) for weights in (on_success, on_failure))
    total *= turn * t / chance
    succeed = total * (by_success * u)
    fail = total * by_failure
    of_success = np.full(len(last), succeed.real.sum())
    of_failure = np.full(len(last), fail.real.sum())
    for x, factor in mixed.items():
        share = 1 + 1 / factor  # exp(.) / (exp(.) - 1), where a factor is replaced by its derivative
        of_success[x] = (succeed * share).real.sum()
        of_failure[x] = (fail * share).real.sum()
    of_failure[fails] = (fail.sum(axis=1) @ (1 + 1 / alone)).real
    return of_success, of_failure


def _radius(rate: float, last: np.ndarray, n: int) -> float:
    """The r at which independent Poisson counts, of mean `rate` r and of masses last [L] r but at least 1, sum to N."""

    def mean(r: float) -> float:
        x = np.maximum(last * r, 1e-12)
        return float(rate * r + (x / -np.expm1(-x)).sum())

    # N + 1/2, since there is no such r where every rollout has a last node of its own. Roughly is good enough.
    low, high = 1e-6, 1.0
    while mean(high) < n + 0.5:
        low, high = high, 8 * high
    for _ in range(12):
        middle = (low * high) ** 0.5
        low, high = (middle, high) if mean(middle) < n + 0.5 else (low, middle)
    return high
