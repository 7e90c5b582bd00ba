"""Whole runs against the textbook: the same updates from the same rollouts, and tables recomputed from raw rollouts."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import recorded
import torch
from reference import Rollout, all_rollouts, log_probability, unfold
from textbook import ADVANTAGES, KNOBS, Adam, flat, gradient

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.training import loop as train
from maxrl_bench.training.streams import training_indices

SETTINGS: dict[str, Any] = {
    "task": "rooms",
    "seed": 3,
    "num_rollouts": 6,
    "batch_size": 4,
    "steps": 5,  # no multiple of eval_every: the last step is evaluated all the same
    "eval_every": 2,
    "learning_rate": 0.02,
    "max_grad_norm": 0.3,  # between the smallest and the largest norm of these runs
    "warm_start_steps": 3,
    "warm_start_batch_size": 5,
    "warm_start_learning_rate": 0.01,
    "eval_instances": 7,
    "eval_split": "validation",
    "eval_rollouts": 9,
    "policy": {"width": 8},
    "dtype": "float64",
}


@pytest.fixture(autouse=True)
def recording(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name, kind in (("rooms", "Rooms"), ("sampled-rooms", "SampledRooms")):
        monkeypatch.setitem(tasks.TASKS, name, tasks.TaskEntry("toy", f"recorded:{kind}", {}))
    recorded.USES.clear()
    yield
    recorded.USES.clear()


def trained(folder: Path, **changes: Any) -> tuple[RunConfig, Store, train.Run]:
    """A run to its end, by the public steps."""
    config = RunConfig(**{**SETTINGS, **changes})
    store = Store(folder)
    run = train.Run(config, store)
    run.evaluate()
    for step in range(1, config.steps + 1):
        run.step()
        if step % config.eval_every == 0 or step == config.steps:
            run.evaluate()
    run.finish()
    return config, store, run


def single_rollouts(use: recorded.Use) -> list[list[Rollout]]:
    """Every rollout by itself, instance by instance."""
    assert use.rollouts is not None
    rollouts = unfold(use.rollouts)
    return [[r for r in rollouts if r.instance == b] for b in range(use.graphs.num_instances)]


def rewards(use: recorded.Use) -> np.ndarray:
    return np.array([[float(r.success) for r in group] for group in single_rollouts(use)])


def mean_entropy(use: recorded.Use, policy: Any) -> torch.Tensor:
    """Over all actions taken, each counted by itself."""
    assert use.rollouts is not None
    graphs, total, actions = use.graphs, torch.zeros(()), 0
    for rollout in unfold(use.rollouts):
        for state in rollout.states:
            log_probs = policy.log_probs(graphs.observations[graphs.observation_of[state]][None])[0]
            total = total - (log_probs.exp() * log_probs).sum()
            actions += 1
    return total / actions


def log_pass_rates(graphs: Any, policy: Any) -> torch.Tensor:
    """log p of each instance, summed over everything that can happen."""
    chances = [
        sum(log_probability(graphs, policy, rollout).exp() for rollout in all_rollouts(graphs, b) if rollout.success)
        for b in range(graphs.num_instances)
    ]
    return torch.stack(chances).log()  # type: ignore[arg-type]


def ascended(use: recorded.Use, policy: Any, name: str) -> torch.Tensor:
    """What a step ascends: mean_b (1/N) sum_j A_j log pi(rollout j), and what the objective adds to it."""
    if name == "ml":
        return log_pass_rates(use.graphs, policy).mean()
    advantages = ADVANTAGES[name](rewards(use))
    total = torch.zeros(())
    for group, weights in zip(single_rollouts(use), advantages, strict=True):
        for rollout, weight in zip(group, weights, strict=True):
            log_prob = log_probability(use.graphs, policy, rollout)
            if name == "differential_smoothing":
                nudge = KNOBS[name]["gamma"] * float(log_prob.detach()) / len(rollout.actions)
                weight = weight - nudge if rollout.success else weight + nudge
            total = total + float(weight) * log_prob
    total = total / advantages.size
    return total + KNOBS[name]["coefficient"] * mean_entropy(use, policy) if name == "grpo_entropy" else total


# --- updates ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*ADVANTAGES, "ml"])
def test_a_run_is_the_textbook_loop(tmp_path: Path, name: str) -> None:
    """The parameters after all steps, and every number of the table that speaks of training."""
    config, store, run = trained(tmp_path, objective={"name": name, **KNOBS.get(name, {})})
    started = next(use for use in recorded.USES if use.split == "validation")
    policy: Any = copy.deepcopy(started.policy)
    adam = Adam(policy, config.learning_rate, config.max_grad_norm)
    if name == "ml":  # samples nothing, so that the world was not asked for rollouts
        task: Any = tasks.make_task("rooms")
        batches = [task.batch("train", training_indices(config, step)) for step in range(config.steps)]
        steps = [recorded.Use("train", batch.indices, batch, policy, None) for batch in batches]
    else:
        steps = [use for use in recorded.USES if use.split == "train" and use.rollouts]
    assert [use.indices for use in steps] == [tuple(training_indices(config, s)) for s in range(config.steps)]
    norms, rate, with_success = [], [], []
    for use in steps:
        ours = gradient(ascended(use, policy, name), policy)
        if name == "ml":
            rate.append(float(log_pass_rates(use.graphs, policy).detach().exp().mean()))
        else:
            np.testing.assert_allclose(flat(use.policy), flat(policy), atol=1e-9)  # on-policy
            rate.append(float(rewards(use).mean()))
            with_success.append(float(rewards(use).any(axis=1).mean()))
        norms.append(adam.ascend(ours))
    np.testing.assert_allclose(flat(run.policy), flat(policy), atol=1e-9)
    assert np.abs(flat(policy) - flat(started.policy)).max() > 0.01
    rows = store.tables(config.hash)[0]
    assert rows["step"].tolist() == [0, 2, 4, 5]
    assert rows["rollouts"].tolist() == [0 if name == "ml" else step * 4 * 6 for step in (0, 2, 4, 5)]
    for i, (first, last) in enumerate(((0, 2), (2, 4), (4, 5)), 1):
        row, since = rows.iloc[i], slice(first, last)
        assert row["grad_norm"] == pytest.approx(np.mean(norms[since]), rel=1e-6)
        assert row["clipped_share"] == np.mean(np.array(norms[since]) > config.max_grad_norm)
        assert row["train_pass_rate"] == pytest.approx(np.mean(rate[since]))
        if name == "ml":
            assert math.isnan(row["success_share"])
        else:
            assert row["success_share"] == pytest.approx(np.mean(with_success[since]))


def test_the_textbook_cases_meet_what_they_are_to_tell_apart(tmp_path: Path) -> None:
    """Steps with and without clipping, instances with no, one and more successes, rollouts of all lengths."""
    config, _, run = trained(tmp_path, objective="grpo")
    steps = [use for use in recorded.USES if use.split == "train" and use.rollouts]
    successes = np.concatenate([rewards(use).sum(axis=1) for use in steps])
    assert {0, 1} < set(successes)
    assert {len(r.actions) for use in steps for group in single_rollouts(use) for r in group} == {1, 2, 3}
    norms = [float(gradient(ascended(use, use.policy, "grpo"), use.policy).norm()) for use in steps]
    assert min(norms) < config.max_grad_norm < max(norms)
    assert not run.state.tally.steps


def test_the_warm_start_is_the_textbook_loop_on_instances_of_its_own(tmp_path: Path) -> None:
    config, _, _ = trained(tmp_path, objective="grpo")
    shown = [use for use in recorded.USES if use.rollouts is None]
    assert [len(use.indices) for use in shown] == [5, 5, 5]
    assert {use.split for use in shown} == {"train"}
    used = {i for step in range(200) for i in training_indices(config, step)}
    assert not used & {i for use in shown for i in use.indices}
    assert len({i for use in shown for i in use.indices}) == 15
    policy: Any = copy.deepcopy(shown[0].policy)
    adam = Adam(policy, config.warm_start_learning_rate, config.max_grad_norm)
    for use in shown:
        graphs = use.graphs
        solved = [next(r for r in all_rollouts(graphs, b) if r.success) for b in range(graphs.num_instances)]
        likely = sum(log_probability(graphs, policy, r) for r in solved) / sum(len(r.actions) for r in solved)
        adam.ascend(gradient(likely, policy))  # type: ignore[arg-type]
    trained_from = next(use for use in recorded.USES if use.rollouts is not None)
    np.testing.assert_allclose(flat(trained_from.policy), flat(policy), atol=1e-9)


def test_seeds_share_neither_policy_nor_instances_nor_luck(tmp_path: Path) -> None:
    """In one store, as in a sweep; and one seed's base policy serves all learning rates and objectives."""
    firsts = []
    for changes in ({"seed": 3}, {"seed": 4}, {"seed": 3, "learning_rate": 0.5, "objective": "rloo"}):
        recorded.USES.clear()
        trained(tmp_path, **{"objective": "grpo", "steps": 1, **changes})
        firsts.append(next(use for use in recorded.USES if use.split == "train" and use.rollouts))
    a, b, again = firsts
    assert not set(a.indices) & set(b.indices)
    assert np.abs(flat(a.policy) - flat(b.policy)).max() > 0.1
    assert np.array_equal(flat(a.policy), flat(again.policy))
    assert a.indices == again.indices
    runs = [train.Run(RunConfig(**{**SETTINGS, "objective": "grpo", "seed": seed}), Store(tmp_path)) for seed in (3, 4)]
    assert runs[0].rng.random() != runs[1].rng.random()


