"""What figures plot is what the tables say: every line, band, point and bar, under its name in the legend."""

from __future__ import annotations

import re
from typing import Any

import drawn
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from synthetic_tables import OBJECTIVES, make_tables
from test_figures import draw

from maxrl_bench.analysis import bootstrap, stats
from maxrl_bench.analysis.claims import readable
from maxrl_bench.analysis.compare import compare
from maxrl_bench.analysis.evidence import Evidence

SEEDS, K = 5, "pass@128"
STEPS = (0, 10, 40, 100, 160, 200, 210)  # uneven, so that positions and steps cannot be mistaken
TASKS = {"fourrooms": ("navigation", -2.6), "lava-crossing": ("navigation", -3.2), "maze-9": ("maze", -2.0)}


def evidence(**options: Any) -> Evidence:
    return Evidence("made-up", *make_tables(**{"tasks": TASKS, "steps": STEPS, "instances": 12, **options}))


@pytest.fixture(scope="module")
def plain() -> Evidence:
    """Three tasks, five objectives, five seeds, twelve instances: no two numbers can be mistaken."""
    experiment = evidence(grad_norm=True)
    # One objective is at its best before the end, at another evaluation on each seed.
    even = experiment.metrics["seed"] % 2 == 0
    best = (experiment.metrics["objective"] == "MaxRL") & (
        experiment.metrics["step"] == even.map({True: 160, False: 200})
    )
    experiment.metrics.loc[best, "pass@1"] += 0.2 + 0.05 * experiment.metrics["seed"]
    return Evidence("made-up", experiment.metrics, experiment.pass_rates)


def curves(experiment: Evidence, task: str, label: str, metric: str) -> pd.DataFrame:
    """Steps in rows, seeds in columns."""
    table = experiment.metrics[(experiment.metrics["task"] == task) & (experiment.metrics["objective"] == label)]
    return table.pivot(index="step", columns="seed", values=metric)


def final_rates(experiment: Evidence, task: str, label: str, k: int, **where: Any) -> np.ndarray:
    """Final pass@k [S, I] from the table of exact pass rates."""
    table = experiment.metrics[(experiment.metrics["task"] == task) & (experiment.metrics["objective"] == label)]
    for column, value in where.items():
        table = table[table[column] == value]
    last = experiment.pass_rates[experiment.pass_rates["step"] == experiment.pass_rates["step"].max()]
    joined = last.merge(table[["run", "seed"]].drop_duplicates(), on="run")
    return 1 - (1 - joined.pivot(index="seed", columns="instance", values="pass_rate").to_numpy()) ** k


FIGURES = {
    "training": ("step", ["pass@1", K]),
    "cost_rollouts": ("rollouts", ["pass@1", K]),
    "cost_seconds": ("seconds", ["pass@1", K]),
    "entropy": ("step", ["entropy"]),
    "success_share": ("step", ["success_share"]),
    "cosine_ml": ("step", ["cosine_ml"]),
}


@pytest.mark.parametrize("name", FIGURES)
def test_curves_and_their_bands(name: str, plain: Evidence) -> None:
    x, metrics = FIGURES[name]
    figure = draw(name, plain).figure
    looks = drawn.looks(figure)
    left_out = {"exact ML"} if name in ("cost_rollouts", "success_share") else set()
    assert list(looks) == [label for label in OBJECTIVES if label not in left_out]
    for task in TASKS:
        for label, look in looks.items():
            for row, metric in enumerate(metrics):
                axes = drawn.panel(figure, row, task)
                values = curves(plain, task, label, metric).dropna()
                at_step = curves(plain, task, label, x).loc[values.index] if x != "step" else None
                expected = values.index if at_step is None else at_step.mean(axis=1)
                mean, low, high = stats.curve(values.to_numpy().T)
                assert np.allclose(mean, values.mean(axis=1))
                xs, ys = drawn.curve(axes, look)
                np.testing.assert_allclose(xs, expected)
                np.testing.assert_allclose(ys, values.mean(axis=1))
                (band,) = drawn.bands(axes, look[0])
                np.testing.assert_allclose(band, np.stack([expected, low, high], axis=1))
                assert (low < mean).any() or (name, label) == ("cosine_ml", "exact ML")
    labels = [Y_LABELS.get(m, m) for m in metrics]
    labels += [f"{label}\nminus GRPO" for label in labels] if name == "training" else []
    assert [axes.get_ylabel() for axes in figure.axes[:: len(TASKS)]] == labels


