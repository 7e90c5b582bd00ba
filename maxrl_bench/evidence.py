"""An experiment's tables as figures and claims need them: which runs are compared, their curves, their scores.

A *series* is what a legend names: an objective, and whichever settings the experiment varies within an objective. Runs
that stopped early and seeds that are missing are left out of every mean and named in `notes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maxrl_bench import results, stats

# Settings that an experiment may vary within an objective, and how legends and titles write their values.
SETTINGS = {
    "num_rollouts": "N = {:g}",
    "batch_size": "{:g} instances per step",
    "learning_rate": "learning rate {:g}",
    "train_instances": "{:g} training instances",
}


@dataclass(frozen=True)
class Series:
    """Runs that differ in nothing but task and seed: an objective's label and the varied settings that it has."""

    objective: str
    objective_name: str
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def label(self) -> str:
        """As the legend writes it."""
        return ", ".join([self.objective, *(SETTINGS[name].format(value) for name, value in self.settings)])


@dataclass(frozen=True)
class Panel:
    """One of a figure's small multiples: a task, under certain settings where several objectives vary them."""

    task: str
    settings: tuple[tuple[str, float], ...] = ()

    @property
    def title(self) -> str:
        """As the panel is headed."""
        return ", ".join([self.task, *(SETTINGS[name].format(value) for name, value in self.settings)])


