"""Tasks and objectives of one's own, without a package that offers them: `maxrl_bench.plug_in`."""

from __future__ import annotations

from collections.abc import Mapping

from maxrl_bench import plugins
from maxrl_bench.names import shorten
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.tasks import ENTRY_POINTS, TASKS


def plug_in(*, tasks: Mapping[str, str] | None = None, objectives: Mapping[str, str] | None = None) -> None:
    """Add tasks and objectives to those of this process, by name: {"reverse": "my_module:Reverse"}.

    The values are what the entry points of an installed package would say: `module:attribute`, of a task its factory,
    of an objective its `Formula`. The module is imported, and must be a file on the import path (beside the notebook
    or script): its source is part of what identifies a run's results, and the workers of `run` import it too.
    Raises ValueError, one line, on anything that cannot be used so, and on a module that has changed since it was
    plugged in: Python has to be started again for it.
    """
    for what, given in (("tasks", tasks), ("objectives", objectives)):
        if not isinstance(given, Mapping | None):
            raise ValueError(f'{what} must be a mapping such as {{"mine": "my_module:Mine"}}, got {shorten(given)}')
    for name, value in (tasks or {}).items():
        _refuse_built_in(name, TASKS)
        plugins.add(ENTRY_POINTS, name, value, _check_factory)
    for name, value in (objectives or {}).items():
        _refuse_built_in(name, {**OBJECTIVES, **outside.ALIASES})
        plugins.add(outside.ENTRY_POINTS, name, value, outside.load_row)


def _refuse_built_in(name: str, taken: Mapping[str, object]) -> None:
    if name in taken:
        raise ValueError(f"plug-in '{name}': this name is built in; choose another")


def _check_factory(name: str, value: str) -> None:
    try:
        factory = plugins.load(value)
    except (Exception, SystemExit) as error:  # foreign code: any error of it becomes one line
        reason = " ".join(str(error).split())
        raise ValueError(
            f"plug-in task '{name}' ({value}) cannot be loaded: {type(error).__name__}: {reason}"
        ) from error
    if not callable(factory):
        raise ValueError(f"plug-in task '{name}' ({value}) must be a class or function that makes the task")
