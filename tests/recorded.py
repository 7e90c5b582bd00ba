"""A toy world that keeps what a run asked of it: every rollout and every demonstration, with the policy as it was."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from maxrl_bench import tasks
from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, GraphRollouts, StateGraphs
from maxrl_bench.tasks import CategoricalContexts

NUM_DOORS = 3


@dataclass(frozen=True)
class Use:
    """One use of a batch: by sampling (its rollouts) or by demonstrations (None)."""

    split: str
    indices: tuple[int, ...]
    graphs: StateGraphs
    policy: torch.nn.Module  # a copy of the policy as it was then
    rollouts: GraphRollouts | None


USES: list[Use] = []


@dataclass(frozen=True)
class RecordedGraphs(StateGraphs):
    """A batch that adds what is done with it to USES."""

    split: str = ""
    indices: tuple[int, ...] = ()

    def _record(self, policy: torch.nn.Module, rollouts: GraphRollouts | None) -> None:
        USES.append(Use(self.split, self.indices, self, copy.deepcopy(policy), rollouts))

    def sample(self, policy: Any, num_rollouts: int, rng: np.random.Generator, **options: Any) -> GraphRollouts:
        rollouts = super().sample(policy, num_rollouts, rng, **options)
        self._record(policy, rollouts)
        return rollouts

    def demonstration_loss(self, policy: Any) -> torch.Tensor:
        self._record(policy, None)
        return super().demonstration_loss(policy)


class Rooms:
    """One to three rooms in a row, three doors each, of which one leads on; the wall says which. Failures end early."""

    family = "toy"
    horizon = 3
    num_actions = NUM_DOORS
    exact = True
    name = "rooms"
    contexts = CategoricalContexts((NUM_DOORS, 3, 5))

    def batch(self, split: str, indices: Sequence[int]) -> RecordedGraphs:
        drawn = [
            tasks.draw_instance("rooms", split, i, lambda rng: rng.integers(0, [3, 3, 3, 3, 5]), lambda x: x.tobytes())
            for i in indices
        ]
        lengths = [1 + int(x[0]) for x in drawn]
        first = np.cumsum([0, *lengths[:-1]])
        observations, index = np.unique(
            [[x[1 + room], room, x[4]] for x, length in zip(drawn, lengths, strict=True) for room in range(length)],
            axis=0,
            return_inverse=True,
        )
        successor = np.full((sum(lengths), NUM_DOORS), FAILURE)
        for x, start, length in zip(drawn, first, lengths, strict=True):
            for room in range(length):
                successor[start + room, x[1 + room]] = start + room + 1 if room + 1 < length else SUCCESS
        return RecordedGraphs(
            observations=torch.from_numpy(observations),
            observation_of=index.reshape(-1),
            successor=successor,
            start=first,
            horizon=self.horizon,
            split=split,
            indices=tuple(indices),
        )

    def render(self, split: str, index: int, actions: Any) -> str:
        return f"{split} {index} {list(actions)}"


class SampledRooms(Rooms):
    """The same without exact pass rates."""

    name = "sampled-rooms"
    exact = False
