"""Token tasks: what a verifier is, and rollouts of a transformer as prefix trees with counts.

The N rollouts of an instance share prefixes, which form a tree (drawn in `prefix_tree`). At each node, one multinomial
draw says how many of the rollouts there take each action, and the network reads each distinct child once. The counts
have exactly the distribution that N independent rollouts have. The gradient is a sum over the tree's edges; edges of
weight zero are skipped in the backward pass.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Protocol

import numpy as np
import torch
from torch import Tensor

from maxrl_bench.rollouts import finite
from maxrl_bench.rollouts.counts import Forest, carry_down, sum_up
from maxrl_bench.rollouts.prefix_tree import Frontier, PrefixTree, read_tree, tree_of
from maxrl_bench.rollouts.transformer import Prefill, TokenPolicy
from maxrl_bench.rollouts.visited import action_weights

RUNNING, SUCCEEDED, FAILED = 0, 1, 2


class Verifier(Protocol):
    """Decides which rollouts succeed, action by action, for M nodes at once; a node's state is D int64 integers."""

    def start(self) -> np.ndarray:
        """The state of each instance before any action: [B, D]."""
        ...

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [M, D] and actions [M] -> next states [M, D], outcomes [M] int8 (RUNNING, SUCCEEDED, FAILED)."""
        ...


@dataclass(frozen=True)
class TokenBatch:
    """B instances of a token task, ready to be rolled out. An action is an index into `actions`, everywhere.

    prompts [B, L] token ids. horizon: a rollout still running after so many actions fails. actions [A]: the tokens that
    the policy may emit (None: the whole vocabulary). demonstrations [B, T]: actions, padded by -1. solutions: all
    accepted answers, as (instance [M], actions [M, T] padded by -1); they give the exact pass rate.
    """

    prompts: Tensor
    verifier: Verifier
    horizon: int
    actions: Tensor | None = None
    demonstrations: Tensor | None = None
    solutions: Callable[[], tuple[np.ndarray, np.ndarray]] | None = None

    @property
    def num_instances(self) -> int:
        return len(self.prompts)

    @cached_property
    def distinct(self) -> tuple[Tensor, np.ndarray]:
        """The distinct prompts [P, L] in order of appearance, and each instance's row among them [B]."""
        prompts = self.prompts.cpu().numpy()
        _, first, rows = np.unique(prompts, axis=0, return_index=True, return_inverse=True)
        rank = np.empty(len(first), np.int64)
        rank[np.argsort(first)] = np.arange(len(first))
        return torch.from_numpy(prompts[np.sort(first)]), rank[rows.reshape(-1)]

    def prefill(self, policy: TokenPolicy) -> Prefill:
        """The network's pass over the distinct prompts, with their keys and values."""
        prompts = self.distinct[0]
        return policy.prefill(prompts.to(policy.rotations.device), self.shared)

    @cached_property
    def shared(self) -> int:
        """With how many tokens, short of the whole, all distinct prompts begin; 0 where there is but one."""
        prompts = self.distinct[0]
        same = (prompts == prompts[0]).all(0).long().cumprod(0)
        return int(same.sum()) if len(prompts) > 1 else 0

    def allowed(self, policy: TokenPolicy) -> Tensor | None:
        """`actions` on the policy's device."""
        return None if self.actions is None else self.actions.to(policy.rotations.device)

    def sample(
        self,
        policy: torch.nn.Module,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        grad: bool = True,
        paths: bool = False,
    ) -> TokenRollouts:
        """N independent rollouts of every instance.

        `paths` changes nothing: a node of a prefix tree has only one history. Raises ValueError if num_rollouts < 1.
        """
        if num_rollouts < 1:
            raise ValueError(f"num_rollouts must be at least 1, got {num_rollouts}")
        assert isinstance(policy, TokenPolicy)
        grad = grad and torch.is_grad_enabled()
        with torch.set_grad_enabled(grad):
            prefill = self.prefill(policy)
        return _sample(self, policy, prefill, num_rollouts, rng, grad)

    def log_pass_rate(self, policy: torch.nn.Module) -> Tensor:
        """Exact log p [B] float64: the log of the summed probabilities of all accepted answers."""
        if self.solutions is None:
            raise ValueError(
                "this task's exact pass rates are not tractable: its accepted answers are too many to list"
            )
        instance, actions = self.solutions()
        log_prob = self._answer_log_probs(policy, instance, actions).double().sum(1)
        rows = torch.from_numpy(instance).to(log_prob.device)
        # A per-instance maximum keeps the sum of tiny probabilities from vanishing.
        top = torch.full((self.num_instances,), -torch.inf, dtype=torch.float64, device=log_prob.device)
        top = top.scatter_reduce(0, rows, log_prob.detach(), "amax")
        total = torch.zeros_like(top).index_add(0, rows, (log_prob - top[rows]).exp())
        return total.log() + top

    def demonstration_loss(self, policy: torch.nn.Module) -> Tensor:
        """Mean negative log-likelihood of the demonstrated actions, a scalar."""
        if self.demonstrations is None:
            raise ValueError("this task has no demonstrations")
        actions = self.demonstrations.cpu().numpy()
        log_probs = self._answer_log_probs(policy, np.arange(self.num_instances), actions)
        return -log_probs.sum() / int((actions >= 0).sum())

    def _answer_log_probs(self, policy: torch.nn.Module, instance: np.ndarray, actions: np.ndarray) -> Tensor:
        """Log-probability [M, T] of every action of M answers, 0 at padding; instance [M], actions [M, T]."""
        assert isinstance(policy, TokenPolicy)
        tree, before = tree_of(instance, actions, self.distinct[1])
        log_probs = read_tree(policy, self.prefill(policy), tree, self.allowed(policy))
        real = actions >= 0
        picked = torch.from_numpy(before * log_probs.shape[1] + np.where(real, actions, 0)).to(log_probs.device)
        return log_probs.flatten()[picked] * torch.from_numpy(real).to(log_probs)


