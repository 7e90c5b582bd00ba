"""Stops a run at the first number that is not finite, and says which it was.

A run that goes on after one looks trained and is not: an infinite gradient norm scales every update to zero, and a draw
from probabilities that are NaN takes the first action.
"""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Mapping

import numpy as np
import torch
from torch import Tensor
from torch.nn.utils import clip_grads_with_norm_, get_total_norm


@contextlib.contextmanager
def stage(name: str) -> Iterator[None]:
    """A context in which the message of every FloatingPointError begins with the stage ("step 12")."""
    try:
        yield
    except FloatingPointError as error:
        raise FloatingPointError(f"{name}: {error}") from None


def check_value(value: float | Tensor, what: str) -> None:
    """Raises FloatingPointError that names `what`, if it is NaN or infinite."""
    number = float(value)
    if not math.isfinite(number):
        raise FloatingPointError(f"{what} became {number}")


def check_weights(weights: np.ndarray, what: str) -> None:
    """Raises FloatingPointError that names `what`, if one of the numbers is NaN or infinite."""
    if not np.isfinite(weights).all():
        raise FloatingPointError(f"{what} became {weights[~np.isfinite(weights)].flat[0]}")


@torch.no_grad()
def check_tensors(named: Mapping[str, Tensor], what: str) -> None:
    """Raises FloatingPointError that names the first tensor with a number that is NaN or infinite."""
    # One sum for all costs less than 1 % of a step. It loses no NaN and no infinity; where it overflows, the search
    # below finds nothing.
    if not named or math.isfinite(float(torch.stack([tensor.sum() for tensor in named.values()]).sum())):
        return
    for name, tensor in named.items():
        bad = tensor[~torch.isfinite(tensor)]
        if len(bad):
            raise FloatingPointError(f"{what} '{name}' became {bad[0].item()} in {len(bad)} of {tensor.numel()} places")


def clip_gradient(parameters: Mapping[str, Tensor], limit: float) -> float:
    """Scale the parameters' gradients down to a common norm of `limit`, if they exceed it; returns the norm before.

    Raises FloatingPointError, before anything is scaled, if the norm is not finite: scaling would leave zeros or NaN.
    """
    gradients = {name: parameter.grad for name, parameter in parameters.items() if parameter.grad is not None}
    total = get_total_norm(list(gradients.values()))
    norm = float(total)
    if not math.isfinite(norm):
        check_tensors(gradients, "the gradient of parameter")
        largest = max(gradients, key=lambda name: float(gradients[name].abs().max()))
        raise FloatingPointError(f"the norm of the gradient overflowed; it is largest in parameter '{largest}'")
    clip_grads_with_norm_(parameters.values(), limit, total)
    return norm


def probabilities(log_probs: np.ndarray) -> np.ndarray:
    """Probabilities [M, A], normalised, from log-probabilities [M, A] float64.

    Raises FloatingPointError if one is not finite: a random draw would silently take the first action.
    """
    with np.errstate(over="ignore", invalid="ignore"):  # NaN and infinity are reported below
        probs = np.exp(log_probs)
        probs /= probs.sum(1, keepdims=True)
    # A sum is finite exactly if all its terms are: these lie between 0 and 1.
    if not math.isfinite(float(probs.sum())):
        rows = int((~np.isfinite(probs)).any(1).sum())
        raise FloatingPointError(f"the policy's probabilities became nan in {rows} of {len(probs)} contexts")
    return probs
