"""Checks of task options that raise one clear line."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


def integer(option: str, value: object, low: int, high: int) -> int:
    """`value`, if it is a whole number from `low` to `high`; else raises ValueError naming the option and the range."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"option '{option}' must be a whole number from {low} to {high}, got {value!r}")
    return value


def flag(option: str, value: object) -> bool:
    """`value`, if it is true or false; else raises ValueError."""
    if type(value) is not bool:
        raise ValueError(f"option '{option}' must be true or false, got {value!r}")
    return value


def one_of(option: str, value: object, accepted: Sequence[str]) -> str:
    """`value`, if it is among `accepted`; else raises ValueError with the near matches and all that is accepted."""
    if value not in accepted:
        near = difflib.get_close_matches(str(value), accepted, n=2)
        hint = f"did you mean {' or '.join(near)}? " if near else ""
        raise ValueError(f"option '{option}': unknown {value!r}; {hint}accepted: {', '.join(accepted)}")
    return str(value)
