"""What the bench compares with is the same policy on the same task; its timings are `make bench`'s to tell."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch

from maxrl_bench.bench import baselines as bench_baselines
from maxrl_bench.bench import versions
from maxrl_bench.bench.parts import parts_of_a_step
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
        "peak_gflops": 50.0, "torch": "2", "objective": "x", "engine": [], "textbook": [], "parts": {},
        "versions": [],
        "navigation": {"engine": {}, "vector_env": []},
        "bars": [
            {"claim": claim, "measured": share * bar, "bar": bar, "at_least": False, "met": share <= 1}
            for share in (0.5, 1.5)
        ],
    }  # fmt: skip
    lines = table(measured).splitlines()
    assert lines[-2].strip() == f"met: {claim}: {0.5 * bar:.2f} (at most {bar:g})"
    assert lines[-1].strip() == f"NOT MET: {claim}: {1.5 * bar:.2f} (at most {bar:g})"


def test_the_parts_of_a_step_are_all_of_it() -> None:
    """By the clock, and each part of a token step and of a navigation step is there."""
    small = {"objective": "maxrl_alg1", "num_rollouts": 64, "batch_size": 4, "learning_rate": 1e-3}
    common = {"backward", "drawing", "optimiser", "building instances", "Python"}
    token = {"prompt", "levels", "reading again", "verifying"}
    for task, own in (("multiply-1", token), ("empty-8", {"network"})):
        parts = parts_of_a_step({"task": task, "warm_start_steps": 30, **small}, 2)
        assert parts.keys() == common | own
        assert all(seconds > 0 for seconds in parts.values())


def test_two_versions_step_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(versions, "QUICK_CELLS", (("empty-8", 4, 0, 0.5),))
    root = Path(versions.__file__).parents[2]
    (row,) = versions.compare(root, quick=True)
    assert (row["task"], row["rollouts"], row["bound"]) == ("empty-8", 4, 0.5)
    assert all(seconds > 0 for what in ("step", "evaluate", "norms") for seconds in row[what])


def test_a_previous_version_must_be_a_checkout(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no checkout of maxrl_bench"):
        versions.compare(tmp_path, quick=True)


def test_a_version_that_ends_is_named(tmp_path: Path) -> None:
    (tmp_path / "maxrl_bench").mkdir()
    (tmp_path / "maxrl_bench" / "__init__.py").write_text("raise SystemExit(3)")
    with versions.Version(tmp_path) as broken, pytest.raises(ValueError, match="ended while asked for 'make'"):
        broken.ask("make", {})
