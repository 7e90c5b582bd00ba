"""Verdicts where seeds were added one by one: by the e-process, over common seeds, recomputable from claims.csv."""

from __future__ import annotations

import io
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import make_tables, write

import maxrl_bench
from maxrl_bench.analysis.claims import judge
from maxrl_bench.analysis.compare import BETTER, CANNOT, EQUAL, UNDECIDED, WORSE, compare
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report import build
from maxrl_bench.sweeps.experiment import Experiment, load_experiment

RULE = {"first": 5, "most": 20, "until": "decided"}
CLAIM = {
    "id": "one",
    "statement": "A claim",
    "metric": "pass@1",
    "compare": {"objective": "maxrl_alg1"},
    "against": {"objective": "grpo"},
}


def e_value(differences: list[float] | np.ndarray, mean: float) -> float:
    """The e-process after the last seed, as its sources write it: with g = 1/4, by t, v = n - 1 and r = g / (g + n)."""
    n = len(differences)
    v, r = n - 1, 0.25 / (0.25 + n)
    t2 = n * (np.mean(differences) - mean) ** 2 / np.var(differences, ddof=1)
    return float(math.sqrt(r) * ((1 + t2 / v) / (1 + r * t2 / v)) ** ((v + 1) / 2))


def p_at(differences: list[float], mean: float, first: int) -> float:
    looks = [e_value(differences[:n], mean) for n in range(first, len(differences) + 1)]
    return min(1.0, 1 / max(looks)) if looks else 1.0


@pytest.mark.parametrize("shift", [-0.5, -0.03, 0.0, 0.03, 0.5])
@pytest.mark.parametrize("direction", ["higher", "lower", "equal"])
@pytest.mark.parametrize("seeds", [5, 8, 20])
def test_a_comparison_declares_what_the_e_process_allows(shift: float, direction: str, seeds: int) -> None:
    differences = shift + 0.05 * np.random.default_rng(seeds).normal(size=seeds)
    result = compare([differences], margin=0.1, direction=direction, first=5)
    assert result.by_seed == pytest.approx(differences)
    assert (result.effect, result.seeds, result.instances) == (pytest.approx(differences.mean()), seeds, 0)
    sign = -1 if direction == "lower" else 1
    bound = 0.1 if direction == "equal" else 0.0
    effect = sign * result.effect
    p = {
        EQUAL: max(p_at(differences, -0.1, 5), p_at(differences, 0.1, 5)) if abs(effect) < 0.1 else 1.0,
        BETTER: p_at(differences, sign * bound, 5) if effect > bound else 1.0,
        WORSE: p_at(differences, -sign * bound, 5) if effect < -bound else 1.0,
    }
    assert result.p == pytest.approx(min(p.values()))
    assert result.verdict == next((word for word, value in p.items() if value < 0.05), UNDECIDED)
    for limit in (result.low, result.high):  # the first of the values that no look excludes
        assert p_at(differences, limit, 5) == pytest.approx(0.05)


def test_more_seeds_never_take_certainty_away() -> None:
    differences = np.random.default_rng(3).normal(0.4, 1.0, 60)
    results = [compare([differences[:n]], margin=None, first=5) for n in range(5, 61)]
    widths = [result.high - result.low for result in results]
    assert widths == sorted(widths, reverse=True)
    at_zero = [result.p_at(0.0) for result in results]
    assert at_zero == sorted(at_zero, reverse=True)


def test_tasks_are_averaged_by_seed_and_instances_too() -> None:
    rng = np.random.default_rng(0)
    scores = rng.normal(1, 1, (6, 30)), rng.normal(1, 1, 6)
    result = compare(list(scores), first=5)
    assert result.by_seed == pytest.approx((scores[0].mean(axis=1) + scores[1]) / 2)
    with pytest.raises(ValueError, match="all tasks must have the same"):
        compare([scores[0], scores[1][:5]], first=5)


