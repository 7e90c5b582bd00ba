"""maxrl_bench: which policy-gradient objective to use when rewards are binary.

The public names. Training, sweeps and figures are reached through the command line (`maxrl-bench --help`), stored
results through `maxrl_bench.results.load`.
"""

from maxrl_bench.objectives import OBJECTIVES, Objective, advantages, bind
from maxrl_bench.tasks import TASKS, Batch, Task, make_task

__all__ = ["OBJECTIVES", "TASKS", "Batch", "Objective", "Task", "advantages", "bind", "make_task"]
