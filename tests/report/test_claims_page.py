"""The forest plot of all claims, its registry, and the rates of collapses."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import drawn
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import stats as reference
from synthetic_tables import make_tables, write

from maxrl_bench.analysis.compare import BETTER, CANNOT, CONTRADICTED, EQUAL, SUPPORTED, UNDECIDED, WORSE
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report import build, forest, registry
from maxrl_bench.report.folder import Claim, Comparison, Page
from maxrl_bench.report.numbers import collapses
from maxrl_bench.report.style import style
from maxrl_bench.sweeps.experiment import load_experiment


def comparison(**changes: Any) -> Comparison:
    values: dict[str, Any] = {"task": "all", "when": "final", "metric": "pass@1", "compare": "MaxRL", "against": "GRPO"}
    values |= {"direction": "higher", "margin": 0.02, "by_margin": False, "effect": 0.1, "low": 0.05, "high": 0.15}
    values |= {"df": 4.0, "seeds": 5, "instances": 128, "collapsed": 0, "p": 0.01, "outcome": BETTER}
    return Comparison(**values | changes)


def claim(*comparisons: Comparison, name: str = "one", verdict: str = SUPPORTED, p: float | None = 0.01) -> Claim:
    parts: dict[str, Any] = {"per_task": [], "other_moment": [], "notes": []}
    return Claim(id=name, statement="A $claim$", test="t", verdict=verdict, p=p, comparisons=list(comparisons), **parts)


def page(name: str, *claims: Claim, profile: str = "laptop") -> Page:
    origin = {"profile": profile, "file": None, "runs": 1, "missing": 0, "seconds": None, "made_by": []}
    lists: dict[str, Any] = {key: [] for key in ("notes", "figures", "not_drawn", "summary", "collapse")}
    fields: dict[str, Any] = {"experiment": name, "question": "?", "order": 0, "files": {}, "drawn_from": {}}
    return Page(**fields, **lists, provenance=origin, claims=[c.model_dump() for c in claims])


def test_each_row_has_effect_interval_margin_and_a_look_of_its_verdict() -> None:
    outcomes = {BETTER: 0.3, WORSE: -0.3, EQUAL: 0.001, UNDECIDED: 0.02}
    rows = [
        comparison(effect=x, low=x - 0.015, high=x + 0.015, outcome=word, seeds=i + 3)
        for i, (word, x) in enumerate(outcomes.items())
    ]
    long = {"metric": "pass@128", "against": "MaxRL (Alg. 1), num_rollouts = 16"}
    rows.append(comparison(low=None, high=None, outcome=CANNOT, seeds=1, **long))
    with style():
        drawing = forest.forest([forest.Entry("study", claim(*rows), UNDECIDED, 0.2)])
    assert drawing is not None
    (axes,) = drawing.figure.axes
    points = {round(float(line.get_xdata()[0]), 3): line for line in axes.lines}  # type: ignore[index]
    looks = {(to_hex(line.get_color()), line.get_marker()) for line in points.values()}
    assert len(looks) == 5  # each verdict by colour and by shape
    assert len({marker for _, marker in looks}) == len({color for color, _ in looks}) == 5
    assert set(points) == {0.3, -0.3, 0.001, 0.02, 0.1}
    bands = [patch for patch in axes.patches if patch.get_width() == pytest.approx(0.04)]  # type: ignore[attr-defined]
    assert len(bands) == 5
    texts = [text.get_text() for text in axes.texts]
    assert "+0.300 [+0.285, +0.315]" in texts
    assert {"3 seeds", "4 seeds", "5 seeds", "6 seeds", "1 seed"} <= set(texts)
    assert any(text.startswith("? undecided, p = 0.2") for text in texts)
    assert "pass@128 against MaxRL (Alg. 1), N = 16" in texts
    assert "1 undecided" in drawing.caption
    drawn.check_texts(drawing.figure)


def test_other_measures_have_a_scale_of_their_own_and_many_rows_an_end() -> None:
    mixed = claim(comparison(), comparison(metric="log_p", effect=40.0, low=10.0, high=80.0, margin=None))
    with style():
        drawing = forest.forest([forest.Entry("study", mixed, SUPPORTED, 0.01)])
        crowd = [forest.Entry("study", claim(*[comparison()] * 5, name=str(i)), SUPPORTED, 0.01) for i in range(60)]
        full = forest.forest(crowd)
        assert forest.forest([forest.Entry("study", claim(), CANNOT, None)]) is None
    assert drawing is not None
    assert full is not None
    of_pass, others = drawing.figure.axes
    assert of_pass.get_xlim()[1] < 0.2
    assert float(others.lines[0].get_xdata()[0]) == pytest.approx(0.5)  # type: ignore[index]
    assert others.get_xlim() == (-1.06, 1.06)
    assert "30 claims are in claims.csv alone" in full.caption  # of 150 rows


def test_the_claims_of_a_profile_are_one_family_in_whatever_files(tmp_path: Path) -> None:
    """p of .02 and .03: each alone is decided, together 2 * .02 and .04; another profile is another family."""
    first, second = claim(comparison(), p=0.02), claim(comparison(), name="two", verdict=CONTRADICTED, p=0.03)
    third = claim(comparison(), name="three", p=0.001)
    apart = registry.settled([page("a", first), page("b", second), page("c", third, profile="full")])
    together = registry.settled([page("a", first, second)])
    for settled in (apart, together):
        assert [(s.verdict, s.p, s.family) for s in settled[:2]] == [(SUPPORTED, 0.04, 2), (CONTRADICTED, 0.04, 2)]
    assert (apart[2].p, apart[2].family) == (0.001, 1)
    with_another = registry.settled([page("a", first, second, claim(verdict=CANNOT, p=None))])
    assert [s.verdict for s in with_another] == [UNDECIDED, UNDECIDED, CANNOT]  # 3 * .02
    registry.write_claims([page("a", first, second)], tmp_path)
    table = pd.read_csv(tmp_path / "claims" / "claims.csv")
    assert list(table["p_adjusted"]) == [0.04, 0.04]
    registry.write_claims([page("a")], tmp_path)
    assert {path.name for path in (tmp_path / "claims").iterdir()} == {"figures.json"}
    (tmp_path / "claims" / "claims.png").write_bytes(b"mine")
    with pytest.raises(ValueError, match="was not drawn by maxrl-bench"):
        registry.write_claims([page("a", first)], tmp_path)


def test_rates_of_collapses_have_exact_binomial_intervals() -> None:
    """By the quantiles of the beta distribution; two tasks with five seeds are ten runs."""
    labels = {"GRPO": ("grpo", 0.0, 1.0), "RLOO": ("rloo", 0.0, 1.0)}
    metrics, rates = make_tables(tasks={"a": ("f", 0.0), "b": ("f", 0.0)}, objectives=labels, steps=(0, 1, 2, 3, 4))
    fallen = (metrics["objective"] == "RLOO") & (metrics["task"] == "a") & metrics["seed"].isin([1, 3])
    metrics["pass@1"] = np.where(fallen & (metrics["step"] > 2), 0.2, 0.41)
    grpo, rloo = collapses(Evidence("e", metrics, rates))
    assert (grpo["runs"], grpo["collapsed"], grpo["low"]) == (10, 0, 0)
    assert grpo["high"] == pytest.approx(1 - 0.025 ** (1 / 10), rel=1e-5)
    assert (rloo["runs"], rloo["collapsed"], rloo["rate"]) == (10, 2, 0.2)
    assert rloo["low"] == pytest.approx(reference.beta.ppf(0.025, 2, 9), rel=1e-5)
    assert rloo["high"] == pytest.approx(reference.beta.ppf(0.975, 3, 8), rel=1e-5)
    last = metrics["pass@1"].where(~(fallen & (metrics["step"] == 3)), 0.41)  # a last evaluation alone is no collapse
    assert collapses(Evidence("e", metrics.assign(**{"pass@1": last}), rates))[1]["collapsed"] == 0


def test_rows_say_what_is_compared_and_on_which_task() -> None:
    """Collapses and samples have scales of their own; a front of pass@k has that of pass@k."""
    rows = [
        comparison(metric="pass@128", when="front", effect=0.2, low=0.1, high=0.3),
        comparison(metric="pass@128", when="front", task="programs-1", against="MaxRL (Alg. 1), num_rollouts = 16"),
        comparison(metric="pass@128", task="a-task-with-a-long-name(size=9)", against="RLOO"),
        comparison(when="collapsed", effect=-0.4, low=-0.8, high=0.0, margin=None),
        comparison(metric="pass@128", when="samples", task="lava-crossing", effect=2.0, low=1.0, high=4.0, margin=1.0),
        comparison(metric="pass@1", when="rollouts_to", effect=-1.0, low=-2.0, high=0.0, margin=None),
    ]
    with style():
        drawing = forest.forest([forest.Entry("study", claim(*rows), SUPPORTED, 0.01)])
    assert drawing is not None
    of_pass, others = drawing.figure.axes
    assert {
        "front of pass@128 against GRPO",
        "programs-1: front of pass@128 vs MaxRL…",
        "a-task-with…: pass@128 vs RLOO",
    } <= {text.get_text() for text in of_pass.texts}
    assert of_pass.get_xlim()[1] == pytest.approx(1.06 * 0.3)
    assert {
        "collapsed against GRPO",
        "lava-crossi…: samples for pass@128 vs GRPO",
        "rollouts to pass@1 against GRPO",
    } <= {text.get_text() for text in others.texts}
    assert [float(line.get_xdata()[0]) for line in others.lines] == [-0.5, 0.5, -0.5]  # type: ignore[index]
    drawn.check_texts(drawing.figure)


def test_claims_on_pairs_and_tasks_are_on_the_page_and_in_the_registry(tmp_path: Path) -> None:
    options = {
        "collapse": ("pass@1", 'when = "collapsed"\ndirection = "lower"'),
        "front": ("pass@128", 'when = "front"\nevery_task = true'),
        "samples": ("pass@128", 'when = "samples"\nby_margin = true\nmargin = 1'),
    }
    text = 'question = "?"\nfigures = ["coverage"]\n[[grid]]\ntask = ["fourrooms", "maze-9"]\nseed = [0, 1, 2, 3]\n'
    text += 'objective = ["maxrl_alg1", "grpo"]\n'
    for name, (metric, more) in options.items():
        text += f'[[claims]]\nid = "{name}"\nstatement = "{name}"\nmetric = "{metric}"\n{more}\n'
        text += 'compare = { objective = "maxrl_alg1" }\nagainst = { objective = "grpo" }\n'
    (tmp_path / "study.toml").write_text(text)
    tasks = {"fourrooms": ("navigation", 0.0), "maze-9": ("maze", 0.4)}
    labels = {"MaxRL": ("maxrl_alg1", 0.5, 1.3), "GRPO": ("grpo", 0.6, 2.6)}
    tables = make_tables(tasks, labels, seeds=4, steps=(0, 50, 100, 150), instances=16)
    write(tmp_path / "results", "study", *tables, profile="laptop")
    assert build.draw(load_experiment(tmp_path / "study.toml"), tmp_path / "results", tmp_path / "plots").failed == {}
    registry = pd.read_csv(tmp_path / "plots" / "claims" / "claims.csv").set_index("claim")
    assert set(registry["part"]) == {"claim", "task alone"}
    front = registry.loc[["front"]]
    assert (list(front["part"]), list(front["task"])) == (["claim"] * 2, ["fourrooms", "maze-9"])
    assert list(registry.loc["collapse", "effect"]) == [0, 0, 0]
    for name in ("README.md", "index.html"):
        shown = (tmp_path / "plots" / name).read_text()
        assert "front of pass@128 against GRPO on fourrooms: " in shown
        assert "log2 of samples for pass@128 against GRPO: " in shown
        assert "collapsed against GRPO: +0.000 [+0.000, +0.000], 4 seeds: undecided" in shown.replace("\\", "")
        assert "log2 of samples for pass@128 against GRPO on" not in shown  # task by task, there is a column for it
