"""Claims on collapses, fronts, samples and every task, from small tables of which every number is had by hand."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.claims import Verdict, judge
from maxrl_bench.analysis.compare import CANNOT, COLLAPSE_SEEDS, CONTRADICTED, EQUAL, SUPPORTED, UNDECIDED, combine
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.report.coverage import saving
from maxrl_bench.sweeps.claim_model import read_claim

NAMES = {"MaxRL": "maxrl_alg1", "GRPO": "grpo"}
CLAIM = {"id": "one", "statement": "S", "compare": {"objective": "MaxRL"}, "against": {"objective": "GRPO"}}
COLLAPSED = {"metric": "pass@1", "when": "collapsed", "direction": "lower"}
FRONT = {"metric": "pass@8", "when": "front", "margin": None}
SAMPLES = {"metric": "pass@4", "when": "samples"}
RULE = {"first": 5, "most": 20, "until": "decided"}
Curves = Mapping[str, Sequence[float]]  # by column, along training


def evidence(runs: Mapping[tuple[str, str, int], Curves], **provenance: Any) -> Evidence:
    """By task, objective and seed."""
    settings = {"num_rollouts": 4, "batch_size": 4, "learning_rate": 0.1, "train_instances": 0}
    tables = []
    for (task, objective, seed), curves in runs.items():
        steps = range(len(next(iter(curves.values()))))
        who = {"run": f"{task}{objective}{seed}", "task": task, "family": "f", "objective": objective}
        who |= {"objective_name": NAMES[objective], "seed": seed}
        when = {"step": steps, "rollouts": [16 * step for step in steps], "seconds": [0.1 * step for step in steps]}
        tables.append(pd.DataFrame({**who, **settings, **when, **curves}))
    rates = pd.DataFrame(columns=["run", "step", "instance", "pass_rate", "n"])
    return Evidence("made-up", pd.concat(tables, ignore_index=True), rates, provenance)


def pairs(ours: Sequence[Curves], theirs: Sequence[Curves], task: str = "a") -> dict[tuple[str, str, int], Curves]:
    sides = {"MaxRL": ours, "GRPO": theirs}
    return {(task, name, seed): curves for name, side in sides.items() for seed, curves in enumerate(side)}


def verdict(experiment: Evidence, **changes: Any) -> Verdict:
    return judge(experiment, [{key: value for key, value in {**CLAIM, **changes}.items() if value is not None}])[0]


# --- collapsed ------------------------------------------------------------------------------------------------------

KEPT, FELL = {"pass@1": [0.1, 0.5, 0.6, 0.6, 0.6]}, {"pass@1": [0.1, 0.6, 0.6, 0.2, 0.1]}


def test_the_effect_on_collapses_is_a_difference_of_shares() -> None:
    """Of 12 seeds GRPO collapses in 9, MaxRL in 1, both in seed 0."""
    experiment = evidence(pairs([FELL, *[KEPT] * 11], [FELL] * 9 + [KEPT] * 3))
    judged = verdict(experiment, **COLLAPSED)
    (comparison,) = judged.comparisons
    differences = np.array([0.0] + [-1.0] * 8 + [0.0] * 3)
    result = comparison.result
    assert (result.effect, result.seeds, result.collapsed) == (pytest.approx(1 / 12 - 9 / 12), 12, 10)
    assert result.error == pytest.approx(differences.std(ddof=1) / math.sqrt(12))
    assert (result.margin, judged.verdict) == (None, SUPPORTED)
    assert verdict(experiment, **{**COLLAPSED, "direction": "higher"}).verdict == CONTRADICTED
    assert judged.test == "share of runs that collapsed, by pass@1: MaxRL minus GRPO, below 0"


def test_collapses_need_ten_seeds_and_none_decides_nothing() -> None:
    few = verdict(evidence(pairs([KEPT] * 9, [FELL] * 9)), **COLLAPSED)
    assert few.verdict == UNDECIDED
    assert f"nothing is declared below {COLLAPSE_SEEDS}" in few.notes[-1]
    assert verdict(evidence(pairs([KEPT] * 10, [FELL] * 10)), **COLLAPSED).verdict == SUPPORTED
    for rule in ({}, {"seeds": RULE}):
        none = evidence(pairs([KEPT] * 6, [KEPT] * 6), **rule)
        assert verdict(none, **COLLAPSED).verdict == UNDECIDED
        assert verdict(none, **COLLAPSED).p_value == 1
        assert verdict(none, **COLLAPSED, margin=0.2).verdict == EQUAL


# --- front ----------------------------------------------------------------------------------------------------------

OURS = {"pass@1": [0.1, 0.4, 0.3, 0.8], "pass@8": [0.2, 0.9, 0.6, 0.5]}
THEIRS = {"pass@1": [0.2, 0.3, 0.6, 0.5], "pass@8": [0.3, 0.7, 0.1, 0.4]}
# From .2 to .6. Ours: .9 up to .4, then .5. Theirs: .7 up to .3, .4 up to .5, then .1.
GAP = (0.1 * (0.9 - 0.7) + 0.1 * (0.9 - 0.4) + 0.1 * (0.5 - 0.4) + 0.1 * (0.5 - 0.1)) / 0.4


def table(curves: Curves) -> np.ndarray:
    return np.array([curves["pass@1"], curves["pass@8"]])


def test_a_gap_of_fronts_is_the_exact_integral() -> None:
    assert stats.front_gap(table(OURS), table(THEIRS)) == pytest.approx(GAP)
    assert stats.front_gap(table(THEIRS), table(OURS)) == pytest.approx(-GAP)
    assert stats.front_gap(table(OURS), table(OURS)) == 0
    for lone in (table({"pass@1": [0.2, 0.1], "pass@8": [1, 1]}), np.empty((2, 0))):  # never above the base policy
        assert math.isnan(stats.front_gap(lone, table(OURS)))


def test_a_gap_of_fronts_is_what_a_fine_grid_finds() -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        runs = [rng.random((2, 7)) for _ in range(2)]
        low, high = max(run[0, 0] for run in runs), min(run[0].max() for run in runs)
        grid = np.linspace(low, high, 20_001)[1:] if high > low else np.empty(0)
        ours, theirs = (np.array([run[1][run[0] >= x].max() for x in grid]) for run in runs)
        expected = (ours - theirs).mean() if high > low else math.nan
        assert stats.front_gap(*runs) == pytest.approx(expected, abs=2e-3, nan_ok=True)


def test_a_claim_at_equal_pass_at_1() -> None:
    shifted = [{**OURS, "pass@8": [y + shift for y in OURS["pass@8"]]} for shift in (0.0, 0.03, -0.03, 0.06, 0.04)]
    experiment = evidence(pairs(shifted, [THEIRS] * 5))
    judged = verdict(experiment, **FRONT)
    result = judged.comparisons[0].result
    assert result.effect == pytest.approx(GAP + 0.02)
    assert (result.margin, judged.verdict, judged.notes) == (0.02, SUPPORTED, [])
    assert judged.test.startswith("at equal pass@1 along training, the highest attained pass@8: MaxRL minus GRPO, ")
    following = verdict(evidence(pairs(shifted, [THEIRS] * 5), seeds=RULE), **FRONT)
    by_seed = [GAP + shift for shift in (0.0, 0.03, -0.03, 0.06, 0.04)]
    assert following.comparisons[0].result.by_seed == pytest.approx(by_seed)


def test_pairs_without_equal_pass_at_1_leave_the_task_out() -> None:
    stuck = {"pass@1": [0.2, 0.15, 0.1, 0.1], "pass@8": [0.3, 0.3, 0.3, 0.3]}
    whole = pairs([OURS] * 5, [THEIRS] * 5)
    lone = pairs([OURS] * 5, [THEIRS, stuck, THEIRS, stuck, THEIRS], task="b")
    judged = verdict(evidence(whole | lone), **FRONT)
    assert judged.comparisons[0].result.effect == pytest.approx(GAP)
    assert judged.notes == [
        "b: 2 of 5 pairs have no equal pass@1 above the base policy's",
        "no values of pass@8 on b",
    ]
    assert verdict(evidence(lone), **FRONT).verdict == CANNOT
    assert verdict(evidence(whole | lone), **FRONT, every_task=True).verdict == CANNOT
    assert verdict(evidence(whole | lone), **FRONT, every_task=True, tasks=["a"]).verdict == SUPPORTED


def test_evaluations_without_a_value_are_left_out_for_both() -> None:
    """Without the second evaluation ours has .6 up to .3, then .5; theirs, without it, too, .4 up to .5, then .1."""
    holed = {**OURS, "pass@8": [0.2, math.nan, 0.6, 0.5]}
    judged = verdict(evidence(pairs([holed] * 5, [THEIRS] * 5)), **FRONT)
    expected = (0.1 * (0.6 - 0.4) + 0.2 * (0.5 - 0.4) + 0.1 * (0.5 - 0.1)) / 0.4
    assert judged.comparisons[0].result.effect == pytest.approx(expected)
    assert judged.notes == ["a: 5 of 40 values of pass@8 are missing; their evaluations are left out"]


# --- samples --------------------------------------------------------------------------------------------------------


def final(*values: float) -> Curves:
    """Final pass@1, 2, 4, 8."""
    return {f"pass@{k}": [0.0, value] for k, value in zip((1, 2, 4, 8), values, strict=True)}


def test_samples_saved_in_binary_logarithms() -> None:
    """Theirs has .6 with 4: ours with 2, with 1 and a half octaves, with 8, with less than 1, and never."""
    ours = [final(0.3, 0.6, 0.7, 0.8), final(0.3, 0.5, 0.7, 0.8), final(0.1, 0.2, 0.3, 0.6),
            final(0.7, 0.8, 0.9, 0.9), final(0.1, 0.2, 0.3, 0.5)]  # fmt: skip
    expected = [1.0, 0.5, -1.0, 2.0, -1.0]
    judged = verdict(evidence(pairs(ours, [final(0.2, 0.4, 0.6, 0.7)] * 5), seeds=RULE), **SAMPLES)
    assert judged.comparisons[0].result.by_seed == pytest.approx(expected)
    assert judged.notes == [
        "a: 1 of 5 runs of MaxRL cover more with 1 sample than GRPO with 4: the effect is a bound",
        "a: 1 of 5 runs of MaxRL do not reach pass@4 of GRPO with 8 samples: the effect is a bound",
    ]
    assert judged.comparisons[0].result.margin is None
    assert judged.test == (
        "log2 of how many times fewer samples reach the opponent's last pass@4: MaxRL against GRPO, above 0"
    )


@pytest.mark.parametrize(("margin", "expected"), [(0.5, SUPPORTED), (1.0, UNDECIDED), (1.5, EQUAL)])
def test_more_than_so_many_times_fewer(margin: float, expected: str) -> None:
    """1 and .5 in turn, .75 in the mean, with an interval from .4 to 1.1 or so."""
    ours = [final(0.3, 0.6, 0.7, 0.8), final(0.3, 0.5, 0.7, 0.8)] * 3
    curves = pairs(ours, [final(0.2, 0.4, 0.6, 0.7)] * 6)
    tight = {key: value for key, value in curves.items() if margin > 0.5 or key[2] % 2 == 0}
    assert verdict(evidence(tight), **SAMPLES, by_margin=True, margin=margin).verdict == expected


def test_the_claim_agrees_with_the_figure() -> None:
    """Alike runs: the factor of `coverage`, which is of mean curves, is that of each pair."""
    experiment = evidence(pairs([final(0.3, 0.5, 0.7, 0.8)] * 4, [final(0.2, 0.4, 0.6, 0.7)] * 4))
    experiment.claims = (read_claim({**CLAIM, **SAMPLES}),)
    (panel,) = experiment.panels()
    shown = saving(experiment, panel, experiment.series(panel))
    assert shown is not None
    assert shown.k == 4
    effect = verdict(experiment, **SAMPLES).comparisons[0].result.effect
    assert effect == pytest.approx(math.log2(shown.factor.value)) == pytest.approx(0.5)


def test_a_k_that_some_run_lacks_cannot_be_judged() -> None:
    lacking = final(0.2, 0.4, 0.6, 0.7) | {"pass@4": [math.nan, math.nan]}
    judged = verdict(evidence(pairs([final(0.3, 0.6, 0.7, 0.8)] * 4, [lacking] * 4)), **SAMPLES)
    assert judged.verdict == CANNOT
    assert "a: pass@4 is not measured at every evaluation of all tasks" in judged.notes


# --- every task -----------------------------------------------------------------------------------------------------


def two_tasks(first: float, second: float, **provenance: Any) -> Evidence:
    """Final pass@1 of MaxRL above GRPO's by so much on tasks a and bb, with noise that differs."""
    noise = np.array([0.02, -0.01, 0.0, -0.02, 0.01, 0.005])
    runs: dict[tuple[str, str, int], Curves] = {}
    for task, shift, scale in (("a", first, 1.0), ("bb", second, 1.5)):
        ours = [{"pass@1": [0.1, 0.2, 0.5 + shift + scale * e]} for e in noise]
        runs |= pairs(ours, [{"pass@1": [0.1, 0.2, 0.5]}] * len(noise), task)
    return evidence(runs, **provenance)