def test_few_seeds_and_collapsed_runs_declare_nothing() -> None:
    certain = 1 + 0.01 * np.random.default_rng(0).normal(size=12)
    assert compare([certain[:2]], first=5).verdict == CANNOT
    assert compare([certain[:4]], first=5).verdict == UNDECIDED
    assert compare([certain[:5]], first=5).verdict == BETTER
    fallen = compare([certain[:9]], first=5, collapsed=1)
    assert (fallen.verdict, fallen.p, fallen.first, fallen.low) == (UNDECIDED, 1.0, 10, -math.inf)
    assert compare([certain[:10]], first=5, collapsed=1).verdict == BETTER


@pytest.fixture
def uneven() -> Evidence:
    """Two tasks, on which MaxRL, GRPO and RLOO have 9, 7 and 5 seeds; on maze-9 GRPO lacks seed 1, too."""
    return Evidence("made-up", *uneven_tables(), provenance={"seeds": RULE})


def uneven_tables() -> tuple[pd.DataFrame, pd.DataFrame]:
    tasks = {"fourrooms": ("navigation", 0.0), "maze-9": ("maze", 0.4)}
    objectives = {"MaxRL": ("maxrl_alg1", 0.5, 1.3), "GRPO": ("grpo", 0.3, 2.6), "RLOO": ("rloo", -0.4, 2.4)}
    metrics, rates = make_tables(tasks, objectives, seeds=9, steps=(0, 50, 100, 150), instances=16)
    most = metrics["objective"].map({"MaxRL": 9, "GRPO": 7, "RLOO": 5})
    gone = (metrics["seed"] >= most) | (
        (metrics["task"] == "maze-9") & (metrics["objective"] == "GRPO") & (metrics["seed"] == 1)
    )
    return metrics[~gone], rates[rates["run"].isin(metrics[~gone]["run"])]


def test_claims_compare_the_seeds_that_all_sides_have_on_all_tasks(uneven: Evidence) -> None:
    (verdict,) = judge(uneven, [CLAIM])
    (result,) = [c.result for c in verdict.comparisons]
    assert (result.seeds, result.first) == (6, 5)
    assert {c.task: c.result.seeds for c in verdict.per_task} == {"fourrooms": 7, "maze-9": 6}
    last = uneven.metrics[uneven.metrics["step"] == 150].set_index(["task", "objective", "seed"])["pass@1"]
    differences = [
        np.mean([last[task, "MaxRL", seed] - last[task, "GRPO", seed] for task in ("fourrooms", "maze-9")])
        for seed in (0, 2, 3, 4, 5, 6)
    ]
    assert result.by_seed == pytest.approx(differences)


def test_notes_say_how_many_seeds_each_cell_has_and_call_none_missing(uneven: Evidence) -> None:
    assert uneven.notes == [
        "Seeds were added until the claims were decided: 9 of all else; 5 of RLOO on fourrooms, RLOO on maze-9; 7 of "
        "GRPO on fourrooms; 6 of GRPO on maze-9. The claims' intervals hold at every look; bands and bars of the "
        "figures are for a number of seeds that was fixed before"
    ]
    row = {**next(iter(uneven.runs.values())), "task": "maze-9", "objective": "GRPO", "objective_name": "grpo"}
    failed = {"missing": {"x": {**row, "seed": 1}}, "seeds": RULE}
    assert "maze-9, GRPO: 6 of 7 seeds" in Evidence("made-up", *uneven_tables(), provenance=failed).notes
    fixed = Evidence("made-up", *uneven_tables())
    assert "fourrooms, RLOO: 5 of 9 seeds" in fixed.notes


