"""Which runs, seeds and instances are put together: of unequal runs, of sampled and exact rates, of missing seeds."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from synthetic_tables import OBJECTIVES, make_tables

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel

ONE = {"fourrooms": ("navigation", 0.0)}
TWO = {name: OBJECTIVES[name] for name in ("GRPO", "MaxRL")}


def made(**options: Any) -> tuple[pd.DataFrame, pd.DataFrame]:
    return make_tables(**{"tasks": ONE, "objectives": TWO, "seeds": 4, "steps": (0, 10, 20), "instances": 5, **options})


def runs_of(metrics: pd.DataFrame, **where: Any) -> list[str]:
    """In the order of the table."""
    for column, value in where.items():
        metrics = metrics[metrics[column] == value]
    return list(metrics["run"].unique())


def test_a_run_that_stopped_early_is_in_no_mean_and_is_named() -> None:
    metrics, rates = made()
    (stopped,) = runs_of(metrics, objective="GRPO", seed=2)
    cut = metrics[(metrics["run"] != stopped) | (metrics["step"] < 20)]
    experiment = Evidence("e", cut, rates)
    (series,) = (entry for entry in experiment.series() if entry.objective == "GRPO")
    kept = experiment.members(series, Panel("fourrooms"))
    assert experiment.seeds(kept) == [0, 1, 3]
    assert "fourrooms, GRPO: seed 2 stopped early and is left out" in experiment.notes
    last = metrics[(metrics["objective"] == "GRPO") & (metrics["step"] == 20) & (metrics["seed"] != 2)]
    assert experiment.scores(kept, "entropy").mean() == pytest.approx(last["entropy"].mean())


def test_a_seed_that_no_run_has_is_counted_all_the_same() -> None:
    """Of four seeds asked for, the last was never run: what there is, is three of four."""
    metrics, rates = made()
    first = metrics.drop_duplicates("run")
    missing = {row["run"]: row for row in first[first["seed"] == 3].to_dict("records")}
    left = metrics[metrics["seed"] != 3]
    experiment = Evidence("e", left, rates[rates["run"].isin(left["run"])], {"missing": missing})
    assert experiment.notes == [f"fourrooms, {label}: 3 of 4 seeds" for label in TWO]


@pytest.mark.parametrize(("n", "ks"), [(9, [1, 4, 9]), (16, [16]), (9, [10]), (16, [1, 32])])
def test_sampled_rates_give_pass_at_k_up_to_all_rollouts(n: int, ks: list[int]) -> None:
    metrics, rates = made()
    rng = np.random.default_rng(0)
    counts = rng.integers(0, n + 1, len(rates))
    experiment = Evidence("e", metrics, rates.assign(n=n, pass_rate=counts / n))
    runs = runs_of(metrics, objective="MaxRL")
    final = pd.Series(counts)[((rates["step"] == 20) & rates["run"].isin(runs)).to_numpy()].to_numpy().reshape(4, 5)
    at_k = experiment.instance_pass_at_k(runs, ks)
    if max(ks) > n:
        assert at_k is None
        return
    assert at_k is not None
    for column, k in enumerate(ks):
        expected = np.vectorize(lambda c, k=k: 1 - math.comb(n - int(c), k) / math.comb(n, k))(final)
        np.testing.assert_allclose(at_k[:, :, column], expected, atol=1e-12)


def test_rates_of_other_numbers_of_rollouts_are_not_put_together() -> None:
    """Exact ones of one seed and sampled ones of another have no n in common; their means are in the other table."""
    metrics, rates = made()
    runs = runs_of(metrics, objective="MaxRL")
    mixed = rates.assign(n=np.where(rates["run"] == runs[1], 64, 0))
    experiment = Evidence("e", metrics, mixed)
    assert experiment.instance_rates(runs) is None
    assert experiment.instance_pass_at_k(runs, [4]) is None
    last = metrics[(metrics["objective"] == "MaxRL") & (metrics["step"] == 20)]
    np.testing.assert_allclose(experiment.scores(runs, "pass@4"), last["pass@4"])
    alone = experiment.instance_rates(runs[1:2])
    assert alone is not None
    assert alone[1] == 64


def test_only_k_that_every_task_has_are_compared() -> None:
    metrics, rates = make_tables(tasks={"a": ("f", 0.0), "bb": ("f", 0.5)}, objectives=TWO, seeds=3, instances=4)
    beyond = metrics["task"] == "a"
    metrics = metrics.assign(**{f"pass@{k}": metrics[f"pass@{k}"].mask(beyond) for k in (64, 128, 256, 512, 1024)})
    experiment = Evidence("e", metrics, rates)
    assert experiment.ks == [1, 2, 4, 8, 16, 32]
    assert experiment.high_k == 32


def test_an_objective_that_samples_nothing_has_no_number_of_rollouts_in_its_name() -> None:
    objectives = {name: OBJECTIVES[name] for name in ("MaxRL", "exact ML")}
    experiment = Evidence("e", *made(objectives=objectives, settings=({"num_rollouts": 4}, {"num_rollouts": 64})))
    assert [entry.label for entry in experiment.series()] == ["MaxRL, N = 4", "MaxRL, N = 64", "exact ML"]
    rates = ({"learning_rate": 0.1}, {"learning_rate": 0.3})
    experiment = Evidence("e", *made(objectives=objectives, settings=rates))
    assert [entry.label for entry in experiment.series()][2] == "exact ML, learning rate 0.1"


def test_a_rate_that_was_tuned_for_each_value_of_a_setting_tells_nothing_apart() -> None:
    """One line along N, and one panel per N, though each N has its own rate; not so where a rate varies by itself."""
    tuned = ({"num_rollouts": 4, "learning_rate": 0.1}, {"num_rollouts": 64, "learning_rate": 0.3})
    experiment = Evidence("e", *made(settings=tuned))
    labels = ["GRPO, N = 4", "GRPO, N = 64", "MaxRL, N = 4", "MaxRL, N = 64"]
    assert sorted(entry.label for entry in experiment.series()) == labels
    assert [panel.title for panel in experiment.panels(["num_rollouts"])] == ["fourrooms, N = 4", "fourrooms, N = 64"]
    further = (*tuned, {"num_rollouts": 4, "learning_rate": 0.3})
    experiment = Evidence("e", *made(settings=further))
    assert "GRPO, N = 4, learning rate 0.1" in [entry.label for entry in experiment.series()]


def test_a_curve_is_drawn_where_every_run_has_a_value() -> None:
    """Else its mean would be one over other seeds from point to point. x is the mean over the runs as well."""
    metrics, rates = made()
    runs = runs_of(metrics, objective="GRPO")
    gap = (metrics["run"] == runs[1]) & (metrics["step"] == 10)
    metrics = metrics.assign(entropy=metrics["entropy"].mask(gap))
    experiment = Evidence("e", metrics, rates)
    rows = metrics[metrics["objective"] == "GRPO"]
    for x in ("step", "seconds"):
        xs, values = experiment.curves(runs, "entropy", x)
        means = rows.groupby("step")[x].mean()
        np.testing.assert_allclose(xs, means.loc[[0, 20]])
        kept = rows[rows["step"] != 10].pivot(index="seed", columns="step", values="entropy")
        np.testing.assert_array_equal(values, kept)
    assert experiment.curves(runs[:1], "entropy")[0].tolist() == [0, 10, 20]
    assert experiment.scores(runs, "entropy", "best") == pytest.approx(
        rows[rows["step"] != 10].groupby("seed")["entropy"].max().to_numpy()
    )
    nothing = Evidence("e", metrics.assign(entropy=np.nan), rates)
    assert np.isnan(nothing.scores(runs, "entropy")).all()
    assert nothing.curves(runs, "entropy")[1].shape == (4, 0)


def test_rows_may_stand_in_any_order() -> None:
    """Evaluations by step and instances by number: the same of every run, or differences would not be paired."""
    metrics, rates = made()
    runs = runs_of(metrics, objective="GRPO")
    ordered, shuffled = (
        Evidence("e", m, r) for m, r in ((metrics, rates), (metrics.sample(frac=1, random_state=0), rates[::-1]))
    )
    for end in ("start", "final"):
        (expected, _), (actual, _) = (e.instance_rates(runs, end) or (None, 0) for e in (ordered, shuffled))
        assert expected is not None
        assert expected.shape == (4, 5)
        np.testing.assert_array_equal(actual, expected)
    for expected, actual in zip(ordered.curves(runs, "entropy"), shuffled.curves(runs, "entropy"), strict=True):
        np.testing.assert_array_equal(actual, expected)


def cells(**settings: list[Any]) -> Evidence:
    """An experiment with one run per objective and cell; each setting has a value for every cell."""
    parts = []
    for number, values in enumerate(zip(*settings.values(), strict=True)):
        metrics, _ = made(seeds=1)
        parts.append(metrics.assign(run=metrics["run"] + f"-{number}", **dict(zip(settings, values, strict=True))))
    metrics = pd.concat(parts)
    _, rates = made(seeds=1)
    every = [rates.assign(run=rates["run"] + f"-{number}") for number in range(len(parts))]
    return Evidence("e", metrics, pd.concat(every))


def titles(evidence: Evidence) -> list[str]:
    return [panel.title for panel in evidence.panels(evidence.faceted())]


def test_no_limit_on_training_instances_comes_last() -> None:
    words = ["16 training instances", "1024 training instances", "unlimited training instances"]
    assert titles(cells(train_instances=[0, 16, 1024])) == [f"fourrooms, {word}" for word in words]


def test_where_one_setting_is_changed_at_a_time_titles_name_it_alone() -> None:
    one = {"batch_size": [4, 16, 16], "optimizer": ["adam", "sgd", "adam"], "max_grad_norm": [1.0, 1.0, 1e9]}
    assert titles(cells(**one)) == [
        "fourrooms, 4 instances per step", "fourrooms, no clipping", "fourrooms, SGD",
    ]  # fmt: skip
    crossed = cells(batch_size=[4, 4, 16, 16], optimizer=["adam", "sgd", "adam", "sgd"])
    assert len(set(titles(crossed))) == 4
    assert all("instances per step" in title for title in titles(crossed))
