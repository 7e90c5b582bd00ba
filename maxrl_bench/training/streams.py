"""The random numbers and the instances that a run uses, as functions of its configuration alone."""

from __future__ import annotations

import hashlib

import numpy as np

from maxrl_bench.config import RunConfig

# Where in the train split each use of instances begins, so that runs with different seeds have no index in common.
_SEED_STRIDE = 2**40
_WARM_START_OFFSET = 2**39


def random_stream(seed: int, use: str) -> np.random.Generator:
    """The generator for one use of randomness ("rollouts", "policy", ...) in runs with this seed."""
    words = np.frombuffer(hashlib.blake2b(use.encode(), digest_size=16).digest(), np.uint32)
    return np.random.default_rng([seed, *words.tolist()])


def training_indices(config: RunConfig, step: int) -> list[int]:
    """Which train instances step `step` (from 0) uses: [batch_size] indices, the same for every objective.

    Data-rich (train_instances = 0): new instances at every step. Data-scarce: each epoch goes through a fixed set in a
    new order, and a batch at the end of an epoch continues in the next one.
    """
    first, size = step * config.batch_size, config.train_instances
    positions = range(first, first + config.batch_size)
    if not size:
        return [config.seed * _SEED_STRIDE + i for i in positions]
    epochs = {
        epoch: random_stream(config.seed, f"epoch {epoch}").permutation(size)
        for epoch in range(positions[0] // size, positions[-1] // size + 1)
    }
    return [config.seed * _SEED_STRIDE + int(epochs[i // size][i % size]) for i in positions]


def warm_start_indices(config: RunConfig, step: int) -> range:
    """Which train instances step `step` of the warm start demonstrates; no step of a data-rich run uses them."""
    first = config.seed * _SEED_STRIDE + _WARM_START_OFFSET + step * config.warm_start_batch_size
    return range(first, first + config.warm_start_batch_size)
