"""Where runs are executed: pools with the interface of `concurrent.futures.Executor`, and a `size` and `kill` besides.

`LocalPool` is one machine; `DaskPool` is many (the optional extra `cluster`).
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing.connection import Connection
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_SECONDS = 10
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class PoolLost(Exception):
    """The pool is gone, with the jobs that it was at."""


class LocalPool(Executor):
    """Processes of this machine (spawned, one thread each), every one a process pool of its own.

    A standard pool breaks all its pending futures when one worker dies, and does not say whose fault it was. Pools of
    one worker side by side break one future: that of the job that the dead worker was running. The broken pool is
    replaced at the next submission.

    Submit at most `size` jobs at a time; more would queue behind a busy worker. `memory_limit` (bytes per worker, 0 for
    none) makes a run that asks for more fail by itself, instead of the machine.
    """

    def __init__(self, workers: int, memory_limit: int = 0):
        self.size = workers
        # Inherited by the workers: numerical libraries read them when they are loaded.
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        self._context = multiprocessing.get_context("spawn")
        # Nothing is ever sent: the workers leave when the writing end is closed, be it by `kill` or by our death.
        self._stop_reader, self._stop_writer = self._context.Pipe(duplex=False)
        self._memory_limit = memory_limit
        self._slots = [self._new_slot() for _ in range(workers)]
        self._last: list[Future[Any] | None] = [None] * workers

    def _new_slot(self) -> ProcessPoolExecutor:
        arguments = (self._stop_reader, self._memory_limit)
        return ProcessPoolExecutor(1, self._context, initializer=_begin_worker, initargs=arguments)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on an idle worker. A worker's death raises BrokenProcessPool from this future only."""
        idle = [i for i, future in enumerate(self._last) if future is None or future.done()]
        slot = idle[0] if idle else 0
        try:
            future = self._slots[slot].submit(fn, *args, **kwargs)
        except BrokenProcessPool:
            self._slots[slot].shutdown()
            self._slots[slot] = self._new_slot()
            future = self._slots[slot].submit(fn, *args, **kwargs)
        self._last[slot] = future
        return future

    def kill(self) -> None:
        """End the workers at once, in the middle of what they are doing."""
        self._stop_writer.close()
        self.shutdown(cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers when they have finished what they are doing."""
        for slot in self._slots:
            slot.shutdown(wait, cancel_futures=cancel_futures)


def _begin_worker(stop: Connection, memory_limit: int) -> None:
    # The driver decides what Ctrl-C means; a terminal sends it to its workers as well.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_leave_with_driver, args=(stop,), daemon=True).start()
    if memory_limit:
        try:
            import resource

            resource.setrlimit(resource.RLIMIT_DATA, (memory_limit, resource.getrlimit(resource.RLIMIT_DATA)[1]))
        except (ImportError, ValueError, OSError):  # a platform without such limits: memory is reported all the same
            pass


def _leave_with_driver(stop: Connection) -> None:
    stop.poll(None)  # returns at the end of file: see LocalPool
    os._exit(1)  # what is on disk survives it; that is what the fault-injection tests are for


class DaskPool(Executor):
    """The workers of a Dask cluster: `scheduler` is its address, or "local" for one on this machine.

    Raises ValueError if Dask is not installed or the scheduler does not answer.
    """

    def __init__(self, scheduler: str, workers: int):
        try:
            from distributed import Client, LocalCluster
        except ImportError:
            raise ValueError("--scheduler needs Dask: pip install 'maxrl-bench[cluster]'") from None
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        # It tells of a lost scheduler or worker in tracebacks; the sweep says in a line what it means.
        logging.getLogger("distributed").setLevel(logging.CRITICAL)
        self._cluster = None
        if scheduler == "local":
            self._cluster = LocalCluster(workers, threads_per_worker=1, processes=True, dashboard_address=None)
        try:
            self._client = Client(self._cluster or scheduler, timeout=CONNECT_SECONDS)
        except (OSError, ValueError, TimeoutError) as error:
            raise ValueError(f"no Dask scheduler answers at {scheduler}: {error}") from None
        # pure=False: by default two equal submissions run once, and a second attempt returns the first one's outcome.
        self._executor = self._client.get_executor(pure=False)

    @property
    def size(self) -> int:
        """Threads of the workers at this moment, which come and go; at least 1, so that work is waiting for them.

        Raises PoolLost if the scheduler does not answer any more.
        """
        try:
            return max(1, sum(self._client.nthreads().values()))
        except OSError as error:
            raise PoolLost(f"the scheduler is gone: {error}") from None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on some worker. Dask itself retries a job whose worker died, a few times."""
        future: Future[T] = self._executor.submit(fn, *args, **kwargs)
        return future

    def kill(self) -> None:
        """Give up what is queued. Workers of a remote cluster finish the run that they are at, and store it."""
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the connection, and the cluster if it is ours. (The client's executor refuses `cancel_futures`.)"""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


Pool = LocalPool | DaskPool
