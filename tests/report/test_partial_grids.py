"""Grids with cells that have no runs: what there is is drawn, what is missing is named, at any moment of a sweep."""

from __future__ import annotations

import itertools
import random
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maxrl_bench.analysis import bootstrap
from maxrl_bench.analysis.claims import judge
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel
from maxrl_bench.report.figures import FIGURES
from maxrl_bench.report.numbers import summarise
from maxrl_bench.report.style import NotDrawable, style
from maxrl_bench.sweeps.experiment import load_experiment

ROOT = Path(__file__).parents[2]
LABELS = {"rloo": "RLOO", "grpo": "GRPO", "maxrl_alg1": "MaxRL", "ml": "Exact ML"}
Run = dict[str, Any]


def run(number: int, task: str, name: str, seed: int, **settings: Any) -> Run:
    base = {"num_rollouts": 64, "batch_size": 16, "learning_rate": 1e-3, "train_instances": 0}
    identity = {"run": f"{number:016x}", "task": task, "family": "f", "objective": LABELS[name], "objective_name": name}
    return {**identity, **base, **settings, "seed": seed}


def tables(runs: Sequence[Run]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Made-up results of some runs: three evaluations, four instances, every column that a figure may ask for."""
    metrics, rates = [], []
    for row in runs:
        rng = np.random.default_rng(int(row["run"], 16))
        for step in (0, 10, 20):
            p = rng.random(4) ** 2
            trained = {c: rng.random() if step else np.nan for c in ("success_share", "cosine_ml", "hard_gradient")}
            pass_at_k = {f"pass@{k}": float(np.mean(1 - (1 - p) ** k)) for k in (1, 8, 128)}
            costs = {"rollouts": step * row["num_rollouts"] * (row["objective_name"] != "ml"), "seconds": step / 10}
            own = {"log_p": float(np.log(p).mean()), "entropy": rng.random(), **trained, **pass_at_k, **costs}
            metrics.append({**row, "step": step, **own})
            if step != 10:
                columns = {"instance": range(4), "pass_rate": p, "n": 0, "grad_norm": rng.random(4)}
                rates.append(pd.DataFrame({"run": row["run"], "step": step, **columns}))
    return pd.DataFrame(metrics), pd.concat(rates, ignore_index=True)


def evidence(runs: Sequence[Run], missing: Sequence[Run] = ()) -> Evidence:
    return Evidence("partial", *tables(runs), {"missing": {row["run"]: row for row in missing}})


def every_figure(experiment: Evidence) -> dict[str, str]:
    """Captions of all figures; of one that cannot be drawn, nothing."""
    captions = {}
    for name, draw in FIGURES.items():
        try:
            with style():
                captions[name] = draw(experiment).caption
        except NotDrawable:
            continue
        assert not re.search(r"\b(nan|inf)\b", captions[name]), captions[name]
    return captions


CLAIMS = tuple(
    {
        "id": f"{metric} {when}",
        "statement": "MaxRL beats GRPO",
        "metric": metric,
        "when": when,
        "compare": {"objective": "maxrl_alg1"},
        "against": {"objective": "grpo"},
        **({"level": 0.3} if when == "rollouts_to" else {}),
        **extra,
    }
    for metric in ("pass@1", "pass@128", "entropy", "success_share", "cosine_ml", "hard_gradient", "log_p")
    for when in ("final", "best", "area", "drop", "rollouts_to")
    for extra in ({"where": {"num_rollouts": 4}}, {"gain": {"num_rollouts": [4, 8]}})
    if when != "rollouts_to" or metric == "pass@1"
) + tuple(
    {
        "id": f"{metric} {when} {every}",
        "statement": "MaxRL beats GRPO",
        "metric": metric,
        "when": when,
        "compare": {"objective": "maxrl_alg1"},
        "against": {"objective": "grpo"},
        "where": {"num_rollouts": 4},
        "every_task": every,
    }
    for when, metric in (
        ("collapsed", "pass@1"),
        ("front", "pass@128"),
        ("front", "cosine_ml"),
        ("samples", "pass@128"),
        ("samples", "pass@64"),
    )
    for every in (False, True)
)
TASKS, NAMES = ("a", "b"), ("grpo", "maxrl_alg1", "ml")


def full_grid() -> list[Run]:
    cells = itertools.product(TASKS, NAMES, (4, 8), range(3))
    kept = [cell for cell in cells if cell[1] != "ml" or cell[2] == 4]
    return [run(i, task, name, seed, num_rollouts=n) for i, (task, name, n, seed) in enumerate(kept)]


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few resamples: what is tested here is what is there, not how wide its interval is."""
    monkeypatch.setattr(bootstrap, "RESAMPLES", 20)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    "lacking",
    [
        {"objective_name": "grpo", "num_rollouts": 4},
        {"objective_name": "maxrl_alg1", "num_rollouts": 8, "task": "a"},
        {"objective_name": "maxrl_alg1", "task": "b"},
        {"task": "b"},
        {"objective_name": "grpo", "seed": 0},
    ],
    ids=lambda lacking: ",".join(f"{key}={value}" for key, value in lacking.items()),
)
def test_a_grid_with_an_empty_cell_is_drawn_and_judged_and_the_cell_is_named(lacking: Run) -> None:
    runs = full_grid()
    missing = [row for row in runs if all(row[key] == value for key, value in lacking.items())]
    experiment = evidence([row for row in runs if row not in missing], missing)
    assert {"coverage", "training", "end_points"} <= every_figure(experiment).keys()
    assert summarise(experiment)
    assert len(judge(experiment, CLAIMS)) == len(CLAIMS)
    notes = " | ".join(experiment.notes)
    for row in missing:
        cell = rf"{row['task']}(, N = {row['num_rollouts']})?"
        label = "Exact ML" if row["objective_name"] == "ml" else row["objective"]
        gone = rf"{cell}: no runs( of [^|]*{label})?(?= \||,|$)"
        assert re.search(rf"{gone}|{cell}, {label}: 2 of 3 seeds", notes), (row, notes)


