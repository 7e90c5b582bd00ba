"""One run, on a toy world: what it learns, that it is a pure function of its configuration, and that it resumes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.objectives import table as objectives
from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import CategoricalContexts
from maxrl_bench.training import loop as train
from maxrl_bench.training import measuring, metrics
from maxrl_bench.training.streams import training_indices

NUM_DOORS = 4
BOTH_KINDS = ("doors", "sampled-doors")


class Doors:
    """Two rooms, four doors each; the number on the wall says which door leads on. p = 1/16 for a uniform policy."""

    family = "toy"
    horizon = 2
    num_actions = NUM_DOORS
    exact = True
    name = "doors"
    contexts = CategoricalContexts((NUM_DOORS, 8))

    def batch(self, split: str, indices: Any) -> StateGraphs:
        drawn = [
            tasks.draw_instance("doors", split, i, lambda rng: rng.integers(0, [4, 4, 8]), lambda x: x.tobytes())
            for i in indices
        ]
        observations, index = np.unique(
            [[x[room], x[2]] for x in drawn for room in range(2)], axis=0, return_inverse=True
        )
        successor = np.full((2 * len(drawn), NUM_DOORS), FAILURE)
        for i, (first, second, _) in enumerate(drawn):
            successor[2 * i, first] = 2 * i + 1
            successor[2 * i + 1, second] = SUCCESS
        return StateGraphs(
            observations=torch.from_numpy(observations),
            observation_of=index.reshape(-1),
            successor=successor,
            start=np.arange(0, 2 * len(drawn), 2),
            horizon=self.horizon,
        )

    def render(self, split: str, index: int, actions: Any) -> str:
        return f"{split} {index} {list(actions)}"


class SampledDoors(Doors):
    """The same without exact pass rates."""

    name = "sampled-doors"
    exact = False


@pytest.fixture(autouse=True)
def toy_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    for name, cls in (("doors", "Doors"), ("sampled-doors", "SampledDoors")):
        monkeypatch.setitem(tasks.TASKS, name, tasks.TaskEntry("toy", f"{__name__}:{cls}", {}))


def config(**changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "task": {"name": "doors"},
        "objective": {"name": "maxrl_eq10"},
        "seed": 0,
        "num_rollouts": 32,
        "batch_size": 8,
        "steps": 60,
        "learning_rate": 0.03,
        "max_grad_norm": 5.0,
        "warm_start_steps": 0,
        "warm_start_batch_size": 8,
        "warm_start_learning_rate": 0.01,
        "train_instances": 0,
        "eval_every": 20,
        "eval_instances": 24,
        "eval_split": "test",
        "eval_rollouts": 64,
        "policy": {"width": 16},
    }
    return RunConfig(**{**settings, **changes})


def run(folder: Path, **changes: Any) -> tuple[list[dict[str, Any]], Store, RunConfig]:
    """Train; returns the rows of the metrics table, in order."""
    rows: list[dict[str, Any]] = []
    store, settings = Store(folder), config(**changes)
    train.train(settings, store, callbacks=[rows.append])
    assert store.status(settings.hash) == "done"
    return rows, store, settings


def without_seconds(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).drop(columns="seconds")


@pytest.mark.parametrize("name", ["reinforce", "rloo", "grpo", "maxrl_eq9", "maxrl_eq10", "maxrl_alg1", "ml"])
def test_every_objective_learns_the_doors(tmp_path: Path, name: str) -> None:
    rows, _, _ = run(tmp_path, objective={"name": name})
    assert rows[0]["pass@1"] == pytest.approx(1 / 16, abs=0.02)
    assert rows[-1]["pass@1"] > 0.5


def test_rows_say_what_they_claim(tmp_path: Path) -> None:
    rows, _, _ = run(tmp_path, learning_rate=0.003)
    assert [row["step"] for row in rows] == [0, 20, 40, 60]
    assert [row["rollouts"] for row in rows] == [step * 8 * 32 for step in (0, 20, 40, 60)]
    assert all(rows[i]["seconds"] < rows[i + 1]["seconds"] for i in range(3))
    for row in rows:
        assert row["pass@1"] <= row["pass@2"] <= row["pass@1024"] <= 1
        assert math.log(row["pass@1"]) >= row["log_p"]  # Jensen: log E[p] >= E[log p]
        assert 0 <= row["entropy"] <= math.log(NUM_DOORS) + 1e-6
    assert rows[0]["entropy"] == pytest.approx(math.log(NUM_DOORS), abs=0.05)
    assert math.isnan(rows[0]["grad_norm"])
    for row in rows[1:]:
        assert 0 <= row["clipped_share"] <= 1
        assert 0 < row["train_pass_rate"] <= row["success_share"] <= 1
        assert 0 < row["contexts_evaluated"] < row["contexts_named"]
        assert row["cosine_ml"] > 0.5  # eq. 10 with 32 rollouts points the way of maximum likelihood


def test_exact_maximum_likelihood_has_cosine_one_and_no_rollouts(tmp_path: Path) -> None:
    rows, _, _ = run(tmp_path, objective={"name": "ml"})
    assert rows[-1]["cosine_ml"] == pytest.approx(1.0, abs=1e-6)
    assert rows[-1]["rollouts"] == 0
    assert math.isnan(rows[-1]["success_share"])


def test_clipping_is_counted_and_bounds_the_step(tmp_path: Path) -> None:
    rows, _, _ = run(tmp_path, max_grad_norm=1e-9, steps=20)
    assert rows[-1]["clipped_share"] == 1.0
    rows, _, _ = run(tmp_path, max_grad_norm=1e9, steps=20)
    assert rows[-1]["clipped_share"] == 0.0


@pytest.mark.parametrize("changes", [{}, {"train_instances": 12}, {"warm_start_steps": 5}, {"task": "sampled-doors"}])
def test_same_configuration_same_bits(tmp_path: Path, changes: dict[str, Any]) -> None:
    first, _, _ = run(tmp_path / "a", **changes)
    second, _, _ = run(tmp_path / "b", **changes)
    pd.testing.assert_frame_equal(without_seconds(first), without_seconds(second), check_exact=True)
    other, _, _ = run(tmp_path / "c", seed=1, **changes)
    assert not without_seconds(first).equals(without_seconds(other))


@pytest.mark.parametrize("changes", [{}, {"train_instances": 12}, {"warm_start_steps": 5}])
@pytest.mark.parametrize("stop_after", [1, 23, 40])
def test_a_stopped_run_goes_on_to_the_same_bits(tmp_path: Path, changes: dict[str, Any], stop_after: int) -> None:
    whole, _, _ = run(tmp_path / "whole", **changes)
    store, settings = Store(tmp_path / "stopped"), config(**changes)
    part = train.Run(settings, store)
    part.evaluate()
    for _ in range(stop_after):
        part.step()
        if part.state.step % settings.eval_every == 0:
            part.evaluate()
    part.save()
    del part  # as after kill -9: nothing but the store is left
    train.train(settings, store)
    stored = store.tables(settings.hash)[0]
    columns = without_seconds(whole).columns
    pd.testing.assert_frame_equal(stored[columns], without_seconds(whole), check_exact=True, check_dtype=False)


def test_all_objectives_start_from_the_same_policy_and_meet_the_same_instances(tmp_path: Path) -> None:
    rows = {
        name: run(tmp_path, objective={"name": name}, warm_start_steps=5, steps=1)[0][0]["pass@1"]
        for name in ("reinforce", "grpo", "ml")
    }
    assert len(set(rows.values())) == 1
    a, b = config(objective={"name": "grpo"}), config(objective={"name": "ml"})
    assert training_indices(a, 7) == training_indices(b, 7)
    assert not set(training_indices(a, 7)) & set(training_indices(config(seed=1), 7))


def test_warm_start_learns_from_demonstrations_and_is_made_once(tmp_path: Path, monkeypatch: Any) -> None:
    store, settings = Store(tmp_path), config(warm_start_steps=40, steps=1)
    task = tasks.make_task("doors")
    policy = train.base_policy(settings, task, store)
    pass_rate = float(task.batch("test", range(24)).log_pass_rate(policy).detach().exp().mean())
    assert pass_rate > 0.3
    monkeypatch.setattr(Doors, "batch", None)  # a second warm start would need demonstrations
    again = train.base_policy(settings, task, store)
    assert all(torch.equal(a, b) for a, b in zip(policy.parameters(), again.parameters(), strict=True))


def test_scarce_data_is_a_fixed_set_in_epochs() -> None:
    settings = config(train_instances=12, batch_size=5)
    seen = [i for step in range(12) for i in training_indices(settings, step)]
    epochs = [seen[i : i + 12] for i in range(0, 60, 12)]
    assert all(set(epoch) == set(range(12)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5


def test_rich_data_never_repeats() -> None:
    seen = [i for step in range(50) for i in training_indices(config(), step)]
    assert len(set(seen)) == len(seen)


def test_zero_weights_still_let_the_optimiser_decay(tmp_path: Path) -> None:
    """A step without any success has a zero gradient under eq. 9; Adam's momentum moves the policy all the same."""
    live = train.Run(config(objective={"name": "maxrl_eq9"}), Store(tmp_path))
    for _ in range(3):
        live.step()
    before = metrics.flat(p.grad for p in live.parameters).clone()
    assert before.abs().max() > 0
    weights = [p.detach().clone() for p in live.parameters]
    object.__setattr__(live, "objective", _Silent(live.objective))
    live.step()
    assert metrics.flat(p.grad for p in live.parameters).abs().max() == 0
    assert any(not torch.equal(a, b) for a, b in zip(weights, live.parameters, strict=True))


