"""Token rollouts where faults hide: batches of one instance, and attention whose scores no exponential can hold."""

from __future__ import annotations

import numpy as np
import pytest
import reference_tokens as reference
import torch
from token_cases import ACTIONS, WEIGHTS, distance, gradient, policy_for, toy, with_solutions

from maxrl_bench.rollouts.transformer import TokenPolicy


def sharp_policy(factor: float) -> TokenPolicy:
    """A policy whose attention scores are multiplied by `factor`."""
    policy = policy_for()
    with torch.no_grad():
        for layer in policy.layers:
            layer.query.weight.mul_(factor)
    return policy


def greatest_score(policy: TokenPolicy, batch_prompts: torch.Tensor) -> float:
    """The greatest attention score of the first layer on some prompts."""
    layer = policy.layers[0]
    normed = layer.norm_attention(policy.embedding(batch_prompts))
    rotation = policy.rotations[: batch_prompts.shape[1]]
    queries = layer.queries(normed, rotation)
    keys = layer.keys_values(normed, rotation).chunk(2, -1)[0].unflatten(-1, (policy.kv_heads, -1))
    keys = keys.repeat_interleave(policy.heads // policy.kv_heads, 2)
    return float(torch.einsum("rihd,rjhd->rhij", queries, keys).detach().abs().max() / queries.shape[-1] ** 0.5)


@pytest.mark.parametrize("factor", [1e3, -1e3, 1e5])
def test_scores_beyond_the_exponential_give_the_textbooks_numbers(factor: float) -> None:
    """Attention on the prompt and on the own path are normalised apart and put together: by their common maximum."""
    batch, policy = toy(), sharp_policy(factor)
    assert greatest_score(policy, batch.prompts) > 2 * np.log(np.finfo(np.float64).max)
    rollouts = batch.sample(policy, 60, np.random.default_rng(1))
    assert np.isfinite(rollouts.log_probs).all()
    instance, actions, success = rows = reference.rows_of(rollouts)
    theirs = reference.log_probs(policy, batch, instance, actions).detach().numpy()
    tree = rollouts.tree
    names: list[tuple[int, ...]] = []
    for node in range(len(tree.parent)):
        parent = int(tree.parent[node])
        names.append((node,) if parent < 0 else (*names[parent], int(tree.action[node])))
    mine = dict(zip(names, rollouts.log_probs, strict=True))
    for row, path in enumerate(actions.tolist()):
        for t in range(sum(action >= 0 for action in path)):
            np.testing.assert_allclose(mine[instance[row], *path[:t]], theirs[row, t], rtol=1e-6, atol=1e-6)
    each = np.where(success, WEIGHTS["both"][0][instance], WEIGHTS["both"][1][instance])
    expected = gradient(policy, reference.surrogate(policy, batch, rows, each))
    assert distance(gradient(policy, rollouts.surrogate(*WEIGHTS["both"])), expected) < 1e-5


@pytest.mark.parametrize("num_rollouts", [1, 5, 60])
@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_a_batch_of_one_instance_has_the_textbooks_gradient(num_rollouts: int, smoothing: float) -> None:
    batch, policy = toy(1, seed=3), policy_for()
    rollouts = batch.sample(policy, num_rollouts, np.random.default_rng(2), paths=True)
    instance, actions, success = rows = reference.rows_of(rollouts)
    length = (actions >= 0).sum(1)
    mean = reference.taken(policy, batch, instance, actions).detach().sum(1).numpy() / length
    each = np.where(success, 2.0 - smoothing * mean, -0.7 + smoothing * mean)
    theirs = reference.surrogate(policy, batch, rows, each)
    mine = rollouts.surrogate(np.array([2.0]), np.array([-0.7]), smoothing=smoothing)
    assert mine.item() == pytest.approx(theirs.item(), rel=1e-10)
    assert distance(gradient(policy, mine), gradient(policy, theirs)) < 1e-10
    entropy = reference.entropy(policy, batch, rows)
    assert rollouts.entropy().item() == pytest.approx(entropy.item(), rel=1e-10)


def test_a_batch_is_the_mean_of_its_instances() -> None:
    """The same rollouts, once as a batch of three and once as three batches of one."""
    batch, policy = toy(), policy_for()
    together = batch.sample(policy, 40, np.random.default_rng(4))
    on_success, on_failure = WEIGHTS["both"]
    whole = gradient(policy, together.surrogate(on_success, on_failure))
    parts = []
    for row in range(3):
        alone = (np.where(np.arange(3) == row, weights, 0.0) for weights in (on_success, on_failure))
        parts.append(gradient(policy, together.surrogate(*alone)))
    assert distance(torch.stack(parts).sum(0), whole) < 1e-10


def test_pass_rates_below_the_smallest_float_have_logarithms_and_gradients() -> None:
    """Of a policy that is all but certain of wrong answers: e^-800 is no float, its logarithm and slope are."""
    batch, policy = with_solutions(toy(5)), policy_for()
    with torch.no_grad():
        policy.norm.weight.mul_(300)  # and with it the logits
    expected = []
    for b in range(5):
        actions, success = reference.every_answer(batch, b, ACTIONS)
        log_prob = reference.taken(policy, batch, np.full(len(actions), b), actions).sum(1)
        expected.append(log_prob[torch.from_numpy(success)].logsumexp(0))
    mine, theirs = batch.log_pass_rate(policy), torch.stack(expected)
    assert float(theirs.detach().min()) < np.log(np.nextafter(0, 1)) < float(theirs.detach().max())
    torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)
    assert distance(gradient(policy, mine.mean()), gradient(policy, theirs.mean())) < 1e-8


def test_a_tree_that_outgrows_its_caches_is_read_as_a_small_one() -> None:
    """Keys and values of some thousand nodes move to larger pools on the way; none loses what it descends from."""
    batch, policy = toy(12, horizon=10, seed=1), policy_for(scale=1.0)
    rollouts = batch.sample(policy, 20_000, np.random.default_rng(3), grad=False)
    tree = rollouts.tree
    assert len(tree.parent) > 3 * 1024
    deepest = np.flatnonzero(tree.depth == tree.depth.max())[:40]
    actions = np.full((len(deepest), batch.horizon), -1)
    for row, node in enumerate(deepest):
        for depth in range(tree.depth[node] - 1, -1, -1):
            actions[row, depth] = tree.action[node]
            node = tree.parent[node]
    theirs = reference.log_probs(policy, batch, tree.instance[deepest], np.where(actions < 0, 0, actions))
    expected = theirs[np.arange(len(deepest)), tree.depth[deepest]].detach().numpy()
    np.testing.assert_allclose(rollouts.log_probs[deepest], expected, atol=1e-10)
