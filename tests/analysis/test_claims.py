"""Verdicts on claims, from tables whose effects are known by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference
from synthetic_tables import make_tables

from maxrl_bench.analysis.claims import CANNOT, INCONCLUSIVE, NOT_SUPPORTED, SUPPORTED, Verdict, judge
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.sweeps.claim_model import read_claim, read_claims

LABELS = {"MaxRL (Alg. 1)": ("maxrl_alg1", 0, 1), "GRPO": ("grpo", 0, 1), "RLOO": ("rloo", 0, 1)}
CLAIM = {
    "id": "one",
    "statement": "MaxRL keeps more entropy than GRPO",
    "metric": "entropy",
    "compare": {"objective": "maxrl_alg1"},
    "against": {"objective": "grpo"},
}
NOISE = np.array([0.00, 0.02, -0.01, 0.03, -0.02])


def evidence(levels: dict[str, Any], metric: str = "entropy", **options: Any) -> Evidence:
    """Two tasks, five seeds: an objective's metric at the last of three steps is its level plus noise."""
    options = {"tasks": {"a": ("f", 0), "bb": ("f", 0)}, "instances": 4, "steps": (0, 10, 20), **options}
    metrics, pass_rates = make_tables(objectives=LABELS, **options)
    for label, level in levels.items():
        rows = (metrics["objective"] == label) & (metrics["step"] == 20)
        metrics.loc[rows, metric] = [level + NOISE[seed] * (1 + len(label)) for seed in metrics.loc[rows, "seed"]]
    return Evidence("made-up", metrics, pass_rates)


def verdict(experiment: Evidence, **changes: Any) -> Verdict:
    return judge(experiment, [{**CLAIM, **changes}])[0]


def test_the_effect_is_the_paired_difference_and_p_is_of_the_paired_test() -> None:
    judged = verdict(evidence({"MaxRL (Alg. 1)": 0.8, "GRPO": 0.5}))
    ours, theirs = 0.8 + NOISE * 15, 0.5 + NOISE * 5
    (comparison,) = judged.comparisons
    assert comparison.effect.value == pytest.approx((ours - theirs).mean())
    assert comparison.effect.seeds == 5
    assert judged.p_value == pytest.approx(reference.ttest_rel(ours, theirs).pvalue)
    assert (comparison.ours, comparison.theirs) == ("MaxRL (Alg. 1)", "GRPO")
    assert [c.task for c in judged.per_task] == ["a", "bb"]


@pytest.mark.parametrize(
    ("ours", "direction", "threshold", "expected"),
    [
        (0.9, "higher", 0.0, SUPPORTED),
        (0.1, "higher", 0.0, NOT_SUPPORTED),
        (0.52, "higher", 0.0, INCONCLUSIVE),
        (0.1, "lower", 0.0, SUPPORTED),
        (0.9, "lower", 0.0, NOT_SUPPORTED),
        (0.9, "higher", 0.1, SUPPORTED),
        (0.9, "higher", 0.9, NOT_SUPPORTED),  # better, but wholly below the smallest difference worth the name
        (0.1, "lower", 0.1, SUPPORTED),
        (0.1, "lower", 0.9, NOT_SUPPORTED),
        (0.5, "equal", 1.0, SUPPORTED),
        (0.9, "equal", 0.1, NOT_SUPPORTED),
        (0.5, "equal", 0.05, INCONCLUSIVE),
    ],
)
def test_the_rule(ours: float, direction: str, threshold: float, expected: str) -> None:
    experiment = evidence({"MaxRL (Alg. 1)": ours, "GRPO": 0.5})
    assert verdict(experiment, direction=direction, threshold=threshold).verdict == expected