def test_an_odd_rule_in_foreign_tables_is_none() -> None:
    for odd in (None, [], {}, {"first": "5"}, {"first": True}, {"first": -3}, 5):
        assert Evidence("made-up", *uneven_tables(), provenance={"seeds": odd}).first is None


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The page of an experiment whose cells differ in their seeds."""
    tmp_path = tmp_path_factory.mktemp("drawn")
    claims = "".join(
        f'[[claims]]\nid = "{name}"\nstatement = "S"\nmetric = "{metric}"\ncompare = {{ objective = "maxrl_alg1" }}\n'
        f'against = [{{ objective = "grpo" }}, {{ objective = "rloo" }}]\n{more}\n'
        for name, metric, more in (
            ("final", "pass@1", ""),
            ("area", "pass@128", 'when = "area"'),
            ("equal", "pass@1", 'direction = "equal"\nmargin = 0.3'),
            ("every", "pass@1", "every_task = true"),
            ("front", "pass@128", 'when = "front"\nevery_task = true'),
            ("samples", "pass@128", 'when = "samples"\ndirection = "lower"'),
        )
    )
    head = 'question = "?"\nfigures = ["training", "improvement"]\n[[grid]]\ntask = ["fourrooms", "maze-9"]\n'
    head += 'objective = ["maxrl_alg1", "grpo", "rloo"]\nseed = { first = 5, most = 20, until = "decided" }\n'
    (tmp_path / "study.toml").write_text(head + claims)
    write(tmp_path / "results", "study", *uneven_tables(), seeds=RULE, profile="laptop")
    study: Experiment = load_experiment(tmp_path / "study.toml")
    assert build.draw(study, tmp_path / "results", tmp_path / "plots").failed == {}
    return tmp_path


def test_every_verdict_follows_from_claims_csv(drawn: Path) -> None:
    table = pd.read_csv(io.StringIO((drawn / "plots" / "claims" / "claims.csv").read_text()))
    assert set(table["part"]) == {"claim", "task alone", "other moment"}
    for _, row in table.iterrows():
        differences = json.loads(row["by_seed"])
        first, margin = int(row["first"]), row["margin"]
        assert len(differences) == row["seeds"] >= first == 5
        assert np.mean(differences) == pytest.approx(row["effect"], rel=1e-4, abs=1e-5)
        assert math.isnan(row["df"])
        effect, equal = row["effect"] * (-1 if row["direction"] == "lower" else 1), row["direction"] == "equal"
        if row["direction"] == "lower":
            differences = [-value for value in differences]
        p = {
            EQUAL: max(p_at(differences, m, first) for m in (-margin, margin)) if abs(effect) < margin else 1.0,
            BETTER: p_at(differences, margin if equal else 0.0, first) if effect > (margin if equal else 0) else 1.0,
            WORSE: p_at(differences, -margin if equal else 0.0, first) if effect < -(margin if equal else 0) else 1.0,
        }
        assert row["p"] == pytest.approx(min(p.values()), rel=1e-3)
        assert row["outcome"] == next((word for word, value in p.items() if value < 0.05), UNDECIDED)
        for limit in (row["low"], row["high"]):
            limit *= -1 if row["direction"] == "lower" else 1
            assert p_at(differences, limit, first) == pytest.approx(0.05, rel=1e-2)


def test_the_page_says_what_the_intervals_are(drawn: Path) -> None:
    page = (drawn / "plots" / "README.md").read_text()
    assert "intervals are confidence sequences: they hold at every look, over seeds alone" in page
    assert "6 seeds, at every look" in page
    assert "Seeds were added until the claims were decided: 9 of all else; 5 of RLOO" in page
    assert "mean over 5 to 9 seeds" in page


def test_compare_from_python_takes_the_same_interval(drawn: Path) -> None:
    tables = maxrl_bench.load(drawn / "results" / "study")
    both = maxrl_bench.compare(tables, "maxrl_alg1", "grpo")
    (verdict,) = judge(Evidence.of(tables), [CLAIM])
    assert both.mean == verdict.comparisons[0].result
    assert both.interval == (both.mean.low, both.mean.high)
    assert both.mean.first == 5
