"""Binary-reward policy-gradient objectives: one name, one formula, one reference.

An objective is a table of weights. Of N rollouts of an instance with pass rate p, K succeed; rollout j has the score
S_j = grad log-probability of the whole rollout (summed, not averaged, over its tokens). The update follows

    g = (1/N) sum_j a_j S_j,    a_j = s(K) on success, f(K) on failure,    E[g] = w_N(p) grad p,
    w_N(p) = E[s(J+1) - f(J)],  J ~ Binomial(N-1, p)

so the *population weight* w_N says what an objective maximises. REINFORCE has w = 1 and maximises p; maximum likelihood
has w = 1/p and maximises log p; MaxRL of order T has w = (1 - (1-p)^T) / p. Derivations: docs/objectives.md.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from maxrl_bench.names import did_you_mean, shorten
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.binomials import hit, miss
from maxrl_bench.objectives.formula import MAX_ROLLOUTS, REQUIRED, Formula, Knob, Objective, maxrl_weight, power_of
from maxrl_bench.objectives.recent import RECENT

__all__ = [
    "OBJECTIVES",
    "Formula",
    "Knob",
    "Objective",
    "bind",
    "bind_row",
    "find_row",
    "maxrl_weight",
]

MAXRL = "arXiv 2602.02710"
ORDER = Knob(int, 1, None, "T")
SUBSET = Knob(int, 1, None, "k")
_ROLLOUTS = Knob(int, 1, MAX_ROLLOUTS, "N")


def subset_average(K: np.ndarray, N: int, order: int) -> np.ndarray:
    """sum_{m<T} C(N-K, m) / C(N-1, m) = (N/K) [1 - C(N-K, T) / C(N, T)] (by the hockey-stick identity), K >= 1."""
    return N / K * hit(N, K, order)


def _grpo_success(K: np.ndarray, N: int, ddof: int = 0) -> np.ndarray:
    return np.sqrt((N - K) / K * ((N - ddof) / N))


def _grpo_failure(K: np.ndarray, N: int, ddof: int = 0) -> np.ndarray:
    return -np.sqrt(K / (N - K) * ((N - ddof) / N))


def _pass_at_k_odds(K: np.ndarray, N: int, k: int) -> np.ndarray:
    return np.sqrt(miss(N, K, k) / hit(N, K, k))


def _inverse_deviation(p: np.ndarray) -> np.ndarray:
    return power_of(p * (1 - p), -0.5)


def _inverse(p: np.ndarray, **_: Any) -> np.ndarray:
    return maxrl_weight(p, math.inf)


_GRPO_EDGES = "all weights 0 at K = 0 and K = N; N = 1: learns nothing"

OBJECTIVES: Mapping[str, Formula] = {
    "reinforce": Formula(
        label="REINFORCE",
        paper="Williams 1992; PSR of arXiv 2506.01347",
        formula="s = 1; f = 0",
        edges="K = 0: no update; K = N: weight 1; N = 1: the same formula",
        on_success=lambda K, N: np.ones_like(K),
        on_failure=lambda K, N: np.zeros_like(K),
        order=lambda N: 1,
    ),
    "mean_baseline": Formula(
        label="Mean baseline",
        paper="Dr. GRPO, arXiv 2503.20783",
        formula="s = 1 - K/N; f = -K/N",
        edges="all weights 0 at K = 0 and K = N; N = 1: learns nothing",
        on_success=lambda K, N: 1 - K / N,
        on_failure=lambda K, N: -K / N,
        closed_form=lambda p, N: np.full_like(p, (N - 1) / N),
        limit=lambda p: np.ones_like(p),
    ),
    "rloo": Formula(
        label="RLOO",
        paper="arXiv 2402.14740",
        formula="s = (N-K)/(N-1); f = -K/(N-1)",
        edges="all weights 0 at K = 0 and K = N; N = 1: undefined, refused",
        on_success=lambda K, N: (N - K) / (N - 1),
        on_failure=lambda K, N: -K / (N - 1),
        order=lambda N: 1,
        min_rollouts=2,
    ),
    "grpo": Formula(
        label="GRPO",
        paper="arXiv 2402.03300",
        formula="s = sqrt((N-K)/K); f = -sqrt(K/(N-K)); both times sqrt((N-ddof)/N)",
        edges=_GRPO_EDGES,
        on_success=_grpo_success,
        on_failure=_grpo_failure,
        knobs={"ddof": Knob(int, 0, 1, "ddof", 0)},
        limit=lambda p, ddof: _inverse_deviation(p),
    ),
    "maxrl_eq9": Formula(
        label="MaxRL (eq. 9)",
        paper=f"{MAXRL}, eq. 9",
        formula="s = N/K; f = 0",
        edges="K = 0: no update; K = N: weight 1; N = 1: REINFORCE",
        on_success=lambda K, N: N / K,
        on_failure=lambda K, N: np.zeros_like(K),
        order=lambda N: N,
        limit=_inverse,
    ),
    "maxrl_eq10": Formula(
        label="MaxRL (eq. 10)",
        paper=f"{MAXRL}, eq. 10",
        formula="s = N/K - 1; f = -1, also at K = 0",
        edges="K = 0: pushes all rollouts down; K = N: weights 0; N = 1: 0 on success, -1 on failure (unbiased)",
        on_success=lambda K, N: N / K - 1,
        on_failure=lambda K, N: -np.ones_like(K),
        order=lambda N: N,
        limit=_inverse,
    ),
    "maxrl_alg1": Formula(
        label="MaxRL (Alg. 1)",
        paper=f"{MAXRL}, Algorithm 1",
        formula="s = N/K - 1; f = -1, but 0 at K = 0",
        edges="all weights 0 at K = 0 and K = N, hence order N-1, not N; N = 1: learns nothing",
        on_success=lambda K, N: N / K - 1,
        on_failure=lambda K, N: -(K > 0).astype(np.float64),
        order=lambda N: N - 1,
        limit=_inverse,
    ),
    "maxrl_alg1_exact": Formula(
        label="MaxRL (Alg. 1, exact)",
        paper=f"repair of {MAXRL}, Algorithm 1",
        formula="as maxrl_alg1, but s(1) = N",
        edges="all weights 0 at K = 0 and K = N (N > 1); N = 1: REINFORCE",
        on_success=lambda K, N: N / K - (K > 1),
        on_failure=lambda K, N: -(K > 0).astype(np.float64),
        order=lambda N: N,
        limit=_inverse,
    ),
    "maxrl_order": Formula(
        label="MaxRL",
        paper=f"{MAXRL}, eq. 6 and 7 by subset average",
        formula="s = (N/K) [1 - C(N-K,T)/C(N,T)]; f = 0",
        edges="K = 0: no update; K = N: weight 1; T = 1: REINFORCE; T = N: eq. 9; N = 1: REINFORCE",
        on_success=subset_average,
        on_failure=lambda K, N, order: np.zeros_like(K),
        knobs={"order": ORDER},
        order=lambda N, order: order,
    ),
    "maxrl_order_failures": Formula(
        label="MaxRL failures",
        paper=f"{MAXRL}, eq. 6 and 7 by failure series",
        formula="s = 1; f = 1 - (N/(K+1)) [1 - C(N-K-1,T)/C(N,T)]",
        edges="K = 0: pushes all rollouts down by T-1; K = N: weight 1; N = 1: REINFORCE",
        on_success=lambda K, N, order: np.ones_like(K),
        on_failure=lambda K, N, order: 1 - subset_average(K + 1, N, order),
        knobs={"order": ORDER},
        order=lambda N, order: order,
    ),
    "maxrl_order_loo": Formula(
        label="MaxRL LOO",
        paper="docs/objectives.md, theorem 3 (least noise for log-odds-uniform pass rates)",
        formula="s = (N-K)/(N-1) s_T(K); f = -K/(N-1) s_T(K+1); s_T of maxrl_order",
        edges="all weights 0 at K = 0 and K = N; T = 1: RLOO; N = 1: undefined, refused",
        on_success=lambda K, N, order: (N - K) / (N - 1) * subset_average(K, N, order),
        on_failure=lambda K, N, order: -K / (N - 1) * subset_average(K + 1, N, order),
        knobs={"order": ORDER},
        order=lambda N, order: order,
        min_rollouts=2,
    ),
    "maxrl_uniform": Formula(
        label="MaxRL (uniform)",
        paper="docs/objectives.md, theorem 3 (least noise for uniform pass rates)",
        formula="s = N/K - N/(N+1); f = -N/(N+1), also at K = 0",
        edges="K = 0: pushes all rollouts down; K = N: weight 1/(N+1); N = 1: 1/2 on success, -1/2 on failure",
        on_success=lambda K, N: N / K - N / (N + 1),
        on_failure=lambda K, N: np.full_like(K, -N / (N + 1)),
        order=lambda N: N,
        limit=_inverse,
    ),
    "pkpo_plain": Formula(
        label="PKPO (plain)",
        paper="arXiv 2505.15201, without a baseline",
        formula="s = k; f = k [1 - C(N-1-K,k-1)/C(N-1,k-1)]",
        edges="K = 0: no update; K = N: weight k; k = 1: REINFORCE; N = 1: REINFORCE",
        on_success=lambda K, N, k: np.full_like(K, k),
        on_failure=lambda K, N, k: k * hit(N - 1, K, k - 1),
        gap=lambda J, N, k: k * miss(N - 1, J, k - 1),
        knobs={"k": SUBSET},
        closed_form=lambda p, N, k: k * (1 - p) ** (k - 1),
    ),
    "pkpo_loo": Formula(
        label="PKPO-LOO",
        paper="arXiv 2505.15201, eq. 33",
        formula="s = k C(N-K,k-1)/C(N-1,k-1); f = 0",
        edges="K = 0: no update; weight 0 from K = N-k+2 on; k = 1: REINFORCE; N = 1: REINFORCE",
        on_success=lambda K, N, k: k * miss(N - 1, K - 1, k - 1),
        on_failure=lambda K, N, k: np.zeros_like(K),
        knobs={"k": SUBSET},
        closed_form=lambda p, N, k: k * (1 - p) ** (k - 1),
    ),
    "pass_at_k_training": Formula(
        label="Pass@k training",
        paper="arXiv 2508.10751",
        formula="s = sqrt((1-R)/R), R = 1 - C(N-K,k)/C(N,k); f = -K/(N-K) s(K)",
        edges="all weights 0 at K = 0 and from K = N-k+1 on; N = 1: learns nothing",
        on_success=_pass_at_k_odds,
        on_failure=lambda K, N, k: -K / (N - K) * _pass_at_k_odds(np.maximum(K, 1), N, k),
        knobs={"k": SUBSET},
        limit=lambda p, k: power_of(1 - p, k / 2 - 1) * power_of(p * maxrl_weight(p, k), -0.5),
    ),
    "f_grpo": Formula(
        label="F-GRPO",
        paper="arXiv 2602.06717",
        formula="grpo with ddof 1, times (1 - K/N)^gamma",
        edges="all weights 0 at K = 0 and K = N; N = 1: undefined (ddof 1), refused",
        on_success=lambda K, N, gamma: _grpo_success(K, N, 1) * ((N - K) / N) ** gamma,
        on_failure=lambda K, N, gamma: _grpo_failure(K, N, 1) * ((N - K) / N) ** gamma,
        knobs={"gamma": Knob(float, 0, math.inf, "γ", 1.0)},
        limit=lambda p, gamma: power_of(p, -0.5) * power_of(1 - p, gamma - 0.5),
        min_rollouts=2,
    ),
    "ml": Formula(
        label="Exact ML",
        paper=f"{MAXRL}, maximum likelihood",
        formula="no sampling: ascend log p itself",
        edges="needs a task with exact pass rates; N is ignored",
        on_success=None,
        on_failure=None,
        order=lambda N: math.inf,
        limit=_inverse,
        count_based=False,
    ),
    "grpo_entropy": Formula(
        label="GRPO+entropy",
        paper="arXiv 2402.03300 with an entropy bonus (as in arXiv 2602.02710, Table 3)",
        formula="grpo with ddof 0, plus coefficient * mean policy entropy",
        edges=_GRPO_EDGES + " but the bonus",
        on_success=_grpo_success,
        on_failure=_grpo_failure,
        knobs={"coefficient": Knob(float, 0, math.inf, "c", 0.01)},
        limit=lambda p: _inverse_deviation(p),
        count_based=False,
        entropy_bonus="coefficient",
    ),
    "differential_smoothing": Formula(
        label="Diff. smoothing",
        paper="arXiv 2511.19942",
        formula="grpo with ddof 0, minus gamma * mean log-probability of the rollout on success, plus it on failure",
        edges=_GRPO_EDGES + " but the smoothing",
        on_success=_grpo_success,
        on_failure=_grpo_failure,
        knobs={"gamma": Knob(float, 0, math.inf, "γ", 0.05)},
        limit=lambda p: _inverse_deviation(p),
        count_based=False,
        smoothing="gamma",
    ),
    "raft": Formula(
        label="RAFT",
        paper="arXiv 2504.11343",
        formula="s = B N / (successes of all B instances); f = 0: the mean score over the batch's successes",
        edges="no success in the whole batch: no update; B = 1: eq. 9; B large: REINFORCE over the mean pass rate",
        on_success=lambda K, N: np.ones_like(K),
        on_failure=lambda K, N: np.zeros_like(K),
        count_based=False,
        pooled=lambda K, N: np.mean(K) / N,
    ),
    **RECENT,
}


def bind(name: str, num_rollouts: int, /, **knobs: Any) -> Objective:
    """The objective `name` for groups of `num_rollouts` rollouts: `bind("maxrl_order", 64, order=8)`.

    Raises ValueError on an unknown name (with near matches), on a knob that is missing, unknown to this objective or
    out of bounds (an order or k above the number of rollouts), on too few or more than 2^20 rollouts, and on a plug-in
    that fails or is no objective.
    """
    row = find_row(name)
    return bind_row(outside.ALIASES.get(name, name), row, num_rollouts, **knobs)


def find_row(name: str) -> Formula:
    """The row of an objective, built in or of a plug-in. Raises ValueError as `bind` does."""
    if not isinstance(name, str):
        raise ValueError(f"unknown objective {shorten(name)}; {did_you_mean(name, OBJECTIVES)}")
    name = outside.ALIASES.get(name, name)
    return OBJECTIVES[name] if name in OBJECTIVES else _plugged_in(name)


@functools.cache  # the installed packages are looked through once for each name, however many runs there are
def _plugged_in(name: str) -> Formula:
    values = outside.names(OBJECTIVES)
    if name not in values:
        raise ValueError(
            f"unknown objective {shorten(name)}; {did_you_mean(name, [*OBJECTIVES, *outside.ALIASES, *values])}"
        )
    return outside.load_row(name, values[name])


def bind_row(name: str, row: Formula, num_rollouts: int, /, **knobs: Any) -> Objective:
    """`bind` for a row at hand, which need not be installed; `name` is for messages."""
    rollouts = int(_ROLLOUTS.check(f"objective '{name}': the number of rollouts", num_rollouts, 0))
    if rollouts < row.min_rollouts:
        raise ValueError(f"objective '{name}' needs at least {row.min_rollouts} rollouts, got {rollouts}")
    accepted = ", ".join(row.knobs) or "no knobs"
    for knob in knobs:
        if knob not in row.knobs:
            raise ValueError(f"objective '{name}' does not read the knob {shorten(knob)}; accepted: {accepted}")
    values = {}
    for knob, rule in row.knobs.items():
        if knob not in knobs and rule.default is REQUIRED:
            bounds = f"{rule.low} to {rollouts}" if rule.high is None else f"at least {rule.low}"
            raise ValueError(f"objective '{name}' needs the knob '{knob}' ({bounds})")
        values[knob] = rule.check(f"objective '{name}': knob '{knob}'", knobs.get(knob, rule.default), rollouts)
    return Objective(name, values, rollouts, row)
