"""What a command line asks for: settings of a run, and stored runs by the beginning of their names."""

from __future__ import annotations

import inspect
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maxrl_bench import plugins
from maxrl_bench.config import FIELDS, RunConfig, one_line
from maxrl_bench.names import did_you_mean, is_run, shorten
from maxrl_bench.objectives.table import find_row
from maxrl_bench.tasks import check_task_name

_OWNERS = {"objective": "knob", "task": "option"}


def placed(given: Mapping[str, Any], base: Mapping[str, Any]) -> dict[str, Any]:
    """Settings of a run on top of others, with each knob and option that stands on its own put where it belongs.

    {"objective": "maxrl_order", "order": 8} is {"objective": {"name": "maxrl_order", "order": 8}}. Raises ValueError on
    a key that is no setting of a run, no knob of its objective and no option of its task, or that is two of these.
    """
    settings = {**base, **{key: value for key, value in given.items() if key in RunConfig.model_fields}}
    loose = {key: value for key, value in given.items() if key not in RunConfig.model_fields}
    if not loose:
        return settings
    tables = {owner: dict(_table(owner, settings[owner])) for owner in _OWNERS if owner in settings}
    accepted = {owner: _accepted(owner, table["name"]) for owner, table in tables.items()}
    for key, value in loose.items():
        owners = [owner for owner, names in accepted.items() if key in names]
        if not owners:
            known = [*RunConfig.model_fields, *(name for names in accepted.values() for name in names)]
            raise ValueError(f"key {shorten(key)} is unknown; {did_you_mean(key, known)}")
        if len(owners) > 1:
            both = " and ".join(f"{_OWNERS[owner]} of {owner} '{tables[owner]['name']}'" for owner in owners)
            raise ValueError(f"key '{key}' is both {both}; say which: objective='{{name = \"...\", {key} = ...}}'")
        (owner,) = owners
        if owner in given and key in _table(owner, given[owner]):
            raise ValueError(f"key '{key}' is given twice, once within '{owner}'")
        tables[owner][key] = value
    return {**settings, **tables}


def _table(owner: str, value: Any) -> Mapping[str, Any]:
    try:
        table: Mapping[str, Any] = FIELDS[owner].validate_python(value)
    except ValidationError as error:
        raise ValueError(one_line(error, owner)) from None
    return table


def _accepted(owner: str, name: str) -> list[str]:
    return list(find_row(name).knobs) if owner == "objective" else option_names(name)


def option_names(task: str) -> list[str]:
    """The options that a task's factory names. Raises ValueError on an unknown task, and a plug-in that fails."""
    entry = check_task_name(task)
    try:
        parameters = inspect.signature(plugins.load(entry.factory)).parameters.values()
    except (Exception, SystemExit) as error:  # a plug-in is foreign code
        reason = f"{type(error).__name__}: {' '.join(str(error).split())}"
        raise ValueError(f"task '{task}' ({entry.factory}) cannot be made: {reason}") from error
    return [parameter.name for parameter in parameters if parameter.kind is not parameter.VAR_KEYWORD]


def stored_run(beginning: str, root: Path) -> str:
    """The run of the store `root` whose name begins so. Raises ValueError if there is none, or more than one."""
    if not is_run(beginning, whole=False):
        raise ValueError(f"{shorten(beginning)} is not the name of a run, which has 16 digits from 0-9 and a-f")
    runs = sorted(name for name in (os.listdir(root) if root.is_dir() else []) if name.startswith(beginning))
    runs = [name for name in runs if is_run(name) and (root / name).is_dir()]
    if not runs:
        raise ValueError(f"{root} holds no run {beginning}")
    if len(runs) > 1:
        shown = ", ".join(runs[:5]) + (f" and {len(runs) - 5} more" if len(runs) > 5 else "")
        raise ValueError(f"{root} holds {len(runs)} runs that begin with {beginning}: {shown}; give more digits")
    return runs[0]