def test_looking_more_often_changes_nothing_of_what_is_learnt(tmp_path: Path) -> None:
    for task in ("rooms", "sampled-rooms"):
        policies = [
            flat(trained(tmp_path, task=task, objective="grpo_entropy", eval_every=interval)[2].policy)
            for interval in (1, 5)
        ]
        assert np.array_equal(*policies)


# --- tables -----------------------------------------------------------------------------------------------------------


def held_out(config: RunConfig) -> list[recorded.Use]:
    """The evaluations of a run: uses of all held-out instances."""
    uses = [use for use in recorded.USES if use.split == config.eval_split and use.rollouts is not None]
    whole = [use for use in uses if len(use.indices) == config.eval_instances]
    return [use for use in whole if use.rollouts.num_rollouts != config.num_rollouts]  # those compare gradients


@pytest.mark.parametrize("task", ["rooms", "sampled-rooms"])
@pytest.mark.parametrize("split", ["validation", "test"])
def test_rows_are_recomputed_from_raw_rollouts(tmp_path: Path, task: str, split: str) -> None:
    config, store, _ = trained(tmp_path, task=task, objective="maxrl_alg1", eval_split=split, max_grad_norm=9.0)
    rows, rates = store.tables(config.hash)
    evaluations = held_out(config)
    assert len(rows) == len(evaluations) == 4
    assert {use.split for use in recorded.USES} == {"train", split}
    skewed = []
    for (_, row), use in zip(rows.iterrows(), evaluations, strict=True):
        assert use.indices == tuple(range(7))
        stored = rates[rates["step"] == row["step"]]
        assert stored["instance"].tolist() == list(range(7))
        assert row["entropy"] == pytest.approx(float(mean_entropy(use, use.policy).detach()), rel=1e-6)
        if task == "rooms":
            log_p = log_pass_rates(use.graphs, use.policy).detach().numpy()
            expected = {k: 1 - (1 - np.exp(log_p)) ** k for k in (1, 2, 16, 1024)}
            assert row["log_p"] == pytest.approx(log_p.mean())
            assert stored["n"].tolist() == [0] * 7
        else:
            successes, n = rewards(use).sum(axis=1).astype(int), 9
            assert rewards(use).shape == (7, n)
            expected = {
                k: np.array([1 - math.comb(n - int(c), k) / math.comb(n, k) for c in successes]) for k in (1, 2, 4, 8)
            }
            assert "pass@16" not in row
            assert math.isnan(row["log_p"])
            assert stored["n"].tolist() == [n] * 7
        for k, per_instance in expected.items():
            assert row[f"pass@{k}"] == pytest.approx(per_instance.mean())
        skewed.append(abs(expected[1].mean() - np.median(expected[1])) > 1e-3)
        np.testing.assert_allclose(stored["pass_rate"], expected[1])
    assert any(skewed)  # else a median would pass as well


