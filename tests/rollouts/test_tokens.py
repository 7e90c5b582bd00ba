"""Prefix-tree rollouts: the law of N i.i.d. rollouts, the textbook loop's gradients, exact pass rates.

Statistical tests have fixed seeds and a false-alarm rate of 1e-3 each.
"""

from __future__ import annotations

import itertools
import re
from collections import Counter

import numpy as np
import pytest
import reference_tokens as reference
import torch
from scipy import stats
from token_cases import (
    ACTIONS,
    HORIZON,
    PROMPT,
    WEIGHTS,
    distance,
    gradient,
    policy_for,
    toy,
    with_solutions,
)

from maxrl_bench.rollouts import prefix_tree, tree_attention
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.tokens import TokenBatch, draw_few_or_multinomial
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.tasks import make_task

FALSE_ALARM = 1e-3


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-10), (torch.float32, 1e-6)])
@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("num_rollouts", [1, 7, 200])
def test_gradients_are_those_of_the_textbook_loop(
    dtype: torch.dtype, tolerance: float, weights: str, num_rollouts: int
) -> None:
    # Against the loop in float64: in float32 it adds up hundreds of rows, and errs more than the engine does. Large
    # weights would amplify rounding beyond float32's.
    scale = 6.0 if dtype == torch.float64 else 1.0
    batch, policy, exact = toy(), policy_for(dtype, scale), policy_for(torch.float64, scale)
    rollouts = batch.sample(policy, num_rollouts, np.random.default_rng(1))
    rows = reference.rows_of(rollouts)
    instance, _, success = rows
    assert (np.bincount(instance) == num_rollouts).all()
    assert (np.bincount(instance, success, minlength=3) == rollouts.successes).all()
    on_success, on_failure = WEIGHTS[weights]
    each = np.where(success, on_success[instance], on_failure[instance])
    mine, theirs = rollouts.surrogate(on_success, on_failure), reference.surrogate(exact, batch, rows, each)
    assert abs(mine.item() - theirs.item()) < tolerance * max(1.0, abs(theirs.item()))
    if not each.any():
        assert not mine.requires_grad
        return
    assert distance(gradient(policy, mine), gradient(exact, theirs)) < tolerance


def test_how_the_work_is_cut_up_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    batch, policy = toy(horizon=9), policy_for()
    whole = batch.sample(policy, 300, np.random.default_rng(1))
    expected = gradient(policy, whole.surrogate(*WEIGHTS["both"]))
    monkeypatch.setattr(tree_attention, "BLOCK", 4)
    monkeypatch.setattr(prefix_tree, "SLICE", 7)
    monkeypatch.setattr(prefix_tree, "SEGMENT", 50)
    cut = batch.sample(policy, 300, np.random.default_rng(1))
    assert len(cut.tree.parent) > 100
    assert np.array_equal(cut.count, whole.count)
    assert np.abs(cut.log_probs - whole.log_probs).max() < 1e-12
    assert distance(gradient(policy, cut.surrogate(*WEIGHTS["both"])), expected) < 1e-10
    rows = reference.rows_of(cut)
    each = np.where(rows[2], WEIGHTS["both"][0][rows[0]], WEIGHTS["both"][1][rows[0]])
    assert distance(expected, gradient(policy, reference.surrogate(policy, batch, rows, each))) < 1e-10


@pytest.mark.parametrize("same", [1, PROMPT - 1])
def test_the_common_beginning_of_prompts_is_read_once(same: int) -> None:
    batch, policy = toy(), policy_for()
    batch.prompts[:, :same] = 2
    batch.prompts[:, same] = torch.arange(3)
    assert batch.shared == same
    assert len(batch.prefill(policy).cache[0]) == same + 3 * (PROMPT - same)
    rollouts = batch.sample(policy, 60, np.random.default_rng(1))
    rows = instance, _, success = reference.rows_of(rollouts)
    each = np.where(success, WEIGHTS["both"][0][instance], WEIGHTS["both"][1][instance])
    theirs = gradient(policy, reference.surrogate(policy, batch, rows, each))
    assert distance(gradient(policy, rollouts.surrogate(*WEIGHTS["both"])), theirs) < 1e-10
    at_roots = reference.log_probs(policy, batch, np.arange(3), np.full((3, 1), 0))[:, 0].detach().numpy()
    assert np.abs(rollouts.log_probs[:3] - at_roots).max() < 1e-12


