"""The engine against a previous version of itself: both step through the same runs in turn, each in its own process."""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

from maxrl_bench.bench import stepper

# Task, rollouts, warm-start steps, and what a step may take of the previous version's processor seconds.
CELLS = (
    ("maze-9", 64, 200, 0.6),
    ("programs-1", 64, 50, 0.6),
    ("fourrooms", 64, 50, 0.5),
    ("doorkey-8", 64, 20, 0.5),
)
QUICK_CELLS = (("maze-9", 64, 10, 0.6), ("fourrooms", 64, 10, 0.5))
OBJECTIVE = "maxrl_alg1"
STILL = 1e-12  # learning rate: the policy remains the warm-started one, so that all steps measure the same


class Version:
    """A process in which a checkout steps through runs (see `stepper`). Raises ValueError if it ends early."""

    def __init__(self, root: Path):
        self.root = root
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(stepper.__file__)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": str(root.resolve()), "OMP_NUM_THREADS": "1"},
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    def ask(self, what: str, argument: Any) -> Any:
        """One question of `stepper`, and its answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        try:
            print(json.dumps([what, argument]), file=self.process.stdin, flush=True)
            return json.loads(self.process.stdout.readline())
        except (OSError, json.JSONDecodeError) as error:
            raise ValueError(f"{self.root}: this version of the engine ended while asked for '{what}'") from error


def compare(previous: Path, quick: bool) -> list[dict[str, Any]]:
    """Medians of processor seconds of both versions for each of CELLS, alternating; a row per cell.

    previous: the root of a checkout that has maxrl_bench/training/loop.py. Raises ValueError where it is none.
    """
    if not (previous / "maxrl_bench" / "training" / "loop.py").is_file():
        raise ValueError(f"--against {previous}: no checkout of maxrl_bench with maxrl_bench/training/loop.py")
    present = Path(__file__).parents[2]
    rows = []
    with Version(previous) as old, Version(present) as new:
        for task, num_rollouts, warm_start_steps, bound in QUICK_CELLS if quick else CELLS:
            settings = {
                "task": task, "objective": OBJECTIVE, "num_rollouts": num_rollouts, "learning_rate": STILL,
                "warm_start_steps": warm_start_steps,
            }  # fmt: skip
            numbers = [version.ask("make", settings) for version in (old, new)]
            row: dict[str, Any] = {"task": task, "rollouts": num_rollouts, "bound": bound}
            for what, times in (("step", 3 if quick else 12), ("evaluate", 1), ("norms", 1)):
                taken = [
                    [version.ask(what, number) for version, number in zip((old, new), numbers, strict=True)]
                    for _ in range(times + (times > 1 or not quick))
                ][-times:]  # the first one of several warms up
                row[what] = [statistics.median(column) for column in zip(*taken, strict=True)]
            rows.append(row)
    return rows
