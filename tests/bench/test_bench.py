"""What the bench compares with is the same policy on the same task; its timings are `make bench`'s to tell."""

import importlib.util

import numpy as np
import pytest
import torch

from maxrl_bench.bench import baselines as bench_baselines
from maxrl_bench.bench.run import BARS, attention_flops, engine_step
from maxrl_bench.bench.table import table
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.tokens import TokenBatch
from maxrl_bench.rollouts.transformer import TokenPolicy
from maxrl_bench.tasks import make_task


def maze() -> tuple[TokenPolicy, TokenBatch]:
    task = make_task("maze-7")
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), layers=2, width=32)
    batch = task.batch("train", range(3))
    assert isinstance(policy, TokenPolicy)
    assert isinstance(batch, TokenBatch)
    with torch.no_grad():  # far from uniform, so that a difference would show
        for parameter in policy.parameters():
            parameter.mul_(3)
    return policy, batch


def test_the_textbook_loop_reads_what_the_engine_reads() -> None:
    policy, batch = maze()
    actions = batch.demonstrations.numpy()
    rows = np.arange(batch.num_instances)
    mine = batch._answer_log_probs(policy, rows, actions).sum(1)
    theirs = bench_baselines._log_probs(policy, batch, rows, actions)
    assert torch.allclose(mine, theirs, atol=1e-4)


def test_the_textbook_step_is_the_engines_on_average() -> None:
    """The gradient of the success share, from 1,000 rollouts and from a million; the noise is some 10 % of it."""
    policy, batch = maze()
    optimizer = torch.optim.Adam(policy.parameters(), 1e-2)
    for _ in range(40):
        optimizer.zero_grad()
        batch.demonstration_loss(policy).backward()
        optimizer.step()

    def gradient() -> torch.Tensor:
        return torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])

    policy.zero_grad()
    ones, zeros = np.ones(3), np.zeros(3)
    bench_baselines.textbook_step(policy, batch, 1000, lambda k: (ones, zeros), np.random.default_rng(0))
    theirs = gradient()
    policy.zero_grad()
    (-batch.sample(policy, 1_000_000, np.random.default_rng(0)).surrogate(ones, zeros)).backward()
    mine = gradient()
    assert float((mine - theirs).norm() / mine.norm()) < 0.15


@pytest.mark.skipif(importlib.util.find_spec("transformers") is None, reason="transformers is not installed")
def test_trl_is_given_the_same_network() -> None:
    policy, batch = maze()
    model = bench_baselines.hugging_face_model(policy).eval()
    with torch.no_grad():
        theirs = model(batch.prompts).logits[:, -1, batch.actions].log_softmax(-1)
        mine = policy.log_probs(policy.prefill(batch.prompts).last, batch.actions)
    assert torch.allclose(mine, theirs, atol=1e-4)
    assert float(mine.std()) > 0.1


def test_arithmetic_of_attention_is_counted_by_hand() -> None:
    policy, batch = maze()
    rollouts = engine_step(policy, batch, 4)(0)
    length, pairs = batch.prompts.shape[1], 0
    for _ in range(3):
        pairs += length * (length + 1) // 2
    for depth in rollouts.tree.depth[rollouts.tree.depth > 0]:
        pairs += length + int(depth)
    assert attention_flops(rollouts) == 14 * 2 * pairs * 32


def test_the_table_says_which_bars_are_met() -> None:
    claim, _, bar, at_least = BARS[0]
    assert not at_least
    measured = {
        "peak_gflops": 50.0, "torch": "2", "objective": "x", "engine": [], "textbook": [], "profile": {},
        "navigation": {"engine": {}, "vector_env": []},
        "bars": [{"claim": claim, "measured": m, "bar": bar, "at_least": False, "met": m <= bar} for m in (1.5, 2.5)],
    }  # fmt: skip
    lines = table(measured).splitlines()
    assert lines[-2].strip() == f"met: {claim}: 1.50 (at most 2)"
    assert lines[-1].strip() == f"NOT MET: {claim}: 2.50 (at most 2)"
