"""The token policy by itself: what it computes, how it starts, what it refuses."""

from __future__ import annotations

import math

import numpy as np
import pytest
import reference_tokens as reference
import torch

from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.tasks import TokenContexts

CONTEXTS = TokenContexts(vocabulary=13, max_length=40)


def policy_for(seed: int = 0, **size: int) -> TokenPolicy:
    policy = make_policy(CONTEXTS, 5, np.random.default_rng(seed), **size)
    assert isinstance(policy, TokenPolicy)
    return policy


def prompts(rows: int = 4, length: int = 9) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).integers(0, 13, (rows, length)))


@pytest.mark.parametrize(
    "size",
    [
        {},
        {"layers": 1, "width": 32, "heads": 2, "kv_heads": 1, "mlp": 48},
        {"layers": 2, "width": 24, "heads": 3, "kv_heads": 3},
    ],
)
def test_prompts_are_read_as_written_out_by_hand(size: dict[str, int]) -> None:
    policy = policy_for(**size).double()
    read = policy.prefill(prompts()).last
    assert (read - reference.read(policy, prompts())[:, -1]).abs().max() < 1e-12


def test_sizes_are_the_papers_at_the_papers_sizes() -> None:
    """Four layers of width 256, MLP 1024, four heads, two of keys and values, 32 tokens: about 3 M parameters."""
    contexts = TokenContexts(vocabulary=32, max_length=400)
    policy = make_policy(contexts, 5, np.random.default_rng(0), layers=4, width=256, mlp=1024)
    assert 2.7e6 < sum(parameter.numel() for parameter in policy.parameters()) < 3.1e6
    assert 0.3e6 < sum(parameter.numel() for parameter in policy_for().parameters()) < 0.4e6


def test_a_fresh_policy_is_near_uniform() -> None:
    policy = policy_for()
    actions = torch.arange(5) + 8
    probs = policy.log_probs(policy.prefill(prompts(200)).last, actions).exp()
    assert (probs.sum(1) - 1).abs().max() < 1e-5
    entropy = -(probs * probs.log()).sum(1).mean()
    assert math.log(5) - 0.1 < entropy.item() < math.log(5)
    assert probs.std(0).min() > 1e-3  # and yet it looks at the prompt


def test_the_seed_decides_the_weights() -> None:
    first, same, other = (policy_for(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[key], same[key]) for key in first)
    assert not all(torch.equal(first[key], other[key]) for key in first)


@pytest.mark.parametrize(
    ("size", "message"),
    [
        ({"width": 30}, "multiple of 2 x heads"),
        ({"heads": 4, "kv_heads": 3}, "heads of kv_heads"),
        ({"depth": 3}, "the policy has no size 'depth'"),
        ({"layers": 0}, "'layers' must be a whole number from 1 to 256"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(size: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        policy_for(**size)


def test_more_actions_than_tokens_are_refused() -> None:
    with pytest.raises(ValueError, match="the vocabulary has 13"):
        make_policy(CONTEXTS, 14, np.random.default_rng(0))
