"""maxrl_bench: which policy-gradient objective to use when rewards are binary.

The public names. `run` trains and returns tables, `load` reads those of an experiment, `compare` says which of two
objectives is better by them, `plot` draws them, and `plug_in` adds tasks and objectives of one's own (docs/python.md);
`advise` says what objectives would do to your own prompts (docs/advise.md);
the command line has the rest (`maxrl-bench --help`). Importing the package loads neither torch nor pandas.
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

from maxrl_bench.objectives.advantages import advantages
from maxrl_bench.objectives.formula import Formula, Knob
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind
from maxrl_bench.own import plug_in
from maxrl_bench.tasks import TASKS, Batch, Task, make_task

if TYPE_CHECKING:
    from maxrl_bench import plot
    from maxrl_bench.advice.advising import advise
    from maxrl_bench.analysis.comparing import compare
    from maxrl_bench.storage.tables import load
    from maxrl_bench.sweeps.calling import run

__all__ = [
    "OBJECTIVES",
    "TASKS",
    "Batch",
    "Formula",
    "Knob",
    "Objective",
    "Task",
    "advantages",
    "advise",
    "bind",
    "compare",
    "load",
    "make_task",
    "plot",
    "plug_in",
    "run",
]
# Names that cost an import of pandas or more, made when they are asked for, and where they are.
_LATER = {
    "advise": "maxrl_bench.advice.advising",
    "compare": "maxrl_bench.analysis.comparing",
    "load": "maxrl_bench.storage.tables",
    "plot": "maxrl_bench.plot",
    "run": "maxrl_bench.sweeps.calling",
}

try:
    __version__ = importlib.metadata.version("maxrl-bench")
except importlib.metadata.PackageNotFoundError:
    __version__ = "unknown"  # a checkout that is not installed


def __getattr__(name: str) -> Any:
    if name in _LATER:
        module = importlib.import_module(_LATER[name])
        return getattr(module, name, module)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATER})
