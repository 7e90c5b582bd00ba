"""What the tables say, and how sure it is.

`evidence` reads an experiment's tables, selects their runs (`selecting`) as the `series` that figures and claims
compare, and scores them (`scoring`); `compare` judges one difference, by the variances of `crossed`, and `comparing`
does so for a call from Python; `stats` has the other intervals; `claims` judges what an experiment file claims; `rates`
chooses learning rates by two criteria, and `tune` merges them into their file (`rates_file`).

Comes in: tables, claims. Goes out: estimates with intervals, verdicts, tuned rates.
"""

__all__ = ["claims", "compare", "comparing", "evidence", "rates", "series", "stats", "tune"]
