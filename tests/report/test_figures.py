"""Figures from made-up tables: what is drawn is what the tables say, readable, stated, and the same to the byte."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import drawn
import numpy as np
import pytest
from matplotlib.colors import to_rgb
from PIL import Image
from synthetic_tables import OBJECTIVES, TASKS, make_tables

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel
from maxrl_bench.report.figures import FIGURES
from maxrl_bench.report.style import Drawing, NotDrawable, looks, save, style

SMALL: dict[str, Any] = {"steps": (0, 20, 40, 60), "instances": 16}
TENTHS = tuple(range(0, 101, 10))
TWO = {name: TASKS[name] for name in ("fourrooms", "maze-9")}
ORDERS = {f"MaxRL T={t}": ("maxrl_order", -1 + 0.5 * i, 2.0) for i, t in enumerate((1, 4, 16))}


def make(**options: Any) -> Evidence:
    return Evidence("made-up", *make_tables(**{**SMALL, "tasks": TWO, **options}))


def draw(name: str, evidence: Evidence) -> Drawing:
    with style():
        return FIGURES[name](evidence)


@pytest.fixture(scope="module")
def plain() -> Evidence:
    return make(grad_norm=True, sampled=("maze-9",))


@pytest.fixture(scope="module")
def varied() -> dict[str, Evidence]:
    """Evidence that has the setting which a figure is drawn against."""
    rollouts = make(settings=({"num_rollouts": 4}, {"num_rollouts": 64}, {"num_rollouts": 1024}))
    rates = make(settings=({"learning_rate": 1e-4}, {"learning_rate": 1e-3}, {"learning_rate": 1e-2}))
    along = {"rollout_scaling": rollouts, "learning_rate": rates, "fronts": rates}
    return {**along, "order": make(objectives={**OBJECTIVES, **ORDERS}), "lengths": make(steps=TENTHS)}


@pytest.mark.parametrize("name", FIGURES)
def test_every_figure_states_its_seeds_and_intervals(name: str, plain: Evidence, varied: dict[str, Evidence]) -> None:
    drawing = draw(name, varied.get(name, plain))
    assert re.search(r"\b5 (common )?seeds\b", drawing.caption)
    assert re.search(r"95 %.* intervals? over seeds", drawing.caption)
    printed = " ".join(text.get_text() for text in drawing.figure.texts) + str(drawing.figure._supxlabel.get_text())  # type: ignore[attr-defined]
    assert "seeds" in printed
    assert drawing.alt
    assert not re.search(r"\b(nan|inf)\b", drawing.caption)
    for axes in drawing.figure.axes:
        assert not axes.axison or axes.get_title(loc="left") or axes.get_xlabel() or axes.get_ylabel() or axes.lines
    drawn.check_texts(drawing.figure)


def test_same_tables_same_bytes(tmp_path: Path, plain: Evidence) -> None:
    """Twice here, and once in a process with other hashes and another home."""
    code = (
        "import sys; sys.path[:0] = ['tests/report', 'tests', '.']; from pathlib import Path; import test_figures as t;"
        "e = t.make(grad_norm=True, sampled=('maze-9',));"
        f"[t.save(t.draw(n, e), Path({str(tmp_path)!r}) / 'other' / n) for n in ('coverage', 'pareto')]"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "77", "MPLCONFIGDIR": str(tmp_path), "TZ": "Asia/Tokyo"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2], env=environment)
    for name in ("coverage", "pareto"):
        for folder in ("first", "second"):
            save(draw(name, plain), tmp_path / folder / name)
        drawn = {(tmp_path / f / f"{name}.png").read_bytes() for f in ("first", "second", "other")}
        assert len({hashlib.sha256(data).hexdigest() for data in drawn}) == 1


def test_files_are_whole_and_colours_survive(tmp_path: Path, plain: Evidence) -> None:
    png = save(draw("training", plain), tmp_path / "training")
    image = np.asarray(Image.open(png).convert("RGB")).astype(int)
    assert image.shape[1] == pytest.approx(990, abs=5)
    for look in looks(plain.series()).values():
        colour = np.array([round(255 * c) for c in to_rgb(look["color"])])
        assert (np.abs(image - colour).max(axis=2) <= 4).sum() > 50
    assert png.stat().st_size < 80_000


def test_training_curves_are_the_means_of_the_table(plain: Evidence) -> None:
    figure = draw("training", plain).figure
    table = plain.metrics[(plain.metrics["task"] == "fourrooms") & (plain.metrics["objective"] == "GRPO")]
    for axes, metric in ((figure.axes[0], "pass@1"), (figure.axes[2], "pass@128")):
        expected = table.groupby("step")[metric].mean()
        (line,) = [curve for curve in axes.lines if np.allclose(curve.get_ydata(), expected)]
        assert list(line.get_xdata()) == list(expected.index)


def test_coverage_is_drawn_for_every_k_and_marks_the_samples_saved() -> None:
    """Ours has with k what theirs has with 4 k, for every instance and seed: the factor is 4, its interval too."""
    evidence = make(tasks={"one": ("f", 0.0)}, objectives={"MaxRL": OBJECTIVES["MaxRL"], "GRPO": OBJECTIVES["GRPO"]})
    metrics, rates = evidence.metrics, evidence.pass_rates
    for label, shift in (("MaxRL", 4), ("GRPO", 1)):
        rows = metrics["objective"] == label
        for k in evidence.ks:
            metrics.loc[rows, f"pass@{k}"] = 1 - (1 - 0.003) ** (k * shift)
        rates.loc[rates["run"].isin(metrics.loc[rows, "run"]), "pass_rate"] = 1 - (1 - 0.003) ** shift
    drawing = draw("coverage", Evidence("made-up", metrics, rates))
    axes = drawing.figure.axes[0]
    grpo = next(line for line in axes.lines if line.get_ydata()[0] == pytest.approx(0.003))
    assert list(grpo.get_xdata()) == [2**i for i in range(11)]
    assert "one 4x [4x, 4x]" in drawing.caption
    assert axes.get_xlabel().endswith("\nsaves 4x [4x, 4x]")  # below the axis, where no line runs through it
    assert not [text for text in axes.texts if text.get_text()]


def test_samples_saved_beyond_the_curve_are_marked_as_censored() -> None:
    evidence = make(tasks={"one": ("f", 0.0)}, objectives={"MaxRL": OBJECTIVES["MaxRL"], "GRPO": OBJECTIVES["GRPO"]})
    evidence.pass_rates["pass_rate"] = 0.001
    ours = evidence.pass_rates["run"].isin(evidence.metrics.loc[evidence.metrics["objective"] == "MaxRL", "run"])
    for rate, mark in ((0.9, "more than 128x"), (1e-9, "less than 0.12x")):
        rates = evidence.pass_rates.assign(pass_rate=np.where(ours, rate, 0.001))
        assert f"one {mark} [all of the interval]" in draw("coverage", Evidence("e", evidence.metrics, rates)).caption


def test_pareto_names_the_frontier() -> None:
    evidence = make(tasks={"one": ("f", 0.0)})
    points = {
        "REINFORCE": (0.1, 0.9),
        "RLOO": (0.2, 0.8),
        "GRPO": (0.15, 0.85),
        "MaxRL": (0.1, 0.7),
        "exact ML": (0.15, 0.8),
    }
    for label, (pass_1, pass_k) in points.items():
        rows = evidence.metrics["objective"] == label
        evidence.metrics.loc[rows, ["pass@1", "pass@128"]] = pass_1, pass_k
    drawing = draw("pareto", Evidence("e", evidence.metrics, evidence.pass_rates))
    assert re.findall(r"one: ([^.;]*)[.;]", drawing.caption) == ["REINFORCE, RLOO, GRPO"]


def test_what_is_missing_is_said_and_left_out() -> None:
    metrics, rates = make_tables(**SMALL, tasks=TWO)
    grpo = (metrics["objective"] == "GRPO") & (metrics["task"] == "fourrooms")
    rloo = (metrics["objective"] == "RLOO") & (metrics["task"] == "maze-9")
    kept = metrics[~(grpo & (metrics["seed"] == 2) & (metrics["step"] > 30)) & ~(rloo & (metrics["seed"] < 2))]
    evidence = Evidence("e", kept, rates)
    assert evidence.notes == [
        "fourrooms, GRPO: seed 2 stopped early and is left out",
        "fourrooms, GRPO: 4 of 5 seeds",
        "maze-9, RLOO: 3 of 5 seeds",
    ]
    assert "3 to 5 seeds" in draw("training", evidence).caption
    (series,) = [s for s in evidence.series() if s.objective == "GRPO"]
    assert evidence.seeds(evidence.members(series, Panel("fourrooms"))) == [0, 1, 3, 4]


@pytest.mark.parametrize("seeds", [1, 2])
def test_one_and_two_seeds_have_no_interval_and_captions_say_so(
    seeds: int,
) -> None:
    evidence = make(seeds=seeds, grad_norm=True)
    rates = ({"learning_rate": 1e-4}, {"learning_rate": 1e-3})
    grids = {name: make(seeds=seeds, settings=rates) for name in ("learning_rate", "fronts")}
    grids["rollout_scaling"] = make(seeds=seeds, settings=({"num_rollouts": 4}, {"num_rollouts": 64}))
    grids["order"] = make(seeds=seeds, objectives={**OBJECTIVES, **ORDERS})
    grids["lengths"] = make(seeds=seeds, steps=TENTHS)
    for name in FIGURES:
        drawing = draw(name, grids.get(name, evidence))
        assert f"{seeds} " in drawing.caption
        assert "without intervals (fewer than 3 seeds)" in drawing.caption, name
        printed = str(drawing.figure._supxlabel.get_text())  # type: ignore[attr-defined]
        assert "none (fewer than 3 seeds)" in printed, name
        assert "95 %" not in drawing.caption + printed


def test_panels_with_too_few_seeds_are_named() -> None:
    metrics, rates = make_tables(**SMALL, tasks=TWO)
    on_maze = metrics["task"] == "maze-9"
    few = Evidence("e", metrics[~on_maze | (metrics["seed"] < 2)], rates)
    assert "with 95 % intervals over seeds (none on maze-9: fewer than 3 seeds)" in draw("training", few).caption
    few = Evidence("e", metrics[~on_maze | (metrics["seed"] < 2) | (metrics["objective"] != "GRPO")], rates)
    assert "(none on maze-9 for GRPO: fewer than 3 seeds)" in draw("training", few).caption


def test_values_that_do_not_exist_are_named_not_drawn(plain: Evidence) -> None:
    assert "not drawn: exact ML." in draw("cost_rollouts", plain).caption
    cosine = draw("cosine_ml", plain)
    assert "not drawn: everything on maze-9." in cosine.caption
    assert [axes.get_title(loc="left") for axes in cosine.figure.axes] == ["fourrooms"]


@pytest.mark.parametrize("name", ["rollout_scaling", "learning_rate", "order"])
def test_a_setting_that_does_not_vary_is_refused_with_the_reason(name: str, plain: Evidence) -> None:
    with pytest.raises(NotDrawable, match="one value only"):
        draw(name, plain)
    if name == "order":
        with pytest.raises(NotDrawable, match="one value only"):
            draw(name, make(objectives={**OBJECTIVES, "MaxRL T=4": ORDERS["MaxRL T=4"]}))


def test_optional_columns_may_be_absent(plain: Evidence) -> None:
    metrics = plain.metrics.drop(columns=["cosine_ml", "entropy"])
    bare = Evidence("e", metrics, plain.pass_rates.drop(columns="grad_norm"))
    for name in ("cosine_ml", "entropy", "gradient_norms"):
        with pytest.raises(NotDrawable):
            draw(name, bare)
    assert draw("training", Evidence("e", plain.metrics, plain.pass_rates.iloc[:0])).caption


def test_one_seed_is_drawn_without_intervals() -> None:
    for name in ("training", "coverage", "pareto", "end_points", "initial_pass_rates"):
        assert "1 seed" in draw(name, make(seeds=1)).caption


def test_settings_become_panels_for_many_objectives_and_shades_for_one(varied: dict[str, Evidence]) -> None:
    many = varied["rollout_scaling"]
    assert [p.title for p in many.panels(many.faceted())][:3] == [f"fourrooms, N = {n}" for n in (4, 64, 1024)]
    varied = make(
        objectives={name: OBJECTIVES[name] for name in ("MaxRL", "exact ML")},
        settings=({"num_rollouts": 16}, {"num_rollouts": 1024}),
    )
    assert varied.faceted() == []
    assert [s.label for s in varied.series()] == ["MaxRL, N = 16", "MaxRL, N = 1024", "exact ML"]
    styles = list(looks(varied.series()).values())
    assert len({(str(s["color"]), s["marker"]) for s in styles}) == 3


def test_users_settings_are_neither_read_nor_changed(plain: Evidence) -> None:
    import matplotlib as mpl

    with mpl.rc_context({"font.size": 31.0, "axes.facecolor": "red"}):
        drawing = draw("entropy", plain)
        assert mpl.rcParams["font.size"] == 31.0
    assert drawing.figure.axes[0].get_facecolor() == (1, 1, 1, 1)
    sizes = {text.get_fontsize() for axes in drawing.figure.axes for text in axes.get_xticklabels()}
    assert max(sizes) < 12


def test_no_pyplot_and_no_torch() -> None:
    code = "import sys, maxrl_bench.report.build; assert not {'matplotlib.pyplot', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parents[2])
