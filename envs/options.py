"""Checks of task options that raise one clear line."""

from __future__ import annotations

from collections.abc import Sequence

from maxrl_bench.tasks import did_you_mean, shorten


def integer(option: str, value: object, low: int, high: int) -> int:
    """`value`, if it is a whole number from `low` to `high`; else raises ValueError naming the option and the range."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"option '{option}' must be a whole number from {low} to {high}, got {shorten(value)}")
    return value


def flag(option: str, value: object) -> bool:
    """`value`, if it is true or false; else raises ValueError."""
    if type(value) is not bool:
        raise ValueError(f"option '{option}' must be true or false, got {shorten(value)}")
    return value


def one_of(option: str, value: object, accepted: Sequence[str]) -> str:
    """`value`, if it is among `accepted`; else raises ValueError with the near matches and all that is accepted."""
    if value not in accepted:
        hint = did_you_mean(value if isinstance(value, str) else "", accepted)
        raise ValueError(f"option '{option}': unknown {shorten(value)}; {hint}")
    return str(value)
