"""Whether a claim can be judged at all: its runs, tasks and columns looked for in what an experiment asks for.

The rule: a claim must name runs that the experiment has under the profile asked for, or at least under one of the
file's profiles. Under a profile that leaves it without runs (`smoke` may replace an axis) its verdict is then "cannot
be judged". A claim that names several runs per seed is refused under every profile in which it does.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from maxrl_bench.config import SETTINGS, RunConfig, cell
from maxrl_bench.names import did_you_mean, label, shorten
from maxrl_bench.objectives.table import bind
from maxrl_bench.storage.columns import METRICS
from maxrl_bench.sweeps.claim_model import Claim, Side

if TYPE_CHECKING:
    from maxrl_bench.sweeps.experiment import Experiment

MOST_PAIRS = 1_000_000  # of a comparison and a run
Row = Mapping[str, Any]


class Absent(ValueError):
    """A claim names runs, tasks or columns that do not exist."""


def check_claims(
    claims: Sequence[Claim], runs: Sequence[RunConfig], elsewhere: Callable[[], Iterable[Sequence[RunConfig]]]
) -> None:
    """Raise ValueError, in one line that names the claim and the key, unless each claim can be judged.

    runs: those of the profile asked for; elsewhere: makes those of each of the file's other profiles.
    """
    rows = rows_of(runs) if claims else []
    _bound(claims, rows)
    others: list[list[Row]] | None = None
    for claim in claims:
        try:
            check_claim(claim, rows)
        except Absent as absent:
            if others is None:
                others = [rows_of(profile) for profile in elsewhere()]
                _bound(claims, [row for profile in others for row in profile])
            if not any(_has(claim, profile) for profile in others):
                raise absent from None


def _bound(claims: Sequence[Claim], rows: Sequence[Row]) -> None:
    """Raises ValueError where all claims together compare among too many runs to be checked in a few seconds."""
    comparisons = sum(len(claim.against) for claim in claims)
    if comparisons * len(rows) > MOST_PAIRS:
        raise ValueError(
            f"its claims make {comparisons} comparisons, each among {len(rows)} runs (not counting seeds); the product "
            f"must be at most {MOST_PAIRS}"
        )


def _has(claim: Claim, rows: Sequence[Row]) -> bool:
    try:
        check_claim(claim, rows)
    except ValueError:
        return False
    return True


def check_columns(experiment: Experiment) -> None:
    """Raise ValueError, in one line that names the file, where a claim's metric is no column that training writes."""
    for claim in experiment.claims:
        for metric in claim.metric:
            if metric not in METRICS:
                name = f"{experiment.path}: claim {shorten(claim.id)}: key 'metric'"
                raise ValueError(f"{name}: there is no column {shorten(metric)}; {did_you_mean(metric, METRICS)}")


def check_claim(claim: Claim, rows: Sequence[Row]) -> None:
    """Raise ValueError (`Absent` where there are no such runs) unless rows hold the runs that a claim compares."""
    name = f"claim {shorten(claim.id)}"
    tasks = dict.fromkeys(row["task"] for row in rows)
    for task in claim.tasks or ():
        if task not in tasks:
            raise Absent(f"{name}: key 'tasks': no run is on {shorten(task)}; {did_you_mean(task, tasks)}")
    if claim.tasks:
        rows = [row for row in rows if row["task"] in claim.tasks]
    parts = [("compare", claim.compare), *(("against", side) for side in claim.against), ("where", claim.where)]
    for key, side in [*parts, *(("gain", side) for side in claim.gain or ())]:
        if not any(side.matches(row) for row in rows):
            raise Absent(f"{name}: key '{key}': {_missing(side, rows)}")
    for against in claim.against:
        where = [set(select(side, rows, name)) for _, side in claim.terms(against)]
        if not set.intersection(*where):
            for (_, side), there in zip(claim.terms(against), where, strict=True):
                if not there:
                    raise Absent(f"{name}: no run is of {side}")
            raise Absent(f"{name}: {claim.compare} and {against} have no runs on a common task and seed")


def select(side: Side, rows: Iterable[Row], name: str) -> dict[tuple[str, int], Row]:
    """The rows that one side of a claim names, by task and seed; row["seeds"]: of its runs, finished or not.

    Raises ValueError where a seed has several rows on one task.
    """
    selected: dict[tuple[str, int], Row] = {}
    for row in rows:
        if side.matches(row):
            for seed in row["seeds"]:
                other = selected.setdefault((row["task"], seed), row)
                if other is not row:
                    differing = [key for key in ("objective", *SETTINGS) if row.get(key) != other.get(key)]
                    hint = f"tell them apart by {' or '.join(differing)}" if differing else "they differ in no column"
                    raise ValueError(f"{name}: {side or 'a side'} names several runs per seed on {row['task']}; {hint}")
    return selected


def _missing(side: Side, rows: Sequence[Row]) -> str:
    """The settings of one side of a claim that no run has."""
    if not any(side.names(row) for row in rows):
        return _no_objective(side.objective, rows)
    for key, value in side.settings.items():
        values = list(dict.fromkeys(row[key] for row in rows))
        if cell(value) not in values:
            shown = ", ".join(map(str, values[:10]))
            return f"no run has {key} = {cell(value)}; the runs have {shown}"
    return f"no run is of {side}"


def _no_objective(objective: Any, rows: Sequence[Row]) -> str:
    names = dict.fromkeys(row["objective_name"] for row in rows)
    labels = dict.fromkeys(row["objective"] for row in rows)
    if isinstance(objective, str):
        return f"no run has objective {shorten(objective)}; {did_you_mean(objective, [*names, *labels])}"
    if objective.name in names:
        most = max(row["num_rollouts"] for row in rows if row["objective_name"] == objective.name)
        try:
            bind(objective.name, most, **objective.options)
        except ValueError as error:
            return str(error)
    return f"no run has objective {shorten(label(objective))}; {did_you_mean(label(objective), [*names, *labels])}"


def rows_of(runs: Iterable[RunConfig]) -> list[Row]:
    """Runs as the metrics table identifies them; those that differ in their seed alone are one row, with `run` one."""
    values = operator.attrgetter(*SETTINGS)
    rows: dict[Any, dict[str, Any]] = {}
    for run in runs:
        # Runs share their tables, and most of what they hold; the keys of what they hold would take a second more.
        settings = tuple(id(value) if isinstance(value, Mapping) else value for value in values(run))
        row = rows.get((id(run.task), id(run.objective), settings))
        if row is None:
            identity: dict[str, Any] = {"task": run.task_label, "seeds": [], "run": run}
            identity |= {"objective": run.objective_label, "objective_name": run.objective.name}
            row = identity | {name: cell(getattr(run, name)) for name in SETTINGS}
            rows[id(run.task), id(run.objective), settings] = row
        row["seeds"].append(run.seed)
    return list(rows.values())
