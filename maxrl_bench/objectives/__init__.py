"""What a success and a failure weigh: every objective as a row of one table.

A row turns the number of successes K among N rollouts of an instance into two weights, one for each success and one for
each failure; times the scores of the rollouts they are the gradient. `table` holds the rows (OBJECTIVES) and binds them
to N and their knobs; `formula` says what a row is; `population` gives what an objective does in expectation at a pass
rate p (weights, bias, noise), and `binomials` the sums that this needs without loss of digits; `advantages`
weighs rollouts for any training loop, whose rewards `rewards` reads (`continuous`: those between 0 and 1);
`alike` finds those that are the same in expectation, and `outside` the rows of other packages.

Comes in: success counts [B] and N, or rewards. Goes out: weights [B], advantages, expected weights by
pass rate.
"""

__all__ = ["advantages", "alike", "binomials", "formula", "outside", "population", "rewards", "table"]
