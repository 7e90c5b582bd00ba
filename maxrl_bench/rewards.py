"""Groups of binary rewards, numpy arrays or torch tensors: counted, and weighted again. Torch is not imported here."""

from __future__ import annotations

from typing import Any

import numpy as np


def count_successes(rewards: Any) -> tuple[np.ndarray, int]:
    """(K [B] int64, N) of rewards [B, N], one row per instance.

    Raises ValueError unless they are a two-dimensional floating-point array or tensor of zeros and ones.
    """
    values, floating = _as_numpy(rewards)
    if values.ndim != 2:
        raise ValueError(f"rewards must have shape [instances, rollouts], got {list(values.shape)}")
    if not floating:
        raise ValueError(f"rewards must be floating point (the advantages take their dtype), got {rewards.dtype}")
    wrong = values[~((values == 0) | (values == 1))]
    if wrong.size:
        kind = "NaN" if np.isnan(wrong[0]) else f"{wrong[0]:g}"
        raise ValueError(f"rewards must be exactly 0 or 1, got {kind} ({wrong.size} of {values.size} are neither)")
    return values.astype(np.int64).sum(axis=1), values.shape[1]


def spread(rewards: Any, on_success: np.ndarray, on_failure: np.ndarray) -> Any:
    """[B, N]: on_success [B] where the reward is 1 and on_failure [B] where it is 0, like `rewards` in all else."""
    values, _ = _as_numpy(rewards)
    chosen = np.where(values == 1, on_success[:, None], on_failure[:, None])
    if isinstance(rewards, np.ndarray):
        return chosen.astype(rewards.dtype)
    cpu = rewards.detach().cpu().double()  # torch's own conversions reach every dtype and device from here
    return cpu.copy_(cpu.new_tensor(chosen)).to(dtype=rewards.dtype, device=rewards.device)


def _as_numpy(rewards: Any) -> tuple[np.ndarray, bool]:
    """The rewards in float64 on the host, and whether they were floating point."""
    if isinstance(rewards, np.ndarray):
        floating = rewards.dtype.kind == "f"
        return rewards.astype(np.float64) if floating else rewards, floating
    if type(rewards).__module__.split(".")[0] == "torch":
        floating = rewards.is_floating_point()
        host = rewards.detach().cpu()
        return (host.double() if floating else host).numpy(), floating
    raise ValueError(f"rewards must be a numpy array or a torch tensor, got {type(rewards).__name__}")