@pytest.mark.parametrize("rule", [{}, {"seeds": RULE}], ids=["fixed", "followed"])
@pytest.mark.parametrize(
    ("shifts", "direction", "expected"),
    [
        ((0.2, 0.3), "higher", SUPPORTED),
        ((0.2, 0.01), "higher", UNDECIDED),
        ((0.5, -0.2), "higher", CONTRADICTED),
        ((-0.2, -0.3), "lower", SUPPORTED),
        ((0.2, 0.0), "equal", CONTRADICTED),
        ((0.0, 0.0), "equal", SUPPORTED),
    ],
)
def test_a_claim_about_every_task(
    shifts: tuple[float, float], direction: str, expected: str, rule: dict[str, Any]
) -> None:
    """Each task as the claim about it alone has it, and together as `combine` says."""
    experiment = two_tasks(*shifts, **rule)
    asked = {"metric": "pass@1", "direction": direction, "margin": 0.1 if direction == "equal" else 0.02}
    judged = verdict(experiment, **asked, every_task=True)
    alone = [verdict(experiment, **asked, tasks=[task]).comparisons[0].result for task in ("a", "bb")]
    assert [c.result for c in judged.comparisons] == alone
    assert [c.task for c in judged.comparisons] == ["a", "bb"]
    assert judged.per_task == []
    assert (judged.verdict, judged.p_value) == combine(alone) == (expected, judged.p_value)
    if expected == SUPPORTED:
        assert judged.p_value == max(result.p for result in alone)
    assert [(c.task, c.when) for c in judged.other_moment] == [("a", "last_three"), ("bb", "last_three")]


