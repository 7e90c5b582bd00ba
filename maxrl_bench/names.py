"""One rule for every name that becomes part of a path or a link.

Experiment files, profiles, plug-in tasks and objectives, and figures are named by people; their names are checked where
they enter. Runs are named by the hash of their configuration.
"""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

LONGEST = 100
RULE = (
    f"a name has at most {LONGEST} characters, letters (a-z, A-Z), digits, '_', '.' and '-', begins with a letter or "
    "digit, does not end in '.', and is no device of Windows (con, prn, aux, nul, com1, lpt1, ...)"
)
_NAME = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9_.-]*[A-Za-z0-9_-])?")
_DEVICE = re.compile(r"(?:con|prn|aux|nul|com\d|lpt\d)(?:\..*)?", re.IGNORECASE)
# No number, no separator, and nothing that Python or JSON reads as another value.
_PLAIN = re.compile(r"(?!(?:True|False|None|true|false|null|NaN|Infinity)\Z)[A-Za-z][A-Za-z0-9_.*/+-]*|[*/+-]")
_OPTION = re.compile(r"([A-Za-z_]\w*)=(?=[^ ,)])")
_WORD = re.compile(r"[^,()=\[\]{}\"\s]+(?=, |\)\Z)")
_VALUES = json.JSONDecoder()
_RUN, _RUN_BEGINS = re.compile(r"[0-9a-f]{16}"), re.compile(r"[0-9a-f]{1,16}")


def is_name(name: Any) -> bool:
    """Whether a value is a name by the rule."""
    if not isinstance(name, str) or len(name) > LONGEST:
        return False
    return bool(_NAME.fullmatch(name)) and not _DEVICE.fullmatch(name)


def check_name(name: Any, what: str) -> str:
    """The name of a `what` ("experiment file", "profile", "figure"). Raises ValueError, with the rule, on any other."""
    if not is_name(name):
        raise ValueError(f"{what} {shorten(name)} is not accepted: {RULE}")
    return str(name)


def is_run(name: Any, *, whole: bool = True) -> bool:
    """Whether a value is the name of a run, or (not `whole`) how one may begin."""
    return isinstance(name, str) and bool((_RUN if whole else _RUN_BEGINS).fullmatch(name))


def check_run(name: Any) -> str:
    """The name of a run: 16 lower-case hexadecimal digits. Raises ValueError, with the rule, on anything else."""
    if not is_run(name):
        raise ValueError(f"{shorten(name)} is not the name of a run, which has 16 digits from 0-9 and a-f")
    return name


def shorten(value: Any, width: int = 60) -> str:
    """The repr of any value, on one line of at most `width` characters, for messages."""
    try:
        text = ascii(value) if isinstance(value, str) and not value.isprintable() else repr(value)
    except (ValueError, RecursionError):  # too many digits, nested too deeply
        text = f"a {type(value).__name__}"
    text = text if text.isprintable() else ascii(text)[1:-1]
    return text if len(text) <= width else text[: width - 3] + "..."


def did_you_mean(word: Any, known: Iterable[str]) -> str:
    """The end of an error message about an unknown word: its near matches, or else all accepted words."""
    known = list(known)
    near = difflib.get_close_matches(str(word), known, n=3) or [name for name in known if str(word) in name][:3]
    return f"did you mean {' or '.join(repr(n) for n in near)}?" if near else f"accepted: {', '.join(known)}"


def label(named: Mapping[str, Any]) -> str:
    """`name(knob=value, ...)`, or the bare name if nothing is set; different tables have different labels."""
    options = ", ".join(f"{key}={_shown(value)}" for key, value in sorted(named.items()) if key != "name")
    return f"{named['name']}({options})" if options else str(named["name"])


def from_label(text: str) -> dict[str, Any]:
    """The inverse of `label`: "maxrl_order(order=8)" -> {"name": "maxrl_order", "order": 8}; a bare name has no more.

    Raises ValueError on text with brackets that is no such label.
    """
    name, bracket, rest = text.partition("(")
    named: dict[str, Any] = {"name": name}
    follows = ", " if bracket else ""
    while follows:
        found = _OPTION.match(rest)
        if found is None or found[1] in named:
            raise ValueError(
                f"must be a name, or a name with options such as maxrl_order(order=8), got {shorten(text)}"
            )
        rest = rest[found.end() :]
        word = _WORD.match(rest)
        try:
            if word and _PLAIN.fullmatch(word[0]):
                named[found[1]], end = word[0], word.end()
            else:
                named[found[1]], end = _VALUES.raw_decode(rest)
        except ValueError:  # other text, or a boolean as Python writes it
            end = word.end() if word else 0
            named[found[1]] = {"True": True, "False": False}.get(rest[:end], rest[:end])
        follows = ", " if rest[end : end + 2] == ", " else ""
        rest = rest[end + len(follows) :]
    if bracket and rest != ")":
        raise ValueError(f"must be a name, or a name with options such as maxrl_order(order=8), got {shorten(text)}")
    return named


def _shown(value: Any) -> str:
    """A value in a label: text is quoted where it could be taken for something else."""
    if isinstance(value, str):
        return value if _PLAIN.fullmatch(value) else json.dumps(value)
    return str(value) if isinstance(value, bool | int | float) else json.dumps(value, sort_keys=True)
