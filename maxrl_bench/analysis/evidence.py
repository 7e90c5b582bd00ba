"""An experiment's tables as figures and claims need them: which runs are compared, their curves, their scores.

A *series* is one entry of a legend: the runs of an objective with the same values of the settings that the experiment
varies. Which settings vary is read off the runs that the experiment asks for, finished or not, so that a legend does
not change while results come in. Only series and panels that have runs are shown. Cells of the grid without runs, runs
that stopped early and missing seeds are left out of every mean, and named in `notes`.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.series import Panel, Series, Settings
from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.tables import SETTINGS

MOST_NOTES = 12


@dataclass
class Evidence:
    """The runs of one experiment, from its metrics and pass-rate tables; in the order of the experiment file."""

    experiment: str
    metrics: pd.DataFrame
    pass_rates: pd.DataFrame
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        table = self.metrics.sort_values(["run", "step"], kind="stable")
        self._rows = {
            str(run): {str(c): rows[c].to_numpy() for c in rows} for run, rows in table.groupby("run", sort=False)
        }
        rates = self.pass_rates.sort_values(["run", "step", "instance"], kind="stable")
        self._rates = {
            (str(run), int(str(step))): rows for (run, step), rows in rates.groupby(["run", "step"], sort=False)
        }
        first = self.metrics.drop_duplicates("run")
        self.runs: dict[str, dict[str, Any]] = {
            str(row["run"]): {str(key): value for key, value in row.items()} for row in first.to_dict("records")
        }
        self._planned = [*self.runs.values(), *self._missing()]
        self._tell_labels_apart()
        self.tasks = list(dict.fromkeys(str(row["task"]) for row in self.runs.values()))
        values: dict[tuple[str, str, str], set[Any]] = {}
        for row in self._planned:
            for setting in SETTINGS:
                if setting in row:
                    values.setdefault((row["objective"], setting, row["task"]), set()).add(row[setting])
        self._values = {key: sorted(taken) for key, taken in values.items()}
        self._varying = {(objective, s) for (objective, s, _), taken in self._values.items() if len(taken) > 1}
        self.varied = [setting for setting in SETTINGS if any(s == setting for _, s in self._varying)]
        self._leave_out_unfinished()
        self._note_gaps()

    @classmethod
    def load(cls, experiment: str, root: Path) -> Evidence:
        """Read results/<experiment>/; raises ValueError with one line where there is none or it is damaged."""
        tables = results.load(experiment, root)
        for name, table in (("metrics", tables.metrics), ("pass-rate", tables.pass_rates)):
            needed = {*results.IDENTITY, *SETTINGS, "step", "instance", "n"} & set(map(str, table))
            if gaps := [column for column in sorted(needed) if table[column].isna().any()]:
                raise ValueError(f"{Path(root) / experiment}: its {name} table has gaps in column '{gaps[0]}'")
        missing = tables.provenance.get("missing", [])
        notes = [f"{len(missing)} runs of the experiment have no result"] if missing else []
        return cls(experiment, tables.metrics, tables.pass_rates, tables.provenance, notes)

    def _missing(self) -> list[dict[str, Any]]:
        """Settings of the experiment's runs that have no result, as far as the provenance lists them."""
        missing = self.provenance.get("missing")
        rows = list(missing.values()) if isinstance(missing, dict) else []
        example = next(iter(self.runs.values()))
        columns = {"task", "objective", "objective_name", "seed", *SETTINGS} & example.keys()
        # The file may come from anywhere: entries whose values are not of the types of the other runs' are ignored.
        return [
            dict(row)
            for row in rows
            if isinstance(row, dict) and all(_alike(row.get(column), example[column]) for column in columns)
        ]

    def _tell_labels_apart(self) -> None:
        """If two objectives have the same label (a plug-in labelled GRPO), add their names in brackets."""
        names: dict[str, set[str]] = {}
        for row in self._planned:
            names.setdefault(row["objective"], set()).add(row["objective_name"])
        for row in self._planned:
            if len(names[row["objective"]]) > 1:
                row["objective"] = f"{row['objective']} ({row['objective_name']})"

    # --- what is compared -------------------------------------------------------------------------------------------

    @property
    def ks(self) -> list[int]:
        """The k of the pass@k columns that every task has."""
        columns = [c for c in map(str, self.metrics) if c.startswith("pass@")]
        whole = [c for c in columns if not self.metrics[c].isna().any()]
        return sorted(int(c.removeprefix("pass@")) for c in whole)

    @property
    def high_k(self) -> int:
        """The k at which coverage is reported: 128, or the largest below it that was measured."""
        return max([k for k in self.ks if k <= 128], default=1)

    @property
    def reported_ks(self) -> list[int]:
        """The k of the scores that are reported: 1 and `high_k`, once if they are equal."""
        return sorted({1, self.high_k})

    @property
    def pass_metrics(self) -> list[str]:
        """The columns of the scores that are reported: pass@1 and, if another, pass@k for `high_k`."""
        return [f"pass@{k}" for k in self.reported_ks]

    def has(self, column: str) -> bool:
        """Whether a column of the metrics table exists and has any value."""
        return column in self.metrics and bool(self.metrics[column].notna().any())

    def values(self, objective: str, setting: str, task: str) -> list[Any]:
        """The values of a setting among an objective's runs on a task, finished or not, in ascending order."""
        return self._values.get((objective, setting, task), [])

    def faceted(self) -> list[str]:
        """Settings that vary within more than one objective: each value gets a panel instead of a shade of a colour."""
        return [setting for setting in self.varied if sum(s == setting for _, s in self._varying) > 1]

    def panels(self, facets: Sequence[str] = ()) -> list[Panel]:
        """One panel for each task and combination of values of the settings `facets` on it, if it has any run."""
        return [panel for panel in self._panels(facets) if self.series(panel)]

    def _panels(self, facets: Sequence[str]) -> list[Panel]:
        panels = []
        for task in dict.fromkeys(row["task"] for row in self._planned):
            # Panels come from the objectives within which a facet varies. Others (exact maximum likelihood does not
            # depend on N) are drawn in all panels of the task, and make none of their own.
            rows = [
                row
                for row in self._planned
                if row["task"] == task and any((row["objective"], s) in self._varying for s in facets)
            ]
            varying = [s for s in facets if any((row["objective"], s) in self._varying for row in rows)]
            keys = sorted({tuple(row[s] for s in varying) for row in rows}) or [()]
            panels += [Panel(task, tuple(zip(varying, values, strict=True))) for values in keys]
        return panels

    def series(self, panel: Panel | None = None, ignore: Iterable[str] = ()) -> list[Series]:
        """The series that have runs in a panel (or in any), one for each combination of the settings that vary.

        The panel's own settings and those in `ignore` do not separate series. If a setting varies within some other
        objective, an objective with a single value of it shows that value in its label too.
        """
        return self._series(self.runs.values(), panel, ignore)

    def _series(
        self, rows: Iterable[Mapping[str, Any]], panel: Panel | None, ignore: Iterable[str] = ()
    ) -> list[Series]:
        task, fixed = (panel.task, dict(panel.settings)) if panel else (None, {})
        ignored, shown = {*fixed, *ignore}, {}
        groups: dict[tuple[str, str], set[Settings]] = {}
        for row in rows:
            objective = row["objective"]
            if task in (None, row["task"]) and all(
                row[s] == value for s, value in fixed.items() if (objective, s) in self._varying
            ):
                names = objective, row["objective_name"]
                if names not in shown:
                    shown[names] = [s for s in self.varied if self._tells(*names, s, ignored)]
                groups.setdefault(names, set()).add(tuple((s, row[s]) for s in shown[names]))
        return [Series(*names, settings) for names, group in groups.items() for settings in sorted(group)]

    def _tells(self, objective: str, name: str, setting: str, ignored: Container[str]) -> bool:
        """Whether a setting is part of the labels of an objective's series."""
        if (objective, setting) in self._varying:
            return setting not in ignored
        exact = name in OBJECTIVES and OBJECTIVES[name].on_success is None
        own = {value for task in self.tasks for value in self.values(objective, setting, task)}
        return len(own) == 1 and not (setting == "num_rollouts" and exact)

    def select(self, task: str, where: Mapping[str, Any]) -> list[str]:
        """The runs of a task that have the given values in the given columns, ordered by seed.

        `objective` matches a label or a name. Raises ValueError on an unknown column, or if a seed has several of them.
        """
        run_of_seed: dict[int, str] = {}
        for run, row in self.runs.items():
            for column, value in where.items():
                if column not in row:
                    raise ValueError(f"no column '{column}' in the metrics table to select runs by")
                if row[column] != value and not (column == "objective" and row["objective_name"] == value):
                    break
            else:
                if row["task"] != task:
                    continue
                if row["seed"] in run_of_seed:
                    other = self.runs[run_of_seed[row["seed"]]]
                    differing = [c for c in ("objective", *SETTINGS) if row.get(c) != other.get(c)]
                    hint = f"tell them apart by {' or '.join(differing)}" if differing else "they differ in no column"
                    raise ValueError(f"{dict(where)} names several runs per seed on {task}; {hint}")
                run_of_seed[row["seed"]] = run
        return [run_of_seed[seed] for seed in sorted(run_of_seed)]

    def members(self, series: Series, panel: Panel) -> list[str]:
        """The runs of a series in a panel, by seed; only settings that vary within the objective are compared."""
        facets = {s: value for s, value in panel.settings if (series.objective, s) in self._varying}
        return self.select(panel.task, {"objective": series.objective, **dict(series.settings), **facets})

    def seeds(self, runs: Iterable[str]) -> list[int]:
        """The seed of each run, in their order."""
        return [int(self.runs[run]["seed"]) for run in runs]

    def in_common(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        """From each group, the runs whose seeds all groups have, ordered by seed: for paired comparisons."""
        common = set.intersection(*(set(self.seeds(runs)) for runs in groups))
        return [
            [run for seed, run in sorted(zip(self.seeds(runs), runs, strict=True)) if seed in common] for runs in groups
        ]

    # --- curves and scores ------------------------------------------------------------------------------------------

    def curves(self, runs: Sequence[str], metric: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """A metric along training, where every run has a value: x [X], the mean over the S runs, and values [S, X]."""
        if not runs or not {metric, x} <= set(map(str, self.metrics)):
            return np.empty(0), np.empty((len(runs), 0))
        xs = np.stack([self._rows[run][x].astype(np.float64) for run in runs])
        values = np.stack([self._rows[run][metric].astype(np.float64) for run in runs])
        whole = ~np.isnan(values).any(axis=0)
        return xs.mean(axis=0)[whole], values[:, whole]

    def scores(self, runs: Sequence[str], metric: str, when: str = "final", level: float = 0.0) -> np.ndarray:
        """One number per run, [S], or, where the pass-rate table holds them, per run and instance, [S, I].

        when: "final"; "best", the highest evaluation; "area", the mean over training steps; "drop", best minus final;
        "rollouts_to", training rollouts until `level` is reached, infinite if never. Raises ValueError on another.
        """
        if when == "final" and metric.startswith("pass@"):
            instances = self.instance_pass_at_k(runs, [int(metric.removeprefix("pass@"))])
            if instances is not None:
                return instances[:, :, 0]
        x, values = self.curves(runs, metric, "rollouts" if when == "rollouts_to" else "step")
        if not values.shape[1]:
            return np.full(len(runs), np.nan)
        match when:
            case "final":
                return values[:, -1]
            case "best":
                return values.max(axis=1)
            case "area":
                return stats.area(x, values)
            case "drop":
                return values.max(axis=1) - values[:, -1]
            case "rollouts_to":
                return stats.crossing(x, values, level)
        raise ValueError(f"unknown moment '{when}'; accepted: final, best, area, drop, rollouts_to")

    def instance_rates(self, runs: Sequence[str], end: str = "final") -> tuple[np.ndarray, int] | None:
        """Pass rates [S, I] at the last ("final") or first ("start") step, and the rollouts n behind each (0: exact).

        None if they are not stored for every run, for the same number of instances, with the same n.
        """
        stored: list[pd.DataFrame] = []
        for run in runs:
            step = int(self._rows[run]["step"][-1 if end == "final" else 0])
            rows = self._rates.get((run, step))
            if rows is None:
                return None
            stored.append(rows)
        if (
            not stored
            or len({len(rows) for rows in stored}) > 1
            or len({int(rows["n"].iloc[0]) for rows in stored}) != 1
        ):
            return None
        return np.stack([rows["pass_rate"].to_numpy(np.float64) for rows in stored]), int(stored[0]["n"].iloc[0])

    def instance_pass_at_k(self, runs: Sequence[str], ks: Sequence[int]) -> np.ndarray | None:
        """Final pass@k of every instance, [S, I, len(ks)]; None where the pass-rate table does not hold it."""
        stored = self.instance_rates(runs)
        if stored is None or (stored[1] and max(ks) > stored[1]):
            return None
        return np.stack([pass_at_k(stored[0], stored[1], k) for k in ks], axis=-1)

    def per_instance(self, runs: Sequence[str], column: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Pass rates [M] and another column [M] of the pass-rate table, over all runs and steps; None if absent."""
        if column not in self.pass_rates:
            return None
        rows = self.pass_rates[self.pass_rates["run"].isin(runs) & self.pass_rates[column].notna()]
        return (rows["pass_rate"].to_numpy(np.float64), rows[column].to_numpy(np.float64)) if len(rows) else None

    # --- what is missing --------------------------------------------------------------------------------------------

    def _leave_out_unfinished(self) -> None:
        """Drop runs that have fewer steps than others of their series, and note which."""
        for panel in self.panels():
            for series in self.series(panel):
                runs = self.members(series, panel)
                last = {run: self._rows[run]["step"][-1] for run in runs}
                short = [run for run in runs if last[run] < max(last.values())]
                if short:
                    seeds = ", ".join(map(str, self.seeds(short)))
                    self.notes.append(f"{panel.task}, {series.label}: seed {seeds} stopped early and is left out")
                for run in short:
                    del self.runs[run]

    def _note_gaps(self) -> None:
        """Note the cells of the grid (panels by series) that have no run, and those in which seeds are missing."""
        gaps = []
        facets = self.faceted()
        everywhere = self._series(self._planned, None, facets)
        for panel in self._panels(facets):
            seeds = {row["seed"] for row in self._planned if row["task"] == panel.task}
            present = self.series(panel, facets)
            absent = [series.label for series in everywhere if series not in present]
            if not present:
                gaps.append(f"{panel.title}: no runs")
            elif absent:
                rest = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
                gaps.append(f"{panel.title}: no runs of {', '.join(absent[:4])}{rest}")
            for series in present:
                count = len(self.members(series, panel))
                if count < len(seeds):
                    gaps.append(f"{panel.title}, {series.label}: {count} of {len(seeds)} seeds")
        self.notes += gaps[:MOST_NOTES]
        if len(gaps) > MOST_NOTES:
            self.notes.append(f"{len(gaps) - MOST_NOTES} more cells of the grid are not whole")


def _alike(value: Any, example: Any) -> bool:
    """Whether both are text, or both are numbers."""
    return isinstance(value, str if isinstance(example, str) else int | float)