def test_every_comparison_must_hold() -> None:
    both = [{"objective": "grpo"}, {"objective": "rloo"}]
    holds = verdict(evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": 0.2}), against=both)
    assert holds.verdict == SUPPORTED
    assert holds.p_value == max(c.p_value for c in holds.comparisons) > min(c.p_value for c in holds.comparisons)
    for level, expected in ((2, NOT_SUPPORTED), (0.9, INCONCLUSIVE)):
        experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": level})
        for against in (both, both[::-1]):  # whichever comparison comes last
            assert verdict(experiment, against=against).verdict == expected


def test_p_values_are_corrected_over_the_claims() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.5})
    alone = verdict(experiment)
    many = judge(experiment, [{**CLAIM, "id": str(i)} for i in range(60)])
    assert many[0].p_value == pytest.approx(min(1, 60 * alone.p_value))
    assert alone.verdict == SUPPORTED
    assert many[0].verdict == INCONCLUSIVE
    assert "Holm" in many[0].notes[0]


def test_moments_of_training() -> None:
    """Entropy 1.0, 3.0, then 0.8 plus noise: best 3, drop 2.2, area (2 + 1.9) / 2."""
    experiment = evidence({"MaxRL (Alg. 1)": 0.8, "GRPO": 0.0})
    experiment.metrics.loc[experiment.metrics["step"] < 20, "entropy"] = 1.0
    experiment.metrics.loc[experiment.metrics["step"] == 10, "entropy"] = 3.0
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    noise = NOISE.mean() * (15 - 5)
    for when, expected in {"final": 0.8 + noise, "best": 0.0, "drop": -0.8 - noise, "area": (0.8 + noise) / 4}.items():
        assert verdict(experiment, when=when).comparisons[0].effect.value == pytest.approx(expected)


def test_rollouts_to_a_level_are_compared_as_a_ratio_and_censored_runs_named() -> None:
    experiment = evidence({})
    for label, reached in {"MaxRL (Alg. 1)": 10, "GRPO": 20, "RLOO": 99}.items():
        rows = experiment.metrics["objective"] == label
        experiment.metrics.loc[rows, "entropy"] = np.where(experiment.metrics.loc[rows, "step"] >= reached, 1.0, 0.0)
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    options = {"when": "rollouts_to", "level": 1.0, "direction": "lower"}
    judged = verdict(experiment, **options)
    assert judged.comparisons[0].effect.value == pytest.approx(-1)  # half of the rollouts
    assert judged.verdict == SUPPORTED
    never = verdict(experiment, against={"objective": "rloo"}, **options)
    assert never.comparisons[0].effect.value == pytest.approx(-1)  # at least: RLOO counts with its whole budget
    assert "RLOO: 5 of 5 runs never reach 1" in never.notes[0]


def test_gain_is_a_difference_of_differences() -> None:
    experiment = evidence({}, settings=({"num_rollouts": 4}, {"num_rollouts": 64}))
    levels = {("MaxRL (Alg. 1)", 4): 1.0, ("MaxRL (Alg. 1)", 64): 3.0, ("GRPO", 4): 5.0, ("GRPO", 64): 5.5}
    for (label, rollouts), level in levels.items():
        rows = (experiment.metrics["objective"] == label) & (experiment.metrics["num_rollouts"] == rollouts)
        experiment.metrics.loc[rows, "entropy"] = level
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    judged = verdict(experiment, gain={"num_rollouts": [4, 64]})
    assert judged.comparisons[0].effect.value == pytest.approx((3 - 1) - (5.5 - 5))
    narrowed = verdict(experiment, where={"num_rollouts": 4})
    assert narrowed.comparisons[0].effect.value == pytest.approx(-4)
    assert "several runs per seed on a; tell them apart by num_rollouts" in verdict(experiment).notes[0]


def test_pass_at_k_claims_resample_instances_too() -> None:
    """The same means without the pass-rate table give a narrower interval: the levels drawn might have been others."""
    objectives = {"MaxRL (Alg. 1)": ("maxrl_alg1", 0.5, 3.0), "GRPO": ("grpo", 0.0, 0.1)}
    metrics, rates = make_tables(tasks={"a": ("f", 0)}, objectives=objectives, steps=(0, 20), instances=12)
    claim = {**CLAIM, "metric": "pass@1"}
    (with_instances,) = judge(Evidence("e", metrics, rates), [claim])
    (without,) = judge(Evidence("e", metrics, rates[rates["step"] == 0]), [claim])
    wide, narrow = (v.comparisons[0].effect for v in (with_instances, without))
    assert wide.value == pytest.approx(narrow.value)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)


