"""Verdicts on claims, from tables whose effects are known by construction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference
from synthetic_tables import make_tables

from maxrl_bench.analysis.claims import Verdict, judge
from maxrl_bench.analysis.compare import BETTER, CANNOT, CONTRADICTED, EQUAL, SUPPORTED, UNDECIDED, WORSE, settle
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


def test_the_effect_is_the_paired_difference_over_tasks_as_independent() -> None:
    """Both tasks have the same differences: half their variance, and twice the degrees of freedom."""
    judged = verdict(evidence({"MaxRL (Alg. 1)": 0.8, "GRPO": 0.5}))
    differences = 0.3 + NOISE * 10
    (comparison,) = judged.comparisons
    result = comparison.result
    assert result.effect == pytest.approx(differences.mean())
    assert (result.seeds, result.df) == (5, pytest.approx(8))
    expected = reference.t.sf(differences.mean() / (reference.sem(differences) / np.sqrt(2)), 8) * 2
    assert judged.p_value == pytest.approx(expected)
    assert (comparison.ours, comparison.theirs) == ("MaxRL (Alg. 1)", "GRPO")
    assert [c.task for c in judged.per_task] == ["a", "bb"]
    alone = reference.ttest_1samp(differences, 0)
    assert judged.per_task[0].result.p_at(0) == pytest.approx(alone.pvalue)
    assert judged.per_task[0].result.low == pytest.approx(alone.confidence_interval().low)


@pytest.mark.parametrize(
    ("ours", "changes", "expected"),
    [
        (0.9, {}, SUPPORTED),
        (0.1, {}, CONTRADICTED),
        (0.52, {}, UNDECIDED),
        (0.52, {"margin": 0.5}, EQUAL),
        (0.1, {"direction": "lower"}, SUPPORTED),
        (0.9, {"direction": "lower"}, CONTRADICTED),
        (0.9, {"by_margin": True, "margin": 0.1}, SUPPORTED),
        (0.9, {"by_margin": True, "margin": 0.4}, UNDECIDED),
        (0.9, {"by_margin": True, "margin": 0.9}, EQUAL),  # better, but by less than is worth the name
        (0.1, {"by_margin": True, "margin": 0.1, "direction": "lower"}, SUPPORTED),
        (0.1, {"margin": 0.9, "direction": "lower"}, EQUAL),
        (0.5, {"direction": "equal", "margin": 1.0}, SUPPORTED),
        (0.9, {"direction": "equal", "margin": 0.1}, CONTRADICTED),
        (0.1, {"direction": "equal", "margin": 0.1}, CONTRADICTED),
        (0.5, {"direction": "equal", "margin": 0.05}, UNDECIDED),
    ],
)
def test_the_rule(ours: float, changes: dict[str, Any], expected: str) -> None:
    assert verdict(evidence({"MaxRL (Alg. 1)": ours, "GRPO": 0.5}), **changes).verdict == expected


def test_every_comparison_must_hold() -> None:
    both = [{"objective": "grpo"}, {"objective": "rloo"}]
    holds = verdict(evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": 0.2}), against=both)
    assert holds.verdict == SUPPORTED
    p_values = [c.result.p for c in holds.comparisons]
    assert holds.p_value == max(p_values) > min(p_values)
    for level, words, expected in ((2, {BETTER, WORSE}, CONTRADICTED), (0.9, {BETTER, UNDECIDED}, UNDECIDED)):
        experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": level})
        for against in (both, both[::-1]):  # whichever comparison comes last
            judged = verdict(experiment, against=against)
            assert {c.result.verdict for c in judged.comparisons} == words
            assert judged.verdict == expected
    near = evidence({"MaxRL (Alg. 1)": 1.5, "GRPO": 0.1, "RLOO": 1.45})
    assert verdict(near, against=both, margin=0.4).verdict == EQUAL  # better than one, practically equal to the other


def test_one_of_many_comparisons_contradicts_only_if_it_would_among_so_many() -> None:
    """RLOO is ahead with p = 0.03 in one comparison: enough for one, not for two."""
    one = evidence({})
    noise = NOISE - NOISE.mean()
    # Two tasks: t = effect / (s / sqrt 10) with 8 degrees of freedom, of which 2.6 has p = 0.03.
    shift = 2.6 * noise.std(ddof=1) / np.sqrt(10)
    for label, values in {"MaxRL (Alg. 1)": 0.5 + noise, "GRPO": 0 * noise, "RLOO": 0.5 + shift + 0 * noise}.items():
        rows = (one.metrics["objective"] == label) & (one.metrics["step"] == 20)
        one.metrics.loc[rows, "entropy"] = [values[seed] for seed in one.metrics.loc[rows, "seed"]]
    one = Evidence("made-up", one.metrics, one.pass_rates)
    alone = verdict(one, against={"objective": "rloo"})
    assert 0.025 < alone.p_value < 0.05
    assert alone.verdict == CONTRADICTED
    two = verdict(one, against=[{"objective": "rloo"}, {"objective": "grpo"}])
    assert [c.result.verdict for c in two.comparisons] == [WORSE, BETTER]
    assert (two.verdict, two.p_value) == (UNDECIDED, pytest.approx(2 * alone.p_value))


def test_verdicts_of_a_family_are_settled_together() -> None:
    """Holm by hand: .01 * 3 = .03, .03 * 2 = .06, and that which cannot be judged counts too."""
    claims = [(SUPPORTED, 0.03), (CONTRADICTED, 0.01), (CANNOT, np.nan)]
    words, adjusted = zip(*settle(claims), strict=True)
    assert words == (UNDECIDED, CONTRADICTED, CANNOT)
    assert adjusted[:2] == pytest.approx((0.06, 0.03))
    assert np.isnan(adjusted[2])
    assert settle(claims[:1]) == [(SUPPORTED, 0.03)]


def test_what_a_final_score_is() -> None:
    """The last evaluation, or the mean of the last three; a claim on one shows the other beside it, judged alike."""
    experiment = evidence({"MaxRL (Alg. 1)": 0.8, "GRPO": 0.5})
    experiment.metrics.loc[experiment.metrics["step"] < 20, "entropy"] = 0.0
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    last, three = verdict(experiment), verdict(experiment, when="last_three")
    assert last.test.startswith("last evaluation's entropy: ")
    assert three.test.startswith("mean of the last three evaluations of entropy: ")
    assert three.comparisons[0].result.effect == pytest.approx(last.comparisons[0].result.effect / 3)
    assert last.other_moment == three.comparisons
    assert three.other_moment == last.comparisons
    assert verdict(experiment, when="area").other_moment == []


def test_after_a_collapse_nothing_is_declared_below_ten_seeds() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1}, steps=(0, 5, 10, 15, 20))
    fallen = experiment.metrics["run"] == next(r for r, row in experiment.runs.items() if row["objective"] == "GRPO")
    experiment.metrics.loc[fallen, "pass@1"] = [0.2, 0.9, 0.8, 0.44, 0.40]
    judged = verdict(Evidence("made-up", experiment.metrics, experiment.pass_rates))
    assert judged.verdict == UNDECIDED
    assert judged.comparisons[0].result.collapsed == 1
    assert "1 of the runs compared collapsed" in judged.notes[0]
    assert [c.result.verdict for c in judged.per_task] == [UNDECIDED, BETTER]  # the other task has none
    experiment.metrics.loc[fallen, "pass@1"] = [0.2, 0.9, 0.8, 0.44, 0.46]  # back above half of the best
    assert verdict(Evidence("made-up", experiment.metrics, experiment.pass_rates)).verdict == SUPPORTED


def test_moments_of_training() -> None:
    """Entropy 1.0, 3.0, then 0.8 plus noise: best 3, drop 2.2, area (2 + 1.9) / 2."""
    experiment = evidence({"MaxRL (Alg. 1)": 0.8, "GRPO": 0.0})
    experiment.metrics.loc[experiment.metrics["step"] < 20, "entropy"] = 1.0
    experiment.metrics.loc[experiment.metrics["step"] == 10, "entropy"] = 3.0
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    noise = NOISE.mean() * (15 - 5)
    for when, expected in {"final": 0.8 + noise, "best": 0.0, "drop": -0.8 - noise, "area": (0.8 + noise) / 4}.items():
        assert verdict(experiment, when=when).comparisons[0].result.effect == pytest.approx(expected)


def test_rollouts_to_a_level_are_compared_as_a_ratio_and_censored_runs_named() -> None:
    experiment = evidence({})
    for label, reached in {"MaxRL (Alg. 1)": 10, "GRPO": 20, "RLOO": 99}.items():
        rows = experiment.metrics["objective"] == label
        experiment.metrics.loc[rows, "entropy"] = np.where(experiment.metrics.loc[rows, "step"] >= reached, 1.0, 0.0)
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    options = {"when": "rollouts_to", "level": 1.0, "direction": "lower"}
    judged = verdict(experiment, **options)
    assert judged.comparisons[0].result.effect == pytest.approx(-1)  # half of the rollouts
    assert judged.verdict == SUPPORTED
    never = verdict(experiment, against={"objective": "rloo"}, **options)
    assert never.comparisons[0].result.effect == pytest.approx(-1)  # at least: RLOO counts with its whole budget
    assert "RLOO: 5 of 5 runs never reach 1" in never.notes[0]


def test_gain_is_a_difference_of_differences() -> None:
    experiment = evidence({}, settings=({"num_rollouts": 4}, {"num_rollouts": 64}))
    levels = {("MaxRL (Alg. 1)", 4): 1.0, ("MaxRL (Alg. 1)", 64): 3.0, ("GRPO", 4): 5.0, ("GRPO", 64): 5.5}
    for (label, rollouts), level in levels.items():
        rows = (experiment.metrics["objective"] == label) & (experiment.metrics["num_rollouts"] == rollouts)
        experiment.metrics.loc[rows, "entropy"] = level
    experiment = Evidence("made-up", experiment.metrics, experiment.pass_rates)
    judged = verdict(experiment, gain={"num_rollouts": [4, 64]})
    assert judged.comparisons[0].result.effect == pytest.approx((3 - 1) - (5.5 - 5))
    narrowed = verdict(experiment, where={"num_rollouts": 4})
    assert narrowed.comparisons[0].result.effect == pytest.approx(-4)
    assert "several runs per seed on a; tell them apart by num_rollouts" in verdict(experiment).notes[0]


def test_pass_at_k_claims_are_over_instances_too() -> None:
    """The same means without the pass-rate table give a narrower interval: the levels drawn might have been others."""
    objectives = {"MaxRL (Alg. 1)": ("maxrl_alg1", 0.5, 1.0), "GRPO": ("grpo", 0.0, 1.0)}
    metrics, rates = make_tables(tasks={"a": ("f", 0)}, objectives=objectives, steps=(0, 20), instances=12)
    claim = {**CLAIM, "metric": "pass@1"}
    ours = rates["run"].isin(metrics.loc[metrics["objective"] == "MaxRL (Alg. 1)", "run"]) & (rates["step"] == 20)
    rates.loc[ours, "pass_rate"] = (
        np.where(rates.loc[ours, "instance"] % 2, 0.9, 0.1) + 0.05 * rates.loc[ours, "pass_rate"]
    )
    means = rates[ours].groupby("run")["pass_rate"].mean()
    last = (metrics["step"] == 20) & metrics["run"].isin(means.index)
    metrics.loc[last, "pass@1"] = metrics.loc[last, "run"].map(means)
    (with_instances,) = judge(Evidence("e", metrics, rates), [claim])
    (without,) = judge(Evidence("e", metrics, rates[rates["step"] == 0]), [claim])
    wide, narrow = (v.comparisons[0].result for v in (with_instances, without))
    assert wide.effect == pytest.approx(narrow.effect)
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)
    assert (wide.instances, narrow.instances) == (12, 0)


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
    for part, task in zip(judged.per_task, ("a", "bb"), strict=True):
        differences = np.array([left[task, seed] - right[task, seed] for seed in range(5)])
        assert part.result.effect == pytest.approx(differences.mean())
        assert part.result.p_at(0) == pytest.approx(reference.ttest_1samp(differences, 0).pvalue)
        assert part.result.instances == 0


def test_only_common_seeds_are_compared() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.5})
    kept = experiment.metrics[~((experiment.metrics["objective"] == "GRPO") & experiment.metrics["seed"].isin([0, 3]))]
    comparison = verdict(Evidence("made-up", kept, experiment.pass_rates)).comparisons[0]
    assert comparison.result.seeds == 3
    assert comparison.result.effect == pytest.approx(0.4 + (NOISE[[1, 2, 4]] * 10).mean())


def test_what_cannot_be_judged_says_why() -> None:
    experiment = evidence({})
    none = verdict(experiment, against={"objective": "pkpo"})
    assert (none.verdict, none.comparisons) == (CANNOT, [])
    assert "maxrl_alg1 and pkpo_loo" in none.notes[0]
    partly = verdict(experiment, against=[{"objective": "grpo"}, {"objective": "pkpo"}])
    assert partly.verdict == CANNOT
    assert len(partly.comparisons) == 1
    assert "no runs to compare on elsewhere" in verdict(experiment, tasks=["a", "elsewhere"]).notes
    empty = Evidence("made-up", pd.DataFrame(experiment.metrics.assign(entropy=np.nan)), experiment.pass_rates)
    assert verdict(empty).verdict == CANNOT
    assert "no values of entropy" in verdict(empty).notes[0]
    without = Evidence("made-up", experiment.metrics, experiment.pass_rates[:0])
    assert "no values of pass@3" in verdict(without, metric="pass@3").notes[0]
    exact = verdict(experiment, metric="pass@3")  # of exact pass rates, at the end of training alone
    assert (len(exact.comparisons), exact.other_moment) == (1, [])


@pytest.mark.parametrize(("seeds", "why"), [(1, "1 seed, and"), (2, "2 seeds, and")])
def test_one_and_two_seeds_cannot_be_judged(seeds: int, why: str) -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1}, seeds=seeds)
    few = verdict(experiment)
    assert few.verdict == CANNOT
    assert np.isnan([few.p_value, few.comparisons[0].result.low, few.comparisons[0].result.high]).all()
    assert any(note.startswith(why) for note in few.notes)


def test_a_claim_that_cannot_be_judged_leaves_the_others() -> None:
    experiment = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.5})
    bad = [{"statment": 1}, {**CLAIM, "id": "b", "metric": 3}, {**CLAIM, "id": "c", "tasks": ["none"]}]
    *refused, good = judge(experiment, [*bad, CLAIM])
    assert [v.verdict for v in refused] == [CANNOT] * 3
    assert all(v.notes and np.isnan(v.p_value) for v in refused)
    assert good.verdict == SUPPORTED
    assert good.p_value == verdict(experiment).p_value


WORDS = [
    ({"direction": "higher"}, "above 0", (0, np.inf)),
    ({"direction": "lower"}, "below 0", (-np.inf, 0)),
    ({"by_margin": True, "margin": 0.05}, "above 0.05; practically equal: within ±0.05", (0.05, np.inf)),
    ({"by_margin": True, "margin": 0.1234567891, "direction": "lower"},
     "below -0.1234567891; practically equal: within ±0.1234567891", (-np.inf, -0.1234567891)),
    ({"direction": "equal", "margin": 0.05}, "within ±0.05", (-0.05, 0.05)),
    ({"direction": "equal", "margin": 2}, "within ±2", (-2, 2)),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "words", "bounds"), WORDS)
def test_what_is_told_is_what_is_tested(changes: dict[str, Any], words: str, bounds: tuple[float, float]) -> None:
    """Effects on either side of each end of the interval in the words: only those inside are supported."""
    claim = read_claim({**CLAIM, **changes})
    assert claim.test.endswith(f", {words}")
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
                judged = verdict(Evidence("e", experiment.metrics, experiment.pass_rates), **changes)
                assert judged.test == claim.test
                assert (judged.verdict == SUPPORTED) == (bounds[0] < effect < bounds[1]), (effect, judged)


def test_the_margin_is_one_of_pass_at_k() -> None:
    """0.02 where nothing is said, or the experiment's; entropy, and rollouts, have none unless the claim gives one."""

    def margins(default: float = 0.02, **changes: Any) -> list[float | None]:
        claim = read_claim({**CLAIM, **changes}, margin=default)
        return [claim.margin_of(metric) for metric in claim.metric]

    assert margins(metric=["pass@1", "pass@128"]) == [0.02, 0.02]
    assert margins(0.1, metric="pass@1") == [0.1]
    assert margins(0.1, metric="pass@1", margin=0.3) == [0.3]
    assert margins(metric="pass@1", when="area") == [0.02]
    assert margins(metric="pass@1", when="rollouts_to", level=0.5) == [None]
    assert margins(metric="pass@1", when="rollouts_to", level=0.5, margin=1.0) == [1.0]
    assert margins() == [None]
    assert margins(margin=0.3, metric=["entropy", "log_p"]) == [0.3, 0.3]
    assert margins(metric=["pass@1", "log_p"], margin=0.3) == [0.3, None]
    assert read_claims([{**CLAIM, "metric": "pass@1"}], 0.07)[0].test.endswith("within ±0.07")


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
        ({"magin": 1}, "'magin' is unknown; did you mean 'margin'"),
        ({"threshold": 0.1}, "'threshold' is unknown"),
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
        ({"direction": "equal"}, "needs a margin above 0 for entropy"),
        ({"by_margin": True}, "by_margin needs a margin above 0 for entropy"),
        ({"by_margin": True, "metric": ["pass@1", "log_p"], "margin": 0.1}, "for log_p"),
        ({"by_margin": True, "direction": "equal", "margin": 0.1}, "by_margin goes with"),
        ({"by_margin": 1, "margin": 0.1}, "'by_margin'.*valid boolean"),
        ({"margin": -0.02}, "'margin'.*greater than 0; got -0.02"),
        ({"margin": 0}, "'margin'.*greater than 0"),
        ({"margin": "0.1"}, "'margin'.*valid number; got '0.1'"),
        ({"margin": True}, "'margin'.*valid number"),
        ({"margin": np.nan}, "'margin'"),
        ({"margin": np.inf}, "'margin'"),
        ({"margin": 10**400}, "'margin'"),
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


def test_one_comparison_with_too_few_seeds_leaves_the_claim_unjudged() -> None:
    whole = evidence({"MaxRL (Alg. 1)": 0.9, "GRPO": 0.1, "RLOO": 0.1})
    few = whole.metrics[~((whole.metrics["objective"] == "RLOO") & (whole.metrics["seed"] > 1))]
    judged = verdict(Evidence("e", few, whole.pass_rates), against=[{"objective": "grpo"}, {"objective": "rloo"}])
    assert [c.result.verdict for c in judged.comparisons] == [BETTER, CANNOT]
    assert judged.verdict == CANNOT
    assert np.isnan(judged.p_value)