class _Silent:
    """An objective whose weights are all zero."""

    def __init__(self, objective: objectives.Objective):
        self.name, self.is_likelihood, self.smoothing, self.entropy_bonus = objective.name, False, 0.0, 0.0

    def weights(self, successes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.zeros(len(successes)), np.zeros(len(successes))

    def after(self, successes: np.ndarray) -> _Silent:
        return self


def test_exact_likelihood_is_refused_where_the_task_has_none(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="objective 'ml' needs exact pass rates; task 'sampled-doors' has none"):
        run(tmp_path, task={"name": "sampled-doors"}, objective={"name": "ml"})


def test_sampled_evaluation_agrees_with_the_exact_one(tmp_path: Path) -> None:
    sampled, _, _ = run(tmp_path, task={"name": "sampled-doors"}, steps=20, eval_rollouts=4096)
    exact, _, _ = run(tmp_path, steps=20)
    # 24 instances x 4096 rollouts: a standard error below 0.0016, so five of them
    assert sampled[-1]["pass@1"] == pytest.approx(exact[-1]["pass@1"], abs=0.008)
    assert math.isnan(sampled[-1]["log_p"])
    assert math.isnan(sampled[-1]["cosine_ml"])


def test_an_evaluation_in_blocks_is_the_same_measurement(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = {task: run(tmp_path / "a", task=task, steps=20, eval_rollouts=4096)[0][-1] for task in BOTH_KINDS}
    monkeypatch.setattr(measuring, "EVAL_BLOCK", 5)  # of 16 rollouts and more: every instance alone
    for task, row in whole.items():
        rows, store, settings = run(tmp_path / "b", task=task, steps=20, eval_rollouts=4096)
        assert len(train.Run(settings, store).held_out.batches) == settings.eval_instances
        # 24 instances x 4096 rollouts: a standard error below 0.0016, so five of them; exact ones to float32's rounding
        tolerance = 0.008 if task == "sampled-doors" else 1e-6
        assert rows[-1]["pass@1"] == pytest.approx(row["pass@1"], abs=tolerance)
        # 16 rollouts of 24 instances, of one or two actions: a standard error below 0.03
        assert rows[-1]["entropy"] == pytest.approx(row["entropy"], abs=0.01 if task == "sampled-doors" else 0.15)


def test_gradient_norms_are_those_of_single_instances(tmp_path: Path) -> None:
    """Of exact likelihood to rounding, and of eq. 9, since one way leads to success and its score has no noise.

    RLOO's varies with K, by sqrt(q / (p N)) = 0.4 % of the norm at p = 1/16; 5 such deviations are allowed.
    """
    store, many = Store(tmp_path), 1_000_000
    norms = {
        name: train.Run(config(objective={"name": name}, num_rollouts=many), store).gradient_norms()
        for name in ("ml", "maxrl_eq9", "rloo")
    }
    exact = train.Run(config(objective={"name": "ml"}), store)
    for index in range(measuring.GRADIENT_INSTANCES):
        log_p = exact.task.batch("test", [index]).log_pass_rate(exact.policy)
        gradient = torch.autograd.grad(log_p.sum(), exact.parameters)
        norm = float(torch.cat([g.flatten() for g in gradient]).norm())
        assert norms["ml"][index] == pytest.approx(norm, rel=1e-6)
        assert norms["maxrl_eq9"][index] == pytest.approx(norm, rel=1e-6)
        assert norms["rloo"][index] == pytest.approx(norm * math.exp(log_p.detach()), rel=0.02)


def test_gradient_norms_are_stored_before_and_after_training(tmp_path: Path) -> None:
    _, store, settings = run(tmp_path, steps=4, eval_every=2)
    measured = store.tables(settings.hash)[1].dropna(subset="grad_norm")
    assert list(measured["step"].unique()) == [0, 4]
    assert len(measured) == 2 * measuring.GRADIENT_INSTANCES


@pytest.mark.parametrize("task", BOTH_KINDS)
def test_the_last_evaluation_has_more_instances_and_begins_with_those_of_the_others(tmp_path: Path, task: str) -> None:
    settings = {"task": task, "steps": 20, "eval_every": 10, "eval_rollouts": 64}
    tables = {}
    for n in (100, 128, 300):
        _, store, stored = run(tmp_path / str(n), eval_instances=n, **settings)
        tables[n] = store.tables(stored.hash)[1]
    counts = {n: rates.groupby("step")["instance"].nunique().tolist() for n, rates in tables.items()}
    assert counts == {100: [100] * 3, 128: [128] * 3, 300: [128, 128, 300]}
    kept = tables[300][tables[300]["instance"] < 128].reset_index(drop=True)
    assert kept[["step", "instance", "pass_rate"]].equals(tables[128][["step", "instance", "pass_rate"]])


def test_a_run_resumes_after_its_last_evaluation(tmp_path: Path) -> None:
    store, settings = Store(tmp_path), config(steps=4, eval_every=2, eval_instances=200)
    begun = train.Run(settings, store)
    begun.evaluate()
    for _ in range(4):
        begun.step()
        if begun.state.step % 2 == 0:
            begun.evaluate()
    begun.save()
    resumed = train.Run(settings, store)
    assert resumed.resume()
    assert [len(rates) for rates in resumed.state.pass_rates] == [128, 128, 200]
    assert [len(norms) for norms in resumed.state.grad_norms] == [128, 128, 200]


def test_bfloat16_is_mixed_precision_and_learns(tmp_path: Path) -> None:
    assert {p.dtype for p in train.Run(config(dtype="bfloat16"), Store(tmp_path / "a")).parameters} == {torch.float32}
    rough, exact = (run(tmp_path / "b", dtype=dtype)[0][-1]["pass@1"] for dtype in ("bfloat16", "float32"))
    assert rough != exact  # it does compute in another precision
    assert rough == pytest.approx(exact, abs=0.01)
    assert rough > 0.5


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_gpu_learns_what_the_cpu_learns(tmp_path: Path, dtype: str) -> None:
    there, here = run(tmp_path, device="cuda", dtype=dtype)[0][-1], run(tmp_path)[0][-1]
    assert there["pass@1"] == pytest.approx(here["pass@1"], abs=0.1)


def test_objectives_share_a_base_policy_though_their_code_differs(tmp_path: Path) -> None:
    said: list[str] = []
    shared = {"task": "empty-8", "warm_start_steps": 1, "num_rollouts": 4, "steps": 1, "eval_instances": 2}
    for objective in ("rloo", "grpo"):
        config = RunConfig(**shared, objective=objective)
        train.Run(config, Store(tmp_path / "store", f"shared-{objective}", said.append))
    assert said == []
    assert len(list((tmp_path / "store").glob("base-*/policy.pt"))) == 1