Y_LABELS = {
    "entropy": "policy entropy (nats)",
    "success_share": "instances with a success",
    "cosine_ml": "cosine with ML gradient",
}


@pytest.mark.parametrize(("name", "metric", "when"), [("training", "pass@1", "final"), ("entropy", "entropy", "final"),
                                                      ("success_share", "success_share", "area"),
                                                      ("cosine_ml", "cosine_ml", "area")])  # fmt: skip
def test_captions_name_the_highest(name: str, metric: str, when: str, plain: Evidence) -> None:
    """ "fourrooms: A (0.71, next B 0.62)": with values, of the last evaluation or as the mean height over the steps."""
    caption = draw(name, plain).caption
    for task in TASKS:
        scores = {}
        for label in OBJECTIVES:
            values = curves(plain, task, label, metric).dropna()
            if len(values):
                height = np.trapezoid(values, values.index, axis=0) / (values.index[-1] - values.index[0])
                scores[label] = (values.iloc[-1] if when == "final" else height).mean()
        (best, top), (_, second) = sorted(scores.items(), key=lambda pair: -pair[1])[:2]
        assert f"{best} on {task} ({top:.3g}, next" in caption
        assert f" {second:.3g})" in caption


def test_captions_tell_no_tie_as_a_win() -> None:
    objectives = {name: OBJECTIVES[name] for name in ("REINFORCE", "GRPO", "MaxRL")}
    metrics, rates = make_tables(
        tasks={"fourrooms": TASKS["fourrooms"]}, objectives=objectives, steps=(0, 20), instances=4
    )
    numbers = [name for name in metrics if name.startswith("pass@") or name in ("entropy", "success_share", "log_p")]

    def captions(winner: str | None) -> dict[str, str]:
        table = metrics.copy()
        table[numbers] = 0.5
        table.loc[table["objective"] == winner, numbers] = 0.75
        # The seventh digit, which no caption shows, is no win.
        table.loc[table["objective"] == "REINFORCE", numbers] += 1e-7
        evidence = Evidence("x", table, rates.iloc[:0], {})
        return {name: draw(name, evidence).caption for name in ("training", "entropy", "success_share", "end_points")}

    for caption in captions(None).values():
        assert "all equal" in caption
        assert "(0.5)" in caption
        assert not re.search("REINFORCE|GRPO|MaxRL", caption.replace("the difference to GRPO", ""))
    for caption in captions("MaxRL").values():
        assert "equal" not in caption
        assert re.search(r"MaxRL (on fourrooms )?\(0.75", caption)


def test_lines_that_hide_one_another_are_named(plain: Evidence) -> None:
    def small_print(experiment: Evidence) -> str:
        return " ".join(draw("training", experiment).figure.get_supxlabel().split())

    assert "coincide" not in small_print(plain)
    table = plain.metrics.copy()
    for metric in ("pass@1", K):
        table.loc[table["objective"] == "GRPO", metric] = table.loc[table["objective"] == "MaxRL", metric].to_numpy()
    told = small_print(Evidence("x", table, plain.pass_rates, {}))
    assert "Lines that coincide in a panel: GRPO and MaxRL." in told


def test_coverage(plain: Evidence) -> None:
    figure = draw("coverage", plain).figure
    ks = [2**i for i in range(11)]
    for task in TASKS:
        axes = drawn.panel(figure, 0, task)
        for label, look in drawn.looks(figure).items():
            final = np.stack([curves(plain, task, label, f"pass@{k}").iloc[-1] for k in ks], axis=1)
            xs, ys = drawn.curve(axes, look)
            assert xs.tolist() == ks
            np.testing.assert_allclose(ys, final.mean(axis=0))
            (band,) = drawn.bands(axes, look[0])
            np.testing.assert_allclose(band[:, 1:].T, stats.curve(final)[1:])


