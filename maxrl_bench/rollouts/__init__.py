"""N rollouts of each of B instances, and the policies that act in them.

N is a count and never a dimension: at each state the number of rollouts that take each action is one multinomial draw,
so that a million rollouts cost as much as the distinct states that they visit. `counts` says what rollouts are and how
counts flow; `graphs` is for tasks whose states are nodes of a small graph, `tokens` for sequences, which share their
beginnings (`prefix_tree`); `policies` and `transformer` are the networks; `finite` refuses numbers that are not.

Comes in: a task's batch, a policy, N, a generator. Goes out: success counts [B], and a scalar whose gradient is the
mean of weight times score.
"""

__all__ = ["counts", "finite", "graphs", "policies", "tokens", "transformer"]
