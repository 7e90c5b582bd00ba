"""A stand-in for training whose pass@1 and pass@128 peak at known learning rates; of one objective, high rates fail."""

import math

import pandas as pd

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store

# The best rate for pass@1 and for pass@128, by objective and number of rollouts.
BEST = {
    ("grpo", 8): (1e-3, 1e-3),
    ("grpo", 64): (3e-2, 3e-2),
    ("rloo", 8): (3e-5, 3e-6),  # so that the criteria disagree
    ("rloo", 64): (1e-3, 1e-3),
    ("maxrl_alg1", 8): (1.0, 1.0),  # but runs fail above 0.02
    ("maxrl_alg1", 64): (1e-9, 1e-9),  # below the lowest rate that is tried
}


def run(config: RunConfig, store: Store) -> None:
    name = str(config.objective["name"])
    if name == "maxrl_alg1" and config.learning_rate > 0.02:
        raise FloatingPointError("the surrogate became nan")
    one, many = (abs(math.log10(config.learning_rate / best)) for best in BEST[name, config.num_rollouts])
    noise = (config.seed * 7 % 5) / 1e4
    good = {"pass@1": 0.5 - 0.05 * one + noise, "pass@128": 0.9 - 0.1 * many}
    start = {"step": 0, "rollouts": 0, "seconds": 0.0, **dict.fromkeys(good, 0.1)}
    rows = [start, *({**start, "step": step, **good} for step in (1, 2))]
    rates = {"step": [0, 2], "instance": 0, "pass_rate": [0.1, good["pass@1"]], "n": 0}
    store.finish(config, rows, pd.DataFrame(rates), {})
