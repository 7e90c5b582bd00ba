"""What a run counts, keeps over a stop and shares with others: contexts, blocks of an evaluation, base policies."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
import torch
from reference import unfold
from test_textbook_runs import SETTINGS, mean_entropy, rewards
from test_textbook_runs import recording as recording  # the fixture that registers the tasks
from textbook import flat
from token_cases import policy_for, toy

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.training import loop as train
from maxrl_bench.training import measuring, streams
from maxrl_bench.training.warm_start import base_policy


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{**SETTINGS, "objective": "grpo", **changes})


# --- counts -----------------------------------------------------------------------------------------------------------


def test_contexts_are_those_that_the_network_read(tmp_path: Path) -> None:
    """Named: every action of every rollout. Evaluated: each distinct observation of a batch once."""
    settings = config()
    run = train.Run(settings, Store(tmp_path))
    run.evaluate()
    recorded.USES.clear()
    read: list[int] = []
    log_probs = run.policy.log_probs
    run.policy.log_probs = lambda seen: read.append(len(seen)) or log_probs(seen)  # type: ignore[assignment, operator]
    sample, evaluated = recorded.RecordedGraphs.sample, []

    def counted(graphs: Any, *given: Any, **options: Any) -> Any:
        read.clear()
        rollouts = sample(graphs, *given, **options)
        evaluated.append(sum(read))
        return rollouts

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(recorded.RecordedGraphs, "sample", counted)
        for _ in range(2):
            run.step()
    row = run.state.tally
    steps = [use for use in recorded.USES if use.split == "train"]
    named = [sum(len(r.actions) for r in unfold(use.rollouts)) for use in steps if use.rollouts is not None]
    assert len(named) == len(evaluated) == 2
    assert row.contexts_named == sum(named) != sum(evaluated)
    assert row.contexts_evaluated == sum(evaluated)
    del run.policy.log_probs
    later = run.evaluate()
    assert (later["contexts_named"], later["contexts_evaluated"]) == (sum(named), sum(evaluated))


def test_contexts_of_tokens_are_those_that_the_network_read() -> None:
    """Every token that goes through the embedding: the distinct prompts and each node below them, once."""
    for batch in (toy(), toy(same=True), toy(1, horizon=1)):
        policy, read = policy_for(), []
        policy.embedding.register_forward_hook(lambda _, given, __, read=read: read.append(given[0].numel()))
        rollouts = batch.sample(policy, 50, np.random.default_rng(0), grad=False)
        assert rollouts.contexts_evaluated == sum(read)


# --- evaluations ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("task", ["rooms", "sampled-rooms"])
def test_an_evaluation_in_blocks_counts_every_action_and_keeps_the_order(
    task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven instances in blocks of two: one instance is left, and blocks differ in how many actions they take."""
    per_instance = measuring.ENTROPY_ROLLOUTS if task == "rooms" else SETTINGS["eval_rollouts"]
    monkeypatch.setattr(measuring, "EVAL_BLOCK", 2 * per_instance + 1)
    run = train.Run(config(task=task), Store(tmp_path))
    row = run.evaluate()
    blocks = [u for u in recorded.USES if u.rollouts is not None and u.rollouts.num_rollouts == per_instance]
    assert [use.indices for use in blocks] == [(0, 1), (2, 3), (4, 5), (6,)]
    entropies = [float(mean_entropy(use, use.policy).detach()) for use in blocks]
    actions = [sum(len(r.actions) for r in unfold(use.rollouts)) for use in blocks if use.rollouts is not None]
    assert row["entropy"] == pytest.approx(np.average(entropies, weights=actions), rel=1e-9)
    assert row["entropy"] != pytest.approx(np.mean(entropies), rel=1e-6)
    if task == "sampled-rooms":
        rates = np.concatenate([rewards(use).mean(axis=1) for use in blocks])
        np.testing.assert_allclose(run.state.pass_rates[-1], rates)


# --- stops ------------------------------------------------------------------------------------------------------------


