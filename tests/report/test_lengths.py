"""What one would have concluded at parts of the training: each point, its verdict and its mark, from tables by hand."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import drawn
import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_rgb
from scipy.stats import t

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report.lengths import lengths
from maxrl_bench.report.palette import style_of
from maxrl_bench.report.style import Drawing, NotDrawable, style

STEPS = tuple(range(0, 101, 10))
NOISE = np.array([-0.004, 0.001, 0.003, -0.002, 0.002])  # of the seeds; their mean is 0
LABELS = {"grpo": "GRPO", "rloo": "RLOO", "maxrl_alg1": "MaxRL", "maxrl_eq9": "MaxRL (eq. 9)", "ml": "Exact ML"}
Ahead = Callable[[int], float]


def evidence(
    ahead: dict[str, Ahead], seeds: int = 5, steps: Sequence[int] = STEPS, tasks: Sequence[str] = ("maze",)
) -> Evidence:
    """MaxRL has pass@1 = 0.5 on all seeds; each opponent as much less as MaxRL is ahead of it, with NOISE by seed."""
    rows: list[dict[str, Any]] = []
    for task in tasks:
        for name, lead in {"maxrl_alg1": lambda _: 0.0, **ahead}.items():
            for seed in range(seeds):
                identity = {"run": f"{task}{name}{seed}", "task": task, "family": "f", "objective": LABELS[name]}
                settings = {"num_rollouts": 64, "batch_size": 16, "learning_rate": 1e-3, "train_instances": 0}
                noise = NOISE[seed] if name != "maxrl_alg1" else 0.0
                for step in steps:
                    score = {"pass@1": 0.5 - lead(step) - noise, "pass@128": 0.9}
                    rows.append(identity | {"objective_name": name} | settings | {"seed": seed, "step": step} | score)
    none = pd.DataFrame({"run": [], "step": [], "instance": [], "pass_rate": [], "n": []})
    return Evidence("made-up", pd.DataFrame(rows), none)


def draw(experiment: Evidence) -> Drawing:
    with style():
        return lengths(experiment)


def marks(drawing: Drawing, name: str, panel: int = 0) -> dict[int, tuple[float, str]]:
    """By the place on the axis (0: 10 %, 1: 30 %, 2: 100 %): an objective's mark, its height and filling."""
    look = style_of(name)
    found = {}
    for line in drawn.lines(drawing.figure.axes[panel], (to_rgb(look["color"]), look["marker"])):
        (x,), (y,) = (np.asarray(part, float) for part in line.get_data())
        hollow = line.get_markerfacecolor() == "white"
        found[round(x)] = (y, "none" if hollow else str(line.get_fillstyle()))
    return found


def test_a_reversal_is_drawn_to_the_digit_and_told_in_words() -> None:
    """GRPO leads at the start and is behind at the end; RLOO is never told from MaxRL; exact ML is no opponent."""
    lead = {10: -0.03, 30: 0.004, 100: 0.2}
    drawing = draw(evidence({"grpo": lambda s: lead.get(s, 9.0), "rloo": lambda _: 0.0, "ml": lambda _: -0.4}))
    error = NOISE.std(ddof=1) / np.sqrt(5) * t.ppf(0.975, 4)
    assert error < 0.006  # so that 0.004 is practically nothing
    found = marks(drawing, "grpo")
    assert {place: height for place, (height, _) in found.items()} == pytest.approx(dict(enumerate(lead.values())))
    assert [fill for _, fill in found.values()] == ["full", "bottom", "full"]
    bars = drawn.bars(drawing.figure.axes[0], to_rgb(style_of("grpo")["color"]), 1)
    for (place, ends), effect in zip(sorted(bars.items()), lead.values(), strict=True):
        assert round(place) in found
        assert ends == pytest.approx((effect - error, effect + error))
    assert list(drawn.looks(drawing.figure))[:2] == ["GRPO", "RLOO"]
    assert "Exact ML" not in drawn.looks(drawing.figure)
    assert "Verdicts that change: maze, pass@1: worse than GRPO at 10 %, better at 100 %. " in drawing.caption
    assert "mean over the 5 seeds that both have, with 95 % intervals over seeds" in drawing.caption
    ticks = [label.get_text() for label in drawing.figure.axes[0].get_xticklabels()]
    assert ticks == ["10 %", "30 %", "100 %"]


def test_what_misleads_most_is_told_first_and_equal_changes_together() -> None:
    leads: dict[str, Ahead] = {
        "grpo": lambda s: 0.0 if s == 10 else 0.1,
        "rloo": lambda s: 0.0 if s == 10 else 0.1,
        "maxrl_eq9": lambda s: 0.1 if s == 10 else -0.1,
    }
    caption = draw(evidence(leads)).caption
    reversal = "maze, pass@1: better than MaxRL (eq. 9) at 10 %, worse at 100 %"
    assert f"change: {reversal}; maze, pass@1: practically equal to GRPO and RLOO at 10 %, better at 100 %." in caption
    assert "No verdict at 10 % is another at the end." in draw(evidence({"grpo": lambda _: 0.1})).caption


