"""Checkpoints and policies as bytes. Reading them runs none of their code."""

from __future__ import annotations

import io
from typing import Any

import torch

from maxrl_bench.rollouts import finite


def pack(state: dict[str, Any]) -> bytes:
    """Tensors and plain values as bytes."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    return buffer.getvalue()


def unpack(data: bytes) -> dict[str, Any]:
    """The inverse of `pack`, on the CPU. Raises ValueError on anything else."""
    try:
        # weights_only refuses anything but tensors and plain values: a foreign file cannot run code.
        state = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except MemoryError:
        raise
    except Exception as error:  # torch and pickle raise errors of nearly any type on foreign bytes
        raise ValueError("it is not a file of torch's tensors and plain values") from error
    if not isinstance(state, dict):
        raise ValueError(f"it holds a {type(state).__name__}, not a table")
    return state


def load_policy(policy: torch.nn.Module, state: Any) -> None:
    """Put stored parameters into a policy. Raises ValueError, and changes nothing, if they are not this policy's."""
    own = policy.state_dict()
    if not isinstance(state, dict) or not all(isinstance(tensor, torch.Tensor) for tensor in state.values()):
        raise ValueError("it holds no policy")
    for name in [*own, *(name for name in state if name not in own)]:
        if name not in state or name not in own:
            raise ValueError(f"its parameter '{name}' is {'missing' if name in own else 'not of this policy'}")
        if own[name].shape != state[name].shape or own[name].dtype != state[name].dtype:
            raise ValueError(f"its parameter '{name}' is {_kind(state[name])}, not {_kind(own[name])}")
    try:
        finite.check_tensors({k: v for k, v in state.items() if v.is_floating_point()}, "its parameter")
    except FloatingPointError as error:
        raise ValueError(str(error)) from None
    policy.load_state_dict(state)


def _kind(tensor: torch.Tensor) -> str:
    return f"{list(tensor.shape)} {str(tensor.dtype).removeprefix('torch.')}"