def test_samples_saved_are_marked_where_the_coverage_is_equal(plain: Evidence) -> None:
    """The arrow runs at GRPO's coverage with 128 samples, from there to where MaxRL has as much."""
    drawing = draw("coverage", plain)
    ks = 2.0 ** np.arange(11)
    rng = np.random.default_rng(0)
    for task in TASKS:
        ours, theirs = (
            np.stack([final_rates(plain, task, label, int(k)) for k in ks], axis=-1) for label in ("MaxRL", "GRPO")
        )

        def needed(
            ours: np.ndarray, theirs: np.ndarray, seeds: np.ndarray, instances: np.ndarray
        ) -> tuple[float, float]:
            our_curve, their_curve = (values[seeds][:, instances].mean(axis=(0, 1)) for values in (ours, theirs))
            return float(their_curve[7]), float(np.exp(np.interp(their_curve[7], our_curve, np.log(ks))))

        level, end = needed(ours, theirs, np.arange(SEEDS), np.arange(12))
        panel = drawn.panel(drawing.figure, 0, task)
        arrows = [a for a in panel.texts if getattr(a, "arrow_patch", None)]
        # The interval in the caption, against one drawn here: seeds anew and half of the instances, the same for both.
        resampled = [
            128 / needed(ours, theirs, rng.integers(SEEDS, size=SEEDS), np.flatnonzero(half))[1]
            for half in rng.integers(2, size=(2000, 12))
            if half.any()
        ]
        expected = bootstrap.limits(np.array(resampled), SEEDS)
        number = r"(?:more than |less than )?([\d.]+)x"
        said = re.search(rf"{task} {number} \[{number}, {number}\]", drawing.caption)
        assert said is not None
        value, low, high = map(float, said.groups())
        assert value == float(f"{128 / end:.2g}")
        # The arrow is there where the interval leaves no doubt that there is a saving.
        assert len(arrows) == (low > 1 or high < 1)
        assert ("unclear" in panel.get_xlabel()) == (not arrows)
        for arrow in arrows:
            assert arrow.xyann == pytest.approx((128, level))  # type: ignore[attr-defined]
            assert arrow.xy == pytest.approx((end, level))  # type: ignore[attr-defined]
        # The outermost of a few thousand resamples, as far as k was measured.
        assert (low, high) == pytest.approx(np.clip(expected, 128 / 1024, 128), rel=0.5)


def test_pareto(plain: Evidence) -> None:
    """Above: from the base policy to the end, seeds and their mean. Below: minus GRPO at the end, as by `compare`."""
    drawing = draw("pareto", plain)
    figure = drawing.figure
    looks = dict(list(drawn.looks(figure).items())[:-2])
    for task in TASKS:
        above, below = (drawn.panel(figure, row, task) for row in (0, 1))
        means = {}
        for label, look in looks.items():
            ways = np.stack([curves(plain, task, label, metric).to_numpy() for metric in ("pass@1", K)])
            means[label] = ways[:, -1].mean(axis=1)
            (large,) = drawn.lines(above, look, 7.5)
            (small,) = drawn.lines(above, look, 2.5)
            np.testing.assert_allclose(small.get_data(), ways[:, -1])
            np.testing.assert_allclose(np.ravel(large.get_data()), means[label])
            (way,) = [w for w in drawn.lines(above, (look[0], "None")) if w.get_linewidth() == 1.1]
            np.testing.assert_allclose(way.get_data(), ways.mean(axis=2))
            if label == "GRPO":
                assert not drawn.lines(below, look)
                continue
            both = [final_rates(plain, task, label, k) - final_rates(plain, task, "GRPO", k) for k in (1, 128)]
            across, upright = (compare(scores) for scores in both)
            (large,) = drawn.lines(below, look, 7.5)
            (small,) = drawn.lines(below, look, 2.5)
            np.testing.assert_allclose(np.ravel(large.get_data()), (across.effect, upright.effect))
            np.testing.assert_allclose(small.get_data(), [scores.mean(axis=1) for scores in both])
            for along, (one, other) in enumerate(((across, upright), (upright, across))):
                ((place, ends),) = drawn.bars(below, look[0], along).items()
                assert (place, *ends) == pytest.approx((other.effect, one.low, one.high))
        (base,) = [line for line in above.lines if line.get_marker() == "x"]
        # One run of each seed has it: here the last objective's, which differs from the others' in made-up tables.
        start = [curves(plain, task, list(looks)[-1], metric).iloc[0].mean() for metric in ("pass@1", K)]
        np.testing.assert_allclose(np.ravel(base.get_data()), start)
        beaten = {a for a, x in means.items() for y in means.values() if (y >= x).all() and (y > x).any()}
        (rings,) = [line for line in above.lines if line.get_markersize() == 13]
        expected = sorted(tuple(point) for label, point in means.items() if label not in beaten)
        np.testing.assert_allclose(sorted(zip(*rings.get_data(), strict=True)), expected)
    for row in (0, 1):  # one scale
        assert len({(a.get_xlim(), a.get_ylim()) for a in (drawn.panel(figure, row, task) for task in TASKS)}) == 1
    assert "with 95 % intervals over seeds and 12 held-out instances" in drawing.caption


