"""Measurements of an evaluation: pass@k over instances, and comparisons of gradients."""

from __future__ import annotations

from collections.abc import Iterable

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


def harder_half(pass_rates: np.ndarray) -> np.ndarray:
    """Which instances are the half with the lower pass rates [B]: [B] bool; of equal ones the first."""
    hard = np.zeros(len(pass_rates), bool)
    hard[np.argsort(pass_rates, kind="stable")[: len(pass_rates) // 2]] = True
    return hard


def flat(gradients: Iterable[torch.Tensor]) -> torch.Tensor:
    """The gradients of all parameters as one vector [P]."""
    return torch.cat([gradient.flatten() for gradient in gradients])


def cosine(a: torch.Tensor, b: torch.Tensor) -> float:
    """Cosine of the angle between two gradient vectors; NaN where one of them is zero."""
    norm = float(a.norm()) * float(b.norm())
    return float(a @ b) / norm if norm > 0 else float("nan")
