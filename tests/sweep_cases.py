"""What the tests of the sweep and of its pools share: small experiments, and a pool without workers."""

import os
from pathlib import Path

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.files import tidy
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import driver as sweep
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.progress import Progress

HERE = Path(__file__).parent
RUN = "fake_run:run"


def config(seed: int = 0, **settings: object) -> RunConfig:
    base = {"task": "fourrooms", "objective": "grpo", "steps": 6, "eval_every": 2, "num_rollouts": 8}
    return RunConfig(**{**base, "seed": seed, **settings})


def experiment(*runs: RunConfig, name: str = "study") -> Experiment:
    return Experiment(name, Path(f"{name}.toml"), "laptop", "Why?", (), (), 0, runs)


class Serial:
    """A pool of no workers: jobs are done on submission, so that a test sees their order and can step in."""

    size = 1

    def __init__(self) -> None:
        self.jobs: list[str] = []
        self.killed = False

    def submit(self, function, job):
        from concurrent.futures import Future

        self.jobs.append(RunConfig.model_validate_json(job.config).hash)
        future: Future = Future()
        future.set_result(function(job))
        return future

    def kill(self) -> None:
        self.killed = True

    def shutdown(self) -> None:
        pass


def run_sweep(root: Path, *experiments: Experiment, pool=None, handed=None, **options) -> sweep.Report:
    plan = sweep.make_plan(experiments, root, run_function=RUN, **options)
    progress = Progress(len(plan.configs), len(plan.configs) - len(plan.todo))
    record = (lambda e, done: handed.append((e.name, done))) if handed is not None else (lambda e, done: None)
    return sweep.Sweep(plan, pool or Serial(), progress, record).carry_out()


def tables_without_seconds(root: Path, runs: tuple[RunConfig, ...]) -> dict[str, tuple[str, str]]:
    """The stored tables of runs as text, but for the seconds, which no two sweeps share."""
    store = Store(root / "store")
    stored = {}
    for config in runs:
        assert store.status(config.hash) == "done", store.check(config.hash)
        metrics, rates = store.tables(config.hash)
        stored[config.hash] = (metrics.drop(columns="seconds").to_csv(), rates.to_csv())
    return stored


def left_behind(folder: Path) -> list[Path]:
    """Partial files that killed writers left for good.

    One with content must be gone at once. An empty one, whose writer was killed before it could lock it, may stay for
    a minute: that is made to be over, and what then survives the project's own tidying counts too.
    """
    partial = list(folder.rglob("*.tmp"))
    written = [path for path in partial if path.stat().st_size]
    for path in partial:
        os.utime(path, (0, 0))
    for parent in {path.parent for path in partial}:
        tidy(parent)
    return list(dict.fromkeys([*written, *folder.rglob("*.tmp")]))
