"""One run: from a configuration to a finished entry of the store.

`loop` is the run: a base policy (`warm_start`), on-policy steps under one objective, a checkpoint to go on from
(`state`, `parameters`). What it measures is in `measuring` and `metrics`. Each use of randomness has a generator of its
own (`streams`), so that all objectives of a comparison meet the same instances. `feasible` says before the first run
what cannot be trained.

Comes in: a RunConfig and a store. Goes out: the run's evaluations, pass rates of instances, trained policy.
"""

__all__ = ["feasible", "loop", "parameters", "warm_start"]
