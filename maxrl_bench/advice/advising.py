"""Advice for somebody's own prompts: `maxrl_bench.advise`."""

from __future__ import annotations

import dataclasses
import math
import os
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from maxrl_bench.advice import measured, wording
from maxrl_bench.advice.counts import COLUMNS, from_frame, read_counts
from maxrl_bench.advice.effects import Prompts, classes, effect, hard_share, mixed, some_success
from maxrl_bench.advice.families import best_members
from maxrl_bench.advice.mixture import PassRates, infer, known
from maxrl_bench.advice.result import MOST, REACH, Advice, AtN, Reach, Share
from maxrl_bench.names import from_label, shorten
from maxrl_bench.objectives.formula import MAX_ROLLOUTS, Objective
from maxrl_bench.objectives.table import bind

DEFAULT = ("rloo", "grpo", "f_grpo", "maxrl_alg1")
MOST_K = 128  # the k of "pass@k" and of "both", which the reference experiments measured
_GOAL = re.compile(r"pass@([1-9]\d{0,6})")


def advise(
    pass_rates: float | Sequence[float] | np.ndarray | str | os.PathLike[str] | pd.DataFrame,
    *,
    rollouts: int | Sequence[int] = 16,
    objectives: str | Sequence[str | Mapping[str, Any]] = DEFAULT,
    goal: str = "both",
    columns: Sequence[str] = COLUMNS,
) -> Advice:
    """What objectives would do to your prompts at N rollouts, and which of them suits a goal.

    pass_rates: one, or one for each prompt; or counts, from which they are inferred: a file (.csv, .parquet, .jsonl)
    or a data frame with a row of successes and attempts for each prompt. rollouts: N, of 2 or more, or several.
    objectives: names, labels such as "maxrl_order(order=8)", or tables with knobs; steps are compared with the first.
    goal: "pass@1" (now), "pass@K" for a number K ("pass@k": 128), or "both" (pass@1 and pass@128).
    columns: what the file calls successes and attempts.
    Raises ValueError, one line, on anything that cannot be used.
    """
    ks = _ks(goal)
    sizes = _sizes(rollouts)
    bound = {n: _bound(objectives, n) for n in sizes}
    if isinstance(pass_rates, pd.DataFrame):
        rates = infer(from_frame(pass_rates, columns))
    elif isinstance(pass_rates, str | os.PathLike):
        rates = infer(read_counts(pass_rates, columns))
    else:
        rates = known(_numbers(pass_rates))
    p, prompts = rates.rates, Prompts(rates)
    hard, middling, easy = classes(p)
    kinds = {"unsolvable": p == 0, "hard": hard, "middling": middling, "easy": easy, "pass rate": p}
    advice = Advice(
        ks=ks,
        prompts=None if rates.counts is None else len(rates.counts.successes),
        pass_rates=rates,
        shares={name: _share(rates, values) for name, values in kinds.items()},
        reach=_reach(rates),
        at=[_at(n, bound[n], rates, prompts, ks) for n in sizes],
    )
    return dataclasses.replace(advice, sentences=wording.sentences(advice))


def _ks(goal: Any) -> tuple[int, ...]:
    if goal == "both":
        return 1, MOST_K
    match = _GOAL.fullmatch(goal) if isinstance(goal, str) else None
    if match is None and goal != "pass@k":
        accepted = f"pass@1, pass@K for a number K (pass@k: K = {MOST_K}) or both"
        raise ValueError(f"advise: the goal must be {accepted}, got {shorten(goal)}")
    return (int(match[1]) if match else MOST_K,)


def _sizes(rollouts: Any) -> list[int]:
    given = [rollouts] if isinstance(rollouts, int | float | str | np.generic) else list(rollouts)
    sizes: list[Any] = [value.item() if isinstance(value, np.generic) else value for value in given]
    for n in sizes:
        if isinstance(n, bool) or not isinstance(n, int) or not 2 <= n <= MAX_ROLLOUTS:
            raise ValueError(f"advise: rollouts must be whole numbers from 2 to {MAX_ROLLOUTS}, got {shorten(n)}")
    if not sizes:
        raise ValueError("advise: name at least one number of rollouts")
    return sorted(set(sizes))


def _bound(objectives: Any, num_rollouts: int) -> list[Objective]:
    """The objectives asked for, each once."""
    found: list[Objective] = []
    for one in [objectives] if isinstance(objectives, str | Mapping) else objectives:
        if not isinstance(one, str) and not (isinstance(one, Mapping) and isinstance(one.get("name"), str)):
            raise ValueError(f"advise: an objective is a name, or a table with a name and knobs, got {shorten(one)}")
        knobs = from_label(one) if isinstance(one, str) else dict(one)
        objective = bind(knobs.pop("name"), num_rollouts, **knobs)
        if objective.row.pooled or objective.row.remember:
            what = "its whole batch" if objective.row.pooled else "the batches before"
            raise ValueError(f"advise: '{objective.name}' weighs a prompt by {what}: it has no weight of p")
        found += [objective] if objective not in found else []
    if not found:
        raise ValueError("advise: name at least one objective")
    return found


def _numbers(pass_rates: Any) -> np.ndarray:
    try:
        return np.asarray(pass_rates, np.float64)
    except (TypeError, ValueError):
        raise ValueError(f"advise: pass rates must be numbers in [0, 1], got {shorten(pass_rates)}") from None


def _share(rates: PassRates, values: np.ndarray) -> Share:
    return Share(rates.mean(values), rates.interval(values))


def _at(n: int, objectives: list[Objective], rates: PassRates, prompts: Prompts, ks: tuple[int, ...]) -> AtN:
    members = best_members(n, prompts, ks)
    shown = [*objectives, *(member.objective for member in members if member.objective not in objectives)]
    return AtN(
        num_rollouts=n,
        some_success=_share(rates, some_success(rates.rates, n)),
        mixed=_share(rates, mixed(rates.rates, n)),
        effects=[effect(objective, prompts, ks) for objective in shown],
        hard=[hard_share(objective, rates) for objective in shown],
        members=members,
        measured=measured.comparisons(ks, n, prompts),
    )


def _reach(rates: PassRates) -> Reach:
    """MaxRL of order N has 1 - (1-p)^N of maximum likelihood's weight: its mean over the prompts that can be solved."""
    solvable = (rates.rates > 0).astype(np.float64)
    if not rates.mean(solvable):
        return Reach(math.inf)

    def share(n: int) -> np.ndarray:
        return some_success(rates.rates, n) * solvable

    estimate = _first(lambda n: rates.mean(share(n)) / rates.mean(solvable))
    if rates.interval(share(1), solvable) is None:
        return Reach(estimate)
    low, high = (
        _first(lambda n, side=side: (rates.interval(share(n), solvable) or (0.0, 0.0))[side])  # type: ignore[misc]
        for side in (1, 0)
    )
    return Reach(estimate, (low, high))


def _first(value: Callable[[int], float]) -> float:
    """The first n up to 2^20 at which a function that grows reaches REACH; inf if it does not."""
    low, high = 0, 1
    while value(high) < REACH * (1 - 1e-12):
        low, high = high, 2 * high
        if high > MOST:
            return math.inf
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if value(middle) >= REACH * (1 - 1e-12) else (middle, high)
    return float(high)
