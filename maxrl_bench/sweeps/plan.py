"""Experiments -> plan: the runs of a sweep, each once, what is stored of each, and what is to do."""

from __future__ import annotations

import functools
import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from maxrl_bench import plugins
from maxrl_bench.config import SETTINGS, RunConfig, cell, label
from maxrl_bench.storage.files import check_would_be_writable, existing
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import Check, Store
from maxrl_bench.sweeps import costs, taken
from maxrl_bench.sweeps.claim_check import check_columns
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.grid import many_objects
from maxrl_bench.sweeps.seeds import grown, later_runs
from maxrl_bench.sweeps.worker import TRAIN, Job, find_own

_SPARE_BYTES = 50e6


@dataclass
class Plan:
    """The work of a sweep: the runs of its experiments, each once, and the stored state of each.

    Where seeds follow the claims, `configs` and all that is told by run have those that may still come, too.
    """

    experiments: list[Experiment]
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
    def wanted(self) -> dict[str, int]:
        """The runs that are asked for by now, each with the place of its experiment."""
        place: dict[str, int] = {}
        for number, experiment in enumerate(self.experiments):
            for config in experiment.runs:
                place.setdefault(config.hash, number)
        return place

    @property
    def todo(self) -> list[str]:
        """The runs to compute, by experiment, then longest first."""
        place = self.wanted
        missing = [run for run in place if self.found[run].state != "done"]
        return sorted(missing, key=lambda run: (place[run], -self.costs.rank(self.configs[run])))

    @property
    def may_come(self) -> set[str]:
        """The runs that claims may yet ask for."""
        later = {config.hash for experiment in self.experiments for config in later_runs(experiment)}
        return later - self.wanted.keys()

    def extend(self, experiment: Experiment, more: Sequence[RunConfig]) -> Experiment:
        """Ask for more of the runs that may come; returns the experiment with them."""
        larger = grown(experiment, more)
        self.experiments[self.experiments.index(experiment)] = larger
        return larger

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
    may_come = [config for experiment in experiments for config in later_runs(experiment)]
    configs = {config.hash: config for experiment in experiments for config in experiment.runs}
    configs |= {config.hash: config for config in may_come}
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
    state = checks, known, held, refused
    return Plan(list(experiments), str(root), store, run_function, keep_stale, configs, codes, *state)


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
