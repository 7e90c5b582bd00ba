"""Figures to the last artist: whiskers, the frontier's staircase, bands of profiles, shades, bounds of savings."""

from __future__ import annotations

from typing import Any

import drawn
import numpy as np
import pytest
from matplotlib.collections import PolyCollection
from matplotlib.colors import to_rgb
from synthetic_tables import OBJECTIVES
from test_figures import draw
from test_figures_data import TASKS, evidence, final_rates

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Series
from maxrl_bench.report.coverage import Saving

TWO = {name: TASKS[name] for name in ("fourrooms", "maze-9")}


@pytest.fixture(scope="module")
def unequal() -> Evidence:
    """Two tasks; of one, two of the five seeds are missing."""
    whole = evidence(tasks=TWO)
    gone = (whole.metrics["task"] == "maze-9") & whole.metrics["seed"].isin((1, 4))
    return Evidence("made-up", whole.metrics[~gone], whole.pass_rates)


def test_profiles_span_all_levels_and_their_bands_are_those_of_the_fewest_seeds(unequal: Evidence) -> None:
    figure = draw("aggregates", unequal).figure
    for column, k in enumerate((1, 128)):
        for label, look in drawn.looks(figure).items():
            strata = [final_rates(unequal, task, label, k) for task in TWO]
            assert [len(scores) for scores in strata] == [5, 3]
            levels, _ = drawn.curve(figure.axes[column], look)
            assert (levels[0], levels[-1]) == (0, 1)
            _, low, high = stats.profile_curve(strata, levels)
            (band,) = drawn.bands(figure.axes[column], look[0])
            np.testing.assert_allclose(band, np.stack([levels, low, high], axis=1), atol=1e-12)


def test_whiskers_of_initial_pass_rates_reach_from_limit_to_limit(unequal: Evidence) -> None:
    figure = draw("initial_pass_rates", unequal).figure
    first = unequal.pass_rates[unequal.pass_rates["step"] == 0].merge(
        unequal.metrics[["run", "task", "seed", "objective"]].drop_duplicates(), on="run"
    )
    edges = np.linspace(-4, 0, 9)
    for task in TWO:
        rates = first[(first["task"] == task) & (first["objective"] == "REINFORCE")]
        table = rates.pivot(index="seed", columns="instance", values="pass_rate").to_numpy()
        shares = np.stack([np.histogram(np.log10(row.clip(1e-4)), edges)[0] / len(row) for row in table])
        mean, low, high = stats.curve(shares)
        whiskers = drawn.bars(drawn.panel(figure, 0, task), to_rgb("black"), 1)
        middles = (edges[1:] + edges[:-1]) / 2
        assert sorted(whiskers) == pytest.approx(middles)
        for middle, bottom, top in zip(middles, np.minimum(low, mean), np.maximum(high, mean), strict=True):
            (ends,) = (ends for x, ends in whiskers.items() if x == pytest.approx(middle))
            assert ends == pytest.approx((bottom, top))


def test_captions_tell_how_hard_the_instances_are(unequal: Evidence) -> None:
    """Mean, median and the share without a success, over all seeds; of nine rollouts each."""
    counts = np.random.default_rng(2).integers(0, 10, len(unequal.pass_rates)) ** 2 // 9
    experiment = Evidence("made-up", unequal.metrics, unequal.pass_rates.assign(n=9, pass_rate=counts / 9))
    caption = draw("initial_pass_rates", experiment).caption
    first = experiment.pass_rates[experiment.pass_rates["step"] == 0]
    for task in TWO:
        runs = experiment.metrics[
            (experiment.metrics["task"] == task) & (experiment.metrics["objective"] == "REINFORCE")
        ]["run"]
        rates = first[first["run"].isin(runs)]["pass_rate"]
        none = f"{(rates == 0).mean():.0%} without a success among 9"
        assert f"{task} mean {rates.mean():.2g}, median {rates.median():.2g}, {none}" in caption


def test_the_staircase_holds_what_the_frontier_dominates() -> None:
    """Of four objectives none of which is best on both axes: at each pass@1 the most pass@k of those that have it."""
    skills = {"GRPO": (0.5, 0.2), "MaxRL": (0.3, 0.7), "RLOO": (0.4, 0.5), "REINFORCE": (0.2, 0.3)}
    experiment = evidence(
        objectives={name: OBJECTIVES[name] for name in skills}, tasks={"fourrooms": TASKS["fourrooms"]}
    )
    for position, metric in enumerate(("pass@1", "pass@128")):
        values = experiment.metrics["objective"].map({name: skill[position] for name, skill in skills.items()})
        experiment.metrics[metric] = values + 0.001 * experiment.metrics["seed"]
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    front = sorted((pass_1 + 0.002, pass_k + 0.002) for name, (pass_1, pass_k) in skills.items() if name != "REINFORCE")
    for axes in draw("pareto", experiment).figure.axes[:1]:
        (area,) = (a for a in axes.collections if isinstance(a, PolyCollection))
        corners = np.concatenate([path.vertices for path in area.get_paths()])
        for x, y in front:  # each point of the frontier is a corner, under which all is grey
            assert np.isclose(corners, (x, y)).all(axis=1).any()
        (stairs,) = (a for a in axes.lines if to_rgb(a.get_color()) == (0, 0, 0) and a.get_linewidth() == 1.2)
        xs, ys = (np.asarray(part, float) for part in stairs.get_data())
        assert (np.diff(xs) >= 0).all()
        assert (np.diff(ys) <= 0).all()
        assert max(xs) == pytest.approx(0.502)
        assert max(ys) == pytest.approx(0.702)


