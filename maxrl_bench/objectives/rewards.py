"""Rewards in arrays, tensors or lists, read as numbers; their weights as the same kind of thing. Imports no torch."""

from __future__ import annotations

import sys
from collections.abc import Hashable
from numbers import Real
from typing import Any

import numpy as np

from maxrl_bench.names import shorten

_WANTED = "rewards must be an array, a tensor or nested lists of zeros and ones"


def read(rewards: Any) -> np.ndarray:
    """The rewards as float64 on the host, of any shape. Raises ValueError on what is no array of real numbers."""
    values = _as_numpy(rewards)
    if values.ndim == 0 or values.dtype.kind not in "biufO":
        of = f" of type {values.dtype}" if values.ndim else ""
        raise ValueError(f"{_WANTED}, got {type(rewards).__name__}{of}")
    if values.dtype.kind == "O":  # numbers of several types, beyond 64 bits, or no numbers at all
        wrong = [value for value in values.flat if not (isinstance(value, Real) and value <= 1 and not value < 0)]
        if wrong:
            raise ValueError(_neither(shorten(wrong[0]), len(wrong), values))
    return values.astype(np.float64)


def check(values: np.ndarray, between: bool, hint: str) -> None:
    """Raises ValueError unless all values are 0 or 1, or in `between` them where that is allowed; `hint` ends it."""
    wrong = values[~((values >= 0) & (values <= 1)) if between else ~((values == 0) | (values == 1))]
    if wrong.size:
        value = wrong[0].item()
        first = "NaN" if value != value else shorten(int(value) if value.is_integer() else value)
        if between:
            raise ValueError(f"rewards must lie in [0, 1], got {first} ({wrong.size} of {values.size} do not)")
        raise ValueError(_neither(first, wrong.size, values) + hint)


def _neither(first: str, wrong: int, values: np.ndarray) -> str:
    return f"rewards must be exactly 0 or 1, got {first} ({wrong} of {values.size} are neither)"


def read_groups(groups: Any, shape: tuple[int, ...]) -> tuple[np.ndarray, list[Hashable]]:
    """For each rollout [R] the number of its group, and the groups' own names in the order in which they come.

    groups: a name for each rollout: a list, an array or a tensor of texts or numbers. Raises ValueError on another
    shape than that of the rewards, which must be flat, and on what cannot name a group.
    """
    names = groups.tolist() if hasattr(groups, "tolist") else groups
    if isinstance(names, str) or not isinstance(names, list | tuple):
        raise ValueError(f"groups must be a list, an array or a tensor of names, got {type(groups).__name__}")
    if shape != (len(names),):
        raise ValueError(f"groups must name the group of each reward of a flat list: {len(names)} for {list(shape)}")
    numbers: dict[Hashable, int] = {}
    try:
        return np.array([numbers.setdefault(name, len(numbers)) for name in names], np.int64), list(numbers)
    except TypeError:
        raise ValueError("groups must be texts or numbers, one for each reward") from None


def read_mask(mask: Any, shape: tuple[int, ...]) -> np.ndarray:
    """Which rollouts count: bool, of the rewards' shape. Raises ValueError on anything but that many zeros and ones."""
    kept = _as_numpy(mask) if mask is not None else np.ones(shape, bool)
    if kept.shape != shape or kept.dtype.kind not in "biuf" or not ((kept == 0) | (kept == 1)).all():
        raise ValueError(f"mask must hold true or false for each reward, in shape {list(shape)}")
    return kept.astype(bool)


def like(rewards: Any, weights: np.ndarray) -> Any:
    """Weights float64 as what the rewards are: a tensor, on the same device, for a tensor; else a numpy array.

    Of the rewards' type if that is floating point of at least 32 bits; of float32 if it is narrower (16 bits cannot
    hold a weight such as 999); else of numpy's or torch's default. Raises ValueError if a weight is beyond that type.
    """
    torch = _torch_of(rewards)
    if torch is None:
        floating = getattr(rewards, "dtype", None)
        floating = floating if isinstance(floating, np.dtype) and floating.kind == "f" else np.dtype(np.float64)
        with np.errstate(over="ignore"):
            result: Any = weights.astype(floating if floating.itemsize >= 4 else np.float32)
        finite = np.isfinite(result)
    else:
        floating = rewards.dtype if rewards.is_floating_point() else torch.get_default_dtype()
        result = torch.from_numpy(weights).to(floating if floating.itemsize >= 4 else torch.float32)
        finite = result.isfinite().numpy()
        result = result.to(rewards.device)
    beyond = weights[~finite & np.isfinite(weights)]
    if beyond.size:
        raise ValueError(f"{result.dtype} cannot hold the weight {beyond[0]:g}; give the rewards as float64")
    return result


def _torch_of(rewards: Any) -> Any:
    """The torch module if the rewards are a tensor (the caller has imported it then), else None."""
    torch = sys.modules.get("torch")
    return torch if torch is not None and isinstance(rewards, torch.Tensor) else None


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
