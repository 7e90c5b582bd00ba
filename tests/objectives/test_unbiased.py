"""Every estimator is what it claims to be: enumeration of all outcomes, autograd, identities, large-N Monte Carlo."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from objective_cases import all_bound, case_id, default_bound

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.population import effective_order
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind
from maxrl_bench.testing.objective_checks import PASS_RATES, enumerated_weight

pytestmark = pytest.mark.unbiased


def spread(rewards: np.ndarray, objective: Objective) -> np.ndarray:
    """The weights of rewards [B, N]."""
    on_success, on_failure = objective.weights(rewards.sum(1).astype(int))
    return np.where(rewards == 1, on_success[:, None], on_failure[:, None])


SAMPLED = [o for o in default_bound(8) if not (o.is_likelihood or o.row.pooled)]


@pytest.mark.parametrize("objective", all_bound([1, 2, 3, 4, 8]), ids=case_id)
def test_enumerated_outcomes_give_the_population_weight(objective: Objective) -> None:
    expected = enumerated_weight(objective, PASS_RATES)
    np.testing.assert_allclose(objective.population_weight(PASS_RATES), expected, rtol=1e-9, atol=1e-12)
    closed = objective.closed_form(PASS_RATES)
    if closed is not None:
        np.testing.assert_allclose(closed, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", default_bound(8), ids=case_id)
def test_measured_order_is_the_claimed_order(objective: Objective, report_order: Callable[..., None]) -> None:
    p = np.array([0.01, 0.1, 0.3, 0.6])
    if objective.row.pooled:
        report_order(objective.label, "none", "depends on the batch (test_raft_averages_over_the_kept_rollouts)")
        return
    if objective.is_likelihood:
        assert objective.order == math.inf
        report_order(objective.label, "inf", "inf (1/p by definition)")
        return
    share = p * enumerated_weight(objective, p)
    orders = np.log1p(-np.minimum(share, 1 - 1e-15)) / np.log1p(-p)
    shown = ", ".join("beyond ML" if s > 1 else f"{t:.3g}" for s, t in zip(share, orders, strict=True))
    span = f"{orders[0]:.6f}" if np.ptp(orders) < 1e-6 else f"varies with p: {shown}"
    report_order(objective.label, str(objective.order or "none"), span)
    if objective.order is None:
        assert np.ptp(orders) > 1e-3, "it is of constant order: claim it"
    else:
        np.testing.assert_allclose(orders, objective.order, rtol=1e-6)
        np.testing.assert_allclose(effective_order(objective, p), objective.order, rtol=1e-6)


@pytest.mark.parametrize("objective", [o for n in (2, 3) for o in default_bound(n) if not o.row.pooled], ids=case_id)
def test_autograd_over_all_rollouts_of_a_softmax_policy(objective: Objective) -> None:
    logits = torch.tensor([0.3, -1.1, 0.8, -0.2, 0.1], dtype=torch.float64, requires_grad=True)
    accepted = torch.tensor([1.0, 0.0, 0.0, 1.0, 0.0], dtype=torch.float64)
    log_policy = logits.log_softmax(0)
    pass_rate = (log_policy.exp() * accepted).sum()
    (slope,) = torch.autograd.grad(pass_rate, logits, retain_graph=True)
    if objective.is_likelihood:
        (gradient,) = torch.autograd.grad(pass_rate.log(), logits)
    else:
        rollouts = torch.tensor(list(itertools.product(range(5), repeat=objective.num_rollouts)))
        log_prob, rewards = log_policy[rollouts], accepted[rollouts]
        weights = torch.from_numpy(spread(rewards.numpy(), objective))
        surrogate = (weights * log_prob).mean(1)  # one number per possible group of rollouts
        (gradient,) = torch.autograd.grad((log_prob.sum(1).exp().detach() * surrogate).sum(), logits)
    weight = float(objective.population_weight(np.array(pass_rate.item())))
    torch.testing.assert_close(gradient, weight * slope, rtol=1e-9, atol=1e-12)


def test_raft_averages_over_the_kept_rollouts() -> None:
    rewards = np.array([[1.0, 0, 0, 0], [1, 1, 1, 0], [0, 0, 0, 0]])
    # The update is mean_b (1/N) sum_j a_j S_j: each of the 4 kept scores must end up with weight 1/4.
    np.testing.assert_allclose(advantages(rewards, "raft") / rewards.size, rewards / 4)
    assert not advantages(np.zeros((2, 4)), "raft").any()
    np.testing.assert_allclose(advantages(rewards[:1], "raft"), advantages(rewards[:1], "maxrl_eq9"))


@pytest.mark.parametrize("n", [1, 2, 5, 16, 100])
def test_identities_between_objectives(n: int) -> None:
    def same(first: Objective, second: Objective) -> None:
        for a, b in zip(first.weights(np.arange(n + 1)), second.weights(np.arange(n + 1)), strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-13, atol=1e-13)

    same(bind("maxrl_order", n, order=1), bind("reinforce", n))
    same(bind("maxrl_order", n, order=n), bind("maxrl_eq9", n))
    same(bind("maxrl_order_failures", n, order=1), bind("reinforce", n))
    same(bind("pkpo_plain", n, k=1), bind("reinforce", n))
    same(bind("pkpo_loo", n, k=1), bind("reinforce", n))
    if n > 1:
        same(bind("maxrl_order_loo", n, order=1), bind("rloo", n))
        same(bind("f_grpo", n, gamma=0), bind("grpo", n, ddof=1))


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_order_t_weights_are_the_sums_of_their_definition(data: st.DataObject) -> None:
    n = data.draw(st.integers(1, 80), label="N")
    t = data.draw(st.integers(1, n), label="T")
    k = data.draw(st.integers(0, n), label="K")

    def ratio(a: int, b: int, m: int) -> Fraction:
        return Fraction(math.comb(a, m), math.comb(b, m))

    subset = bind("maxrl_order", n, order=t).weights(np.array([k]))[0][0]
    failures = bind("maxrl_order_failures", n, order=t).weights(np.array([k]))[1][0]
    pkpo_plain = bind("pkpo_plain", n, k=t).weights(np.array([k]))[1][0]
    pkpo_loo = bind("pkpo_loo", n, k=t).weights(np.array([k]))[0][0]
    close = {"rel": 1e-12, "abs": 1e-12}
    if k > 0:
        assert subset == pytest.approx(float(sum(ratio(n - k, n - 1, m) for m in range(t))), **close)
        assert pkpo_loo == pytest.approx(float(t * ratio(n - k, n - 1, t - 1)), **close)
    if k < n:
        terms = [ratio(n - k - 1, n - 1, m - 1) for m in range(2, min(t, n - k) + 1)]
        assert failures == pytest.approx(-float(sum(terms)), **close)
        assert pkpo_plain == pytest.approx(float(t * (1 - ratio(n - 1 - k, n - 1, t - 1))), **close)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(2, 300), st.integers(0, len(SAMPLED) - 1), st.floats(1e-6, 0.999), st.data())
def test_population_weight_is_the_binomial_sum_at_any_size(n: int, row: int, p: float, data: st.DataObject) -> None:
    name, knobs = SAMPLED[row].name, dict(SAMPLED[row].knobs)
    for knob, rule in OBJECTIVES[name].knobs.items():
        if rule.high is None:
            knobs[knob] = data.draw(st.integers(1, n), label=knob)
    objective = bind(name, n, **knobs)
    exact = Fraction(p)
    chance = [math.comb(n - 1, j) * exact**j * (1 - exact) ** (n - 1 - j) for j in range(n)]
    gaps = objective.gap(np.arange(n))
    expected = float(sum(c * Fraction(g) for c, g in zip(chance, gaps.tolist(), strict=True)))
    assert float(objective.population_weight(np.array(p))) == pytest.approx(expected, rel=1e-12, abs=1e-290)


@settings(max_examples=50, deadline=None, derandomize=True)
@given(st.data())
def test_advantages_follow_the_rollouts_when_these_are_permuted(data: st.DataObject) -> None:
    rewards = np.array(
        data.draw(st.lists(st.lists(st.sampled_from([0.0, 1.0]), min_size=6, max_size=6), min_size=4, max_size=4))
    )
    rows, columns = (np.array(data.draw(st.permutations(range(size)))) for size in rewards.shape)
    for objective in SAMPLED:
        if objective.needs:
            continue
        knobs = bind(objective.name, 6, **{k: min(v, 6) for k, v in objective.knobs.items()}).knobs
        before = advantages(rewards, objective.name, **knobs)
        np.testing.assert_array_equal(
            advantages(rewards[rows][:, columns], objective.name, **knobs), before[rows][:, columns]
        )


MANY = 4096
# 99.99994 % of a normal: the 36 comparisons fail by chance with one seed in 48,000; the seed is fixed.
SIGMAS = 5.0


@pytest.mark.parametrize(
    "objective", [o for o in default_bound(MANY) if not (o.is_likelihood or o.row.pooled)], ids=case_id
)
@pytest.mark.parametrize("p", [0.002, 0.3])
def test_monte_carlo_at_large_n(objective: Objective, p: float) -> None:
    successes = np.random.default_rng(20260101).binomial(MANY, p, size=100_000)
    on_success, on_failure = objective.weights(successes)
    gradient = (successes * on_success * (1 - p) - (MANY - successes) * on_failure * p) / MANY
    expected = float(objective.population_weight(np.array(p))) * p * (1 - p)
    error = gradient.std() / math.sqrt(len(successes))
    assert abs(gradient.mean() - expected) < SIGMAS * error + 1e-12 * abs(expected)


@pytest.mark.parametrize("objective", default_bound(16), ids=case_id)
def test_every_objective_learns_a_bandit(objective: Objective) -> None:
    """From a pass rate of 0.1 to above 0.4 in 400 steps of 8 groups; exact gradient steps for maximum likelihood."""
    rng = np.random.default_rng(7)
    logits = np.log(np.array([0.1, 0.3, 0.3, 0.3]))
    accepted = np.array([True, False, False, False])
    size = 1.0 if objective.row.pooled else 4 / float(objective.population_weight(np.array(0.1)))
    for _ in range(400):
        policy = np.exp(logits) / np.exp(logits).sum()
        if objective.is_likelihood:
            logits = logits + 0.1 * (accepted - policy)
            continue
        draws = rng.choice(4, size=(8, objective.num_rollouts), p=policy)
        weights = spread(accepted[draws].astype(float), objective)
        scores = np.eye(4)[draws] - policy
        logits = logits + 0.1 * size * (weights[..., None] * scores).mean((0, 1))
    assert np.exp(logits[0]) / np.exp(logits).sum() > 0.4
