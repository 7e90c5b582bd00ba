"""The sweep driver, with a stand-in for training: nothing twice, nothing lost, failures kept apart."""

import contextlib
import dataclasses
import errno
import json
import os
import re
import signal
import subprocess
import sys
import time
import weakref
from collections.abc import Callable
from concurrent.futures import CancelledError, Future, wait
from pathlib import Path

import pytest
from sweep_cases import HERE, RUN, Serial, config, experiment, left_behind, run_sweep, tables_without_seconds

from maxrl_bench.storage import tables as results
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import costs, executors, tabulate
from maxrl_bench.sweeps import driver as sweep
from maxrl_bench.sweeps.executors import DaskPool, LocalPool
from maxrl_bench.sweeps.worker import execute, resolve


def test_a_run_that_two_experiments_need_is_computed_once_and_experiments_end_in_order(tmp_path: Path) -> None:
    shared, first, second = config(0), config(1), config(2)
    pool, handed = Serial(), []
    report = run_sweep(
        tmp_path, experiment(first, shared, name="a"), experiment(shared, second, name="b"), pool=pool, handed=handed
    )
    assert sorted(pool.jobs) == sorted([shared.hash, first.hash, second.hash])
    assert report.computed == 3
    assert [name for name, _ in handed] == ["a", "b"]
    assert handed[0][1] == {first.hash, shared.hash}
    again = run_sweep(tmp_path, experiment(first, shared, second), pool=(pool := Serial()))
    assert pool.jobs == []
    assert again.computed == 0
    assert again.done == {shared.hash, first.hash, second.hash}


def test_an_experiment_in_progress_is_shown_now_and_then(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    runs, handed = [config(seed) for seed in range(3)], []
    run_sweep(tmp_path / "a", experiment(*runs), handed=handed)
    assert [len(done) for _, done in handed] == [3]  # it takes no time
    monkeypatch.setattr(sweep, "PUBLISH_SECONDS", 0.0)
    handed.clear()
    run_sweep(tmp_path / "b", experiment(*runs), handed=handed)
    assert [len(done) for _, done in handed] == [1, 2, 3]
    assert all(done <= {run.hash for run in runs} for _, done in handed)


def test_a_failed_run_is_recorded_the_rest_go_on_and_it_is_tried_again(tmp_path: Path) -> None:
    bad, good = config(0, policy={"fail_at": 3}), config(1)
    handed: list = []
    report = run_sweep(tmp_path, experiment(bad, good), handed=handed)
    assert report.failed == {bad.hash: "FloatingPointError: the surrogate became nan"}
    assert report.done == {good.hash}
    assert handed == [("study", {good.hash})]
    store = Store(tmp_path / "store")
    assert "fake_run.py" in store.failure(bad.hash)
    assert store.config(bad.hash) == bad
    pool = Serial()
    run_sweep(tmp_path, experiment(bad, good), pool=pool)
    assert pool.jobs == [bad.hash]


def test_a_full_disk_stops_the_sweep_and_the_same_sweep_goes_on(tmp_path: Path) -> None:
    pool = Serial()
    with pytest.raises(sweep.DiskFull, match="No space left"):
        run_sweep(tmp_path, experiment(config(0), config(1, policy={"full_at": 3}), config(2)), pool=pool)
    assert pool.killed
    assert Store(tmp_path / "store").status(config(1, policy={"full_at": 3}).hash) == "missing"
    assert run_sweep(tmp_path, experiment(config(0), config(2))).done == {config(0).hash, config(2).hash}


def test_too_little_room_is_told_before_anything_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plan = sweep.make_plan([experiment(config())], tmp_path, run_function=RUN)
    sweep.check_room(plan)
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 4e7}))
    with pytest.raises(ValueError, match="40 MB are free; this sweep wants 50 MB"):
        sweep.check_room(plan)