def test_one_prompt_alone_shares_nothing() -> None:
    assert toy(same=True).shared == 0


def test_differential_smoothing_is_that_of_the_textbook_loop() -> None:
    batch, policy, gamma = toy(), policy_for(), 0.7
    rollouts = batch.sample(policy, 50, np.random.default_rng(1), paths=True)
    rows = reference.rows_of(rollouts)
    instance, actions, success = rows
    mean = reference.taken(policy, batch, instance, actions).detach().sum(1).numpy() / (actions >= 0).sum(1)
    each = np.where(success, 1.0 - gamma * mean, -0.5 + gamma * mean)
    mine = rollouts.surrogate(np.ones(3), np.full(3, -0.5), smoothing=gamma)
    theirs = reference.surrogate(policy, batch, rows, each)
    assert distance(gradient(policy, mine), gradient(policy, theirs)) < 1e-10


def test_entropy_is_that_of_the_actions_taken() -> None:
    batch, policy = toy(), policy_for()
    rollouts = batch.sample(policy, 50, np.random.default_rng(1))
    mine, theirs = rollouts.entropy(), reference.entropy(policy, batch, reference.rows_of(rollouts))
    assert abs(mine.item() - theirs.item()) < 1e-12
    assert distance(gradient(policy, mine), gradient(policy, theirs)) < 1e-10


def test_rollouts_serve_any_number_of_backward_passes() -> None:
    batch, policy = toy(), policy_for()
    rollouts = batch.sample(policy, 50, np.random.default_rng(1))
    first, second = (gradient(policy, rollouts.surrogate(*WEIGHTS["both"])) for _ in range(2))
    assert torch.equal(first, second)
    gradient(policy, rollouts.entropy() + rollouts.surrogate(*WEIGHTS["both"]))


def test_without_gradients_the_values_are_the_same() -> None:
    batch, policy = toy(), policy_for()
    with_grad = batch.sample(policy, 50, np.random.default_rng(1))
    without = batch.sample(policy, 50, np.random.default_rng(1), grad=False)
    assert not without.entropy().requires_grad
    assert not without.surrogate(*WEIGHTS["both"]).requires_grad
    torch.testing.assert_close(without.entropy(), with_grad.entropy().detach(), rtol=0, atol=1e-12)
    torch.testing.assert_close(
        without.surrogate(*WEIGHTS["both"]), with_grad.surrogate(*WEIGHTS["both"]).detach(), rtol=0, atol=1e-12
    )


def test_sampling_reads_what_the_textbook_loop_reads() -> None:
    batch, policy = toy(), policy_for()
    rollouts = batch.sample(policy, 300, np.random.default_rng(1))
    instance, actions, _ = reference.rows_of(rollouts)
    seen = dict.fromkeys(zip(instance, map(tuple, actions), strict=True))
    unique_instance, unique_actions = (np.array(x) for x in zip(*seen, strict=True))
    theirs = reference.log_probs(policy, batch, unique_instance, unique_actions).detach().numpy()
    before = {}
    for row, path in enumerate(unique_actions):
        for t in range(int((path >= 0).sum())):
            before[unique_instance[row], *path[:t]] = theirs[row, t]
    tree = rollouts.tree
    names: list[tuple[int, ...]] = []
    for node in range(len(tree.parent)):
        parent = int(tree.parent[node])
        names.append((node,) if parent < 0 else (*names[parent], int(tree.action[node])))
    assert set(names) == set(before)
    assert np.abs(np.array([before[name] for name in names]) - rollouts.log_probs).max() < 1e-12


def leaf_law(policy: TokenPolicy, batch: TokenBatch) -> tuple[list[tuple[int, ...]], np.ndarray, np.ndarray]:
    """Every rollout of instance 0, its probability and its success, by brute force."""
    actions, success = reference.every_answer(batch, 0, ACTIONS)
    probs = reference.taken(policy, batch, np.zeros(len(actions), np.int64), actions).sum(1).exp().detach().numpy()
    assert abs(probs.sum() - 1) < 1e-12
    return [tuple(row) for row in actions], probs, success


