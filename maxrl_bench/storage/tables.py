"""The tables of an experiment's runs: results/<experiment>/, what is committed, and all that figures read.

metrics.csv.xz  pass_rates.csv.xz  provenance.json

>>> import maxrl_bench
>>> tables = maxrl_bench.load("objectives")
>>> tables.metrics.groupby("objective")["pass@1"].max()
"""

from __future__ import annotations

import lzma
import os
import re
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from maxrl_bench.config import SETTINGS as SETTINGS  # columns where in IDENTITY, and else wherever runs differ
from maxrl_bench.inputs import JSON_BYTES, from_json, read_bytes, read_json, unxz
from maxrl_bench.names import did_you_mean, is_name, shorten
from maxrl_bench.storage.files import inside, is_locked, write_file
from maxrl_bench.storage.formats import Origin, checksum, from_csv, to_csv, to_json
from maxrl_bench.storage.store import FORMAT, LOCKS, STORE

FILES = METRICS, PASS_RATES, ORIGIN = "metrics.csv.xz", "pass_rates.csv.xz", "provenance.json"
RUNS = "runs"  # of the provenance: what it tells of each run has a checksum, too
# Columns of the metrics table that come from the configuration; the others come from the run, in its order.
IDENTITY = (
    "run",
    "task",
    "family",
    "objective",
    "objective_name",
    "num_rollouts",
    "batch_size",
    "learning_rate",
    "train_instances",
    "seed",
)
PASS_RATE_COLUMNS = ("run", "step", "instance", "pass_rate", "n", "grad_norm")
WRITING_SECONDS = 10.0  # that another process may take to replace tables


class Tables(NamedTuple):
    """An experiment's results: one row per (run, evaluation), one per (run, step, instance), and their origin."""

    metrics: pd.DataFrame
    pass_rates: pd.DataFrame
    provenance: dict[str, Any]


def pack(csv: bytes) -> bytes:
    """A table as its file holds it, compressed: tables are committed."""
    return lzma.compress(csv)


def unpack(name: str, data: bytes) -> bytes:
    """The inverse of `pack`. Raises ValueError, naming the file, where it is damaged."""
    return unxz(data, name)


def experiments(root: str | Path = "results") -> list[str]:
    """The experiments that have tables, whole or not, by name; folders that no experiment can have are passed over."""
    files = (Path(root, name, file) for name in _names(root) for file in FILES)
    return sorted({path.parent.name for path in files if os.path.lexists(path)})


def _names(root: str | Path) -> list[str]:
    try:
        return [name for name in os.listdir(root) if is_name(name) and name != STORE]
    except OSError:
        return []


def load(experiment: str | os.PathLike[str] | Tables, root: str | Path = "results") -> Tables:
    """An experiment's results as tidy data frames, from results/<experiment>/.

    `experiment` is its name, or the path of its folder of tables ("elsewhere/results/objectives"); tables that are
    loaded already are returned as they are.
    `metrics` has one row per (run, evaluation): the configuration in brief (IDENTITY, and of SETTINGS whatever else the
    runs differ in), step, rollouts and seconds spent
    in training, pass@k, log_p, entropy and the diagnostics. `pass_rates` has one row per (run, step, instance): the
    pass rate, exact where n = 0, else from n samples, and the norm of the gradient that the objective draws from that
    instance alone, where it was measured. Raises ValueError, one line, if there are none or they are not
    whole.
    """
    if isinstance(experiment, Tables):
        return experiment
    if not isinstance(experiment, str | os.PathLike):
        raise ValueError(f"load takes an experiment's name, its folder or its tables, got {shorten(experiment)}")
    if isinstance(experiment, os.PathLike) or os.sep in experiment or "/" in experiment:
        folder = Path(experiment)
        experiment, root = folder.name, folder.parent
    lock, deadline = Path(root) / STORE / LOCKS / f"tables-{experiment}.lock", time.monotonic() + WRITING_SECONDS
    while True:
        before = _stamps(experiment, root)
        try:
            return _load(experiment, root)
        except ValueError:
            # They may have been read while a sweep was replacing them, file by file.
            replaced = is_locked(lock) or _stamps(experiment, root) != before
            if not replaced or time.monotonic() > deadline:
                raise
        time.sleep(0.02)


def _stamps(experiment: str, root: str | Path) -> list[tuple[int, int] | None]:
    stamps: list[tuple[int, int] | None] = []
    for name in (ORIGIN, METRICS, PASS_RATES):
        try:
            status = (Path(root) / experiment / name).lstat()
        except (OSError, ValueError):
            stamps.append(None)
        else:
            stamps.append((status.st_ino, status.st_mtime_ns))
    return stamps


def _load(experiment: str, root: str | Path) -> Tables:
    folder = inside(root, experiment)
    try:
        origin = _read_origin(inside(root, experiment, ORIGIN))
        if origin.format != FORMAT.strip():
            raise ValueError(f"{folder} was written by an incompatible version; run its sweep again")
        metrics, pass_rates = (
            _read_table(inside(root, experiment, name), origin.checksums.get(name)) for name in (METRICS, PASS_RATES)
        )
    except FileNotFoundError as error:
        missing = Path(str(error.filename)).name
        hint = (
            f"it has no {missing}" if folder.is_dir() else did_you_mean(experiment, experiments(root) or ["none yet"])
        )
        raise ValueError(f"no results of experiment {shorten(experiment)} in {root}: {hint}") from None
    check_tables(metrics, pass_rates, f"{folder}/", "; run its sweep again")
    metrics = _named_as_now(metrics)
    untold = Origin(format=origin.format, checksums={}).model_dump()
    return Tables(metrics, pass_rates, {**untold, **origin.model_dump(exclude_unset=True)})


