"""What is added to a built-in table: by installed packages, through an entry-point group, or in this process."""

from __future__ import annotations

import functools
import hashlib
import importlib
import importlib.metadata
import importlib.util
import operator
import os
import sys
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Any, NamedTuple

from maxrl_bench.names import RULE, is_name, shorten


class Added(NamedTuple):
    """An entry that is in no installed package: what an entry point says, and where its module is."""

    group: str
    name: str
    value: str  # "module:attribute"
    folder: str  # of the module, or of the package that it is in
    source: str  # the module's file
    digest: str  # of the file, as it was when it was imported


_added: dict[tuple[str, str], Added] = {}


def add(group: str, name: str, value: str, check: Callable[[str, str], object]) -> None:
    """Add an entry for this process, as an entry point NAME = "module:attribute" would; `check(name, value)` loads it.

    The module must be a file of its own, which is what identifies the code of results. Raises ValueError if it is not,
    the name is no name, or it was added with another meaning.
    """
    importlib.invalidate_caches()  # the file may have been written a moment ago
    what = f"plug-in {shorten(name)} ({shorten(value)})"
    module, _, attribute = value.partition(":") if isinstance(value, str) else ("", "", "")
    if not is_name(name):
        raise ValueError(f"{what}: {RULE}")
    if not (module and attribute):
        raise ValueError(f'{what} must be given as "module:attribute"')
    try:
        spec = None if module == "__main__" else importlib.util.find_spec(module)
    except (ImportError, ValueError):  # a package around it is missing
        spec = None
    if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
        where = (
            "in a notebook, begin its cell with %%writefile mine.py" if module == "__main__" else "on the import path"
        )
        raise ValueError(f"{what}: its module must be a Python file, which identifies the code of results ({where})")
    source = Path(spec.origin).resolve()
    folder = source.parents[module.count(".") + (source.name == "__init__.py")]
    entry = Added(group, name, value, str(folder), str(source), _digest(source))
    check(name, value)
    _take(entry)


def _take(entry: Added) -> None:
    before = _added.setdefault((entry.group, entry.name), entry)
    if before != entry:
        changed = (
            f"{before.source} has changed since" if before.value == entry.value else f"it stands for {before.value}"
        )
        raise ValueError(
            f"plug-in '{entry.name}' is there already, and {changed}: restart Python (or the kernel) for it"
        )


def added() -> tuple[Added, ...]:
    """All that was added, as `take` takes it in another process. Raises ValueError if a file has changed since."""
    for entry in _added.values():
        if _digest(entry.source) != entry.digest:
            raise ValueError(
                f"{entry.source} has changed since it was plugged in: restart Python (or the kernel) for it"
            )
    return tuple(_added.values())


def take(entries: Iterable[Added]) -> None:
    """Add what another process of this user has added; the folders of its modules come last on the import path."""
    for entry in entries:
        _take(entry)
        if entry.folder not in sys.path:
            sys.path.append(entry.folder)


def _digest(path: str | Path) -> str:
    try:
        return hashlib.blake2b(Path(path).read_bytes(), digest_size=8).hexdigest()
    except OSError:
        return ""


def find(group: str, taken: Container[str]) -> tuple[dict[str, str], list[str]]:
    """The entry points NAME = "module:attribute" of a group, and one line on each that is left out, with the reason.

    A name must be free (not in `taken`, and offered once) and fit for a path; one that two packages offer goes to
    neither, since which of them comes first depends on the machine.
    """
    offers: dict[str, set[str]] = {}
    problems = []
    for name, value in installed(group, tuple((folder, _changed(folder)) for folder in sys.path)):
        offers.setdefault(name, set()).add(value)
    for entry in _added.values():
        if entry.group == group:
            offers.setdefault(entry.name, set()).add(entry.value)
    usable = {}
    for name, values in sorted(offers.items()):
        message = f"plug-in {shorten(name)} ({', '.join(sorted(values))}) is left out: "
        value = min(values)
        module, _, attribute = value.partition(":")
        if not is_name(name):
            problems.append(message + RULE)
        elif name in taken:
            problems.append(message + "this name is built in")
        elif len(values) > 1:
            problems.append(message + "more than one package offers this name")
        elif not (module and attribute):
            problems.append(message + "it must be given as module:attribute")
        else:
            usable[name] = value
    return usable, problems


@functools.cache
def installed(group: str, folders: tuple[tuple[str, int], ...]) -> tuple[tuple[str, str], ...]:
    """Names and values of a group's entry points; read anew when a folder of the import path has changed since."""
    return tuple((point.name, point.value) for point in importlib.metadata.entry_points(group=group))


def _changed(folder: str) -> int:
    try:
        return os.stat(folder or os.curdir).st_mtime_ns
    except OSError:
        return -1


def load(value: str) -> Any:
    """What an entry point "module:attribute" stands for. Raises whatever its module raises when it is imported."""
    module, _, attribute = value.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))
