"""From simulated MiniGrid levels to the graph of their reachable states, and the length of the shortest solution."""

from __future__ import annotations

from operator import and_

import numpy as np
import torch

from envs.minigrid_simulator import ACTIONS, CLOSED, DOOR, EMPTY, GOAL, KEY, OPEN, RUNNING, Level, Levels
from maxrl_bench.rollouts.graphs import StateGraphs

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
    waves, successors, total = [wave], [], len(wave)
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
        waves.append(wave)
    observations, observation_of = distinct_rows(levels.observe(np.concatenate(waves)))
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
    without the key and, where there is one, with it. A closed door costs one more action, as a shortest solution passes
    it once.
    """
    codes = level.cells.reshape(-1).astype(np.int64)
    is_door = (codes >= DOOR) & (codes < KEY)
    state = np.where(is_door, (codes - DOOR) % 3, -1)
    goal, key, locked = _bits(codes == GOAL), _bits(codes >= KEY), _bits(state > CLOSED)
    free = _bits((codes == EMPTY) | (codes == GOAL) | (state == OPEN))
    # A pose to the east lies `height` bits higher, one to the south one bit; west and north shift the other way.
    height = level.cells.shape[1]
    east_to_north = ((height, 0), (1, 0), (0, height), (0, 1))
    # Per load (none, key): the cells that can be entered at once, and the doors that open.
    passages = [(free, _bits(state == CLOSED))]
    if key:
        passages.append((free | key, _bits(state >= CLOSED)))
    facing_key = [key << right >> left for left, right in east_to_north]
    facing_lock = [locked << right >> left for left, right in east_to_north]

    start = [0, 0, 0, 0]
    start[level.direction] = 1 << (level.x * height + level.y)
    poses = [start, [0, 0, 0, 0]][: len(passages)]
    before = [[0, 0, 0, 0] for _ in passages]
    for actions in range(1, limit + 1):
        if open_to_win and any(map(and_, poses[-1], facing_lock)):
            return actions
        following = [
            [
                here[d]
                | here[d - 1]
                | here[d - 3]
                | (here[d] << up >> down & walkable)
                | (last[d] << up >> down & doors)
                for d, (up, down) in enumerate(east_to_north)
            ]
            for (walkable, doors), here, last in zip(passages, poses, before, strict=True)
        ]
        if key:
            following[1] = [f | (p & face) for f, p, face in zip(following[1], poses[0], facing_key, strict=True)]
        if any(p & goal for layer in following for p in layer):
            return actions
        before, poses = poses, following
    return None


def _bits(cells: np.ndarray) -> int:
    """The integer whose bit c says whether cell c holds, [cells] bool."""
    return int.from_bytes(np.packbits(cells, bitorder="little").tobytes(), "little")
