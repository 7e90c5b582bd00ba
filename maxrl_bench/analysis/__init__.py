"""What the tables say, and how sure it is.

`evidence` reads an experiment's tables, selects their runs (`selecting`) as the `series` that figures and claims
compare, and scores them (`scoring`); `stats` has the intervals and tests; `claims` judges what an experiment file
claims; `tune` chooses learning rates and merges them into their file (`rates_file`).

Comes in: tables, claims. Goes out: estimates with intervals, verdicts, tuned rates.
"""

__all__ = ["claims", "evidence", "series", "stats", "tune"]
