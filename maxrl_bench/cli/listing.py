"""What `maxrl-bench list`, `status` and `sweep --dry-run` print, and the summary at the end of a sweep."""

from __future__ import annotations

import json
import os
import shlex
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from maxrl_bench.config import RunConfig
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Check, Store
from maxrl_bench.sweeps.driver import Plan, Report, make_plan
from maxrl_bench.sweeps.experiment import Experiment, experiments_in, under_its_first_profile
from maxrl_bench.sweeps.progress import duration
from maxrl_bench.sweeps.recipes import BUILT_IN, HERE
from maxrl_bench.sweeps.seeds import later_runs
from maxrl_bench.sweeps.worker import TRAIN
from maxrl_bench.tasks import all_tasks, broken_plugins, make_task

if TYPE_CHECKING:
    from maxrl_bench.cli.looks import Look, RateLook

_SHOWN = 20


def columns(rows: Sequence[Sequence[str]]) -> str:
    """Rows of text as aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in rows)


Tell = Callable[[str], None]


def tasks(root: str, report: Tell, as_json: bool = False) -> str:
    """A table of all tasks, with the pass rate of the base policy where results have it; as text, or as JSON.

    `report` is called with one line on each plug-in or result that cannot be used; the others are listed.
    """
    known = _base_pass_rates(root, report)
    rows: list[dict[str, Any]] = []
    for name, entry in all_tasks().items():
        try:
            task = make_task(name)
        except (ImportError, ValueError) as error:
            report(str(error) if name in str(error) else f"task '{name}': {error}")
            continue
        rows.append(
            {
                "task": name,
                "family": entry.family,
                "options": dict(entry.options),
                "horizon": task.horizon,
                "actions": task.num_actions,
                "exact": task.exact,
                "base_pass_rate": known.get(name),
            }
        )
    for problem in broken_plugins():
        report(problem)
    if as_json:
        return json.dumps(rows, indent=1)
    table = [("task", "family", "difficulty", "horizon", "actions", "pass rate", "base pass@1")]
    for row in rows:
        difficulty = " ".join(f"{option}={value}" for option, value in row["options"].items())
        exact = "exact" if row["exact"] else "sampled"
        base = "-" if row["base_pass_rate"] is None else f"{row['base_pass_rate']:.3f}"
        table.append((row["task"], row["family"], difficulty, str(row["horizon"]), str(row["actions"]), exact, base))
    return columns(table)


def _base_pass_rates(root: str, report: Tell) -> dict[str, float]:
    """Mean pass@1 before training by task, over all stored experiments."""
    rates: dict[str, list[float]] = {}
    for name in results.experiments(root):
        try:
            metrics = results.load(name, root).metrics
            for task, known in metrics[metrics["step"] == 0].groupby("task")["pass@1"]:
                rates.setdefault(str(task), []).extend(known)
        except (ValueError, KeyError) as error:
            report(f"{Path(root) / name} is left out: {error}")
    return {task: sum(known) / len(known) for task, known in rates.items()}


def experiments(report: Tell, as_json: bool = False) -> str:
    """A table of the experiments that have names, one's own and the built-in ones, with their questions; or as JSON.

    Of two of one name there is one's own, as for `sweep`. `report` is called with one line on each file that cannot be
    read; the others are listed.
    """
    loaded = []
    for path in {**experiments_in(BUILT_IN), **experiments_in(HERE)}.values():
        try:
            loaded.append(under_its_first_profile(path))
        except ValueError as error:
            report(str(error))
    loaded.sort(key=lambda experiment: (experiment.order, experiment.name))
    rows = [
        {"experiment": experiment.name, "runs": len(experiment.runs), "question": experiment.question}
        for experiment in loaded
    ]
    if as_json:
        return json.dumps(rows, indent=1)
    return columns([("experiment", "runs", "question"), *(tuple(map(str, row.values())) for row in rows)])


def axes(configs: Sequence[RunConfig]) -> str:
    """The grid of some runs: every setting that varies, with its values."""
    lines = []
    for key in RunConfig.model_fields:
        shown = {"task": "task_label", "objective": "objective_label"}.get(key, key)
        # Runs share what they hold, so that few of many thousand need to be put into words.
        differing = {id(config.__dict__[key]): config for config in configs}.values()
        values = list(dict.fromkeys(str(getattr(config, shown)) for config in differing))
        if len(values) > 1 or key in ("task", "objective"):
            more = f", and {len(values) - _SHOWN} more" if len(values) > _SHOWN else ""
            lines.append(f"  {key} ({len(values)}): {', '.join(values[:_SHOWN])}{more}")
    return "\n".join(lines)


def dry_run(plan: Plan, workers: int, looks: Mapping[str, Look | RateLook] = MappingProxyType({})) -> str:
    """The grid of every experiment, the number of runs, and the time and disk that they will take.

    looks: the last at each experiment whose seeds follow its claims, by name.
    """
    lines = []
    for experiment in plan.experiments:
        lines += [f"{experiment.name}: {_how_many(experiment, looks)} runs", axes(experiment.runs)]
        lines += [f"  {line}" for line in _seeds_told(experiment, looks)]
        lines += [f"  {line}" for line in experiment.recipes]
    states = Counter(_state(plan.found[run], plan.root) for run in plan.wanted)
    lines.append(f"{len(plan.wanted)} different runs: {_counts(states)}")
    lines.append(f"to do: {_work(plan, plan.todo, workers)}")
    if any(not _final(experiment, looks) for experiment in plan.experiments):
        most = [*plan.todo, *(run for run in plan.may_come if plan.found[run].state != "done")]
        lines[-1] = f"to do at least: {_work(plan, plan.todo, workers)}"
        lines.append(f"to do at most: {_work(plan, most, workers)}")
    return "\n".join(lines)


def _work(plan: Plan, runs: Sequence[str], workers: int) -> str:
    seconds = plan.seconds(runs)
    return (
        f"{len(runs)} runs; time on {workers} workers: {duration(None if seconds is None else seconds / workers)}; "
        f"disk: {len(runs) * plan.store.bytes_per_run() / 1e6:.1f} MB"
    )


def _how_many(experiment: Experiment, looks: Mapping[str, Look | RateLook]) -> str:
    """The number of runs; where seeds may be added at least and at most how many."""
    if _final(experiment, looks):
        return str(len(experiment.runs))
    return f"at least {len(experiment.runs)} / at most {len(experiment.runs) + len(later_runs(experiment))}"


def _final(experiment: Experiment, looks: Mapping[str, Look | RateLook]) -> bool:
    """Whether an experiment has all the runs that it will ask for."""
    return not experiment.grows or (experiment.name in looks and not looks[experiment.name].more)


def _seeds_told(experiment: Experiment, looks: Mapping[str, Look | RateLook]) -> list[str]:
    """Where seeds follow the claims, or rates the results, what the last look has found."""
    look = looks.get(experiment.name)
    if experiment.extends and look is None:
        return ['learning rates: more come in steps of about 3 until the best is inside (until = "inside")']
    if look is not None:
        return look.lines()
    if experiment.seeds is not None:
        told = f"{experiment.seeds.first} come first, at most {experiment.seeds.most}, until the claims are decided"
        return [f"seeds: {told}"]
    return []


def _state(check: Check, root: str) -> str:
    """ "done" tells where it is from, if it was not computed here."""
    taken = check.state == "done" and check.taken_from
    return f"taken from {Path(root) / check.taken_from}" if taken else check.state


def _counts(states: Counter[str]) -> str:
    return ", ".join(f"{count} {state}" for state, count in states.most_common())


def status(experiments: Sequence[Experiment], root: str, run_function: str = TRAIN) -> str:
    """What is stored of every experiment: done, missing, running, failed and why, and the time that the rest takes."""
    from maxrl_bench.cli.looks import Looks  # needs all that judges

    lines = []
    for experiment in experiments:
        plan = make_plan([experiment], root, run_function=run_function)
        looks = Looks(plan).follow(ended=("done", "failed"))
        experiment = plan.experiments[0]
        running = {run for run in plan.todo if not plan.store.is_free(run)}
        states = Counter("running" if run in running else _state(plan.found[run], root) for run in plan.wanted)
        left = f"; {duration(plan.seconds(plan.todo))} of one worker's time left" if plan.todo else ""
        lines.append(f"{experiment.name}: {_how_many(experiment, looks)} runs: {_counts(states)}{left}")
        lines += [f"  {line}" for line in _seeds_told(experiment, looks)]
        waiting = [run for run in plan.todo if run not in running]
        lines += [f"  running: {plan.label(run)}" for run in running]
        for state in ("failed", "corrupt", "stale", "missing"):
            lines += _some([run for run in waiting if plan.found[run].state == state], plan)
    return "\n".join(lines)


def _some(runs: Sequence[str], plan: Plan) -> Iterable[str]:
    for run in runs[:_SHOWN]:
        check = plan.found[run]
        yield f"  {check.state}: {plan.label(run)}" + (f": {check.why}" if check.why else "")
        if check.state == "failed":
            yield f"    {reproduce(plan, run)}"
    if len(runs) > _SHOWN:
        yield f"  and {len(runs) - _SHOWN} more {plan.found[runs[0]].state}"


def reproduce(plan: Plan, run: str) -> str:
    """The command that does one run alone."""
    root = f"./{plan.root}" if plan.root.startswith("-") else plan.root  # which would be an option
    # Joined as text: `Path` takes the "./" away again.
    command = ["maxrl-bench", "run", "--config", os.path.join(root, "store", run, "config.json")]
    if root != "results":
        command += ["--results", root]
    if plan.run_function != TRAIN:
        command += ["--run-function", plan.run_function]
    return shlex.join(command)


def result(store: Store, run: str) -> str:
    """What a finished run has learned: its base policy and its last evaluation in numbers, and where its tables lie."""
    table = store.tables(run)[0]
    ks = [int(name.removeprefix("pass@")) for name in map(str, table) if name.startswith("pass@")]
    shown = [f"pass@{k}" for k in sorted({1, max([k for k in ks if k <= 128], default=1)}) if k in ks]
    lines = []
    for what, row in (("base policy", table.iloc[0]), (f"after {int(table['step'].iloc[-1])} steps", table.iloc[-1])):
        numbers = [f"{name} {row[name]:.4g}" for name in shown if row[name] == row[name]]
        if row.get("log_p") == row.get("log_p") and "log_p" in row:
            numbers.append(f"mean log p {row['log_p']:.4g}")
        lines.append(f"{what}: {', '.join(numbers)}")
    return "\n".join([*lines, f"tables: {store.folder(run)}/ (metrics.csv, pass_rates.csv)"])


def summary(plan: Plan, report: Report) -> str:
    """How a sweep went, with one line for each failed run and the command that reproduces it."""
    lines = []
    for run, why in report.failed.items():
        lines.append(f"FAILED {plan.label(run)}: {why}\n    {reproduce(plan, run)}")
    done = report.done & plan.wanted.keys()
    line = f"{len(done)} of {len(plan.wanted)} runs done ({report.computed} now) in {duration(report.seconds)}"
    if report.computed:
        line += f"; {report.utilisation:.0%} of worker time in runs; at most {report.peak_memory_mb:.0f} MB per worker"
    return "\n".join([*lines, line])
