"""A run that is done at once, for fuzzing what lies around runs."""

import pandas as pd

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store


def run(config: RunConfig, store: Store) -> None:
    rows = [
        {"step": step, "rollouts": step, "seconds": 0.1, "pass@1": 0.5, "log_p": -1.0, "entropy": 1.0}
        for step in (0, config.steps)
    ]
    rates = pd.DataFrame({"step": [0, config.steps], "instance": 0, "pass_rate": 0.5, "n": 0})
    store.finish(config, rows, rates, {"seconds": 0.1})