def test_scores_by_instance_meet_scores_by_run_as_their_means() -> None:
    """Where the pass rates of instances are stored for one side only."""
    whole = evidence({})
    ours, theirs = (whole.metrics["objective"] == label for label in ("MaxRL (Alg. 1)", "GRPO"))
    rates = whole.pass_rates[whole.pass_rates["run"].isin(whole.metrics.loc[ours, "run"])]
    judged = verdict(Evidence("made-up", whole.metrics, rates), metric="pass@1")
    seeds = {run: (row["task"], row["seed"]) for run, row in whole.runs.items()}
    last = rates[rates["step"] == 20]
    left = last["pass_rate"].groupby(last["run"].map(seeds)).mean()
    final = whole.metrics[theirs & (whole.metrics["step"] == 20)]
    right = final.set_index(["task", "seed"])["pass@1"]
    assert len(left) == len(right) == 10
    differences = np.array([[left[task, seed] - right[task, seed] for seed in range(5)] for task in ("a", "bb")])
    (comparison,) = judged.comparisons
    assert comparison.effect.value == pytest.approx(differences.mean())
    assert judged.p_value == pytest.approx(reference.ttest_1samp(differences.mean(axis=0), 0).pvalue)


def test_only_common_seeds_are_compared() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.5})
    kept = experiment.metrics[~((experiment.metrics["objective"] == "GRPO") & experiment.metrics["seed"].isin([0, 3]))]
    comparison = verdict(Evidence("made-up", kept, experiment.pass_rates)).comparisons[0]
    assert comparison.effect.seeds == 3
    assert comparison.effect.value == pytest.approx(0.4 + (NOISE[[1, 2, 4]] * 10).mean())


def test_what_cannot_be_judged_says_why() -> None:
    experiment = evidence({})
    none = verdict(experiment, against={"objective": "pkpo"})
    assert (none.verdict, none.comparisons) == (CANNOT, [])
    assert "maxrl_alg1 and pkpo" in none.notes[0]
    partly = verdict(experiment, against=[{"objective": "grpo"}, {"objective": "pkpo"}])
    assert partly.verdict == CANNOT
    assert len(partly.comparisons) == 1
    assert "no runs to compare on elsewhere" in verdict(experiment, tasks=["a", "elsewhere"]).notes
    empty = Evidence("made-up", pd.DataFrame(experiment.metrics.assign(entropy=np.nan)), experiment.pass_rates)
    assert verdict(empty).verdict == CANNOT
    assert "no values of entropy" in verdict(empty).notes[0]
    assert "no values of pass@3" in verdict(experiment, metric="pass@3").notes[0]


@pytest.mark.parametrize(("seeds", "why"), [(1, "1 seed, and"), (2, "2 seeds, and")])
def test_one_and_two_seeds_cannot_be_judged(seeds: int, why: str) -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1}, seeds=seeds)
    few = verdict(experiment)
    assert few.verdict == CANNOT
    assert np.isnan([few.p_value, few.comparisons[0].effect.low, few.comparisons[0].effect.high]).all()
    assert any(note.startswith(why) for note in few.notes)


def test_a_claim_that_cannot_be_judged_leaves_the_others() -> None:
    """Nor does it count among the tests that p values are corrected for."""
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.5})
    bad = [{"statment": 1}, {**CLAIM, "id": "b", "metric": 3}, {**CLAIM, "id": "c", "tasks": ["none"]}]
    *refused, good = judge(experiment, [*bad, CLAIM])
    assert [v.verdict for v in refused] == [CANNOT] * 3
    assert all(v.notes and np.isnan(v.p_value) for v in refused)
    assert good.verdict == SUPPORTED
    assert good.p_value == verdict(experiment).p_value