@pytest.mark.parametrize("name", ["grpo_entropy", "differential_smoothing", "raft", "ml"])
def test_gradient_norms_are_recomputed_from_raw_rollouts(tmp_path: Path, name: str) -> None:
    """Of each instance alone, at the first and the last evaluation."""
    config, store, run = trained(tmp_path, objective={"name": name, **KNOBS.get(name, {})})
    _, rates = store.tables(config.hash)
    for step, policy in ((0, next(u for u in recorded.USES if u.rollouts).policy), (5, run.policy)):
        alone = [use for use in recorded.USES if use.split == "validation" and len(use.indices) == 1]
        if name == "ml":
            task: Any = tasks.make_task("rooms")
            alone = [recorded.Use("", (i,), task.batch("validation", [i]), policy, None) for i in range(7)]
        else:
            assert [use.indices for use in alone] == 2 * [(i,) for i in range(7)]
            assert all(use.rollouts is not None and use.rollouts.num_rollouts == 6 for use in alone)
            alone = alone[:7] if step == 0 else alone[7:]
        stored = rates[rates["step"] == step]
        norms = np.array([float(gradient(ascended(use, policy, name), policy).norm()) for use in alone])
        np.testing.assert_allclose(stored["grad_norm"], norms, rtol=1e-6, atol=1e-12)
    assert rates[rates["step"].isin((2, 4))]["grad_norm"].isna().all()


