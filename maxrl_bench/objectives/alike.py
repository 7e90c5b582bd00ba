"""Which objectives have the same gradient in expectation, and which of them makes the least noise: computed.

Nothing here is a list of names: the gaps v_J = s(J+1) - f(J) decide the population weight (theorem 1 of
docs/objectives.md), so two objectives are the same in expectation where their gaps are, and the same up to a learning
rate where these are proportional.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from maxrl_bench.objectives.formula import REQUIRED, Formula, Knob, Objective
from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment
from maxrl_bench.objectives.table import OBJECTIVES, bind

_TOLERANCE = 1e-9


class Alike(NamedTuple):
    """Objectives whose population weights are proportional, `factors` times that of the first."""

    members: list[Objective]
    factors: list[float]


def weighed(num_rollouts: int) -> list[Objective]:
    """Every row whose weights are functions of its own count: knobs at their defaults, an order at N, a k at 4."""
    return [bind(name, num_rollouts, **next(_settings(row, num_rollouts, ends=False))) for name, row in _rows()]


def alike(num_rollouts: int) -> list[Alike]:
    """All rows, their knobs at ends and defaults, in groups that are the same up to a factor.

    Of settings of one row that come to the same, the first stands for all. Groups of a single row are left out, as are
    objectives that learn nothing.
    """
    counts = np.arange(num_rollouts)
    groups: list[tuple[np.ndarray, Alike]] = []
    for name, row in _rows():
        for knobs in _settings(row, num_rollouts, ends=True):
            objective = bind(name, num_rollouts, **knobs)
            gaps = objective.gap(counts)
            size = float(np.abs(gaps).max())
            if not size:
                continue
            found = next((group for shape, group in groups if np.allclose(shape, gaps / size, 0, _TOLERANCE)), None)
            if found is None:
                groups.append((gaps / size, Alike([objective], [1.0])))
                continue
            factor = size / float(np.abs(found.members[0].gap(counts)).max())
            if not any(one.name == name and math.isclose(factor, same) for one, same in zip(*found, strict=True)):
                found.members.append(objective)
                found.factors.append(factor)
    return [group for _, group in groups if len({one.name for one in group.members}) > 1]


def excess_noise(objective: Objective, p: float) -> float:
    """E|g|^2 over the least that any estimator of the same weight has, by the orthogonal-score proxy; at least 1."""
    return second_moment(objective, Scores(p)) / least_second_moment(objective, p)


def _rows() -> Iterator[tuple[str, Formula]]:
    return ((name, row) for name, row in OBJECTIVES.items() if row.count_based)


def _settings(row: Formula, num_rollouts: int, ends: bool) -> Iterator[dict[str, int | float]]:
    """Values of the knobs: one of each, or (`ends`) all combinations of defaults, ends and some values between."""
    choices = [[(knob, value) for value in _values(rule, num_rollouts, ends)] for knob, rule in row.knobs.items()]
    return (dict(setting) for setting in itertools.product(*choices))


def _values(rule: Knob, n: int, ends: bool) -> list[int | float]:
    if rule.high is None:  # an order or a subset: of up to N rollouts
        middle = n if rule.symbol == "T" else min(4, n)
        return sorted({1, min(4, n), n - 1, n}) if ends else [middle]
    default = [1.0 if rule.default is REQUIRED else rule.default]
    bounds = [bound for bound in (rule.low, rule.high) if math.isfinite(bound)]
    return sorted({rule.kind(value) for value in (*bounds, *default)}) if ends else default