def origin_of(experiment: str, root: str | Path = "results", *, whole: bool = False) -> Origin:
    """What the provenance of an experiment's tables tells, without reading them.

    Raises ValueError, one line, where it is damaged, and FileNotFoundError where there is none. With `whole`,
    ValueError too unless it and both tables match their checksums.
    """
    origin = _read_origin(inside(root, experiment, ORIGIN))
    if whole:
        path = inside(root, experiment, ORIGIN)
        if checksum(to_json(read_json(path)[RUNS])) != origin.checksums.get(RUNS):
            raise ValueError(f"{path} does not match its checksum")
        for name in (METRICS, PASS_RATES):
            _read_whole(inside(root, experiment, name), origin.checksums.get(name))
    return origin


def _read_origin(path: Path) -> Origin:
    data = read_bytes(path, JSON_BYTES)
    try:
        origin: Origin = from_json(data, ORIGIN, Origin)
    except ValueError as error:
        raise ValueError(f"{path} is damaged ({error}); run its sweep again") from None
    return origin


def _read_whole(path: Path, expected: str | None) -> bytes:
    """The CSV of a table. Raises ValueError unless it matches its checksum."""
    try:
        data = unpack(path.name, read_bytes(path))
        whole = checksum(data) == expected  # of the text: compressors differ in their bytes
    except FileNotFoundError:
        raise
    except ValueError:
        whole = False
    if not whole:
        raise ValueError(f"{path} does not match its checksum; `maxrl-bench sweep {path.parent.name}` mends it")
    return data


def _read_table(path: Path, expected: str | None) -> pd.DataFrame:
    data = _read_whole(path, expected)
    try:
        return from_csv(data)
    except ValueError as error:
        raise ValueError(f"{path} is no table ({' '.join(str(error).split())}); run its sweep again") from None


def _named_as_now(metrics: pd.DataFrame) -> pd.DataFrame:
    """The metrics table with the objective "pkpo" of older tables as what it was: pkpo_plain.

    Newer tables have no "pkpo": it has become a name to ask by, which stands for pkpo_loo and is stored as that.
    """
    old = metrics["objective_name"] == "pkpo"
    if not old.any():
        return metrics
    labels = metrics["objective"].str.replace("PKPO", "PKPO (plain)", n=1, regex=False)
    names = metrics["objective_name"].where(~old, "pkpo_plain")
    return metrics.assign(objective=metrics["objective"].where(~old, labels), objective_name=names)


def check_tables(metrics: pd.DataFrame, pass_rates: pd.DataFrame, where: str = "tables: ", remedy: str = "") -> None:
    """Raises ValueError, one line, unless both tables have the columns and kinds of values that they must have."""
    _check_columns(f"{where}{METRICS}", metrics, (*IDENTITY, "step"), remedy)
    _check_columns(f"{where}{PASS_RATES}", pass_rates, PASS_RATE_COLUMNS[:-1], remedy)  # older ones have no gradients


def _check_columns(path: str, table: pd.DataFrame, columns: Iterable[str], remedy: str) -> None:
    """Raises ValueError unless a table has these columns, and numbers where numbers belong."""
    for name in columns:
        if name not in table:
            raise ValueError(f"{path} has no column '{name}'{remedy}")
    for name in map(str, table):
        if name.startswith("pass@") and not _PASS_AT_K.fullmatch(name):
            raise ValueError(f"{path}: column {shorten(name)} is no pass@k{remedy}")
    if table.empty:
        raise ValueError(f"{path} has no rows{remedy}")
    for name in table:
        numbers = name in _NUMBERS or name.startswith("pass@")
        if numbers and not pd.api.types.is_numeric_dtype(table[name]):
            raise ValueError(f"{path}: column '{name}' must hold numbers{remedy}")
        rates = name == "pass_rate" or name.startswith("pass@")
        if rates and not table[name].dropna().between(0, 1).all():
            raise ValueError(f"{path}: column '{name}' must hold rates in [0, 1]{remedy}")


_PASS_AT_K = re.compile(r"pass@[1-9][0-9]{0,9}")
_TEXTS = ("run", "task", "family", "objective", "objective_name")
_NUMBERS = ({*IDENTITY, *PASS_RATE_COLUMNS} - {*_TEXTS}) | {"rollouts", "seconds", "log_p", "entropy"}


def export(experiment: str, path: str | Path, root: str | Path = "results") -> None:
    """Write an experiment's metrics table to a new .csv or .parquet file.

    Raises ValueError on another ending, if something is there already, and where Parquet is asked for but pyarrow is
    not installed.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in (".csv", ".parquet"):
        raise ValueError(f"{path}: cannot export to {shorten(path.suffix)}; accepted: .csv, .parquet")
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; remove it, or export to another file")
    table = load(experiment, root).metrics
    if suffix == ".csv":
        data = to_csv(table)
    else:
        try:
            data = table.to_parquet(engine="pyarrow", index=False)
        except ImportError:
            raise ValueError("Parquet needs pyarrow: pip install 'maxrl-bench[parquet]'") from None
    try:
        write_file(path, data)
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