@pytest.mark.parametrize("damage", ["truncated", "half-written", "foreign"])
def test_what_is_not_whole_is_reported_and_computed_again(tmp_path: Path, damage: str, capsys) -> None:
    first, other = config(0), config(1)
    run_sweep(tmp_path, experiment(first, other))
    good = tables_without_seconds(tmp_path, (first, other))
    folder = tmp_path / "store" / first.hash
    if damage == "truncated":
        (folder / "metrics.csv").write_bytes((folder / "metrics.csv").read_bytes()[:-20])
    elif damage == "half-written":
        (folder / "DONE").unlink()
    else:
        for path in (tmp_path / "store" / other.hash).iterdir():
            (folder / path.name).write_bytes(path.read_bytes())
    capsys.readouterr()
    report = run_sweep(tmp_path, experiment(first, other))
    assert report.computed == 1
    reported = capsys.readouterr().err
    assert "1 stored runs are not used but run again" in reported
    assert first.hash in reported
    assert tables_without_seconds(tmp_path, (first, other)) == good


def test_results_of_other_code_are_computed_again_unless_they_are_to_be_kept(tmp_path: Path, capsys) -> None:
    run_sweep(tmp_path, experiment(config(0), config(1)))
    path = tmp_path / "store" / config(0).hash
    store = Store(tmp_path / "store", "ffff")
    metrics, rates = store.tables(config(0).hash)
    store.finish(config(0), metrics.to_dict("records"), rates, {})
    assert json.loads((path / "provenance.json").read_text())["code"] == "ffff"
    assert run_sweep(tmp_path, experiment(config(0), config(1)), keep_stale=True).computed == 0
    assert json.loads((path / "provenance.json").read_text())["code"] == "ffff"
    assert "1 stored runs are kept though another version of the code made them" in capsys.readouterr().err
    assert run_sweep(tmp_path, experiment(config(0), config(1))).computed == 1
    assert "another version of the code" in capsys.readouterr().err
    assert json.loads((path / "provenance.json").read_text())["code"] == code_fingerprint("fourrooms", "grpo", RUN)


def test_a_worker_with_other_code_than_the_driver_computes_nothing(tmp_path: Path) -> None:
    plan = sweep.make_plan([experiment(config())], tmp_path, run_function=RUN)
    plan.codes[config().hash] = "another"
    outcome = execute(plan.job(config().hash))
    assert outcome.state == "foreign"
    assert "another version" in outcome.message
    assert Store(tmp_path / "store").status(config().hash) == "missing"


