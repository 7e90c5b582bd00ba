"""Attention of a tree's nodes, in blocks of nodes of one instance that share most of what they attend to.

A node attends to its prompt, to its ancestors and to itself. A block's keys are those of its prompt, then of the nodes
that one of its nodes attends to; a mask says which. A level and a whole tree differ in how blocks are cut (`of_level`,
`of_tree`), and nothing else.

Shapes: n nodes, G blocks, K keys of a block, L tokens of a prompt, heads of width d, kv of them for keys and values.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from maxrl_bench.rollouts.transformer import Prefill, TokenPolicy

if TYPE_CHECKING:
    from maxrl_bench.rollouts.prefix_tree import PrefixTree

BLOCK = 32  # nodes of one instance whose attention is computed together


class Blocks:
    """Attention of n nodes in G blocks, each of one instance.

    prompt [G]: the row of each block's prompt. block, slot [n]: where each node is. keys [G, K]: rows of the pool of
    keys and values, -1 for none. sees [G, slots, K]: which of them a node attends to.
    """

    def __init__(
        self,
        policy: TokenPolicy,
        prefill: Prefill,
        prompt: np.ndarray,
        block: np.ndarray,
        slot: np.ndarray,
        keys: np.ndarray,
        sees: np.ndarray,
    ):
        device = prefill.last.device
        self.groups, self.width, _ = sees.shape
        prompts = prefill.rows[torch.from_numpy(prompt).to(device)]
        self.rows = torch.cat([prompts, torch.from_numpy(np.maximum(keys, 0)).to(device)], 1).flatten()
        share = policy.heads // policy.kv_heads
        hidden = np.zeros((self.groups, self.width, len(self.rows) // self.groups), bool)
        hidden[:, :, prompts.shape[1] :] = ~sees
        mask = torch.from_numpy(np.repeat(hidden, share, axis=1)).to(device)[:, None]
        self.mask = torch.zeros(mask.shape, dtype=prefill.last.dtype, device=device).masked_fill_(mask, -torch.inf)
        place = block * self.width + slot
        # Empty slots repeat the first node; their results are never used.
        members = np.zeros(self.groups * self.width, np.int64)
        members[place] = np.arange(len(place))
        self.place, self.members = torch.from_numpy(place).to(device), torch.from_numpy(members).to(device)

    def __call__(self, queries: Tensor, pool: Tensor) -> Tensor:
        """Queries [n, heads, d], a pool of keys and values [rows, 2 * kv * d] -> [n, heads * d]."""
        _, heads, size = queries.shape
        kv_heads = pool.shape[1] // (2 * size)
        share = heads // kv_heads
        gathered = pool.index_select(0, self.rows).view(self.groups, -1, 2, kv_heads, size)
        keys, values = gathered.permute(2, 0, 3, 1, 4)
        padded = queries.flatten(1).index_select(0, self.members)
        padded = padded.view(self.groups, self.width, kv_heads, share, size).transpose(1, 2).flatten(2, 3)
        attended = functional.scaled_dot_product_attention(padded, keys, values, attn_mask=self.mask)
        attended = attended.unflatten(2, (self.width, share)).transpose(1, 2).reshape(-1, heads * size)
        return attended.index_select(0, self.place)


def _cut(instance: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """Cut nodes, sorted by instance [n], into G blocks of at most BLOCK nodes of one instance.

    Returns each node's block [n] and slot in it [n], each block's instance [G], and the slots of the largest block.
    """
    owners, first, counts = np.unique(instance, return_index=True, return_counts=True)
    width = int(min(BLOCK, counts.max()))
    within = np.arange(len(instance)) - np.repeat(first, counts)
    blocks = -(-counts // width)
    before = np.cumsum(blocks) - blocks
    return np.repeat(before, counts) + within // width, within % width, np.repeat(owners, blocks), width


def of_level(
    policy: TokenPolicy, prefill: Prefill, prompt_of: np.ndarray, path: np.ndarray, instance: np.ndarray
) -> Blocks:
    """Attention of nodes of one depth [m], sorted by parent: path [m, depth], the pool's rows of each node's keys.

    A block's keys are the distinct ones on its nodes' paths, depth by depth.
    """
    block, slot, owner, width = _cut(instance)
    # Nodes of a block that share an ancestor are neighbours, so a path's key is new where it differs from the last one.
    new = np.ones(path.shape, bool)
    new[1:] = (path[1:] != path[:-1]) | (slot[1:] == 0)[:, None]
    by_depth = np.zeros((len(owner), path.shape[1], width), np.int64)
    by_depth[block, :, slot] = new
    column = by_depth.reshape(len(owner), -1).cumsum(1).reshape(by_depth.shape)[block, :, slot] - 1  # [m, depth]
    keys = np.full((len(owner), int(column.max()) + 1), -1)
    keys[block[:, None], column] = path
    sees = np.zeros((len(owner), width, keys.shape[1]), bool)
    sees[block[:, None], slot[:, None], column] = True
    return Blocks(policy, prefill, prompt_of[owner], block, slot, keys, sees)


def of_tree(
    policy: TokenPolicy, prefill: Prefill, tree: PrefixTree, order: np.ndarray, position: np.ndarray, end: np.ndarray
) -> Blocks:
    """Attention of all nodes below the roots at once: `order` [n - B], depth first, by `position` and `end` [n].

    The keys of a block are those of the ancestors of its first node and of its own nodes: in that order, every ancestor
    of a later node is among them. The pool has the prompts' rows, then the nodes in this order.
    """
    roots = tree.num_roots
    block, slot, owner, width = _cut(tree.instance[order])
    members = np.full((len(owner), width), -1)
    members[block, slot] = order
    above = [tree.parent[members[:, 0]]]
    while (above[-1] >= roots).any():
        above.append(np.where(above[-1] >= roots, tree.parent[above[-1]], above[-1]))
    path = np.stack(above[:-1], 1) if len(above) > 1 else np.empty((len(owner), 0), np.int64)
    # Shorter paths are padded by their roots, which are masked: the prompt's own keys stand for a root.
    keys = np.concatenate([np.where(path >= roots, path, -1), members], 1)
    sees = position[keys][:, None, :] <= position[members][:, :, None]
    sees &= position[members][:, :, None] < end[keys][:, None, :]
    sees &= (keys >= 0)[:, None, :]
    row = np.empty(len(position), np.int64)
    row[order] = len(prefill.cache[0]) + np.arange(len(order))
    return Blocks(policy, prefill, tree.prompt_of[owner], block, slot, np.where(keys >= 0, row[keys], -1), sees)