@pytest.mark.parametrize(("name", "row"), [("coverage", 1), ("training", 2)])
def test_paired_differences_are_of_the_seeds_that_both_have(name: str, row: int, plain: Evidence) -> None:
    grpo = (plain.metrics["objective"] == "GRPO") & (plain.metrics["seed"] > 3)
    drawing = draw(name, Evidence("made-up", plain.metrics[~grpo], plain.pass_rates))
    assert "the difference to GRPO, paired, over the 4 seeds that both have, with 95 % intervals" in drawing.caption
    assert "seeds and held-out instances" in drawing.caption or name == "training"
    looks = drawn.looks(drawing.figure)
    axes = drawn.panel(drawing.figure, row, "maze-9")
    if name == "coverage":
        ours, theirs = (
            np.stack([final_rates(plain, "maze-9", label, 2**i)[:4] for i in range(11)], axis=-1)
            for label in ("MaxRL", "GRPO")
        )
    else:
        ours, theirs = (curves(plain, "maze-9", label, "pass@1").to_numpy().T[:4] for label in ("MaxRL", "GRPO"))
    mean, low, high = stats.curve(ours - theirs)
    np.testing.assert_allclose(drawn.curve(axes, looks["MaxRL"])[1], mean, atol=1e-12)
    (band,) = drawn.bands(axes, looks["MaxRL"][0])
    np.testing.assert_allclose(band[:, 1:].T, (low, high), atol=1e-12)
    assert not drawn.lines(axes, looks["GRPO"])


def test_k_and_reference_follow_the_claims(plain: Evidence) -> None:
    sides: dict[str, Any] = {"compare": {"objective": "maxrl_alg1"}, "against": {"objective": "rloo"}}
    claims = readable([{"id": "a", "statement": "s", "metric": ["pass@1", "pass@16"], **sides}, {"id": "not readable"}])
    drawing = draw("pareto", Evidence("made-up", plain.metrics, plain.pass_rates, claims=claims))
    assert "pass@1 against pass@16" in drawing.caption
    assert "the difference to RLOO" in drawing.caption


def test_end_points(plain: Evidence) -> None:
    drawing = draw("end_points", plain)
    heights = drawn.rows(drawing.figure.axes[0])
    assert sorted(heights, key=heights.__getitem__, reverse=True) == list(OBJECTIVES)
    looks = drawn.looks(draw("training", plain).figure)
    for task in TASKS:
        for row, k in enumerate((1, 128)):
            axes = drawn.panel(drawing.figure, row, task)
            assert axes.get_xlabel() == f"pass@{k}"
            means = {}
            for label, look in looks.items():
                scores = final_rates(plain, task, label, k)
                (point,) = drawn.lines(axes, look)
                assert np.ravel(point.get_data()) == pytest.approx([scores.mean(), heights[label]])
                expected = stats.estimate([scores])
                assert drawn.bars(axes, look[0], 0)[heights[label]] == pytest.approx((expected.low, expected.high))
                means[label] = scores.mean()
            best = max(means, key=means.__getitem__)
            assert f"pass@{k} on {task} {best} ({means[best]:.3g})" in drawing.caption


def test_aggregates(plain: Evidence) -> None:
    drawing = draw("aggregates", plain)
    for column, k in enumerate((1, 128)):
        top, bottom = drawing.figure.axes[column], drawing.figure.axes[2 + column]
        heights = drawn.rows(drawing.figure.axes[2])
        best = {}
        for label, look in drawn.looks(drawing.figure).items():
            strata = [final_rates(plain, task, label, k) for task in TASKS]
            runs = np.concatenate([rates.mean(axis=1) for rates in strata])
            xs, ys = drawn.curve(top, look)
            np.testing.assert_allclose(ys, [(runs > x).mean() for x in xs])
            (band,) = drawn.bands(top, look[0])
            assert (band[:, 1] <= ys + 1e-12).all()
            assert (band[:, 2] >= ys - 1e-12).all()
            (point,) = drawn.lines(bottom, look)
            assert np.ravel(point.get_data()) == pytest.approx([runs.mean(), heights[label]])
            expected = stats.estimate(strata)
            assert drawn.bars(bottom, look[0], 0)[heights[label]] == pytest.approx((expected.low, expected.high))
            best[label] = runs.mean()
        assert f"pass@{k} {max(best.values()):.3g}, {max(best, key=best.__getitem__)} [" in drawing.caption


