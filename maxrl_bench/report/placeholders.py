"""Numbers of the tables in the midst of a text: `{effect objectives pareto pass@128 grpo}` -> `+0.09 [+0.06, +0.11]`.

A placeholder is a word and what it asks of, parted by blanks; '...' holds together what has blanks itself.

    {verdict EXPERIMENT CLAIM}                  on the claim, in its family: supported
    {seeds EXPERIMENT CLAIM}                    of its comparisons: 5, or 5 to 20
    {effect EXPERIMENT CLAIM METRIC AGAINST}    ours minus theirs, with its interval: +0.09 [+0.06, +0.11]
    {by EXPERIMENT CLAIM METRIC AGAINST}        the same in the claim's direction, "{by ...} less": 0.15 [0.09, 0.21]
    {saved EXPERIMENT CLAIM METRIC AGAINST}     of rollouts_to, samples: how many times fewer, 2.3 [1.5, 3.6]
    {outcome EXPERIMENT CLAIM METRIC AGAINST}   what this comparison declares by itself: better
    {score EXPERIMENT TASK OBJECTIVE METRIC}    mean over seeds at the last evaluation: .88
    {collapsed EXPERIMENT OBJECTIVE}            of its runs on all tasks, from collapse.csv: 2 of 18

The first six are read from claims.csv. AGAINST is an objective's name, or the text in its column; `task=maze-9` takes
the comparison on this task alone, `when=last_three` that of the other moment. A score is read from the metrics, where
`COLUMN=VALUE` leaves the rows of one value: `num_rollouts=16`, or `step=0` for the base policy.

Numbers have two digits, and three where two would say 0.00 or 1.00 of what is neither.
"""

from __future__ import annotations

import functools
import io
import re
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from maxrl_bench.analysis.compare import BETTER, CANNOT, CONTRADICTED, EQUAL, SUPPORTED, UNDECIDED, WORSE
from maxrl_bench.inputs import read_bytes
from maxrl_bench.names import did_you_mean, shorten
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.report.folder import CLAIMS_FOLDER
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.files import inside

OF_A_CLAIM = ("EXPERIMENT", "CLAIM")
OF_A_COMPARISON = (*OF_A_CLAIM, "METRIC", "AGAINST")
TAKES = {
    "verdict": OF_A_CLAIM,
    "seeds": OF_A_CLAIM,
    "effect": OF_A_COMPARISON,
    "by": OF_A_COMPARISON,
    "saved": OF_A_COMPARISON,
    "outcome": OF_A_COMPARISON,
    "score": ("EXPERIMENT", "TASK", "OBJECTIVE", "METRIC"),
    "collapsed": ("EXPERIMENT", "OBJECTIVE"),
}
OPTIONS = ("task", "when")  # of a comparison
LOGARITHMS = ("rollouts_to", "samples")  # moments whose effects are binary logarithms
_PLACEHOLDER = re.compile(r"\{([^{}]*)\}")
_OPTION = re.compile(r"([\w@]+)=(.+)", re.DOTALL)
_COLUMNS = ("experiment", "claim", "verdict", "part", "task", "when", "metric", "against", "direction", "outcome")
_NUMBERS = ("effect", "low", "high", "seeds")
VERDICTS = (SUPPORTED, CONTRADICTED, EQUAL, UNDECIDED, CANNOT)
_OUTCOMES = (BETTER, WORSE, EQUAL, UNDECIDED, CANNOT, "")  # that of a claim without comparisons is empty


class NotThere(ValueError):
    """The tables do not have what a placeholder asks for, or more than that. What is no placeholder is a ValueError."""


