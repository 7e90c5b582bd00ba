"""What an evaluation reports: pass@k, exactly or from samples, and comparisons of gradients."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch

from maxrl_bench.columns import PASS_AT_K as PASS_AT_K


def pass_at_k_exact(pass_rates: np.ndarray, k: int) -> np.ndarray:
    """1 - (1 - p)^k: the chance that at least one of k rollouts succeeds, given the exact pass rates [B] -> [B].

    Computed as -expm1(k log1p(-p)), which keeps its precision where p is far below 1/k.
    """
    p = np.minimum(np.asarray(pass_rates, np.float64), 1.0)  # a sum of probabilities can end an ulp above 1
    with np.errstate(divide="ignore"):  # p = 1 goes through log 0 = -inf and comes out as exactly 1
        return -np.expm1(k * np.log1p(-p))


def pass_at_k_unbiased(successes: np.ndarray, num_rollouts: int, k: int) -> np.ndarray:
    """Unbiased estimate of pass@k from c successes in n rollouts, 1 - C(n-c, k) / C(n, k): [B] -> [B].

    Raises ValueError if k > n, where no unbiased estimate exists. Source: Chen et al. 2021 (arXiv 2107.03374), eq. 1.
    """
    if not 1 <= k <= num_rollouts:
        raise ValueError(f"pass@{k} cannot be estimated without bias from {num_rollouts} rollouts; k must be 1 to n")
    c = np.asarray(successes, np.float64)[:, None]
    drawn = np.arange(k)
    # C(n-c, k) / C(n, k) = prod_i (n-c-i) / (n-i), which is 0 as soon as a factor is.
    return 1 - np.prod(np.clip(num_rollouts - c - drawn, 0, None) / (num_rollouts - drawn), axis=1)


def pass_at_k_row(per_k: Iterable[tuple[int, np.ndarray]]) -> dict[str, float]:
    """Mean over instances, as the columns "pass@k" of the metrics table."""
    return {f"pass@{k}": float(np.mean(values)) for k, values in per_k}


def share_of_harder_half(norms: np.ndarray, pass_rates: np.ndarray) -> float:
    """What share of the gradient norms [B] falls on the half of the instances with the lower pass rates [B].

    Of the instances whose norm was measured (is not NaN); NaN where none was, or where all are zero.
    """
    measured = np.flatnonzero(~np.isnan(norms))
    total = float(norms[measured].sum())
    if not total > 0:
        return float("nan")
    hardest_first = measured[np.argsort(pass_rates[measured], kind="stable")]
    return float(norms[hardest_first[: len(measured) // 2]].sum()) / total


def flat_gradient(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """The gradients of all parameters as one vector [P]; a parameter without gradient counts as zeros."""
    return torch.cat([(p.grad if p.grad is not None else torch.zeros_like(p)).flatten() for p in parameters])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of the angle between two gradient vectors; NaN where one of them is zero."""
    norm = float(a.norm()) * float(b.norm())
    return float(a @ b) / norm if norm > 0 else float("nan")
