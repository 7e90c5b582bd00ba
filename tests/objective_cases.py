"""The settings at which every row of OBJECTIVES is tested. A new row is tested by existing."""

from __future__ import annotations

from typing import Any

from maxrl_bench.objectives.formula import REQUIRED, Knob
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind


def knob_settings(name: str, num_rollouts: int) -> list[dict[str, Any]]:
    """Knob values worth testing: for each knob 1, 2, the middle and N, or its default and beyond; within its bounds."""
    settings: list[dict[str, Any]] = [{}]
    for knob, rule in OBJECTIVES[name].knobs.items():
        wanted: list[Any] = [rule.low, rule.default, rule.high if rule.kind is int else 2.5]
        if rule.default is REQUIRED:
            wanted = [1, 2, (num_rollouts + 1) // 2, num_rollouts]
        values = sorted({within(rule, value, num_rollouts) for value in wanted})
        settings = [{**setting, knob: value} for setting in settings for value in values]
    return settings


def within(rule: Knob, value: float, num_rollouts: int) -> int | float:
    """The value that a knob allows which lies nearest."""
    high = num_rollouts if rule.high is None else rule.high
    return rule.kind(min(max(value, rule.low), high))


def all_bound(sizes: list[int]) -> list[Objective]:
    """Every sampled objective that weighs an instance by itself, at every knob setting, for these group sizes."""
    return [
        bind(name, n, **knobs)
        for name, row in OBJECTIVES.items()
        if row.on_success is not None and not row.pooled
        for n in sizes
        if n >= row.min_rollouts
        for knobs in knob_settings(name, n)
    ]


def default_bound(num_rollouts: int) -> list[Objective]:
    """Every objective that so few rollouts allow, once; required knobs are 4, or half the rollouts if that is less."""
    chosen = {
        name: {
            k: within(rule, min(4, (num_rollouts + 1) // 2), num_rollouts)
            for k, rule in row.knobs.items()
            if rule.default is REQUIRED
        }
        for name, row in OBJECTIVES.items()
        if num_rollouts >= row.min_rollouts
    }
    return [bind(name, num_rollouts, **knobs) for name, knobs in chosen.items()]


def case_id(objective: Objective) -> str:
    knobs = "".join(f"-{k}{v:g}" for k, v in objective.knobs.items())
    return f"{objective.name}{knobs}-N{objective.num_rollouts}"
