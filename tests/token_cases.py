"""A toy task and a small policy for the tests of token rollouts, and how gradients are compared."""

from __future__ import annotations

import numpy as np
import reference_tokens as reference
import torch

from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.tasks import TokenContexts

ACTIONS, HORIZON, VOCABULARY, PROMPT = 3, 4, 7, 5


class Table:
    """A verifier that looks every prefix up in a table of outcomes [B, prefixes]; a state is (row, prefix)."""

    def __init__(self, outcomes: np.ndarray, num_actions: int):
        self.outcomes, self.num_actions = outcomes, num_actions

    def start(self) -> np.ndarray:
        return np.stack([np.arange(len(self.outcomes)), np.zeros(len(self.outcomes), np.int64)], 1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prefixes = states[:, 1] * self.num_actions + actions + 1
        return np.stack([states[:, 0], prefixes], 1), self.outcomes[states[:, 0], prefixes]


def toy(instances: int = 3, seed: int = 0, same: bool = False, horizon: int = HORIZON) -> TokenBatch:
    """Instances whose outcomes are drawn at random; with `same`, all are the same instance."""
    rng = np.random.default_rng(seed)
    distinct = 1 if same else instances
    prefixes = sum(ACTIONS**t for t in range(horizon + 1))
    outcomes = rng.choice([RUNNING, SUCCEEDED, FAILED], (distinct, prefixes), p=[0.6, 0.15, 0.25]).astype(np.int8)
    prompts = rng.integers(0, VOCABULARY, (distinct, PROMPT))
    rows = np.zeros(instances, np.int64) if same else np.arange(instances)
    return TokenBatch(
        prompts=torch.from_numpy(prompts[rows]),
        verifier=Table(outcomes[rows], ACTIONS),
        horizon=horizon,
        actions=torch.tensor([4, 1, 6]),
    )


def policy_for(dtype: torch.dtype = torch.float64, scale: float = 6.0) -> TokenPolicy:
    """A small policy; at the usual scale its weights are so large that its choices are far from uniform."""
    size = {"layers": 2, "width": 16, "heads": 4, "kv_heads": 2, "mlp": 24}
    policy = make_policy(TokenContexts(VOCABULARY, PROMPT + 12), ACTIONS, np.random.default_rng(0), **size)
    assert isinstance(policy, TokenPolicy)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(scale if parameter.ndim > 1 else 1.0)
    return policy.to(dtype)


def gradient(policy: TokenPolicy, value: torch.Tensor) -> torch.Tensor:
    parts = torch.autograd.grad(value, list(policy.parameters()), allow_unused=True, materialize_grads=True)
    return torch.cat([part.flatten() for part in parts])


def distance(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    """Relative, between two gradients."""
    return float((mine - theirs).norm() / theirs.norm())


WEIGHTS = {
    "both": (np.array([1.5, 0.3, 2.0]), np.array([-0.5, -0.1, -1.0])),
    "successes only": (np.array([1.5, 0.3, 2.0]), np.zeros(3)),
    "one instance": (np.array([0.0, 2.0, 0.0]), np.array([0.0, -1.0, 0.0])),
}


def with_solutions(batch: TokenBatch) -> TokenBatch:
    answers = [reference.every_answer(batch, b, ACTIONS) for b in range(batch.num_instances)]
    accepted = [actions[success] for actions, success in answers]
    instance = np.repeat(np.arange(len(accepted)), [len(rows) for rows in accepted])
    return TokenBatch(
        batch.prompts, batch.verifier, batch.horizon, batch.actions, None, lambda: (instance, np.concatenate(accepted))
    )
