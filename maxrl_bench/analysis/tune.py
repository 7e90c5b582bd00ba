"""Write the learning rates that `rates` chooses into learning_rates.toml, for `learning_rate = "tuned"`."""

from __future__ import annotations

import os
from collections.abc import Container, Iterable, Mapping, Sequence
from pathlib import Path

import pandas as pd

from maxrl_bench import inputs
from maxrl_bench.analysis import rates_file
from maxrl_bench.analysis.rates import CRITERIA, GROUP, Choice, areas, choose, wanted
from maxrl_bench.config import SETTINGS, RunConfig, brief
from maxrl_bench.names import did_you_mean, label, shorten
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.files import write_file
from maxrl_bench.storage.store import STORE, Store
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.grid import Rates, rate_name, tuned_rate
from maxrl_bench.sweeps.rate_rule import Group, group_of, later_rates, with_rate
from maxrl_bench.sweeps.recipes import LEARNING_RATES, beside
from maxrl_bench.sweeps.seeds import grown

_HEADER = "# Chosen by `maxrl-bench tune` from results/{}/: largest {} on the validation split."


def tune(experiment: Experiment, results_root: Path, criterion: str = "pass@1") -> str:
    """Write the choice by a criterion into learning_rates.toml beside the experiment; returns a summary.

    Rates are chosen for each objective with its knobs and its number of rollouts; a bare name stands for the knobs (or
    numbers of rollouts) that were not tried, with the best mean over those that were. Rates with which a run failed
    take no part. What else the file holds stays as it is, comments too; it is read back before it replaces the old
    one. Raises ValueError, and leaves the file as it was, where runs or values are missing, the experiment evaluates on
    another split than validation or varies more than these, or the file cannot be edited.
    """
    if criterion not in CRITERIA:
        raise ValueError(f"there is no criterion {shorten(criterion)}; {did_you_mean(criterion, CRITERIA)}")
    if any(run.eval_split != "validation" for run in experiment.runs):
        raise ValueError(
            f'{experiment.path}: learning rates are chosen on held-out data: set eval_split = "validation"'
        )
    _refuse_other_axes(experiment)
    tables = results.load(experiment.name, results_root)
    if experiment.extends:
        asked = {*tables.metrics["run"], *tables.provenance["missing"]}
        experiment = grown(experiment, [config for config in later_rates(experiment) if config.hash in asked])
    runs = {run.hash: run for run in experiment.runs}
    _refuse_unfinished(experiment, set(tables.metrics["run"]), Store(results_root / STORE, create=False))
    kept, walls = usable(runs, set(tables.metrics["run"]))
    table = scored(tables.metrics, kept)
    found = {name: choose(table, name) for name in CRITERIA}
    entries = _entries(found[criterion], table, criterion, kept.values())
    path = beside(experiment.path) / LEARNING_RATES
    header = _HEADER.format(experiment.name, CRITERIA[criterion].format(128))
    old = inputs.read_text(path) if os.path.lexists(path) else f"{header}\n"
    text = rates_file.merge(old, entries, str(path))
    read = Rates(inputs.from_toml(text, str(path)), path)
    chosen = {choice[:3]: choice.rate for choice in found[criterion]}
    for config in kept.values():
        of = config.task, config.objective, config.num_rollouts, config.optimizer
        if tuned_rate([read], *of) != chosen[group_of(config)]:
            raise ValueError(f"{path}: another entry stands before that of {label(config.objective)}; take it out")
    write_file(path, text.encode())
    return f"{path}: {len(chosen)} learning rates chosen by the {CRITERIA[criterion].format(128)}" + _notes(
        found, walls
    )


def scored(metrics: pd.DataFrame, runs: Mapping[str, RunConfig]) -> pd.DataFrame:
    """`areas` of some runs, named and rated as their configurations are, which may differ from the tables."""
    own = metrics[metrics["run"].isin(runs)]
    groups = [group_of(runs[run]) for run in own["run"]]
    rate = [runs[run].learning_rate for run in own["run"]]
    return areas(own.assign(**dict(zip(GROUP, zip(*groups, strict=True), strict=True)), learning_rate=rate))


def usable(runs: Mapping[str, RunConfig], done: Container[str]) -> tuple[dict[str, RunConfig], dict[Group, set[float]]]:
    """Of runs that have ended, those at rates with which none failed; and the other rates, by group."""
    walls: dict[Group, set[float]] = {}
    for run, config in runs.items():
        if run not in done:
            walls.setdefault(group_of(config), set()).add(config.learning_rate)
    kept = {run: config for run, config in runs.items() if config.learning_rate not in walls.get(group_of(config), ())}
    return kept, walls


