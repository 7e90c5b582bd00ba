"""Checks of task options that raise one clear line."""

from __future__ import annotations

from collections.abc import Sequence

from maxrl_bench.tasks import did_you_mean


def integer(option: str, value: object, low: int, high: int) -> int:
    """`value`, if it is a whole number from `low` to `high`; else raises ValueError naming the option and the range."""
    if type(value) is not int or not low <= value <= high:
        raise ValueError(f"option '{option}' must be a whole number from {low} to {high}, got {shown(value)}")
    return value


def flag(option: str, value: object) -> bool:
    """`value`, if it is true or false; else raises ValueError."""
    if type(value) is not bool:
        raise ValueError(f"option '{option}' must be true or false, got {shown(value)}")
    return value


def one_of(option: str, value: object, accepted: Sequence[str]) -> str:
    """`value`, if it is among `accepted`; else raises ValueError with the near matches and all that is accepted."""
    if value not in accepted:
        hint = did_you_mean(value if isinstance(value, str) else "", accepted)
        raise ValueError(f"option '{option}': unknown {shown(value)}; {hint}")
    return str(value)


def shown(value: object) -> str:
    """A value as an error message shows it: in Python's notation, cut where it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer of more than 4,300 digits
        return f"a {type(value).__name__} too long to show"
    return text if len(text) <= 60 else text[:57] + "..."
