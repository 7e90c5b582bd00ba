"""Counts of successes of somebody's own prompts, from CSV, Parquet or JSON lines."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from maxrl_bench import inputs
from maxrl_bench.names import shorten
from maxrl_bench.objectives.formula import MAX_ROLLOUTS

COLUMNS = ("successes", "attempts")
PROMPT = "prompt"  # an optional column: the rows of one prompt are added up
SUFFIXES = (".csv", ".parquet", ".jsonl", ".ndjson")


@dataclass(frozen=True)
class Counts:
    """Successes [M] and attempts [M], int64, of M prompts."""

    successes: np.ndarray
    attempts: np.ndarray


def read_counts(path: str | os.PathLike[str], columns: Sequence[str] = COLUMNS) -> Counts:
    """The counts in a file that ends in .csv, .parquet, .jsonl or .ndjson: one row per prompt, or several to be added.

    columns: what the file calls successes and attempts. Rows with the same value in a column `prompt`, if there is one,
    are of one prompt. Raises ValueError, one line, on any other file, on a column that is not there, and on the first
    row whose counts cannot be: no whole numbers, negative, more successes than attempts, or no attempts.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"{path}: counts cannot be read from {shorten(path.suffix)}; accepted: {', '.join(SUFFIXES)}")
    _check_names(columns)
    data = inputs.read_bytes(path)
    if suffix == ".csv":
        return from_frame(_from_csv(data, str(path), columns), columns, str(path))
    if suffix == ".parquet":
        return from_frame(_from_parquet(data, str(path), columns), columns, str(path))
    return from_frame(_from_json_lines(data, str(path), columns), columns, str(path))


def from_frame(table: pd.DataFrame, columns: Sequence[str] = COLUMNS, source: str = "the data frame") -> Counts:
    """The counts in a data frame, as `read_counts` takes them from a file; errors name `source`, and rows from 1."""
    _check_names(columns)
    _check_columns(list(table), columns, source)
    if table.empty:
        raise ValueError(f"{source} holds no prompts")
    successes, attempts = (_whole(table[name], f"{source}: column '{name}'") for name in columns)
    _refuse(successes < 0, successes, f"{source}: column '{columns[0]}'", "must not be negative")
    _refuse(attempts < 1, attempts, f"{source}: column '{columns[1]}'", "must be 1 or more")
    above = successes > attempts
    if above.any():
        at = int(np.argmax(above))
        raise ValueError(f"{source}: row {at + 1} has {successes[at]} successes in {attempts[at]} attempts")
    if PROMPT in table:
        codes, names = pd.factorize(table[PROMPT], use_na_sentinel=False)
        successes, attempts = (np.bincount(codes, part, len(names)).astype(np.int64) for part in (successes, attempts))
    _refuse(attempts > MAX_ROLLOUTS, attempts, f"{source}: attempts", f"must be at most {MAX_ROLLOUTS}")
    return Counts(successes, attempts)


def _check_names(columns: Sequence[str]) -> None:
    if isinstance(columns, str) or len(columns) != 2 or not all(isinstance(name, str) for name in columns):
        raise ValueError(f"columns are two names, of successes and of attempts, got {shorten(columns)}")


def _whole(values: pd.Series, where: str) -> np.ndarray:
    """A column as int64."""
    missing = values.isna().to_numpy()
    if missing.any():
        raise ValueError(f"{where}: row {np.argmax(missing) + 1} has no number")
    array = values.to_numpy()
    if array.dtype.kind == "b" or any(type(value) is bool for value in (array if array.dtype.kind == "O" else ())):
        _refuse(
            np.array([isinstance(value, bool | np.bool_) for value in array]), array, where, "must be a whole number"
        )
    numbers = pd.to_numeric(values, errors="coerce").to_numpy(np.float64)  # what is no number becomes NaN
    _refuse(~((np.floor(numbers) == numbers) & (np.abs(numbers) < 2**53)), array, where, "must be a whole number")
    return numbers.astype(np.int64)


def _refuse(wrong: np.ndarray, values: np.ndarray, where: str, rule: str) -> None:
    if wrong.any():
        at = int(np.argmax(wrong))
        value = values[at].item() if isinstance(values[at], np.generic) else values[at]
        raise ValueError(f"{where}: row {at + 1} {rule}, got {shorten(value)}")


def _check_columns(has: Sequence[str], wanted: Sequence[str], source: str) -> list[str]:
    """The columns to read."""
    for name in wanted:
        if name not in has:
            there = ", ".join(map(shorten, has[:20])) or "none"
            raise ValueError(
                f"{source} has no column '{name}' (it has: {there}); --columns SUCCESSES ATTEMPTS names yours"
            )
    return [name for name in dict.fromkeys((*wanted, PROMPT)) if name in has]


def _from_csv(data: bytes, source: str, columns: Sequence[str]) -> pd.DataFrame:
    try:
        data.decode("utf-8-sig")
        head = [str(name) for name in pd.read_csv(io.BytesIO(data), nrows=0, encoding="utf-8-sig")]
        wanted = _check_columns(head, columns, source)
        prompts = {PROMPT: str} if PROMPT in wanted else None
        return pd.read_csv(
            io.BytesIO(data), usecols=wanted, dtype=prompts, index_col=False, low_memory=False, encoding="utf-8-sig"
        )
    except pd.errors.EmptyDataError:
        raise ValueError(f"{source} is empty") from None
    except UnicodeDecodeError:
        raise ValueError(f"{source}: is not UTF-8 text") from None
    except (pd.errors.ParserError, OverflowError) as error:
        raise ValueError(f"{source}: is not CSV: {' '.join(str(error).split())}") from None


def _from_parquet(data: bytes, source: str, columns: Sequence[str]) -> pd.DataFrame:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise ValueError("Parquet needs pyarrow: pip install 'maxrl-bench[parquet]'") from None
    try:
        file = ParquetFile(io.BytesIO(data))
        wanted = _check_columns(file.schema_arrow.names, columns, source)
        table: pd.DataFrame = file.read(columns=wanted).to_pandas()
    except (ArrowException, OSError) as error:
        raise ValueError(f"{source}: is not Parquet: {' '.join(str(error).split())}") from None
    return table


def _from_json_lines(data: bytes, source: str, columns: Sequence[str]) -> pd.DataFrame:
    lines = {number: line for number, line in enumerate(data.splitlines(), 1) if line.strip()}
    if not lines:
        raise ValueError(f"{source} holds no prompts")
    try:  # all at once, which is several times faster
        rows = inputs.from_json(b"[" + b",".join(lines.values()) + b"]", source)
    except ValueError:
        rows = []
    if len(rows) != len(lines):  # something is wrong, or a line has several values: which one?
        rows = [inputs.from_json(line, f"{source}: line {number}") for number, line in lines.items()]
    kept: list[str] = []
    for number, row in zip(lines, rows, strict=True):
        if not isinstance(row, dict):
            wanted = '{"successes": 3, "attempts": 8}'
            raise ValueError(f"{source}: line {number} must be an object such as {wanted}, got {shorten(row)}")
        kept = kept or _check_columns(list(row), columns, f"{source}: line {number}")
        for name in kept:
            if name not in row:
                raise ValueError(f"{source}: line {number} has no '{name}'")
    return pd.DataFrame({name: pd.Series([row[name] for row in rows], dtype=object) for name in kept})
