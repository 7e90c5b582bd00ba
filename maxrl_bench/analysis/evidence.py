"""An experiment's tables as figures and claims need them: read, its runs selected (`selecting`), scored (`scoring`).

Runs that stopped early, cells of the grid without runs and missing seeds are left out of every mean, and named in
`notes`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from maxrl_bench.analysis.scoring import Scores
from maxrl_bench.analysis.selecting import Row, Selection
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.tables import SETTINGS
from maxrl_bench.sweeps.claim_model import Claim

MOST_NOTES = 12


class Evidence(Selection, Scores):
    """The runs of one experiment, from its metrics and pass-rate tables; in the order of the experiment file."""

    def __init__(
        self,
        experiment: str,
        metrics: pd.DataFrame,
        pass_rates: pd.DataFrame,
        provenance: Mapping[str, Any] | None = None,
        notes: list[str] | None = None,
        claims: Sequence[Claim] = (),
    ):
        self.experiment, self.provenance, self.notes = experiment, dict(provenance or {}), list(notes or [])
        self.claims = tuple(claims)  # what the experiment claims, which figures follow in k and in what is compared
        Scores.__init__(self, metrics, pass_rates)
        first = metrics.drop_duplicates("run")
        runs = {str(row["run"]): {str(key): value for key, value in row.items()} for row in first.to_dict("records")}
        Selection.__init__(self, runs, _missing(self.provenance, next(iter(runs.values()))))
        self._leave_out_unfinished()
        gaps = self.gaps(alike=self.first is None)
        self.notes += [self._seeds_told()] * (self.first is not None)
        self.notes += gaps[:MOST_NOTES]
        if len(gaps) > MOST_NOTES:
            self.notes.append(f"{len(gaps) - MOST_NOTES} more cells of the grid are not whole")

    @classmethod
    def load(cls, experiment: str, root: Path, claims: Sequence[Claim] = ()) -> Evidence:
        """Read results/<experiment>/; raises ValueError with one line where there is none or it is damaged."""
        return cls.of(results.load(experiment, root), experiment, str(Path(root) / experiment), claims)

    @classmethod
    def of(
        cls, tables: results.Tables, experiment: str = "", where: str = "these tables", claims: Sequence[Claim] = ()
    ) -> Evidence:
        """Take loaded tables; errors name them `where`. Raises ValueError where identities have gaps."""
        results.check_tables(tables.metrics, tables.pass_rates)
        for name, table in (("metrics", tables.metrics), ("pass-rate", tables.pass_rates)):
            needed = {*results.IDENTITY, *SETTINGS, "step", "instance", "n"} & set(map(str, table))
            if gaps := [column for column in sorted(needed) if table[column].isna().any()]:
                raise ValueError(f"{where}: its {name} table has gaps in column '{gaps[0]}'")
        missing = tables.provenance.get("missing", [])
        notes = [f"{len(missing)} runs of the experiment have no result"] if missing else []
        return cls(experiment, tables.metrics, tables.pass_rates, tables.provenance, notes, claims)

    @property
    def high_k(self) -> int:
        """The k at which coverage is reported: the largest that a claim is about, if it was measured; else 128 or less.

        See `Scores.high_k`.
        """
        asked = {metric for claim in self.claims for metric in claim.metric}
        return max([k for k in self.ks if k > 1 and f"pass@{k}" in asked], default=super().high_k)

    @property
    def first(self) -> int | None:
        """How many seeds came first where others followed until claims were decided; None: their number was fixed."""
        rule = self.provenance.get("seeds")
        first = rule.get("first") if isinstance(rule, dict) else None
        return first if type(first) is int and first >= 2 else None

    def _seeds_told(self) -> str:
        cells: dict[int, list[str]] = {}
        for panel in self.panels():
            for series in self.series(panel):
                cells.setdefault(len(self.members(series, panel)), []).append(f"{series.label} on {panel.title}")
        counts = sorted(cells, key=lambda count: -len(cells[count]))
        told = [f"{count} of {', '.join(cells[count])}" for count in counts[1:]]
        number = "; ".join([f"{counts[0]} of {'all else' if told else 'each'}", *told]) if counts else "none"
        return (
            f"Seeds were added until the claims were decided: {number}. The claims' intervals hold at every look; "
            "bands and bars of the figures are for a number of seeds that was fixed before"
        )

    def _leave_out_unfinished(self) -> None:
        """Drop runs that have fewer steps than others of their series, and note which."""
        for panel in self.panels():
            for series in self.series(panel):
                runs = self.members(series, panel)
                last = {run: self.last_step(run) for run in runs}
                short = [run for run in runs if last[run] < max(last.values())]
                if short:
                    seeds = ", ".join(map(str, self.seeds(short)))
                    self.notes.append(f"{panel.task}, {series.label}: seed {seeds} stopped early and is left out")
                for run in short:
                    del self.runs[run]


def _missing(provenance: Mapping[str, Any], example: Row) -> list[Row]:
    """Settings of the experiment's runs that have no result, as far as the provenance lists them.

    The file may come from anywhere: entries whose values are not of the types of those of `example`, a run that has
    results, are ignored.
    """
    missing = provenance.get("missing")
    rows = list(missing.values()) if isinstance(missing, dict) else []
    columns = {"task", "objective", "objective_name", "seed", *SETTINGS} & example.keys()
    return [
        dict(row)
        for row in rows
        if isinstance(row, dict) and all(_alike(row.get(column), example[column]) for column in columns)
    ]


def _alike(value: Any, example: Any) -> bool:
    """Whether both are text, or both are numbers."""
    return isinstance(value, str if isinstance(example, str) else int | float)