@pytest.mark.parametrize("setting", ["num_rollouts", "learning_rate"])
def test_shades_grow_darker_with_the_setting(setting: str) -> None:
    values = (4, 64, 1024) if setting == "num_rollouts" else (1e-4, 1e-3, 1e-2)
    experiment = evidence(
        objectives={"MaxRL": OBJECTIVES["MaxRL"]},
        tasks={"fourrooms": TASKS["fourrooms"]},
        settings=tuple({setting: value} for value in values),
    )
    figure = draw("training", experiment).figure
    looks = drawn.looks(figure)
    light = [sum(color) for color, _ in looks.values()]
    assert light == sorted(light, reverse=True)
    assert len(set(light)) == 3
    for value, look in zip(values, looks.values(), strict=True):
        rows = experiment.metrics[(experiment.metrics[setting] == value) & (experiment.metrics["step"] == 210)]
        assert drawn.curve(figure.axes[0], look)[1][-1] == pytest.approx(rows["pass@1"].mean())


def factor(value: float, low: float, high: float, **changes: Any) -> Saving:
    numbers = {"k": 128, "largest": 1024, "coverage": 0.5, **changes}
    return Saving(Series("A", "a"), Series("B", "b"), factor=stats.Estimate(value, low, high, 5), **numbers)


def test_savings_in_words() -> None:
    """Of 128 samples at most 127 can be saved, and with 1024 measured at the most, no more than eight times as many."""
    assert factor(2.34, 1.9, 2.86).words() == "2.3x [1.9x, 2.9x]"
    never = "(A does not get there with 1,024 samples)"
    assert factor(0.0, 0.0, 0.5).words() == f"less than 0.12x [less than 0.12x, 0.5x] {never}"
    assert factor(np.inf, 20, np.inf).words() == "more than 128x [20x, more than 128x] (one sample of A covers more)"
    assert factor(np.inf, np.inf, np.inf).words().startswith("more than 128x [all of the interval] (one sample")
    never = "(A does not get there with 64 samples)"
    assert factor(0.0, 0.0, 0.5, k=32, largest=64).words() == f"less than 0.5x [less than 0.5x, 0.5x] {never}"
    assert factor(1.2, 0.9, 1.6).words() == "1.2x [0.9x, 1.6x], unclear"
    assert factor(25, 2.0, 113).words() == "25x [2x, 110x]"
    assert factor(1.2, 1.0, 1.6).words().endswith("unclear")
    assert factor(1.2, np.nan, np.nan).words() == "1.2x"


SETTINGS = {
    "training": ({},),
    "coverage": ({},),
    "learning_rate": ({"learning_rate": 1e-3}, {"learning_rate": 1e-2}),
}


@pytest.mark.parametrize("name", SETTINGS)
def test_axes_of_rates_end_at_0_and_1_where_intervals_go_on(name: str) -> None:
    whole = evidence(tasks=TWO, settings=SETTINGS[name])
    rates = [column for column in whole.metrics if column.startswith("pass@")]
    one_of_five = whole.metrics["seed"] == 0
    for task, value in (("fourrooms", 1.0), ("maze-9", 0.0)):  # one seed of five ends far from the others
        here = whole.metrics["task"] == task
        whole.metrics.loc[here, rates] = value
        whole.metrics.loc[here & one_of_five, rates] = 1 - value
    split = Evidence("made-up", whole.metrics, whole.pass_rates)
    figure = draw(name, split).figure
    beyond = 0
    for axes in figure.axes:
        if not axes.get_ylabel().startswith("pass@") or "minus" in axes.get_ylabel():
            continue
        assert -0.05 < axes.get_ylim()[0] < axes.get_ylim()[1] < 1.05
        bands = [part.get_datalim(axes.transData) for part in axes.collections if isinstance(part, PolyCollection)]
        beyond += any(box.y0 < -0.05 or box.y1 > 1.05 for box in bands)
    assert beyond  # the bands themselves are whole
