"""What `maxrl-bench run` and `maxrl-bench sweep` do."""

from __future__ import annotations

import contextlib
import functools
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from pydantic import ValidationError

from maxrl_bench import inputs
from maxrl_bench.cli import listing
from maxrl_bench.cli import publish as publishing
from maxrl_bench.cli.asked import placed
from maxrl_bench.cli.looks import Looks, grows
from maxrl_bench.config import RunConfig, one_line, read_config
from maxrl_bench.names import shorten
from maxrl_bench.storage.files import check_would_be_writable, check_writable, tidy
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import sources
from maxrl_bench.sweeps.driver import DiskFull, Plan, Sweep, check_room, make_plan
from maxrl_bench.sweeps.executors import DaskPool, LocalPool, Pool, PoolLost, limit_memory, memory_share
from maxrl_bench.sweeps.experiment import Experiment, load_experiments
from maxrl_bench.sweeps.progress import Progress, duration, shown_steps
from maxrl_bench.sweeps.recipes import of_run
from maxrl_bench.sweeps.taken import drop
from maxrl_bench.sweeps.worker import TRAIN, Job, execute, find_own

MAX_WORKERS = 1024


@dataclass
class SweepOptions:
    """The arguments of `maxrl-bench sweep`."""

    experiments: list[str] = field(default_factory=list)
    profile: str | None = None
    workers: int | None = None
    memory: float | None = None
    scheduler: str | None = None
    dry_run: bool = False
    keep_stale: bool = False
    recompute: bool = False
    no_plots: bool = False
    results: str = "results"
    plots: str = "plots"
    run_function: str = TRAIN


def run(
    config_file: str | None,
    settings: dict[str, Any],
    results: str,
    run_function: str = TRAIN,
    memory: float | None = None,
    dry_run: bool = False,
    recompute: bool = False,
) -> int:
    """Do one run in this process, from a config.json and settings on top of it; returns the exit code.

    Without a config.json, what `settings` do not say is of the task's recipe. Knobs of the objective and options of the
    task may stand among the settings. `memory` (GB) limits it; a `dry_run` only says what would be done; with
    `recompute` a result that was taken back from tables does not count. Raises ValueError on bad input.
    """
    limit = _memory_limit(memory, 1)
    find_own(run_function)
    base: dict[str, Any] = {}
    if config_file is not None:
        base = read_config(inputs.read_text(config_file), config_file).model_dump()
    settings = placed(settings, base)
    told: list[str] = []
    if config_file is None:  # which is complete
        settings, told = of_run(settings)
    try:
        config = RunConfig(**settings)
    except ValidationError as error:
        raise ValueError(one_line(error)) from None
    if run_function == TRAIN:
        check_tasks([config], config_file or "run")
    folder = Path(results) / "store"
    store = Store(folder, create=False)
    if dry_run:
        check_would_be_writable(folder)
    else:
        store.check_writable()
    code = code_fingerprint(config.task.name, config.objective.name, run_function)
    for line in told:
        print(line)
    print(f"{config.describe()}: {folder / config.hash}/", flush=True)
    if dry_run:
        check = Store(folder, code, create=False).check(config.hash)
        print(f"{check.state}{f' ({check.why})' if check.why else ''}; nothing was done")
        return 0
    if recompute and store.check(config.hash).taken_from:
        drop([config.hash], store)
    job = Job(config.model_dump_json(), str(folder), code, run_function=run_function)
    before = limit_memory(limit if config.device == "cpu" else 0)
    try:
        with _signals_are_ctrl_c(), shown_steps(config.steps) as show:
            # A user's own run function need not take callbacks.
            outcome = execute(job, interruptible=True, **({"callbacks": [show]} if run_function == TRAIN else {}))
    except KeyboardInterrupt:
        print(f"\nstopped; the run goes on from its checkpoint: {_again()}", file=sys.stderr)
        return 130
    finally:
        limit_memory(before, restore=True)
    if outcome.state == "locked":
        raise ValueError(f"{outcome.message} is at this run; wait for it, or end it")
    if outcome.state == "full":
        raise ValueError(f"the disk is full ({outcome.message}); make room and repeat: {_again()}")
    if outcome.state != "done":
        print(outcome.message, file=sys.stderr)
        return 1
    print(f"done in {duration(outcome.seconds)}" if outcome.computed else "done already")
    print(listing.result(store, config.hash))
    return 0


def check_tasks(configs: Sequence[RunConfig], source: str, *, here: bool = True) -> None:
    """Raises ValueError that names `source` if one of the runs would fail from its start; see `feasible.check_runs`."""
    from maxrl_bench.training.feasible import check_runs  # needs torch, which the driver of a finished sweep does not

    try:
        check_runs(configs, here=here)
    except (ValueError, ImportError) as error:
        raise ValueError(f"{source}: {error}") from None


