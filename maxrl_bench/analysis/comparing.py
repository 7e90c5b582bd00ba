"""Two objectives compared on the tables of an experiment: `maxrl_bench.compare`."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.claims import Differences, NoEvidence, label_of, runs_of, strata
from maxrl_bench.analysis.compare import MARGIN, Comparison
from maxrl_bench.analysis.compare import compare as judge
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.names import did_you_mean, shorten
from maxrl_bench.storage.tables import Tables, load
from maxrl_bench.sweeps.claim_check import check_claim
from maxrl_bench.sweeps.claim_model import Claim, read_claim

MOMENTS = ("start", "final", "best", "area", "drop")


@dataclass(frozen=True, repr=False)
class Compared:
    """Two objectives in one metric: their mean difference over tasks, and that on each task."""

    metric: str
    when: str
    ours: str
    theirs: str
    mean: Comparison
    per_task: Mapping[str, Comparison]
    notes: tuple[str, ...]  # which tasks are left out

    @property
    def effect(self) -> float:
        """The mean difference over tasks: above 0 where ours is higher."""
        return self.mean.effect

    @property
    def interval(self) -> tuple[float, float]:
        """The 95 % interval of `effect`; NaN where there are too few seeds for one."""
        return self.mean.low, self.mean.high

    @property
    def verdict(self) -> str:
        """What the interval says of ours: better, worse, practically equal, undecided or cannot be judged."""
        return self.mean.verdict

    def __repr__(self) -> str:
        lines = [f"{self.when} {self.metric}, {self.ours} minus {self.theirs}: {_in_words(self.mean)}"]
        if len(self.per_task) > 1:
            width = max(map(len, self.per_task))
            lines += [f"  {task:<{width}}  {_in_words(one)}" for task, one in self.per_task.items()]
        return "\n".join([*lines, *(f"  note: {note}" for note in self.notes)])


def _in_words(one: Comparison) -> str:
    seeds = f"{one.seeds} seed{'s' * (one.seeds != 1)}"
    return f"{one.effect:+.4g} [{one.low:+.4g}, {one.high:+.4g}], {seeds}: {one.verdict}"


def compare(
    tables: Tables | str | os.PathLike[str],
    ours: str | Mapping[str, Any],
    theirs: str | Mapping[str, Any],
    *,
    metric: str = "pass@1",
    when: str = "final",
    tasks: str | Sequence[str] | None = None,
    where: Mapping[str, Any] | None = None,
    margin: float | None = None,
) -> Compared:
    """How much higher a metric is under one objective than under another, and how sure that is.

    tables: what `maxrl_bench.run` and `maxrl_bench.load` return, or what `load` takes. ours, theirs: an objective's
    name or label, or a table with knobs. metric: a column of the metrics table, or pass@k for any k (of final pass
    rates; at most as many as the rollouts behind them where these are sampled). when: "start", "final", "best", "area"
    (mean over training) or "drop" (best minus final). tasks: by default all that both have runs on. where: settings of
    the runs meant, such as {"num_rollouts": 64}. margin: the smallest difference worth the name, of pass@k 0.02; see
    `maxrl_bench.analysis.compare`, which judges. Runs are paired by seed and held-out instance.
    Raises ValueError, one line, on anything that the tables do not hold, with what they do.
    """
    evidence = Evidence.of(load(tables))
    claim = _claim(evidence, metric, when, ours, theirs, tasks, where)
    if margin is not None and (isinstance(margin, bool) or not isinstance(margin, int | float)):
        raise ValueError(f"compare: margin must be a number above 0, got {shorten(margin)}")
    if margin is None and metric.startswith("pass@"):
        margin = MARGIN
    notes: list[str] = []
    scores: dict[str, Differences] = {}
    for task in claim.tasks or evidence.tasks:
        chosen = [runs_of(evidence, task, side) for _, side in claim.terms(claim.against[0])]
        groups = evidence.in_common(chosen)
        if not groups[0]:
            notes += [f"no runs with common seeds on {task}"] if claim.tasks or all(chosen) else []
            continue
        both = [evidence.scores(runs, metric, when) for runs in groups]
        if len({s.shape for s in both}) > 1:  # instances are stored for one side only
            both = [stats.by_seed(s) for s in both]
        if all(np.isfinite(s).all() for s in both):
            scores[task] = Differences(evidence.seeds(groups[0]), both[0] - both[1])
        else:
            notes.append(f"no values of {metric} on {task}")
    if not scores:
        raise ValueError(f"compare: {'; '.join(notes)}")
    try:
        mean = judge(strata(scores, evidence.first), margin=margin, first=evidence.first)
        per_task = {task: judge([own.scores], margin=margin, first=evidence.first) for task, own in scores.items()}
    except (ValueError, NoEvidence) as error:
        raise ValueError(f"compare: {error}") from None
    labels = [label_of(evidence, side) for side in (claim.compare, claim.against[0])]
    return Compared(metric, when, labels[0], labels[1], mean, per_task, tuple(notes))


def _claim(evidence: Evidence, metric: Any, when: Any, ours: Any, theirs: Any, tasks: Any, where: Any) -> Claim:
    """What is asked, checked as what an experiment file claims is. Raises ValueError."""
    if not isinstance(metric, str):
        raise ValueError(f"compare: key 'metric' must be one metric, such as \"pass@10\", got {shorten(metric)}")
    if when not in MOMENTS:
        raise ValueError(f"compare: key 'when': there is no moment {shorten(when)}; {did_you_mean(when, MOMENTS)}")
    table: dict[str, Any] = {"id": "compare", "statement": "one is better", "metric": metric, "when": when}
    table |= {"compare": {"objective": ours}, "against": {"objective": theirs}}
    if tasks is not None and not isinstance(tasks, str | Sequence):
        raise ValueError(f"compare: key 'tasks' must be a list of names, got {shorten(tasks)}")
    table |= {"tasks": [tasks] if isinstance(tasks, str) else list(tasks)} if tasks is not None else {}
    table |= {"where": where} if where is not None else {}
    try:
        claim = read_claim(table)
        check_claim(claim, [{**row, "seeds": [row["seed"]]} for row in evidence.runs.values()])
    except ValueError as error:
        raise ValueError(str(error).replace("claim 'compare'", "compare")) from None
    if not evidence.has(metric) or (when != "final" and metric not in evidence.metrics):
        raise ValueError(f"compare: key 'metric': {_no_values(evidence, metric)}")
    return claim


def _no_values(evidence: Evidence, metric: str) -> str:
    if evidence.has(metric):
        along = ", ".join(f"pass@{k}" for k in evidence.ks)
        return f"the tables have {metric} at the end of training only; along it, {along}"
    if metric.startswith("pass@"):
        return f"there is no {metric}: the pass rates are of {evidence.pass_rates['n'].max()} rollouts each"
    columns = [str(column) for column in evidence.metrics if evidence.has(str(column))]
    return f"the tables have no column {shorten(metric)}; {did_you_mean(metric, columns)}"
