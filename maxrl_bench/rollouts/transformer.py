"""A decoder-only transformer whose contexts form trees: prompts, then nodes that continue them token by token.

The layers are those of the paper's maze policy (arXiv 2602.02710): RMSNorm, SiLU, rotary positions, grouped queries and
tied embeddings. The caller of `continue_` decides, with a function `Attend`, which keys and values a node attends to,
so the same network samples a tree level by level and reads a whole tree in one pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from maxrl_bench.tasks import TokenContexts

# (layer, queries [n, heads, d], keys and values [n, 2 * kv_heads * d]) -> attended [n, heads * d]
Attend = Callable[[int, Tensor, Tensor], Tensor]


class Prefill(NamedTuple):
    """P prompts, read: hidden states `last` [P, width] at their ends, `cache[layer]` [R, 2 * kv_heads * d].

    rows [P, L]: which of the R rows of keys and values are those of each prompt's tokens.
    """

    last: Tensor
    cache: list[Tensor]
    rows: Tensor


class Block(nn.Module):
    """One layer; norms come before attention and before the multilayer perceptron."""

    def __init__(self, width: int, heads: int, kv_heads: int, mlp: int):
        super().__init__()
        self.heads, self.kv_heads, self.size = heads, kv_heads, width // heads
        self.norm_attention = nn.RMSNorm(width, eps=1e-6)
        self.query = nn.Linear(width, width, bias=False)
        self.key_value = nn.Linear(width, 2 * kv_heads * self.size, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.norm_mlp = nn.RMSNorm(width, eps=1e-6)
        self.up = nn.Linear(width, mlp, bias=False)
        self.down = nn.Linear(mlp, width, bias=False)

    def queries(self, normed: Tensor, rotation: Tensor) -> Tensor:
        """Queries, rotated to their positions: [..., width] -> [..., heads, d]."""
        return _rotate(self.query(normed).unflatten(-1, (self.heads, self.size)), rotation)

    def keys_values(self, normed: Tensor, rotation: Tensor) -> Tensor:
        """The rotated keys, then the values: [..., width] -> [..., 2 * kv_heads * d]."""
        keys, values = self.key_value(normed).chunk(2, -1)
        rotated = _rotate(keys.unflatten(-1, (self.kv_heads, self.size)), rotation)
        return torch.cat([rotated.flatten(-2), values], -1)

    def finish(self, x: Tensor, attended: Tensor) -> Tensor:
        """Add attention's output to the residual stream, then the perceptron's output."""
        x = x + self.out(attended)
        answer: Tensor = self.down(functional.silu(self.up(self.norm_mlp(x))))
        return x + answer


def _rotate(x: Tensor, rotation: Tensor) -> Tensor:
    """Rotary positions: x [..., heads, d], two halves (a, b); rotation [..., 2, 1, d] = (cos, cos), (-sin, sin)."""
    cos, sin = rotation.unbind(-3)
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, -1), sin)


class TokenPolicy(nn.Module):
    """The policy of token tasks; `prefill` reads prompts, `continue_` reads one further token per node.

    Raises ValueError on sizes that do not fit together, or more actions than tokens.
    """

    rotations: Tensor

    def __init__(
        self,
        contexts: TokenContexts,
        num_actions: int,
        *,
        layers: int = 3,
        width: int = 128,
        heads: int = 4,
        kv_heads: int = 2,
        mlp: int = 256,
    ):
        super().__init__()
        if min(layers, width, heads, kv_heads, mlp) < 1:
            raise ValueError("a transformer's layers, width, heads, kv_heads and mlp must be at least 1")
        if width % (2 * heads) or heads % kv_heads:
            raise ValueError(
                f"a transformer's width must be a multiple of 2 x heads, and heads of kv_heads; "
                f"got width {width}, heads {heads}, kv_heads {kv_heads}"
            )
        if num_actions > contexts.vocabulary:
            raise ValueError(f"{num_actions} actions need as many tokens, but the vocabulary has {contexts.vocabulary}")
        self.heads, self.kv_heads, self.head_width = heads, kv_heads, width // heads
        self.embedding = nn.Embedding(contexts.vocabulary, width)
        self.layers: Sequence[Block] = nn.ModuleList(  # type: ignore[assignment]
            Block(width, heads, kv_heads, mlp) for _ in range(layers)
        )
        self.norm = nn.RMSNorm(width, eps=1e-6)
        frequencies = 10_000.0 ** (-torch.arange(0, self.head_width, 2, dtype=torch.float64) / self.head_width)
        angles = torch.arange(contexts.max_length, dtype=torch.float64)[:, None] * frequencies
        cos, sin = angles.cos(), angles.sin()
        rotations = torch.stack([torch.cat([cos, cos], 1), torch.cat([-sin, sin], 1)], 1)[:, :, None]
        self.register_buffer("rotations", rotations.to(self.embedding.weight.dtype), persistent=False)

    def initialise(self, generator: torch.Generator) -> None:
        """Normal weights; their scale makes initial logits about a quarter, so actions are near uniform."""
        scale = 0.25 * self.embedding.embedding_dim**-0.5
        with torch.no_grad():
            for parameter in self.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0.0, scale, generator=generator)

    def prefill(self, prompts: Tensor, shared: int = 0) -> Prefill:
        """Read prompts [P, L]; the first `shared` < L tokens, which must be the same in all of them, are read once.

        The last layer computes only the prompts' ends, since nothing else is used.
        """
        count, length = prompts.shape

        def once(x: Tensor) -> Tensor:  # [P, L, ...] -> [R, ...]
            return torch.cat([x[0, :shared], x[:, shared:].flatten(0, 1)]) if shared else x.flatten(0, 1)

        def each(x: Tensor) -> Tensor:  # [R, ...] -> [P, L, ...]
            rest = x[shared:].unflatten(0, (count, length - shared))
            return torch.cat([x[:shared].expand(count, *x[:shared].shape), rest], 1) if shared else rest

        rotation = self.rotations[once(torch.arange(length, device=prompts.device).expand(count, length))]
        x = self.embedding(once(prompts))
        rows = each(torch.arange(len(x), device=prompts.device))
        cache = []
        for layer, block in enumerate(self.layers):
            normed = block.norm_attention(x)
            keys_values = block.keys_values(normed, rotation)
            cache.append(keys_values)
            keys, values = each(keys_values).unflatten(-1, (2, block.kv_heads, block.size)).permute(2, 0, 3, 1, 4)
            last = layer == len(self.layers) - 1
            if last:
                ends = rows[:, -1]
                x, queries = x[ends], block.queries(normed[ends], rotation[ends])[:, :, None]
            else:
                queries = each(block.queries(normed, rotation)).transpose(1, 2)
            attended = functional.scaled_dot_product_attention(
                queries, keys, values, is_causal=not last, enable_gqa=block.heads != block.kv_heads
            )
            attended = attended.transpose(1, 2).flatten(-2)
            x = block.finish(x, attended[:, 0] if last else once(attended))
        return Prefill(self.norm(x), cache, rows)

    def continue_(self, tokens: Tensor, positions: Tensor, attend: Attend) -> Tensor:
        """Read tokens [n] at positions [n], or all at one position [1]; returns [n, width] for `log_probs`."""
        rotation = self.rotations[positions]
        x = self.embedding(tokens)
        for layer, block in enumerate(self.layers):
            normed = block.norm_attention(x)
            attended = attend(layer, block.queries(normed, rotation), block.keys_values(normed, rotation))
            x = block.finish(x, attended)
        read: Tensor = self.norm(x)
        return read

    def log_probs(self, read: Tensor, actions: Tensor | None) -> Tensor:
        """Log-probabilities [n, A] of the next action, among the tokens `actions` [A]; `read` [n, width]."""
        embeddings = self.embedding.weight if actions is None else self.embedding.weight[actions]
        return torch.log_softmax(read @ embeddings.T, -1)
