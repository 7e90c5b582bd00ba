"""Trees of token prefixes: every distinct prefix is one node, read by the transformer once.

Two ways to read a tree: `Frontier` goes down level by level, as sampling must; `read_tree` reads all nodes of a known
tree in one pass, with gradients. Both share the prompt's keys and values among all nodes of an instance.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from maxrl_bench.transformer import Prefill, TokenPolicy

BLOCK = 32  # nodes that attend together, see `_Blocks`
SLICE = 4096  # nodes of a level read together: bounds memory, and stays near the cache
SEGMENT = 16_384  # nodes whose activations a backward pass holds at once


@dataclass(frozen=True)
class PrefixTree:
    """Nodes level by level, each level sorted by parent; nodes 0..B-1 are the roots (the prompts).

    parent [n]: -1 for roots. action [n]: what leads there, -1 for roots. instance [n]: the root. depth [n]. prompt_of
    [B]: the row of the instance's prompt among the distinct ones.
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
        """The nodes of each depth."""
        ends = np.cumsum(np.bincount(self.depth))
        return [slice(int(start), int(end)) for start, end in zip(np.r_[0, ends[:-1]], ends, strict=True)]

    def sum_up(self, values: np.ndarray) -> np.ndarray:
        """Add to each node's value [n] those of all nodes below it."""
        total = values.astype(np.float64)
        levels = self.levels()
        for above, level in reversed(list(pairwise(levels))):
            rows = self.parent[level] - above.start
            total[above] += np.bincount(rows, total[level], minlength=above.stop - above.start)
        return total

    def restrict(self, kept: np.ndarray) -> PrefixTree:
        """The tree of the nodes kept [n] bool: all roots, and nodes whose parents are kept."""
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
    """The tree of given answers: instance [M], actions [M, T] padded by -1.

    Returns the tree and the node [M, T] before each action (anything where there is none). Last actions lead nowhere.
    """
    count, horizon = actions.shape
    roots = len(prompt_of)
    num_actions = int(actions.max(initial=0)) + 1
    at = instance.astype(np.int64)
    before = np.zeros((count, horizon), np.int64)
    levels = [(np.full(roots, -1), np.full(roots, -1), np.arange(roots))]
    size = roots
    for t in range(horizon):
        before[:, t] = at
        going = np.flatnonzero(actions[:, t + 1] >= 0) if t + 1 < horizon else np.empty(0, np.int64)
        if not len(going):
            break
        edges, child = np.unique(at[going] * num_actions + actions[going, t], return_inverse=True)
        parent = edges // num_actions
        first = size - len(levels[-1][0])
        levels.append((parent, edges % num_actions, levels[-1][2][parent - first]))
        at = at.copy()
        at[going] = size + child
        size += len(edges)
    parent, action, root = (np.concatenate(column) for column in zip(*levels, strict=True))
    depth = np.repeat(np.arange(len(levels)), [len(level[0]) for level in levels])
    return PrefixTree(parent, action, root, depth, prompt_of), before


class Frontier:
    """Reads a tree level by level, without gradients; keeps the keys and values of every node read."""

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
        """Go down to the next level: `parent` [m] as rows of the present one, sorted. Returns log-probs [m, A]."""
        new = torch.arange(self.size, self.size + len(parent), device=self.device)
        rows = torch.from_numpy(parent).to(self.device)
        self.path = torch.cat([self.path[rows], new[:, None]], 1)
        tokens = torch.from_numpy(action).to(self.device)
        tokens = tokens if self.actions is None else self.actions[tokens]
        self._grow(self.size + len(parent))
        position = torch.tensor([self.length + self.path.shape[1] - 1], device=self.device)
        found = []
        for start in range(0, len(parent), SLICE):
            part = slice(start, start + SLICE)
            attend = _LevelAttention(self, part, instance[part])
            read = self.policy.continue_(tokens[part], position, attend)
            found.append(self.policy.log_probs(read, self.actions))
        self.size += len(parent)
        return torch.cat(found)

    def _grow(self, size: int) -> None:
        for layer, pool in enumerate(self.pools):
            if len(pool) < size:
                bigger = pool.new_empty((max(size, 2 * len(pool), 1024), pool.shape[1]))
                bigger[: self.size] = pool[: self.size]
                self.pools[layer] = bigger


