"""Whole runs on a token task against the textbook: every rollout is a row and is read whole."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from reference_tokens import entropy, rows_of, surrogate, taken
from textbook import ADVANTAGES, KNOBS, Adam, flat, gradient

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch, TokenRollouts
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import TokenContexts
from maxrl_bench.training import loop as train

ACTIONS, HORIZON, VOCABULARY, PROMPT = 3, 3, 6, 4


@dataclass
class Table:
    """A verifier that looks prefixes up in a table of outcomes [B, prefixes]; a state is (row, prefix)."""

    outcomes: np.ndarray

    def start(self) -> np.ndarray:
        return np.stack([np.arange(len(self.outcomes)), np.zeros(len(self.outcomes), np.int64)], 1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        prefixes = states[:, 1] * ACTIONS + actions + 1
        return np.stack([states[:, 0], prefixes], 1), self.outcomes[states[:, 0], prefixes]


class Letters:
    """Words of up to three letters, of which some are right, by a table drawn for each instance."""

    family = "toy"
    horizon = HORIZON
    num_actions = ACTIONS
    exact = False
    name = "letters"
    contexts = TokenContexts(VOCABULARY, PROMPT + HORIZON)

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        prompts, outcomes = [], []
        for index in indices:
            rng = np.random.default_rng([len(split), index])
            prompts.append(rng.integers(0, VOCABULARY, PROMPT))
            prefixes = sum(ACTIONS**t for t in range(HORIZON + 1))
            outcomes.append(rng.choice([RUNNING, SUCCEEDED, FAILED], prefixes, p=[0.5, 0.25, 0.25]).astype(np.int8))
        verifier = Table(np.stack(outcomes))
        return TokenBatch(torch.from_numpy(np.stack(prompts)), verifier, HORIZON, torch.tensor([4, 1, 5]))

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        return f"{split} {index} {list(actions)}"


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("name", ["grpo", "maxrl_alg1", "grpo_entropy", "differential_smoothing", "raft"])
def test_a_run_on_tokens_is_the_textbook_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, batch_size: int
) -> None:
    steps: list[tuple[TokenBatch, TokenRollouts, torch.nn.Module]] = []
    sample = TokenBatch.sample

    def recorded(batch: TokenBatch, policy: torch.nn.Module, *given: Any, **options: Any) -> TokenRollouts:
        rollouts = sample(batch, policy, *given, **options)
        if options.get("grad", True):
            steps.append((batch, rollouts, copy.deepcopy(policy)))
        return rollouts

    monkeypatch.setitem(tasks.TASKS, "letters", tasks.TaskEntry("toy", f"{__name__}:Letters", {}))
    config = RunConfig(
        task="letters",
        objective={"name": name, **KNOBS.get(name, {})},
        num_rollouts=7,
        batch_size=batch_size,
        steps=4,
        eval_every=4,
        eval_instances=3,
        learning_rate=0.02,
        max_grad_norm=0.1,
        policy={"layers": 1, "width": 8, "heads": 2, "kv_heads": 1, "mlp": 8},
        dtype="float64",
    )
    run = train.Run(config, Store(tmp_path))
    policy: Any = copy.deepcopy(run.policy)
    monkeypatch.setattr(TokenBatch, "sample", recorded)
    for _ in range(config.steps):
        run.step()
    adam = Adam(policy, config.learning_rate, config.max_grad_norm)
    norms, lengths = [], set()
    for batch, rollouts, acting in steps:
        np.testing.assert_allclose(flat(acting), flat(policy), atol=1e-8)  # on-policy
        instance, actions, success = rows = rows_of(rollouts)
        order = np.argsort(instance, kind="stable")
        weights = np.empty(len(instance))
        weights[order] = ADVANTAGES[name](success[order].reshape(batch_size, 7).astype(float)).ravel()
        if name == "differential_smoothing":
            length = (actions >= 0).sum(axis=1)
            likely = taken(policy, batch, instance, actions).sum(1).detach().numpy()
            weights += KNOBS[name]["gamma"] * np.where(success, -1, 1) * likely / length
        gain = surrogate(policy, batch, rows, weights)
        if name == "grpo_entropy":
            gain = gain + KNOBS[name]["coefficient"] * entropy(policy, batch, rows)
        norms.append(adam.ascend(gradient(gain, policy)))
        lengths |= set((actions >= 0).sum(axis=1))
    assert len(steps) == config.steps
    assert len(lengths) > 1
    assert run.state.tally.grad_norm == pytest.approx(sum(norms), rel=1e-6)
    assert run.state.tally.clipped == sum(norm > config.max_grad_norm for norm in norms)
    np.testing.assert_allclose(flat(run.policy), flat(policy), atol=1e-8)