class Numbers:
    """What results/ and plots/claims/ hold, each table read once, when it is first asked for."""

    def __init__(self, results_root: str | Path, plots_root: str | Path):
        self.results_root, self.plots_root = Path(results_root), Path(plots_root)
        self._metrics = functools.cache(self._read_metrics)

    def fill(self, text: str) -> str:
        """A text with the numbers in place of its placeholders.

        Raises NotThere where a table lacks one, and ValueError where a placeholder is none, in one line that names it.
        """
        if set("{}") & set(_PLACEHOLDER.sub("", text)):
            raise ValueError(f"a brace without its other in {shorten(text)}")
        return _PLACEHOLDER.sub(lambda match: self._number(match[1]), text)

    def claim(self, experiment: str, claim: str) -> pd.DataFrame:
        """The rows of a claim in claims.csv. Raises NotThere where there are none."""
        rows = _only(self._claims, "experiment", experiment, "claims.csv")
        return _only(rows, "claim", claim, f"experiment {experiment}")

    def verdict(self, experiment: str, claim: str) -> str:
        """The verdict on a claim. Raises NotThere where there is none."""
        return str(self.claim(experiment, claim)["verdict"].iloc[0])

    def _number(self, placeholder: str) -> str:
        try:
            return self._look_up(*shlex.split(placeholder))
        except NotThere as error:
            raise NotThere(f"{{{placeholder}}}: {error}") from None
        except ValueError as error:
            raise ValueError(f"{{{placeholder}}}: {error}") from None

    def _look_up(self, word: str = "", *rest: str) -> str:
        if word not in TAKES:
            raise ValueError(f"{shorten(word)} is unknown; {did_you_mean(word, TAKES)}")
        options = {match[1]: match[2] for part in rest if (match := _OPTION.fullmatch(part))}
        arguments = [part for part in rest if not _OPTION.fullmatch(part)]
        if len(arguments) != len(TAKES[word]):
            raise ValueError(f"must be {{{word} {' '.join(TAKES[word])}}}, got {len(arguments)} words after the first")
        if word == "score":
            return self._score(options, *arguments)
        allowed = OPTIONS if TAKES[word] == OF_A_COMPARISON else ()
        if wrong := [option for option in options if option not in allowed]:
            raise ValueError(f"takes no {wrong[0]}=; accepted: {'=, '.join(allowed) + '=' if allowed else 'none'}")
        if word == "verdict":
            return self.verdict(*arguments)
        if word == "seeds":
            return _range(self.claim(*arguments))
        if word == "collapsed":
            return self._collapsed(*arguments)
        return _WORDS[word](self._comparison(options, *arguments))

    def _comparison(
        self, options: Mapping[str, str], experiment: str, claim: str, metric: str, against: str
    ) -> dict[str, Any]:
        """One row of claims.csv."""
        where = f"claim {experiment}:{claim}"
        parts = ("other moment",) if "when" in options else ("claim", "task alone") if options else ("claim",)
        rows = self.claim(experiment, claim)
        rows = rows[rows["part"].isin(parts)]
        for column, value in {"metric": metric, **options}.items():
            rows = _only(rows, column, value, where)
        label = OBJECTIVES[against].label if against in OBJECTIVES else against
        whose = rows["against"]
        named = rows[whose == label] if (whose == label).any() else rows[whose.str.startswith(f"{label}, ")]
        if named.empty:
            raise NotThere(f"{where} is not against {shorten(label)}; {did_you_mean(label, whose.unique())}")
        if len(named) > 1:
            column = "task" if named["task"].nunique() > 1 else "against"
            raise NotThere(f"is several comparisons, of {column} {' or '.join(map(repr, named[column]))}")
        return {str(key): value for key, value in named.iloc[0].items()}

    def _score(self, options: Mapping[str, str], experiment: str, task: str, objective: str, metric: str) -> str:
        rows = self._metrics(experiment)
        where = f"the metrics of {experiment}"
        named = "objective_name" if objective in set(rows["objective_name"]) else "objective"
        for column, value in [("task", task), (named, objective), *options.items()]:
            rows = _only(rows, column, value, where)
            where = f"{where}, {column}={value}"
        if metric not in rows:
            raise NotThere(f"{where}: no column {shorten(metric)}; {did_you_mean(metric, rows)}")
        rows = rows[rows["step"] == rows["step"].max()]
        if rows["seed"].duplicated().any():
            settings = rows.columns[: rows.columns.get_loc("step")].drop(["run", "seed"])
            differ = [str(name) for name in settings if rows[name].nunique() > 1]
            raise NotThere(f"is of several runs with one seed; narrow it by {'= or '.join(differ)}=")
        value = pd.to_numeric(rows[metric], errors="coerce").mean(skipna=False)
        if pd.isna(value):
            raise NotThere(f"{where}: {metric} has no value")
        return _digits(value).replace("0.", ".", 1) if 0 < value < 1 else _digits(value)

    def _collapsed(self, experiment: str, objective: str) -> str:
        path = inside(self.plots_root, experiment, "collapse.csv")
        try:
            rows = pd.read_csv(io.BytesIO(read_bytes(path)))
            counts = rows[["objective"]].astype(str).join(rows[["runs", "collapsed"]].astype(int))
        except FileNotFoundError:
            raise NotThere(f"{path} is not there") from None
        except (KeyError, ValueError) as error:
            raise NotThere(f"{path} is damaged ({' '.join(str(error).split())})") from None
        label = OBJECTIVES[objective].label if objective in OBJECTIVES else objective
        row = _only(counts, "objective", label, f"the collapses of {experiment}").iloc[0]
        return f"{row['collapsed']} of {row['runs']}"

    @functools.cached_property
    def _claims(self) -> pd.DataFrame:
        path = inside(self.plots_root, CLAIMS_FOLDER, "claims.csv")
        try:
            table = pd.read_csv(io.BytesIO(read_bytes(path)))
            texts = table[list(_COLUMNS)].fillna("").astype(str)
            if not (texts["verdict"].isin(VERDICTS) & texts["outcome"].isin(_OUTCOMES)).all():
                raise ValueError("it has verdicts that there are not")  # they go into pages as they are
            return pd.concat([texts, table[list(_NUMBERS)].astype(float)], axis="columns")
        except FileNotFoundError:
            raise NotThere(f"{path} is not there") from None
        except (KeyError, ValueError) as error:
            raise NotThere(f"{path} is damaged ({' '.join(str(error).split())})") from None

    def _read_metrics(self, experiment: str) -> pd.DataFrame:
        try:
            return results.load(experiment, self.results_root).metrics
        except ValueError as error:
            raise NotThere(str(error)) from None


