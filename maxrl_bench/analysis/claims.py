"""Claims, which an experiment file states before its runs, and the verdicts that the runs give on them.

    [[claims]]
    id = "pareto"
    statement = "MaxRL beats GRPO and RLOO on pass@1 and on pass@128"
    metric = ["pass@1", "pass@128"]        # columns of the metrics table
    when = "final"                         # final | best | area | drop (best minus final) | rollouts_to (needs level)
    compare = { objective = "maxrl_alg1" } # settings of runs; objective: a name or a label
    against = [{ objective = "grpo" }, { name = "maxrl_order", order = 8 }]  # or as in a grid, with knobs
    where = { num_rollouts = 64 }          # optional: asked of both sides
    gain = { num_rollouts = [4, 256] }     # optional: compare what each side gains from the first value to the second
    tasks = ["fourrooms"]                  # optional: else every task on which both sides have runs
    direction = "higher"                   # higher: above the threshold; lower: below minus it; equal: within both
    threshold = 0.0                        # the smallest difference worth the name; negative: what may be lost

Each metric with each opponent is a comparison: the difference, paired by seed (and by held-out instance), averaged over
tasks. **The rule.** *supported*: for every comparison the 95 % interval lies wholly beyond the threshold on the claimed
side, and the paired t test over seeds (the largest p of the claim's comparisons, Holm-corrected over the claims of the
experiment) has p < 0.05. *not supported*: some comparison's interval lies wholly on the other side of the threshold.
*cannot be judged*: some comparison lacks runs, values or seeds; the notes say which. *inconclusive*: all else.

What a claim says, and that the experiment has such runs, is checked before the first run (`claim_model`,
`claim_check`). rollouts_to is compared as a binary logarithm of the ratio; runs that never reach the level
count with all their rollouts, and are named.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.sweeps.claim_check import select
from maxrl_bench.sweeps.claim_model import Claim, Side, number, read_claim

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE, CANNOT = "supported", "not supported", "inconclusive", "cannot be judged"
SIGNIFICANCE = 0.05


class NoEvidence(Exception):
    """A claim cannot be judged for lack of data; the message says which."""


@dataclass(frozen=True)
class Comparison:
    """One metric with one opponent, over all tasks together (task "") or on one."""

    metric: str
    ours: str
    theirs: str
    task: str
    effect: stats.Estimate
    p_value: float
    verdict: str
    seeds_needed: float = math.nan  # to tell a difference of this size from the threshold; NaN where not asked


@dataclass
class Verdict:
    """A claim, its verdict with the comparisons behind it, and notes on what limits it."""

    id: str
    statement: str
    test: str
    verdict: str = CANNOT
    p_value: float = math.nan  # Holm-corrected over the claims of the experiment
    comparisons: list[Comparison] = field(default_factory=list)
    per_task: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def judge(evidence: Evidence, claims: Sequence[Mapping[str, Any] | Claim]) -> list[Verdict]:
    """The verdict on each claim, in their order. One that cannot be read or judged says why, and leaves the others."""
    verdicts = [_judge_alone(evidence, claim, position) for position, claim in enumerate(claims, 1)]
    adjusted = stats.holm([v.p_value for v in verdicts])
    for verdict, p in zip(verdicts, adjusted, strict=True):
        verdict.p_value = float(p)
        if verdict.verdict == SUPPORTED and not p < SIGNIFICANCE:
            verdict.verdict = INCONCLUSIVE
            verdict.notes.append(f"the intervals agree with the claim, but p = {p:.2g} after Holm's correction")
    return verdicts


def _judge_alone(evidence: Evidence, table: Mapping[str, Any] | Claim, position: int) -> Verdict:
    try:
        claim = read_claim(table, position)
    except ValueError as error:
        texts = {} if isinstance(table, Claim) else table
        named = str(texts.get("id", position)), str(texts.get("statement", ""))
        return Verdict(*named, "", notes=[str(error)])
    verdict = Verdict(claim.id, claim.statement, claim.test)
    try:
        _judge(evidence, claim, verdict)
    except NoEvidence as reason:
        verdict.notes.append(str(reason))
    except Exception as error:  # odd data of one claim must not prevent the figures and the other verdicts
        verdict.notes.append(f"{type(error).__name__}: {error}")
    return verdict


def _judge(evidence: Evidence, claim: Claim, verdict: Verdict) -> None:
    for metric in claim.metric:
        for against in claim.against:
            differences = _differences(evidence, claim, metric, against, verdict.notes)
            sides = _label(evidence, claim.compare), _label(evidence, against)
            common = {task: _cut(d, differences) for task, d in differences.items()}
            verdict.comparisons.append(_compare(claim, metric, sides, "", list(common.values())))
            if len(differences) > 1:
                verdict.per_task += [_compare(claim, metric, sides, task, [d]) for task, d in differences.items()]
    outcomes = {c.verdict for c in verdict.comparisons}
    if CANNOT in outcomes:
        seeds = min(c.effect.seeds for c in verdict.comparisons)
        raise NoEvidence(f"{seeds} seed{'s' * (seeds > 1)}, and an interval needs {stats.FEWEST_SEEDS}")
    verdict.p_value = max(c.p_value for c in verdict.comparisons)
    verdict.verdict = (
        SUPPORTED if outcomes == {SUPPORTED} else NOT_SUPPORTED if NOT_SUPPORTED in outcomes else INCONCLUSIVE
    )
    for short in verdict.comparisons:
        if short.verdict == INCONCLUSIVE and short.effect.seeds < short.seeds_needed < math.inf:
            verdict.notes.append(
                f"at this spread about {short.seeds_needed:.0f} seeds would tell {short.metric} against {short.theirs} "
                "from the threshold, if it is as measured"
            )


def _cut(scores: np.ndarray, all_scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tasks are averaged seed by seed: where one has fewer seeds than another, the first ones of each are taken."""
    return scores[: min(len(s) for s in all_scores.values())]


