"""The tables of an experiment, cell by cell, from its configurations and runs; and what is read from them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maxrl_bench.analysis import rates
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.experiment import Experiment

STEPS = (0, 3, 8, 20)


def rows_of(run: RunConfig) -> list[dict[str, float]]:
    """Values of all sizes, other ones for every run."""
    rng = np.random.default_rng([run.seed, run.num_rollouts])
    scale = {"pass@1": 1.0, "pass@2": 1e-7, "log_p": -1e5}
    return [
        {"step": step, "rollouts": step * 7, "seconds": step / 3, **{k: s * rng.random() for k, s in scale.items()}}
        for step in STEPS
    ]


def rates_of(run: RunConfig) -> pd.DataFrame:
    rng = np.random.default_rng(run.seed + 100)
    size = len(STEPS) * 3
    values = {"pass_rate": rng.random(size) ** 9, "n": 0, "grad_norm": rng.random(size) * 1e-8}
    return pd.DataFrame({"step": np.repeat(STEPS, 3), "instance": list(range(3)) * len(STEPS), **values})


@pytest.fixture
def runs() -> list[RunConfig]:
    """No two settings have one value, and the runs are in no order of theirs."""
    return [
        RunConfig(task=task, objective=objective, seed=seed, num_rollouts=16, batch_size=5,
                  learning_rate=3e-4 / (1 + seed), train_instances=40 + seed)
        for seed in (7, 2)
        for task in ("maze-9", {"name": "fourrooms", "size": 9})
        for objective in ({"name": "maxrl_order", "order": 3}, "grpo")
    ]  # fmt: skip


def digits(value: float) -> float:
    """Six significant ones."""
    return float(f"{value:.5e}")


def test_every_cell_of_the_tables(tmp_path: Path, runs: list[RunConfig]) -> None:
    store = Store(tmp_path / "store")
    for run in reversed(runs):
        store.finish(run, rows_of(run), rates_of(run), {})
    experiment = Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, tuple(runs))
    tables = tabulate.write_tables(experiment, store, tmp_path)
    assert tables is not None
    expected: list[dict[str, Any]] = []
    for run in runs:
        maze = run.task["name"] == "maze-9"
        identity = {
            "run": run.hash,
            "task": "maze-9" if maze else "fourrooms(size=9)",
            "family": "maze" if maze else "navigation",
            "objective": "GRPO" if run.objective["name"] == "grpo" else "MaxRL T=3",
            "objective_name": run.objective["name"],
            "num_rollouts": 16,
            "batch_size": 5,
            "learning_rate": 3e-4 / (1 + run.seed),  # as it is: the rates of a table are rates that were run
            "train_instances": 40 + run.seed,
            "seed": run.seed,
        }
        expected += [{**identity, **{key: digits(value) for key, value in row.items()}} for row in rows_of(run)]
    pd.testing.assert_frame_equal(tables.metrics, pd.DataFrame(expected), check_dtype=False, check_exact=True)
    ends = []
    for run in runs:
        rates = rates_of(run)
        rates = rates[rates["step"].isin((0, 20))].assign(run=run.hash)
        ends.append(rates.assign(**{name: rates[name].map(digits) for name in ("pass_rate", "grad_norm")}))
    stored = tables.pass_rates
    rates = pd.concat(ends, ignore_index=True)[list(stored)]
    pd.testing.assert_frame_equal(stored, rates, check_dtype=False, check_exact=True)


def test_scores_of_runs_from_the_tables(tmp_path: Path, runs: list[RunConfig]) -> None:
    """By seed, whatever the order of the runs; final pass@k of instances, before and after training."""
    store = Store(tmp_path / "store")
    for run in runs:
        store.finish(run, rows_of(run), rates_of(run), {})
    experiment = Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, tuple(runs))
    tabulate.write_tables(experiment, store, tmp_path)
    evidence = Evidence.load("study", tmp_path)
    chosen = evidence.select("maze-9", {"objective": "grpo"})
    assert evidence.seeds(chosen) == [2, 7]
    for position, seed in enumerate((2, 7)):
        run = next(r for r in runs if r.seed == seed and r.task["name"] == "maze-9" and r.objective["name"] == "grpo")
        log_p = [row["log_p"] for row in rows_of(run)]
        for when, value in {"final": log_p[-1], "best": max(log_p), "drop": max(log_p) - log_p[-1]}.items():
            assert evidence.scores(chosen, "log_p", when)[position] == pytest.approx(value, rel=1e-5)
        area = sum((b - a) * (y + z) / 2 for a, b, y, z in zip(STEPS, STEPS[1:], log_p, log_p[1:], strict=False)) / 20
        assert evidence.scores(chosen, "log_p", "area")[position] == pytest.approx(area, rel=1e-5)
        rates = rates_of(run).set_index("step")["pass_rate"]
        final = evidence.instance_pass_at_k(chosen, [1, 4])
        assert final is not None
        np.testing.assert_allclose(final[position, :, 1], 1 - (1 - rates.loc[20]) ** 4, rtol=1e-4)
        for end, step in (("start", 0), ("final", 20)):
            stored = evidence.instance_rates(chosen, end)
            assert stored is not None
            np.testing.assert_allclose(stored[0][position], rates.loc[step], rtol=1e-5)


def test_sampled_pass_rates_give_unbiased_pass_at_k(tmp_path: Path) -> None:
    """From c successes among n = 9 stored as c / n to six digits; pass@16 cannot be had of them."""
    store, counts = Store(tmp_path / "store"), [0, 1, 4, 8, 9]
    run = RunConfig(task="maze-9", objective="grpo")
    rates = pd.DataFrame({"step": 20, "instance": range(5), "pass_rate": np.array(counts) / 9, "n": 9})
    store.finish(run, rows_of(run), rates, {})
    experiment = Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, (run,))
    tabulate.write_tables(experiment, store, tmp_path)
    evidence = Evidence.load("study", tmp_path)
    stored = evidence.instance_pass_at_k([run.hash], [1, 2, 8])
    assert stored is not None
    for column, k in enumerate((1, 2, 8)):
        expected = [1 - math.comb(9 - c, k) / math.comb(9, k) for c in counts]
        np.testing.assert_allclose(stored[0, :, column], expected, atol=1e-12)
    assert evidence.instance_pass_at_k([run.hash], [16]) is None


def test_rates_are_chosen_by_the_mean_over_seeds_of_the_area() -> None:
    """By the median seed, the best seed, the end, the start or pass@128, each of the other rates would win."""
    curves = {  # rate: pass@1 at steps 0, 5, 10 of three seeds
        0.01: [(0.0, 0.4, 0.4), (0.0, 0.4, 0.4), (0.0, 0.4, 0.4)],
        0.02: [(0.0, 0.1, 0.1), (0.0, 0.1, 0.1), (0.0, 0.9, 0.9)],  # the best seed
        0.03: [(0.0, 0.05, 0.05), (0.0, 0.45, 0.45), (0.0, 0.45, 0.45)],  # the median seed
        0.04: [(0.0, 0.0, 0.6), (0.0, 0.0, 0.6), (0.0, 0.0, 0.6)],  # the end
        0.05: [(0.9, 0.3, 0.3), (0.9, 0.3, 0.3), (0.9, 0.3, 0.3)],  # with the start
        0.06: [(0.0, 0.3, 0.3), (0.0, 0.3, 0.3), (0.0, 0.3, 0.3)],  # pass@128
        0.07: [(0.0, 0.4, 0.4), (0.0, 0.4, 0.4), (0.0, 0.4, 0.4)],  # as good as the first, and larger
    }
    rows = [
        {"task": "t", "objective_name": "grpo", "learning_rate": rate, "seed": seed, "step": 5 * i, "pass@1": value,
         "pass@128": 0.99 if rate == 0.06 else value}
        for rate, seeds in curves.items()
        for seed, values in enumerate(seeds)
        for i, value in enumerate(values)
    ]  # fmt: skip
    for order in (1, -1):
        table = rates.areas(pd.DataFrame(rows[::order]).assign(num_rollouts=64))
        assert {name: rates.choose(table, name)[0].rate for name in rates.CRITERIA} == {"pass@1": 0.01, "both": 0.06}
    areas = table[table["learning_rate"] == 0.02].set_index("seed").sort_index()
    assert areas["pass@1"].tolist() == pytest.approx([0.1, 0.1, 0.9])


def test_what_differs_between_runs_has_a_column() -> None:
    """However few values it takes, and a table of settings in words; what all runs share has none."""
    shared = RunConfig(task="maze-9", objective="grpo", batch_size=5)
    assert tabulate.varied([shared, shared.model_copy(update={"batch_size": 6, "seed": 1})]) == []
    for changes in ({"max_grad_norm": 2.0}, {"policy": {"width": 8}}, {"warm_start_steps": 7, "dtype": "float64"}):
        runs = [shared, shared.model_copy(update={"seed": 1}), shared.model_copy(update=changes)]
        assert set(tabulate.varied(runs)) == set(changes)
