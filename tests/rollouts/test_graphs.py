"""The flow of counts on state graphs is exactly the textbook loop: same gradients, same law, same pass rates."""

import itertools
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from reference import all_rollouts, log_probability, textbook_surrogate, unfold
from scipy import stats

from maxrl_bench.objectives import table as objectives
from maxrl_bench.rollouts import counts as counts_module
from maxrl_bench.rollouts import graphs as graphs_module
from maxrl_bench.rollouts import policies
from maxrl_bench.rollouts.counts import distinct, draw_multinomial, split_successes
from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, GraphRollouts, StateGraphs
from maxrl_bench.rollouts.policies import ObservationPolicy, make_policy
from maxrl_bench.tasks import CategoricalContexts

CONTEXTS = CategoricalContexts((4, 3))
ACTIONS = 3


def world(seed: int, num_instances: int = 3, states: int = 5, horizon: int = 5) -> StateGraphs:
    """Random small worlds with loops, shared observations, successes and failures."""
    rng = np.random.default_rng(seed)
    successor = (
        rng.integers(0, states, (num_instances, states, ACTIONS)) + states * np.arange(num_instances)[:, None, None]
    )
    fate = rng.random(successor.shape)
    successor[fate < 0.15] = SUCCESS
    successor[(fate >= 0.15) & (fate < 0.25)] = FAILURE
    successor[:, 0, 0], successor[:, 1, 1] = (
        np.arange(num_instances) * states + 1,
        SUCCESS,
    )  # every instance is solvable
    observations = np.unique(rng.integers(0, [4, 3], (6, 2)), axis=0)
    return StateGraphs(
        observations=torch.from_numpy(observations),
        observation_of=rng.integers(0, len(observations), num_instances * states),
        successor=successor.reshape(-1, ACTIONS),
        start=np.arange(num_instances) * states,
        horizon=horizon,
    )


def policy_of(seed: int, dtype: torch.dtype = torch.float64) -> ObservationPolicy:
    """A policy with something to say: the last layer is not the zeros that training starts from."""
    policy = make_policy(CONTEXTS, ACTIONS, np.random.default_rng(seed), width=8).to(dtype)
    assert isinstance(policy, ObservationPolicy)
    generator = torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(policy.last.weight, 0, 0.5, generator=generator)
    return policy


