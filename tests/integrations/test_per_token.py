"""The layout of verl and SkyRL, and prime-rl's: weights per token, in any order of rollouts."""

from __future__ import annotations

import dataclasses
import re
import sys
import types
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench.integrations.per_token import advantages_per_token
from maxrl_bench.integrations.prime_rl import advantage
from maxrl_bench.objectives.advantages import advantages

# Interleaved: "a" mixed, "b" without a success, "c" all correct, "d" alone.
UID = np.array(["a", "b", "a", "c", "b", "a", "c", "d"], dtype=object)
REWARD = torch.tensor([1.0, 0, 0, 1, 0, 0, 1, 1])
LENGTHS = torch.tensor([1, 2, 3, 3, 2, 1, 2, 3])
MASK = (torch.arange(3) < LENGTHS[:, None]).long()


def at_the_last_token(reward: torch.Tensor = REWARD) -> torch.Tensor:
    """[bs, L], as trainers place the reward of an answer."""
    return torch.zeros(len(reward), 3).scatter(1, (LENGTHS - 1)[:, None], reward[:, None])


def test_weights_stand_at_every_token_of_their_rollout() -> None:
    weights = advantages_per_token(at_the_last_token(), MASK, UID, "maxrl_alg1")
    assert weights.tolist() == (torch.tensor([2.0, 0, -1, 0, 0, -1, 0, 0])[:, None] * MASK).tolist()
    assert weights.dtype == torch.float32
    eq9 = advantages_per_token(at_the_last_token(), MASK, UID, "maxrl_eq9")
    assert eq9[:, 0].tolist() == [3, 0, 0, 1, 0, 0, 1, 1]


def test_a_rollout_without_tokens_takes_no_part() -> None:
    mask = MASK.clone()
    mask[2] = 0
    weights = advantages_per_token(at_the_last_token(), mask, UID, "maxrl_alg1")
    assert weights[:, 0].tolist() == [1, 0, 0, 0, 0, -1, 0, 0]


def test_rewards_of_16_bits_keep_their_weights() -> None:
    reward = torch.zeros(1000)
    reward[0] = 1
    weights = advantages_per_token(
        reward[:, None].bfloat16(), torch.ones(1000, 1), np.zeros(1000, dtype=object), "maxrl_alg1"
    )
    assert weights[:2, 0].tolist() == [999, -1]


@pytest.mark.parametrize(
    ("reward", "index", "objective", "knobs", "message"),
    [
        (REWARD, None, "maxrl_alg1", {}, "needs to know each rollout's prompt: the batch has no uid"),
        (REWARD * 2 - 1, UID, "maxrl_alg1", {}, "rewards must lie in [0, 1], got -1"),
        (REWARD / 2, UID, "grpo", {}, "rewards must be exactly 0 or 1, got 0.5"),
        (REWARD, UID, "grpo", {"order": 2}, "does not read the knob 'order'"),
        (REWARD, UID, "rloo", {}, "needs at least 2 rollouts, got 1 (group 'd')"),
        (REWARD, UID, "maxrl_order", {"order": 2}, "at most 1 (the number of rollouts), got 2 (group 'd')"),
        (REWARD, UID, "maxrl_alg2", {}, "unknown objective 'maxrl_alg2'"),
    ],
)
def test_what_is_refused(reward: torch.Tensor, index: Any, objective: str, knobs: dict[str, int], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)):
        advantages_per_token(at_the_last_token(reward), MASK, index, objective, **knobs)


def test_prime_rl_in_its_documented_layout(monkeypatch: pytest.MonkeyPatch) -> None:
    """prime-rl is on no package index: its documented dataclasses stand in for it."""
    module = types.ModuleType("prime_rl.orchestrator.advantage")
    fields = {"rewards": torch.Tensor, "completion_lengths": torch.Tensor}
    inputs = dataclasses.make_dataclass("AdvantageInputs", fields.items(), namespace={"__module__": module.__name__})
    module.AdvantageOutputs = dataclasses.make_dataclass("AdvantageOutputs", [("advantages", torch.Tensor)])  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    rewards = torch.tensor([[1.0, 0, 0, 1], [0, 0, 0, 0], [1, 1, 1, 1]])
    made = advantage(inputs(rewards, torch.ones(3, 4)), objective="maxrl_order", order=2)
    assert type(made) is module.AdvantageOutputs
    assert made.advantages.tolist() == advantages(rewards, "maxrl_order", order=2).tolist()
    with pytest.raises(ValueError, match="does not read the knob 'order'"):
        advantage(inputs(rewards, torch.ones(3, 4)), objective="maxrl", order=2)
