"""How tables and their origins are written: CSV and JSON that read back as the same bits, and checksums of them."""

from __future__ import annotations

import hashlib
import io
import json
from typing import Annotated, Any

import pandas as pd
from pydantic import BaseModel, ConfigDict, Field

from maxrl_bench.inputs import from_json

# pandas 3 reads floats exactly by itself, and deprecates being asked to.
_EXACT: dict[str, Any] = {} if int(pd.__version__.partition(".")[0]) >= 3 else {"float_precision": "round_trip"}

Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Made(BaseModel):
    """The shape of a run's provenance.json, as far as it is read again."""

    model_config = ConfigDict(extra="allow", strict=True)

    code: str | None = None
    wall_seconds: Seconds | None = None
    packages: dict[str, str | None] = {}
    taken_from: str = ""


class RunMade(BaseModel):
    """The entry of one run in the tables' provenance.json."""

    model_config = ConfigDict(extra="allow", strict=True)

    code: str | None = None
    wall_seconds: Seconds | None = None
    made_by: Annotated[int, Field(ge=0)] | None = None  # which entry of the tables' `made_by`


class Origin(BaseModel):
    """The shape of the tables' provenance.json."""

    model_config = ConfigDict(extra="allow", strict=True)

    format: str
    checksums: dict[str, str]
    file: str = ""
    profile: str = ""
    question: str = ""
    runs: dict[str, RunMade] = {}
    missing: dict[str, dict[str, Any]] | list[str] = {}  # a list in older ones
    made_by: list[Made] = []


def checksum(data: bytes) -> str:
    """SHA-256; of text with line ends as they were written, even if git has changed them on checkout."""
    return hashlib.sha256(data.replace(b"\r\n", b"\n")).hexdigest()


def to_csv(table: pd.DataFrame) -> bytes:
    """A table as CSV: every float in the shortest form that reads back as the same bits."""
    return table.to_csv(index=False, lineterminator="\n").encode()


def from_csv(data: bytes) -> pd.DataFrame:
    """The inverse of `to_csv`; ValueError if it is no CSV. Names of runs stay text, even if they look like numbers."""
    return pd.read_csv(io.BytesIO(data), dtype={"run": str}, **_EXACT)


def run_tables(metrics: bytes, pass_rates: bytes) -> tuple[pd.DataFrame, pd.DataFrame]:
    """A run's tables of metrics and of pass rates. Raises ValueError if they are not such tables."""
    try:
        tables = from_csv(metrics), from_csv(pass_rates)
    except ValueError as error:
        raise ValueError(f"cannot be read ({error})") from None
    if "step" not in tables[0] or not {"step", "instance", "pass_rate"} <= {*tables[1]}:
        raise ValueError("lack columns")
    return tables


def to_json(value: Any) -> bytes:
    """JSON with sorted keys, one on a line."""
    return (json.dumps(value, indent=1, sort_keys=True) + "\n").encode()


def made_from(data: bytes) -> dict[str, Any]:
    """The content of a run's provenance.json. Raises ValueError, in one line, if it is of another shape."""
    made: Made = from_json(data, "provenance.json", Made)
    return made.model_dump(exclude_unset=True)
