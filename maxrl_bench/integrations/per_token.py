"""Advantages in the layout of verl and SkyRL: one row per rollout, in any order, and one column per token."""

from __future__ import annotations

from typing import Any

import torch

from maxrl_bench.objectives.advantages import advantages


def advantages_per_token(
    token_level_rewards: torch.Tensor, response_mask: torch.Tensor, index: Any, objective: str, **knobs: Any
) -> torch.Tensor:
    """The weight of each rollout at each of its tokens, [bs, L], and 0 where `response_mask` [bs, L] is 0.

    token_level_rewards [bs, L]: summed over its tokens, a rollout's reward. index [bs]: names each rollout's prompt. A
    rollout without a token (one that was dropped or is padding) takes no part: it is not counted in its group.
    Raises ValueError as `maxrl_bench.advantages` does, and where `index` is None.
    """
    if index is None:
        raise ValueError(f"objective '{objective}' needs to know each rollout's prompt: the batch has no uid")
    alive = response_mask.sum(dim=-1) > 0
    # In float64, which holds every weight: rewards of 16 bits would have theirs refused, or rounded by the trainer.
    rewards = token_level_rewards.sum(dim=-1).double()
    weights = advantages(rewards, objective, groups=index, mask=alive, **knobs)
    return weights.to(torch.promote_types(token_level_rewards.dtype, torch.float32))[:, None] * response_mask
