"""Runs -> executor: a bounded window of jobs, resumed where it stopped, with failures kept apart.

The state of a sweep is the run store and nothing else. Killing it, or the workers, at any moment loses at most the
seconds since the checkpoints of the runs in progress; the same command goes on.
"""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from filelock import Timeout

from maxrl_bench import plugins
from maxrl_bench.config import SETTINGS, RunConfig, cell, label
from maxrl_bench.console import told
from maxrl_bench.storage.files import check_would_be_writable, existing
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import DONE, Check, Store
from maxrl_bench.sweeps import costs, taken
from maxrl_bench.sweeps.claim_check import check_columns
from maxrl_bench.sweeps.executors import Pool, PoolLost
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.grid import many_objects
from maxrl_bench.sweeps.progress import Progress
from maxrl_bench.sweeps.worker import TRAIN, Job, Outcome, execute, find_own

STRIKES = 3  # workers that a run may take down before it counts as failed
PUBLISH_SECONDS = 240.0  # between looks at an experiment that is not finished yet
_POLL_SECONDS = 1.0
_SPARE_BYTES = 50e6


@dataclass
class Plan:
    """The work of a sweep: the runs of its experiments, each once, and the stored state of each."""

    experiments: Sequence[Experiment]
    root: str  # results/
    store: Store
    run_function: str
    keep_stale: bool
    configs: dict[str, RunConfig]
    codes: dict[str, str]  # code fingerprint by run
    found: dict[str, Check]
    costs: costs.Costs
    held: dict[str, str]  # run -> the experiment whose tables hold it; not in the store yet
    refused: list[str]  # runs in the store that were taken back from tables and are to be computed

    @property
    def todo(self) -> list[str]:
        """The runs to compute, by experiment, then longest first."""
        place: dict[str, int] = {}
        for number, experiment in enumerate(self.experiments):
            for config in experiment.runs:
                place.setdefault(config.hash, number)
        wanted = [run for run, check in self.found.items() if check.state != "done"]
        return sorted(wanted, key=lambda run: (place[run], -self.costs.rank(self.configs[run])))

    def seconds(self, runs: Sequence[str]) -> float | None:
        """Expected worker time of some runs; None if nothing is known."""
        known = [s for run in runs if (s := self.costs.seconds(self.configs[run])) is not None]
        return sum(known) * len(runs) / len(known) if known else (None if runs else 0.0)

    def job(self, run: str) -> Job:
        """A run as sent to a worker."""
        # Absolute: a worker on another machine need not have our working directory.
        root = os.path.abspath(self.store.root)
        config = self.configs[run].model_dump_json()
        return Job(config, root, self.code(run), self.keep_stale, self.run_function, plugins.added())

    def code(self, run: str) -> str:
        """The fingerprint of the code that a run depends on."""
        return self.codes[run]

    def label(self, run: str) -> str:
        """A run in a few words, the same for no two runs."""
        return self.configs[run].describe(self._telling)

    @functools.cached_property
    def _telling(self) -> list[str]:
        """The settings, but for those that are always told, in which runs of one task and objective differ."""
        values: dict[tuple[str, str, str], set[Any]] = {}
        for config in self.configs.values():
            for name in SETTINGS:
                key = (name, config.task_label, label(config.objective))
                values.setdefault(key, set()).add(cell(getattr(config, name)))
        differing = {name for (name, *_), taken in values.items() if len(taken) > 1}
        return [name for name in SETTINGS if name in differing - {"num_rollouts", "learning_rate"}]


@many_objects()
def make_plan(
    experiments: Sequence[Experiment],
    root: str | Path,
    *,
    run_function: str = TRAIN,
    keep_stale: bool = False,
    recompute: bool = False,
) -> Plan:
    """Look up every run of some experiments in the store `root`/store, and then in the tables in `root`.

    With `keep_stale`, results that other code has made count as done; with `recompute`, those of tables do not. Raises
    ValueError if the store cannot be used.
    """
    if run_function == TRAIN:  # another may write columns of its own
        for experiment in experiments:
            check_columns(experiment)
    configs = {config.hash: config for experiment in experiments for config in experiment.runs}
    find_own(run_function)  # as the workers will, so that all see the same code
    fingerprint = functools.cache(lambda task, objective: code_fingerprint(task, objective, run_function))
    codes = {run: fingerprint(config.task.name, config.objective.name) for run, config in configs.items()}
    store = Store(Path(root) / "store", create=False)  # to look is not to write: `check_writable` makes it
    stores = {code: store if keep_stale else Store(store.root, code, create=False) for code in set(codes.values())}
    # One look at the folder instead of several at each of many thousand runs that are not there.
    stored = set(os.listdir(store.root)) if store.root.exists() else set()
    checks = {run: stores[codes[run]].check(run) if run in stored else Check("missing") for run in configs}
    refused = [run for run, check in checks.items() if recompute and check.taken_from]
    checks |= dict.fromkeys(refused, Check("missing"))
    wanted = {run: "" if keep_stale else codes[run] for run, check in checks.items() if check.state != "done"}
    held = {} if recompute else taken.find(wanted, root, [experiment.name for experiment in experiments])
    checks |= {run: Check("done", "", name) for run, name in held.items()}
    known = costs.recorded(configs.values(), store, str(root), stored)
    return Plan(experiments, str(root), store, run_function, keep_stale, configs, codes, checks, known, held, refused)


