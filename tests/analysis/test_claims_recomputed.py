"""Comparisons recomputed from the table, row by row: tasks, seeds, evaluations and settings all differ in number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats as reference
from synthetic_tables import make_tables

from maxrl_bench.analysis.claims import judge
from maxrl_bench.analysis.compare import BETTER, CANNOT, CONTRADICTED, EQUAL, SUPPORTED, UNDECIDED, WORSE
from maxrl_bench.analysis.evidence import Evidence

STEPS = (0, 10, 40, 100, 250)
LABELS = {"MaxRL": ("maxrl_alg1", 0.0, 1.0), "GRPO": ("grpo", 0.0, 1.0), "RLOO": ("rloo", 0.0, 1.0)}
CLAIM = {"id": "one", "statement": "A claim", "metric": "entropy", "compare": {"objective": "maxrl_alg1"},
         "against": {"objective": "grpo"}, "where": {"num_rollouts": 64}}  # fmt: skip
NO_RATES = pd.DataFrame(columns=["run", "step", "instance", "pass_rate", "n"])
# Seeds that are missing, by (task, objective): each side lacks others, so that position is not seed.
LACKING = {("b", "GRPO"): [2], ("ccc", "MaxRL"): [0], ("ccc", "GRPO"): [3, 6]}


@pytest.fixture(scope="module")
def table() -> pd.DataFrame:
    """Entropy grows with noise from step to step, by another slope for each objective and number of rollouts."""
    metrics, _ = make_tables(
        tasks={"a": ("f", 0.0), "b": ("f", 0.0), "ccc": ("f", 0.0)},
        objectives=LABELS,
        settings=({"num_rollouts": 4}, {"num_rollouts": 64}),
        seeds=7,
        steps=STEPS,
        instances=3,
    )
    rng = np.random.default_rng(5)
    slope = metrics["objective"].map({"MaxRL": 1.5, "GRPO": 1.0, "RLOO": 0.2})
    slope *= np.where(metrics["num_rollouts"] == 64, 1.4, 1.0)
    metrics["entropy"] = slope * np.sqrt((metrics["step"] / 60).clip(upper=1)) + rng.exponential(0.3, len(metrics)) * (
        metrics["step"] > 0
    )
    for (task, label), seeds in LACKING.items():
        gone = (metrics["task"] == task) & (metrics["objective"] == label) & metrics["seed"].isin(seeds)
        metrics = metrics[~gone]
    # The order of the runs in the table is not that of the seeds.
    order = metrics["seed"].map(dict(enumerate(rng.permutation(7).tolist())))
    return metrics.assign(order=order).sort_values("order", kind="stable").drop(columns="order")


def first_at(rollouts: np.ndarray, values: np.ndarray, level: float) -> float:
    """Rollouts until the level is first reached, along straight lines; all rollouts if it never is."""
    for i, value in enumerate(values):
        if value >= level:
            if i == 0:
                return float(rollouts[0])
            share = (level - values[i - 1]) / (value - values[i - 1])
            return float(rollouts[i - 1] + share * (rollouts[i] - rollouts[i - 1]))
    return float(rollouts[-1])


def score(run: pd.DataFrame, when: str, level: float | None) -> float:
    """One number of one run."""
    values, steps = run["entropy"].to_numpy(), run["step"].to_numpy()
    if when == "rollouts_to":
        return float(np.log2(first_at(run["rollouts"].to_numpy(), values, level or 0.0)))
    pieces = [(b - a) * (y + z) / 2 for a, b, y, z in zip(steps, steps[1:], values, values[1:], strict=False)]
    moments = {"final": values[-1], "best": max(values), "drop": max(values) - values[-1], "area": sum(pieces) / 250}
    return float({**moments, "last_three": np.mean(values[-3:])}[when])


def recomputed(table: pd.DataFrame, claim: dict[str, Any], task: str) -> dict[int, float]:
    """Ours minus theirs on a task, by seed; with a gain, of what each side gains."""

    def side(objective: str, rollouts: int) -> dict[int, float]:
        rows = table[(table["task"] == task) & (table["objective_name"] == objective)]
        rows = rows[rows["num_rollouts"] == rollouts].sort_values("step")
        return {
            int(seed): score(run, claim.get("when", "final"), claim.get("level")) for seed, run in rows.groupby("seed")
        }

    names = claim["compare"]["objective"], claim["against"]["objective"]
    if "gain" in claim:
        first, second = claim["gain"]["num_rollouts"]
        ours, theirs = (
            {seed: value - side(name, first)[seed] for seed, value in side(name, second).items()} for name in names
        )
    else:
        ours, theirs = (side(name, claim["where"]["num_rollouts"]) for name in names)
    return {seed: ours[seed] - theirs[seed] for seed in sorted(ours.keys() & theirs.keys())}


VARIANTS: list[dict[str, Any]] = [
    {},
    {"where": {"num_rollouts": 4}},
    {"tasks": ["b", "ccc"]},
    {"when": "best", "margin": 0.3},
    {"when": "best", "margin": 0.3, "by_margin": True},
    {"when": "area"},
    {"when": "area", "direction": "lower", "margin": 0.25},
    {"when": "drop", "direction": "lower"},
    {"when": "last_three", "margin": 0.1},
    {"direction": "lower", "margin": 0.05, "by_margin": True},
    {"margin": 3.0},
    {"direction": "equal", "margin": 0.9},
    {"direction": "equal", "margin": 0.1},
    {"direction": "equal", "margin": 3.0},
    {"gain": {"num_rollouts": [4, 64]}, "where": None},
    {"gain": {"num_rollouts": [64, 4]}, "where": None, "direction": "lower"},
    {"when": "rollouts_to", "level": 1.2, "direction": "lower"},
    {"when": "rollouts_to", "level": 1.6, "direction": "lower", "margin": 0.5},
    {"against": {"objective": "rloo"}, "margin": 1.0, "by_margin": True},
]


@pytest.mark.parametrize("changes", VARIANTS, ids=lambda changes: "-".join(map(str, changes.values())) or "plain")
def test_effects_p_values_and_verdicts(table: pd.DataFrame, changes: dict[str, Any]) -> None:
    claim = {key: value for key, value in {**CLAIM, **changes}.items() if value is not None}
    judged = judge(Evidence("made-up", table, NO_RATES), [claim])[0]
    by_task = {task: recomputed(table, claim, task) for task in claim.get("tasks", ["a", "b", "ccc"])}
    assert {c.task: c.result.effect for c in judged.per_task} == pytest.approx(
        {task: np.mean(list(differences.values())) for task, differences in by_task.items()}
    )
    assert {c.task: c.result.seeds for c in judged.per_task} == {t: len(d) for t, d in by_task.items()}
    (comparison,) = judged.comparisons
    # Tasks are independent: of each all its seeds count, and variances add up as Welch has it.
    samples = [np.array(list(differences.values())) for differences in by_task.values()]
    shares = np.array([x.var(ddof=1) / len(x) for x in samples]) / len(samples) ** 2
    df = shares.sum() ** 2 / sum(share**2 / (len(x) - 1) for share, x in zip(shares, samples, strict=True))
    mean = np.mean([x.mean() for x in samples])
    expected = reference.t(df, mean, np.sqrt(shares.sum()))
    result = comparison.result
    assert (result.effect, result.df, result.seeds) == pytest.approx((mean, df, min(map(len, samples))))
    assert (result.low, result.high) == pytest.approx(expected.interval(0.95))
    margin, direction = claim.get("margin", np.nan), claim.get("direction", "higher")
    for part in (comparison, *judged.per_task):
        low, high = part.result.low, part.result.high
        if direction == "lower":
            low, high = -high, -low
        above = margin if claim.get("by_margin") or direction == "equal" else 0.0
        below = -margin if direction == "equal" else 0.0
        words = {EQUAL: -margin < low and high < margin, BETTER: low > above, WORSE: high < below, UNDECIDED: True}
        assert part.result.verdict == next(word for word, holds in words.items() if holds)
    claimed = EQUAL if direction == "equal" else BETTER
    against = {BETTER, WORSE} - {claimed}
    word = result.verdict
    assert judged.verdict == (SUPPORTED if word == claimed else CONTRADICTED if word in against else word)
    assert (judged.p_value < 0.05) == (word != UNDECIDED)


def test_the_variants_lead_to_every_verdict(table: pd.DataFrame) -> None:
    claims = [
        {key: value for key, value in {**CLAIM, **changes, "id": str(i)}.items() if value is not None}
        for i, changes in enumerate(VARIANTS)
    ]
    judged = judge(Evidence("made-up", table, NO_RATES), claims)
    assert {v.verdict for v in judged} == {SUPPORTED, CONTRADICTED, EQUAL, UNDECIDED}
    assert CANNOT not in {v.verdict for v in judged}


def test_runs_that_never_reach_a_level_are_counted_and_named(table: pd.DataFrame) -> None:
    claim = {**CLAIM, "when": "rollouts_to", "level": 1.6, "direction": "lower"}
    notes = " ".join(judge(Evidence("e", table, NO_RATES), [claim])[0].notes)
    last = table[(table["objective"] == "GRPO") & (table["num_rollouts"] == 64) & (table["task"] == "a")]
    never = (last.groupby("seed")["entropy"].max() < 1.6).sum()
    assert 0 < never < 7
    assert f"GRPO: {never} of 7 runs never reach 1.6" in notes


def test_a_level_that_is_reached_before_training_has_no_ratio(table: pd.DataFrame) -> None:
    """Of one side or of both; the other tasks are compared all the same."""
    for names in (["GRPO"], ["GRPO", "MaxRL"]):
        begun = (table["step"] == 0) & table["objective"].isin(names) & (table["task"] == "a")
        claim = {**CLAIM, "when": "rollouts_to", "level": 1.2, "direction": "lower"}
        judged = judge(Evidence("e", table.assign(entropy=table["entropy"].mask(begun, 1.5)), NO_RATES), [claim])[0]
        assert "a: a run has entropy of 1.2 before training, so no ratio exists" in judged.notes
        assert [c.task for c in judged.per_task] == ["b", "ccc"]
