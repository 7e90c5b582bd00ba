"""What `maxrl-bench check` does: the checks of `maxrl_bench.testing`, as a table."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

from maxrl_bench.names import label
from maxrl_bench.testing.results import FAILS, Result, run_checks, table


def check(what: str, name: str, options: Mapping[str, Any]) -> int:
    """Print what holds and what fails of a "task" or an "objective"; returns the exit code, 1 if something fails.

    Raises ValueError on an unknown name, options that it does not have, and a plug-in that cannot be used.
    """
    from maxrl_bench.testing.rates import FALSE_ALARM  # loads torch

    results = _task(name, options) if what == "task" else _objective(name, options)
    print(f"{what} {label({**options, 'name': name})}")
    print(table(results))
    if what == "task":
        print(f"comparisons of samples raise a false alarm in less than one of {1 / FALSE_ALARM:,.0f} tasks")
    return int(any(result.state == FAILS for result in results))


def _task(name: str, options: Mapping[str, Any]) -> list[Result]:
    from maxrl_bench.tasks import make_task
    from maxrl_bench.testing import task_checks  # loads torch

    subject = task_checks.Subject(functools.partial(make_task, name, **options))
    _ = subject.task  # made here, so that what cannot be made is refused
    return run_checks(task_checks.CHECKS, subject)


def _objective(name: str, options: Mapping[str, Any]) -> list[Result]:
    from maxrl_bench.objectives.table import find_row
    from maxrl_bench.testing import objective_checks

    if options:
        raise ValueError("check objective takes no options: it goes through the values of all knobs")
    return run_checks(objective_checks.CHECKS, find_row(name))
