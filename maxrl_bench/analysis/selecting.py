"""Which runs of an experiment are compared: its panels, the series in each, and the runs of a series.

A *series* is one entry of a legend: the runs of an objective with the same values of the settings that the experiment
varies. Which settings vary is read off the runs that the experiment asks for, finished or not, so that a legend does
not change while results come in. Only series and panels that have runs are shown. A learning rate that was tuned for
each value of the others (each number of rollouts, each optimizer) does not vary by itself, and tells nothing apart.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from typing import Any

from maxrl_bench.analysis.series import Panel, Series, Settings, in_order, one_at_a_time
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.storage.tables import SETTINGS

RATE = "learning_rate"
Row = dict[str, Any]  # what a run is: task, objective (its label), objective_name, seed, and the settings


class Selection:
    """The runs of an experiment, to be selected from by panel, series, task, objective, setting and seed.

    runs: those that have results, by hash, in the order of the experiment file. missing: those that have none. Labels
    that two objectives share are told apart by adding the objectives' names to them.
    """

    def __init__(self, runs: Mapping[str, Row], missing: Iterable[Row] = ()):
        self.runs = dict(runs)
        self._planned = [*self.runs.values(), *missing]
        self._tell_labels_apart()
        self.tasks = list(dict.fromkeys(str(row["task"]) for row in self.runs.values()))
        values: dict[tuple[str, str, str], set[Any]] = {}
        for row in self._planned:
            for setting in SETTINGS:
                if setting in row:
                    values.setdefault((row["objective"], setting, row["task"]), set()).add(row[setting])
        self._values = {key: sorted(taken) for key, taken in values.items()}
        self._varying = {(objective, s) for (objective, s, _), taken in self._values.items() if len(taken) > 1}
        self._varying -= {(objective, RATE) for objective, s in self._varying if s == RATE and self._follows(objective)}
        self.varied = [setting for setting in SETTINGS if any(s == setting for _, s in self._varying)]

    def values(self, objective: str, setting: str, task: str) -> list[Any]:
        """The values of a setting among an objective's runs on a task, finished or not, in ascending order."""
        return self._values.get((objective, setting, task), [])

    def _follows(self, objective: str) -> bool:
        """Whether an objective's learning rates follow from the task and the other settings, as tuned ones do."""
        rates: dict[tuple[Any, ...], set[Any]] = {}
        for row in self._planned:
            if row["objective"] == objective:
                others = tuple(row.get(s) for s in SETTINGS if s != RATE)
                rates.setdefault((row["task"], *others), set()).add(row.get(RATE))
        return all(len(taken) == 1 for taken in rates.values())

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
            keys = {tuple((s, row[s]) for s in varying) for row in rows} or {()}
            panels += one_at_a_time(task, sorted(keys, key=in_order))
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
        return [Series(*names, settings) for names, group in groups.items() for settings in sorted(group, key=in_order)]

    def _tells(self, objective: str, name: str, setting: str, ignored: Container[str]) -> bool:
        """Whether a setting is part of the labels of an objective's series."""
        if (objective, setting) in self._varying:
            return setting not in ignored
        is_likelihood = name in OBJECTIVES and OBJECTIVES[name].on_success is None
        own = {value for task in self.tasks for value in self.values(objective, setting, task)}
        return len(own) == 1 and not (setting == "num_rollouts" and is_likelihood)

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

    def _asked(self, series: Series, panel: Panel) -> set[int]:
        """The seeds of a series in a panel, finished or not."""
        where = {**dict(series.settings), **{s: v for s, v in panel.settings if (series.objective, s) in self._varying}}
        where |= {"task": panel.task, "objective": series.objective}
        return {row["seed"] for row in self._planned if all(row.get(key) == value for key, value in where.items())}

    def seeds(self, runs: Iterable[str]) -> list[int]:
        """The seed of each run, in their order."""
        return [int(self.runs[run]["seed"]) for run in runs]

    def in_common(self, groups: Sequence[Sequence[str]]) -> list[list[str]]:
        """From each group, the runs whose seeds all groups have, ordered by seed: for paired comparisons."""
        common = set.intersection(*(set(self.seeds(runs)) for runs in groups))
        return [
            [run for seed, run in sorted(zip(self.seeds(runs), runs, strict=True)) if seed in common] for runs in groups
        ]

    def gaps(self, alike: bool = True) -> list[str]:
        """A line for each cell of the grid (panels by series) that has no run, or in which seeds are missing.

        alike: all cells of a task are to have the same seeds; else each those that are asked for of it.
        """
        lines = []
        facets = self.faceted()
        everywhere = self._series(self._planned, None, facets)
        for panel in self._panels(facets):
            seeds = {row["seed"] for row in self._planned if row["task"] == panel.task}
            present = self.series(panel, facets)
            absent = [series.label for series in everywhere if series not in present]
            if not present:
                lines.append(f"{panel.title}: no runs")
            elif absent:
                rest = f" and {len(absent) - 4} more" if len(absent) > 4 else ""
                lines.append(f"{panel.title}: no runs of {', '.join(absent[:4])}{rest}")
            for series in present:
                count = len(self.members(series, panel))
                asked = len(seeds if alike else self._asked(series, panel))
                if count < asked:
                    lines.append(f"{panel.title}, {series.label}: {count} of {asked} seeds")
        return lines

    def _tell_labels_apart(self) -> None:
        """If two objectives have the same label (a plug-in labelled GRPO), add their names in brackets."""
        names: dict[str, set[str]] = {}
        for row in self._planned:
            names.setdefault(row["objective"], set()).add(row["objective_name"])
        for row in self._planned:
            if len(names[row["objective"]]) > 1:
                row["objective"] = f"{row['objective']} ({row['objective_name']})"
