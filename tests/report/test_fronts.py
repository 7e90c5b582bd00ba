"""The attainable fronts are those of the tables, whatever rates were tried, and at the rates that are chosen."""

from __future__ import annotations

from pathlib import Path

import drawn
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from synthetic_tables import OBJECTIVES, TASKS, make_tables, write

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report import build, fronts
from maxrl_bench.report.style import NotDrawable, style

RATES = (1e-4, 1e-3, 1e-2)


@pytest.fixture(scope="module")
def evidence() -> Evidence:
    settings = tuple({"learning_rate": rate} for rate in RATES)
    metrics, pass_rates = make_tables(settings=settings, tasks={"fourrooms": TASKS["fourrooms"]})
    return Evidence("rates", metrics, pass_rates)


def front(points: pd.DataFrame) -> np.ndarray:
    """Point by point: kept if no other is at least as good in both and better in one."""
    values = points.to_numpy()
    kept = [a for a in values if not any((b >= a).all() and (b > a).any() for b in values)]
    return np.array(sorted(kept, key=lambda point: point[0]))


def test_every_staircase_is_the_front_of_means_over_seeds(evidence: Evidence) -> None:
    k = f"pass@{evidence.high_k}"
    with style():
        drawing = fronts.fronts(evidence)
    colours = {label: look[0] for label, look in drawn.looks(drawing.figure).items()}
    table = evidence.metrics[evidence.metrics["step"] > 0]
    means = table.groupby(["objective", "learning_rate", "step"])[["pass@1", k]].mean()
    areas = {
        "all rates": None,
        "pass@1": table.groupby(["objective", "learning_rate"])["pass@1"].mean(),
        "both": table.assign(both=(table["pass@1"] + table[k]) / 2)
        .groupby(["objective", "learning_rate"])["both"]
        .mean(),
    }
    for ax, area in zip(drawing.figure.axes, areas.values(), strict=True):
        lines = [line for line in ax.lines if len(line.get_xdata()) and line.get_drawstyle() == "steps-pre"]
        assert len(lines) == len(OBJECTIVES)
        for label in OBJECTIVES:
            own = means.loc[label] if area is None else means.loc[label].loc[[area[label].idxmax()]]
            (line,) = [line for line in lines if to_rgb(line.get_color()) == to_rgb(colours[label])]
            np.testing.assert_allclose(line.get_xydata(), front(own))


def test_rates_that_cannot_be_compared_are_not_drawn(evidence: Evidence) -> None:
    first = evidence.metrics["learning_rate"] == RATES[0]
    lacking = evidence.metrics[~(first & (evidence.metrics["seed"] == 0))]
    for metrics, why in ((evidence.metrics[first], "one learning rate only"), (lacking, "different numbers of seeds")):
        with pytest.raises(NotDrawable, match=why):
            fronts.fronts(Evidence("rates", metrics, evidence.pass_rates))
    on_test = Evidence("rates", evidence.metrics, evidence.pass_rates, {"eval_splits": ["test"]})
    with pytest.raises(NotDrawable, match="chosen on the validation split"):
        fronts.fronts(on_test)


def test_more_lines_than_can_be_told_apart_are_rows_only(
    evidence: Evidence, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(build, "FIGURES", {"fronts": fronts.fronts})
    monkeypatch.setattr(fronts, "MOST", len(OBJECTIVES) - 1)
    with pytest.raises(NotDrawable, match=f"{len(OBJECTIVES)} lines are more than can be told apart"):
        fronts.fronts(evidence)
    small = evidence.metrics["seed"] < 3
    write(tmp_path / "results", "rates", evidence.metrics[small], evidence.pass_rates, eval_splits=["validation"])
    build.draw("rates", tmp_path / "results", tmp_path / "plots")
    assert not (tmp_path / "plots/rates/fronts.png").exists()
    assert set(pd.read_csv(tmp_path / "plots/rates/rates.csv")["objective"]) == set(OBJECTIVES)
