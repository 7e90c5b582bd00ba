"""Measurements of an evaluation: pass@k over instances, and comparisons of gradients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.storage.columns import PASS_AT_K


def pass_at_k_row(pass_rates: np.ndarray, n: int) -> dict[str, float]:
    """Mean pass@k over instances, as the columns "pass@k" of the metrics table.

    pass_rates [B]: exact if n = 0, else from n rollouts, which give no pass@k beyond k = n.
    """
    ks = (k for k in PASS_AT_K if n == 0 or k <= n)
    return {f"pass@{k}": float(np.mean(pass_at_k(pass_rates, n, k))) for k in ks}


def share_of_harder_half(norms: np.ndarray, pass_rates: np.ndarray) -> float:
    """The share of the sum of gradient norms [B] that the half of the instances with the lower pass rates [B] has.

    Among instances whose norm was measured (is not NaN). NaN if none was, or all norms are zero.
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
