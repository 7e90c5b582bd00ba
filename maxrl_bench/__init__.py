"""maxrl_bench: which policy-gradient objective to use when rewards are binary.

The public names. Training, sweeps and figures are reached through the command line (`maxrl-bench --help`), stored
results through `maxrl_bench.storage.tables.load`.
"""

import os
import sys

from maxrl_bench import import_path

# As a program (not as a library of somebody's own), and before anything else is imported.
if sys.argv and os.path.basename(sys.argv[0]) in ("-m", "maxrl-bench", "maxrl-bench.exe"):
    import_path.close()

import importlib.metadata

from maxrl_bench.objectives.table import OBJECTIVES, Objective, advantages, bind
from maxrl_bench.tasks import TASKS, Batch, Task, make_task

__all__ = ["OBJECTIVES", "TASKS", "Batch", "Objective", "Task", "advantages", "bind", "make_task"]

try:
    __version__ = importlib.metadata.version("maxrl-bench")
except importlib.metadata.PackageNotFoundError:
    __version__ = "unknown"  # a checkout that is not installed
