"""maxrl_bench: which policy-gradient objective to use when rewards are binary.

The public names. `load("objectives")` gives an experiment's results as data frames; training, sweeps and figures are
reached through the command line (`maxrl-bench --help`). Importing the package loads neither torch nor pandas.
"""

import os
import sys

from maxrl_bench import import_path

# As a program (not as a library of somebody's own), and before anything else is imported.
if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "maxrl-bench", "maxrl-bench.exe"):
    import_path.close()

import importlib
import importlib.metadata
from typing import TYPE_CHECKING, Any

from maxrl_bench.objectives.formula import Formula, Knob
from maxrl_bench.objectives.table import OBJECTIVES, Objective, advantages, bind
from maxrl_bench.tasks import TASKS, Batch, Task, make_task

if TYPE_CHECKING:
    from maxrl_bench.storage.tables import load

__all__ = [
    "OBJECTIVES",
    "TASKS",
    "Batch",
    "Formula",
    "Knob",
    "Objective",
    "Task",
    "advantages",
    "bind",
    "load",
    "make_task",
]
_LATER = {"load": "maxrl_bench.storage.tables"}  # names that cost an import of pandas, made when they are asked for

try:
    __version__ = importlib.metadata.version("maxrl-bench")
except importlib.metadata.PackageNotFoundError:
    __version__ = "unknown"  # a checkout that is not installed


def __getattr__(name: str) -> Any:
    if name in _LATER:
        return getattr(importlib.import_module(_LATER[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
