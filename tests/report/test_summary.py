"""The summary of an experiment's final scores, recomputed from its tables row by row."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import OBJECTIVES, make_tables

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report.numbers import summarise

STEPS = (0, 10, 40, 100)


def first_at(run: pd.DataFrame, level: float) -> float:
    """Rollouts until pass@1 first reaches the level, along straight lines; infinite if it never does."""
    run = run.sort_values("step")
    spent, height = run["rollouts"].to_numpy(float), run["pass@1"].to_numpy()
    for i in range(len(height)):
        if height[i] >= level:
            return float(np.interp(level, height[max(i - 1, 0) : i + 1], spent[max(i - 1, 0) : i + 1]))
    return math.inf


@pytest.mark.parametrize("lacking", [0, 1, 2, 3, 5])
def test_rows_of_the_summary(lacking: int) -> None:
    """Of five seeds, so many never reach the level: the median is known until three of them do not."""
    objectives = {name: OBJECTIVES[name] for name in ("GRPO", "MaxRL")}
    metrics, rates = make_tables({"a": ("f", 0.0)}, objectives, seeds=5, steps=STEPS, instances=4)
    rng = np.random.default_rng(3)
    climb = rng.uniform(0.6, 1.0, len(metrics)) * (metrics["step"] / 100) ** 0.3
    metrics["pass@1"] = np.where(metrics["seed"] < lacking, 0.4 * climb, climb)
    rows = summarise(Evidence("e", metrics, rates[rates["step"] == 0]))
    assert [row["objective"] for row in rows] == list(objectives)
    for row in rows:
        own = metrics[metrics["objective"] == row["objective"]]
        runs = [run.sort_values("step") for _, run in own.groupby("seed")]
        needed = sorted(first_at(run, 0.5) for run in runs)
        assert row["seeds"] == 5
        assert row["reached"] == sum(map(math.isfinite, needed)) <= 5 - lacking
        assert row["rollouts"] == (pytest.approx(needed[2]) if math.isfinite(needed[2]) else None)
        areas = [np.trapezoid(run["pass@1"], run["step"]) / 100 for run in runs]
        assert row["area of pass@1"][0] == pytest.approx(np.mean(areas), rel=1e-5)
        assert row["pass@1"][0] == pytest.approx(np.mean([run["pass@1"].iloc[-1] for run in runs]), rel=1e-5)
        for name in ("area of pass@1", "pass@1"):
            value, low, high = row[name]
            assert low < value < high
