"""Maze: the paper's mazes by Prim's algorithm, in its token format; the answer is a route from start to goal.

The prompt is the grid, row by row; the policy answers with moves UP, DOWN, LEFT, RIGHT and may give up with DONE.
Stepping into a wall fails (the border is wall, so no move leaves the grid). The rollout succeeds on reaching the goal,
without waiting for DONE; DONE anywhere else fails. Moving back and forth is allowed within the horizon.
Source: Maximum Likelihood Reinforcement Learning (arXiv 2602.02710), maze experiments.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from minigrid.core.grid import Grid
from minigrid.core.world_object import Goal, Wall

from maxrl_bench.envs import options
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TokenContexts, check_actions, check_indices, draw_instance

TOKENS = ("WALL", "PATH", "START", "GOAL", "NEWLINE", "GRID_START", "GRID_END", "PATH_START")
WALL, PATH, START, GOAL, NEWLINE, GRID_START, GRID_END, PATH_START = range(8)
ACTIONS = ("UP", "DOWN", "LEFT", "RIGHT", "DONE")
DONE = 4
# MiniGrid's directions (0 right, 1 down, 2 left, 3 up) by action, for the arrow of a frame.
_FACING = (3, 1, 2, 0)
_TILE = 24  # pixels per cell of a frame


@dataclass(frozen=True)
class Instance:
    """A maze: `cells` is the grid, row-major, one byte a cell, 0 wall and 1 path; `route` the shortest, as actions."""

    cells: bytes
    route: tuple[int, ...]


@dataclass(frozen=True)
class Walk:
    """The verifier. A state is (row of the instance, cell); `tokens` [B, size * size] are the mazes' cells."""

    tokens: np.ndarray
    size: int

    def start(self) -> np.ndarray:
        """The states [B, 2] before the first move: all at (1, 1)."""
        rows = np.arange(len(self.tokens))
        return np.stack([rows, np.full_like(rows, self.size + 1)], axis=1)

    def advance(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [M, 2] and actions [M] -> next states [M, 2] and outcomes [M]."""
        rows, cells = states.T
        cells = cells + np.array([-self.size, self.size, -1, 1, 0])[actions]
        reached = self.tokens[rows, cells]
        fails = (reached == WALL) | (actions == DONE)
        outcome = np.select([fails, reached == GOAL], [FAILED, SUCCEEDED], RUNNING).astype(np.int8)
        return np.stack([rows, cells], axis=1), outcome


class Maze:
    """Mazes of `size` x `size` cells, from (1, 1) to (size-2, size-2), drawn by randomised Prim.

    size: odd, 7 to 17. horizon: how many moves a rollout may take, by default twice the least that any maze of this
    size needs; mazes whose shortest route is longer are drawn anew, so every instance can be solved.
    Raises ValueError on an even size, a size out of range, or a horizon below that least number of moves.
    """

    family = "maze"
    num_actions = len(ACTIONS)
    exact = False

    def __init__(self, size: int = 9, horizon: int | None = None):
        self._size = options.integer("size", size, 7, 17)
        if size % 2 == 0:
            raise ValueError(f"option 'size' must be odd, from 7 to 17, got {size}")
        least = 2 * (size - 3)
        self.horizon = 2 * least if horizon is None else options.integer("horizon", horizon, least, size * size)
        self.contexts = TokenContexts(len(TOKENS) + len(ACTIONS), size * (size + 1) + 3 + self.horizon)
        self.name = f"maze-{size}"
        self._space = f"maze {size} {self.horizon}"
        self._rooms = size // 2
        self._neighbours = [self._around(room) for room in range(self._rooms**2)]
        edges = 2 * self._rooms * (self._rooms - 1)
        self._draws = 2 * edges  # each edge enters the frontier once from each of its ends, at most

    def _around(self, room: int) -> list[tuple[int, int, int]]:
        """The rooms next to a room: (room, the cell of the wall in between, the action that leads there)."""
        row, column = divmod(room, self._rooms)
        cell = (2 * row + 1) * self._size + 2 * column + 1
        around = []
        for action, (down, right) in enumerate(((-1, 0), (1, 0), (0, -1), (0, 1))):
            if 0 <= row + down < self._rooms and 0 <= column + right < self._rooms:
                step = down * self._size + right
                around.append((room + down * self._rooms + right, cell + step, action))
        return around

    def _propose(self, rng: np.random.Generator) -> Instance:
        while True:
            maze = self._prim(rng)
            if len(maze.route) <= self.horizon:
                return maze

    def _prim(self, rng: np.random.Generator) -> Instance:
        """A spanning tree of the rooms: open a random wall between the tree and the rest until every room is in."""
        size, neighbours = self._size, self._neighbours
        cells = bytearray(size * size)
        for row in range(1, size, 2):
            cells[row * size + 1 : (row + 1) * size : 2] = b"\x01" * self._rooms
        came_from: list[tuple[int, int] | None] = [None] * len(neighbours)
        inside = [False] * len(neighbours)
        inside[0] = True
        missing = len(neighbours) - 1
        frontier = [(0, *edge) for edge in neighbours[0]]
        for draw in rng.random(self._draws).tolist():
            chosen = int(draw * len(frontier))
            source, room, wall, action = frontier[chosen]
            frontier[chosen] = frontier[-1]
            frontier.pop()
            if inside[room]:
                continue
            inside[room], came_from[room], cells[wall] = True, (source, action), 1
            missing -= 1
            if not missing:
                break
            frontier += [(room, *edge) for edge in neighbours[room] if not inside[edge[0]]]
        route: list[int] = []
        step = came_from[-1]
        while step is not None:
            room, action = step
            route += (action, action)
            step = came_from[room]
        return Instance(bytes(cells), tuple(reversed(route)))

    def _draw(self, split: str, index: int) -> Instance:
        return draw_instance(self._space, split, index, self._propose, lambda maze: maze.cells)

    def _tokens(self, mazes: list[Instance]) -> np.ndarray:
        """The cells as tokens, row by row: [B, size * size]."""
        tokens = np.frombuffer(b"".join(maze.cells for maze in mazes), np.uint8).astype(np.int64)
        tokens = tokens.reshape(len(mazes), -1)
        tokens[:, self._size + 1] = START
        tokens[:, -self._size - 2] = GOAL
        return tokens

    def batch(self, split: str, indices: Sequence[int]) -> TokenBatch:
        """The mazes at these indices of a split. Raises ValueError on an unknown split or a bad index."""
        mazes = [self._draw(split, index) for index in check_indices(indices)]
        tokens = self._tokens(mazes)
        rows = np.pad(
            tokens.reshape(-1, self._size, self._size), ((0, 0), (0, 0), (0, 1)), constant_values=NEWLINE
        ).reshape(len(mazes), -1)
        prompts = np.pad(rows, ((0, 0), (1, 2)), constant_values=((0, 0), (GRID_START, GRID_END)))
        prompts[:, -1] = PATH_START
        routes = np.full((len(mazes), max(len(maze.route) for maze in mazes)), -1)
        for row, maze in enumerate(mazes):
            routes[row, : len(maze.route)] = maze.route
        return TokenBatch(
            prompts=torch.from_numpy(prompts),
            verifier=Walk(tokens, self._size),
            horizon=self.horizon,
            actions=torch.arange(len(ACTIONS)) + len(TOKENS),
            demonstrations=torch.from_numpy(routes),
            solutions=None,
        )

    def render(self, split: str, index: int, actions: Sequence[int]) -> list[np.ndarray]:
        """A MiniGrid frame [H, W, 3] before every action and after the last one."""
        cells = self._draw(split, index).cells
        size = self._size
        grid = Grid(size, size)
        for cell, path in enumerate(cells):
            if not path:
                grid.set(cell % size, cell // size, Wall())
        grid.set(size - 2, size - 2, Goal())
        position, facing = (1, 1), 0
        frames = [grid.render(_TILE, position, facing)]
        for action in check_actions(actions, self.num_actions):
            if action != DONE:
                facing = _FACING[action]
                right, down = ((0, -1), (0, 1), (-1, 0), (1, 0))[action]
                position = position[0] + right, position[1] + down
            frames.append(grid.render(_TILE, position, facing))
        return frames
