"""A task under test."""

from __future__ import annotations

import functools
import unittest
from collections.abc import Callable
from dataclasses import dataclass

from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.rollouts.tokens import TokenBatch
from maxrl_bench.tasks import SPLITS, Batch, Task


@dataclass(frozen=True)
class Subject:
    """A task under test: how it is made, anew each time, and how thoroughly it is looked at.

    splits: those that are looked at; instances: how many of each; rollouts: how many of an instance are sampled, under
    the policy of each of `stages` points of learning.
    """

    make: Callable[[], Task]
    splits: tuple[str, ...] = SPLITS
    instances: int = 24
    rollouts: int = 2_000
    stages: int = 5

    @functools.cached_property
    def task(self) -> Task:
        """The task, made once."""
        return self.make()

    @functools.cached_property
    def batch(self) -> Callable[[str, int], Batch]:
        """The first instances of a split, by the split and their number; each batch is made once."""
        return functools.cache(lambda split, count: self.task.batch(split, range(count)))

    def known(self, split: str, count: int) -> TokenBatch | StateGraphs:
        """The same, of a kind whose inside is known. Raises unittest.SkipTest on any other."""
        batch = self.batch(split, count)
        if not isinstance(batch, TokenBatch | StateGraphs):
            raise unittest.SkipTest(f"a {type(batch).__name__} can only be sampled")
        return batch
