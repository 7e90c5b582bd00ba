"""From simulated MiniGrid levels to the graph of their reachable states, and the length of the shortest solution."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch

from envs.minigrid_simulator import ACTIONS, CLOSED, DOOR, EMPTY, GOAL, KEY, OPEN, RUNNING, Level, Levels
from maxrl_bench.graphs import StateGraphs

MAX_STATES = 100_000  # of one level: beyond, a graph takes longer to compile than to train on


def compile_graphs(levels: Levels, horizon: int) -> StateGraphs:
    """All states that the levels' starts lead to, with every action from each; waves of a breadth-first search.

    Raises ValueError if a level has more than MAX_STATES of them.
    """
    starts = levels.starts()
    numbering = _Numbering(levels)
    index = np.full(numbering.size, -1, np.int64)
    # Where nothing but the agent moves, all its poses can be expanded at once; the search is then one wave.
    wave = starts if numbering.changing else np.concatenate([starts, _all_poses(levels)])
    codes, first = np.unique(numbering.encode(wave), return_index=True)
    wave = wave[first]
    index[codes] = np.arange(len(codes))
    found, successors, total = [wave], [], len(wave)
    actions = np.arange(len(ACTIONS))
    while len(wave):
        following, outcome = levels.step(np.repeat(wave, len(actions), 0), np.tile(actions, len(wave)))
        codes = numbering.encode(following)
        runs = outcome == RUNNING
        fresh = np.flatnonzero(runs & (index[codes] < 0))
        new_codes, first = np.unique(codes[fresh], return_index=True)
        index[new_codes] = total + np.arange(len(new_codes))
        total += len(new_codes)
        if total > MAX_STATES * len(starts):
            raise ValueError(f"levels of this size have more than {MAX_STATES} states; choose a smaller size")
        successors.append(np.where(runs, index[codes], outcome))
        wave = following[fresh[first]]
        found.append(wave)
    observations, observation_of = distinct_rows(levels.observe(np.concatenate(found)))
    return StateGraphs(
        observations=torch.from_numpy(observations.astype(np.int64)),
        observation_of=observation_of,
        successor=np.concatenate(successors).reshape(-1, len(actions)),
        start=index[numbering.encode(starts)],
        horizon=horizon,
    )


class _Numbering:
    """States as integers: level, cell, direction, key and doors as the digits of a number of mixed radix."""

    def __init__(self, levels: Levels):
        keys = 1 if levels.keys is None else levels.num_cells + 1
        radices = [levels.num_cells, 4, keys, *[3] * levels.doors.shape[1]]
        self.changing = len(radices) > 3 or keys > 1
        self.weights = np.cumprod([1, *radices[:0:-1]])[::-1]
        self.weights = np.r_[self.weights[0] * radices[0], self.weights]
        self.size = int(self.weights[0]) * len(levels.levels)
        self.offset = 0 if keys > 1 else int(self.weights[3])  # an absent key is -1

    def encode(self, states: np.ndarray) -> np.ndarray:
        return states @ self.weights + self.offset


def _all_poses(levels: Levels) -> np.ndarray:
    level, cell = np.nonzero(levels.fixed == EMPTY)
    pose = np.column_stack([level, cell, np.zeros_like(cell), np.full_like(cell, -1)])
    return np.concatenate([pose + np.array([0, 0, direction, 0]) for direction in range(4)])


def distinct_rows(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct rows [O, F] of small integers [M, F], and which of them each row is [M].

    By 64-bit fingerprints, which sort ten times faster than rows; a clash of fingerprints is seen and resolved.
    """
    multipliers = np.random.Generator(np.random.SFC64(0)).integers(1, 2**63, rows.shape[1], dtype=np.uint64)
    _, first, index = np.unique(rows.astype(np.uint64) @ multipliers, return_index=True, return_inverse=True)
    if (rows[first][index] == rows).all():
        return rows[first], index
    distinct, index = np.unique(rows, axis=0, return_inverse=True)
    return distinct, index.reshape(-1)


def shortest_solution(level: Level, limit: int, *, open_to_win: bool = False) -> int | None:
    """The fewest actions that solve a level, or None if they are more than `limit`.

    A breadth-first search in which the set of reachable poses is one bit per cell in a Python integer, per direction,
    with the key in hand and without. A closed door costs one more action, as a shortest solution passes it once.
    """
    height = level.cells.shape[1]

    def where(mask: np.ndarray) -> int:
        return sum(1 << int(cell) for cell in np.flatnonzero(mask))

    codes = level.cells.reshape(-1).astype(np.int64)
    state = np.where((codes >= DOOR) & (codes < KEY), (codes - DOOR) % 3, -1)
    goal, key = where(codes == GOAL), where(codes >= KEY)
    free = where((codes == EMPTY) | (codes == GOAL) | (state == OPEN))
    doors = [where(state == CLOSED), where(state >= CLOSED)]  # those that open: without the key, and with it
    walkable = [free, free | key]

    def ahead(poses: int, direction: int) -> int:
        return (poses << height, poses << 1, poses >> height, poses >> 1)[direction]

    faces_key = [ahead(key, (direction + 2) % 4) for direction in range(4)]
    faces_lock = [ahead(where(state > CLOSED), (direction + 2) % 4) for direction in range(4)]
    poses = [[0] * 4, [0] * 4]
    poses[0][level.direction] = 1 << (level.x * height + level.y)
    before = [[0] * 4, [0] * 4]
    for actions in range(1, limit + 1):
        if open_to_win and any(p & f for p, f in zip(poses[1], faces_lock, strict=True)):
            return actions
        following = [
            [
                here[d] | here[d - 1] | here[d - 3] | (ahead(here[d], d) & walkable[k]) | (ahead(last[d], d) & doors[k])
                for d in range(4)
            ]
            for k, (here, last) in enumerate(zip(poses, before, strict=True))
        ]
        following[1] = [f | (p & face) for f, p, face in zip(following[1], poses[0], faces_key, strict=True)]
        if any(p & goal for p in _both(following)):
            return actions
        before, poses = poses, following
    return None


def _both(poses: list[list[int]]) -> Iterable[int]:
    return (p for layer in poses for p in layer)
