"""The estimate given the contexts visited is a conditional expectation: by brute force over all rollouts."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
import pytest
import reference_tokens as reference
import torch
from token_cases import ACTIONS, gradient, policy_for, toy

from maxrl_bench.config import MAX_VISITED
from maxrl_bench.objectives.table import bind
from maxrl_bench.rollouts.tokens import TokenBatch, TokenRollouts
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.rollouts.visited import expected_weights

pytestmark = pytest.mark.unbiased
OBJECTIVES = [("maxrl_alg1", {}), ("maxrl_eq10", {}), ("grpo", {}), ("reinforce", {}), ("maxpo", {"k": 2})]
Visited = frozenset[tuple[int, ...]]


def prefixes(actions: np.ndarray) -> set[tuple[int, ...]]:
    """The contexts in which a rollout [T], padded by -1, acts."""
    path = actions[actions >= 0].tolist()
    return {tuple(path[:t]) for t in range(len(path))}


def contexts(rollouts: TokenRollouts) -> Visited:
    _, actions, _ = reference.rows_of(rollouts)
    return frozenset(set().union(*(prefixes(row) for row in actions)))


def by_brute_force(
    policy: TokenPolicy, batch: TokenBatch, name: str, n: int, knobs: dict[str, int]
) -> dict[Visited, tuple[float, np.ndarray, float]]:
    """For each set of contexts that N rollouts can visit: its chance, the mean gradient given it, E|gradient|^2."""
    actions, success = reference.every_answer(batch, 0, ACTIONS)
    log_prob = [reference.taken(policy, batch, np.zeros(1, np.int64), row[None]).sum() for row in actions]
    chance = np.exp([float(one.detach()) for one in log_prob])
    scores = np.stack([gradient(policy, one).numpy() for one in log_prob])
    on_success, on_failure = bind(name, n, **knobs).weights(np.arange(n + 1))
    seen = [prefixes(row) for row in actions]
    gram = scores @ scores.T
    groups: dict[Visited, list[tuple[float, np.ndarray]]] = defaultdict(list)
    for rollouts in itertools.product(range(len(actions)), repeat=n):
        k = int(success[list(rollouts)].sum())
        weights = np.zeros(len(actions))
        for one in rollouts:
            weights[one] += (on_success if success[one] else on_failure)[k] / n
        visited = frozenset(set().union(*(seen[one] for one in rollouts)))
        groups[visited].append((float(chance[list(rollouts)].prod()), weights))
    result = {}
    for visited, cases in groups.items():
        total = sum(p for p, _ in cases)
        mean = sum(p * weights for p, weights in cases) / total
        result[visited] = total, mean @ scores, sum(p * weights @ gram @ weights for p, weights in cases) / total
    return result


@pytest.mark.parametrize(("name", "knobs"), OBJECTIVES, ids=[name for name, _ in OBJECTIVES])
@pytest.mark.parametrize("n", [2, 3])
def test_theorem_4_it_is_the_mean_given_the_contexts_visited(name: str, knobs: dict[str, int], n: int) -> None:
    """So that its expectation is that of the plain estimate, and its variance no larger (Rao and Blackwell)."""
    batch, policy = toy(1, seed=4, horizon=3), policy_for()
    expected = by_brute_force(policy, batch, name, n, knobs)
    assert sum(chance for chance, _, _ in expected.values()) == pytest.approx(1)
    tables = bind(name, n, **knobs).weights(np.arange(n + 1))
    rng, met = np.random.default_rng(0), set()
    for _ in range(60):
        rollouts = batch.sample(policy, n, rng)
        visited = contexts(rollouts)
        if visited not in met:
            met.add(visited)
            ours = rollouts.expected_surrogate(*tables)
            mine = gradient(policy, ours).numpy() if ours.requires_grad else 0.0
            np.testing.assert_allclose(mine, expected[visited][1], rtol=1e-8, atol=1e-10)
    assert sum(expected[visited][0] for visited in met) > 0.6
    assert len(met) > 3
    signal = sum(chance * mean for chance, mean, _ in expected.values())
    plain = sum(chance * square for chance, _, square in expected.values()) - signal @ signal
    given = sum(chance * mean @ mean for chance, mean, _ in expected.values()) - signal @ signal
    assert given < 0.9 * plain


def test_less_variance_at_the_same_rollouts() -> None:
    """GRPO with 16 rollouts; the means over 40 batches of rollouts differ by no more than noise."""
    batch, policy, n = toy(2, seed=4), policy_for(), 16
    objective, rng, pairs = bind("grpo", n), np.random.default_rng(0), []
    for _ in range(40):
        rollouts = batch.sample(policy, n, rng)
        plain = rollouts.surrogate(*objective.weights(rollouts.successes))
        given = rollouts.expected_surrogate(*objective.weights(np.arange(n + 1)))
        pairs.append(
            [gradient(policy, one).numpy() if one.requires_grad else 0 * pairs[0][0] for one in (plain, given)]
        )
    plain, given = np.array(pairs).transpose(1, 0, 2)
    assert given.var(axis=0).sum() < 0.7 * plain.var(axis=0).sum()
    difference = plain - given
    assert np.sum(difference.mean(0) ** 2) < 3 * difference.var(axis=0).sum() / len(pairs)


@pytest.mark.parametrize("n", [1, 16, 100])
def test_nothing_is_lost_where_all_is_visited(n: int) -> None:
    """One step of choices: the only context is always visited, so that it is the exact gradient w(p) grad p."""
    batch, policy = toy(3, seed=1, horizon=1), policy_for()
    objective = bind("maxrl_eq10", n)
    rollouts = batch.sample(policy, n, np.random.default_rng(0))
    mine = gradient(policy, rollouts.expected_surrogate(*objective.weights(np.arange(n + 1))))
    theirs = []
    for instance in range(3):
        actions, success = reference.every_answer(batch, instance, ACTIONS)
        log_prob = reference.taken(policy, batch, np.full(len(actions), instance), actions).sum(1)
        p = log_prob.exp()[torch.from_numpy(success)].sum()
        theirs.append(p * float(objective.population_weight(p.detach().numpy())))
    torch.testing.assert_close(mine, gradient(policy, torch.stack(theirs).mean()), rtol=1e-8, atol=1e-10)


def test_every_rollout_is_counted_at_the_largest_groups() -> None:
    """With s = f = 1 the weights of all ways to end sum to N, at each instance, in trees of many nodes."""
    rng = np.random.default_rng(0)
    for n, nodes in itertools.product((1, 2, 16, 64, MAX_VISITED), (1, 5, 60)):
        if nodes > n:
            continue
        mass = rng.dirichlet(np.full(2 * nodes + 1, 0.3))[: 2 * nodes].reshape(2, nodes) + 1e-12
        mass[0] *= rng.random(nodes) < 0.5  # most nodes cannot lead to success
        last = rng.random(nodes) < 0.7
        last[0] = True
        ones = np.ones(n + 1)
        success, failure = expected_weights(*mass, last, ones, ones)
        assert mass[0] @ success + mass[1] @ failure == pytest.approx(n, rel=1e-7)
        assert ((mass[0] * success + mass[1] * failure)[last] > 1 - 1e-7).all()
