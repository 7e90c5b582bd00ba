"""Capped MaxRL: equation 9 of the paper, whose weights of rare successes are capped."""

import math

import numpy as np

from maxrl_bench import Formula, Knob


def on_success(K: np.ndarray, N: int, cap: float) -> np.ndarray:
    """The weight of each success, where K >= 1 of N rollouts succeed."""
    return np.minimum(N / K, cap)


def on_failure(K: np.ndarray, N: int, cap: float) -> np.ndarray:
    """The weight of each failure, where K <= N - 1 of N rollouts succeed."""
    return np.zeros_like(K)


objective = Formula(
    label="Capped MaxRL",  # in legends
    paper="arXiv 2602.02710, equation 9, capped",
    formula="s = min(N/K, c); f = 0",
    edges="K = 0: no update; K = N: weight 1; N = 1: REINFORCE",
    on_success=on_success,
    on_failure=on_failure,
    knobs={"cap": Knob(float, 1, math.inf, symbol="c", default=8.0)},
)
