"""The textbook loop for token policies, as plainly as it can be written; what the engine is compared with.

Nothing here is shared with the engine but the policy's parameters: every rollout is a row, every row is read whole.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch, TokenRollouts
from maxrl_bench.rollouts.transformer import TokenPolicy


def _norm(x: Tensor, gain: Tensor) -> Tensor:
    return x / (x.pow(2).mean(-1, keepdim=True) + 1e-6).sqrt() * gain


def _rotate(x: Tensor, rotations: Tensor) -> Tensor:
    """x [R, T, heads, d] as d / 2 complex numbers, turned by position-dependent angles."""
    half = x.shape[-1] // 2
    cos, sin = rotations[: x.shape[1], 0, :, :half], rotations[: x.shape[1], 1, :, half:]
    turned = torch.complex(x[..., :half], x[..., half:]) * torch.complex(cos, sin)
    return torch.cat([turned.real, turned.imag], -1)


def read(policy: TokenPolicy, tokens: Tensor) -> Tensor:
    """Final hidden vectors [R, T, width] of whole sequences [R, T]."""
    x = policy.embedding.weight[tokens]
    rows, length = tokens.shape
    seen = torch.ones(length, length, dtype=torch.bool).tril()
    for layer in policy.layers:
        normed = _norm(x, layer.norm_attention.weight)
        queries = (normed @ layer.query.weight.T).view(rows, length, policy.heads, -1)
        keys, values = (normed @ layer.key_value.weight.T).view(rows, length, 2, policy.kv_heads, -1).unbind(2)
        queries, keys = _rotate(queries, policy.rotations), _rotate(keys, policy.rotations)
        share = policy.heads // policy.kv_heads
        keys, values = keys.repeat_interleave(share, 2), values.repeat_interleave(share, 2)
        scores = torch.einsum("rihd,rjhd->rhij", queries, keys) / queries.shape[-1] ** 0.5
        attention = scores.masked_fill(~seen, -torch.inf).softmax(-1)
        attended = torch.einsum("rhij,rjhd->rihd", attention, values).reshape(rows, length, -1)
        x = x + attended @ layer.out.weight.T
        normed = _norm(x, layer.norm_mlp.weight)
        x = x + torch.nn.functional.silu(normed @ layer.up.weight.T) @ layer.down.weight.T
    return _norm(x, policy.norm.weight)


def log_probs(policy: TokenPolicy, batch: TokenBatch, instance: np.ndarray, actions: np.ndarray) -> Tensor:
    """Log-probabilities [R, T, A] before each action of the rollouts actions [R, T], padded by -1."""
    allowed = torch.arange(policy.embedding.num_embeddings) if batch.actions is None else batch.actions
    answers = allowed[torch.from_numpy(np.where(actions >= 0, actions, 0))]
    prompts = batch.prompts[torch.from_numpy(instance)]
    hidden = read(policy, torch.cat([prompts, answers[:, :-1]], 1))[:, prompts.shape[1] - 1 :]
    return torch.log_softmax(hidden @ policy.embedding.weight[allowed].T, -1)


def taken(policy: TokenPolicy, batch: TokenBatch, instance: np.ndarray, actions: np.ndarray) -> Tensor:
    """Log-probability [R, T] of every action, 0 where there is none."""
    real = torch.from_numpy(actions >= 0)
    chosen = torch.from_numpy(np.where(actions >= 0, actions, 0))
    picked = log_probs(policy, batch, instance, actions).gather(2, chosen[:, :, None])[:, :, 0]
    return torch.where(real, picked, torch.zeros((), dtype=picked.dtype))


def rows_of(rollouts: TokenRollouts) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A tree of counts as single rollouts: instance [R], actions [R, T] padded by -1, success [R]."""
    tree, horizon = rollouts.tree, rollouts.batch.horizon
    instance, actions, success = [], [], []
    for edge in np.flatnonzero(rollouts.child < 0):
        node, path = int(rollouts.node[edge]), [int(rollouts.action[edge])]
        while tree.parent[node] >= 0:
            path.append(int(tree.action[node]))
            node = int(tree.parent[node])
        times = int(rollouts.count[edge])
        instance += [node] * times
        actions += [path[::-1] + [-1] * (horizon - len(path))] * times
        success += [bool(rollouts.succeeded[edge])] * times
    return np.array(instance), np.array(actions), np.array(success)


def surrogate(
    policy: TokenPolicy, batch: TokenBatch, rows: tuple[np.ndarray, np.ndarray, np.ndarray], weights: np.ndarray
) -> Tensor:
    """(1 / (B N)) sum_j a_j log pi(rollout j), with weights a_j [R]."""
    instance, actions, _ = rows
    return (torch.from_numpy(weights) * taken(policy, batch, instance, actions).sum(1)).sum() / len(instance)


def entropy(policy: TokenPolicy, batch: TokenBatch, rows: tuple[np.ndarray, np.ndarray, np.ndarray]) -> Tensor:
    """Mean entropy over all actions that the rollouts took."""
    instance, actions, _ = rows
    log_prob = log_probs(policy, batch, instance, actions)
    per_action = -(log_prob.exp() * log_prob).sum(2)
    return per_action[torch.from_numpy(actions >= 0)].mean()


def every_answer(batch: TokenBatch, instance: int, num_actions: int) -> tuple[np.ndarray, np.ndarray]:
    """All rollouts that an instance can have, by brute force: actions [R, T] padded by -1, success [R]."""
    answers, success = [], []
    stack: list[tuple[list[int], np.ndarray]] = [([], batch.verifier.start()[[instance]])]
    while stack:
        path, state = stack.pop()
        for action in range(num_actions):
            after, outcome = batch.verifier.advance(state, np.array([action]))
            longer = [*path, action]
            if outcome[0] == RUNNING and len(longer) < batch.horizon:
                stack.append((longer, after))
            else:
                answers.append(longer + [-1] * (batch.horizon - len(longer)))
                success.append(outcome[0] == SUCCEEDED)
    return np.array(answers), np.array(success)
