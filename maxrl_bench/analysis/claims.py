"""Claims, which an experiment file states before its runs, and the verdicts that the runs give on them.

    [[claims]]
    id = "pareto"
    statement = "MaxRL beats GRPO and RLOO on pass@1 and on pass@128"
    metric = ["pass@1", "pass@128"]        # columns of the metrics table
    when = "final"                         # the last evaluation | last_three (the mean of the last three) | best | area
                                           # | drop (best minus final) | rollouts_to (needs level) | collapsed (1 or 0)
                                           # | front (at equal pass@1) | samples (log2 of how many times fewer)
    compare = { objective = "maxrl_alg1" } # settings of runs; objective: a name or a label
    against = [{ objective = "grpo" }, { name = "maxrl_order", order = 8 }]  # or as in a grid, with knobs
    where = { num_rollouts = 64 }          # optional: asked of both sides
    gain = { num_rollouts = [4, 256] }     # optional: compare what each side gains from the first value to the second
    tasks = ["fourrooms"]                  # optional: else every task on which both sides have runs
    every_task = false                     # true: each task is a comparison by itself, instead of their mean
    direction = "higher"                   # higher: better is above 0; lower: better is below; equal: within the margin
    margin = 0.02                          # the smallest difference worth the name; of pass@k, 0.02 if nothing is said
    by_margin = false                      # true: better means by more than the margin

Each metric with each opponent is a comparison: the difference, paired by seed (and by held-out instance), averaged over
tasks (with every_task, of one task), and judged by `compare`; what the comparisons of a claim say together,
`compare.combine` says. The verdicts of all claims of a profile are one family (`compare.settle`).

What a claim says, and that the experiment has such runs, is checked before the first run (`claim_model`,
`claim_check`). rollouts_to is compared as a binary logarithm of the ratio; runs that never reach the level
count with all their rollouts, and are named.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.compare import CANNOT, COLLAPSE_SEEDS, FEWEST_SEEDS, Comparison, combine, compare
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.pairs import PAIRS
from maxrl_bench.sweeps.claim_check import select
from maxrl_bench.sweeps.claim_model import Claim, Side, number, read_claim

OTHER_MOMENT = {"final": "last_three", "last_three": "final"}  # what a table shows beside a final score


class Differences(NamedTuple):
    """Ours minus theirs on a task, by seed: [S] seeds, and scores [S] or [S, I]."""

    seeds: list[int]
    scores: np.ndarray


class NoEvidence(Exception):
    """A claim cannot be judged for lack of data; the message says which."""


@dataclass(frozen=True)
class Compared:
    """One metric with one opponent, over all tasks together (task "") or on one."""

    metric: str
    ours: str
    theirs: str
    task: str
    when: str
    result: Comparison


@dataclass
class Verdict:
    """A claim, what its comparisons say of it on its own, and notes on what limits it."""

    id: str
    statement: str
    test: str
    verdict: str = CANNOT
    p_value: float = math.nan
    comparisons: list[Compared] = field(default_factory=list)
    per_task: list[Compared] = field(default_factory=list)
    other_moment: list[Compared] = field(default_factory=list)  # of final scores; part of no verdict
    notes: list[str] = field(default_factory=list)


def judge(evidence: Evidence, claims: Sequence[Mapping[str, Any] | Claim]) -> list[Verdict]:
    """What each claim's comparisons say, in their order; `compare.settle` makes verdicts of a family's.

    One that cannot be read or judged says why, and leaves the others.
    """
    return [_judge_alone(evidence, claim, position) for position, claim in enumerate(claims, 1)]


def readable(claims: Sequence[Mapping[str, Any] | Claim]) -> list[Claim]:
    """Those claims that can be read; `judge` says of the others why not."""
    found = []
    for position, table in enumerate(claims, 1):
        with contextlib.suppress(ValueError):
            found.append(read_claim(table, position))
    return found


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
            sides = label_of(evidence, claim.compare), label_of(evidence, against)
            differences = _differences(evidence, claim, metric, against, claim.when, verdict.notes)
            collapsed = {task: _collapsed(evidence, claim, against, task) for task in differences}

            asked = claim, metric, sides
            alone = [
                _compare(evidence, *asked, claim.when, {task: scores}, collapsed, task)
                for task, scores in differences.items()
            ]
            if claim.every_task:
                verdict.comparisons += alone
            else:
                verdict.comparisons.append(_compare(evidence, *asked, claim.when, differences, collapsed))
                verdict.per_task += alone if len(alone) > 1 else []
            if other := OTHER_MOMENT.get(claim.when):
                with contextlib.suppress(NoEvidence):  # pass@k for a k that was not measured along training
                    beside = _differences(evidence, claim, metric, against, other, [])
                    parts = {task: {task: own} for task, own in beside.items()} if claim.every_task else {"": beside}
                    verdict.other_moment += [
                        _compare(evidence, *asked, other, part, collapsed, task) for task, part in parts.items()
                    ]
    results = [c.result for c in verdict.comparisons]
    seeds = min(result.seeds for result in results)
    if seeds < FEWEST_SEEDS:
        raise NoEvidence(f"{seeds} seed{'s' * (seeds > 1)}, and an interval needs {FEWEST_SEEDS}")
    verdict.verdict, verdict.p_value = combine(results)
    collapses = max(result.collapsed for result in results)
    if collapses and seeds < COLLAPSE_SEEDS:
        verdict.notes.append(
            f"up to {collapses} of the runs compared collapsed: no interval of {seeds} seeds holds, and nothing is "
            f"declared below {COLLAPSE_SEEDS}"
        )


def _compare(
    evidence: Evidence,
    claim: Claim,
    metric: str,
    sides: tuple[str, str],
    when: str,
    differences: Mapping[str, Differences],
    collapsed: Mapping[str, int],
    task: str = "",
) -> Compared:
    result = compare(
        strata(differences, evidence.first),
        margin=claim.margin_of(metric),
        direction=claim.direction,
        by_margin=claim.by_margin,
        collapsed=sum(collapsed.get(name, 0) for name in differences),
        first=evidence.first,
    )
    return Compared(metric, *sides, task, when, result)


def strata(differences: Mapping[str, Differences], first: int | None) -> list[np.ndarray]:
    """The scores of each task; where seeds were added one by one (`first`), of the seeds that all tasks have.

    Raises NoEvidence where there are none.
    """
    if first is None:
        return [own.scores for own in differences.values()]
    common = set.intersection(*(set(own.seeds) for own in differences.values()))
    if not common:
        raise NoEvidence("no seed has runs on all tasks")
    return [own.scores[[seed in common for seed in own.seeds]] for own in differences.values()]


def _collapsed(evidence: Evidence, claim: Claim, against: Side, task: str) -> int:
    """How many of the runs compared on a task collapsed."""
    groups = evidence.in_common([runs_of(evidence, task, side) for _, side in claim.terms(against)])
    return sum(evidence.collapsed(run) for run in {run for runs in groups for run in runs})


def _differences(
    evidence: Evidence, claim: Claim, metric: str, against: Side, when: str, notes: list[str]
) -> dict[str, Differences]:
    """Per task ours minus theirs, on common seeds; a `gain` is a difference of differences.

    Tasks without such runs or values are left out, and noted where they are asked for. Raises NoEvidence if all are,
    and, of a claim about every task, if one is.
    """
    if not evidence.has(metric):
        raise NoEvidence(f"the tables hold no values of {metric}")
    terms = claim.terms(against)
    differences: dict[str, Differences] = {}
    left_out = False
    for task in claim.tasks or evidence.tasks:
        chosen = [runs_of(evidence, task, side) for _, side in terms]
        groups = evidence.in_common(chosen)
        if not groups[0]:
            if claim.tasks or all(chosen):
                left_out = True
                notes.append(f"no runs to compare on {task}")
            continue
        every = [run for runs in groups for run in runs]
        lacking, asked = evidence.missing(every, metric) if when != "start" else (0, 0)
        if lacking:
            notes.append(f"{task}: {lacking} of {asked} values of {metric} are missing; their evaluations are left out")
        if when in PAIRS:
            difference, told = PAIRS[when](evidence, groups[0], groups[1], metric)
            notes += [f"{task}: {note}" for note in told]
        else:
            scores = _scores(evidence, claim, metric, when, groups, notes)
            with np.errstate(invalid="ignore"):  # two runs that need no rollouts have no ratio
                difference = np.sum([factor * s for (factor, _), s in zip(terms, scores, strict=True)], axis=0)
            if any(np.isneginf(s).any() for s in scores):
                level = number(claim.level or 0.0)
                notes.append(f"{task}: a run has {metric} of {level} before training, so no ratio exists")
        if np.isfinite(difference).all():
            differences[task] = Differences(evidence.seeds(groups[0]), difference)
        else:
            left_out = True
            notes.append(f"no values of {metric} on {task}")
    if not differences:
        raise NoEvidence(f"no runs with common seeds and values of {metric} for {claim.compare} and {against}")
    if claim.every_task and left_out:
        raise NoEvidence("it is a claim about every task")
    return differences


def _scores(
    evidence: Evidence, claim: Claim, metric: str, when: str, groups: Sequence[Sequence[str]], notes: list[str]
) -> list[np.ndarray]:
    """One number per run of each group (or per run and instance), all of one shape."""
    every = [run for runs in groups for run in runs]
    scores = [evidence.scores(runs, metric, when, claim.level or 0.0, every) for runs in groups]
    if claim.level is not None:
        scores = [
            _log_rollouts(evidence, runs, needed, claim.level, notes)
            for runs, needed in zip(groups, scores, strict=True)
        ]
    # Instances may be stored for one side only.
    return [stats.by_seed(s) for s in scores] if len({s.shape for s in scores}) > 1 else scores


def runs_of(evidence: Evidence, task: str, side: Side) -> list[str]:
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


def label_of(evidence: Evidence, side: Side) -> str:
    """The side as legends name it, where its objective has one label only."""
    labels = {row["objective"] for row in evidence.runs.values() if side.objective and side.names(row)}
    return str(Side(labels.pop(), side.settings) if len(labels) == 1 else side)
