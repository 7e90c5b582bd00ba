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

Shapes: n nodes, m nodes of one level, B instances, P distinct prompts of length L, A actions, G blocks of nodes (of one
instance each), heads of width d, kv of them for keys and values.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from maxrl_bench.rollouts.counts import sum_up
from maxrl_bench.rollouts.transformer import Prefill, TokenPolicy

BLOCK = 32  # nodes of one instance whose attention is computed together, see `_blocks`
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

    path [m, depth]: the nodes from below the root down to each node of the present level, at first the roots. pools:
    for each layer, a row of keys and values for every node read, with room for more.
    """

    def __init__(self, policy: TokenPolicy, prefill: Prefill, prompt_of: np.ndarray, actions: Tensor | None):
        self.policy, self.actions = policy, actions
        self.device = prefill.last.device
        self.prompts = [_split(cache.detach(), policy) for cache in prefill.cache]
        self.length = prefill.cache[0].shape[1]
        self.prompt_of = prompt_of
        self.path = torch.empty((len(prompt_of), 0), dtype=torch.int64, device=self.device)
        self.pools = [cache.new_empty((0, cache.shape[2])) for cache in prefill.cache]
        self.size = 0

    def read(self, parent: np.ndarray, action: np.ndarray, instance: np.ndarray) -> Tensor:
        """Read the next level: parent [m] as rows of the present one, sorted, action [m], instance [m].

        Returns the log-probabilities of the next actions [m, A].
        """
        new = torch.arange(self.size, self.size + len(parent), device=self.device)
        rows = torch.from_numpy(parent).to(self.device)
        self.path = torch.cat([self.path[rows], new[:, None]], 1)
        tokens = torch.from_numpy(action).to(self.device)
        tokens = tokens if self.actions is None else self.actions[tokens]
        self._grow(self.size + len(parent))
        position = torch.tensor([self.length + self.path.shape[1] - 1], device=self.device)
        log_probs = []
        for start in range(0, len(parent), SLICE):
            part = slice(start, start + SLICE)
            attend = _LevelAttention(self, part, instance[part])
            hidden = self.policy.continue_(tokens[part], position, attend)
            log_probs.append(self.policy.log_probs(hidden, self.actions))
        self.size += len(parent)
        return torch.cat(log_probs)

    def _grow(self, size: int) -> None:
        for layer, pool in enumerate(self.pools):
            if len(pool) < size:
                bigger = pool.new_empty((max(size, 2 * len(pool), 1024), pool.shape[1]))
                bigger[: self.size] = pool[: self.size]
                self.pools[layer] = bigger


class _LevelAttention:
    """Attention of nodes of one depth: to the prompt in blocks that share it, to each node's own path by gathering."""

    def __init__(self, frontier: Frontier, part: slice, instance: np.ndarray):
        self.frontier = frontier
        self.path = frontier.path[part]
        self.rows = slice(frontier.size + part.start, frontier.size + part.start + len(instance))
        block, slot, owner, width = _blocks(instance)
        device = frontier.device
        self.width, self.groups = width, len(owner)
        self.place = torch.from_numpy(block * width + slot).to(device)
        prompts = frontier.prompt_of[owner]
        in_order = np.array_equal(prompts, np.arange(len(frontier.prompts[0][0])))  # block g has prompt g: no copy
        self.prompt = None if in_order else torch.from_numpy(prompts).to(device)

    def __call__(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Queries [n, heads, d] and the nodes' own keys and values [n, 2 * kv * d] -> [n, heads * d]."""
        frontier = self.frontier
        pool = frontier.pools[layer]
        pool[self.rows] = keys_values
        count, heads, size = queries.shape
        keys, values = frontier.prompts[layer]
        if self.prompt is not None:
            keys, values = keys.index_select(0, self.prompt), values.index_select(0, self.prompt)  # [G, kv, L, d]
        kv_heads = keys.shape[1]
        share = heads // kv_heads
        queries = queries * size**-0.5
        path = pool.index_select(0, self.path.flatten()).view(count, -1, 2, kv_heads, size)
        own_keys, own_values = path[:, :, 0].transpose(1, 2), path[:, :, 1].transpose(1, 2)  # [n, kv, t, d]
        grouped = queries.view(count, kv_heads, share, size)
        own_scores = grouped @ own_keys.transpose(2, 3)  # [n, kv, share, t]
        padded = queries.new_zeros((self.groups * self.width, kv_heads, share, size))
        padded[self.place] = grouped
        padded = padded.view(self.groups, self.width, kv_heads, share, size).transpose(1, 2).flatten(2, 3)
        scores = padded @ keys.transpose(2, 3)  # [G, kv, width * share, L]
        # One softmax over prompt and path from two: each relative to its own maximum, then both scaled to the larger.
        top, own_top = scores.amax(-1, keepdim=True), own_scores.amax(-1, keepdim=True)
        scores, own_scores = (scores - top).exp_(), (own_scores - own_top).exp_()
        packed = torch.cat([scores @ values, scores.sum(-1, keepdim=True), top], -1)
        packed = packed.unflatten(2, (self.width, share)).transpose(1, 2).flatten(0, 1)[self.place]
        attended, total, top = packed[..., :size], packed[..., size : size + 1], packed[..., size + 1 :]
        highest = torch.maximum(top, own_top)
        weight, own_weight = (top - highest).exp_(), (own_top - highest).exp_()
        total = total * weight + own_scores.sum(-1, keepdim=True) * own_weight
        mixed: Tensor = (attended * weight + (own_scores @ own_values) * own_weight) / total
        return mixed.reshape(count, heads * size)


def _split(cache: Tensor, policy: TokenPolicy) -> tuple[Tensor, Tensor]:
    """The cache of the prompts [P, L, 2 * kv * d] as keys and values, each [P, kv, L, d]."""
    keys, values = cache.unflatten(-1, (2, policy.kv_heads, policy.head_width)).permute(2, 0, 3, 1, 4)
    return keys.contiguous(), values.contiguous()


def _blocks(instance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Cut nodes, sorted by instance [n], into G blocks of at most BLOCK nodes of one instance.

    Returns each node's block [n] and slot in it [n], each block's instance [G], and the slots of the largest block.
    """
    owners, first, counts = np.unique(instance, return_index=True, return_counts=True)
    width = int(min(BLOCK, counts.max()))
    within = np.arange(len(instance)) - np.repeat(first, counts)
    blocks = -(-counts // width)
    before = np.cumsum(blocks) - blocks
    return np.repeat(before, counts) + within // width, within % width, np.repeat(owners, blocks), width


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
    attend = _TreeAttention(policy, prefill, tree)
    chosen = torch.from_numpy(tree.action[attend.order]).to(device)
    tokens = chosen if actions is None else actions[chosen]
    depth = torch.from_numpy(tree.depth[attend.order]).to(device)
    below = policy.continue_(tokens, depth + (prefill.cache[0].shape[1] - 1), attend)
    return torch.cat([at_roots, below[attend.inverse]])


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


class _TreeAttention:
    """Attention of all nodes below the roots at once, in blocks of up to BLOCK nodes, in depth-first order [n - B].

    The K keys of a block are those of its prompt, of the ancestors of its first node and of its own nodes: in that
    order, every ancestor of a later node is among them. rows [G, K] finds them among all prompts' keys followed by all
    nodes'; mask [G, 1, slots * share, K] is 0 where a node may attend to a key, else -inf.
    """

    def __init__(self, policy: TokenPolicy, prefill: Prefill, tree: PrefixTree):
        roots, device = tree.num_roots, prefill.last.device
        position, end = _preorder(tree)
        self.order = roots + np.argsort(position[roots:], kind="stable")
        rank = np.empty(len(position), np.int64)
        rank[self.order] = np.arange(len(self.order))
        instance = tree.instance[self.order]
        block, slot, owner, width = _blocks(instance)
        members = np.full((len(owner), width), -1)
        members[block, slot] = self.order
        above = [tree.parent[members[:, 0]]]
        while (above[-1] >= roots).any():
            above.append(np.where(above[-1] >= roots, tree.parent[above[-1]], above[-1]))
        path = np.stack(above[:-1], 1) if len(above) > 1 else np.empty((len(owner), 0), np.int64)
        # Shorter paths are padded by their roots, which are masked: the prompt's own keys stand for a root.
        keys = np.concatenate([np.where(path >= roots, path, -1), members], 1)
        sees = position[keys][:, None, :] <= position[members][:, :, None]
        sees &= position[members][:, :, None] < end[keys][:, None, :]
        sees &= (keys >= 0)[:, None, :]
        length = prefill.cache[0].shape[1]
        share = policy.heads // policy.kv_heads
        sees = np.concatenate([np.ones((*sees.shape[:2], length), bool), sees], 2)
        mask = torch.from_numpy(np.repeat(sees, share, axis=1)).to(device)[:, None]
        self.mask = torch.zeros(mask.shape, dtype=prefill.last.dtype, device=device).masked_fill_(~mask, -torch.inf)
        prompts = prefill.cache[0].shape[0] * length
        prompt_rows = tree.prompt_of[owner][:, None] * length + np.arange(length)
        rows = np.concatenate([prompt_rows, np.where(keys >= 0, prompts + rank[keys], 0)], 1)
        self.rows = torch.from_numpy(rows).to(device)
        self.place = torch.from_numpy(block * width + slot).to(device)
        # Empty slots repeat the first node; their results are never used.
        self.members = torch.from_numpy(np.where(members >= 0, rank[members], 0).ravel()).to(device)
        self.inverse = torch.from_numpy(rank[roots:]).to(device)
        self.prefill, self.width = prefill, width

    def __call__(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        """Queries [n - B, heads, d] and the nodes' own keys and values [n - B, 2 * kv * d] -> [n - B, heads * d]."""
        _, heads, size = queries.shape
        kv_heads = keys_values.shape[1] // (2 * size)
        groups, width, share = len(self.rows), self.width, heads // kv_heads
        all_keys_values = torch.cat([self.prefill.cache[layer].flatten(0, 1), keys_values])
        gathered = all_keys_values.index_select(0, self.rows.flatten()).view(groups, -1, 2, kv_heads, size)
        keys, values = gathered.permute(2, 0, 3, 1, 4)
        padded = queries.flatten(1).index_select(0, self.members).view(groups, width, kv_heads, share, size)
        padded = padded.transpose(1, 2).flatten(2, 3)
        attended = functional.scaled_dot_product_attention(padded, keys, values, attn_mask=self.mask)
        attended = attended.unflatten(2, (width, share)).transpose(1, 2).reshape(groups * width, heads * size)
        return attended.index_select(0, self.place)