def chi_square(observed: np.ndarray, expected: np.ndarray) -> float:
    """p-value of observed counts; cells with fewer than five expected are put together."""
    order = np.argsort(expected)
    rare = order[np.cumsum(expected[order]) <= 5]
    kept = np.setdiff1d(order, rare)
    if len(rare):
        observed = np.append(observed[kept], observed[rare].sum())
        expected = np.append(expected[kept], expected[rare].sum())
    statistic = float(((observed - expected) ** 2 / np.maximum(expected, 1e-300)).sum())
    return float(stats.chi2.sf(statistic, len(observed) - 1))


def test_rollouts_have_the_policys_law() -> None:
    batch, policy = toy(1), policy_for()
    names, probs, _ = leaf_law(policy, batch)
    counts = Counter(map(tuple, reference.rows_of(batch.sample(policy, 20_000, np.random.default_rng(3)))[1]))
    assert chi_square(np.array([counts[name] for name in names]), 20_000 * probs) > FALSE_ALARM


def test_counts_have_the_joint_law_of_independent_rollouts() -> None:
    """Three rollouts of one instance, 4,000 times: the unordered triples against the multinomial law."""
    repeats = 4000
    batch, policy = toy(repeats, same=True, horizon=2, seed=4), policy_for()
    names, probs, _ = leaf_law(policy, batch)
    rows = reference.rows_of(batch.sample(policy, 3, np.random.default_rng(5)))
    triples: dict[int, list[int]] = {}
    for instance, actions in zip(rows[0], rows[1], strict=True):
        triples.setdefault(int(instance), []).append(names.index(tuple(actions)))
    observed = Counter(tuple(sorted(triple)) for triple in triples.values())
    law: Counter[tuple[int, ...]] = Counter()
    for triple in itertools.product(range(len(names)), repeat=3):
        law[tuple(sorted(triple))] += float(np.prod(probs[list(triple)]))
    cells = sorted(law)
    p_value = chi_square(np.array([observed[c] for c in cells]), repeats * np.array([law[c] for c in cells]))
    assert p_value > FALSE_ALARM


def test_successes_are_binomial() -> None:
    repeats, num_rollouts = 4000, 12
    batch, policy = toy(repeats, same=True, seed=1), policy_for()
    _, probs, success = leaf_law(policy, batch)
    pass_rate = float(probs[success].sum())
    assert 0.05 < pass_rate < 0.95
    successes = batch.sample(policy, num_rollouts, np.random.default_rng(6), grad=False).successes
    observed = np.bincount(successes, minlength=num_rollouts + 1)
    law = stats.binom.pmf(np.arange(num_rollouts + 1), num_rollouts, pass_rate)
    assert chi_square(observed, repeats * law) > FALSE_ALARM


@pytest.mark.parametrize(("num_actions", "count"), [(5, 1), (5, 6), (40, 1), (40, 3), (40, 50)])
def test_draws_follow_the_probabilities(num_actions: int, count: int) -> None:
    nodes = 3000
    log_probs = np.log(np.random.default_rng(7).dirichlet(np.ones(num_actions)))
    node, action, times = draw_few_or_multinomial(
        np.tile(log_probs, (nodes, 1)), np.full(nodes, count), np.random.default_rng(8)
    )
    assert (times > 0).all()
    assert (np.bincount(node, times, minlength=nodes) == count).all()
    keys = node * num_actions + action
    assert (np.diff(keys) > 0).all()
    observed = np.bincount(action, times, minlength=num_actions)
    assert chi_square(observed, nodes * count * np.exp(log_probs)) > FALSE_ALARM


def test_pass_rates_are_exact() -> None:
    batch, policy = with_solutions(toy(5)), policy_for()
    expected = []
    for b in range(5):
        actions, success = reference.every_answer(batch, b, ACTIONS)
        log_prob = reference.taken(policy, batch, np.full(len(actions), b), actions).sum(1)
        expected.append(log_prob[torch.from_numpy(success)].logsumexp(0))
    mine, theirs = batch.log_pass_rate(policy), torch.stack(expected)
    assert mine.dtype == torch.float64
    assert (mine - theirs).abs().max() < 1e-12
    assert distance(gradient(policy, mine.mean()), gradient(policy, theirs.mean())) < 1e-10
    sampled = batch.sample(policy, 100_000, np.random.default_rng(9), grad=False).successes / 100_000
    rates = mine.detach().exp().numpy()
    assert (np.abs(sampled - rates) < 5 * np.sqrt(rates * (1 - rates) / 100_000)).all()


