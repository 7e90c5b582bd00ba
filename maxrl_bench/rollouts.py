"""What N rollouts of each of B instances are, and how counts flow through them.

N is a count, never a dimension. Rollouts form layers of edges: an edge says that `count` rollouts which stood in one
node took one action. At each node the counts of the actions are a multinomial draw, which is exactly the law of
independent rollouts. Where histories meet in one node (memoryless policies), the node's successes are divided over the
edges that lead there as a draw without replacement: rollouts that stand in the same node at the same time are
exchangeable, so this is the law of their fates given the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import torch


class Rollouts(Protocol):
    """N rollouts of each of B instances, and the gradient estimators that are made of them."""

    num_rollouts: int
    successes: np.ndarray  # [B] int64, K of N

    @property
    def contexts_evaluated(self) -> int:
        """How many contexts the network was run on to sample these rollouts."""
        ...

    @property
    def contexts_named(self) -> int:
        """How many it would have been run on, had every rollout been run by itself."""
        ...

    @property
    def actions_taken(self) -> int:
        """How many actions all rollouts together took."""
        ...

    def surrogate(self, on_success: np.ndarray, on_failure: np.ndarray, smoothing: float = 0.0) -> torch.Tensor:
        """A scalar to ascend, with gradient mean_b (1/N) sum_j a_j S_j, S_j the score of the whole rollout j.

        a_j is on_success[b] or on_failure[b], both [B]. `smoothing` = gamma of differential smoothing (arXiv
        2511.19942) takes gamma times the rollout's mean log-probability per action from a_j on success and adds it on
        failure. Raises ValueError on smoothing without `paths=True` in `Batch.sample`.
        """
        ...

    def entropy(self) -> torch.Tensor:
        """The policy's entropy in nats, mean over the actions taken; differentiable."""
        ...


@dataclass(frozen=True)
class Layer:
    """The E edges that rollouts take at one time step."""

    node: np.ndarray  # [E] which node of this layer the edge leaves
    action: np.ndarray  # [E]
    count: np.ndarray  # [E] int64, rollouts through the edge, at least 1
    child: np.ndarray  # [E] the node of the next layer that it leads to; -1 where the rollout ends
    ended: np.ndarray  # [E] int64, how many of the rollouts that end on this edge succeed


def draw_actions(
    counts: np.ndarray, probs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of each node's rollouts take each action: counts [M], probs [M, A] -> node, action, count, each [E]."""
    drawn = rng.multinomial(counts, probs)
    node, action = np.nonzero(drawn)
    return node, action, drawn[node, action]


def successes_through(layers: list[Layer], rng: np.random.Generator) -> list[np.ndarray]:
    """How many of the rollouts through each edge go on to succeed; one [E] int64 array per layer."""
    result: list[np.ndarray] = []
    of_node = np.zeros(0, np.int64)  # successes of each node of the layer below
    for layer in reversed(layers):
        successes = layer.ended.copy()
        onward = np.flatnonzero(layer.child >= 0)
        successes[onward] = split_successes(layer.count[onward], layer.child[onward], of_node, rng)
        of_node = np.bincount(layer.node, weights=successes).astype(np.int64)
        result.append(successes)
    return result[::-1]


def split_successes(
    counts: np.ndarray, child: np.ndarray, successes: np.ndarray, rng: np.random.Generator
) -> np.ndarray:
    """Divide each child's successes over the edges into it, by multivariate hypergeometric draws.

    counts [E]: rollouts through each edge; child [E]: where it leads; successes [M]: how many of a child's rollouts
    succeed. Returns [E]. The edges of a child are served one after the other, all children at once.
    """
    if not len(child):
        return np.zeros(0, np.int64)
    order = np.argsort(child, kind="stable")
    first = np.flatnonzero(np.r_[True, np.diff(child[order]) != 0])
    rank = np.arange(len(child)) - np.repeat(first, np.diff(np.r_[first, len(child)]))
    good = successes.copy()
    bad = np.bincount(child, weights=counts, minlength=len(successes)).astype(np.int64) - good
    result = np.zeros(len(child), np.int64)
    for turn in range(int(rank.max()) + 1):
        edges = order[rank == turn]
        nodes = child[edges]
        drawn = rng.hypergeometric(good[nodes], bad[nodes], counts[edges])
        result[edges] = drawn
        good[nodes] -= drawn
        bad[nodes] -= counts[edges] - drawn
    return result
