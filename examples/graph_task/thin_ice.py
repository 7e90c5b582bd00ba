"""Thin ice: cross a square lake to the far corner without falling through. A world of states; exact pass rates."""

from collections.abc import Sequence

import numpy as np
import torch

from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.tasks import CategoricalContexts, check_actions, check_indices, draw_instance

MOVES = np.array([(-1, 0), (0, 1), (1, 0), (0, -1)])  # up, right, down, left
ARROWS = "^>v<"


class ThinIce:
    """Lakes of `size` x `size` fields, 3 to 12, a fifth of them thin. An action is a move, an index into MOVES.

    The policy sees where it stands, and which of the four fields around are thin (or no field at all). A rollout
    begins in the upper left corner, succeeds in the lower right one, and fails on thin ice.
    """

    family, exact, num_actions = "thin-ice", True, len(MOVES)
    recipe = {"warm_start_steps": 20, "steps": 100}  # settings of runs on this task, unless others are given

    def __init__(self, size: int = 6):
        if type(size) is not int or not 3 <= size <= 12:
            raise ValueError(f"option 'size' must be a whole number from 3 to 12, got {size!r}")
        self.name, self.size, self.horizon = f"thin-ice-{size}", size, 4 * size
        self.contexts = CategoricalContexts((size, size, 2, 2, 2, 2))
        fields = np.stack(np.divmod(np.arange(size * size), size), axis=1)
        target = fields[:, None] + MOVES  # [S, A, 2]
        self._on_lake = ((target >= 0) & (target < size)).all(2)
        self._target = np.where(self._on_lake, target @ [size, 1], np.arange(size * size)[:, None])
        self._fields = fields

    def _propose(self, rng: np.random.Generator) -> np.ndarray:
        """Thin fields [S] of a lake that can be crossed."""
        while True:
            thin = rng.random(self.size**2) < 0.2
            thin[[0, -1]] = False
            try:
                _ = self._graphs(thin[None]).demonstrations
            except ValueError:  # no way across within the horizon
                continue
            return thin

    def _lakes(self, split: str, indices: Sequence[int]) -> np.ndarray:
        space = f"thin-ice {self.size}"  # `draw_instance` decides the split by content: splits cannot overlap
        drawn = (self._propose, np.ndarray.tobytes)
        return np.array([draw_instance(space, split, index, *drawn) for index in check_indices(indices)])

    def _graphs(self, thin: np.ndarray) -> StateGraphs:
        """The lakes [B, S] as one graph of B * S states, field by field."""
        count, fields = thin.shape
        falls = thin[:, self._target]  # [B, S, A]
        first = fields * np.arange(count)[:, None, None]  # the state of each lake's first field
        successor = np.where(falls, FAILURE, first + self._target)
        successor = np.where(~falls & (self._target == fields - 1), SUCCESS, successor)
        danger = falls | ~self._on_lake
        place = np.broadcast_to(self._fields, (count, fields, 2))
        seen = np.concatenate([place, danger], axis=2).reshape(count * fields, -1)
        observations, observation_of = np.unique(seen, axis=0, return_inverse=True)
        return StateGraphs(
            observations=torch.from_numpy(observations),
            observation_of=observation_of.reshape(-1),
            successor=successor.reshape(count * fields, -1),
            start=first.reshape(-1),
            horizon=self.horizon,
        )

    def batch(self, split: str, indices: Sequence[int]) -> StateGraphs:
        return self._graphs(self._lakes(split, indices))

    def render(self, split: str, index: int, actions: Sequence[int]) -> str:
        thin, field = self._lakes(split, [index])[0], 0
        shown = np.where(thin, "~", ".")
        for action in check_actions(actions, self.num_actions):
            shown[field] = ARROWS[action]
            field = self._target[field, action]
            if thin[field] or field == self.size**2 - 1:
                break
        shown[field] = "x" if thin[field] else "@"
        return "\n".join("".join(row) for row in shown.reshape(self.size, self.size))