@dataclass
class Evidence:
    """The runs of one experiment. Everything is in the order of the table, which is that of the experiment file."""

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
        first = self.metrics.drop_duplicates("run")
        self.runs: dict[str, dict[str, Any]] = {
            str(row["run"]): {str(key): value for key, value in row.items()} for row in first.to_dict("records")
        }
        rates = self.pass_rates.sort_values(["run", "step", "instance"], kind="stable")
        self._rates = {
            (str(run), int(str(step))): rows for (run, step), rows in rates.groupby(["run", "step"], sort=False)
        }
        self.tasks = list(dict.fromkeys(str(row["task"]) for row in self.runs.values()))
        objectives = dict.fromkeys(str(row["objective"]) for row in self.runs.values())
        self.varied = [s for s in SETTINGS if any(self._varies(objective, s) for objective in objectives)]
        self._leave_out_unfinished()
        self._note_missing_seeds()

    @classmethod
    def load(cls, experiment: str, root: Path) -> Evidence:
        """Read results/<experiment>/; raises ValueError with one line where there is none or it is damaged."""
        tables = results.load(experiment, root)
        missing = tables.provenance.get("missing", [])
        notes = [f"{len(missing)} runs of the experiment have no result"] if missing else []
        return cls(experiment, tables.metrics, tables.pass_rates, tables.provenance, notes)

    # --- what is compared -------------------------------------------------------------------------------------------

    @property
    def ks(self) -> list[int]:
        """The k of the pass@k columns that every task has."""
        columns = [c for c in map(str, self.metrics) if c.startswith("pass@")]
        whole = [c for c in columns if not self.metrics[c].isna().any()]
        return sorted(int(c.removeprefix("pass@")) for c in whole)

    @property
    def high_k(self) -> int:
        """The k that stands for coverage: 128, or the largest below it that was measured."""
        return max([k for k in self.ks if k <= 128], default=1)

    def has(self, column: str) -> bool:
        """Whether the metrics table holds any value in a column."""
        return column in self.metrics and bool(self.metrics[column].notna().any())

    def values(self, objective: str, setting: str, task: str) -> list[float]:
        """The values that an objective's runs on a task take of a setting, in ascending order."""
        own = (row for row in self.runs.values() if row["task"] == task and row["objective"] == objective)
        return sorted({row[setting] for row in own})

    def _varies(self, objective: str, setting: str, task: str | None = None) -> bool:
        tasks = self.tasks if task is None else [task]
        return any(len(self.values(objective, setting, t)) > 1 for t in tasks)

    def faceted(self) -> list[str]:
        """Settings that more than one objective varies: they get panels of their own rather than shades of a colour."""
        objectives = dict.fromkeys(series.objective for series in self.series())
        return [s for s in self.varied if sum(self._varies(objective, s) for objective in objectives) > 1]

    def panels(self, facets: Sequence[str] = ()) -> list[Panel]:
        """One panel per task and per combination of the values that the facets take there."""
        found = []
        for task in self.tasks:
            # An objective that does not vary a facet (exact likelihood has no N) opens no panel: it is in all of them.
            rows = [
                row
                for row in self.runs.values()
                if row["task"] == task and any(self._varies(row["objective"], s, task) for s in facets)
            ]
            varying = [s for s in facets if any(self._varies(row["objective"], s, task) for row in rows)]
            keys = sorted({tuple(row[s] for s in varying) for row in rows}) or [()]
            found += [Panel(task, tuple(zip(varying, values, strict=True))) for values in keys]
        return found

    def series(self, panel: Panel | None = None, ignore: Iterable[str] = ()) -> list[Series]:
        """The series of a panel (or of all), told apart by the varied settings that are neither its own nor ignored."""
        task, fixed = (panel.task, dict(panel.settings)) if panel else (None, {})
        telling = [s for s in self.varied if s not in fixed and s not in set(ignore)]
        found: dict[tuple[str, str], set[tuple[tuple[str, float], ...]]] = {}
        for row in self.runs.values():
            if task in (None, row["task"]):
                settings = tuple((s, row[s]) for s in telling if self._varies(row["objective"], s, task))
                found.setdefault((row["objective"], row["objective_name"]), set()).add(settings)
        return [Series(*names, settings) for names, every in found.items() for settings in sorted(every)]

    def select(self, task: str, where: Mapping[str, Any]) -> list[str]:
        """Runs of a task with the given column values, by seed. `objective` matches a label or a name.

        Raises ValueError where a column is unknown or where a seed has more than one such run.
        """
        found: dict[int, str] = {}
        for run, row in self.runs.items():
            for column, value in where.items():
                if column not in row:
                    raise ValueError(f"no column '{column}' in the metrics table to select runs by")
                if row[column] != value and not (column == "objective" and row["objective_name"] == value):
                    break
            else:
                if row["task"] != task:
                    continue
                if row["seed"] in found:
                    other = self.runs[found[row["seed"]]]
                    differing = [c for c in ("objective", *SETTINGS) if row[c] != other[c]]
                    hint = f"tell them apart by {' or '.join(differing)}" if differing else "they differ in no column"
                    raise ValueError(f"{dict(where)} names several runs per seed on {task}; {hint}")
                found[row["seed"]] = run
        return [found[seed] for seed in sorted(found)]

    def members(self, series: Series, panel: Panel) -> list[str]:
        """The runs of a series in a panel, by seed; a setting that the objective does not vary is not asked for."""
        facets = {s: value for s, value in panel.settings if self._varies(series.objective, s, panel.task)}
        return self.select(panel.task, {"objective": series.objective, **dict(series.settings), **facets})

    def seeds(self, runs: Iterable[str]) -> list[int]:
        """Their seeds."""
        return [int(self.runs[run]["seed"]) for run in runs]

    def in_common(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        """Each group of runs cut down to the seeds that all groups have, by seed: for paired comparisons."""
        common = set.intersection(*(set(self.seeds(runs)) for runs in groups))
        return [
            [run for seed, run in sorted(zip(self.seeds(runs), runs, strict=True)) if seed in common] for runs in groups
        ]

    # --- curves and scores ------------------------------------------------------------------------------------------

    def curves(self, runs: Sequence[str], metric: str, x: str = "step") -> tuple[np.ndarray, np.ndarray]:
        """A metric along training: x [X], its mean over runs, and values [S, X]; only where every run has a value."""
        xs = np.stack([self._rows[run][x].astype(np.float64) for run in runs])
        values = np.stack([self._rows[run][metric].astype(np.float64) for run in runs])
        whole = ~np.isnan(values).any(axis=0)
        return xs.mean(axis=0)[whole], values[:, whole]

    def scores(self, runs: Sequence[str], metric: str, when: str = "final", level: float = 0.0) -> np.ndarray:
        """One number per run, [S], or per run and instance, [S, I], where the pass-rate table can tell.

        when: final; best (the highest evaluation); area (mean height over the steps); drop (best minus final);
        rollouts_to (training rollouts until `level` is reached, infinite if never).
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
        """Pass rates [S, I] at the last ("final") or first ("start") step, and their n; None if not stored."""
        stored = []
        for run in runs:
            step = int(self._rows[run]["step"][-1 if end == "final" else 0])
            rows = self._rates.get((run, step))
            if rows is None:
                return None
            stored.append(rows)
        if len({len(rows) for rows in stored} | {0}) > 2 or len({int(rows["n"].iloc[0]) for rows in stored}) != 1:
            return None
        return np.stack([rows["pass_rate"].to_numpy(np.float64) for rows in stored]), int(stored[0]["n"].iloc[0])

    def instance_pass_at_k(self, runs: Sequence[str], ks: Sequence[int]) -> np.ndarray | None:
        """Final pass@k of every instance, [S, I, len(ks)]; None where the pass-rate table does not hold it."""
        found = self.instance_rates(runs)
        if found is None or (found[1] and max(ks) > found[1]):
            return None
        return np.stack([stats.pass_at_k(found[0], found[1], k) for k in ks], axis=-1)

    def per_instance(self, runs: Sequence[str], column: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Pass rates and another column of the pass-rate table, all runs and steps pooled: two [M]; None if absent."""
        if column not in self.pass_rates:
            return None
        rows = self.pass_rates[self.pass_rates["run"].isin(runs) & self.pass_rates[column].notna()]
        return (rows["pass_rate"].to_numpy(np.float64), rows[column].to_numpy(np.float64)) if len(rows) else None

    # --- what is missing --------------------------------------------------------------------------------------------

    def _leave_out_unfinished(self) -> None:
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

    def _note_missing_seeds(self) -> None:
        for panel in self.panels():
            expected = {row["seed"] for row in self.runs.values() if row["task"] == panel.task}
            for series in self.series(panel):
                seeds = self.seeds(self.members(series, panel))
                if len(seeds) < len(expected):
                    self.notes.append(f"{panel.task}, {series.label}: {len(seeds)} of {len(expected)} seeds")
