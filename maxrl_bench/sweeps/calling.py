"""Runs asked for from Python: `maxrl_bench.run`."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypedDict, TypeVar, Unpack

import numpy as np

from maxrl_bench.config import RunConfig
from maxrl_bench.names import shorten
from maxrl_bench.objectives.formula import Formula
from maxrl_bench.storage.tables import Tables
from maxrl_bench.sweeps import sources
from maxrl_bench.sweeps.driver import DiskFull, Plan, Report, Sweep, check_room, make_plan
from maxrl_bench.sweeps.executors import HerePool, LocalPool, memory_share
from maxrl_bench.sweeps.experiment import Experiment, from_settings
from maxrl_bench.sweeps.progress import Progress
from maxrl_bench.sweeps.tabulate import write_tables
from maxrl_bench.sweeps.worker import Job, execute

SOURCE = Path("maxrl_bench.run")  # stands for the experiment file, in errors and in the provenance
MAX_WORKERS = 1024

T = TypeVar("T")
Named = str | Mapping[str, Any]
Several: TypeAlias = T | Sequence[T]


class Settings(TypedDict, total=False):
    """The settings of a run that have a default, as `RunConfig` has them; a list makes a run for each value."""

    num_rollouts: Several[int]
    batch_size: Several[int]
    learning_rate: Several[float | Literal["tuned"]]
    optimizer: Several[Literal["adam", "sgd"]]
    schedule: Several[Literal["constant", "cosine"]]
    max_grad_norm: Several[float]
    warm_start_steps: Several[int]
    warm_start_batch_size: Several[int]
    warm_start_learning_rate: Several[float]
    train_instances: Several[int]
    eval_every: Several[int]
    eval_instances: Several[int]
    eval_split: Several[Literal["validation", "test"]]
    eval_rollouts: Several[int]
    policy: Several[Mapping[str, int]]
    device: Several[str]
    dtype: Several[Literal["float32", "float64", "bfloat16"]]
    estimator: Several[Literal["sampled", "visited"]]


def run(
    task: Several[Named],
    objective: Several[Named],
    *,
    steps: Several[int] | None = None,
    seeds: int | Sequence[int] = 5,
    name: str | None = None,
    results: str | os.PathLike[str] = "results",
    workers: int = 1,
    progress: bool = True,
    **settings: Unpack[Settings],
) -> Tables:
    """Train every objective on every task with every seed, and return the tables, as `maxrl_bench.load` does.

    task, objective: a name, or a table with options or knobs ({"name": "maxrl_order", "order": 8}), or a list of these;
    seeds: how many (0, 1, 2, ...), or which. What is not given comes from the task's recipe, then from `RunConfig`.
    Runs are kept in `results`/store and never done twice: the same call again returns the same tables, and one that
    was stopped goes on. The tables are written to `results`/`name`/ (by default named after what was asked for).
    `workers`: 1 trains in this process, more in as many processes of their own.
    Raises ValueError, one line, before anything is trained where something asked for cannot be; RuntimeError where runs
    failed, once all others are done and their tables are written.
    """
    asked: dict[str, Any] = {"task": task, "objective": objective, "seed": _seeds(seeds), **settings}
    if steps is not None:
        asked["steps"] = steps
    if isinstance(workers, bool) or not isinstance(workers, int) or not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"{SOURCE}: workers must be a whole number from 1 to {MAX_WORKERS}, got {shorten(workers)}")
    if not isinstance(results, str | os.PathLike):
        raise ValueError(f"{SOURCE}: results must be the path of a folder, got {shorten(results)}")
    for key in ("task", "objective"):
        if callable(asked[key]) or isinstance(asked[key], Formula):
            how = f'maxrl_bench.plug_in({key}s={{"mine": "my_module:Mine"}})'
            raise ValueError(f"{SOURCE}: key '{key}' takes names, which {how} gives, not {shorten(asked[key])}")
    experiment = from_settings({key: _plain(value) for key, value in asked.items()}, SOURCE, name)
    results = Path(results)
    sources.check(experiment, results)
    plan = make_plan([experiment], results)
    check_room(plan)
    report = _carry_out(experiment, plan, workers, progress)
    tables = write_tables(experiment, plan.store, results, only={run: plan.code(run) for run in report.done})
    if report.failed:
        first, why = next(iter(report.failed.items()))
        others = "" if tables is None else f"; the tables of the others: maxrl_bench.load({experiment.name!r})"
        raise RuntimeError(
            f"{len(report.failed)} of {len(plan.configs)} runs failed, the first ({plan.label(first)}): {why}{others}"
        )
    if tables is None:
        raise RuntimeError(f"{SOURCE}: {plan.store.root} holds none of these runs any more: somebody removed them")
    return tables


def _seeds(seeds: int | Sequence[int]) -> Any:
    count = seeds.item() if isinstance(seeds, np.generic) else seeds
    if isinstance(count, int) and not isinstance(count, bool):
        if count < 1:
            raise ValueError(f"{SOURCE}: seeds must be 1 or more, or a list of seeds, got {count}")
        return list(range(count))
    return seeds


def _plain(value: Any) -> Any:
    """A value as an experiment file would hold it: sequences are lists, numbers those of Python."""
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, Sequence | np.ndarray) and not isinstance(value, str | bytes):
        return [_plain(part) for part in value]
    return value


def _carry_out(experiment: Experiment, plan: Plan, workers: int, shown: bool) -> Report:
    """Do what is not done yet."""
    if plan.todo:
        from maxrl_bench.training.feasible import check_runs  # needs torch, which reading finished runs does not

        try:
            check_runs(experiment.runs)
        except (ValueError, ImportError) as error:
            raise ValueError(f"{experiment.path}: {error}") from None
    for line in experiment.recipes if shown and plan.todo else ():
        print(line, file=sys.stderr)
    stream = None if shown else io.StringIO()
    bar = Progress(len(plan.configs), len(plan.configs) - len(plan.todo), stream)
    with _as_it_was():
        workers = min(workers, max(1, len(plan.todo)))
        if workers > 1:
            on_cpu = all(config.device == "cpu" for config in experiment.runs)
            pool: LocalPool | _ShownHere = LocalPool(workers, memory_share(workers) if on_cpu else 0)
        else:
            pool = _ShownHere(plan, bar)
        try:
            report = Sweep(plan, pool, bar).carry_out()
        except DiskFull as error:
            raise ValueError(f"the disk is full ({error}); what is stored is whole: make room and repeat") from None
        pool.shutdown()
    return report


class _ShownHere(HerePool):
    """This process, which shows how far each run is."""

    def __init__(self, plan: Plan, bar: Progress):
        self._plan, self._bar = plan, bar

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        """Do a job of `execute`; Ctrl-C ends it."""
        job = args[0]
        if fn is not execute or not isinstance(job, Job):
            return super().submit(fn, *args, **kwargs)
        config = RunConfig.model_validate_json(job.config)
        label = self._plan.label(config.hash)

        def show(row: Mapping[str, float]) -> None:
            self._bar.show([f"{label}: step {row['step']:.0f} of {config.steps}, pass@1 {row['pass@1']:.3g}"])

        return super().submit(execute, job, interruptible=True, callbacks=[show])


@contextlib.contextmanager
def _as_it_was() -> Iterator[None]:
    """Within it, this process may be set up for runs; import path, environment and threads are put back after it."""
    path, environment = list(sys.path), dict(os.environ)
    torch = sys.modules.get("torch")
    threads = torch.get_num_threads() if torch is not None else 0
    try:
        yield
    finally:
        sys.path[:] = path
        for key in os.environ.keys() - environment.keys():
            del os.environ[key]
        os.environ.update(environment)
        if torch is not None:
            torch.set_num_threads(threads)