def check_room(plan: Plan, *, make: bool = True) -> None:
    """Raises ValueError if the store cannot be written, or the disk has too little room for what is to be stored.

    The store is made if it is not there; not so with `make=False`, which only looks.
    """
    if make:
        plan.store.check_writable()
    else:
        check_would_be_writable(plan.store.root)
    needed = _SPARE_BYTES + 2 * len(plan.todo) * plan.store.bytes_per_run()
    free = shutil.disk_usage(existing(plan.store.root)).free
    if free < needed:
        raise ValueError(f"{plan.store.root}: {free / 1e6:.0f} MB are free; this sweep wants {needed / 1e6:.0f} MB")


@dataclass
class Report:
    """The outcome of a sweep. `utilisation` is the share of the workers' time that was spent in runs."""

    done: set[str]
    failed: dict[str, str] = field(default_factory=dict)  # run -> last line of its traceback
    computed: int = 0
    seconds: float = 0.0
    utilisation: float = 0.0
    peak_memory_mb: float = 0.0


class DiskFull(Exception):
    """The disk has no room for a result; everything that is stored is whole."""


class Sweep:
    """A sweep in progress.

    `on_experiment` gets each experiment whose runs have all ended, and those of them that are done; and, now and then,
    the experiment in progress with the runs that are done by then, so that long ones can be read early.
    """

    def __init__(
        self,
        plan: Plan,
        pool: Pool,
        progress: Progress,
        on_experiment: Callable[[Experiment, set[str]], None] = lambda experiment, done: None,
    ):
        self.plan, self.pool, self.progress, self.on_experiment = plan, pool, progress, on_experiment
        self.todo = list(reversed(plan.todo))  # taken from the end
        self.held: list[str] = []  # by another sweep
        self.waited_for: set[str] = set()  # those of them that have been told
        self.foreign: set[str] = set()  # workers with other code
        self.running: dict[Future[Outcome], tuple[str, float]] = {}
        self.strikes: Counter[str] = Counter()
        self.report = Report(done={run for run, check in plan.found.items() if check.state == "done"})
        self.open = list(plan.experiments)
        self.shown_at, self.shown = time.monotonic(), len(self.report.done)
        self.busy = self.capacity = 0.0

    def carry_out(self) -> Report:
        """Go on until every run has ended. Raises DiskFull, PoolLost and KeyboardInterrupt after ending the workers."""
        self.plan.store.tidy_all()
        unusable = Counter(check.why for check in self.plan.found.values() if check.state in ("corrupt", "stale"))
        for why, count in unusable.items():
            self.progress.line(f"{count} stored runs are not used but run again: {why}")
        if self.plan.keep_stale:
            codes = {run: self.plan.store.provenance(run).get("code") for run in self.report.done}
            kept = sum(code != self.plan.code(run) for run, code in codes.items())
            if kept:
                self.progress.line(f"{kept} stored runs are kept though another version of the code made them")
        started = turned = time.monotonic()
        try:
            self._take_back()
            self._close_experiments()
            while self.todo or self.held or self.running:
                while self.todo and len(self.running) < self.pool.size:
                    run = self.todo.pop()
                    self.running[self.pool.submit(execute, self.plan.job(run))] = (run, time.monotonic())
                self.progress.show([self.plan.label(run) for run, _ in self.running.values()], self.time_left())
                finished: set[Future[Outcome]] = set()
                if self.running:
                    finished, _ = wait(self.running, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
                else:
                    time.sleep(_POLL_SECONDS)
                while finished:  # a finished future that is kept alive is run again by Dask after a kill
                    future = finished.pop()
                    run, _ = self.running.pop(future)
                    self._take(run, future)
                    del future
                if self.held and len(self.running) < self.pool.size:
                    self._look_again()
                self._show_progress()
                now = time.monotonic()
                self.capacity += (now - turned) * self.pool.size
                turned = now
        except BaseException:
            self.pool.kill()
            self.plan.store.tidy_all()
            raise
        finally:
            self.progress.close()
        self.report.seconds = time.monotonic() - started
        self.report.utilisation = self.busy / self.capacity if self.capacity else 0.0
        return self.report

    def _take_back(self) -> None:
        """Put into the store what the tables hold; what another process is at, or has gone from them, is to do."""
        taken.drop(self.plan.refused, self.plan.store)
        gone = taken.take(self.plan.held, self.plan.configs, self.plan.store, self.plan.root, self.progress.line)
        self.report.done -= gone
        self.todo += gone

    def time_left(self) -> float | None:
        """Expected seconds to the end, on as many workers as there are now; None if nothing is known."""
        now = time.monotonic()
        waiting = self.plan.seconds([*self.todo, *self.held])
        current = [self.plan.seconds([run]) for run, _ in self.running.values()]
        if waiting is None or None in current:
            return None
        begun = [now - since for _, since in self.running.values()]
        rest = [max(0.0, (total or 0.0) - spent) for total, spent in zip(current, begun, strict=True)]
        return max([(waiting + sum(rest)) / self.pool.size, *rest])

    def _take(self, run: str, future: Future[Outcome]) -> None:
        """Record the outcome of a job."""
        try:
            error = future.exception()  # raised by `result`, a run's SystemExit would be ours
        except CancelledError:  # we cancel none: the scheduler has gone, which is no fault of the run
            raise PoolLost("the scheduler is gone") from None
        if isinstance(error, CancelledError):
            raise PoolLost("the scheduler is gone")
        if isinstance(error, BrokenExecutor):
            self.strikes[run] += 1
            if self.strikes[run] < STRIKES:
                self.progress.line(f"the worker of {self.plan.label(run)} died; it is run again")
                self.todo.append(run)
                return
            outcome = self._record(run, f"its worker died {STRIKES} times (killed, out of memory, or crashed)")
        elif error is not None:  # executors report a lost worker in different ways; the other runs go on
            outcome = self._record(run, told(error))
        else:
            outcome = future.result()
        self.busy += outcome.seconds
        self.report.peak_memory_mb = max(self.report.peak_memory_mb, outcome.peak_memory_mb)
        for note in outcome.notes:
            self.progress.line(note)
        if outcome.state == "locked":
            if run not in self.waited_for:
                self.progress.line(f"{self.plan.label(run)}: {outcome.message} is at it; its result is waited for")
            self.waited_for.add(run)
            self.held.append(run)
            return
        if outcome.state == "foreign":
            self._avoid(run, outcome)
            return
        if outcome.state == "full":
            raise DiskFull(outcome.message)
        if outcome.state == "done" and not (self.plan.store.folder(run) / DONE).exists():
            why = f"a worker says that it is done, but there is no result in {self.plan.store.root}"
            outcome = Outcome("failed", why)
        if outcome.state == "done":
            self.report.done.add(run)
            self.report.computed += outcome.computed
            if outcome.computed and self.plan.costs.learn(self.plan.configs[run], outcome.seconds):
                waiting = set(self.todo)
                self.todo = [run for run in reversed(self.plan.todo) if run in waiting]
            took = f"{outcome.seconds:.1f} s" if outcome.computed else "stored meanwhile"
            self.progress.finish(f"{self.plan.label(run)}: {took}", self.time_left())
        else:
            self.report.failed[run] = outcome.message.strip().rpartition("\n")[2]
            what = f"{self.plan.label(run)}: FAILED: {self.report.failed[run]}"
            self.progress.finish(what, self.time_left(), failed=True)
        self._close_experiments()

    def _avoid(self, run: str, outcome: Outcome) -> None:
        """Return a run to the queue, and exclude its worker, which has other code. Raises PoolLost if none is left."""
        self.todo.append(run)
        others = self.pool.exclude(outcome.worker)
        if not others:
            raise PoolLost(f"no worker has the driver's code ({outcome.worker}: {outcome.message})")
        if outcome.worker not in self.foreign:
            self.progress.line(f"worker {outcome.worker} gets no runs: {outcome.message}")
        self.foreign.add(outcome.worker)

    def _record(self, run: str, message: str) -> Outcome:
        """Store that a run failed, unless it was finished before its worker was lost."""
        store = Store(self.plan.store.root, "" if self.plan.keep_stale else self.plan.code(run))
        # A dying worker may hold its lock for a moment yet; another sweep may hold it for long, and knows better.
        with contextlib.suppress(OSError, ValueError, Timeout), store.lock(run).acquire(timeout=_POLL_SECONDS):
            if store.status(run) == "done":
                return Outcome("done")
            store.fail(self.plan.configs[run], message)
        return Outcome("failed", message)

    def _look_again(self) -> None:
        """Queue the runs that another sweep had locked, if they are free now."""
        free = [run for run in self.held if self.plan.store.is_free(run)]
        self.held = [run for run in self.held if run not in free]
        self.todo += free

    def _show_progress(self) -> None:
        """Publish the first unfinished experiment, if it is time and there are new runs."""
        done = self.report.done
        if not self.open or len(done) == self.shown or time.monotonic() - self.shown_at < PUBLISH_SECONDS:
            return
        self.shown_at, self.shown = time.monotonic(), len(done)
        own = {config.hash for config in self.open[0].runs} & done
        if own:
            self.on_experiment(self.open[0], own)

    def _close_experiments(self) -> None:
        """Publish the experiments whose last run has ended."""
        for experiment in list(self.open):
            own = {config.hash for config in experiment.runs}
            if own <= self.report.done | self.report.failed.keys():
                self.open.remove(experiment)
                self.on_experiment(experiment, own & self.report.done)
