"""A training loop by the book, to compare runs with: advantages from single rewards, Adam, a bound on the norm."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch


def grpo(r: np.ndarray) -> np.ndarray:
    spread = r.std(axis=1, keepdims=True)
    return np.where(spread > 0, (r - r.mean(axis=1, keepdims=True)) / np.where(spread > 0, spread, 1), 0.0)


def over_mean(r: np.ndarray) -> np.ndarray:
    """The inverse of each row's mean reward; 0 where there is none."""
    mean = r.mean(axis=1, keepdims=True)
    return np.where(mean > 0, 1 / np.where(mean > 0, mean, 1), 0.0)


# Rewards [B, N] of 0 and 1 -> the advantage of every rollout, as the papers write it.
ADVANTAGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "reinforce": lambda r: r,
    "mean_baseline": lambda r: r - r.mean(axis=1, keepdims=True),
    "rloo": lambda r: r - (r.sum(axis=1, keepdims=True) - r) / (r.shape[1] - 1),
    "grpo": grpo,
    "maxrl_eq9": lambda r: r * over_mean(r),
    "maxrl_eq10": lambda r: r * over_mean(r) - 1,
    "maxrl_alg1": lambda r: (r - r.mean(axis=1, keepdims=True)) * over_mean(r),
    "raft": lambda r: r / max(r.mean(), 1 / r.size),
    "grpo_entropy": grpo,
    "differential_smoothing": grpo,
}
KNOBS = {"grpo_entropy": {"coefficient": 0.3}, "differential_smoothing": {"gamma": 0.4}}


def gradient(value: torch.Tensor, policy: torch.nn.Module) -> torch.Tensor:
    """One vector [P]."""
    if not value.requires_grad:
        return torch.cat([torch.zeros_like(p).flatten() for p in policy.parameters()])
    gradients = torch.autograd.grad(value, list(policy.parameters()), allow_unused=True)
    return torch.cat(
        [
            (torch.zeros_like(p) if g is None else g).flatten()
            for p, g in zip(policy.parameters(), gradients, strict=True)
        ]
    )


class Adam:
    """Kingma and Ba 2015, algorithm 1, as an ascent on all parameters, with the gradient's norm bounded before."""

    def __init__(self, policy: torch.nn.Module, rate: float, bound: float):
        self.policy, self.rate, self.bound = policy, rate, bound
        size = sum(p.numel() for p in policy.parameters())
        self.first, self.second, self.steps = torch.zeros(size).double(), torch.zeros(size).double(), 0

    @torch.no_grad()
    def ascend(self, gradient: torch.Tensor) -> float:
        """One step; returns the norm before it is bounded."""
        norm = float(gradient.norm())
        gradient = gradient * min(1.0, self.bound / (norm + 1e-6))  # as torch bounds it
        self.steps += 1
        self.first = 0.9 * self.first + 0.1 * gradient
        self.second = 0.999 * self.second + 0.001 * gradient**2
        mean, square = self.first / (1 - 0.9**self.steps), self.second / (1 - 0.999**self.steps)
        change = self.rate * mean / (square.sqrt() + 1e-8)
        for parameter, part in zip(
            self.policy.parameters(), change.split([p.numel() for p in self.policy.parameters()]), strict=True
        ):
            parameter += part.view_as(parameter)
        return norm


def flat(policy: torch.nn.Module) -> np.ndarray:
    return torch.cat([p.detach().flatten() for p in policy.parameters()]).numpy()