def _differences(
    evidence: Evidence, claim: Claim, metric: str, against: Side, notes: list[str]
) -> dict[str, np.ndarray]:
    """Per task ours minus theirs, [S] or [S, I] on common seeds; a `gain` is a difference of differences.

    Tasks without such runs or values are left out, and noted where they are asked for. Raises NoEvidence if all are.
    """
    if not evidence.has(metric):
        raise NoEvidence(f"the tables hold no values of {metric}")
    terms = claim.terms(against)
    differences: dict[str, np.ndarray] = {}
    for task in claim.tasks or evidence.tasks:
        chosen = [_runs(evidence, task, side) for _, side in terms]
        groups = evidence.in_common(chosen)
        if not groups[0]:
            if claim.tasks or all(chosen):
                notes.append(f"no runs to compare on {task}")
            continue
        scores = [evidence.scores(runs, metric, claim.when, claim.level or 0.0) for runs in groups]
        if claim.level is not None:
            scores = [
                _log_rollouts(evidence, runs, needed, claim.level, notes)
                for runs, needed in zip(groups, scores, strict=True)
            ]
        if len({s.shape for s in scores}) > 1:  # instances are stored for one side only
            scores = [stats.by_seed(s) for s in scores]
        with np.errstate(invalid="ignore"):  # two runs that need no rollouts have no ratio
            difference = np.sum([factor * s for (factor, _), s in zip(terms, scores, strict=True)], axis=0)
        if np.isfinite(difference).all():
            differences[task] = difference
        elif any(np.isneginf(s).any() for s in scores):
            notes.append(
                f"{task}: a run has {metric} of {number(claim.level or 0.0)} before training, so no ratio exists"
            )
        else:
            notes.append(f"no values of {metric} on {task}")
    if not differences:
        raise NoEvidence(f"no runs with common seeds and values of {metric} for {claim.compare} and {against}")
    return differences


def _runs(evidence: Evidence, task: str, side: Side) -> list[str]:
    """The runs of a side on a task, by seed."""
    rows = [{**row, "run": run, "seeds": [row["seed"]]} for run, row in evidence.runs.items() if row["task"] == task]
    return [str(row["run"]) for _, row in sorted(select(side, rows, "runs").items(), key=lambda item: item[0])]


def _log_rollouts(
    evidence: Evidence, runs: Sequence[str], needed: np.ndarray, level: float, notes: list[str]
) -> np.ndarray:
    budget = evidence.curves(runs, "rollouts", "step")[1][:, -1]
    censored = ~np.isfinite(needed)
    if censored.any():
        name = evidence.runs[runs[0]]["objective"]
        notes.append(
            f"{name}: {int(censored.sum())} of {len(runs)} runs never reach {number(level)}: the effect is a bound"
        )
    with np.errstate(divide="ignore"):
        return np.log2(np.where(censored, budget, needed))


def _compare(claim: Claim, metric: str, sides: tuple[str, str], task: str, differences: list[np.ndarray]) -> Comparison:
    effect = stats.estimate(differences)
    low, high = claim.bounds
    ends = [end for end in claim.bounds if math.isfinite(end)]
    tests = [stats.paired_p_value(differences, end) for end in ends]
    needed = math.nan
    if len(ends) == 1:
        p, needed = tests[0], stats.seeds_needed(differences, ends[0])
    else:  # two one-sided tests: both limits must be beaten
        mean = float(np.mean([stats.by_seed(d) for d in differences]))
        p = max(tests) / 2 if low < mean < high else 1.0
    if math.isnan(effect.low) or math.isnan(effect.high):
        verdict = CANNOT
    elif low < effect.low and effect.high < high:
        verdict = SUPPORTED
    elif effect.high < low or effect.low > high:
        verdict = NOT_SUPPORTED
    else:
        verdict = INCONCLUSIVE
    return Comparison(metric, *sides, task, effect, p, verdict, needed)


def _label(evidence: Evidence, side: Side) -> str:
    """The side as legends name it, where its objective has one label only."""
    labels = {row["objective"] for row in evidence.runs.values() if side.objective and side.names(row)}
    return str(Side(labels.pop(), side.settings) if len(labels) == 1 else side)
