"""Binary rewards in arrays, tensors or lists: their successes counted, their weights put in place. Imports no torch."""

from __future__ import annotations

import sys
from numbers import Real
from typing import Any

import numpy as np

from maxrl_bench.names import shorten

_WANTED = "rewards must be an array, a tensor or nested lists of zeros and ones"


def count_successes(rewards: Any) -> tuple[np.ndarray, int]:
    """The numbers of successes K [B] int64 and of rollouts N, from rewards [B, N] with one row per instance.

    Raises ValueError unless they are two-dimensional zeros and ones, of any numeric or boolean type.
    """
    successful = _successful(rewards)
    return successful.sum(axis=1, dtype=np.int64), successful.shape[1]


def spread(rewards: Any, on_success: np.ndarray, on_failure: np.ndarray) -> Any:
    """Weights [B, N] from rewards [B, N]: on_success [B] where the reward is 1, on_failure [B] where it is 0; a copy.

    A tensor, on the same device, for a tensor; else a numpy array. Of the rewards' type if that is floating point of at
    least 32 bits; of float32 if it is narrower (16 bits cannot hold a weight such as 999); else of numpy's or torch's
    default. Raises ValueError if a weight is beyond that type.
    """
    chosen = np.where(_successful(rewards), on_success[:, None], on_failure[:, None])
    torch = _torch_of(rewards)
    if torch is None:
        floating = getattr(rewards, "dtype", None)
        floating = floating if isinstance(floating, np.dtype) and floating.kind == "f" else np.dtype(np.float64)
        with np.errstate(over="ignore"):
            result: Any = chosen.astype(floating if floating.itemsize >= 4 else np.float32)
        finite = np.isfinite(result)
    else:
        floating = rewards.dtype if rewards.is_floating_point() else torch.get_default_dtype()
        result = torch.from_numpy(chosen).to(floating if floating.itemsize >= 4 else torch.float32)
        finite = result.isfinite().numpy()
        result = result.to(rewards.device)
    beyond = chosen[~finite & np.isfinite(chosen)]
    if beyond.size:
        raise ValueError(f"{result.dtype} cannot hold the weight {beyond[0]:g}; give the rewards as float64")
    return result


def _torch_of(rewards: Any) -> Any:
    """The torch module if the rewards are a tensor (the caller has imported it then), else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(rewards, torch.Tensor) else None


def _successful(rewards: Any) -> np.ndarray:
    """Where the reward is 1: [B, N] bool, on the host. Raises ValueError on rewards other than 0 and 1."""
    values = _as_numpy(rewards)
    if values.ndim == 0 or values.dtype.kind not in "biufO":
        of = f" of type {values.dtype}" if values.ndim else ""
        raise ValueError(f"{_WANTED}, got {type(rewards).__name__}{of}")
    if values.ndim != 2:
        raise ValueError(f"rewards must have shape [instances, rollouts], got {list(values.shape)}")
    if values.dtype.kind == "O":  # numbers of several types, beyond 64 bits, or no numbers at all
        wrong: Any = [value for value in values.flat if not (isinstance(value, Real) and (value == 0 or value == 1))]
    else:
        wrong = values[~((values == 0) | (values == 1))].tolist()
    if wrong:
        first = "NaN" if isinstance(wrong[0], Real) and wrong[0] != wrong[0] else shorten(wrong[0])
        raise ValueError(f"rewards must be exactly 0 or 1, got {first} ({len(wrong)} of {values.size} are neither)")
    return values.astype(bool)


def _as_numpy(rewards: Any) -> np.ndarray:
    """Anything as an array on the host, which may share its memory."""
    try:
        if _torch_of(rewards) is not None:
            if rewards.is_meta or rewards.is_nested or rewards.layout != sys.modules["torch"].strided:
                kind = "meta" if rewards.is_meta else "nested" if rewards.is_nested else "sparse"
                raise ValueError(f"{_WANTED}, got a {kind} tensor")
            host = rewards.detach().cpu()
            return np.asarray((host.double() if host.is_floating_point() else host).resolve_neg().numpy())
        if any(np.ma.is_masked(part) for part in (rewards if isinstance(rewards, list | tuple) else [rewards])):
            raise ValueError(f"{_WANTED}, got masked values")
        return np.asarray(rewards)
    except (TypeError, RuntimeError, OverflowError) as error:
        raise ValueError(f"{_WANTED}, got {type(rewards).__name__}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        if str(error).startswith(_WANTED):
            raise
        raise ValueError(f"{_WANTED}, as many for every instance, got {type(rewards).__name__}") from None