@pytest.mark.filterwarnings("error")
def test_objectives_with_other_values_of_a_setting_share_the_panels_that_both_have() -> None:
    values = {"grpo": (4, 8), "maxrl_alg1": (8, 16)}
    cells = [(name, n, seed) for name, own in values.items() for n in own for seed in range(3)]
    experiment = evidence([run(i, "a", name, seed, num_rollouts=n) for i, (name, n, seed) in enumerate(cells)])
    panels = {
        panel.title: [s.label for s in experiment.series(panel, ["num_rollouts"])]
        for panel in experiment.panels(experiment.faceted())
    }
    assert panels == {"a, N = 4": ["GRPO"], "a, N = 8": ["GRPO", "MaxRL"], "a, N = 16": ["MaxRL"]}
    assert experiment.notes == ["a, N = 4: no runs of MaxRL", "a, N = 16: no runs of GRPO"]
    assert len(every_figure(experiment)) >= 10
    assert len(judge(experiment, CLAIMS)) == len(CLAIMS)


def test_a_panel_never_shows_runs_of_another_setting() -> None:
    """While a sweep is going on an objective may have one of its values yet; it has a choice all the same."""
    runs = [row for row in full_grid() if row["objective_name"] != "ml"]
    missing = [row for row in runs if row["objective_name"] == "maxrl_alg1" and row["num_rollouts"] == 8]
    for told in (missing, []):
        experiment = evidence([row for row in runs if row not in missing], told)
        for panel in experiment.panels(experiment.faceted()):
            for series in experiment.series(panel, experiment.faceted()):
                for own in experiment.members(series, panel):
                    settings = {**dict(panel.settings), **dict(series.settings)}
                    assert experiment.runs[own]["num_rollouts"] == settings["num_rollouts"], (panel, series)


def test_a_legend_does_not_change_while_runs_come_in() -> None:
    runs = full_grid()
    whole = [series.label for series in evidence(runs).series()]
    for count in range(1, len(runs)):
        assert {s.label for s in evidence(runs[:count], runs[count:]).series()} <= set(whole)


def prefixes(name: str) -> list[tuple[str, list[Run], list[Run]]]:
    """Some moments of a sweep over a shipped experiment, with its runs in the file's order and in others."""
    loaded = load_experiment(ROOT / "experiments" / f"{name}.toml", "reference").runs
    runs = [
        run(i, c.task_label, c.objective["name"], c.seed, num_rollouts=c.num_rollouts) for i, c in enumerate(loaded)
    ]
    shuffled = random.Random(0).sample(runs, len(runs))
    longest_first = sorted(runs, key=lambda row: -row["num_rollouts"])
    orders = {"file": runs, "longest first": longest_first, "shuffled": shuffled}
    return [(f"{order}, {k}", rs[:k], rs[k:]) for order, rs in orders.items() for k in range(1, len(rs) + 1)]