def _only(rows: pd.DataFrame, column: str, value: str, where: str) -> pd.DataFrame:
    """The rows with a value in a column, compared as numbers where it holds numbers."""
    if column not in rows:
        raise NotThere(f"{where}: no column {shorten(column)}; {did_you_mean(column, rows)}")
    numbers = pd.api.types.is_numeric_dtype(rows[column])
    found = rows[rows[column] == (pd.to_numeric(value, errors="coerce") if numbers else value)]
    if found.empty:
        present = rows[column].dropna().astype(str).unique()
        raise NotThere(f"{where}: no {column} {shorten(value)}; {did_you_mean(value, present)}")
    return found


def _range(rows: pd.DataFrame) -> str:
    seeds = rows.loc[rows["part"] == "claim", "seeds"].dropna()
    if seeds.empty:
        raise NotThere("the claim has no comparison")
    return f"{seeds.min():.0f}" if seeds.min() == seeds.max() else f"{seeds.min():.0f} to {seeds.max():.0f}"


def _signed(row: dict[str, Any]) -> str:
    return _with_limits(row["effect"], row["low"], row["high"], "+")


def _by(row: dict[str, Any]) -> str:
    return _with_limits(*_claimed(row), "")


def _saved(row: dict[str, Any]) -> str:
    if row["when"] not in LOGARITHMS:
        raise NotThere(f"needs a claim with when = {' or '.join(LOGARITHMS)}, and this one has {row['when']}")
    effect, low, high = (2**value for value in _claimed(row))
    plain = [f"{float(f'{value:.2g}'):g}" for value in (effect, low, high)]  # 130, not 1.3e+02
    return plain[0] + (f" [{plain[1]}, {plain[2]}]" if low == low else "")


def _claimed(row: dict[str, Any]) -> tuple[float, float, float]:
    """Effect and limits, positive in the claim's direction."""
    effect, low, high = (row[name] for name in ("effect", "low", "high"))
    return (-effect, -high, -low) if row["direction"] == "lower" else (effect, low, high)


def _with_limits(effect: float, low: float, high: float, sign: str) -> str:
    if effect != effect:
        raise NotThere("the comparison has no value")
    digits = _places(effect)
    shown = [f"{round(value, digits) + 0.0:{sign}.{digits}f}" for value in (effect, low, high)]  # + 0.0: no -0.00
    return shown[0] + (f" [{shown[1]}, {shown[2]}]" if low == low else "")


def _digits(value: float) -> str:
    return f"{value:.{_places(value)}f}" if value % 1 else f"{value:.0f}"


def _places(value: float) -> int:
    """Three digits for what two would round to 0.00, or nearly, or to 1.00; else two."""
    return 3 if abs(value) < 0.01 or 0.99 < value < 1 else 2


# What a placeholder makes of a comparison, a row of claims.csv.
_WORDS: dict[str, Callable[[dict[str, Any]], str]] = {
    "effect": _signed,
    "by": _by,
    "saved": _saved,
    "outcome": lambda row: str(row["outcome"]),
}
