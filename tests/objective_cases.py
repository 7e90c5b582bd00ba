"""The settings at which every row of OBJECTIVES is tested. A new row is tested by existing."""

from __future__ import annotations

from maxrl_bench.objectives.formula import REQUIRED
from maxrl_bench.objectives.table import OBJECTIVES, Objective, bind
from maxrl_bench.testing.objective_checks import knob_settings, remembering, within


def all_bound(sizes: list[int]) -> list[Objective]:
    """Every sampled objective that weighs an instance by itself, at every knob setting, for these group sizes.

    Those that remember batches as they begin, and with some batches remembered.
    """
    return [
        objective
        for name, row in OBJECTIVES.items()
        if row.on_success is not None and not row.pooled
        for n in sizes
        if n >= row.min_rollouts
        for knobs in knob_settings(row, n)
        for objective in remembering(bind(name, n, **knobs))
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
    known = "" if objective.memory is None else f"-memory{len(objective.memory)}"
    return f"{objective.name}{knobs}-N{objective.num_rollouts}{known}"