def test_improvement() -> None:
    """On seeds in common: two objectives lack one each; p is of the paired difference, by Holm over the objectives."""
    whole = evidence()
    gone = (whole.metrics["objective"] == "GRPO") & (whole.metrics["task"] == "maze-9") & (whole.metrics["seed"] == 1)
    experiment = Evidence("made-up", whole.metrics[~gone], whole.pass_rates)
    drawing = draw("improvement", experiment)
    looks = drawn.looks(draw("training", experiment).figure)
    others = [label for label in OBJECTIVES if label != "MaxRL"]
    for column, k in enumerate((1, 128)):
        axes = drawing.figure.axes[column]
        heights = drawn.rows(drawing.figure.axes[0])
        assert sorted(heights, key=heights.__getitem__, reverse=True) == others
        tests = {}
        for label in others:
            seeds = [seed for seed in range(SEEDS) if label != "GRPO" or seed != 1]
            pairs = [
                (final_rates(whole, task, "MaxRL", k)[seeds], final_rates(whole, task, label, k)[seeds])
                for task in TASKS
            ]
            wins = [
                np.mean([(x > y) + 0.5 * (x == y) for x in a.mean(axis=1) for y in b.mean(axis=1)]) for a, b in pairs
            ]
            ((point,), look) = drawn.lines(axes, looks[label]), looks[label]
            assert np.ravel(point.get_data()) == pytest.approx([np.mean(wins), heights[label]])
            limits = stats.probability_of_improvement(*zip(*pairs, strict=True))
            assert drawn.bars(axes, look[0], 0)[heights[label]] == pytest.approx((limits.low, limits.high))
            difference = compare(*zip(*pairs, strict=True))
            tests[label] = difference.effect, difference.p_at(0)
        said = drawing.caption.split(f"pass@{k}: ")[1].split(";")[0]
        worst, clear = 0.0, []
        for rank, (label, (mean, p)) in enumerate(sorted(tests.items(), key=lambda pair: pair[1][1])):
            worst = max(worst, min(1.0, p * (len(tests) - rank)))
            if worst < 0.05:
                clear.append(label)
                assert f"{label} {mean:+.3f} (p = {worst:.2g})" in said
        assert [label for label in others if label in said] == [label for label in others if label in clear]


def test_initial_pass_rates(plain: Evidence) -> None:
    figure = draw("initial_pass_rates", plain).figure
    first = plain.pass_rates[plain.pass_rates["step"] == 0].merge(
        plain.metrics[["run", "task", "seed", "objective"]].drop_duplicates(), on="run"
    )
    for task in TASKS:
        rates = first[(first["task"] == task) & (first["objective"] == "REINFORCE")]
        shares = []
        for low in np.arange(-4, 0, 0.5):
            above = np.log10(rates["pass_rate"].clip(lower=1e-4))
            inside = (above >= low) & ((above < low + 0.5) | (low == -0.5))
            shares.append(inside.groupby(rates["seed"]).mean())
        axes = drawn.panel(figure, 0, task)
        boxes = [box for box in axes.patches if box.get_width() == 0.5]  # type: ignore[attr-defined]
        np.testing.assert_allclose([box.get_x() for box in boxes], np.arange(-4, 0, 0.5))  # type: ignore[attr-defined]
        np.testing.assert_allclose([box.get_height() for box in boxes], np.mean(shares, axis=1))  # type: ignore[attr-defined]
        middle = [line for line in axes.lines if line.get_linestyle() == "--"]
        assert middle[0].get_xdata()[0] == pytest.approx(np.log10(rates["pass_rate"].median()))  # type: ignore[index]


def test_gradient_norms(plain: Evidence) -> None:
    """Means per half decade of pass rate, averaged over the seeds that all have some there."""
    drawing = draw("gradient_norms", plain)
    looks = drawn.looks(drawing.figure)
    measured = plain.pass_rates.merge(plain.metrics[["run", "task", "seed", "objective"]].drop_duplicates(), on="run")
    for task in TASKS:
        for label, look in looks.items():
            rows = measured[(measured["task"] == task) & (measured["objective"] == label)]
            bins = np.clip(np.floor(2 * np.log10(rows["pass_rate"].clip(lower=1e-4))), -8, -1)
            means = rows.groupby([rows["seed"], bins])["grad_norm"].mean().unstack().dropna(axis=1)
            xs, ys = drawn.curve(drawn.panel(drawing.figure, 0, task), look)
            np.testing.assert_allclose(xs, 10 ** (means.columns.to_numpy() / 2 + 0.25))
            np.testing.assert_allclose(ys, means.mean())
            hard = (
                rows[rows["pass_rate"] <= 0.1].groupby("seed")["grad_norm"].sum()
                / rows.groupby("seed")["grad_norm"].sum()
            )
            if task == "fourrooms":
                assert f"{label} {hard.mean():.0%}" in drawing.caption.split("fourrooms: ")[1].split(";")[0]