class _LevelAttention:
    """Nodes of one depth: scores on the shared prompt in blocks of one instance, on the own path by gathering it."""

    def __init__(self, frontier: Frontier, part: slice, instance: np.ndarray):
        self.frontier = frontier
        self.path = frontier.path[part]
        self.rows = slice(frontier.size + part.start, frontier.size + part.start + len(instance))
        block, slot, owner, width = _blocks(instance)
        device = frontier.device
        self.width, self.groups = width, len(owner)
        self.place = torch.from_numpy(block * width + slot).to(device)
        prompts = frontier.prompt_of[owner]
        everyone = np.array_equal(prompts, np.arange(len(frontier.prompts[0][0])))
        self.prompt = None if everyone else torch.from_numpy(prompts).to(device)

    def __call__(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
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
        # Each part is normalised by itself; the two meet in the end, weighed by their totals.
        top, own_top = scores.amax(-1, keepdim=True), own_scores.amax(-1, keepdim=True)
        scores, own_scores = (scores - top).exp_(), (own_scores - own_top).exp_()
        packed = torch.cat([scores @ values, scores.sum(-1, keepdim=True), top], -1)
        packed = packed.unflatten(2, (self.width, share)).transpose(1, 2).flatten(0, 1)[self.place]
        found, total, top = packed[..., :size], packed[..., size : size + 1], packed[..., size + 1 :]
        highest = torch.maximum(top, own_top)
        weight, own_weight = (top - highest).exp_(), (own_top - highest).exp_()
        total = total * weight + own_scores.sum(-1, keepdim=True) * own_weight
        mixed: Tensor = (found * weight + (own_scores @ own_values) * own_weight) / total
        return mixed.reshape(count, heads * size)


def _split(cache: Tensor, policy: TokenPolicy) -> tuple[Tensor, Tensor]:
    """A prompt cache [P, L, w] as keys and values [P, kv_heads, L, d]."""
    keys, values = cache.unflatten(-1, (2, policy.kv_heads, policy.head_width)).permute(2, 0, 3, 1, 4)
    return keys.contiguous(), values.contiguous()


def _blocks(instance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Cut nodes, sorted by instance [n], into blocks of at most BLOCK nodes of one instance.

    Returns block [n], slot in it [n], the instance of each block [G], and the greatest number of slots.
    """
    owners, first, counts = np.unique(instance, return_index=True, return_counts=True)
    width = int(min(BLOCK, counts.max()))
    within = np.arange(len(instance)) - np.repeat(first, counts)
    blocks = -(-counts // width)
    before = np.cumsum(blocks) - blocks
    return np.repeat(before, counts) + within // width, within % width, np.repeat(owners, blocks), width


def read_tree(policy: TokenPolicy, prefill: Prefill, tree: PrefixTree, actions: Tensor | None) -> Tensor:
    """Log-probabilities [n, A] of the next action at every node of a tree, differentiable.

    Big trees are read in segments that are forgotten and read again by the backward pass, so that the memory of the
    pass is that of one segment.
    """
    if len(tree.parent) <= SEGMENT:
        return policy.log_probs(_read_below(policy, prefill, tree, actions), actions)
    position, _ = _preorder(tree)
    order = np.argsort(position, kind="stable")
    found = []
    for start in range(0, len(order), SEGMENT):
        segment = order[start : start + SEGMENT]
        part, rows = _closure(tree, segment)

        def read(part: PrefixTree = part, rows: np.ndarray = rows) -> Tensor:
            below = _read_below(policy, prefill, part, actions)
            return policy.log_probs(below[torch.from_numpy(rows).to(below.device)], actions)

        found.append(checkpoint(read, use_reentrant=False))
    back = torch.from_numpy(position).to(prefill.last.device)
    return torch.cat(found)[back]


def _closure(tree: PrefixTree, segment: np.ndarray) -> tuple[PrefixTree, np.ndarray]:
    """The tree of the segment's nodes, all that they descend from and all roots; and the segment's rows in it."""
    kept = tree.parent < 0
    kept[segment] = True
    # In a walk that visits parents first, only what the first node descends from can be missing.
    node = int(segment[0])
    while node >= 0:
        kept[node] = True
        node = int(tree.parent[node])
    return tree.restrict(kept), (np.cumsum(kept) - 1)[segment]


def _read_below(policy: TokenPolicy, prefill: Prefill, tree: PrefixTree, actions: Tensor | None) -> Tensor:
    """What the network makes [n, width] of every node."""
    device = prefill.last.device
    read = prefill.last[torch.from_numpy(tree.prompt_of).to(device)]
    if len(tree.parent) == tree.num_roots:
        return read
    attend = _TreeAttention(policy, prefill, tree)
    chosen = torch.from_numpy(tree.action[attend.order]).to(device)
    tokens = chosen if actions is None else actions[chosen]
    depth = torch.from_numpy(tree.depth[attend.order]).to(device)
    below = policy.continue_(tokens, depth + (prefill.cache[0].shape[1] - 1), attend)
    return torch.cat([read, below[attend.inverse]])


def _preorder(tree: PrefixTree) -> tuple[np.ndarray, np.ndarray]:
    """Position [n] of each node in a walk of the whole forest, parents first, and where its subtree ends [n]."""
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
    """All nodes below the roots at once, in blocks of up to BLOCK that follow one another in a walk of the tree.

    The keys of a block are its prompt, the path to its first node and the block itself: in a walk that visits parents
    first, whatever a later node of the block descends from is on that path or in the block.
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
        # A path that is shorter than others goes on with its root, which is no node of ours.
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
        # Empty slots repeat node 0; nothing of theirs is read again.
        self.members = torch.from_numpy(np.where(members >= 0, rank[members], 0).ravel()).to(device)
        self.inverse = torch.from_numpy(rank[roots:]).to(device)
        self.prefill, self.width = prefill, width

    def __call__(self, layer: int, queries: Tensor, keys_values: Tensor) -> Tensor:
        _, heads, size = queries.shape
        kv_heads = keys_values.shape[1] // (2 * size)
        groups, width, share = len(self.rows), self.width, heads // kv_heads
        everything = torch.cat([self.prefill.cache[layer].flatten(0, 1), keys_values])
        gathered = everything.index_select(0, self.rows.flatten()).view(groups, -1, 2, kv_heads, size)
        keys, values = gathered.permute(2, 0, 3, 1, 4)
        padded = queries.flatten(1).index_select(0, self.members).view(groups, width, kv_heads, share, size)
        padded = padded.transpose(1, 2).flatten(2, 3)
        found = functional.scaled_dot_product_attention(padded, keys, values, attn_mask=self.mask)
        found = found.unflatten(2, (width, share)).transpose(1, 2).reshape(groups * width, heads * size)
        return found.index_select(0, self.place)