BOUNDS = [
    ("higher", 0.05, "above 0.05", (0.05, np.inf)),
    ("higher", 0.0, "above 0", (0, np.inf)),
    ("higher", -0.05, "above -0.05", (-0.05, np.inf)),
    ("lower", 0.05, "below -0.05", (-np.inf, -0.05)),
    ("lower", 0.0, "below 0", (-np.inf, 0)),
    ("lower", -0.0, "below 0", (-np.inf, 0)),
    ("lower", -0.05, "below 0.05", (-np.inf, 0.05)),
    ("lower", 0.1234567891, "below -0.1234567891", (-np.inf, -0.1234567891)),
    ("equal", 0.05, "within ±0.05", (-0.05, 0.05)),
    ("equal", 2, "within ±2", (-2, 2)),
]


@pytest.mark.parametrize(("direction", "threshold", "words", "bounds"), BOUNDS)
def test_what_is_told_is_what_is_tested(
    direction: str, threshold: float, words: str, bounds: tuple[float, float]
) -> None:
    """Effects on either side of each end of the interval in the words: only those inside are supported."""
    claim = read_claim({**CLAIM, "direction": direction, "threshold": threshold})
    assert claim.test.endswith(f", {words}")
    assert claim.bounds == bounds
    for end in bounds:
        for effect in (end - 0.02, end + 0.02):
            if np.isfinite(effect):
                experiment = evidence({})
                level = {"MaxRL (Alg. 1)": 5 + effect, "GRPO": 5.0}
                experiment.metrics["entropy"] = (
                    experiment.metrics["objective"].map(level) + 1e-3 * experiment.metrics["seed"] ** 2
                )
                ours = experiment.metrics["objective"] == "MaxRL (Alg. 1)"
                experiment.metrics.loc[ours, "entropy"] += 1e-3 * (experiment.metrics.loc[ours, "seed"] - 2)
                judged = verdict(
                    Evidence("e", experiment.metrics, experiment.pass_rates), direction=direction, threshold=threshold
                )
                assert judged.test == claim.test
                expected = SUPPORTED if bounds[0] < effect < bounds[1] else NOT_SUPPORTED
                assert judged.verdict == expected, (effect, judged)


def test_words_hold_every_value_that_is_used() -> None:
    whole = read_claim(
        {
            **CLAIM,
            "metric": ["pass@1", "entropy"],
            "when": "rollouts_to",
            "level": 1234567.0,
            "where": {"learning_rate": 0.0003162277660168379},
            "gain": {"num_rollouts": [4, 1048576]},
            "tasks": ["a", "bb"],
        }
    )
    assert whole.test == (
        "log2 of the rollouts until pass@1 and entropy reaches 1234567, gained from num_rollouts = 4 to 1048576: "
        "maxrl_alg1 minus grpo (learning_rate = 0.0003162277660168379) on a, bb, above 0"
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"treshold": 1}, "'treshold' is unknown; did you mean 'threshold'"),
        ({"statement": ""}, "'statement'.*must be text"),
        ({"statement": "two\nlines"}, "'statement'.*must be text"),
        ({"id": 3}, "claim 3: key 'id'.*valid string"),
        ({"direction": "up"}, "'direction'.*'higher', 'lower' or 'equal'; got 'up'"),
        ({"when": "last"}, "'when'.*'final'"),
        ({"compare": "grpo"}, "are tables"),
        ({"compare": {}}, "empty table"),
        ({"against": []}, "'against'"),
        ({"against": [{"objective": "grpo"}] * 2}, "twice"),
        ({"against": {"objective": "maxrl_alg1"}}, "compares a side with itself"),
        ({"against": {"objective": 3}}, "must be the name or label"),
        ({"against": {"objective": "grpo", "name": "grpo"}}, "names the objective twice"),
        ({"where": {"rollouts": 3}}, "cannot select runs by 'rollouts'"),
        ({"where": {"num_rollouts": "64"}}, "'num_rollouts'.*valid integer; got '64'"),
        ({"where": {"num_rollouts": True}}, "'num_rollouts'.*valid integer"),
        ({"where": {"num_rollouts": 64.0}}, "'num_rollouts'.*valid integer"),
        ({"where": {"num_rollouts": [4]}}, "'num_rollouts'.*valid integer"),
        ({"where": {"objective": "rloo"}}, "'objective' is fixed twice"),
        ({"gain": {"num_rollouts": [4]}}, "needs two values"),
        ({"gain": {"num_rollouts": [4, 4]}}, "needs two values"),
        ({"gain": {"num_rollouts": [4, "8"]}}, "valid integer; got '8'"),
        ({"gain": {"num_rollouts": [4, 8]}, "where": {"num_rollouts": 4}}, "'num_rollouts' is fixed twice"),
        ({"when": "rollouts_to"}, "'level' goes with"),
        ({"level": 0.5}, "'level' goes with"),
        ({"direction": "equal"}, "threshold above 0"),
        ({"threshold": "0.1"}, "'threshold'.*valid number; got '0.1'"),
        ({"threshold": True}, "'threshold'.*valid number"),
        ({"threshold": np.nan}, "'threshold'.*finite number"),
        ({"threshold": np.inf}, "'threshold'.*finite number"),
        ({"threshold": 10**400}, "'threshold'"),
        ({"metric": "pass@1O"}, "'metric.*whole number k"),
        ({"metric": []}, "'metric'"),
        ({"metric": ["entropy"] * 10_000}, "'metric'"),
        ({"metric": {"a": 1}}, "'metric"),
        ({"tasks": "fourrooms"}, "'tasks'.*valid list"),
        ({"tasks": []}, "'tasks'"),
        ({"tasks": [3]}, "'tasks.*names of tasks"),
    ],
)
def test_malformed_claims_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message) as refused:
        read_claims([{**CLAIM, **changes}])
    assert len(str(refused.value).splitlines()) == 1
    assert str(refused.value).startswith("claim ")
    assert len(str(refused.value)) < 600


