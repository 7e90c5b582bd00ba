"""Many runs: from an experiment file to its tables.

`experiment` reads a file and `grid` expands it into runs, on top of the `recipes` of their tasks; `claim_model` and
`claim_check` read what it claims and hold it against the grid before anything runs; `plan` finds out what is to do, and
`driver` does it, on the pools of `executors`, whose processes run `worker`, after `taken` has fetched finished runs
from committed tables; `seeds` and `rate_rule` say which seeds and
learning rates come next where they follow the results; `costs` and `progress` say how
long it takes; `tabulate` joins the finished runs into tables, of which `sources` says whose they are. `calling` does
all of this for one call from Python.

Comes in: experiment files, a store. Goes out: results/<experiment>/, and an account of what failed.
"""

__all__ = [
    "calling",
    "claim_check",
    "claim_model",
    "driver",
    "executors",
    "experiment",
    "grid",
    "plan",
    "progress",
    "rate_rule",
    "recipes",
    "seeds",
    "sources",
    "tabulate",
    "taken",
    "worker",
]
