"""What N rollouts of each of B instances are, and how counts of rollouts are drawn and passed along.

N is a count, never a dimension of an array. An *edge* says that `count` rollouts which had reached one node (a state or
a prefix, at one time) took one action there; the edges of one time step are a *layer*. The counts of a node's actions
are one multinomial draw, which has exactly the distribution of independent rollouts.

With a memoryless policy, rollouts with different histories can meet in one node and are counted together from then on.
Which of them succeed is then drawn backwards: a node's successes are divided over the edges that lead to it by drawing
without replacement. That is the exact distribution of which rollouts succeed, given the counts, since rollouts in one
node at one time are exchangeable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch


class Rollouts(Protocol):
    """N rollouts of each of B instances, and the gradient estimates that can be computed from them."""

    num_rollouts: int
    successes: np.ndarray  # [B] int64, K of N

    @property
    def contexts_evaluated(self) -> int:
        """How many contexts the network was run on to sample these rollouts."""
        ...

    @property
    def contexts_named(self) -> int:
        """How many contexts it would have been run on, had every rollout been run by itself."""
        ...

    @property
    def actions_taken(self) -> int:
        """How many actions all rollouts together took."""
        ...

    def surrogate(self, on_success: np.ndarray, on_failure: np.ndarray, smoothing: float = 0.0) -> torch.Tensor:
        """A scalar to maximise, with gradient mean_b (1/N) sum_j a_j S_j, where S_j is the score of rollout j.

        a_j is on_success[b] or on_failure[b], both [B]. `smoothing` = gamma of differential smoothing (arXiv
        2511.19942): gamma times the rollout's mean log-probability per action is subtracted from the weight a_j of a
        success and added to that of a failure. Raises ValueError on smoothing without `paths=True` in `Batch.sample`.
        """
        ...

    def entropy(self) -> torch.Tensor:
        """The policy's entropy in nats, mean over the actions taken; differentiable."""
        ...


@runtime_checkable
class TreeRollouts(Protocol):
    """Rollouts that are trees of contexts, of which no two have the same history."""

    def expected_surrogate(self, on_success: np.ndarray, on_failure: np.ndarray) -> torch.Tensor:
        """As `Rollouts.surrogate`, but its mean given the contexts visited: no more variance, the same expectation.

        on_success, on_failure [N+1]: the weights of an instance with K = 0..N successes.
        """
        ...


# From so many actions on, with fewer rollouts than cells, it is faster to draw for each rollout by itself.
WIDE = 256


@dataclass(frozen=True)
class Layer:
    """The E edges that rollouts take at one time step."""

    node: np.ndarray  # [E] the node of this layer in which the edge starts
    action: np.ndarray  # [E]
    count: np.ndarray  # [E] int64, how many rollouts take the edge, at least 1
    child: np.ndarray  # [E] the node of the next layer to which it leads; -1 where the rollouts end
    ended: np.ndarray  # [E] int64, how many rollouts end on this edge with success


def draw_multinomial(
    counts: np.ndarray, probs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """How many of the rollouts at each of M nodes take each action: a multinomial draw for each node.

    counts [M]: rollouts at each node; probs [M, A]. Returns the E edges taken: node, action and count > 0, each [E].
    """
    if probs.shape[1] >= WIDE and counts.sum() <= probs.size:
        return _draw_singly(counts, probs, rng)
    drawn = rng.multinomial(counts, probs)
    node, action = np.nonzero(drawn)
    return node, action, drawn[node, action]


def _draw_singly(
    counts: np.ndarray, probs: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`draw_multinomial` by drawing for each rollout and counting."""
    bounds = np.cumsum(probs, axis=1)
    bounds /= bounds[:, -1:].copy()  # exactly 1 at the end, so that no action of probability zero is ever drawn
    numbers = np.split(rng.random(counts.sum()), np.cumsum(counts)[:-1])
    actions = [row.searchsorted(drawn, side="right") for row, drawn in zip(bounds, numbers, strict=True)]
    cells = np.repeat(np.arange(len(counts)) * probs.shape[1], counts) + np.concatenate(actions)
    cells, count = np.unique(cells, return_counts=True)
    return *np.divmod(cells, probs.shape[1]), count


def successes_through(layers: list[Layer], rng: np.random.Generator) -> list[np.ndarray]:
    """How many of the rollouts that take each edge succeed in the end: for each layer, [E] int64."""
    result: list[np.ndarray] = []
    of_node = np.zeros(0, np.int64)  # [M] successes at each node of the next layer
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
    """Divide the successes at each node over the edges that lead to it, by multivariate hypergeometric draws.

    counts [E]: rollouts that take each edge; child [E]: the node to which it leads; successes [M]: how many of the
    rollouts at each node succeed. Returns how many succeed of those that take each edge: [E] int64. The first edges of
    all nodes are drawn together, then all second ones out of what is left, and so on.
    """
    total = np.bincount(child, counts, len(successes)).astype(np.int64)
    # Where all succeed, or none does, there is nothing to draw.
    result = np.where((successes == total)[child], counts, 0)
    mixed = np.flatnonzero(((successes > 0) & (successes < total))[child])
    order = mixed[np.argsort(child[mixed], kind="stable")]
    starts = np.diff(child[order], prepend=-1) != 0
    first = np.flatnonzero(starts)
    rank = np.arange(len(order)) - first[np.cumsum(starts) - 1]
    good, bad = successes.copy(), total - successes
    for turn in range(int(rank.max(initial=-1)) + 1):
        edges = order[rank == turn]
        nodes = child[edges]
        drawn = rng.hypergeometric(good[nodes], bad[nodes], counts[edges])
        result[edges] = drawn
        good[nodes] -= drawn
        bad[nodes] -= counts[edges] - drawn
    return result


def distinct(numbers: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The distinct ones among numbers [M] from 0 to size - 1, in order, and which of them each is: [M].

    In time that grows with size + M, without sorting.
    """
    present = np.zeros(size, bool)
    present[numbers] = True
    kinds = np.flatnonzero(present)
    place = np.empty(size, np.int64)
    place[kinds] = np.arange(len(kinds))
    return kinds, place[numbers]


Forest = Sequence[tuple[np.ndarray, np.ndarray]]  # for each layer, its edges' `node` and `child` (see `Layer`)


def sum_up(forest: Forest, values: np.ndarray) -> np.ndarray:
    """For each edge of a forest, its value plus the values of all edges below it: [E] -> [E] float64.

    values: of all edges, layer after layer.
    """
    total = values.astype(np.float64)
    stop = len(total)
    node_below, total_below = np.zeros(0, np.int64), np.zeros(0)
    for node, child in reversed(forest):
        layer = total[stop - len(node) : stop]
        onward = child >= 0
        # Nodes without edges count zero.
        of_node = np.bincount(node_below, total_below, minlength=int(child.max(initial=-1)) + 1)
        layer[onward] += of_node[child[onward]]
        stop -= len(node)
        node_below, total_below = node, layer
    return total


def carry_down(forest: Forest, values: np.ndarray) -> np.ndarray:
    """For each edge of a forest, its value plus the values of all edges above it: [E] -> [E] float64.

    values: of all edges, layer after layer.
    """
    total = values.astype(np.float64)
    start = 0
    above = np.zeros(int(forest[0][0].max()) + 1)
    for node, child in forest:
        layer = total[start : start + len(node)]
        layer += above[node]
        onward = child >= 0
        above = np.zeros(int(child.max(initial=-1)) + 1)
        above[child[onward]] = layer[onward]
        start += len(node)
    return total