@pytest.mark.filterwarnings("error")
def test_every_series_of_a_panel_has_runs_at_every_moment_of_a_sweep() -> None:
    """On the shipped experiment that once failed in the middle of its sweep."""
    shipped = load_experiment(ROOT / "experiments" / "rollouts.toml", "reference")
    claims, moments = shipped.claims, prefixes("rollouts")
    whole = len(shipped.runs)
    metrics, rates = tables(moments[whole - 1][1])
    for moment, (what, done, missing) in enumerate(moments):
        if moment > whole and moment % 16:  # the file's order at every moment, the others now and then
            continue
        here = {row["run"] for row in done}
        told = {"missing": {row["run"]: row for row in missing}}
        experiment = Evidence("partial", metrics[metrics["run"].isin(here)], rates[rates["run"].isin(here)], told)
        for facets in ((), experiment.faceted()):
            for panel in experiment.panels(facets):
                assert all(experiment.members(series, panel) for series in experiment.series(panel, facets)), what
        assert [
            run
            for panel in experiment.panels()
            for s in experiment.series(panel)
            for run in experiment.members(s, panel)
        ]
        if moment in (84, 144):
            assert "coverage" in every_figure(experiment), what
            summarise(experiment)
            judge(experiment, claims)


def test_a_whole_grid_has_no_notes() -> None:
    assert evidence(full_grid()).notes == []
    assert [panel.title for panel in evidence(full_grid()).panels(["num_rollouts"])] == [
        "a, N = 4", "a, N = 8", "b, N = 4", "b, N = 8",
    ]  # fmt: skip


def test_panels_side_by_side_say_what_each_shows() -> None:
    """Where there is one task, its differences stand beside it."""
    names = ("grpo", "maxrl_alg1")
    runs = [run(4 * i + seed, "a", name, seed) for i, name in enumerate(names) for seed in range(4)]
    panels = FIGURES["pareto"](evidence(runs)).figure.axes
    assert [panel.get_xlabel() for panel in panels] == ["pass@1", "pass@1, minus GRPO"]


@pytest.mark.parametrize("tasks", ["a", "ab"])
def test_captions_say_where_the_differences_stand(tasks: str) -> None:
    """Beside the only panel, below each of several."""
    cells = itertools.product(tasks, ("grpo", "maxrl_alg1"), (1e-3, 1e-2), range(4))
    runs = [run(i, task, name, seed, learning_rate=rate) for i, (task, name, rate, seed) in enumerate(cells)]
    one_rate = evidence([row for row in runs if row["learning_rate"] == 1e-3])
    there, elsewhere = ("Beside", "Below") if tasks == "a" else ("Below", "Beside")
    for name in ("coverage", "pareto", "training", "fronts"):
        drawing = FIGURES[name](evidence(runs) if name == "fronts" else one_rate)
        told = f"{drawing.caption} {drawing.figure.get_supxlabel()}"
        assert re.search(rf"\b{there}\b", told, re.IGNORECASE), name
        assert not re.search(rf"\b{elsewhere}\b(?! 1: more)", told, re.IGNORECASE), name


def test_two_objectives_under_one_label_are_told_apart() -> None:
    runs = [run(seed, "a", "grpo", seed) for seed in range(3)]
    others = [{**run(3 + seed, "a", "grpo", seed), "objective_name": "my_grpo"} for seed in range(3)]
    experiment = evidence([*runs, *others])
    assert [series.label for series in experiment.series()] == ["GRPO (grpo)", "GRPO (my_grpo)"]
    assert all(len(experiment.members(series, Panel("a"))) == 3 for series in experiment.series())


def test_values_that_differ_in_the_seventh_digit_have_labels_of_their_own() -> None:
    rates = (0.000316227766, 0.000316228)
    runs = [run(i, "a", "grpo", i % 3, learning_rate=rates[i // 3]) for i in range(6)]
    labels = [series.label for series in evidence(runs).series()]
    assert labels == ["GRPO, learning rate 0.000316227766", "GRPO, learning rate 0.000316228"]


@pytest.mark.parametrize(
    "told",
    [[], {"x": 3}, {"x": {}}, {"x": {"task": []}}, "text", None, {"x": {key: [] for key in run(0, "a", "grpo", 0)}}],
)
def test_a_provenance_with_other_shapes_tells_of_no_missing_runs(told: Any) -> None:
    runs = full_grid()
    assert Evidence("e", *tables(runs), {"missing": told}).notes == []
