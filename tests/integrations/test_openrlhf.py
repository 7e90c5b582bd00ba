"""OpenRLHF's real experience maker with our weights. `make test-trainers` runs this where OpenRLHF is."""

from __future__ import annotations

import importlib.machinery
import importlib.util
import sys
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest
import torch

if importlib.util.find_spec("openrlhf") is None:
    pytest.skip("OpenRLHF has an environment of its own: make test-trainers", allow_module_level=True)

import peft  # noqa: F401  (looks for flash_attn before a stand-in is there)

# OpenRLHF imports these at its first lines; they need a GPU to be built, and making experiences needs none.
ABSENT = [name for name in ("deepspeed", "flash_attn", "vllm") if importlib.util.find_spec(name) is None]
INNER = {
    "deepspeed": ["ops", "ops.adam", "runtime", "runtime.zero", "runtime.zero.partition_parameters"],
    "flash_attn": ["bert_padding", "utils", "utils.distributed"],
    "vllm": ["inputs", "utils"],
}
for name in [*ABSENT, *(f"{outer}.{inner}" for outer in ABSENT for inner in INNER[outer])]:
    sys.modules[name] = MagicMock(__spec__=importlib.machinery.ModuleSpec(name, None), __path__=[])

from openrlhf.trainer import ppo_trainer  # noqa: E402

from maxrl_bench.integrations.openrlhf import install  # noqa: E402

GROUP, LENGTH = 3, 4


def experience(index: list[int], rewards: list[float]) -> Any:
    mask = torch.ones(len(index), LENGTH)
    mask[0, -1] = 0
    return SimpleNamespace(
        index=index, rewards=torch.tensor(rewards), action_mask=mask, kl=torch.zeros(len(index), LENGTH), info={},
        values=None,
    )  # fmt: skip


def maker(objective: str, estimator: str, kl: float = 0.0, **knobs: Any) -> Any:
    made = install(objective, **knobs)
    assert ppo_trainer.RemoteExperienceMaker is made
    args = SimpleNamespace(
        rollout=SimpleNamespace(n_samples_per_prompt=GROUP),
        algo=SimpleNamespace(advantage=SimpleNamespace(estimator=estimator, gamma=1.0, lambd=1.0, no_std_norm=False)),
        reward=SimpleNamespace(clip_range=None, overlong_buffer_len=None, stop_properly_penalty_coef=None),
    )
    return made(None, None, None, None, SimpleNamespace(value=kl), SimpleNamespace(args=args), None)


@pytest.mark.parametrize("estimator", ["dr_grpo", "rloo", "group_norm", "reinforce"])
def test_advantages_are_the_objectives_whatever_the_estimator(estimator: str) -> None:
    """Prompt 0: rollouts 0 to 2, one success; prompt 1: none; OpenRLHF has sorted them by length over two batches."""
    made = maker("maxrl_eq9", estimator).compute_advantages_and_returns(
        [experience([4, 0, 5], [0, 1, 0]), experience([2, 3, 1], [0, 0, 0])]
    )
    for one, weights in zip(made, ([0, 3, 0], [0, 0, 0]), strict=True):
        assert one.advantages.tolist() == (torch.tensor(weights)[:, None] * one.action_mask).tolist()
        assert one.returns.tolist() == one.advantages.tolist()


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match="init_coef must be 0"):
        maker("maxrl_eq9", "dr_grpo", kl=0.01).compute_advantages_and_returns([experience([0, 1, 2], [0, 1, 0])])
    with pytest.raises(ValueError, match="does not read the knob 'order'"):
        maker("grpo", "dr_grpo", order=2).compute_advantages_and_returns([experience([0, 1, 2], [0, 1, 0])])
    with pytest.raises(ValueError, match="exactly 0 or 1, got 0.5"):
        maker("grpo", "dr_grpo").compute_advantages_and_returns([experience([0, 1, 2], [0, 1, 0.5])])
