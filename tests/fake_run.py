"""A stand-in for training, for tests of the harness: no torch, a few milliseconds, but with all that can go wrong.

It takes steps with a generator, shares a base between runs, writes checkpoints, resumes from them, and finishes. The
run's `policy` table steers it: step_ms, and the step at which to die, fail or find the disk full; by how much the rate
of success is lifted in all, in thousandths of its logit; and the seed that fails, or collapses in its second half.
"""

import errno
import json
import os
import signal
import time

import numpy as np
import pandas as pd

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store

INSTANCES = 4


def _base(config: RunConfig, store: Store) -> float:
    name = f"base-{config.seed}"
    with store.lock(name):
        stored = store.read(name, "policy.pt")
        if stored is None:
            stored = json.dumps(float(np.random.default_rng(config.seed).random())).encode()
            store.write(name, "policy.pt", stored)
    return float(json.loads(stored))


def run(config: RunConfig, store: Store) -> None:
    rng = np.random.default_rng([config.seed, config.num_rollouts, len(config.objective["name"])])
    state = {"step": 0, "value": _base(config, store), "rows": [], "rates": []}
    stored = store.read(config.hash, "checkpoint.pt")
    if stored is not None:
        saved = json.loads(stored)
        state, rng.bit_generator.state = saved["state"], saved["rng"]
    faults = config.policy
    state["lift"] = faults.get("lift", 0) / 1000
    if faults.get("fail_seed") == config.seed:
        raise FloatingPointError("the surrogate became nan")
    while True:
        step = state["step"]
        if step % config.eval_every == 0 or step == config.steps:
            fallen = faults.get("collapse_seed") == config.seed and step >= config.steps / 2
            rate = 1 / (1 + np.exp(5.0 if fallen else -state["value"] - state["lift"]))
            row = {"step": step, "rollouts": step * config.num_rollouts, "seconds": time.perf_counter()}
            state["rows"].append({**row, "pass@1": rate, "log_p": float(np.log(rate)), "entropy": state["value"]})
            state["rates"] += [rate * (i + 1) / INSTANCES for i in range(INSTANCES)]
        if step == config.steps:
            break
        if step == faults.get("die_at"):
            os.kill(os.getpid(), signal.SIGKILL)
        if step == faults.get("fail_at"):
            raise FloatingPointError("the surrogate became nan")
        if step == faults.get("full_at"):
            raise OSError(errno.ENOSPC, "No space left on device")
        time.sleep(faults.get("step_ms", 0) / 1000)
        state["value"] += float(rng.normal()) / 10
        state["step"] += 1
        store.write(config.hash, "checkpoint.pt", json.dumps({"state": state, "rng": rng.bit_generator.state}).encode())
    evaluated = [row["step"] for row in state["rows"]]
    pass_rates = pd.DataFrame(
        {
            "step": np.repeat(evaluated, INSTANCES),
            "instance": np.tile(range(INSTANCES), len(evaluated)),
            "pass_rate": state["rates"],
            "n": 0,
        }
    )
    store.write(config.hash, "policy.pt", json.dumps(state["value"]).encode())
    store.finish(config, state["rows"], pass_rates, {})


def train_with_many_checkpoints(config: RunConfig, store: Store) -> None:
    """The real thing, but for a checkpoint at every step and a pause in which to be killed."""
    from maxrl_bench.training import loop as train

    train.CHECKPOINT_SECONDS = 0.0
    step = train.Run.step

    def slow_step(run: train.Run) -> None:
        time.sleep(0.02)
        step(run)

    train.Run.step = slow_step  # type: ignore[method-assign]
    try:
        train.train(config, store)
    finally:
        train.Run.step = step  # type: ignore[method-assign]