def sweep(options: SweepOptions) -> int:
    """Run experiments to the end, write their tables and figures; returns the exit code.

    Raises ValueError on bad input, and on a full disk.
    """
    find_own(options.run_function)
    experiments = load_experiments(options.experiments, options.profile)
    for experiment in experiments:
        sources.check(experiment, options.results)
    workers = _cores() if options.workers is None else options.workers
    if not 1 <= workers <= MAX_WORKERS:
        raise ValueError(f"--workers must be 1 or more, and at most {MAX_WORKERS}, got {shorten(workers)}")
    if options.scheduler is not None and options.memory is not None:
        raise ValueError("--memory limits local workers; Dask's are limited where they start: --memory-limit")
    if options.scheduler not in (None, "local") and options.workers is not None:
        raise ValueError("--workers is of local workers; a scheduler's are as many as have joined it")
    _memory_limit(options.memory, 1)
    counted = {"keep_stale": options.keep_stale, "recompute": options.recompute}
    plan = make_plan(experiments, options.results, run_function=options.run_function, **counted)
    if not options.no_plots:
        for experiment in experiments:
            publishing.check(experiment)
            publishing.check_places(experiment, options.results, options.plots)
    looks = Looks(plan)
    found = looks.follow()
    check_room(plan, make=not options.dry_run)
    if not options.no_plots:
        _check_plots(options.plots, make=not options.dry_run)
    if plan.todo and options.run_function == TRAIN:
        for experiment in experiments:
            check_tasks(experiment.runs, str(experiment.path), here=options.scheduler is None)
    for line in dict.fromkeys(line for experiment in experiments for line in experiment.recipes):
        print(line, flush=True)
    if options.dry_run:
        if options.scheduler not in (None, "local"):
            DaskPool(options.scheduler, workers).shutdown()
        print(listing.dry_run(plan, workers, found))
        return 0
    again = _again()
    running: Sweep | None = None
    with _Publisher(options, plan) as publisher, _signals_are_ctrl_c():
        try:
            pool = _pool(options, plan, workers, more=grows(plan, found))
            wanted = len(plan.wanted)
            progress = Progress(wanted, wanted - len(plan.todo), grows=grows(plan, found))
            running = Sweep(plan, pool, progress, publisher.submit, functools.partial(looks.next_runs, progress.line))
            report = running.carry_out()
            pool.shutdown()
            drawn = publisher.wait()
        except DiskFull as error:
            raise ValueError(
                f"the disk is full ({error}); what is stored is whole; make room and repeat: {again}"
            ) from None
        except PoolLost as error:
            raise ValueError(f"{error}; finished runs are kept; repeat to go on: {again}") from None
        except KeyboardInterrupt:
            if running is not None:
                publisher.write_tables(running.open, running.report.done)
            print(
                f"\nstopped; finished runs are kept, the others go on from their checkpoints: {again}", file=sys.stderr
            )
            return 130
    print(listing.summary(plan, report))
    return 1 if report.failed or not drawn else 0


def _check_plots(plots: str, *, make: bool) -> None:
    try:
        (check_writable if make else check_would_be_writable)(Path(plots))
    except OSError as error:
        raise ValueError(f"--plots {plots} cannot be used: {error.strerror}") from None


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _pool(options: SweepOptions, plan: Plan, workers: int, *, more: bool) -> Pool:
    """The workers: no more than there are runs to do, unless more may come."""
    if options.scheduler is not None:
        return DaskPool(options.scheduler, workers)
    workers = min(workers, max(1, len(plan.todo) + more * len(plan.may_come)))
    limit = _memory_limit(options.memory, workers)
    # Drivers of accelerators reserve far more address space than they use, which the limit would count.
    on_cpu = all(config.device == "cpu" for config in plan.configs.values())
    return LocalPool(workers, limit if on_cpu else 0)


def _memory_limit(memory: float | None, processes: int) -> int:
    """Bytes for each of some processes: `memory` GB, or its share of the machine's. Raises ValueError on bad ones."""
    if memory is None:
        return memory_share(processes)
    if not 0 < memory <= 2**20:
        raise ValueError(f"--memory must be a number of GB above 0, and at most {2**20}, got {memory:g}")
    return int(memory * 2**30)


def _again() -> str:
    """The command line, to run it again."""
    return shlex.join(["maxrl-bench", *sys.argv[1:]])


class _Publisher:
    """Writes tables and draws figures in a process of its own, so that the workers never wait for them."""

    def __init__(self, options: SweepOptions, plan: Plan):
        self._options, self._plan, self._pool = options, plan, LocalPool(1)
        self._futures: dict[str, Future[str]] = {}  # the latest of each experiment

    def submit(self, experiment: Experiment, done: set[str]) -> None:
        plots = None if self._options.no_plots else self._options.plots
        # Another sweep with other code may use the same store: tables take only the runs of this one.
        codes = {run: "" if self._options.keep_stale else self._plan.code(run) for run in done}
        self._futures[experiment.name] = self._pool.submit(
            publishing.publish, experiment, self._options.results, plots, codes
        )

    def write_tables(self, experiments: Sequence[Experiment], done: set[str]) -> None:
        """Write the tables of experiments that are cut short, so that `plot` can draw what there is."""
        self._pool.kill()  # it may be at the same tables
        for experiment in experiments:
            own = {config.hash for config in experiment.runs} & done
            codes = {run: "" if self._options.keep_stale else self._plan.code(run) for run in own}
            try:
                if own:
                    publishing.publish(experiment, self._options.results, None, codes)
            except (ValueError, OSError) as error:
                print(f"{experiment.name}: no tables: {error}", file=sys.stderr)

    def wait(self) -> bool:
        """Print what there is now of each experiment; False if something went wrong."""
        good = True
        for experiment, future in self._futures.items():
            try:
                print(future.result())
            except Exception as error:  # the results are stored; go on with the other experiments' figures
                good = False
                print(f"{experiment}: tables or figures FAILED: {type(error).__name__}: {error}", file=sys.stderr)
        return good

    def __enter__(self) -> _Publisher:
        return self

    def __exit__(self, *_: object) -> None:
        self._pool.kill()
        for folder in {path.parent for path in Path(self._options.results).glob("*/.*.tmp")}:
            tidy(folder)


@contextlib.contextmanager
def _signals_are_ctrl_c() -> Iterator[None]:
    """Within it, a polite kill or a hang-up ends the command as Ctrl-C does; one that is ignored (nohup) stays so."""

    def interrupt(signum: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {}
    if threading.current_thread() is threading.main_thread():  # no other may set handlers
        for name in ("SIGTERM", "SIGHUP"):
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
