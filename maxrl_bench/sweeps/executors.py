"""Where runs are executed: pools with the interface of `concurrent.futures.Executor`, and a `size` and `kill` besides.

`HerePool` is this process, `LocalPool` others of this machine, `DaskPool` many machines (the optional extra `cluster`).
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import signal
import sys
import threading
import types
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError, Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import resource_tracker
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnContext, SpawnProcess
from typing import Any, ParamSpec, TypeVar

import psutil

from maxrl_bench import import_path
from maxrl_bench.names import shorten

P = ParamSpec("P")
T = TypeVar("T")

CONNECT_SECONDS = 10
MEMORY_SHARE = 0.9  # of the machine's memory, for all workers together
_ONE_THREAD = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")


class PoolLost(Exception):
    """The pool is lost, with the jobs that it was running."""


def memory_share(processes: int) -> int:
    """The bytes that each of some processes may have, of the memory of this machine."""
    return int(MEMORY_SHARE * psutil.virtual_memory().total / processes)


class HerePool(Executor):
    """This process: a job is done when it is submitted, so that nothing has to be sent or found elsewhere."""

    size = 1

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Do a job; its future is finished. Ctrl-C is raised here."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future

    def exclude(self, worker: str) -> bool:
        """Give a worker no more jobs; False, since no other is left."""
        return False

    def kill(self) -> None:
        """Nothing goes on after `submit`."""


@contextlib.contextmanager
def _no_main() -> Iterator[None]:
    """Within it, no process that is spawned runs the user's script again: our workers need nothing of it.

    So a script may start workers without `if __name__ == "__main__"`.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


class _Worker(SpawnProcess):
    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        with _no_main():
            return SpawnProcess._Popen(process_obj)


class _Spawn(SpawnContext):
    """A spawning context that keeps a list of its processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Any] = []

    def Process(self, *args: Any, **kwargs: Any) -> Any:  # type: ignore[override]
        """A new process, not started yet."""
        self.started = [process for process in self.started if process.pid is None or process.is_alive()]
        self.started.append(_Worker(*args, **kwargs))
        return self.started[-1]


class LocalPool(Executor):
    """Processes of this machine (spawned, one thread each), every one a process pool of its own.

    In a standard pool, the death of one worker breaks all pending futures, and does not tell which job caused it. With
    a pool for each worker, it breaks one future: that of the job that the worker was running. The broken pool is
    replaced at the next submission.

    Submit at most `size` jobs at a time; more would queue behind a busy worker. `memory_limit` (bytes per worker, 0 for
    none) makes a run that asks for more fail by itself, instead of the machine.
    """

    def __init__(self, workers: int, memory_limit: int = 0):
        self.size = workers
        # Inherited by the workers: numerical libraries read them when they are loaded.
        os.environ.update(dict.fromkeys(_ONE_THREAD, "1"))
        import_path.close()
        self._context = _Spawn()
        _start_tracker()
        # Nothing is sent through it: workers end when its writing end is closed, by `kill` or when this process dies.
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

    def exclude(self, worker: str) -> bool:
        """Give a worker no more jobs; False if no other is left: on one machine all have the same code."""
        return False

    def kill(self) -> None:
        """End the workers at once, even in the middle of a job."""
        self._stop_writer.close()
        for process in self._context.started:
            process.kill()  # one that is stopped (SIGSTOP) does not see the pipe's end
        self.shutdown(cancel_futures=True)

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the workers after the jobs that they are running."""
        for slot in self._slots:
            slot.shutdown(wait, cancel_futures=cancel_futures)


def _start_tracker() -> None:
    """Start multiprocessing's resource tracker out of reach of the hang-up that the end of a terminal sends.

    It guards itself against Ctrl-C and a polite kill only; one that is lost, and replaced, prints tracebacks.
    """
    if hasattr(signal, "SIGHUP"):
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGHUP])  # and in what is started meanwhile
        resource_tracker.ensure_running()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _begin_worker(stop: Connection, memory_limit: int) -> None:
    # The driver decides what Ctrl-C means; a terminal sends it, and its own end, to the workers as well.
    for name in ("SIGINT", "SIGHUP"):
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    threading.Thread(target=_leave_with_driver, args=(stop,), daemon=True).start()
    limit_memory(memory_limit)


def limit_memory(memory_limit: int, *, restore: bool = False) -> int:
    """Let this process have at most so many bytes; returns the limit before, 0 for none.

    A limit of 0 changes nothing, or lifts it (`restore`).
    """
    try:
        import resource

        before, most = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = memory_limit or (most if restore else before)
        if most == resource.RLIM_INFINITY or wanted <= most:
            resource.setrlimit(resource.RLIMIT_DATA, (wanted, most))
    except (ImportError, ValueError, OSError):  # a platform without such limits: memory is reported all the same
        return 0
    return 0 if before == resource.RLIM_INFINITY else before


def _leave_with_driver(stop: Connection) -> None:
    stop.poll(None)  # returns at the end of file: see LocalPool
    os._exit(1)  # what is on disk survives it; that is what the fault-injection tests are for


def _silence(*libraries: str) -> None:
    """Switch off the libraries' logs: they show tracebacks for a lost scheduler or worker; the sweep prints a line."""
    for name in list(logging.root.manager.loggerDict):
        if name.partition(".")[0] in libraries:  # each logger has its own level and handlers
            logger = logging.getLogger(name)
            logger.handlers, logger.propagate = [logging.NullHandler()], False


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
        _silence("distributed", "asyncio", "tornado")
        import_path.close()
        self._cluster = None
        if scheduler == "local":
            self._cluster = LocalCluster(workers, threads_per_worker=1, processes=True, dashboard_address=None)
        try:
            self._client = Client(self._cluster or scheduler, timeout=CONNECT_SECONDS)
        except Exception as error:  # a wrong address raises errors of many types in the libraries
            why = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(
                f"no Dask scheduler answers at {shorten(scheduler)}: {why}; --scheduler takes tcp://HOST:PORT or local"
            ) from None
        self._excluded: set[str] = set()

    @property
    def size(self) -> int:
        """Threads of the workers at this moment, which come and go; at least 1, so that work is waiting for them.

        Raises PoolLost if the scheduler does not answer any more.
        """
        return max(1, sum(threads for worker, threads in self._threads().items() if worker not in self._excluded))

    def _threads(self) -> dict[str, int]:
        try:
            return dict(self._client.nthreads())
        except (OSError, RuntimeError, CancelledError) as error:
            raise PoolLost(f"the scheduler is gone: {error}") from None

    def exclude(self, worker: str) -> bool:
        """Give a worker (its address) no more jobs; False if no other is left."""
        self._excluded.add(worker)
        return bool(self._threads().keys() - self._excluded)

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Run `fn` on some worker. Dask itself retries a job whose worker died, a few times."""
        workers = sorted(self._threads().keys() - self._excluded) if self._excluded else None
        # pure=False: by default two equal submissions run once, and a second attempt returns the first one's outcome.
        executor = self._client.get_executor(pure=False, workers=workers)
        future: Future[T] = executor.submit(import_path.call, pickle.dumps((fn, args, kwargs)))
        return future

    def kill(self) -> None:
        """Give up what is queued. Workers of a remote cluster finish the run that they are at, and store it."""
        self.shutdown()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Close the connection, and the cluster if it is ours. (The client's executor refuses `cancel_futures`.)"""
        self._client.close()
        if self._cluster is not None:
            self._cluster.close()


Pool = HerePool | LocalPool | DaskPool
