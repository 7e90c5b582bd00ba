"""The rule by which learning rates are chosen: two criteria, each choice with how sure it is."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from scipy import stats
from tuning_curves import CURVES

from maxrl_bench.analysis import rates


def metrics(many: float = 0.0) -> pd.DataFrame:
    """With pass@128 that loses `many` per decade of the rate."""
    rows = [
        {
            "task": "t", "objective_name": name, "num_rollouts": 64, "learning_rate": rate, "seed": seed,
            "step": 10 * i, "pass@1": value, "pass@128": 0.9 - many * math.log10(rate / 0.001),
        }
        for (name, rate, seed), values in CURVES.items()
        for i, value in enumerate(values)
    ]  # fmt: skip
    return pd.DataFrame(rows)


def chosen(table: pd.DataFrame, criterion: str = "pass@1") -> dict[str, rates.Choice]:
    return {choice.objective: choice for choice in rates.choices(table) if choice.criterion == criterion}


def test_the_score_is_the_area_after_the_first_evaluation() -> None:
    table = rates.areas(metrics(many=0.2)).groupby(["objective_name", "learning_rate"])[["pass@1", "both"]].mean()
    assert table.loc[("grpo", 0.001), "pass@1"] == pytest.approx(0.15)
    assert table.loc[("grpo", 0.01), "pass@1"] == pytest.approx((0.5 + 0.4) / 2)
    assert table.loc[("grpo", 0.1), "pass@1"] == pytest.approx(0.425)
    assert table.loc[("grpo", 0.01), "both"] == pytest.approx((0.45 + 0.7) / 2)


def test_the_criteria_choose_by_themselves_and_say_where_a_choice_is_at_an_end() -> None:
    by_one, by_both = (chosen(metrics(many=0.4), criterion) for criterion in rates.CRITERIA)
    assert (by_one["grpo"].rate, by_one["grpo"].edge) == (0.01, "")
    assert (by_one["ml"].rate, by_one["ml"].edge) == (0.1, "highest")
    assert (by_both["grpo"].rate, by_both["grpo"].edge) == (0.001, "lowest")
    assert by_one["grpo"].tried == (0.001, 0.01, 0.1)


def test_how_sure_a_choice_is_is_the_paired_t_interval_of_the_difference_to_the_next_rate() -> None:
    rng, rows = np.random.default_rng(0), []
    for rate in (0.001, 0.01, 0.1):
        for seed in range(5):
            value = {0.001: 0.3, 0.01: 0.5, 0.1: 0.49}[rate] + 0.1 * seed + 0.03 * rng.normal()
            row = {"task": "t", "objective_name": "grpo", "num_rollouts": 4, "learning_rate": rate, "seed": seed}
            rows += [{**row, "step": step, "pass@1": value} for step in (0, 1)]
    table = pd.DataFrame(rows)
    choice = chosen(table)["grpo"]
    assert (choice.rate, choice.next, choice.seeds) == (0.01, 0.1, 5)
    after = table[table["step"] == 1].pivot(index="seed", columns="learning_rate", values="pass@1")
    test = stats.ttest_rel(after[0.01], after[0.1])
    low, high = test.confidence_interval()
    assert (choice.low, choice.high) == (pytest.approx(low), pytest.approx(high))
    assert not choice.is_sure
    assert chosen(table[table["learning_rate"] < 0.1])["grpo"].is_sure
    two = chosen(table[table["seed"] < 2])["grpo"]
    assert math.isnan(two.low)
    assert not two.is_sure


def test_numbers_of_rollouts_are_chosen_for_by_themselves() -> None:
    other = metrics().assign(num_rollouts=4, **{"pass@1": lambda table: 1 - table["pass@1"]})
    found = rates.choose(rates.areas(pd.concat([metrics(), other])), "pass@1")
    assert {(c.objective, c.num_rollouts): c.rate for c in found} == {
        ("grpo", 4): 0.001, ("grpo", 64): 0.01, ("ml", 4): 0.001, ("ml", 64): 0.1,
    }  # fmt: skip


def test_more_is_wanted_beyond_an_end_by_pass_at_1_but_not_beyond_rates_with_which_runs_fail() -> None:
    found = rates.choices(metrics(many=0.4))
    assert {c.objective for c in found if c.criterion == "both" and c.edge == "lowest"} == {"grpo", "ml"}
    assert rates.wanted(found, {}) == {("t", "ml", 64): [0.3]}
    assert rates.wanted(found, {("t", "ml", 64): {0.3}}) == {}
    only = [choice for choice in rates.choices(metrics().query("learning_rate == 0.01")) if choice.objective == "ml"]
    assert {choice.edge for choice in only} == {"only"}
    assert rates.wanted(only, {}) == {("t", "ml", 64): [3e-3, 3e-2]}


def test_unequal_seeds_and_missing_values_are_refused_and_of_equal_rates_the_smallest_is_taken() -> None:
    table = metrics()
    with pytest.raises(ValueError, match="grpo on t were tried on different numbers of seeds"):
        rates.choices(table[(table["learning_rate"] != 0.1) | (table["seed"] == 0)])
    equal = table.assign(**{"pass@1": 0.5})
    assert {choice.rate for choice in rates.choices(equal)} == {0.001}
    table.loc[5, "pass@1"] = float("nan")
    with pytest.raises(ValueError, match="values of it are missing"):
        rates.choices(table)
