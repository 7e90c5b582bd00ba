"""Rows that somebody may add to OBJECTIVES: as a pytest plugin (-p new_rows), before tests are collected."""

from __future__ import annotations

import numpy as np

from maxrl_bench.objectives.formula import Formula, Knob
from maxrl_bench.objectives.table import OBJECTIVES, subset_average

ROWS = {
    # A real knob bounded below 2.5, no arXiv id, and ends that are REINFORCE and the mean baseline.
    "tempered": Formula(
        label="Tempered",
        paper="a talk at a workshop",
        formula="s = 1 - c K/N; f = -c K/N (a row of the tests)",
        edges="K = 0: no update; K = N: weight 1 - c; N = 1: 1 - c on success",
        on_success=lambda K, N, strength: 1 - strength * K / N,
        on_failure=lambda K, N, strength: -strength * K / N,
        knobs={"strength": Knob(float, 0, 1, "c", 0.37)},
    ),
    # A real knob that is required and never a whole number.
    "scaled": Formula(
        label="Scaled",
        paper="Doe 2031, chapter 3",
        formula="s = a; f = 0 (a row of the tests)",
        edges="K = 0: no update; K = N: weight a; N = 1: a on success",
        on_success=lambda K, N, size: np.full_like(K, size),
        on_failure=lambda K, N, size: np.zeros_like(K),
        knobs={"size": Knob(float, 0.1, 0.9, "a")},
    ),
    # Two knobs, one required: with either at an end it is REINFORCE or a member of the MaxRL family.
    "mixed": Formula(
        label="Mixed",
        paper="a thesis",
        formula="s = 1 - c + c s_T(K); f = 0; s_T of maxrl_order (a row of the tests)",
        edges="K = 0: no update; K = N: weight 1; N = 1: REINFORCE",
        on_success=lambda K, N, order, share: 1 - share + share * subset_average(K, N, order),
        on_failure=lambda K, N, order, share: np.zeros_like(K),
        knobs={"order": Knob(int, 1, None, "T"), "share": Knob(float, 0, 1, "c", 0.37)},
    ),
    # An entropy bonus with a bound of its own, beside other weights than GRPO's.
    "rloo_entropy": Formula(
        label="RLOO+entropy",
        paper="nobody yet",
        formula="rloo, plus coefficient * mean policy entropy (a row of the tests)",
        edges="all weights 0 at K = 0 and K = N but the bonus; N = 1: undefined, refused",
        on_success=lambda K, N: (N - K) / (N - 1),
        on_failure=lambda K, N: -K / (N - 1),
        knobs={"coefficient": Knob(float, 0, 1, "c", 0.02)},
        order=lambda N: 1,
        min_rollouts=2,
        count_based=False,
        entropy_bonus="coefficient",
    ),
}


def pytest_configure() -> None:
    OBJECTIVES.update(ROWS)  # type: ignore[attr-defined]