VARIED = {
    "rollout_scaling": ("num_rollouts", (4, 64, 1024), (1, 128, 1024)),
    "learning_rate": ("learning_rate", (1e-4, 1e-3, 3e-2), (1, 128)),
}


@pytest.mark.parametrize("name", VARIED)
def test_figures_along_a_setting(name: str) -> None:
    setting, values, ks = VARIED[name]
    experiment = evidence(
        settings=tuple({setting: value} for value in values), tasks={n: TASKS[n] for n in ("fourrooms", "maze-9")}
    )
    drawing = draw(name, experiment)
    looks = drawn.looks(drawing.figure)
    looks = {label.partition(", learning")[0]: look for label, look in looks.items()}  # of the one that has one rate
    assert list(looks) == list(OBJECTIVES)
    for task in ("fourrooms", "maze-9"):
        for label in OBJECTIVES:
            table = experiment.metrics[
                (experiment.metrics["task"] == task) & (experiment.metrics["objective"] == label)
            ]
            last = table[table["step"] == 210].groupby(setting)
            for row, k in enumerate(ks):
                axes = drawn.panel(drawing.figure, row, task)
                expected = last[f"pass@{k}"].mean()
                if name == "rollout_scaling":
                    expected = -np.log(expected.clip(1e-4, 1 - 1e-4))
                if label == "exact ML":  # without choice of the setting: a level, without a marker
                    (level,) = [line for line in axes.lines if to_rgb(line.get_color()) == looks[label][0]]
                    np.testing.assert_allclose(level.get_ydata(), expected.iloc[0])
                    continue
                xs, ys = drawn.curve(axes, looks[label])
                np.testing.assert_allclose(xs, expected.index)
                np.testing.assert_allclose(ys, expected)
                (band,) = drawn.bands(axes, looks[label][0])
                limits = [stats.curve(rows[[f"pass@{k}"]].to_numpy())[1:] for _, rows in last]
                edges = np.array(limits)[:, :, 0]
                if name == "rollout_scaling":
                    edges = -np.log(edges.clip(1e-4, 1 - 1e-4))[:, ::-1]
                np.testing.assert_allclose(band[:, 1:], edges)
            if label == "REINFORCE" and task == "fourrooms":
                means = last["pass@1"].mean()
                if name == "learning_rate":
                    assert f"fourrooms, REINFORCE {means.idxmax():g};" in drawing.caption
                else:
                    ends = f"fourrooms, REINFORCE {means.iloc[0]:.3g} to {means.iloc[-1]:.3g};"
                    assert ends in drawing.caption


def test_figure_along_the_order() -> None:
    orders = {f"MaxRL T={t}": ("maxrl_order", -1 + 0.5 * i, 2.0) for i, t in enumerate((16, 1, 4))}
    experiment = evidence(objectives={"GRPO": OBJECTIVES["GRPO"], **orders}, tasks={"fourrooms": TASKS["fourrooms"]})
    drawing = draw("order", experiment)
    looks = drawn.looks(drawing.figure)
    for axes, metric in zip(drawing.figure.axes, ("pass@1", K), strict=True):
        assert axes.get_ylabel() == metric
        final = {label: curves(experiment, "fourrooms", label, metric).iloc[-1].mean() for label in ("GRPO", *orders)}
        xs, ys = drawn.curve(axes, looks["MaxRL"])
        assert xs.tolist() == [1, 4, 16]
        np.testing.assert_allclose(ys, [final[f"MaxRL T={t}"] for t in (1, 4, 16)])
        (level,) = [line for line in axes.lines if to_rgb(line.get_color()) == looks["GRPO"][0]]
        np.testing.assert_allclose(level.get_ydata(), final["GRPO"])
        if metric == "pass@1":
            ends = f"fourrooms, MaxRL {final['MaxRL T=1']:.3g} to {final['MaxRL T=16']:.3g}."
            assert ends in drawing.caption
