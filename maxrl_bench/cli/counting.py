"""`maxrl-bench count`: how often a stored policy succeeds on each of some instances, as a file for `advise`."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

from maxrl_bench.names import shorten

_BLOCK = 64  # instances whose rollouts are drawn together
_MOST_INSTANCES, _MOST_ATTEMPTS = 100_000, 100_000


def add_options(sub: argparse.ArgumentParser) -> None:
    """The options of the command."""
    sub.add_argument("file", metavar="FILE", help="a new .csv file: prompt, successes, attempts")
    text = "the stored run whose policy acts, or how its name begins"
    sub.add_argument("--run", required=True, metavar="HASH", help=text)
    sub.add_argument("--base", action="store_true", help="the base policy that the run started from")
    sub.add_argument("--split", default="train", help="of the instances (train)")
    sub.add_argument("--instances", type=int, default=128, metavar="M", help="the first M of the split (128)")
    sub.add_argument("--attempts", type=int, default=16, metavar="N", help="at each of them (16)")
    sub.add_argument("--seed", type=int, metavar="N", help="of the rollouts (the run's)")
    sub.add_argument("--results", default="results", metavar="DIR", help="where results are kept (results/)")


def count(arguments: argparse.Namespace) -> int:
    """Draw the rollouts, write the file, say where. Raises ValueError on anything that cannot be, and an old file."""
    import numpy as np  # slow to load, and every command reads this file

    from maxrl_bench.cli.asked import stored_run
    from maxrl_bench.cli.watch import base_state, load_policy
    from maxrl_bench.storage.files import write_file
    from maxrl_bench.storage.store import Store
    from maxrl_bench.tasks import make_task

    path = Path(arguments.file)
    if path.suffix.lower() != ".csv":
        raise ValueError(f"{path}: counts are written as .csv, got {shorten(path.suffix)}")
    if os.path.lexists(path):
        raise ValueError(f"{path} exists already; remove it, or name another file")
    for name, value, most in (
        ("instances", arguments.instances, _MOST_INSTANCES),
        ("attempts", arguments.attempts, _MOST_ATTEMPTS),
    ):
        if not 1 <= value <= most:
            raise ValueError(f"--{name} must be from 1 to {most}, got {value}")
    root = Path(arguments.results) / "store"
    run = stored_run(arguments.run, root)
    store = Store(root, report=lambda line: print(line, file=sys.stderr), create=False)
    config = store.config(run)
    blob = base_state(config, store) if arguments.base else store.read(run, "policy.pt", any_code=True)
    if blob is None:
        raise ValueError(f"{store.folder(run)} holds no policy")
    seed = config.seed if arguments.seed is None else arguments.seed
    if not 0 <= seed < 2**63:
        raise ValueError(f"a seed is 0 or more and below 2^63, got {seed}")
    task, rng = make_task(**config.task), np.random.default_rng(seed)
    policy = load_policy(task, blob, rng, config.policy)
    lines = ["prompt,successes,attempts"]
    for start in range(0, arguments.instances, _BLOCK):
        indices = range(start, min(start + _BLOCK, arguments.instances))
        batch = task.batch(arguments.split, indices)
        successes = batch.sample(policy, arguments.attempts, rng, grad=False).successes
        lines += [f"{index},{k},{arguments.attempts}" for index, k in zip(indices, successes, strict=True)]
    try:
        write_file(path, "\n".join([*lines, ""]).encode())
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from None
    print(f"{path}: {arguments.instances} instances of {task.name}, {arguments.attempts} attempts at each")
    return 0
