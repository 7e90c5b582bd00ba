"""A step of a run against the textbook loop on the same rollouts: what is ascended, and what the metrics row says."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts.graphs import GraphRollouts, StateGraphs
from maxrl_bench.rollouts.tokens import TokenBatch, TokenRollouts
from maxrl_bench.storage.store import Store
from maxrl_bench.training import loop as train
from tests import reference, reference_tokens

TOKENS = {"layers": 1, "width": 8, "heads": 2, "kv_heads": 1, "mlp": 8}
OBJECTIVES: list[dict[str, Any]] = [
    {"name": "maxrl_eq10"},
    {"name": "grpo"},
    {"name": "grpo_entropy", "coefficient": 0.5},
    {"name": "differential_smoothing", "gamma": 0.5},
]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def started(folder: Path, task: str, objective: dict[str, Any], **changes: Any) -> train.Run:
    settings: dict[str, Any] = {
        "num_rollouts": 12,
        "batch_size": 3,
        "steps": 3,
        "eval_every": 3,
        "eval_instances": 2,
        "eval_rollouts": 8,
        "max_grad_norm": 1e9,
        "dtype": "float64",
        "policy": {"width": 8} if task.startswith("empty") else TOKENS,
        "warm_start_steps": 30,
        "warm_start_learning_rate": 0.02,
    }
    return train.Run(RunConfig(task=task, objective=objective, **{**settings, **changes}), Store(folder))


def entropy_of(policy: torch.nn.Module, graphs: StateGraphs, rollouts: list[reference.Rollout]) -> torch.Tensor:
    """Mean over all actions that the rollouts took."""
    each = []
    for rollout in rollouts:
        for state in rollout.states:
            log_probs = policy.log_probs(graphs.observations[graphs.observation_of[state]][None])[0]  # type: ignore[operator]
            each.append(-(log_probs.exp() * log_probs).sum())
    return torch.stack(each).mean()


def textbook(run: train.Run, batch: Any, rollouts: Any) -> torch.Tensor:
    """What the objective's paper ascends, from the single rollouts."""
    objective = run.objective
    on_success, on_failure = objective.weights(rollouts.successes)
    if isinstance(rollouts, GraphRollouts):
        assert isinstance(batch, StateGraphs)
        single = reference.unfold(rollouts)
        gain = reference.textbook_surrogate(batch, run.policy, single, on_success, on_failure, objective.smoothing)
        return gain + objective.entropy_bonus * entropy_of(run.policy, batch, single)
    assert isinstance(rollouts, TokenRollouts)
    assert isinstance(batch, TokenBatch)
    policy: Any = run.policy
    instance, actions, success = rows = reference_tokens.rows_of(rollouts)
    log_prob = reference_tokens.taken(policy, batch, instance, actions).detach().sum(1).numpy()
    nudge = objective.smoothing * log_prob / (actions >= 0).sum(1)
    each = np.where(success, on_success[instance] - nudge, on_failure[instance] + nudge)
    gain = reference_tokens.surrogate(policy, batch, rows, each)
    return gain + objective.entropy_bonus * reference_tokens.entropy(policy, batch, rows)


@pytest.mark.parametrize("batch_size", [1, 3])
@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda objective: objective["name"])
@pytest.mark.parametrize("task", ["empty-8", "maze-7"])
def test_a_step_descends_the_textbooks_loss(
    task: str, objective: dict[str, Any], batch_size: int, tmp_path: Path
) -> None:
    run = started(tmp_path, task, objective, batch_size=batch_size, num_rollouts=80 if task == "maze-7" else 12)
    sampled: list[tuple[Any, Any]] = []
    surrogate = run._surrogate

    def with_paths(batch: Any, rng: np.random.Generator) -> tuple[torch.Tensor, Any]:
        sample = batch.sample
        object.__setattr__(batch, "sample", lambda *a, **k: sample(*a, **{**k, "paths": True}))  # to be told one by one
        gain, rollouts = surrogate(batch, rng)
        sampled.append((batch, rollouts))
        return gain, rollouts

    run._surrogate = with_paths  # type: ignore[method-assign]
    before = {name: parameter.detach().clone() for name, parameter in run.named.items()}
    run.step()
    mine = {name: parameter.grad for name, parameter in run.named.items()}
    with torch.no_grad():
        for name, parameter in run.named.items():
            parameter.copy_(before[name])
    (batch, rollouts), *_ = sampled
    expected = torch.autograd.grad(
        -textbook(run, batch, rollouts), run.parameters, allow_unused=True, materialize_grads=True
    )
    scale = max(float(gradient.abs().max()) for gradient in expected)
    assert scale > 1e-4
    for (name, gradient), theirs in zip(mine.items(), expected, strict=True):
        assert gradient is not None
        assert float((gradient - theirs).abs().max()) < 1e-9 * max(scale, 1), name


def test_the_row_is_what_the_raw_rollouts_say(tmp_path: Path) -> None:
    run = started(tmp_path, "maze-7", {"name": "rloo"}, steps=6, eval_every=6)
    successes: list[np.ndarray] = []
    surrogate = run._surrogate

    def recorded(batch: Any, rng: np.random.Generator) -> tuple[torch.Tensor, Any]:
        gain, rollouts = surrogate(batch, rng)
        successes.append(rollouts.successes)
        return gain, rollouts

    run._surrogate = recorded  # type: ignore[method-assign]
    norms = []
    for _ in range(6):
        run.step()
        norms.append(float(torch.cat([p.grad.flatten() for p in run.parameters if p.grad is not None]).norm()))
    run._surrogate = surrogate  # type: ignore[method-assign]
    row = run.evaluate()
    counts = np.concatenate(successes)
    assert {0, 1} <= set(counts.tolist())  # or the next line could not tell K > 0 from K > 1
    assert row["success_share"] == pytest.approx(np.mean([count > 0 for count in counts]), rel=1e-12)
    assert row["train_pass_rate"] == pytest.approx(sum(counts.tolist()) / (12 * len(counts)), rel=1e-12)
    assert row["rollouts"] == 12 * len(counts) == 6 * 3 * 12
    assert row["grad_norm"] == pytest.approx(np.mean(norms), rel=1e-9)
    assert run.state.successes == counts.sum()