def test_one_task_behind_is_hidden_by_the_mean_and_not_by_every_task() -> None:
    experiment = two_tasks(0.5, -0.2)
    assert verdict(experiment, metric="pass@1").verdict == SUPPORTED
    assert verdict(experiment, metric="pass@1", every_task=True).verdict == CONTRADICTED
    named = read_claim({**CLAIM, "metric": "pass@1", "every_task": True, "tasks": ["a", "bb"]})
    assert "MaxRL minus GRPO on each of a, bb, above 0" in named.test
    assert "GRPO on each task, above 0" in read_claim({**CLAIM, "metric": "pass@1", "every_task": True}).test


# --- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({**COLLAPSED, "metric": "pass@8"}, "\"collapsed\" takes pass@1 alone as its metric; got 'pass@8'"),
        ({**COLLAPSED, "metric": ["pass@1", "pass@8"]}, 'when = "collapsed" takes pass@1 alone'),
        ({"metric": ["pass@8", "pass@1"], "when": "front"}, 'when = "front" takes another than pass@1'),
        ({"metric": "pass@1", "when": "samples"}, 'when = "samples" takes pass@k for a k above 1'),
        ({"metric": "entropy", "when": "samples"}, 'when = "samples" takes pass@k for a k above 1'),
        ({"metric": "pass@8", "when": "front", "gain": {"num_rollouts": [4, 8]}}, "'gain' does not go with"),
        ({**SAMPLES, "gain": {"num_rollouts": [4, 8]}}, "'gain' does not go with"),
        ({"metric": "pass@8", "when": "front", "level": 0.5}, "'level' goes with"),
        ({**SAMPLES, "level": 0.5}, "'level' goes with"),
        ({**COLLAPSED, "level": 0.5}, "'level' goes with"),
        ({**COLLAPSED, "by_margin": True}, "by_margin needs a margin above 0 for pass@1"),
        ({**SAMPLES, "by_margin": True}, "by_margin needs a margin above 0 for pass@4"),
        ({"metric": "pass@1", "every_task": 1}, "'every_task'.*valid boolean"),
    ],
)
def test_what_does_not_fit_is_refused_in_one_line(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_claim({**CLAIM, **changes})
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).startswith("claim 'one'")