@pytest.mark.parametrize("task", ["rooms", "sampled-rooms"])
@pytest.mark.parametrize("name", ["rloo", "raft", "grpo_entropy"])
def test_the_gradient_is_taken_apart_at_every_evaluation_as_raw_rollouts_tell(
    tmp_path: Path, name: str, task: str
) -> None:
    """The harder three of seven against the others, and both against exact likelihood; of weights alone, no bonus."""
    config, store, _ = trained(tmp_path, task=task, objective={"name": name, **KNOBS.get(name, {})})
    rows, rates = store.tables(config.hash)
    looks = [use for use in recorded.USES if use.split == "validation" and len(use.indices) == 7]
    looks = [use for use in looks if use.rollouts is not None and use.rollouts.num_rollouts == 6]
    assert len(looks) == len(rows) == 4
    for (_, row), use in zip(rows.iterrows(), looks, strict=True):
        pass_rates = rates[rates["step"] == row["step"]]["pass_rate"].to_numpy()
        hardest = np.argsort(pass_rates, kind="stable")[:3]
        advantages = ADVANTAGES["grpo" if name == "grpo_entropy" else name](rewards(use))
        parts = []
        for chosen in (hardest, np.setdiff1d(range(7), hardest)):
            gain = torch.zeros(())
            for b in chosen:
                for rollout, weight in zip(single_rollouts(use)[b], advantages[b], strict=True):
                    gain = gain + float(weight) * log_probability(use.graphs, use.policy, rollout)
            parts.append(gradient(gain, use.policy))
        norms = [float(part.norm()) for part in parts]
        if not sum(norms):
            assert math.isnan(row["hard_gradient"])
            continue
        assert row["hard_gradient"] == pytest.approx(norms[0] / sum(norms))
        likelihood = gradient(log_pass_rates(use.graphs, use.policy).mean(), use.policy)
        cosine = float(torch.nn.functional.cosine_similarity(sum(parts), likelihood, dim=0))
        assert row["cosine_ml"] == (
            pytest.approx(cosine, abs=1e-6) if task == "rooms" else pytest.approx(math.nan, nan_ok=True)
        )
    assert rows["hard_gradient"].notna().sum() >= 2
    assert rows["hard_gradient"].nunique() > 1


def test_all_objectives_are_compared_at_one_policy_before_training(tmp_path: Path) -> None:
    """The same instances and rollouts too: at the first evaluation only the weights differ."""
    seen = []
    for name in ("rloo", "grpo"):
        recorded.USES.clear()
        trained(tmp_path, objective=name)
        use = next(u for u in recorded.USES if u.rollouts and u.rollouts.num_rollouts == 6 and len(u.indices) == 7)
        seen.append((flat(use.policy), rewards(use)))
    np.testing.assert_array_equal(seen[0][0], seen[1][0])
    np.testing.assert_array_equal(seen[0][1], seen[1][1])