def test_marks_are_hollow_where_the_interval_holds_0_and_leaves_the_margin() -> None:
    """One that leaves the margin alone is a difference, though the mean is inside."""
    drawing = draw(evidence({"grpo": lambda s: 0.019 if s == 10 else 0.1}))
    assert marks(drawing, "grpo")[0] == (pytest.approx(0.019), "full")
    wide = evidence({"grpo": lambda s: 0.0 if s == 10 else 0.1})
    wide.metrics.loc[(wide.metrics["objective"] == "GRPO") & (wide.metrics["seed"] == 0), "pass@1"] += 0.2
    drawing = draw(Evidence("made-up", wide.metrics, wide.pass_rates))
    assert {fill for _, fill in marks(drawing, "grpo").values()} == {"none"}


def test_the_nearest_evaluation_stands_for_a_share_and_is_named() -> None:
    """Within 2 % of the length: step 8 stands for 10 %, step 33 does not for 30 %."""
    drawing = draw(evidence({"grpo": lambda s: s / 1000}, steps=(0, 4, 8, 33, 100)))
    assert marks(drawing, "grpo").keys() == {0, 2}
    assert marks(drawing, "grpo")[0][0] == pytest.approx(0.008)
    assert "The nearest evaluations: maze step 8 of 100 for 10 %." in drawing.caption
    assert "Without an evaluation near: 30 % on maze." in drawing.caption
    exact = draw(evidence({"grpo": lambda s: s / 1000})).caption
    assert "nearest" not in exact
    assert "near:" not in exact


def test_fewer_than_two_shares_or_opponents_are_no_figure() -> None:
    with pytest.raises(NotDrawable, match="at two at least of 10 %, 30 % and 100 % .* within 2 %"):
        draw(evidence({"grpo": lambda _: 0.0}, steps=(0, 7, 33, 100)))
    with pytest.raises(NotDrawable, match="another, besides exact maximum likelihood"):
        draw(evidence({"ml": lambda _: 0.0}))
    whole = evidence({"grpo": lambda _: 0.0, "rloo": lambda _: 0.0})
    with pytest.raises(NotDrawable, match="needs a MaxRL objective"):
        draw(Evidence("made-up", whole.metrics[whole.metrics["objective"] != "MaxRL"], whole.pass_rates))


def test_a_panel_without_such_evaluations_is_named() -> None:
    whole = evidence({"grpo": lambda _: 0.1}, tasks=("maze", "sums"))
    kept = whole.metrics[(whole.metrics["task"] == "maze") | ~whole.metrics["step"].isin((10, 30))]
    drawing = draw(Evidence("made-up", kept, whole.pass_rates))
    assert [axes.get_title(loc="left") for axes in drawing.figure.axes] == ["maze", ""]
    assert "Not drawn, for want of common seeds or of evaluations there: sums." in drawing.caption


def test_a_collapse_counts_from_when_it_is_seen() -> None:
    """GRPO falls to nothing on one seed after 30 %: what was declared before stands; at the end five seeds are few."""
    whole = evidence({"grpo": lambda _: 0.1})
    fallen = (whole.metrics["run"] == "mazegrpo3") & (whole.metrics["step"] > 50)
    whole.metrics.loc[fallen, "pass@1"] = 0.1
    seen = Evidence("made-up", whole.metrics, whole.pass_rates)
    assert [seen.collapsed("mazegrpo3", until=step) for step in (30, 60, 70, 100)] == [False, False, True, True]
    assert not seen.collapsed("mazegrpo2")
    drawing = draw(seen)
    assert [fill for _, fill in marks(drawing, "grpo").values()] == ["full", "full", "none"]
    assert "better than GRPO at 10 %, undecided at 100 %" in drawing.caption


def test_two_seeds_have_marks_and_no_verdicts() -> None:
    drawing = draw(evidence({"grpo": lambda _: 0.1}, seeds=2))
    assert {fill for _, fill in marks(drawing, "grpo").values()} == {"none"}
    assert "Too few seeds for verdicts." in drawing.caption


@pytest.mark.parametrize("tasks", [("maze",), ("maze", "sums"), ("a", "b", "c", "d", "e")], ids=len)
@pytest.mark.parametrize("seeds", [2, 3])
def test_few_seeds_and_any_number_of_tasks_are_legible(tasks: tuple[str, ...], seeds: int) -> None:
    leads: dict[str, Ahead] = dict.fromkeys(("grpo", "rloo", "maxrl_eq9"), lambda s: s / 500 - 0.05)
    drawn.check_texts(draw(evidence(leads, seeds, tasks=tasks)).figure)