def test_a_resumed_run_remembers_everything(tmp_path: Path) -> None:
    """In the middle between two evaluations, with successes, clipped steps and rollouts counted so far."""
    store = Store(tmp_path)
    run = train.Run(config(eval_every=4), store)
    run.evaluate()
    for _ in range(3):
        run.step()
    run.save()
    again = train.Run(config(eval_every=4), store)
    assert again.resume()
    before, after = asdict(run.state), asdict(again.state)
    assert run.state.successes > 0
    assert run.state.tally.with_success > 0
    assert before.keys() == after.keys()
    for name in before:
        if name in ("pass_rates", "grad_norms"):
            for ours, theirs in zip(before[name], after[name], strict=True):
                assert torch.equal(ours.nan_to_num(-1), theirs.nan_to_num(-1))
        else:
            np.testing.assert_equal(after[name], before[name])
    assert again.rng.bit_generator.state == run.rng.bit_generator.state
    assert np.array_equal(flat(again.policy), flat(run.policy))


def test_only_a_run_that_never_succeeded_says_so(tmp_path: Path) -> None:
    """Not one that did in the steps before, nor one that has succeeded before a stop."""
    notes: list[str] = []
    lucky = config(eval_every=1)
    train.train(lucky, Store(tmp_path, report=notes.append))
    assert not notes
    hopeless = config(eval_every=1, num_rollouts=1, batch_size=1, steps=3)
    with pytest.MonkeyPatch.context() as patch:
        batch = recorded.Rooms.batch

        def closed(world: Any, split: str, indices: Any) -> Any:
            graphs = batch(world, split, indices)
            if split == "train":
                graphs.successor[graphs.successor == recorded.SUCCESS] = recorded.FAILURE
            return graphs

        patch.setattr(recorded.Rooms, "batch", closed)
        train.train(hopeless.model_copy(update={"warm_start_steps": 0}), Store(tmp_path / "b", report=notes.append))
    assert len(notes) == 1
    assert "none of 1 rollouts has succeeded in 1 steps" in notes[0]


# --- luck -------------------------------------------------------------------------------------------------------------


def test_every_use_has_luck_of_its_own(tmp_path: Path) -> None:
    """Of one and the same policy: two evaluations, and the gradient norms before and after, are separate draws."""
    settings = config(task="sampled-rooms", learning_rate=1e-30)
    run = train.Run(settings, Store(tmp_path))
    before = flat(run.policy)
    run.evaluate()
    for _ in range(settings.steps):
        run.step()
    run.evaluate()
    assert np.array_equal(flat(run.policy), before)
    first, *_, last = run.state.pass_rates
    assert not torch.equal(first, last)
    first, *_, last = run.state.grad_norms
    assert not torch.isnan(first).any()
    assert not torch.equal(first, last)


def test_seeds_have_orders_of_their_own_in_scarce_data() -> None:
    orders = []
    for seed in (3, 4):
        settings = config(seed=seed, train_instances=12, batch_size=12)
        indices = np.array(streams.training_indices(settings, 0))
        orders.append(indices - indices.min())
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert not np.array_equal(*orders)


# --- base policies ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"warm_start_learning_rate": 0.1},
        {"warm_start_batch_size": 2},
        {"warm_start_steps": 2},
        {"max_grad_norm": 1e-3},
        {"policy": {"width": 12}},
        {"dtype": "float32"},
        {"seed": 4},
        {"task": "sampled-rooms"},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_a_base_policy_is_shared_by_runs_that_agree_in_all_that_made_it(tmp_path: Path, changes: dict) -> None:
    store = Store(tmp_path / "shared")
    for settings in (config(), config(**changes)):
        task = tasks.make_task(**settings.task)
        alone = base_policy(settings, task, Store(tmp_path / settings.hash))
        assert np.array_equal(flat(base_policy(settings, task, store)), flat(alone))


def test_seeds_begin_from_networks_of_their_own(tmp_path: Path) -> None:
    task = tasks.make_task("rooms")
    first, second = (base_policy(config(seed=s, warm_start_steps=0), task, Store(tmp_path)) for s in (3, 4))
    assert not np.isclose(flat(first), flat(second)).all()
    weights = [np.flatnonzero(flat(policy)) for policy in (first, second)]
    assert (flat(first)[weights[0]][:50] != flat(second)[weights[0]][:50]).all()