def gradient(policy: torch.nn.Module, value: torch.Tensor) -> torch.Tensor:
    grads = torch.autograd.grad(value, list(policy.parameters()))
    return torch.cat([g.flatten() for g in grads])


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
@pytest.mark.parametrize("seed", range(4))
def test_gradient_is_the_textbook_loops(seed: int, smoothing: float, dtype: torch.dtype, tolerance: float) -> None:
    graphs, policy = world(seed), policy_of(seed, dtype)
    rollouts = graphs.sample(policy, 12, np.random.default_rng(seed), paths=True)
    weights = objectives.bind("maxrl_eq10", 12).weights(rollouts.successes)
    textbook = textbook_surrogate(graphs, policy, unfold(rollouts), *weights, smoothing)
    engine = rollouts.surrogate(*weights, smoothing=smoothing)
    expected = gradient(policy, textbook)
    assert expected.abs().max() > 1e-3
    assert torch.allclose(gradient(policy, engine), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize("seed", range(4))
def test_merging_histories_keeps_the_gradient_of_the_counts(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """With equal weights on success and failure no fate matters, and merged counts give the tree's gradient exactly."""
    monkeypatch.setattr(graphs_module, "FEW", 0)
    graphs, policy = world(seed), policy_of(seed)
    rollouts = graphs.sample(policy, 400, np.random.default_rng(seed))
    assert len(rollouts.count) < len(graphs.sample(policy, 400, np.random.default_rng(seed), paths=True).count)
    visits = Counter[tuple[int, int]]()
    for observation, action, count in zip(rollouts.observation, rollouts.action, rollouts.count, strict=True):
        visits[int(observation), int(action)] += int(count)
    log_probs = policy.log_probs(graphs.observations)
    expected = sum(count * log_probs[cell] for cell, count in visits.items()) / (400 * 3)
    ones = np.ones(3)
    assert torch.allclose(
        gradient(policy, rollouts.surrogate(ones, ones)), gradient(policy, expected), atol=1e-12, rtol=0
    )


@pytest.fixture(params=["one by one", "counted", "counted, drawn singly"])
def one_by_one(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Rollouts are followed in the one way or the other, however many they are."""
    monkeypatch.setattr(graphs_module, "FEW", 10**9 if request.param == "one by one" else 0)
    monkeypatch.setattr(counts_module, "WIDE", 0 if request.param == "counted, drawn singly" else 10**9)
    return bool(request.param == "one by one")


def signature(rollouts: GraphRollouts, one_by_one: bool) -> tuple[tuple[int, ...], ...]:
    """All that a result says, merged: (time, state, action, count, successes) of every edge."""
    if one_by_one:
        cells: dict[tuple[int, int, int], list[int]] = {}
        for rollout in unfold(rollouts):
            for time, (state, action) in enumerate(zip(rollout.states, rollout.actions, strict=True)):
                cell = cells.setdefault((time, state, action), [0, 0])
                cell[0] += 1
                cell[1] += rollout.success
        return tuple(sorted((*key, *cell) for key, cell in cells.items()))
    graphs, rows = rollouts.graphs, []
    edges = iter(zip(rollouts.action, rollouts.count, rollouts.through, strict=True))
    reached = [(int(state), rollouts.num_rollouts) for state in graphs.start]
    for time in range(graphs.horizon):
        following = Counter[int]()
        for state, waiting in reached:
            while waiting:
                action, count, through = (int(number) for number in next(edges))
                waiting -= count
                assert waiting >= 0
                rows.append((time, state, action, count, through))
                following[int(graphs.successor[state, action])] += count
        reached = sorted((state, count) for state, count in following.items() if state >= 0)
    assert next(edges, None) is None
    return tuple(sorted(rows))


def copies(graphs: StateGraphs, count: int) -> StateGraphs:
    """A batch of one instance `count` times, whose states come one copy after the other."""
    states, copy = len(graphs.successor), np.arange(count)[:, None, None]
    successor = np.where(graphs.successor < 0, graphs.successor, graphs.successor + states * copy)
    return replace(
        graphs,
        observation_of=np.tile(graphs.observation_of, count),
        successor=successor.reshape(-1, graphs.successor.shape[1]),
        start=(graphs.start + states * copy[:, 0]).reshape(-1),
    )


def test_the_law_of_all_counts_is_that_of_independent_rollouts(one_by_one: bool) -> None:
    """Chi-square of 20,000 draws against the law by enumeration of all triples of rollouts; 1 false alarm in 10,000."""
    graphs, policy, n = world(1, num_instances=1, states=3, horizon=3), policy_of(1), 3
    single_rollouts = list(all_rollouts(graphs, 0))
    chances = np.exp([log_probability(graphs, policy, r).item() for r in single_rollouts])
    assert chances.sum() == pytest.approx(1)
    law: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for group in itertools.product(range(len(single_rollouts)), repeat=n):
        edges: dict[tuple[int, int, int], list[int]] = {}
        for member in group:
            rollout = single_rollouts[member]
            for time, (state, action) in enumerate(zip(rollout.states, rollout.actions, strict=True)):
                cell = edges.setdefault((time, state, action), [0, 0])
                cell[0] += 1
                cell[1] += rollout.success
        law[tuple(sorted((*key, *cell) for key, cell in edges.items()))] += float(np.prod(chances[list(group)]))
    # Otherwise two histories never meet with different fates ahead, and the split would not be tested.
    assert any(0 < row[4] < row[3] for outcome in law for row in outcome)

    rng, draws = np.random.default_rng(7), 20_000
    edges_of: list[list[tuple[int, ...]]] = [[] for _ in range(draws)]
    for time, state, *rest in signature(copies(graphs, draws).sample(policy, n, rng), one_by_one):
        edges_of[state // 3].append((time, state % 3, *rest))
    seen = Counter(map(tuple, edges_of))
    assert set(seen) <= set(law)
    common = [outcome for outcome, chance in law.items() if chance * draws >= 10]
    observed = np.array([seen[outcome] for outcome in common] + [draws - sum(seen[o] for o in common)])
    expected = np.array([law[outcome] for outcome in common])
    expected = np.r_[expected, 1 - expected.sum()] * draws
    assert len(common) > 20
    assert stats.chisquare(observed, expected).pvalue > 1e-4


def test_successes_are_binomial(one_by_one: bool) -> None:
    """Chi-square of K against Bin(N, p) with the exact p; false alarm: 1 in 10,000 per instance."""
    graphs, policy, n = world(2), policy_of(2), 9
    pass_rates = graphs.log_pass_rate(policy).exp().detach().numpy()
    many = copies(graphs, 4000)
    draws = many.sample(policy, n, np.random.default_rng(3)).successes.reshape(4000, -1)
    for b, p in enumerate(pass_rates):
        expected = stats.binom.pmf(np.arange(n + 1), n, p) * len(draws)
        observed = np.bincount(draws[:, b], minlength=n + 1)
        keep = expected >= 5
        pooled = lambda x, keep=keep: np.r_[x[keep], x[~keep].sum()]  # noqa: E731
        assert (
            stats.chisquare(pooled(observed)[pooled(expected) > 0], pooled(expected)[pooled(expected) > 0]).pvalue
            > 1e-4
        )


def test_splitting_successes_is_drawing_without_replacement() -> None:
    """Chi-square against the exact multivariate hypergeometric law of three edges; false alarm: 1 in 10,000."""
    counts, child, successes = np.array([2, 5, 1, 4]), np.array([1, 0, 1, 1]), np.array([2, 3])
    rng, draws = np.random.default_rng(0), 20_000
    seen = Counter(tuple(split_successes(counts, child, successes, rng).tolist()) for _ in range(draws))
    fates = Counter()
    for chosen in itertools.combinations(range(7), 3):  # which of the seven rollouts that meet in node 1 succeed
        fates[sum(i < 2 for i in chosen), 2, sum(i == 2 for i in chosen), sum(i > 2 for i in chosen)] += 1
    assert set(seen) == set(fates)
    expected = np.array([fates[key] for key in seen]) * draws / sum(fates.values())
    assert stats.chisquare(list(seen.values()), expected).pvalue > 1e-4


@pytest.mark.parametrize("seed", range(4))
def test_exact_pass_rate_and_its_gradient_by_brute_force(seed: int) -> None:
    graphs, policy = world(seed), policy_of(seed)
    sums = []
    for instance in range(3):
        successful = [log_probability(graphs, policy, r) for r in all_rollouts(graphs, instance) if r.success]
        sums.append(torch.logsumexp(torch.stack(successful), 0))
    expected, got = torch.stack(sums), graphs.log_pass_rate(policy)
    assert torch.allclose(got, expected, atol=1e-12, rtol=0)
    mix = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    assert torch.allclose(gradient(policy, mix @ got), gradient(policy, mix @ expected), atol=1e-12, rtol=0)


def test_horizon_limits_success() -> None:
    graphs, policy = world(0), policy_of(0)
    rates = [replace(graphs, horizon=h).log_pass_rate(policy).exp().sum().item() for h in (1, 2, 5, 50)]
    assert rates == sorted(rates)
    assert rates[0] < rates[1] < rates[2]


def test_a_hopeless_pass_rate_gives_no_infinite_gradient() -> None:
    graphs, policy = world(0), policy_of(0)
    blocked = np.where(graphs.successor == SUCCESS, FAILURE, graphs.successor)
    hopeless = replace(graphs, successor=blocked)
    log_p = hopeless.log_pass_rate(policy)
    assert log_p.tolist() == pytest.approx([np.log(1e-300)] * 3)
    assert gradient(policy, log_p.sum()).abs().max() == 0


def test_entropy_is_the_mean_over_actions_taken() -> None:
    graphs, policy = world(3), policy_of(3)
    rollouts = graphs.sample(policy, 10, np.random.default_rng(0), paths=True)
    terms = []
    for rollout in unfold(rollouts):
        for state in rollout.states:
            log_probs = policy.log_probs(graphs.observations[graphs.observation_of[state]][None])[0]
            terms.append(-(log_probs.exp() * log_probs).sum())
    expected, got = torch.stack(terms).mean(), rollouts.entropy()
    assert got.item() == pytest.approx(expected.item(), abs=1e-12)
    assert torch.allclose(gradient(policy, got), gradient(policy, expected), atol=1e-12, rtol=0)


def test_a_million_rollouts_cost_no_more_memory_than_the_world_has_contexts() -> None:
    graphs, policy = world(0, horizon=20), policy_of(0)
    rollouts = graphs.sample(policy, 1_000_000, np.random.default_rng(0))
    assert len(rollouts.count) <= graphs.horizon * graphs.successor.size
    assert rollouts.contexts_named >= 3_000_000
    assert rollouts.contexts_evaluated == len(graphs.observations)
    pass_rates = graphs.log_pass_rate(policy).exp().detach().numpy()
    deviation = np.sqrt(pass_rates * (1 - pass_rates) / 1e6)
    assert (np.abs(rollouts.successes / 1e6 - pass_rates) < 5 * deviation).all()  # false alarm: 1 in 500,000


def test_same_generator_same_rollouts_and_zero_weights_no_graph(one_by_one: bool) -> None:
    graphs, policy = world(0), policy_of(0)
    a, b = (graphs.sample(policy, 50, np.random.default_rng(5)) for _ in range(2))
    assert signature(a, one_by_one) == signature(b, one_by_one)
    assert not a.surrogate(np.zeros(3), np.zeros(3)).requires_grad


def test_an_action_of_probability_zero_is_never_drawn() -> None:
    graphs, policy = world(0), policy_of(0)
    with torch.no_grad():
        policy.last.bias[2] = -torch.inf
    rollouts = graphs.sample(policy, 2000, np.random.default_rng(0), paths=True)
    assert set(rollouts.action) == {0, 1}


def test_observations_are_read_once_where_they_are_many_only_those_seen(
    one_by_one: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same rollouts as with all observations read at once."""
    graphs, policy = world(0), policy_of(0)
    whole = graphs.sample(policy, 3, np.random.default_rng(5))
    assert whole.contexts_evaluated == len(graphs.observations)
    monkeypatch.setattr(graphs_module, "AT_ONCE", 0)
    read: list[tuple[int, ...]] = []
    log_probs = policy.log_probs
    monkeypatch.setattr(policy, "log_probs", lambda seen: (read.extend(map(tuple, seen.tolist())), log_probs(seen))[1])
    apart = graphs.sample(policy, 3, np.random.default_rng(5))
    assert signature(apart, one_by_one) == signature(whole, one_by_one)
    assert len(read) == len(set(read)) == len(np.unique(apart.observation)) == apart.contexts_evaluated


def test_a_policy_that_does_not_change_reads_every_observation_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same entropy and pass rates as of the policy itself."""
    monkeypatch.setattr(graphs_module, "AT_ONCE", 0)
    graphs, policy = world(0), policy_of(0)

    def measured(asked: Any) -> tuple[float, list[float]]:
        with torch.no_grad():
            entropy = graphs.sample(asked, 50, np.random.default_rng(5), grad=False).entropy()
            return float(entropy), graphs.log_pass_rate(asked).tolist()

    expected = measured(policy)
    read: list[int] = []
    log_probs = policy.log_probs
    monkeypatch.setattr(policy, "log_probs", lambda seen: (read.append(len(seen)), log_probs(seen))[1])
    got = measured(policies.unchanging(policy))
    assert got[0] == pytest.approx(expected[0], abs=1e-12)
    assert got[1] == pytest.approx(expected[1], abs=1e-12)
    assert read == [len(graphs.observations)]


def test_multinomial_draws_over_many_actions() -> None:
    """Few rollouts at one node, a fraction of an action on average; chi-square of 5,000: 1 false alarm in 10,000."""
    rng = np.random.default_rng(0)
    probs = rng.dirichlet(np.ones(300) / 10, 4)
    probs[:, ::7] = 0
    probs /= probs.sum(1, keepdims=True)
    counts, totals = np.array([5, 0, 20, 1]), np.zeros((4, 300), np.int64)
    for _ in range(5000):
        node, action, count = draw_multinomial(counts, probs, rng)
        assert np.array_equal(np.bincount(node, count, 4), counts)
        assert count.min() > 0
        totals[node, action] += count
    assert (totals[:, ::7] == 0).all()
    for seen, expected in zip(totals, counts[:, None] * 5000 * probs, strict=True):
        often = expected > 10
        pooled = [np.r_[x[often], x[~often].sum()] for x in (seen, expected)]
        assert not expected.any() or stats.chisquare(*pooled).pvalue > 1e-4


def test_distinct_numbers() -> None:
    numbers = np.random.default_rng(0).integers(0, 50, 40)
    for got, expected in zip(distinct(numbers, 50), np.unique(numbers, return_inverse=True), strict=True):
        assert np.array_equal(got, expected)
    assert [len(part) for part in distinct(numbers[:0], 50)] == [0, 0]


def test_what_leads_to_one_state_is_one_transition() -> None:
    graphs = world(4)
    probs = np.random.default_rng(0).dirichlet(np.ones(ACTIONS), len(graphs.successor))
    expected = np.zeros((len(probs) + 2, len(probs) + 2))
    expected[[-2, -1], [-2, -1]] = 1
    for state, action in np.ndindex(*probs.shape):
        expected[state, graphs.successor[state, action]] += probs[state, action]
    transitions = graphs.transitions(probs)
    np.testing.assert_allclose(transitions.toarray(), expected)
    assert transitions.nnz == (expected > 0).sum() < graphs.successor.size + 2


def test_smoothing_needs_paths() -> None:
    graphs, policy = world(0), policy_of(0)
    rollouts = graphs.sample(policy, 4, np.random.default_rng(0))
    with pytest.raises(ValueError, match="paths=True"):
        rollouts.surrogate(np.ones(3), np.zeros(3), smoothing=0.1)


@pytest.mark.parametrize("seed", range(6))
def test_demonstrations_are_shortest_solutions(seed: int) -> None:
    graphs = world(seed)
    shortest = [min(len(r.actions) for r in all_rollouts(graphs, b) if r.success) for b in range(3)]
    assert graphs.distances[graphs.start].tolist() == shortest
    states, actions = graphs.demonstrations
    assert len(states) == sum(shortest)
    for b in range(3):
        state = int(graphs.start[b])
        for _ in range(shortest[b]):
            state = int(graphs.successor[state, actions[np.flatnonzero(states == state)[0]]])
        assert state == SUCCESS


def test_demonstration_loss_is_the_mean_over_demonstrated_actions() -> None:
    graphs, policy = world(1), policy_of(1)
    states, actions = graphs.demonstrations
    observations = graphs.observations[graphs.observation_of[states]]
    expected = -policy.log_probs(observations)[np.arange(len(states)), actions].mean()
    assert graphs.demonstration_loss(policy).item() == pytest.approx(expected.item(), abs=1e-12)


def test_an_unsolvable_instance_is_named() -> None:
    graphs = world(0)
    successor = graphs.successor.copy()
    successor[5:10][successor[5:10] == SUCCESS] = FAILURE
    with pytest.raises(ValueError, match="instance 1 of the batch cannot be solved within 5 actions"):
        replace(graphs, successor=successor).demonstration_loss(policy_of(0))


def test_an_unknown_policy_size_is_refused() -> None:
    with pytest.raises(ValueError, match="the policy has no size 'widht'; did you mean 'width'"):
        make_policy(CONTEXTS, ACTIONS, np.random.default_rng(0), widht=3)
