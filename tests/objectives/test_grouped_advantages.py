"""Rewards that name their groups, and rollouts that are left out."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.continuous import PARTIAL_CREDIT
from maxrl_bench.objectives.table import OBJECTIVES

RNG = np.random.default_rng(7)
REWARDS = RNG.integers(0, 2, (6, 4)).astype(float)
REWARDS[0], REWARDS[1] = 0, 1
ORDER = RNG.permutation(REWARDS.size)
NAMES = np.array([f"uid-{i}" for i in range(6)], dtype=object).repeat(4)
PLAIN = [
    name
    for name, row in OBJECTIVES.items()
    if row.on_success and not (row.smoothing or row.entropy_bonus or row.remember)
]


@pytest.mark.parametrize("name", PLAIN)
@pytest.mark.parametrize("kind", [np.asarray, list, lambda names: [*map(hash, names)]], ids=["objects", "list", "ints"])
def test_groups_in_any_order(name: str, kind: Any) -> None:
    """Interleaved rollouts, none correct, all correct: as in rows, and for the pooled ones over the same batch."""
    knobs = {knob: 2 for knob, rule in OBJECTIVES[name].knobs.items() if rule.default is None}
    expected = advantages(REWARDS, name, **knobs).ravel()[ORDER]
    flat = REWARDS.ravel()[ORDER]
    assert advantages(flat, name, groups=kind(NAMES[ORDER]), **knobs).tolist() == expected.tolist()
    tensor = advantages(torch.tensor(flat), name, groups=kind(NAMES[ORDER]), **knobs)
    assert (tensor.shape, tensor.dtype, tensor.tolist()) == ((24,), torch.float64, expected.tolist())


def test_groups_may_be_tensors_and_there_may_be_none() -> None:
    assert advantages([1, 0, 0, 1], "maxrl", groups=torch.tensor([1, 0, 1, 0])).tolist() == [1, -1, -1, 1]
    assert advantages(np.zeros(0), "maxrl", groups=[]).shape == (0,)
    assert advantages([1, 0.5, 0.5], "rloo", groups=["a", "b", "a"], mask=[1, 0, 1]).tolist() == [0.5, 0, -0.5]


def test_what_is_masked_out_was_not_drawn() -> None:
    mask = RNG.random(REWARDS.shape) < 0.7
    mask[2], mask[3] = False, True
    scored = np.where(mask, REWARDS, np.nan)  # what is left out need not have a reward
    weights = advantages(scored, "maxrl_eq9", mask=mask)
    for row, kept, got in zip(REWARDS, mask, weights, strict=True):
        assert got[~kept].tolist() == [0] * (~kept).sum()
        if kept.any():
            assert got[kept].tolist() == advantages([row[kept]], "maxrl_eq9")[0].tolist()
    flat = advantages(scored.ravel(), "maxrl_eq9", groups=NAMES, mask=mask.ravel())
    assert flat.tolist() == weights.ravel().tolist()
    assert advantages(scored, "raft", mask=mask[:, :1].repeat(4, axis=1) * 0).tolist() == np.zeros((6, 4)).tolist()


def test_groups_of_other_sizes_are_weighed_by_these() -> None:
    """A last group that lacks some, and groups of one rollout."""
    rewards, groups = [1, 0, 0, 0, 1, 0, 1], [0, 0, 0, 0, 1, 1, 2]
    assert advantages(rewards, "maxrl_alg1", groups=groups).tolist() == [3, -1, -1, -1, 1, -1, 0]
    assert advantages(rewards, "maxrl_eq9", groups=groups).tolist() == [4, 0, 0, 0, 2, 0, 1]
    for name, knobs, message in (
        ("rloo", {}, "objective 'rloo' needs at least 2 rollouts, got 1 (group 2)"),
        ("maxrl_order", {"order": 2}, "at most 1 (the number of rollouts), got 2 (group 2)"),
        ("gpg", {}, "objective 'gpg' weighs the whole batch: its groups must be of one size"),
    ):
        with pytest.raises(ValueError, match=re.escape(message)):
            advantages(rewards, name, groups=groups, **knobs)


@pytest.mark.parametrize(
    ("rewards", "more", "message"),
    [
        ([1, 0], {}, "got [2]; flat ones need groups"),
        ([1, 0], {"groups": [0]}, "groups must name the group of each reward of a flat list: 1 for [2]"),
        ([[1, 0]], {"groups": [0, 0]}, "of a flat list: 2 for [1, 2]"),
        ([1, 0], {"groups": "ab"}, "groups must be a list, an array or a tensor of names, got str"),
        ([1, 0], {"groups": [[0], [0]]}, "groups must be texts or numbers, one for each reward"),
        ([1, 0], {"groups": [0, 0], "mask": [1]}, "mask must hold true or false for each reward, in shape [2]"),
        ([[1, 0]], {"mask": [[1, 0.5]]}, "mask must hold true or false for each reward, in shape [1, 2]"),
        ([1, 2], {"groups": [0, 0]}, "rewards must be exactly 0 or 1, got 2"),
        ([1, 0.5], {"groups": [0, 0]}, "partial credit is taken by reinforce"),
    ],
)
def test_groups_and_masks_that_are_none(rewards: Any, more: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=re.escape(message)) as caught:
        advantages(rewards, "grpo", **more)
    assert "\n" not in str(caught.value)


def test_the_page_names_what_takes_partial_credit() -> None:
    others = {name for name in PARTIAL_CREDIT if not name.startswith("maxrl_")}
    assert others == {"reinforce", "mean_baseline", "rloo", "nsr", "w_reinforce", "reinforce_rej", "power_order"}
    assert {n for n in OBJECTIVES if n.startswith("maxrl_")} - {*PARTIAL_CREDIT} == {"maxrl_clipped"}
