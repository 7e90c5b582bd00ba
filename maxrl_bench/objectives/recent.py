"""Rows of OBJECTIVES published since MaxRL or beside it: risk-sensitive, powers of p, positives and negatives apart."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from maxrl_bench.objectives.binomials import hit, miss
from maxrl_bench.objectives.formula import Formula, Knob, maxrl_weight, power_of

__all__ = ["RECENT"]


def _power_series(K: np.ndarray, N: int, order: int, q: float) -> np.ndarray:
    """sum_{m<T} C(q+m-1, m) C(N-K, m) / C(N-1, m), K >= 1: term by term, a block of terms at a time."""
    counts, back = np.unique(np.asarray(K, np.float64), return_inverse=True)
    total = np.ones_like(counts)
    last = np.ones_like(counts)
    going = np.arange(len(counts))
    for start in range(0, order - 1, 1024):
        m = np.arange(start, min(start + 1024, order - 1), dtype=np.float64)
        failures = N - counts[going, None]
        ratios = (q + m) / (m + 1) * np.maximum(failures - m, 0) / (N - 1 - m)
        terms = last[going, None] * np.cumprod(ratios, axis=1)
        total[going] += terms.sum(axis=1)
        last[going] = terms[:, -1]
        # To come is at most the geometric series of ratio 1 - (K-1)/(N-1) (for q > 1 a few per cent more).
        going = going[last[going] * (N - 1) > 1e-17 * total[going] * (counts[going] - 1)]
        if not len(going):
            break
    return total[back].reshape(np.shape(K))


def _power_weight(p: np.ndarray, order: int, q: float) -> np.ndarray:
    """sum_{m<T} C(q+m-1, m) (1-p)^m = p^-q I_p(q, T), the distribution of a negative binomial; C(q+T-1, T-1) at 0."""
    from scipy import special  # slow to load, and every process loads this table

    if q == 0:
        return np.ones_like(p)
    small = p < np.finfo(float).tiny
    inner = np.where(small, 0.5, p)
    return np.where(small, 1 / (q * special.beta(q, order)), inner**-q * special.betainc(q, order, inner))


def _risk(share: np.ndarray, beta: float) -> np.ndarray:
    """(e^beta - 1) / (beta (1 + (e^beta - 1) share)), without e^beta, which overflows."""
    small = math.exp(-beta)
    return -math.expm1(-beta) / (beta * (small + (1 - small) * share))


def _two_out(K: np.ndarray, N: int, k: int) -> np.ndarray:
    """k C(N-K-1, k-1) / C(N-2, k-1): the chance that k-1 of the others but one are failures, for K < N and k < N."""
    return k * miss(N - 2, np.maximum(K - 1, 0), k - 1)


def _max_success(K: np.ndarray, N: int, k: int) -> np.ndarray:
    if k == N:
        return np.where(K == 1, float(N), 0.0)
    return np.where(K < N, (N - K) / max(N - 1, 1) * _two_out(np.minimum(K, N - 1), N, k), 0.0)


def _max_failure(K: np.ndarray, N: int, k: int) -> np.ndarray:
    if k == N:
        return np.zeros_like(K)
    return -K / max(N - 1, 1) * np.where(K > 0, _two_out(K, N, k), 0.0)


def _log_pass_at_k(weight: np.ndarray, K: np.ndarray, N: int, k: int) -> np.ndarray:
    """A weight of leave-two-out pass@k over the unbiased estimate of pass@k; 0 where that is 0."""
    return np.where(K > 0, weight / hit(N, np.maximum(K, 1), k), 0.0)


def _in_reference(K: np.ndarray, memory: np.ndarray | None) -> np.ndarray:
    """f(K)/F(K) of CurveRL: of the remembered groups with at most K successes, the share with K; flat, 1/K, if none."""
    if memory is None or not len(memory):
        return 1 / np.maximum(K, 1)
    past = np.sort(memory[:, 0])
    up_to = np.searchsorted(past, K, "right")
    return (up_to - np.searchsorted(past, K, "left")) / np.maximum(up_to, 1)


def _last_batches(K: np.ndarray, N: int, memory: np.ndarray | None, window: int) -> np.ndarray:
    """[M, 2]: the success counts of the M mixed groups of the last batches, and how many batches ago each was."""
    mixed = K[(K > 0) & (K < N)]
    kept = np.zeros((0, 2)) if memory is None else memory[memory[:, 1] < window - 1] + [0, 1]
    return np.concatenate([np.stack([mixed, np.zeros_like(mixed)], axis=1), kept])


_LEARNS_NOTHING = "all weights 0 at K = 0 and K = N; N = 1: learns nothing"

RECENT: Mapping[str, Formula] = {
    "rs_grpo": Formula(
        label="RS-GRPO",
        paper="risk-sensitive, arXiv 2509.24261",
        formula="s = (e^β/M - 1)/β; f = (1/M - 1)/β; M = 1 + (e^β - 1) K/N",
        edges=_LEARNS_NOTHING + "; β -> 0: the mean baseline; β large: 1/β times maxrl_alg1",
        on_success=lambda K, N, beta: (1 - K / N) * _risk(K / N, beta),
        on_failure=lambda K, N, beta: -K / N * _risk(K / N, beta),
        knobs={"beta": Knob(float, 0.001, 20, "β")},
        limit=lambda p, beta: _risk(p, beta),
    ),
    "power": Formula(
        label="Power",
        paper="Tsallis, arXiv 2604.25907; q = 1/2: one-sided GRPO",
        formula="s = (1 - K/N) (K/N)^-q; f = -(K/N)^(1-q), but 0 at K = 0",
        edges=_LEARNS_NOTHING + "; q = 0: the mean baseline; q = 1: maxrl_alg1",
        on_success=lambda K, N, q: (1 - K / N) * (K / N) ** -q,
        on_failure=lambda K, N, q: -np.where(K > 0, (np.maximum(K, 1) / N) ** (1 - q), 0.0),
        knobs={"q": Knob(float, 0, 1, "q", 0.5)},
        limit=lambda p, q: power_of(p, -q),
    ),
    "power_order": Formula(
        label="Power of order T",
        paper="the binomial series of p^-q, docs/objectives.md",
        formula="s = sum_{m<T} C(q+m-1,m) C(N-K,m)/C(N-1,m); f = 0",
        edges="K = 0: no update; K = N: weight 1; q = 0: REINFORCE; q = 1: maxrl_order; N = 1: REINFORCE",
        on_success=lambda K, N, order, q: _power_series(K, N, order, q),
        on_failure=lambda K, N, order, q: np.zeros_like(K),
        knobs={"order": Knob(int, 1, None, "T"), "q": Knob(float, 0, 2, "q", 0.5)},
        closed_form=lambda p, N, order, q: _power_weight(p, order, q),
    ),
    "nsr": Formula(
        label="NSR",
        paper="negative samples alone, arXiv 2506.01347",
        formula="s = 0; f = -1",
        edges="K = 0: pushes all rollouts down; K = N: no update; N = 1: -1 on failure",
        on_success=lambda K, N: np.zeros_like(K),
        on_failure=lambda K, N: -np.ones_like(K),
        order=lambda N: 1,
    ),
    "w_reinforce": Formula(
        label="W-REINFORCE",
        paper="arXiv 2506.01347",
        formula="s = λ; f = -1",
        edges="K = 0: pushes all rollouts down; K = N: weight λ; λ = 0: nsr; N = 1: the same formula",
        on_success=lambda K, N, share: np.full_like(K, share),
        on_failure=lambda K, N, share: -np.ones_like(K),
        knobs={"share": Knob(float, 0, 1, "λ", 0.1)},
        closed_form=lambda p, N, share: np.full_like(p, 1 + share),
    ),
    "maxpo": Formula(
        label="MaxPO",
        paper="leave-two-out pass@k, arXiv 2606.06080",
        formula="s = k (N-K)/(N-1) c; f = -k K/(N-1) c; c = C(N-K-1,k-1)/C(N-2,k-1)",
        edges="all weights 0 at K = 0 and from K = N-k+1 on; k = 1: RLOO; k = N: s(1) = N; N = 1: undefined, refused",
        on_success=_max_success,
        on_failure=_max_failure,
        gap=lambda J, N, k: k * miss(N - 1, J, k - 1),
        knobs={"k": Knob(int, 1, None, "k")},
        closed_form=lambda p, N, k: k * (1 - p) ** (k - 1),
        min_rollouts=2,
    ),
    "log_pass_at_k": Formula(
        label="log pass@k",
        paper="plug-in estimate, docs/objectives.md; related: arXiv 2412.15287",
        formula="maxpo over its pass@k: both weights divided by 1 - C(N-K,k)/C(N,k)",
        edges="all weights 0 at K = 0 and from K = N-k+1 on; k = 1: N/(N-1) maxrl_alg1; N = 1: undefined, refused",
        on_success=lambda K, N, k: _log_pass_at_k(_max_success(K, N, k), K, N, k),
        on_failure=lambda K, N, k: _log_pass_at_k(_max_failure(K, N, k), K, N, k),
        knobs={"k": Knob(int, 1, None, "k")},
        limit=lambda p, k: k * (1 - p) ** (k - 1) * power_of(p * maxrl_weight(p, k), -1),
        min_rollouts=2,
    ),
    "maxrl_clipped": Formula(
        label="MaxRL (clipped)",
        paper="official code of arXiv 2602.02710",
        formula="s = (1 - K/N)/max(K/N, c); f = -(K/N)/max(K/N, c)",
        edges=_LEARNS_NOTHING + "; c = 0, or N c at most 1: maxrl_alg1; c = 1: the mean baseline",
        on_success=lambda K, N, floor: (1 - K / N) / np.maximum(K / N, floor),
        on_failure=lambda K, N, floor: -np.where(K > 0, K / np.maximum(np.maximum(K, 1), N * floor), 0.0),
        knobs={"floor": Knob(float, 0, 1, "c", 0.125)},
        order=lambda N, floor: N - 1 if N * floor <= 1 else None,
        limit=lambda p, floor: power_of(np.maximum(p, floor), -1),
    ),
    "maxrl_order_constant": Formula(
        label="MaxRL-T (baseline 1)",
        paper="official code of arXiv 2602.02710",
        formula="s = s_T(K) - 1, s_T of maxrl_order; f = -1, also at K = 0",
        edges="K = 0: pushes all rollouts down; K = N: weight 0; N = 1: 0 on success, -1 on failure",
        on_success=lambda K, N, order: N / K * hit(N, K, order) - 1,
        on_failure=lambda K, N, order: -np.ones_like(K),
        knobs={"order": Knob(int, 1, None, "T")},
        order=lambda N, order: order,
    ),
    "reinforce_rej": Formula(
        label="Reinforce-Rej",
        paper="arXiv 2504.11343",
        formula="s = 1, but 0 at K = N; f = 0",
        edges="K = 0 and K = N: no update; N = 1: learns nothing",
        on_success=lambda K, N: (K < N).astype(np.float64),
        on_failure=lambda K, N: np.zeros_like(K),
        closed_form=lambda p, N: 1 - p ** (N - 1),
        limit=lambda p: np.ones_like(p),
    ),
    # As the official code has it, but for batches before any mixed group was seen: there it takes the batch itself for
    # its reference, which no weight by an instance's own count can do; here all counts from 1 to N-1 are as likely.
    "curverl": Formula(
        label="CurveRL",
        paper="arXiv 2605.24331",
        formula="s = c (1 - K/N); f = -c K/N; c: of the last t batches' groups with 1 to K successes, the share with K",
        edges="all weights 0 at K = 0 and K = N, and at counts that no group had; no mixed group remembered: c = 1/K,"
        " that is maxrl_alg1 / N; N = 1: learns nothing",
        on_success=lambda K, N, memory, window: (1 - K / N) * _in_reference(K, memory),
        on_failure=lambda K, N, memory, window: -K / N * _in_reference(K, memory),
        knobs={"window": Knob(int, 1, 1000, "t", 10)},
        count_based=False,
        remember=_last_batches,
    ),
    "dapo": Formula(
        label="DAPO",
        paper="dynamic sampling alone, arXiv 2503.14476",
        formula="grpo with ddof 0, over the share of instances in the batch with 0 < K < N",
        edges="all weights 0 at K = 0 and K = N; no mixed instance at all: no update; N = 1: learns nothing",
        on_success=lambda K, N: np.sqrt((N - K) / K),
        on_failure=lambda K, N: -np.sqrt(K / (N - K)),
        count_based=False,
        pooled=lambda K, N: np.mean((K > 0) & (K < N)),
    ),
    "gpg": Formula(
        label="GPG",
        paper="arXiv 2504.02546",
        formula="s = (1 - K/N) B N / (successes of all B instances); f = -K/N times the same",
        edges="all weights 0 at K = 0 and K = N; no success at all: no update; N = 1: learns nothing",
        on_success=lambda K, N: 1 - K / N,
        on_failure=lambda K, N: -K / N,
        count_based=False,
        pooled=lambda K, N: np.mean(K) / N,
    ),
}