def _refuse_unfinished(experiment: Experiment, there: Container[str], store: Store) -> None:
    missing = [run.hash for run in experiment.runs if run.hash not in there]
    unfinished = sum(store.status(run) != "failed" for run in missing)
    if unfinished:
        total = len(experiment.runs)
        raise ValueError(f"{experiment.path}: {unfinished} of {total} runs have no result; finish the sweep first")


def next_rates(experiment: Experiment, metrics: pd.DataFrame) -> tuple[list[RunConfig], list[str]]:
    """The runs beyond the ends of the range at which a best rate stands, and a line for each; all runs have ended.

    Raises ValueError where values are missing.
    """
    kept, walls = usable({run.hash: run for run in experiment.runs}, set(metrics["run"]))
    if not kept:
        return [], []
    table = scored(metrics, kept)
    found = [choice for criterion in CRITERIA for choice in choose(table, criterion)]
    more = [(group, rate) for group, rates in sorted(wanted(found, walls).items()) for rate in rates]
    runs = [config for group, rate in more for config in with_rate(experiment, group, rate)]
    return runs, [f"{task} {objective} N={n}: tries {rate:g}" for (task, objective, n), rate in more]


def _entries(
    chosen: Sequence[Choice], table: pd.DataFrame, criterion: str, runs: Iterable[RunConfig]
) -> dict[str, dict[str, float]]:
    """The entries of the file, by task: of each choice, and of names that stand for several."""
    entries: dict[str, dict[str, float]] = {}
    several = table.groupby(["task", "objective_name"])["num_rollouts"].nunique() > 1
    optimizers = {group_of(config): config.optimizer for config in runs}
    for choice in chosen:
        at = choice.num_rollouts if several[choice.task, choice.objective] else None
        name = rate_name(choice.objective, at, optimizers[choice[:3]])
        entries.setdefault(choice.task, {})[name] = choice.rate
    bare = {label(brief(config.objective)): str(config.objective.name) for config in runs}
    under = [optimizers[group] for group in zip(*(table[key] for key in GROUP), strict=True)]
    for names in ({name: name for name in bare}, bare):  # over numbers of rollouts, then over knobs
        pooled = table.assign(objective_name=table["objective_name"].map(names), optimizer=under)
        for (task, name, optimizer), rows in pooled.groupby(["task", "objective_name", "optimizer"]):
            entries[str(task)].setdefault(rate_name(str(name), None, str(optimizer)), _pooled(rows, criterion))
    return entries


def _pooled(rows: pd.DataFrame, criterion: str) -> float:
    """The rate with the best mean over variants, of the rates that most of them were tried with; the smallest such."""
    means = rows.groupby("learning_rate")[criterion].agg(["mean", "size"])
    return float(means[means["size"] == means["size"].max()]["mean"].idxmax())


def _notes(found: Mapping[str, Sequence[Choice]], walls: Mapping[Group, Iterable[float]]) -> str:
    """What a reader should know of the choices, a line each: ends of the range, doubt, and what the criteria say."""
    lines = [
        f"{task} {name} N={n}: runs fail at {', '.join(f'{r:g}' for r in sorted(w))}"
        for (task, name, n), w in walls.items()
    ]
    for criterion, choices in found.items():
        for one in choices:
            whose = f"{one.task} {one.objective} N={one.num_rollouts}, {criterion}: {one.rate:g}"
            if one.edge:
                lines.append(f"{whose} is the {one.edge} rate tried")
            if not one.is_sure and one.next == one.next:
                few = one.low != one.low
                interval = "with too few seeds for an interval" if few else f"[{one.low:+.3g}, {one.high:+.3g}]"
                lines.append(f"{whose} is not sure: {one.difference:+.3g} {interval} to {one.next:g}")
    return "".join(f"\n  {line}" for line in lines)


def _refuse_other_axes(experiment: Experiment) -> None:
    """One rate is stored for each task, objective and N: the runs behind it may differ in rates and seeds only."""
    first: dict[Group, RunConfig] = {}
    for run in experiment.runs:
        other = first.setdefault(group_of(run), run)
        for name in SETTINGS:
            if name != "learning_rate" and getattr(run, name) != getattr(other, name):
                raise ValueError(
                    f"{experiment.path}: a learning rate is stored for each task, objective and N, so key '{name}' "
                    f"must have one value for {run.task_label} with {label(run.objective)}"
                )