def test_pass_rates_have_the_gradient_of_finite_differences() -> None:
    batch, policy = with_solutions(toy(5)), policy_for()
    generator = torch.Generator().manual_seed(0)
    slope = gradient(policy, batch.log_pass_rate(policy).sum())
    direction = torch.randn(len(slope), generator=generator, dtype=torch.float64)
    start = torch.nn.utils.parameters_to_vector(policy.parameters()).detach()

    def value_at(distance: float) -> float:
        torch.nn.utils.vector_to_parameters(start + distance * direction, policy.parameters())
        return float(batch.log_pass_rate(policy).sum().detach())

    step = 1e-6
    assert abs((value_at(step) - value_at(-step)) / (2 * step) - float(slope @ direction)) < 1e-6 * abs(
        float(slope @ direction)
    )


def test_demonstrations_are_read_as_the_textbook_reads_them() -> None:
    batch, policy = toy(), policy_for()
    demonstrations = np.array([[0, 2, 1, 0], [2, -1, -1, -1], [1, 1, -1, -1]])
    batch = TokenBatch(
        batch.prompts, batch.verifier, batch.horizon, batch.actions, torch.from_numpy(demonstrations), None
    )
    theirs = -reference.taken(policy, batch, np.arange(3), demonstrations).sum() / 7
    mine = batch.demonstration_loss(policy)
    assert abs(mine.item() - theirs.item()) < 1e-12
    assert distance(gradient(policy, mine), gradient(policy, theirs)) < 1e-10


def test_the_same_generator_gives_the_same_bits() -> None:
    batch, policy = toy(), policy_for(torch.float32)

    def once() -> tuple[np.ndarray, torch.Tensor]:
        rollouts = batch.sample(policy, 100, np.random.default_rng(11))
        return rollouts.count, gradient(policy, rollouts.surrogate(*WEIGHTS["both"]))

    (counts, first), (counts_again, second) = once(), once()
    assert np.array_equal(counts, counts_again)
    assert torch.equal(first, second)


def test_a_million_rollouts_cost_the_distinct_contexts() -> None:
    batch, policy = toy(), policy_for()
    rollouts = batch.sample(policy, 1_000_000, np.random.default_rng(12))
    assert np.bincount(rollouts.tree.instance[rollouts.node[:9]], rollouts.count[:9]).max() <= 1_000_000
    possible = sum(ACTIONS**t for t in range(HORIZON)) * 3
    assert len(rollouts.tree.parent) <= possible
    assert len(rollouts.count) <= possible * ACTIONS
    assert rollouts.contexts_evaluated <= batch.prompts.numel() + possible
    assert rollouts.contexts_named > 3_000_000 * PROMPT
    ends = rollouts.child < 0
    assert rollouts.count[ends].sum() == 3_000_000
    gradient(policy, rollouts.surrogate(*WEIGHTS["both"]))


def test_contexts_named_are_those_of_separate_rollouts() -> None:
    rollouts = toy().sample(policy_for(), 40, np.random.default_rng(13))
    _, actions, _ = reference.rows_of(rollouts)
    # A rollout of T actions reads the prompt and all its actions but the last.
    assert rollouts.contexts_named == (PROMPT + (actions >= 0).sum(1) - 1).sum()


class Reads:
    """Counts the tokens that a policy reads."""

    def __init__(self, policy: TokenPolicy):
        self.tokens = 0
        policy.embedding.register_forward_hook(self._count)

    def _count(self, _module: torch.nn.Module, inputs: tuple[torch.Tensor], _output: torch.Tensor) -> None:
        self.tokens += inputs[0].numel()


def test_equal_prompts_are_read_once() -> None:
    batch, policy = toy(50, same=True), policy_for()
    reads = Reads(policy)
    rollouts = batch.sample(policy, 4, np.random.default_rng(14))
    assert reads.tokens == rollouts.contexts_evaluated
    assert rollouts.contexts_evaluated == PROMPT + len(rollouts.tree.parent) - 50


