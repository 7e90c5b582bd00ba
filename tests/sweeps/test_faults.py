"""Fault injection: SIGKILL of workers and drivers at random moments changes no table by a single bit.

The short form is in the default suite; the long one (100 kills) is `pytest -m stress`.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from sweep_cases import left_behind

from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import driver as sweep
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.experiment import load_experiment
from maxrl_bench.sweeps.worker import execute

HERE = Path(__file__).parents[1]
STUDY = """
question = "Does it lose anything?"
[[grid]]
task = "fourrooms"
objective = ["grpo", "rloo"]
seed = [0, 1, 2, 3]
num_rollouts = 8
steps = 12
eval_every = 3
policy = { step_ms = 12 }
"""


class Driver:
    """A sweep in a process of its own, and the means to hurt it."""

    def __init__(self, study: Path, root: Path, workers: int = 2, function: str = "fake_run:run"):
        environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
        command = [sys.executable, str(HERE / "fake_driver.py"), str(study), str(root), str(workers), function]
        root.mkdir(parents=True, exist_ok=True)
        self.log = root / "log.txt"
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=study.parent)

    def workers(self) -> list[psutil.Process]:
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if any("spawn_main" in part for part in child.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def kill_a_worker(self, rng: random.Random) -> bool:
        workers = self.workers()
        if workers:
            rng.choice(workers).kill()
        return bool(workers)

    def kill(self) -> None:
        """SIGKILL the driver; its workers must leave by themselves (those that are just beginning, once they have)."""
        workers = self.workers()
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        _, alive = psutil.wait_procs(workers, timeout=60)
        assert not alive, "workers outlive their driver"

    def wait(self) -> int:
        return self.process.wait(timeout=120)

    def succeed(self) -> None:
        assert self.wait() == 0, self.log.read_text()


def tables(study: Path, root: Path) -> dict[str, str]:
    """Every stored table and both joined ones as text, but for the seconds."""
    store = Store(root / "store")
    texts = {}
    for config in load_experiment(study).runs:
        assert store.status(config.hash) == "done", store.check(config.hash)
        metrics, rates = store.tables(config.hash)
        texts[config.hash] = metrics.drop(columns="seconds").to_csv() + rates.to_csv()
    joined = results.load(study.stem, root)
    return {**texts, "joined": joined.metrics.drop(columns="seconds").to_csv() + joined.pass_rates.to_csv()}


def batter(study: Path, root: Path, reference: dict[str, str], kills: int, seed: int, pace: float) -> int:
    """Sweep again and again under SIGKILLs until `kills` have struck and the sweep is done; returns their number.

    Whenever everything was done before enough kills had struck, the results are thrown away to begin anew. Whatever is
    marked as done at any moment must equal the reference.
    """
    rng = random.Random(seed)
    struck, round_ = 0, 0
    while True:
        folder = root / str(round_)
        driver = Driver(study, folder)
        while driver.process.poll() is None and struck < kills:
            time.sleep(rng.uniform(0, pace))
            if rng.random() < 0.3:
                if driver.workers():  # else it has hardly begun
                    driver.kill()
                    struck += 1
            else:
                struck += driver.kill_a_worker(rng)
        code = driver.wait()
        store = Store(folder / "store")
        for config in load_experiment(study).runs:
            if store.status(config.hash) == "done":
                metrics, rates = store.tables(config.hash)
                assert metrics.drop(columns="seconds").to_csv() + rates.to_csv() == reference[config.hash]
        if code == 0:
            assert tables(study, folder) == reference
            assert not left_behind(folder)
            assert not list(folder.rglob("checkpoint*"))
            if struck >= kills:
                return struck
            round_ += 1


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("faults") / "study.toml"
    path.write_text(STUDY)
    return path


@pytest.fixture(scope="module")
def reference(study: Path) -> dict[str, str]:
    root = study.parent / "reference"
    Driver(study, root, workers=1).succeed()
    return tables(study, root)


def test_a_handful_of_kills_changes_nothing(study: Path, reference: dict[str, str], tmp_path: Path) -> None:
    assert batter(study, tmp_path, reference, kills=5, seed=1, pace=0.8) >= 5


@pytest.mark.stress
@pytest.mark.parametrize("seed", range(4))
def test_a_hundred_kills_change_nothing(
    study: Path, reference: dict[str, str], tmp_path: Path, seed: int, request: pytest.FixtureRequest
) -> None:
    if "stress" not in request.config.option.markexpr:
        pytest.skip("takes minutes; `make stress` runs it")
    assert batter(study, tmp_path, reference, kills=25, seed=100 + seed, pace=1.5) >= 25


def test_a_killed_worker_changes_nothing_in_real_training(tmp_path: Path) -> None:
    study = tmp_path / "real.toml"
    study.write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = ["maxrl_eq10", "grpo"]\n'
        "num_rollouts = 8\nsteps = 8\nbatch_size = 2\neval_every = 3\neval_instances = 4\nwarm_start_steps = 4\n"
    )
    function = "fake_run:train_with_many_checkpoints"
    driver = Driver(study, tmp_path / "hurt", 1, function)
    deadline = time.monotonic() + 60
    while not list(tmp_path.glob("hurt/store/*/checkpoint.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    assert driver.kill_a_worker(random.Random(0))
    # Meanwhile, the same undisturbed, in this process.
    plan = sweep.make_plan([load_experiment(study)], tmp_path / "whole", run_function=function)
    assert [execute(plan.job(run)).state for run in plan.todo] == ["done", "done"]
    tabulate.write_tables(load_experiment(study), plan.store, tmp_path / "whole")
    driver.succeed()
    assert "died; it is run again" in driver.log.read_text()
    assert tables(study, tmp_path / "hurt") == tables(study, tmp_path / "whole")
