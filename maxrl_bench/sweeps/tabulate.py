"""The finished runs of an experiment, joined into its tables: results/<experiment>/."""

from __future__ import annotations

import json
from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maxrl_bench.config import SETTINGS, RunConfig, cell
from maxrl_bench.storage import columns
from maxrl_bench.storage.files import inside, tidy, write_file
from maxrl_bench.storage.formats import checksum, to_csv, to_json
from maxrl_bench.storage.locks import held
from maxrl_bench.storage.store import FORMAT, TAKEN_FROM, Finished, Store
from maxrl_bench.storage.tables import (
    IDENTITY,
    METRICS,
    ORIGIN,
    PASS_RATE_COLUMNS,
    PASS_RATES,
    RUNS,
    Tables,
    load,
    pack,
)
from maxrl_bench.sweeps import sources
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.tasks import all_tasks

# Columns that every run has, with or without values; not so pass@k, nor what a user's own run function measures.
_ALWAYS = {*IDENTITY, *(name for name in columns.METRICS if not name.startswith("pass@"))}
DIGITS = 6  # of the numbers in the tables, so that a reference set is small enough to be committed


def write_tables(
    experiment: Experiment, store: Store, root: str | Path = "results", *, only: Mapping[str, str] | None = None
) -> Tables | None:
    """Join the finished runs of an experiment into results/<experiment>/; None if there are none.

    `only` names the runs to take, each with the fingerprint of the code that must have made it ("": any); what another
    version of the code is putting into the same store meanwhile is left out.

    Rows are in the order of the experiment's runs, then by step; numbers have 6 digits. Pass rates are those of each
    run's first and last evaluation. What is missing is named in the provenance. Raises ValueError if the folder
    holds the tables of another experiment file.
    """
    sources.check(experiment, root)
    tables = join(experiment, root, taking(store, only))
    if tables is None:
        return None
    contents = {METRICS: to_csv(tables.metrics), PASS_RATES: to_csv(tables.pass_rates)}
    summed = contents | {RUNS: to_json(tables.provenance[RUNS])}
    summary = tables.provenance | {"checksums": {name: checksum(data) for name, data in summed.items()}}
    folder = inside(root, experiment.name)
    with held(store, f"tables-{experiment.name}"):
        tidy(folder)
        # The checksums first: a kill in between leaves tables that do not match, never ones that wrongly do.
        write_file(inside(root, experiment.name, ORIGIN), to_json(summary))
        for name, data in contents.items():
            write_file(inside(root, experiment.name, name), pack(data))
        return load(experiment.name, root)


def taking(store: Store, only: Mapping[str, str] | None) -> Callable[[str], Finished | None]:
    """A function that takes a finished run from a store: None if it is not there, or is not what `only` asks for."""

    def take(run: str) -> Finished | None:
        finished = store.finished(run) if only is None or run in only else None
        other = finished is not None and only and only[run] and finished.provenance.get("code") != only[run]
        return None if other else finished

    return take


def join(experiment: Experiment, root: str | Path, take: Callable[[str], Finished | None]) -> Tables | None:
    """The tables of an experiment's finished runs, as `write_tables` has them but for the checksums; None without."""
    metrics, pass_rates, made = [], [], {}
    families = {name: entry.family for name, entry in all_tasks().items()}
    extra = varied(experiment.runs)
    for config in experiment.runs:
        run = config.hash
        finished = take(run)
        if finished is None:
            continue
        rows, rates = finished.metrics, finished.pass_rates
        identity = _identity(config, families, extra)
        rows = rows.drop(columns=[name for name in identity if name in rows])
        metrics.append(pd.concat([pd.DataFrame([identity] * len(rows), index=rows.index), rows], axis=1))
        ends = rates[rates["step"].isin((rates["step"].min(), rates["step"].max()))]
        pass_rates.append(ends.assign(run=run).reindex(columns=list(PASS_RATE_COLUMNS)))
        made[run] = finished.provenance
    if not metrics:
        return None
    first = (*IDENTITY, *extra)
    runs, made_by = _origins(made)
    summary = {
        "format": FORMAT.strip(),
        "experiment": experiment.name,
        "question": experiment.question,
        **sources.record(experiment, root),
        "runs": runs,
        # With their identities, so that figures can name the cells of the grid that are empty.
        "missing": {c.hash: _identity(c, families, extra) for c in experiment.runs if c.hash not in made},
        "made_by": made_by,
        "eval_splits": sorted({config.eval_split for config in experiment.runs}),
    }
    if experiment.seeds is not None:
        summary["seeds"] = experiment.seeds.model_dump()
    return Tables(_table(metrics, first, (*first, *columns.METRICS)), _table(pass_rates), summary)


def varied(configs: Iterable[RunConfig]) -> list[str]:
    """The settings outside IDENTITY in which some runs differ: columns of their table of metrics."""
    values: dict[str, set[Any]] = {}
    for config in configs:
        for name in SETTINGS:
            if name not in IDENTITY:
                values.setdefault(name, set()).add(cell(getattr(config, name)))
    return [name for name in SETTINGS if len(values.get(name, ())) > 1]


def _identity(config: RunConfig, families: Mapping[str, str], extra: Iterable[str]) -> dict[str, Any]:
    known = {
        "run": config.hash,
        "task": config.task_label,
        "family": families[config.task.name],
        "objective": config.objective_label,
        "objective_name": config.objective.name,
    }
    others = [name for name in IDENTITY if name not in known]
    return known | {name: cell(getattr(config, name)) for name in (*others[:-1], *extra, others[-1])}


def _table(parts: list[pd.DataFrame], keep: Container[str] = (), order: Sequence[str] = ()) -> pd.DataFrame:
    """Parts of a table as one, with numbers to DIGITS digits but in the columns to keep.

    The columns in `order` come first, in that order. Columns without any value are left out, unless every run has them:
    so the same runs give the same table whatever tables they were taken back from.
    """
    table = pd.concat(parts, ignore_index=True)
    empty = {name for name in table if name not in _ALWAYS and table[name].isna().all()} if order else set()
    table = table[sorted(table.columns.drop(empty), key=lambda name: [*order, name].index(name))]
    for name in table.select_dtypes("float"):
        if name not in keep:
            table[name] = [float(f"{value:.{DIGITS}g}") for value in table[name]]
    return table


def _origins(made: Mapping[str, Mapping[str, Any]]) -> tuple[dict[str, dict[str, Any]], list[dict[str, Any]]]:
    """What is told of each run, and the distinct environments (packages, machine) with the number of runs of each."""
    own = ("code", "seconds", "wall_seconds", "peak_memory_mb", TAKEN_FROM)
    counts: dict[str, int] = {}
    keys: dict[str, str] = {}
    for run, provenance in made.items():
        keys[run] = json.dumps({k: v for k, v in provenance.items() if k not in own}, sort_keys=True)
        counts[keys[run]] = counts.get(keys[run], 0) + 1
    number = {key: i for i, key in enumerate(counts)}
    runs = {
        run: {"wall_seconds": p.get("wall_seconds"), "code": p.get("code"), "made_by": number[keys[run]]}
        for run, p in made.items()
    }
    return runs, [{**json.loads(key), "runs": count} for key, count in counts.items()]
