"""Runs -> executor: a bounded window of jobs, resumed where it stopped, with failures kept apart.

The state of a sweep is the run store and nothing else. Killing it, or the workers, at any moment loses at most the
seconds since the checkpoints of the runs in progress; the same command goes on.
"""

from __future__ import annotations

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, CancelledError, Future, wait
from dataclasses import dataclass, field

from filelock import Timeout

from maxrl_bench.config import RunConfig
from maxrl_bench.console import told
from maxrl_bench.storage.store import DONE, Check, Store
from maxrl_bench.sweeps import taken
from maxrl_bench.sweeps.executors import Pool, PoolLost
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.plan import Plan as Plan
from maxrl_bench.sweeps.plan import check_room as check_room
from maxrl_bench.sweeps.plan import make_plan as make_plan
from maxrl_bench.sweeps.progress import Progress
from maxrl_bench.sweeps.worker import Outcome, execute

STRIKES = 3  # workers that a run may take down before it counts as failed
PUBLISH_SECONDS = 240.0  # between looks at an experiment that is not finished yet
_POLL_SECONDS = 1.0


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
    the experiment in progress with the runs that are done by then, so that long ones can be read early. `next_runs` is
    asked, with the same, before an experiment ends: it goes on with the runs that it gets, and is asked again after
    them.
    """

    def __init__(
        self,
        plan: Plan,
        pool: Pool,
        progress: Progress,
        on_experiment: Callable[[Experiment, set[str]], None] = lambda experiment, done: None,
        next_runs: Callable[[Experiment, set[str]], Sequence[RunConfig]] = lambda experiment, done: (),
    ):
        self.plan, self.pool, self.progress, self.on_experiment = plan, pool, progress, on_experiment
        self.next_runs = next_runs
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
        checks = [self.plan.found[run] for run in self.plan.wanted]
        unusable = Counter(check.why for check in checks if check.state in ("corrupt", "stale"))
        for why, count in unusable.items():
            self.progress.line(f"{count} stored runs are not used but run again: {why}")
        if self.plan.keep_stale:
            codes = {
                run: self.plan.store.provenance(run).get("code") for run in self.report.done & self.plan.wanted.keys()
            }
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
        self.plan.found |= dict.fromkeys(gone, Check("missing"))
        self.todo += gone & self.plan.wanted.keys()

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
        """Publish the experiments whose last run has ended, unless they ask for more."""
        done = self.report.done
        ended = done | self.report.failed.keys()
        for experiment in list(self.open):
            while (own := {config.hash for config in experiment.runs}) <= ended:
                more = self.next_runs(experiment, own & done)
                if not more:
                    self.open.remove(experiment)
                    self.on_experiment(experiment, own & done)
                    break
                experiment = self._extend(experiment, more)

    def _extend(self, experiment: Experiment, more: Sequence[RunConfig]) -> Experiment:
        """Queue more runs of an experiment; returns it with them."""
        before = self.plan.wanted
        larger = self.plan.extend(experiment, more)
        self.open[self.open.index(experiment)] = larger
        new = {config.hash for config in more} - before.keys()
        waiting = {*self.todo, *(new - self.report.done)}
        self.todo = [run for run in reversed(self.plan.todo) if run in waiting]
        self.progress.extend(len(new), len(new & self.report.done))
        return larger