def _sample(
    batch: TokenBatch, policy: TokenPolicy, prefill: Prefill, num_rollouts: int, rng: np.random.Generator, grad: bool
) -> TokenRollouts:
    """Draws the tree level by level; `first` is the number of the present level's first node."""
    rows = batch.distinct[1]
    allowed = batch.allowed(policy)
    roots = len(rows)
    states = batch.verifier.start()
    instance = np.arange(roots)
    counts = np.full(roots, num_rollouts, np.int64)
    nodes = [(np.full(roots, -1), np.full(roots, -1), instance)]
    edges = []
    log_probs = []
    first = 0
    with torch.no_grad():
        frontier = Frontier(policy, prefill, rows, allowed)
        read = policy.log_probs(prefill.last, allowed)[torch.from_numpy(rows).to(prefill.last.device)]
        for t in range(batch.horizon):
            level = read.double().cpu().numpy()  # [m, A] log-probabilities at the nodes of this level
            log_probs.append(level)
            parent, action, count = draw_few_or_multinomial(level, counts, rng)
            states, outcome = batch.verifier.advance(states[parent], action)
            going = np.flatnonzero(outcome == RUNNING) if t + 1 < batch.horizon else np.empty(0, np.int64)
            child = np.full(len(parent), -1)
            child[going] = first + len(counts) + np.arange(len(going))
            edges.append((first + parent, action, count, outcome == SUCCEEDED, child))
            if not len(going):
                break
            first += len(counts)
            parent, action, counts, states = parent[going], action[going], count[going], states[going]
            instance = instance[parent]
            nodes.append((first - len(level) + parent, action, instance))
            read = frontier.read(parent, action, instance)
    parent, action, instance = (np.concatenate(column) for column in zip(*nodes, strict=True))
    depth = np.repeat(np.arange(len(nodes)), [len(level[0]) for level in nodes])
    tree = PrefixTree(parent, action, instance, depth, rows)
    node, action, count, succeeded, child = (np.concatenate(column) for column in zip(*edges, strict=True))
    return TokenRollouts(
        batch,
        policy,
        num_rollouts,
        grad,
        tree,
        np.concatenate(log_probs),
        node,
        action,
        count,
        succeeded,
        child,
        prefill,
    )


