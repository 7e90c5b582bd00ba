"""The cheap part of the checks, which looks at the task and the objective of every run before it starts."""

from __future__ import annotations

import functools
import json
import traceback
import unittest
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from maxrl_bench.names import label
from maxrl_bench.objectives.formula import Objective
from maxrl_bench.tasks import make_task
from maxrl_bench.testing import objective_checks, task_checks

_OURS = tuple(str(Path(place).parent) for place in (Path(__file__).parent, torch.__file__, np.__file__))


def look(named: Mapping[str, Any]) -> None:
    """Look at a task, given as a table of its name and options; once in a process for each.

    A few demonstrations are replayed, 256 sampled rollouts under each of two policies compared with their exact pass
    rates, listed solutions and answers like them handed to the verifier, instances asked for twice, actions counted: a
    tenth of a second or three. The generators are its own, so that no number of a run depends on it. Raises ValueError,
    in one line, with the instance that contradicts; by chance less often than once in a million (`rates.FALSE_ALARM`).
    """
    _look(json.dumps(named, sort_keys=True))


@functools.cache
def _look(text: str) -> None:
    named = json.loads(text)
    subject = task_checks.Subject(
        functools.partial(make_task, **named), splits=("train",), instances=4, rollouts=64, stages=1
    )
    _ = subject.task  # what cannot be made says so itself
    for check in task_checks.CHEAP:
        # Networks are made with torch's own generator before their parameters are set from ours.
        with torch.random.fork_rng(devices=[]):
            try:
                check(subject)
            except unittest.SkipTest:
                continue
            except (ImportError, MemoryError):
                raise
            except Exception as error:  # a task is foreign code: any error of it becomes one line
                what = "contradicts itself" if isinstance(error, AssertionError) else "fails"
                line = f"task '{label(named)}' {what}: {_told(error)}"
                raise ValueError(f"{line} (see: maxrl-bench check task {_words(named)})") from error


def look_at_weights(objective: Objective) -> None:
    """Raises ValueError, in one line, if some count of successes has no finite weight, or a formula fails."""
    if objective.is_likelihood:
        return
    try:
        for state in objective_checks.remembering(objective):
            objective_checks.check_weights(state)
    except Exception as error:  # a row is foreign code, too
        line = f"objective '{objective.name}' cannot be trained with: {_told(error)}"
        raise ValueError(f"{line} (see: maxrl-bench check objective {objective.name})") from error


def _told(error: Exception) -> str:
    told = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}{_place(error)}"
    return " ".join(told.split())


def _place(error: Exception) -> str:
    """Where in somebody else's file it was raised, on the way to where it was caught."""
    frames = traceback.extract_tb(error.__traceback__)
    theirs = [frame for frame in frames if not frame.filename.startswith(_OURS)]
    return f" ({Path(theirs[-1].filename).name}, line {theirs[-1].lineno})" if theirs else ""


def _words(named: Mapping[str, Any]) -> str:
    """The task as `maxrl-bench check task` takes it."""
    options = (f"{key}={json.dumps(value)}" for key, value in named.items() if key != "name")
    return " ".join([str(named["name"]), *options])
