"""The weight of every rollout, for any training loop: `maxrl_bench.advantages`."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np

from maxrl_bench.names import shorten
from maxrl_bench.objectives import continuous, outside
from maxrl_bench.objectives import rewards as arrays
from maxrl_bench.objectives.formula import Objective
from maxrl_bench.objectives.table import bind, find_row

Rewards = TypeVar("Rewards")  # np.ndarray or torch.Tensor


def advantages(rewards: Rewards, objective: str, *, groups: Any = None, mask: Any = None, **knobs: Any) -> Rewards:
    """The weight a_j of every rollout, for any training loop: maximise mean(advantages * log-probability of a rollout).

    rewards [B, N]: B instances (prompts) in rows, their N rollouts in columns; or flat [R], with `groups` [R], which
    names each rollout's instance, in any order. A torch tensor, a numpy array or nested lists, of floats, integers or
    booleans, which are left as they are. Each reward is 0 or 1, or between them for the objectives that have an
    unbiased form for that (docs/objectives.md, "Partial credit"). Groups may differ in size: each is weighed by its own
    number of rollouts. mask, of the rewards' shape: rollouts that are false take no part, neither counted nor weighed.
    Returns the same shape, without a gradient: a tensor on the same device for a tensor, else a numpy array. Its type
    is that of the rewards if these are floats of at least 32 bits; float32 for narrower ones, which cannot hold the
    weights; for integers and booleans float64, and torch's default for tensors. Computed in float64 without an epsilon.
    Sum log-probabilities over the tokens of a rollout; averaging them biases the gradient.
    Raises ValueError on other rewards, groups and masks, on names and knobs as `bind` does (so where a group is smaller
    than an order), on objectives whose weights need more than rewards, on groups of several sizes where weights depend
    on the whole batch, and where float32 cannot hold a weight.
    """
    row = find_row(objective)
    values = arrays.read(rewards)
    kept = arrays.read_mask(mask, values.shape)
    names: list[Any] = []
    if groups is not None:
        group_of, names = arrays.read_groups(groups, values.shape)
    elif values.ndim == 2:
        group_of = np.repeat(np.arange(values.shape[0]), values.shape[1])
        bind(objective, values.shape[1], **knobs)  # refuses what no group could have, even if there is none
    else:
        shape = list(values.shape)
        raise ValueError(f"rewards must have shape [instances, rollouts], got {shape}; flat ones need groups")
    between = outside.ALIASES.get(objective, objective) in continuous.PARTIAL_CREDIT
    accepting = ", ".join(continuous.PARTIAL_CREDIT)
    arrays.check(values[kept], between, f"; partial credit is taken by {accepting}")

    flat, places = values.ravel(), np.flatnonzero(kept)
    places = places[np.argsort(group_of[places], kind="stable")]  # group by group
    sizes = np.bincount(group_of[places])
    if row.pooled and len(np.unique(sizes[sizes > 0])) > 1:
        raise ValueError(f"objective '{objective}' weighs the whole batch: its groups must be of one size")
    weights = np.zeros(flat.shape)
    starts = np.cumsum(sizes) - sizes
    for size in np.unique(sizes[sizes > 0]):
        members = np.flatnonzero(sizes == size)
        try:
            bound = bind(objective, int(size), **knobs)
        except ValueError as error:
            raise ValueError(f"{error} (group {shorten(names[members[0]])})" if names else str(error)) from None
        if bound.needs:
            raise ValueError(f"objective '{objective}' needs more than rewards: {bound.needs}")
        where = places[starts[members][:, None] + np.arange(size)]  # [groups of this size, size]
        weights[where] = _weigh(bound, flat[where])
    return arrays.like(rewards, weights.reshape(values.shape))


def _weigh(objective: Objective, rewards: np.ndarray) -> np.ndarray:
    """Weights [G, N] of rewards [G, N] in [0, 1]."""
    binary = ((rewards == 0) | (rewards == 1)).all(axis=1)
    weights = np.empty(rewards.shape)
    on_success, on_failure = outside.weights(objective, rewards[binary].sum(axis=1).astype(np.int64))
    weights[binary] = np.where(rewards[binary] == 1, on_success[:, None], on_failure[:, None])
    for i in np.flatnonzero(~binary):
        weights[i] = continuous.weights(objective, rewards[i])
    return weights