def test_what_has_no_weight_is_not_read_again() -> None:
    batch, policy = toy(), policy_for()
    rollouts = batch.sample(policy, 30, np.random.default_rng(15))
    reads = Reads(policy)
    rollouts.surrogate(np.zeros(3), np.zeros(3))
    assert reads.tokens == 0
    rollouts.surrogate(np.array([0.0, 1.0, 0.0]), np.zeros(3))
    instance, actions, success = reference.rows_of(rollouts)
    won = {tuple(row[row >= 0]) for row in actions[success & (instance == 1)]}
    assert reads.tokens == len({row[:t] for row in won for t in range(1, len(row))})


@pytest.mark.parametrize("name", ["add-2", "maze-7", "programs-1", "add-2-scratchpad"])
def test_the_built_in_tasks_agree_with_the_textbook_loop(name: str) -> None:
    task = make_task(name)
    batch = task.batch("train", range(3))
    assert isinstance(batch, TokenBatch)
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), width=16, layers=2, mlp=16)
    assert isinstance(policy, TokenPolicy)
    policy.double()
    rollouts = batch.sample(policy, 20, np.random.default_rng(1))
    rows = reference.rows_of(rollouts)
    each = np.where(rows[2], 2.0, -1.0)
    mine = rollouts.surrogate(np.full(3, 2.0), np.full(3, -1.0))
    theirs = reference.surrogate(policy, batch, rows, each)
    assert distance(gradient(policy, mine), gradient(policy, theirs)) < 1e-10


def test_what_cannot_be_had_is_refused() -> None:
    batch, policy = toy(), policy_for()
    with pytest.raises(ValueError, match="not tractable"):
        batch.log_pass_rate(policy)
    with pytest.raises(ValueError, match="no demonstrations"):
        batch.demonstration_loss(policy)
    with pytest.raises(ValueError, match="num_rollouts must be at least 1, got 0"):
        batch.sample(policy, 0, np.random.default_rng(0))


def test_half_precision_is_the_same_policy_roughly() -> None:
    batch = toy()
    exact = batch.sample(policy_for(torch.float64), 200, np.random.default_rng(1), grad=False)
    rough = batch.sample(policy_for(torch.bfloat16), 200, np.random.default_rng(1))
    assert np.abs(np.exp(exact.log_probs[:3]) - np.exp(rough.log_probs[:3])).max() < 0.1
    assert torch.isfinite(gradient(rough.policy, rough.surrogate(*WEIGHTS["both"]))).all()


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-9), (torch.bfloat16, 0.1)])
def test_a_gpu_gives_the_same_numbers(dtype: torch.dtype, tolerance: float) -> None:
    batch = toy()
    here, there = policy_for(torch.float64), policy_for(torch.float64).to("cuda", dtype)
    mine = batch.sample(there, 1, np.random.default_rng(1))
    theirs = batch.sample(here, 1, np.random.default_rng(1))
    assert np.abs(np.exp(mine.log_probs[:3]) - np.exp(theirs.log_probs[:3])).max() < tolerance
    assert torch.isfinite(gradient(there, mine.surrogate(*WEIGHTS["both"]))).all()


def test_the_tree_is_as_its_module_draws_it() -> None:
    drawn: dict[str, list[str]] = {
        column: re.findall(rf"{column} +((?:[-ab0-9]+ +){{5}}[-ab0-9]+)", prefix_tree.__doc__ or "")[0].split()
        for column in ("node", "parent", "action", "instance", "depth")
    }
    numbers = {"a": 0, "b": 1, "$": 2, "": -1}
    answers = ["a$", "ab$", "ab$", "b$", "a$", "a$", "a$", "a$"]
    actions = np.array([[numbers[token] for token in answer] + [-1] * (3 - len(answer)) for answer in answers])
    tree, before = prefix_tree.tree_of(np.repeat([0, 1], 4), actions, np.arange(2))
    for column, cells in drawn.items():
        values = np.arange(6) if column == "node" else getattr(tree, column)
        assert [numbers[cell] if cell in numbers else int(cell) for cell in cells] == values.tolist(), column
    edges = set(zip(before[actions >= 0].tolist(), actions[actions >= 0].tolist(), strict=True))
    assert f"here {(actions >= 0).sum()} actions on {len(edges)} edges" in (prefix_tree.__doc__ or "")
