"""verl's real registry and data layout, with our estimator in it. `make test-trainers` runs this where verl is."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("verl", reason="verl has an environment of its own: make test-trainers")

from omegaconf import OmegaConf
from verl import DataProto
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.ray_trainer import compute_advantage

from maxrl_bench.integrations.verl import NAME, objective_advantage
from maxrl_bench.objectives.advantages import advantages

GROUP, PROMPTS, LENGTH = 4, 5, 6


def batch(seed: int = 0) -> tuple[DataProto, np.ndarray, np.ndarray]:
    """A batch of verl, interleaved; its rewards [prompts, rollouts]; where in them each row of the batch is."""
    rng = np.random.default_rng(seed)
    rewards = rng.integers(0, 2, (PROMPTS, GROUP)).astype(np.float32)
    rewards[0], rewards[1] = 0, 1
    order = rng.permutation(rewards.size)
    lengths = torch.tensor(rng.integers(1, LENGTH + 1, rewards.size))
    mask = (torch.arange(LENGTH) < lengths[:, None]).long()
    of_tokens = torch.zeros(rewards.size, LENGTH)
    of_tokens[torch.arange(rewards.size), lengths - 1] = torch.tensor(rewards.ravel()[order])
    uid = np.array([f"prompt-{i}" for i in range(PROMPTS)], dtype=object).repeat(GROUP)[order]
    data = DataProto.from_dict(
        tensors={"token_level_rewards": of_tokens, "response_mask": mask}, non_tensors={"uid": uid}
    )
    return data, rewards, order


def section(**settings: Any) -> Any:
    return OmegaConf.create({"adv_estimator": NAME, "gamma": 1.0, "lam": 1.0, **settings})


@pytest.mark.parametrize(
    ("objective", "knobs"), [("maxrl_alg1", {}), ("maxrl_order", {"order": 2}), ("pkpo", {"k": 2}), ("raft", {})]
)
def test_the_advantages_of_a_batch(objective: str, knobs: dict[str, int]) -> None:
    data, rewards, order = batch()
    data = compute_advantage(data, NAME, config=section(objective=objective, knobs=knobs))
    expected = torch.tensor(advantages(rewards, objective, **knobs).ravel()[order])
    mask = data.batch["response_mask"]
    assert data.batch["advantages"].tolist() == (expected[:, None] * mask).tolist()
    assert data.batch["returns"].tolist() == data.batch["advantages"].tolist()


def test_the_loss_is_the_objectives_gradient() -> None:
    """With the aggregation that the page recommends; verl's own default weighs tokens of short answers more."""
    data, rewards, order = batch(1)
    data = compute_advantage(data, NAME, config=section(objective="maxrl_eq9"))
    weights, mask = data.batch["advantages"], data.batch["response_mask"]
    log_probs = torch.randn(weights.shape, generator=torch.Generator().manual_seed(0))
    textbook = -(torch.tensor(advantages(rewards, "maxrl_eq9").ravel()[order]) * (log_probs * mask).sum(1)).mean()
    loss = core_algos.agg_loss(-weights * log_probs, mask, "seq-mean-token-sum")
    torch.testing.assert_close(loss, textbook)
    assert abs(core_algos.agg_loss(-weights * log_probs, mask, "token-mean") - textbook / LENGTH) > 1e-3


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, r"adv_estimator=maxrl_bench needs an objective: \+algorithm.objective=maxrl_alg1"),
        ({"objective": "maxrl_alg2"}, "unknown objective 'maxrl_alg2'; did you mean 'maxrl_"),
        ({"objective": "grpo", "knobs": {"order": 2}}, "does not read the knob 'order'"),
        ({"objective": "maxrl_order", "knobs": {"order": 5}}, r"at most 4 \(the number of rollouts\), got 5"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        compute_advantage(batch()[0], NAME, config=section(**settings))


def test_a_penalty_within_the_reward_is_refused() -> None:
    data, _, _ = batch()
    data.batch["token_level_rewards"] = data.batch["token_level_rewards"] - 0.01 * data.batch["response_mask"]
    with pytest.raises(ValueError, match="rewards must lie in"):
        compute_advantage(data, NAME, config=section(objective="maxrl_alg1"))


def test_verl_finds_it_by_itself() -> None:
    """The line of docs/trainers.md, in a process of its own that never names this package."""
    line = "import verl; from verl.trainer.ppo.core_algos import get_adv_estimator_fn as f; print(f('maxrl_bench'))"
    told = subprocess.run([sys.executable, "-c", line], capture_output=True, text=True, check=True).stdout
    assert "objective_advantage" in told
    assert core_algos.get_adv_estimator_fn(NAME) is objective_advantage