def draw_few_or_multinomial(
    log_probs: np.ndarray, counts: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of the rollouts at each of M nodes take each action: single draws at nodes with few, else a multinomial.

    log_probs [M, A] float64; counts [M]: rollouts at each node. Returns the E edges taken, sorted by node and action:
    node [E], action [E], count [E] > 0.
    """
    probs = finite.probabilities(log_probs)
    num_actions = probs.shape[1]
    # A multinomial draw costs A binomials: for few rollouts it is cheaper to draw each of them.
    few = counts <= max(1, num_actions // 8)
    many = np.flatnonzero(~few)
    drawn = rng.multinomial(counts[many], probs[many])
    row, action = np.nonzero(drawn)
    node, count = many[row], drawn[row, action]
    if few.any():
        each = np.repeat(np.flatnonzero(few), counts[few])
        bounds = np.cumsum(probs, axis=1)
        chosen = (rng.random(len(each))[:, None] * bounds[each, -1:] >= bounds[each]).sum(1)
        edge, times = np.unique(each * num_actions + chosen, return_counts=True)
        node, action = np.concatenate([node, edge // num_actions]), np.concatenate([action, edge % num_actions])
        count = np.concatenate([count, times])
        order = np.argsort(node * num_actions + action)
        node, action, count = node[order], action[order], count[order]
    return node, action, count


@dataclass
class TokenRollouts:
    """N rollouts of each of B instances as counts: a tree of n nodes (contexts) and its E edges (actions taken there).

    log_probs [n, A] float64: of the actions at every node, as sampled. For each edge [E]: node, in which it starts;
    action; count, how many rollouts took it; succeeded, whether they succeed with this action; child, the node that it
    leads to, -1 where the rollouts end. prefill: sampling's pass over the prompts; its autograd graph can be used by
    one backward pass.
    """

    batch: TokenBatch
    policy: TokenPolicy
    num_rollouts: int
    grad: bool
    tree: PrefixTree
    log_probs: np.ndarray
    node: np.ndarray
    action: np.ndarray
    count: np.ndarray
    succeeded: np.ndarray
    child: np.ndarray
    prefill: Prefill | None

    @cached_property
    def successes(self) -> np.ndarray:
        """[B] int64: how many rollouts of each instance succeeded."""
        instance = self.tree.instance[self.node]
        total = np.bincount(instance, self.count * self.succeeded, minlength=self.tree.num_roots)
        return total.astype(np.int64)

    @property
    def contexts_evaluated(self) -> int:
        """How many tokens the network has read: those of the distinct prompts, and one per node below the roots."""
        return self.batch.distinct[0].numel() + len(self.tree.parent) - self.tree.num_roots

    @property
    def actions_taken(self) -> int:
        return int(self.count.sum())

    @property
    def contexts_named(self) -> int:
        """How many tokens it would have read, had every rollout been run by itself."""
        read = self.num_rollouts * self.batch.prompts.numel()
        return read + int(self.count[self.child >= 0].sum())

    def surrogate(self, on_success: np.ndarray, on_failure: np.ndarray, smoothing: float = 0.0) -> Tensor:
        """A scalar to maximise, whose gradient is mean_b (1/N) sum_j a_j S_j; S_j is the score of rollout j.

        on_success, on_failure [B]: the weights a_j of an instance's successes and failures. smoothing: gamma of
        differential smoothing. It subtracts gamma times a rollout's mean log-probability per action (a number, without
        gradient) from the weight of a success, and adds it to the weight of a failure.
        An edge's weight is the sum over all rollouts through it; only edges of weight other than zero, and what they
        need, enter the forward and the backward pass.
        """
        instance = self.tree.instance[self.node]
        weight = np.where(self.succeeded, on_success[instance], on_failure[instance])
        forest = self._forest()
        if smoothing:
            length = self.tree.depth[self.node] + 1
            of_action = self.log_probs[self.node, self.action]
            weight = weight + smoothing * np.where(self.succeeded, -1.0, 1.0) * carry_down(forest, of_action) / length
        return self._weighted(
            self.node, self.action, sum_up(forest, np.where(self.child < 0, self.count * weight, 0.0))
        )

    def expected_surrogate(self, on_success: np.ndarray, on_failure: np.ndarray) -> Tensor:
        """As `surrogate`, but its mean given the nodes of the tree: no more variance, the same expectation.

        on_success, on_failure [N+1]: the weights s(K) and f(K) of an instance with K successes. See `visited`.
        """
        outcome = self._outcomes()
        ends = outcome == SUCCEEDED, outcome == FAILED
        weight = action_weights(self.tree, self.log_probs, ends, on_success, on_failure)
        node, action = np.nonzero(weight)
        return self._weighted(node, action, weight[node, action])

    def _outcomes(self) -> np.ndarray:
        """What each action at each node leads to, taken or not: [n, A] RUNNING, SUCCEEDED or FAILED."""
        verifier, (_, actions) = self.batch.verifier, self.log_probs.shape
        outcomes: list[np.ndarray] = []
        after, above = np.zeros((0, 0), np.int64), slice(0, 0)
        for level in self.tree.levels():
            came = (self.tree.parent[level] - above.start) * actions + self.tree.action[level]
            states = after[came] if outcomes else verifier.start()
            after, outcome = verifier.advance(np.repeat(states, actions, 0), np.tile(np.arange(actions), len(states)))
            outcomes.append(outcome.reshape(-1, actions))
            above = level
        if len(outcomes) == self.batch.horizon:
            outcomes[-1] = np.where(outcomes[-1] == RUNNING, FAILED, outcomes[-1])
        return np.concatenate(outcomes)

    def _weighted(self, node: np.ndarray, action: np.ndarray, weight: np.ndarray) -> Tensor:
        """sum over edges of weight [E] times log pi(action [E] at node [E]), over N and B; differentiable."""
        used = np.bincount(node, weight != 0, minlength=len(self.tree.parent))
        kept = self.tree.sum_up(used) > 0
        if not kept.any():
            return torch.zeros((), dtype=self.policy.rotations.dtype, device=self.policy.rotations.device)
        taken = np.flatnonzero(weight)
        log_probs = self._read(kept)
        new = np.cumsum(kept | (self.tree.parent < 0)) - 1
        picked = torch.from_numpy(new[node[taken]] * log_probs.shape[1] + action[taken]).to(log_probs.device)
        scaled = torch.from_numpy(weight[taken] / (self.num_rollouts * self.tree.num_roots)).to(log_probs)
        return scaled @ log_probs.flatten()[picked]

    def entropy(self) -> Tensor:
        """The policy's entropy in nats, mean over the actions taken: a scalar, differentiable if sampled with grad."""
        log_probs = self._read(np.ones(len(self.tree.parent), bool))
        visits = np.bincount(self.node, self.count, minlength=len(log_probs))
        share = torch.from_numpy(visits / visits.sum()).to(log_probs)
        return -share @ (log_probs.exp() * log_probs).sum(1)

    def _forest(self) -> Forest:
        """The edges level by level, with nodes and children counted from the first of their level."""
        levels = self.tree.levels()
        edges = [slice(*np.searchsorted(self.node, [level.start, level.stop])) for level in levels]
        return [
            (self.node[part] - level.start, np.where(self.child[part] >= 0, self.child[part] - level.stop, -1))
            for part, level in zip(edges, levels, strict=True)
        ]

    def _read(self, kept: np.ndarray) -> Tensor:
        """Log-probabilities at all roots and at the nodes for which kept [n] holds, in the order of the nodes."""
        kept = kept | (self.tree.parent < 0)
        if not self.grad:
            return torch.from_numpy(self.log_probs[kept]).to(self.policy.rotations)
        tree = self.tree.restrict(kept)
        # A backward pass frees the graph of sampling's pass over the prompts, so that only the first one can use it.
        prefill, self.prefill = self.prefill or self.batch.prefill(self.policy), None
        return read_tree(self.policy, prefill, tree, self.batch.allowed(self.policy))
