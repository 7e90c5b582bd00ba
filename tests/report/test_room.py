"""What a task leaves to be gained: shares of exact maximum likelihood's gain, and of the last fifth, by hand."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from synthetic_tables import write

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report import build
from maxrl_bench.report.room import flat, room

STEPS = (0, 40, 60, 100)
# Final pass rates of four instances; the base policy and the evaluations between have the first two alone.
ENDS = {
    ("sums", "ml"): (0.5, 0.7, 0.1, 0.1),
    ("sums", "grpo"): (0.3, 0.5, 0.1, 0.1),
    ("sums", "maxrl_alg1"): (0.5, 0.6, 0.2, 0.1),
    ("maze", "grpo"): (0.2, 0.4, 0.3, 0.3),
}
LABELS = {"grpo": "GRPO", "maxrl_alg1": "MaxRL", "ml": "Exact ML"}
BASE = (0.1, 0.3)
# pass@1 of the first two instances at steps 40 and 60; at 80, on the line from 60 to 100, it is half way to the end.
BETWEEN = {"ml": (0.5, 0.6), "grpo": (0.25, 0.3), "maxrl_alg1": (0.4, 0.53)}


def tables(ends: dict[tuple[str, str], tuple[float, ...]] = ENDS) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two seeds, one 0.04 above these numbers and one 0.04 below, from the base policy to the end."""
    metrics: list[dict[str, Any]] = []
    rates: list[pd.DataFrame] = []
    for (task, name), end in ends.items():
        for seed, moved in enumerate((0.04, -0.04)):
            identity = {"run": f"{task}-{name}-{seed}", "task": task, "family": "f", "objective": LABELS[name]}
            identity |= {"objective_name": name, "num_rollouts": 64, "batch_size": 16, "learning_rate": 1e-3}
            identity |= {"train_instances": 0, "seed": seed, "rollouts": 0}
            first, last = ([p + moved for p in own] for own in (BASE, end))
            for step, own in ((0, first), (100, last)):
                row = {"run": identity["run"], "step": step, "instance": range(len(own)), "pass_rate": own, "n": 0}
                rates.append(pd.DataFrame(row))
            means = (sum(first) / 2, *(score + moved for score in BETWEEN[name]), sum(last) / 4)
            for step, mean in zip(STEPS, means, strict=True):
                metrics.append(
                    identity | {"step": step, "seconds": step, "pass@1": mean, "log_p": -1.0, "entropy": 1.0}
                )
    return pd.DataFrame(metrics), pd.concat(rates, ignore_index=True)


def test_every_number_of_the_table() -> None:
    """Gains of pass@1 on the first two instances: ML 0.2 to 0.6, GRPO to 0.4, MaxRL to 0.55."""
    sums, maze = flat(room(Evidence("made-up", *tables())))
    assert sums == {
        "task": "sums",
        "steps": 100,
        "base pass@1": pytest.approx(0.2),
        "Exact ML pass@1": pytest.approx(0.35),
        "Exact ML share of pass@1": pytest.approx(1.0),
        "GRPO pass@1": pytest.approx(0.25),
        "GRPO share of pass@1": pytest.approx(0.5),
        "MaxRL pass@1": pytest.approx(0.35),
        "MaxRL share of pass@1": pytest.approx(0.35 / 0.4),
        "last fifth": pytest.approx((0.4 - 0.3) / 2),  # GRPO's; ML gains nothing more, MaxRL a hundredth
        "slowest": "GRPO",
    }
    assert maze["GRPO pass@1"] == pytest.approx(0.3)
    assert maze["last fifth"] == pytest.approx(0.0)
    assert [name for name, value in maze.items() if value is None] == [
        name for name in sums if "share" in name or name.startswith(("Exact", "MaxRL"))
    ]


def test_pass_at_k_is_of_the_same_instances() -> None:
    metrics, rates = tables()
    metrics["pass@2"] = metrics["pass@1"]  # the first evaluation's is taken from here
    (row, _) = room(Evidence("made-up", metrics, rates))
    reached = {one["objective"]: one for one in row["reached"]}

    def end(ends: tuple[float, ...]) -> float:
        return sum(1 - (1 - p - moved) ** 2 for p in ends for moved in (0.04, -0.04)) / 2 / len(ends)

    ml, grpo = ENDS["sums", "ml"], ENDS["sums", "grpo"]
    assert reached["GRPO"]["scores"]["pass@2"] == pytest.approx(end(grpo), rel=1e-5)
    share = (end(grpo[:2]) - 0.2) / (end(ml[:2]) - 0.2)
    assert reached["GRPO"]["shares"]["pass@2"] == pytest.approx(share, rel=1e-5)


def test_without_stored_pass_rates_scores_are_those_of_the_metrics() -> None:
    metrics, rates = tables()
    row, _ = flat(room(Evidence("made-up", metrics, rates.iloc[:0])))
    assert row["GRPO share of pass@1"] == pytest.approx(0.05 / 0.15, rel=1e-5)
    assert row["MaxRL share of pass@1"] == pytest.approx(1.0)


@pytest.mark.parametrize("left", [("ml",), ("grpo", "maxrl_alg1")])
def test_without_maximum_likelihood_or_another_objective_there_is_no_table(left: tuple[str, ...]) -> None:
    assert room(Evidence("made-up", *tables({key: end for key, end in ENDS.items() if key[1] in left}))) == []


def test_a_gain_inside_the_margin_has_no_shares() -> None:
    row, _ = flat(room(Evidence("made-up", *tables({**ENDS, ("sums", "ml"): (0.11, 0.32, 0.9, 0.9)}))))
    assert row["Exact ML pass@1"] > 0.5
    assert [value for name, value in row.items() if "share" in name] == [None] * 3


def test_the_page_shows_the_table_and_the_folder_has_it(tmp_path: Path) -> None:
    write(tmp_path / "results", "made-up", *tables(), question="?")
    build.draw("made-up", tmp_path / "results", tmp_path / "plots")
    rows = pd.read_csv(tmp_path / "plots" / "made-up" / "room.csv")
    assert list(rows["task"]) == ["sums", "maze"]
    assert rows.loc[0, "MaxRL share of pass@1"] == pytest.approx(0.875)
    markdown = (tmp_path / "plots" / "README.md").read_text()
    assert "| task | base policy | Exact ML | GRPO | MaxRL | steps | last fifth |" in markdown
    assert "| sums | 0.200 | 0.350 (100%) | 0.250 (50%) | 0.350 (88%) | 100 | +0.050 (GRPO) |" in markdown
    assert "| maze | 0.200 |  | 0.300 |  | 100 | +0.000 (GRPO) |" in markdown
    page = (tmp_path / "plots" / "index.html").read_text()
    cells = re.findall(r'<td data-label="GRPO" class="n">([^<]*)</td>', page)
    assert cells == ["0.250 (50%)", "0.300"]
    assert 'href="made-up/room.csv"' in page
