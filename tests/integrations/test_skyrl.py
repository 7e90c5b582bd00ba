"""SkyRL's real registry, with our estimator in it. `make test-trainers` runs this where SkyRL is."""

from __future__ import annotations

import importlib.util
import sys
import typing

import numpy as np
import pytest
import torch
import typing_extensions

if importlib.util.find_spec("skyrl") is None:
    pytest.skip("SkyRL has an environment of its own: make test-trainers", allow_module_level=True)
if sys.version_info < (3, 12):  # pydantic refuses, before that, the kind of types that SkyRL declares
    typing.TypedDict = typing_extensions.TypedDict  # type: ignore[assignment]

from skyrl.backends.skyrl_train.utils import ppo_utils

from maxrl_bench.integrations.skyrl import NAME, register

UID = np.array(["a", "b", "a", "b", "a", "b"], dtype=object)
REWARDS = torch.tensor([[0.0, 1], [0, 0], [0, 0], [0, 0], [0, 0], [0, 0]])
MASK = torch.tensor([[1, 1], [1, 0], [1, 1], [1, 1], [1, 0], [1, 1]])


def made(estimator: str) -> torch.Tensor:
    advantages, returns = ppo_utils.compute_advantages_and_returns(
        REWARDS, MASK, UID, estimator, config=None, values=None, grpo_norm_by_std=True
    )
    assert advantages.tolist() == returns.tolist()
    return advantages


def test_an_objective_is_an_estimator() -> None:
    register("maxrl_alg1")
    assert NAME in ppo_utils.AdvantageEstimatorRegistry.list_available()
    assert made(NAME).tolist() == [[2, 2], [0, 0], [-1, -1], [0, 0], [-1, 0], [0, 0]]
    registered = ppo_utils.AdvantageEstimatorRegistry.get(NAME)
    assert registered.__wrapped__.__module__ == "maxrl_bench.integrations.skyrl"  # type: ignore[attr-defined]
    register("maxrl_order", "ours", order=2)
    assert made("ours")[:, 0].tolist() == [2, 0, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="already registered"):
        register("grpo")
    with pytest.raises(ValueError, match="unknown objective 'maxrl_alg2'"):
        register("maxrl_alg2", "theirs")
    register("grpo", "wrong", order=2)
    with pytest.raises(ValueError, match="does not read the knob 'order'"):
        made("wrong")


def test_its_own_maxrl_has_an_epsilon_that_ours_has_not() -> None:
    own = made("maxrl")
    assert own[0, 0] != 2
    assert own[0, 0] == pytest.approx(2, rel=1e-5)