def test_a_missing_key_is_named() -> None:
    with pytest.raises(ValueError, match="claim 'a': key 'statement' is missing"):
        read_claims([{"id": "a"}])


def test_ids_differ_and_claims_have_a_number() -> None:
    with pytest.raises(ValueError, match="claim 'one': this id is taken"):
        read_claims([CLAIM, CLAIM])
    with pytest.raises(ValueError, match="300 claims; at most"):
        read_claims([{**CLAIM, "id": str(i)} for i in range(300)])


def test_equality_is_two_one_sided_tests() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.55, "GRPO": 0.5})
    differences = 0.05 + NOISE * 10
    below = reference.ttest_1samp(differences, 0.2, alternative="less").pvalue
    above = reference.ttest_1samp(differences, -0.2, alternative="greater").pvalue
    assert verdict(experiment, direction="equal", threshold=0.2).p_value == pytest.approx(max(below, above))
    for apart in (1.5, -0.5):
        outside = evidence({"MaxRL (Alg. 1)": apart, "GRPO": 0.5})
        assert verdict(outside, direction="equal", threshold=0.2).p_value == 1


def test_a_comparison_is_inconclusive_where_its_interval_holds_the_threshold() -> None:
    judged = verdict(evidence({"MaxRL (Alg. 1)": 0.52, "GRPO": 0.5}))
    assert judged.comparisons[0].effect.low < 0 < judged.comparisons[0].effect.value
    assert judged.comparisons[0].verdict == INCONCLUSIVE
    nearer = verdict(evidence({"MaxRL (Alg. 1)": 0.62, "GRPO": 0.5}), threshold=0.1)
    assert nearer.comparisons[0].seeds_needed == pytest.approx(judged.comparisons[0].seeds_needed, abs=20)


def test_one_comparison_with_too_few_seeds_leaves_the_claim_unjudged() -> None:
    whole = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": 0.1})
    few = whole.metrics[~((whole.metrics["objective"] == "RLOO") & (whole.metrics["seed"] > 1))]
    judged = verdict(Evidence("e", few, whole.pass_rates), against=[{"objective": "grpo"}, {"objective": "rloo"}])
    assert [c.verdict for c in judged.comparisons] == [SUPPORTED, CANNOT]
    assert judged.verdict == CANNOT
    assert np.isnan(judged.p_value)
