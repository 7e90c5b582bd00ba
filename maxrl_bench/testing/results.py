"""Checks run one after another, and their results as a table."""

from __future__ import annotations

import inspect
import unittest
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

HOLDS, FAILS, DOES_NOT_APPLY = "holds", "FAILS", "does not apply"
S = TypeVar("S")


@dataclass(frozen=True)
class Result:
    """What a check found: its claim in a sentence, whether it HOLDS, FAILS or DOES_NOT_APPLY, and why."""

    claim: str
    state: str
    why: str = ""


def run_checks(checks: Sequence[Callable[[S], None]], subject: S) -> list[Result]:
    """The results of all checks. An error of any kind is a failure of the check that met it."""
    results = []
    for check in checks:
        claim = (inspect.getdoc(check) or check.__name__).partition("\n")[0].rstrip(".")
        state, why = HOLDS, ""
        try:
            check(subject)
        except unittest.SkipTest as reason:
            state, why = DOES_NOT_APPLY, str(reason)
        except AssertionError as found:
            state, why = FAILS, str(found)
        except Exception as error:  # foreign code may raise anything
            state, why = FAILS, f"{type(error).__name__}: {error}"
        results.append(Result(claim, state, why))
    return results


def table(results: Sequence[Result]) -> str:
    """The results line by line, each with its counter-example or reason below it, and a last line of counts."""
    lines = []
    for result in results:
        lines.append(f"{result.state:<{len(DOES_NOT_APPLY)}}  {result.claim}")
        lines += [f"{'':<{len(DOES_NOT_APPLY)}}    {line}" for line in result.why.splitlines()]
    failed = sum(result.state == FAILS for result in results)
    held = sum(result.state == HOLDS for result in results)
    return "\n".join([*lines, f"{held} of {len(results)} checks hold, {failed} fail"])
