"""The pools: what a dead worker breaks, limits, and Dask as on a cluster."""

import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import wait
from concurrent.futures.process import BrokenProcessPool
from pathlib import Path

import pytest
from sweep_cases import HERE, config, experiment, run_sweep, tables_without_seconds

from maxrl_bench.sweeps import executors
from maxrl_bench.sweeps.executors import DaskPool, LocalPool, PoolLost


def test_a_worker_that_dies_breaks_only_its_own_future() -> None:
    pool = LocalPool(2)
    try:
        slow = pool.submit(time.sleep, 1.0)
        dead = pool.submit(os._exit, 3)
        with pytest.raises(BrokenProcessPool):
            dead.result(timeout=20)
        assert not slow.done()
        assert pool.submit(os.getpid).result(timeout=20) != os.getpid()
        assert slow.result(timeout=20) is None
    finally:
        pool.shutdown()


def test_a_run_that_asks_for_too_much_memory_fails_by_itself() -> None:
    pool = LocalPool(1, memory_limit=300 * 2**20)
    try:
        assert pool.submit(bytearray, 10**6).result(timeout=20) == bytearray(10**6)
        with pytest.raises(MemoryError):
            pool.submit(bytearray, 2**30).result(timeout=20)
    finally:
        pool.shutdown()


def test_kill_ends_busy_workers_at_once() -> None:
    pool = LocalPool(2)
    futures = [pool.submit(time.sleep, 60) for _ in range(2)]
    wait([pool.submit(os.getpid)], timeout=0.5)
    started = time.monotonic()
    pool.kill()
    assert time.monotonic() - started < 5
    assert all(future.done() for future in futures)


def test_dask_in_processes_of_its_own_gives_the_same_tables_and_may_be_killed(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """As on a cluster: a scheduler and workers begun from a shell, in another folder than the driver's."""
    pytest.importorskip("distributed")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"tcp://127.0.0.1:{probe.getsockname()[1]}"
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    (tmp_path / "away").mkdir()
    for name in ("envs", "filelock", "pandas", "pydantic", "torch"):  # none of our modules, though workers begin here
        (tmp_path / "away" / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    python = [sys.executable, "-m"]
    commands = [
        [*python, "distributed.cli.dask_scheduler", "--host", "127.0.0.1", "--port", address.rpartition(":")[2]],
        *2 * [[*python, "distributed.cli.dask_worker", address, "--nthreads", "1", "--no-nanny"]],
    ]
    processes = [
        subprocess.Popen(
            [*command, "--no-dashboard"], env=environment, cwd=tmp_path / "away", stderr=subprocess.DEVNULL
        )
        for command in commands
    ]
    runs = tuple(config(seed, policy={"step_ms": 40}) for seed in range(4))
    try:
        pool = DaskPool(address, 1)
        deadline = time.monotonic() + 60
        while pool.size < 2 and time.monotonic() < deadline:
            time.sleep(0.1)
        assert pool.size == 2

        def kill(process: subprocess.Popen[bytes], root: Path) -> None:
            while not list(root.glob("store/*/checkpoint.pt")):
                time.sleep(0.01)
            process.kill()

        killer = threading.Thread(target=kill, args=(processes[1], tmp_path / "dask"), daemon=True)
        killer.start()
        report = run_sweep(tmp_path / "dask", experiment(*runs), pool=pool)
        killer.join(timeout=10)
        threading.Thread(target=kill, args=(processes[0], tmp_path / "lost"), daemon=True).start()
        with pytest.raises(PoolLost, match="the scheduler is gone"):
            run_sweep(tmp_path / "lost", experiment(*runs), pool=pool)
        time.sleep(1)  # in which a traceback would be logged
        assert capfd.readouterr().err.count("Traceback") == 0
    finally:
        for process in processes:
            process.kill()
            process.wait()
    assert report.failed == {}
    assert not (tmp_path / "ran").exists()
    run_sweep(tmp_path / "one", experiment(*runs))
    run_sweep(tmp_path / "lost", experiment(*runs))
    whole = tables_without_seconds(tmp_path / "one", runs)
    assert tables_without_seconds(tmp_path / "dask", runs) == whole
    assert tables_without_seconds(tmp_path / "lost", runs) == whole


def test_an_unreachable_scheduler_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("distributed")
    monkeypatch.setattr(executors, "CONNECT_SECONDS", 0.5)
    with pytest.raises(ValueError, match=r"no Dask scheduler answers at 'tcp://127.0.0.1:1'"):
        DaskPool("tcp://127.0.0.1:1", 1)
    with pytest.raises(ValueError, match="no Dask scheduler answers at 'nonsense://x'"):
        DaskPool("nonsense://x", 1)
