"""What a worker does with one run: take its lock, see what is stored, run it, say how it went."""

from __future__ import annotations

import errno
import importlib
import os
import sys
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass

from filelock import Timeout

from maxrl_bench.config import RunConfig
from maxrl_bench.provenance import code_fingerprint, peak_memory_mb
from maxrl_bench.store import Store

TRAIN = "maxrl_bench.train:train"
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One run, as sent to a worker: nothing but plain values, so that any executor can carry it."""

    config: str  # JSON
    root: str
    code: str  # fingerprint of the driver's code
    keep_stale: bool = False
    run_function: str = TRAIN  # "module:function", called as function(config, store)


@dataclass(frozen=True)
class Outcome:
    """How a job went: "done", "failed", "locked" (another process is at it) or "full" (no room on the disk)."""

    state: str
    message: str = ""
    computed: bool = False  # False: it was stored already
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    notes: tuple[str, ...] = ()  # what had to be thrown away


def find_own(run_function: str) -> None:
    """Let a user's own run function be imported from the working directory, as the driver and every worker must."""
    if run_function != TRAIN and os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def resolve(run_function: str) -> Callable[[RunConfig, Store], None]:
    """The function that "module:function" names. Raises ValueError if there is none."""
    module_name, _, name = run_function.partition(":")
    try:
        function: Callable[[RunConfig, Store], None] = getattr(importlib.import_module(module_name), name)
    except (ModuleNotFoundError, AttributeError) as error:
        raise ValueError(f"run function '{run_function}' cannot be found: {error}") from None
    return function


def execute(job: Job) -> Outcome:
    """Do one run unless it is stored already or somebody else is at it. Failures are recorded, not raised."""
    notes: list[str] = []
    config = RunConfig.model_validate_json(job.config)
    find_own(job.run_function)
    code = code_fingerprint(config.task["name"], config.objective["name"], job.run_function)
    if code != job.code:
        return Outcome("failed", f"this worker's code is another version ({code}) than the driver's ({job.code})")
    function = resolve(job.run_function)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    started = time.perf_counter()  # a worker's imports are not time spent in runs
    store = Store(job.root, code, notes.append)

    def outcome(state: str, message: str = "", *, computed: bool = True) -> Outcome:
        return Outcome(state, message, computed, time.perf_counter() - started, peak_memory_mb(), tuple(notes))

    try:
        lock = store.lock(config.hash).acquire(blocking=False)
    except Timeout:
        return outcome("locked", computed=False)
    except OSError as error:
        return outcome("full" if error.errno in _DISK_FULL else "failed", str(error), computed=False)
    with lock:
        try:
            store.tidy(config.hash)
            found = store.check(config.hash)
            if found.state == "done" or (found.state == "stale" and job.keep_stale):
                return outcome("done", computed=False)
            if found.state == "corrupt":
                notes.append(f"{store.folder(config.hash)}: {found.why}: made again")
            store.discard(config.hash)
            function(config, store)
            found = store.check(config.hash)
            if found.state != "done":
                raise RuntimeError(f"'{job.run_function}' returned, but the run is {found.state} {found.why}")
        except OSError as error:
            if error.errno in _DISK_FULL:
                return outcome("full", str(error))
            return _failed(store, config, outcome)
        except Exception:
            return _failed(store, config, outcome)
    return outcome("done")


def _failed(store: Store, config: RunConfig, outcome: Callable[[str, str], Outcome]) -> Outcome:
    text = traceback.format_exc()
    try:
        store.fail(config, text)
    except OSError as error:
        return outcome("full" if error.errno in _DISK_FULL else "failed", f"{text}\n(not recorded: {error})")
    return outcome("failed", text)
