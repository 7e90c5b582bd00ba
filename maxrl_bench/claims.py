"""Claims fixed in an experiment file before its runs, and what the runs say of them.

    [[claims]]
    id = "pareto"
    statement = "MaxRL beats GRPO and RLOO on pass@1 and on pass@128"
    metric = ["pass@1", "pass@128"]        # columns of the metrics table
    when = "final"                         # final | best | area | drop (best minus final) | rollouts_to (needs level)
    compare = { objective = "maxrl_alg1" } # columns of the metrics table; objective: a name or a label
    against = [{ objective = "grpo" }, { objective = "rloo" }]
    where = { num_rollouts = 64 }          # optional: asked of both sides
    gain = { num_rollouts = [4, 256] }     # optional: compare what each side gains from the first value to the second
    tasks = ["fourrooms"]                  # optional: else every task on which both sides have runs
    direction = "higher"                   # higher | lower | equal (to within the threshold)
    threshold = 0.0                        # the smallest difference worth the name

Each metric with each opponent is a comparison: the difference, paired by seed (and by held-out instance), averaged over
tasks. **The rule.** *supported*: for every comparison the 95 % interval lies wholly beyond the threshold on the claimed
side, and the paired t test over seeds (the largest p of the claim's comparisons, Holm-corrected over the claims of the
experiment) has p < 0.05. *not supported*: some comparison's interval lies wholly on the other side of the threshold.
*inconclusive*: all else. rollouts_to is compared as a binary logarithm of the ratio; runs that never reach the level
count with all their rollouts, and are named.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from maxrl_bench import stats
from maxrl_bench.evidence import Evidence

SUPPORTED, NOT_SUPPORTED, INCONCLUSIVE = "supported", "not supported", "inconclusive"
SIGNIFICANCE = 0.05
_CHOICES = {
    "when": ("final", "best", "area", "drop", "rollouts_to"),
    "direction": ("higher", "lower", "equal"),
}
_REQUIRED = ("id", "statement", "metric", "compare", "against")
_OPTIONAL = ("when", "where", "gain", "tasks", "direction", "threshold", "level")
_SELECTORS = ("objective", "objective_name", "num_rollouts", "batch_size", "learning_rate", "train_instances")


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
    """A claim, what was found, and the note on what limits it."""

    id: str
    statement: str
    test: str
    verdict: str = INCONCLUSIVE
    p_value: float = math.nan  # Holm-corrected over the claims of the experiment
    comparisons: list[Comparison] = field(default_factory=list)
    per_task: list[Comparison] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def check_claims(claims: Sequence[Mapping[str, Any]]) -> None:
    """Raise ValueError, in one line that names the claim and the key, unless all claims are well formed."""
    seen = set()
    for number, claim in enumerate(claims, 1):
        name = f"claim '{claim.get('id', number)}'"
        for key in claim:
            if key not in _REQUIRED + _OPTIONAL:
                near = difflib.get_close_matches(key, _REQUIRED + _OPTIONAL, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"accepted: {', '.join(_REQUIRED + _OPTIONAL)}"
                raise ValueError(f"{name}: key '{key}' is unknown; {hint}")
        for key in _REQUIRED:
            if not claim.get(key):
                raise ValueError(f"{name}: key '{key}' is missing")
        if claim["id"] in seen:
            raise ValueError(f"{name}: this id is taken; ids must differ")
        seen.add(claim["id"])
        for key, accepted in _CHOICES.items():
            if claim.get(key, accepted[0]) not in accepted:
                raise ValueError(f"{name}: key '{key}' must be one of {', '.join(accepted)}, got {claim[key]!r}")
        for side in (claim["compare"], *_listed(claim["against"]), claim.get("where", {}), claim.get("gain", {})):
            if not isinstance(side, Mapping):
                raise ValueError(
                    f'{name}: compare, against, where and gain are tables, such as {{ objective = "grpo" }}'
                )
            for key in side:
                if key not in _SELECTORS:
                    raise ValueError(f"{name}: cannot select runs by '{key}'; accepted: {', '.join(_SELECTORS)}")
        if any(not isinstance(v, list) or len(v) != 2 for v in claim.get("gain", {}).values()):
            raise ValueError(f"{name}: key 'gain' needs two values per setting, such as {{ num_rollouts = [4, 256] }}")
        if (claim.get("when") == "rollouts_to") != ("level" in claim):
            raise ValueError(f"{name}: key 'level' goes with when = \"rollouts_to\", and only with it")
        if claim.get("direction") == "equal" and not claim.get("threshold", 0) > 0:
            raise ValueError(f'{name}: direction = "equal" needs a threshold above 0')


def judge(evidence: Evidence, claims: Sequence[Mapping[str, Any]]) -> list[Verdict]:
    """The verdict on each claim, in their order. Raises ValueError on a malformed claim."""
    check_claims(claims)
    verdicts = [_judge_one(evidence, claim) for claim in claims]
    adjusted = stats.holm([v.p_value for v in verdicts])
    for verdict, p in zip(verdicts, adjusted, strict=True):
        verdict.p_value = float(p)
        if verdict.verdict == SUPPORTED and not p < SIGNIFICANCE:
            verdict.verdict = INCONCLUSIVE
            verdict.notes.append(f"the intervals agree with the claim, but p = {p:.2g} after Holm's correction")
    return verdicts


def _judge_one(evidence: Evidence, claim: Mapping[str, Any]) -> Verdict:
    verdict = Verdict(claim["id"], claim["statement"], describe(claim))
    for metric in _listed(claim["metric"]):
        for against in _listed(claim["against"]):
            differences = _differences(evidence, claim, metric, against, verdict.notes)
            if not differences:
                both = f"{_name(claim['compare'])} and {_name(against)}"
                verdict.notes.append(f"no runs with common seeds and values of {metric} for {both}")
                return verdict
            sides = _label(evidence, claim["compare"]), _label(evidence, against)
            common = {task: _cut(d, differences) for task, d in differences.items()}
            verdict.comparisons.append(_compare(claim, metric, sides, "", list(common.values())))
            if len(differences) > 1:
                found = [_compare(claim, metric, sides, task, [d]) for task, d in differences.items()]
                verdict.per_task += found
    outcomes = {c.verdict for c in verdict.comparisons}
    verdict.verdict = (
        SUPPORTED if outcomes == {SUPPORTED} else NOT_SUPPORTED if NOT_SUPPORTED in outcomes else INCONCLUSIVE
    )
    verdict.p_value = max(c.p_value for c in verdict.comparisons)
    short = [c for c in verdict.comparisons if c.verdict == INCONCLUSIVE and c.effect.seeds < c.seeds_needed < math.inf]
    for one in short:
        verdict.notes.append(
            f"at this spread about {one.seeds_needed:.0f} seeds would tell {one.metric} against {one.theirs} "
            "from the threshold, if it is as measured"
        )
    if any(math.isnan(c.effect.low) for c in verdict.comparisons):
        verdict.notes.append(f"fewer than {stats.FEWEST_SEEDS} seeds: no interval")
    return verdict


def _cut(scores: np.ndarray, all_scores: Mapping[str, np.ndarray]) -> np.ndarray:
    """Tasks are averaged seed by seed: where one has fewer seeds than another, the first ones of each are taken."""
    return scores[: min(len(s) for s in all_scores.values())]


def _differences(
    evidence: Evidence, claim: Mapping[str, Any], metric: str, against: Mapping[str, Any], notes: list[str]
) -> dict[str, np.ndarray]:
    """Per task ours minus theirs, [S] or [S, I] on common seeds; a `gain` is a difference of differences."""
    if metric not in evidence.metrics:
        return {}
    when, level = claim.get("when", "final"), float(claim.get("level", 0))
    # (+) ours and (-) theirs; with a gain, each side at the second value minus itself at the first.
    gain = claim.get("gain", {})
    ends = (
        [(-1.0, {k: v[0] for k, v in gain.items()}), (1.0, {k: v[1] for k, v in gain.items()})] if gain else [(1.0, {})]
    )
    terms = [
        (sign * factor, {**claim.get("where", {}), **side, **fixed})
        for sign, side in ((1.0, claim["compare"]), (-1.0, against))
        for factor, fixed in ends
    ]
    found = {}
    for task in claim.get("tasks") or evidence.tasks:
        groups = evidence.in_common([evidence.select(task, where) for _, where in terms])
        if not groups[0]:
            if claim.get("tasks"):
                notes.append(f"no runs to compare on {task}")
            continue
        scores = [evidence.scores(runs, metric, when, level) for runs in groups]
        if when == "rollouts_to":
            scores = [_log_rollouts(evidence, runs, s, level, notes) for runs, s in zip(groups, scores, strict=True)]
        if len({s.shape for s in scores}) > 1:  # instances are stored for one side only
            scores = [stats.by_seed(s) for s in scores]
        difference = np.sum([factor * s for (factor, _), s in zip(terms, scores, strict=True)], axis=0)
        if np.isfinite(difference).all():
            found[task] = difference
        else:
            notes.append(f"no values of {metric} on {task}")
    return found


def _log_rollouts(
    evidence: Evidence, runs: Sequence[str], needed: np.ndarray, level: float, notes: list[str]
) -> np.ndarray:
    budget = evidence.curves(runs, "rollouts", "step")[1][:, -1]
    censored = ~np.isfinite(needed)
    if censored.any():
        name = evidence.runs[runs[0]]["objective"]
        notes.append(f"{name}: {int(censored.sum())} of {len(runs)} runs never reach {level:g}: the effect is a bound")
    with np.errstate(divide="ignore"):
        return np.log2(np.where(censored, budget, needed))


def _compare(
    claim: Mapping[str, Any], metric: str, sides: tuple[str, str], task: str, differences: list[np.ndarray]
) -> Comparison:
    effect = stats.estimate(differences)
    threshold, direction = float(claim.get("threshold", 0)), claim.get("direction", "higher")
    low, high = effect.low, effect.high
    needed = math.nan
    if direction == "equal":
        # Two one-sided tests: both limits must be beaten.
        mean = float(np.mean([stats.by_seed(d) for d in differences]))
        tests = [stats.paired_p_value(differences, sign * threshold) / 2 for sign in (-1, 1)]
        p = max(tests) if abs(mean) < threshold else 1.0
        agrees, contradicts = -threshold < low and high < threshold, low > threshold or high < -threshold
    elif direction == "higher":
        p, needed = stats.paired_p_value(differences, threshold), stats.seeds_needed(differences, threshold)
        agrees, contradicts = low > threshold, high < threshold
    else:
        p, needed = stats.paired_p_value(differences, -threshold), stats.seeds_needed(differences, -threshold)
        agrees, contradicts = high < -threshold, low > -threshold
    verdict = SUPPORTED if agrees else NOT_SUPPORTED if contradicts else INCONCLUSIVE
    return Comparison(metric, *sides, task, effect, p, verdict, needed)


def describe(claim: Mapping[str, Any]) -> str:
    """The test in words: "final pass@1 and pass@128 of maxrl_alg1 minus grpo and rloo, higher than 0"."""
    when = {"area": "mean over training of", "drop": "loss (best minus final) of", "final": "final", "best": "best"}
    metrics = " and ".join(_listed(claim["metric"]))
    if claim.get("when") == "rollouts_to":
        what = f"log2 of the rollouts until {metrics} reaches {claim['level']:g}"
    else:
        what = f"{when[claim.get('when', 'final')]} {metrics}"
    for setting, (low, high) in claim.get("gain", {}).items():
        what += f", gained from {setting} = {low:g} to {high:g}"
    sides = f"{_name(claim['compare'])} minus {' and '.join(_name(a) for a in _listed(claim['against']))}"
    if claim.get("where"):
        sides += f" ({_name(claim['where'])})"
    direction, threshold = claim.get("direction", "higher"), float(claim.get("threshold", 0))
    bound = {"higher": f"above {threshold:g}", "lower": f"below {-threshold:g}", "equal": f"within ±{threshold:g}"}
    return f"{what}: {sides}, {bound[direction]}".replace("below -0,", "below 0,").replace("below -0", "below 0")


def _label(evidence: Evidence, side: Mapping[str, Any]) -> str:
    """The side as legends name it, where its objective has one label only."""
    labels = {row["objective"] for row in evidence.runs.values() if row["objective_name"] == side.get("objective")}
    return _name({**side, "objective": labels.pop()} if len(labels) == 1 else side)


def _name(side: Mapping[str, Any]) -> str:
    return ", ".join(str(v) if k.startswith("objective") else f"{k} = {v}" for k, v in side.items())


def _listed(value: Any) -> list[Any]:
    return list(value) if isinstance(value, list | tuple) else [value]
