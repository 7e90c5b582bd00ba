r"""Trees of token prefixes: every distinct prefix is one node, and the transformer reads every node once.

Two instances with four rollouts each, made of the tokens a, b and the end mark $, are 6 nodes:

    instance 0: a$ ab$ ab$ b$     instance 1: a$ a$ a$ a$     node      0  1  2  3  4  5
                                                              parent   -1 -1  0  0  1  2   sorted within a level
    depth 0        0: prompt              1: prompt           action   -1 -1  a  b  a  b   leads from parent to node
                   /      \                   |               instance  0  1  0  0  1  0   which root is above
    depth 1      2: a    3: b               4: a              depth     0  0  1  1  1  2
                   |
    depth 2      5: ab

A node is a context in which the policy still acts, so the end mark makes none: it is an edge that leads nowhere. How
many rollouts take each edge is kept in `tokens.TokenRollouts`, here 18 actions on 8 edges. `Frontier` reads a tree by
levels, as sampling must; `read_tree` reads a known tree in one pass, with gradients. A node attends to its prompt,
whose keys and values all nodes of the instance share, to its ancestors and to itself.

Shapes: n nodes, m nodes of one level, B instances, P distinct prompts of length L, A actions.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from maxrl_bench.rollouts.counts import sum_up
from maxrl_bench.rollouts.transformer import Prefill, TokenPolicy
from maxrl_bench.rollouts.tree_attention import Blocks, of_level, of_tree

SLICE = 4096  # nodes of a level that are read together: bounds the memory, and fits the processor's cache
SEGMENT = 16_384  # nodes whose activations the backward pass holds at one time


@dataclass(frozen=True)
class PrefixTree:
    """n nodes, level by level, each level sorted by parent (drawn above); nodes 0..B-1 are the roots, the prompts.

    parent, action [n]: -1 for roots. instance [n], depth [n]. prompt_of [B]: which of the P distinct prompts each
    instance has. All int64.
    """

    parent: np.ndarray
    action: np.ndarray
    instance: np.ndarray
    depth: np.ndarray
    prompt_of: np.ndarray

    @property
    def num_roots(self) -> int:
        return len(self.prompt_of)

    def levels(self) -> list[slice]:
        """The nodes of each depth, as slices into the arrays [n]."""
        ends = np.cumsum(np.bincount(self.depth))
        return [slice(int(start), int(end)) for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]

    def sum_up(self, values: np.ndarray) -> np.ndarray:
        """For each node, its value plus the values of all nodes below it: [n] -> [n] float64."""
        levels = self.levels()
        # The edge that leads to a node stands for it; the roots' lead from nowhere.
        forest = [
            (np.maximum(self.parent[level] - above, 0), np.arange(level.stop - level.start))
            for above, level in zip([0, *(level.start for level in levels)], levels, strict=False)
        ]
        return sum_up(forest, values)

    def restrict(self, kept: np.ndarray) -> PrefixTree:
        """The tree of some nodes: kept [n] bool must hold for all roots, and for the parent of every node kept."""
        new = np.cumsum(kept) - 1
        parent = self.parent[kept]
        return PrefixTree(
            np.where(parent < 0, -1, new[parent]),
            self.action[kept],
            self.instance[kept],
            self.depth[kept],
            self.prompt_of,
        )


def tree_of(instance: np.ndarray, actions: np.ndarray, prompt_of: np.ndarray) -> tuple[PrefixTree, np.ndarray]:
    """The tree of M action sequences: instance [M], actions [M, T] padded by -1, prompt_of [B].

    Returns also the node [M, T] in which each action is taken (meaningless at padding). Last actions make no node.
    """
    count, horizon = actions.shape
    roots = len(prompt_of)
    num_actions = int(actions.max(initial=0)) + 1
    current = instance.astype(np.int64)  # [M] the node that each sequence has reached
    before = np.zeros((count, horizon), np.int64)
    levels = [(np.full(roots, -1), np.full(roots, -1), np.arange(roots))]
    size = roots
    for t in range(horizon):
        before[:, t] = current
        going = np.flatnonzero(actions[:, t + 1] >= 0) if t + 1 < horizon else np.empty(0, np.int64)
        if not len(going):
            break
        edges, child = np.unique(current[going] * num_actions + actions[going, t], return_inverse=True)
        parent = edges // num_actions
        first = size - len(levels[-1][0])
        levels.append((parent, edges % num_actions, levels[-1][2][parent - first]))
        current = current.copy()
        current[going] = size + child
        size += len(edges)
    parent, action, root = (np.concatenate(column) for column in zip(*levels, strict=True))
    depth = np.repeat(np.arange(len(levels)), [len(level[0]) for level in levels])
    return PrefixTree(parent, action, root, depth, prompt_of), before


class Frontier:
    """Reads a tree level by level, without gradients; keeps the keys and values of every node read.

    pools: for each layer, a row of keys and values for every token of the prompts, then for every node read, with room
    for more. path [m, depth]: the rows there of each node of the present level and of its ancestors below the root.
    """

    def __init__(self, policy: TokenPolicy, prefill: Prefill, prompt_of: np.ndarray, actions: Tensor | None):
        self.policy, self.prefill, self.actions = policy, prefill, actions
        self.device = prefill.last.device
        self.prompt_of = prompt_of
        self.path = np.empty((len(prompt_of), 0), np.int64)
        self.pools = [cache.detach() for cache in prefill.cache]
        self.size = len(self.pools[0])

    def read(self, parent: np.ndarray, action: np.ndarray, instance: np.ndarray) -> Tensor:
        """Read the next level: parent [m] as rows of the present one, sorted, action [m], instance [m].

        Returns the log-probabilities of the next actions [m, A].
        """
        new = np.arange(self.size, self.size + len(parent))
        self.path = np.concatenate([self.path[parent], new[:, None]], 1)
        tokens = torch.from_numpy(action).to(self.device)
        tokens = tokens if self.actions is None else self.actions[tokens]
        self._grow(self.size + len(parent))
        position = torch.tensor([self.prefill.rows.shape[1] + self.path.shape[1] - 1], device=self.device)
        log_probs = []
        for start in range(0, len(parent), SLICE):
            part = slice(start, start + SLICE)
            blocks = of_level(self.policy, self.prefill, self.prompt_of, self.path[part], instance[part])
            rows = slice(self.size, self.size + len(instance[part]))

            def attend(
                layer: int, queries: Tensor, keys_values: Tensor, blocks: Blocks = blocks, rows: slice = rows
            ) -> Tensor:
                self.pools[layer][rows] = keys_values
                return blocks(queries, self.pools[layer])

            hidden = self.policy.continue_(tokens[part], position, attend)
            log_probs.append(self.policy.log_probs(hidden, self.actions))
            self.size = rows.stop
        return torch.cat(log_probs)

    def _grow(self, size: int) -> None:
        for layer, pool in enumerate(self.pools):
            # The first pools are the prompts' caches themselves, which autograd may need: their nodes go to copies.
            if len(pool) < size:
                bigger = pool.new_empty((max(size, 2 * len(pool), 1024), pool.shape[1]))
                bigger[: self.size] = pool[: self.size]
                self.pools[layer] = bigger


def read_tree(policy: TokenPolicy, prefill: Prefill, tree: PrefixTree, actions: Tensor | None) -> Tensor:
    """Log-probabilities [n, A] of the next action at every node of a tree, differentiable.

    actions [A]: the tokens that may be emitted (None: all). A large tree is read in segments; the backward pass
    computes their activations again, one segment after another (checkpointing), in the memory of one segment.
    """
    if len(tree.parent) <= SEGMENT:
        return policy.log_probs(_read_below(policy, prefill, tree, actions), actions)
    position, _ = _preorder(tree)
    order = np.argsort(position, kind="stable")
    log_probs = []
    for start in range(0, len(order), SEGMENT):
        segment = order[start : start + SEGMENT]
        part, rows = _closure(tree, segment)

        def read(part: PrefixTree = part, rows: np.ndarray = rows) -> Tensor:
            hidden = _read_below(policy, prefill, part, actions)
            return policy.log_probs(hidden[torch.from_numpy(rows).to(hidden.device)], actions)

        log_probs.append(checkpoint(read, use_reentrant=False))
    rows_of_nodes = torch.from_numpy(position).to(prefill.last.device)
    return torch.cat(log_probs)[rows_of_nodes]


def _closure(tree: PrefixTree, segment: np.ndarray) -> tuple[PrefixTree, np.ndarray]:
    """The tree of some nodes in depth-first order, their ancestors and all roots; and the rows of those nodes in it."""
    kept = tree.parent < 0
    kept[segment] = True
    # In depth-first order, every ancestor of a later node is in the segment or is an ancestor of its first node.
    node = int(segment[0])
    while node >= 0:
        kept[node] = True
        node = int(tree.parent[node])
    return tree.restrict(kept), (np.cumsum(kept) - 1)[segment]


def _read_below(policy: TokenPolicy, prefill: Prefill, tree: PrefixTree, actions: Tensor | None) -> Tensor:
    """The network's last hidden state at every node, roots included: [n, width]."""
    device = prefill.last.device
    at_roots = prefill.last[torch.from_numpy(tree.prompt_of).to(device)]
    if len(tree.parent) == tree.num_roots:
        return at_roots
    position, end = _preorder(tree)
    order = tree.num_roots + np.argsort(position[tree.num_roots :], kind="stable")
    blocks = of_tree(policy, prefill, tree, order, position, end)

    def attend(layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        return blocks(queries, torch.cat([prefill.cache[layer], keys_values]))

    chosen = torch.from_numpy(tree.action[order]).to(device)
    tokens = chosen if actions is None else actions[chosen]
    depth = torch.from_numpy(tree.depth[order]).to(device)
    below = policy.continue_(tokens, depth + (prefill.rows.shape[1] - 1), attend)
    return torch.cat([at_roots, below[torch.from_numpy(np.argsort(order)).to(device)]])


def _preorder(tree: PrefixTree) -> tuple[np.ndarray, np.ndarray]:
    """Each node's position [n] in depth-first order, and the position [n] after its subtree.

    So node v is u or below u exactly if position[u] <= position[v] < end[u].
    """
    size = tree.sum_up(np.ones(len(tree.parent), np.int64)).astype(np.int64)
    position = np.zeros(len(tree.parent), np.int64)
    levels = tree.levels()
    position[levels[0]] = np.cumsum(size[levels[0]]) - size[levels[0]]
    for level in levels[1:]:
        parent = tree.parent[level]
        before = np.cumsum(size[level]) - size[level]
        first = np.flatnonzero(np.r_[True, parent[1:] != parent[:-1]])
        before -= np.repeat(before[first], np.diff(np.r_[first, len(parent)]))
        position[level] = position[parent] + 1 + before
    return position, position + size
