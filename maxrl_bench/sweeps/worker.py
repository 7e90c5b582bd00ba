"""What a worker does with one run: take its lock, check what is stored, run it, report the outcome."""

from __future__ import annotations

import contextlib
import errno
import importlib
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from filelock import Timeout
from pydantic import ValidationError

from maxrl_bench import console, import_path, plugins
from maxrl_bench.config import RunConfig, one_line
from maxrl_bench.names import shorten
from maxrl_bench.storage.locks import held, holder, this_process
from maxrl_bench.storage.provenance import code_fingerprint, peak_memory_mb
from maxrl_bench.storage.store import Store

TRAIN = "maxrl_bench.training.loop:train"
_REMOTE = ("tcp://", "tls://", "ws://", "wss://", "ucx")
_LONGEST = 20_000  # characters of a traceback that are kept
_MORE_MEMORY = (
    "MemoryError: the run needs more memory than a worker may take: give it more (--memory GB, fewer"
    " --workers), or lower batch_size, num_rollouts, eval_rollouts or the policy's sizes"
)
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


@dataclass(frozen=True)
class Job:
    """One run, as sent to a worker: plain values only, so that any executor can send it."""

    config: str  # JSON
    root: str
    code: str  # fingerprint of the driver's code
    keep_stale: bool = False
    run_function: str = TRAIN  # "module:function", called as function(config, store)
    plugged_in: tuple[plugins.Added, ...] = ()  # what `maxrl_bench.plug_in` has added in the driver


@dataclass(frozen=True)
class Outcome:
    """The outcome of a job.

    "done", "failed", "locked" (another process is at it: `message` says which), "full" (no room on the disk) or
    "foreign" (nothing was done: the worker has other code than the driver).
    """

    state: str
    message: str = ""
    computed: bool = False  # False: it was stored already
    seconds: float = 0.0
    peak_memory_mb: float = 0.0
    notes: tuple[str, ...] = ()  # what had to be thrown away
    worker: str = ""  # the Dask worker's address, or the process and its machine


def find_own(run_function: str) -> None:
    """Import a user's own run function, from the working directory too, as the driver and every worker must.

    Before its fingerprint is taken: modules may put folders on the import path. Raises ValueError if there is none.
    """
    if run_function != TRAIN:
        import_path.open_for_own()
        resolve(run_function)


def resolve(run_function: str) -> Callable[..., None]:
    """The function that "module:function" names. Raises ValueError if there is none."""
    module_name, _, name = run_function.partition(":")
    try:
        function: Callable[..., None] = getattr(importlib.import_module(module_name), name)
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # a user's module may do anything while it is imported
        raise ValueError(f"run function {shorten(run_function)} cannot be imported: {console.told(error)}") from None
    if not callable(function):
        raise ValueError(f"run function {shorten(run_function)} is not a function")
    return function


def execute(job: Job, *, interruptible: bool = False, **keywords: Any) -> Outcome:
    """Do one run, unless it is stored already or another process is doing it. Failures are recorded, not raised.

    Where it is `interruptible`, KeyboardInterrupt is Ctrl-C and raised; else it is a failure like others. `keywords` go
    to the run function.
    """
    with console.tolerant_output():
        return _execute(job, interruptible, keywords)


def _execute(job: Job, interruptible: bool, keywords: Mapping[str, Any]) -> Outcome:
    notes: list[str] = []
    worker = this_process()
    try:
        plugins.take(job.plugged_in)
        config = RunConfig.model_validate_json(job.config)
    except ValidationError as error:  # the driver read it: what it names, say a plug-in, is not installed here
        return Outcome("foreign", f"this worker cannot read the run: {one_line(error)}", worker=worker)
    with contextlib.suppress(ValueError):  # told below, unless the worker's code is another anyway
        find_own(job.run_function)
    code = code_fingerprint(config.task.name, config.objective.name, job.run_function)
    if code != job.code:
        message = f"this worker's code is another version ({code}) than the driver's ({job.code})"
        return Outcome("foreign", message, worker=worker)
    function = resolve(job.run_function)
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)
    started = time.perf_counter()  # a worker's imports are not time spent in runs
    # A worker on this machine has the driver's terminal, and says at once what one elsewhere can only say at the end.
    remote = worker.startswith(_REMOTE)
    store = Store(
        job.root,
        code,
        notes.append if remote else lambda note: print(console.printable(note), file=sys.stderr, flush=True),
    )

    def outcome(state: str, message: str = "", *, computed: bool = True) -> Outcome:
        said = tuple(map(console.printable, notes))
        seconds = time.perf_counter() - started
        return Outcome(state, console.printable(message), computed, seconds, peak_memory_mb(), said, worker)

    try:
        with held(store, config.hash, wait=False):
            try:
                store.tidy(config.hash)
                stored = store.check(config.hash)
                if stored.state == "done" or (stored.state == "stale" and job.keep_stale):
                    return outcome("done", computed=False)
                if stored.state == "corrupt":
                    notes.append(f"{store.folder(config.hash)}: {stored.why}: made again")
                store.discard(config.hash)
                function(config, store, **keywords)
                stored = store.check(config.hash)
                if stored.state != "done":
                    raise RuntimeError(f"'{job.run_function}' returned, but the run is {stored.state} {stored.why}")
            except OSError as error:
                if error.errno in _DISK_FULL:
                    return outcome("full", str(error))
                return _failed(store, config, outcome)
            except KeyboardInterrupt:
                if interruptible:
                    raise
                return _failed(store, config, outcome)
            except BaseException:  # a run function may call sys.exit; the sweep goes on
                return _failed(store, config, outcome)
            return outcome("done")
    except Timeout:
        return outcome("locked", holder(store, config.hash), computed=False)
    except (OSError, ValueError) as error:  # a full disk, links in the way
        return outcome(_state(error), str(error), computed=False)


def _failed(store: Store, config: RunConfig, outcome: Callable[[str, str], Outcome]) -> Outcome:
    error = sys.exc_info()[1]
    text = console.printable(traceback.format_exc())
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]}\n...\n{text[-_LONGEST // 2 :]}"
    told = "" if error is None else console.told(error)
    if isinstance(error, MemoryError) or "can't allocate memory" in told:
        told = _MORE_MEMORY
    if text.rstrip().rpartition("\n")[2] != told:  # the last line is shown in reports
        text = f"{text.rstrip()}\n{told}\n"
    try:
        store.fail(config, text)
    except (OSError, ValueError) as refused:
        return outcome(_state(refused), f"{text.rstrip()} (not recorded: {refused})")  # one line, as the summary has it
    return outcome("failed", text)


def _state(error: Exception) -> str:
    return "full" if isinstance(error, OSError) and error.errno in _DISK_FULL else "failed"
