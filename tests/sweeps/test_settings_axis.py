"""Any setting of a run may be an axis: tables, legends, panels and claims carry it."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from maxrl_bench.analysis.series import in_words
from maxrl_bench.config import RunConfig
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.experiment import Experiment

# Two values of every setting: a setting that is added to RunConfig fails the first test until it has a row here.
TWO: dict[str, tuple[Any, Any]] = {
    "num_rollouts": (8, 16),
    "batch_size": (4, 8),
    "steps": (4, 8),
    "learning_rate": (1e-3, 2e-3),
    "optimizer": ("adam", "sgd"),
    "schedule": ("constant", "cosine"),
    "max_grad_norm": (0.5, 1.0),
    "warm_start_steps": (0, 10),
    "warm_start_batch_size": (4, 8),
    "warm_start_learning_rate": (1e-3, 2e-3),
    "train_instances": (0, 8),
    "eval_every": (2, 4),
    "eval_instances": (4, 8),
    "eval_split": ("validation", "test"),
    "eval_rollouts": (8, 16),
    "policy": ({}, {"width": 8}),
    "device": ("cpu", "mps"),
    "dtype": ("float32", "float64"),
    "estimator": ("sampled", "visited"),
}


def tables(tmp_path: Path, **axes: Any) -> results.Tables:
    """The tables of a made-up experiment over all combinations of some settings, two objectives and three seeds."""
    runs = [
        RunConfig(task="fourrooms", objective=objective, seed=seed, **dict(zip(axes, values, strict=True)))
        for objective in ("grpo", "maxrl_alg1")
        for values in itertools.product(*axes.values())
        for seed in range(3)
    ]
    store = Store(tmp_path / "store")
    for number, run in enumerate(runs):
        rows = [
            {"step": step, "rollouts": step * 8, "seconds": float(step), "pass@1": 0.1 + 0.01 * number, "pass@2": 0.5}
            for step in range(0, run.steps + 1, 2)
        ]
        rates = pd.DataFrame({"step": 0, "instance": range(run.eval_instances), "pass_rate": 0.1, "n": 0})
        store.finish(run, rows, rates, {})
    written = tabulate.write_tables(
        Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, tuple(runs)), store, tmp_path
    )
    assert written is not None
    return written


def test_every_setting_is_tried_here() -> None:
    assert set(TWO) == set(results.SETTINGS) == set(RunConfig.model_fields) - {"task", "objective", "seed"}


@pytest.mark.parametrize("setting", TWO)
def test_the_table_of_metrics_tells_the_values_of_an_axis(tmp_path: Path, setting: str) -> None:
    values = TWO[setting]
    metrics = tables(tmp_path, **{setting: list(values)}).metrics
    shown = ("default", "width=8") if setting == "policy" else values
    assert set(metrics[setting]) == set(shown)
    others = set(results.SETTINGS) - set(results.IDENTITY) - {setting}
    assert not others & set(metrics.columns)


def test_one_step_is_no_steps() -> None:
    settings = (("steps", 1), ("batch_size", 1), ("warm_start_steps", 1), ("train_instances", 1))
    assert in_words(settings) == ["1 step", "1 instance per step", "1 warm-start step", "1 training instance"]
    assert in_words((("steps", 2), ("warm_start_steps", 0))) == ["2 steps", "0 warm-start steps"]
