"""What installed packages add to a built-in table, through an entry-point group; nothing of theirs is imported here."""

from __future__ import annotations

import importlib
import importlib.metadata
import operator
from collections.abc import Container
from typing import Any

from maxrl_bench.names import RULE, is_name, shorten


def find(group: str, taken: Container[str]) -> tuple[dict[str, str], list[str]]:
    """The entry points NAME = "module:attribute" of a group, and one line on each that is left out, with the reason.

    A name must be free (not in `taken`, and offered once) and fit for a path; one that two packages offer goes to
    neither, since which of them comes first depends on the machine.
    """
    offers: dict[str, set[str]] = {}
    problems = []
    for point in importlib.metadata.entry_points(group=group):
        offers.setdefault(point.name, set()).add(point.value)
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


def load(value: str) -> Any:
    """What an entry point "module:attribute" stands for. Raises whatever its module raises when it is imported."""
    module, _, attribute = value.partition(":")
    return operator.attrgetter(attribute)(importlib.import_module(module))