def test_longest_runs_first_from_recorded_durations(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    slow, fast, unknown = config(0, num_rollouts=16), config(0), config(0, objective="rloo")
    known = costs.Costs()
    assert known.seconds(slow) is None
    assert known.rank(slow) > known.rank(fast)  # more rollouts
    known.learn(fast, 60.0)
    known.learn(slow, 6.0)
    assert known.seconds(config(5, steps=12)) == 120  # another seed, twice the steps
    assert known.rank(fast) > known.rank(slow)
    assert known.seconds(unknown) == 60  # same task and rollouts
    runs = [config(1, num_rollouts=16), config(1), unknown]
    # The same from the store: durations are read back from provenance.
    for run, seconds in ((fast, 60.0), (slow, 6.0)):
        run_sweep(tmp_path, experiment(run))
        made = store.provenance(run.hash)
        metrics, rates = store.tables(run.hash)
        Store(store.root, made["code"]).finish(run, metrics.to_dict("records"), rates, {"wall_seconds": seconds})
    plan = sweep.make_plan([experiment(slow, fast, *runs)], tmp_path, run_function=RUN)
    assert plan.todo[-1] == runs[0].hash
    assert plan.seconds(plan.todo) == pytest.approx(126)
    # And where the store is empty, from the committed tables.
    tabulate.write_tables(experiment(slow, fast), store, tmp_path)
    for path in sorted(store.root.rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    plan = sweep.make_plan([experiment(slow, fast, *runs)], tmp_path, run_function=RUN, recompute=True)
    assert len(plan.todo) == 5
    assert plan.seconds([fast.hash]) == 60


@pytest.fixture(scope="module")
def two_workers():
    """A pool whose workers have imported what they need, as in the middle of a sweep."""
    pool = LocalPool(2)
    wait([pool.submit(resolve, RUN) for _ in range(2)])
    yield pool
    pool.shutdown()


def test_one_worker_two_workers_and_dask_give_identical_tables(tmp_path: Path, two_workers: LocalPool) -> None:
    runs = tuple(config(seed) for seed in range(5))
    failing = config(9, policy={"fail_at": 2})
    one_worker = LocalPool(1)
    pools = {"one": one_worker, "two": two_workers}
    with contextlib.suppress(ImportError):
        import distributed  # noqa: F401

        pools["dask"] = DaskPool("local", 2)
        assert pools["dask"].size == 2
    tables = {}
    for name, pool in pools.items():
        report = run_sweep(tmp_path / name, experiment(*runs, failing), pool=pool)
        assert report.failed.keys() == {failing.hash}
        tables[name] = tables_without_seconds(tmp_path / name, runs)
        if pool is not two_workers:
            pool.shutdown()
    assert all(table == tables["one"] for table in tables.values())


def test_a_worker_that_is_free_has_its_next_run_at_once(tmp_path: Path) -> None:
    """Runs end one by one, and only when both workers have one: else the sweep would wait for ever."""

    class OneByOne(Serial):
        size = 2

        def __init__(self) -> None:
            super().__init__()
            self.open: list[tuple[Future, Callable]] = []

        def submit(self, function, job):
            future: Future = Future()
            self.jobs.append(job.config)
            self.open.append((future, lambda: function(job)))
            if len(self.open) == self.size or len(self.jobs) == len(runs):
                self.end(1 if len(self.jobs) < len(runs) else self.size)
            return future

        def end(self, count: int) -> None:
            for future, work in [self.open.pop(0) for _ in range(count)]:
                future.set_result(work())

    runs = [config(seed) for seed in range(6)]
    report = run_sweep(tmp_path, experiment(*runs), pool=OneByOne())
    assert len(report.done) == 6
    assert 0 < report.utilisation <= 1
    assert report.peak_memory_mb > 10


def test_a_poisonous_run_is_struck_out_and_every_other_run_succeeds(tmp_path: Path, two_workers, capsys) -> None:
    poison = config(0, policy={"die_at": 3})
    others = [config(seed, policy={"step_ms": 5}) for seed in range(1, 6)]
    report = run_sweep(tmp_path, experiment(*others, poison), pool=two_workers)
    assert report.done == {other.hash for other in others}
    assert report.failed == {poison.hash: "its worker died 3 times (killed, out of memory, or crashed)"}
    assert capsys.readouterr().err.count("died; it is run again") == sweep.STRIKES - 1
    assert Store(tmp_path / "store").status(poison.hash) == "failed"


class Broken(Serial):
    """A pool whose answers are lost: `error` instead of what the job said, after or instead of doing it."""

    def __init__(self, error: BaseException, work: bool) -> None:
        super().__init__()
        self.error, self.work = error, work

    def submit(self, function, job):
        future = super().submit(function if self.work else lambda job: None, job)
        future._exception = self.error
        return future


def test_a_run_that_was_finished_before_its_worker_was_lost_is_not_thrown_away(tmp_path: Path) -> None:
    report = run_sweep(tmp_path, experiment(config()), pool=Broken(RuntimeError("worker lost"), work=True))
    assert report.failed == {}
    assert report.done == {config().hash}
    assert Store(tmp_path / "store").status(config().hash) == "done"


def test_a_lost_scheduler_ends_the_sweep_and_blames_no_run(tmp_path: Path) -> None:
    pool = Broken(CancelledError(), work=False)
    with pytest.raises(executors.PoolLost, match="the scheduler is gone"):
        run_sweep(tmp_path, experiment(config()), pool=pool)
    assert pool.killed
    assert Store(tmp_path / "store").status(config().hash) == "missing"


def test_a_worker_that_writes_elsewhere_has_done_nothing(tmp_path: Path) -> None:
    class Elsewhere(Serial):
        def submit(self, function, job):
            return super().submit(function, dataclasses.replace(job, root=str(tmp_path / "elsewhere")))

    report = run_sweep(tmp_path, experiment(config()), pool=Elsewhere())
    assert report.done == set()
    assert "there is no result in" in report.failed[config().hash]


def test_a_worker_in_another_folder_finds_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(sweep.make_plan([experiment(config())], "r", run_function=RUN).job(config().hash).root).is_absolute()


def test_a_disk_too_full_for_a_lock_is_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = sweep.make_plan([experiment(config())], tmp_path, run_function=RUN).job(config().hash)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Store, "lock", full)
    assert execute(job).state == "full"


def test_no_finished_future_is_kept_alive(tmp_path: Path) -> None:
    """Dask would run it again if its worker died."""
    seen: list = []

    class Watching(Serial):
        def submit(self, function, job):
            alive.append(sum(reference() is not None for reference in seen))
            future = super().submit(function, job)
            seen.append(weakref.ref(future))
            return future

    alive: list[int] = []
    run_sweep(tmp_path, experiment(*map(config, range(3))), pool=Watching())
    assert alive == [0, 0, 0]


def test_a_run_that_another_process_holds_is_left_alone_and_taken_up_later(tmp_path: Path) -> None:
    held, other = config(0), config(1)
    store = Store(tmp_path / "store")
    lock = store.lock(held.hash)
    lock.acquire()
    order: list[str] = []

    class Releasing(Serial):
        def submit(self, function, job):
            future = super().submit(function, job)
            outcome = future.result()
            order.append(outcome.state)
            if order.count("done") == 1 and "locked" in order:
                lock.release()
            return future

    report = run_sweep(tmp_path, experiment(held, other), pool=Releasing())
    assert sorted(order) == ["done", "done", "locked"]
    assert report.done == {held.hash, other.hash}


def test_two_sweeps_at_once_on_one_folder_share_the_work(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nseed = [0,1,2,3,4,5]\nsteps = 8\n'
        "eval_every = 4\npolicy = { step_ms = 20 }\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, str(HERE / "fake_driver.py"), str(tmp_path / "study.toml"), str(tmp_path / "r"), "1"]
    both = [subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    texts = [process.communicate(timeout=60)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    computed = [int(re.search(r"6 of 6 runs done \((\d+) now\)", text)[1]) for text in texts]  # type: ignore[index]
    assert sum(computed) == 6
    assert len(results.load("study", tmp_path / "r").metrics["run"].unique()) == 6


def test_ctrl_c_stops_within_seconds_and_says_how_to_go_on(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nseed = [0,1,2]\nsteps = 1000\n'
        "policy = { step_ms = 20 }\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, str(HERE / "fake_driver.py"), str(tmp_path / "study.toml"), str(tmp_path / "r")]
    process = subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True)
    store = tmp_path / "r" / "store"
    deadline = time.monotonic() + 30
    while len(list(store.glob("*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does: to the driver and its workers
    started = time.monotonic()
    error = process.communicate(timeout=30)[1]
    assert time.monotonic() - started < 5
    assert process.returncode == 130
    assert "stopped; finished runs are kept" in error
    assert "Traceback" not in error
    assert len(list(store.glob("*/checkpoint.pt"))) == 2
    assert not left_behind(tmp_path)
    assert all(Store(store).is_free(path.parent.name) for path in store.glob("*/checkpoint.pt"))


def test_ctrl_c_leaves_tables_of_the_runs_that_are_done(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nsteps = [1, 1000]\n'
        "policy = { step_ms = 20 }\n"
    )
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, str(HERE / "fake_driver.py"), str(tmp_path / "study.toml"), str(tmp_path / "r")]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("[1/2]"):
                process.send_signal(signal.SIGINT)
                break
        error = process.stderr.read()
    assert process.returncode == 130
    assert "Traceback" not in error
    tables = results.load("study", tmp_path / "r")
    assert len(tables.metrics["run"].unique()) == 1
    assert [row["seed"] for row in tables.provenance["missing"].values()] == [0]


def test_no_two_runs_of_a_plan_have_one_label(tmp_path: Path) -> None:
    varied = [config(max_grad_norm=norm, batch_size=size) for norm in (0.5, 1.0) for size in (1, 2)]
    plan = sweep.make_plan([experiment(*varied)], tmp_path, run_function=RUN)
    labels = [plan.label(run.hash) for run in varied]
    assert len(set(labels)) == 4
    assert "batch_size=1 max_grad_norm=0.5" in labels[0]
    assert "max_grad_norm" not in sweep.make_plan([experiment(varied[0])], tmp_path, run_function=RUN).label(
        varied[0].hash
    )
