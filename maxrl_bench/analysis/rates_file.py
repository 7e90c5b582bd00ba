"""The text of learning_rates.toml with some rates replaced or added, and all else unchanged."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Mapping
from typing import Any

from maxrl_bench import inputs

_BARE = re.compile(r"[A-Za-z0-9_-]+")


def merge(text: str, rates: Mapping[str, Mapping[str, float]], source: str) -> str:
    """The text with `rates` (by task and objective) put in; comments, order and other entries stay.

    Rates are written as Python writes them, so that the same float is read. Raises ValueError that names `source` where
    the text is no TOML, or writes its tables in a way that cannot be edited line by line (inline tables, dotted keys).
    """
    expected = inputs.from_toml(text, source)
    for task, table in rates.items():
        if not isinstance(expected.setdefault(task, {}), dict):
            raise ValueError(f"{source}: [{task}] must be a table of learning rates")
        expected[task] = {**expected[task], **table}
    merged = _merge(text, rates)
    try:
        same = tomllib.loads(merged) == expected
    except ValueError:
        same = False
    if not same:
        raise ValueError(
            f"{source}: cannot be edited line by line; write it as tables [task] with lines objective = rate"
        )
    return merged


def _merge(text: str, rates: Mapping[str, Mapping[str, float]]) -> str:
    lines: list[str] = []
    ends: dict[str, int] = {}  # behind the last entry of each table
    left = {task: dict(table) for task, table in rates.items()}
    task = None
    newline = "\r\n" if "\r\n" in text else "\n"
    for line in text.removesuffix(newline).split(newline) if text else []:
        header = _parse(line) if line.lstrip().startswith("[") else None
        if header is not None:
            task = next(iter(header)) if len(header) == 1 and next(iter(header.values())) == {} else None
        elif task is not None:
            split = _entry(line)
            if split is not None and split[0] in left.get(task, {}):
                line = f"{split[1]} {left[task].pop(split[0])!r}{split[2]}"
        lines.append(line)
        if task is not None and line.strip() and not line.lstrip().startswith("#"):
            ends[task] = len(lines)
    for name in sorted(ends, key=lambda name: -ends[name]):  # from below, so that the places above stay
        lines[ends[name] : ends[name]] = _entries(left.pop(name, {}))
    for name, table in sorted(left.items()):
        lines += [*([""] if lines else []), f"[{_quoted(name)}]", *_entries(table)]
    return newline.join([*lines, ""])


def _entries(table: Mapping[str, float]) -> list[str]:
    return [f"{_key(name)} = {rate!r}" for name, rate in sorted(table.items())]


def _entry(line: str) -> tuple[str, str, str] | None:
    """A line `key = number # comment` as its key, all up to the equals sign, and all behind the number."""
    for equals in (match.start() for match in re.finditer("=", line)):
        parsed = _parse(f"{line[:equals]} = 0")
        rest = re.fullmatch(r"\s*[^\s#]+(\s*(?:#.*)?)", line[equals + 1 :])
        if parsed is not None and rest is not None and list(parsed.values()) == [0]:
            return next(iter(parsed)), line[: equals + 1], rest[1]
    return None


def _parse(line: str) -> dict[str, Any] | None:
    try:
        return tomllib.loads(line)
    except (ValueError, RecursionError):
        return None


def _key(name: str) -> str:
    return name if _BARE.fullmatch(name) else _quoted(name)


def _quoted(name: str) -> str:
    """A basic string of TOML: that of JSON, which leaves one more control character as it is."""
    return json.dumps(name, ensure_ascii=False).replace("\x7f", "\\u007f")
