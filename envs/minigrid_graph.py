"""From simulated MiniGrid levels to the graph of their reachable states, and the length of the shortest solution."""

from __future__ import annotations

from operator import and_

import numpy as np
import torch

from maxrl_bench.envs.minigrid_simulator import CLOSED, DOOR, EMPTY, GOAL, KEY, OPEN, RUNNING, Level, Levels
from maxrl_bench.envs.minigrid_view import observe
from maxrl_bench.rollouts.graphs import StateGraphs

MAX_STATES = 100_000  # of one level: beyond, a graph takes longer to compile than to train on


def compile_graphs(levels: Levels, horizon: int) -> StateGraphs:
    """All states that the levels' starts lead to, with every action from each; waves of a breadth-first search.

    Raises ValueError if a level has more than MAX_STATES of them.
    """
    starts = levels.starts()
    index = np.full(levels.num_codes, -1, np.int64)
    # Where nothing but the agent moves, all its poses can be expanded at once; the search is then one wave.
    moving = levels.keys is not None or levels.doors.shape[1] > 0
    wave = _turned(levels, _facing_east(levels, starts)) if moving else levels.poses()
    index[wave] = np.arange(len(wave))
    waves, successors, total = [wave], [], len(wave)
    while len(wave):
        following, outcome = levels.step(wave)
        runs = outcome == RUNNING
        fresh = _facing_east(levels, following[runs & (index[following] < 0)])
        index[fresh] = np.arange(len(fresh))  # of a state that occurs several times, the last one stays
        fresh = fresh[index[fresh] == np.arange(len(fresh))]
        wave = _turned(levels, fresh)  # as it can turn anywhere
        index[wave] = total + np.arange(len(wave))
        total += len(wave)
        if total > MAX_STATES * len(starts):
            raise ValueError(f"levels of this size have more than {MAX_STATES} states; choose a smaller size")
        successors.append(np.where(runs, index[following], outcome))
        waves.append(wave)
    observations, observation_of = observe(levels, np.concatenate(waves))
    return StateGraphs(
        observations=torch.from_numpy(observations),
        observation_of=observation_of,
        successor=np.concatenate(successors),
        start=index[starts],
        horizon=horizon,
    )


def _facing_east(levels: Levels, states: np.ndarray) -> np.ndarray:
    """States [M] but for the agent's direction, which is made 0."""
    return np.asarray(states - states // levels.weights[2] % 4 * levels.weights[2])


def _turned(levels: Levels, states: np.ndarray) -> np.ndarray:
    """States of direction 0 [M], in all four directions: [4 * M]."""
    return np.asarray((states[:, None] + np.arange(4) * levels.weights[2]).reshape(-1))


def can_be_solved(level: Level, limit: int, *, open_to_win: bool = False) -> bool:
    """Whether a level has a solution of at most `limit` actions."""
    codes = level.cells.reshape(-1)
    if not open_to_win and codes.max() < KEY:
        # Mostly, a glance is enough: a way of m cells has at most m + 1 quarter turns, and one toggle for each door.
        doors = codes >= DOOR
        height, goal = level.cells.shape[1], _bits(codes == GOAL)
        way = _bits((codes == EMPTY) | doors) | goal
        reached = 1 << (level.x * height + level.y)
        for _ in range((limit - 1 - int(doors.sum())) // 2):
            reached |= (reached << height | reached >> height | reached << 1 | reached >> 1) & way
            if reached & goal:
                return True
    return shortest_solution(level, limit, open_to_win=open_to_win) is not None


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
