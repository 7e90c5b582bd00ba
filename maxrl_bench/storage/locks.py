"""Locks between processes, marked with their holders, so that a process that waits can say for which other."""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator

from filelock import Timeout

from maxrl_bench import inputs
from maxrl_bench.console import printable
from maxrl_bench.storage.files import inside, write_file
from maxrl_bench.storage.store import LOCKS, Store

PATIENCE_SECONDS = 60.0  # report a wait only after so long: the workers of one sweep often wait for each other


def this_process() -> str:
    """A name of this process: the address of a Dask worker, or process number and machine."""
    if "distributed" in sys.modules:
        with contextlib.suppress(ValueError):  # no worker, but a driver
            return str(sys.modules["distributed"].get_worker().address)
    return f"process {os.getpid()} on {platform.node()}"


def holder(store: Store, name: str) -> str:
    """Which process holds, or last held, the lock `name` of a store, as far as is known."""
    try:
        written = inputs.read_text(inside(store.root, LOCKS, f"{name}.holder"), 1000)
    except (OSError, ValueError):
        written = ""
    return printable(written.partition("\n")[0]) or "another process"


@contextlib.contextmanager
def held(store: Store, name: str, *, wait: bool = True) -> Iterator[None]:
    """The lock `name` of a store, marked as ours; a long wait is reported to the store, once, with whom it is for.

    Raises filelock.Timeout where it would have to `wait` and is not to.
    """
    lock = store.lock(name)
    try:
        lock.acquire(timeout=PATIENCE_SECONDS if wait else 0)
    except Timeout:
        if not wait:
            raise
        store.report(f"waits for '{name}' in {store.root}, which {holder(store, name)} is at")
        lock.acquire()
    try:
        write_file(inside(store.root, LOCKS, f"{name}.holder"), this_process().encode("utf-8", "replace"))
        yield
    finally:
        lock.release()
