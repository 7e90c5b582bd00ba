"""Maze: the paper's mazes by Prim's algorithm, or Wilson's, in its token format; the answer is a route to the goal.

The prompt is the grid, row by row; the policy answers with moves UP, DOWN, LEFT, RIGHT and may give up with DONE.
Stepping into a wall fails (the border is wall, so no move leaves the grid). The rollout succeeds on reaching the goal,
without waiting for DONE; DONE anywhere else fails. Moving back and forth is allowed within the horizon.
Of Prim's 9 x 9 mazes 93 % need only right and down, of Wilson's 72 % (docs/tasks.md: how that caps pass@k).
Source: Maximum Likelihood Reinforcement Learning (arXiv 2602.02710), maze experiments.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
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
GENERATORS = ("prim", "wilson")
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
    """Mazes of `size` x `size` cells, from (1, 1) to (size-2, size-2).

    size: odd, 7 to 17. generator: "prim", randomised Prim as in the paper, whose routes hardly wind; or "wilson", every
    spanning tree of the rooms alike, by loop-erased random walks (Wilson 1996, doi:10.1145/237814.237880).
    horizon: how many moves a rollout may take, by default with Prim twice the least that any maze of this size needs,
    and with Wilson the longest route that a maze of this size can have. Mazes whose shortest route is longer are drawn
    anew, so every instance can be solved.
    Raises ValueError on an even size, a size out of range, an unknown generator, or a horizon below that least number.
    """

    family = "maze"
    num_actions = len(ACTIONS)
    exact = False

    def __init__(self, size: int = 9, horizon: int | None = None, generator: str = "prim"):
        self._size = options.integer("size", size, 7, 17)
        if size % 2 == 0:
            raise ValueError(f"option 'size' must be odd, from 7 to 17, got {size}")
        self._rooms = size // 2
        prim = options.one_of("generator", generator, GENERATORS) == "prim"
        self._generate = self._prim if prim else self._wilson
        least = 2 * (size - 3)
        # Rooms are coloured like a chessboard: between opposite corners the steps are even in number.
        longest = 2 * ((self._rooms**2 - 1) // 2 * 2)
        usual = 2 * least if prim else longest
        self.horizon = usual if horizon is None else options.integer("horizon", horizon, least, size * size)
        self.contexts = TokenContexts(len(TOKENS) + len(ACTIONS), size * (size + 1) + 3 + self.horizon)
        self.name = f"maze-{size}" if prim else f"maze-{size}-wilson"
        self._space = f"maze {size} {self.horizon}" if prim else f"maze wilson {size} {self.horizon}"
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

    def _walled_rooms(self) -> bytearray:
        """The cells [size * size] with every room apart."""
        size = self._size
        cells = bytearray(size * size)
        for row in range(1, size, 2):
            cells[row * size + 1 : (row + 1) * size : 2] = b"\x01" * self._rooms
        return cells

    def _propose(self, rng: np.random.Generator) -> Instance:
        while True:
            maze = self._generate(rng)
            if len(maze.route) <= self.horizon:
                return maze

    def _prim(self, rng: np.random.Generator) -> Instance:
        """A spanning tree of the rooms: open a random wall between the tree and the rest until every room is in."""
        cells, neighbours = self._walled_rooms(), self._neighbours
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

    def _wilson(self, rng: np.random.Generator) -> Instance:
        """A uniform spanning tree: from each room a random walk to the tree, without its loops, joins it.

        A room's last exit is the one that is left of a walk when its loops are erased. The tree grows from the goal, so
        that the exits lead there.
        """
        cells, neighbours, draws = self._walled_rooms(), self._neighbours, _uniform(rng)
        goal = len(neighbours) - 1
        exits = [neighbours[goal][0]] * len(neighbours)
        inside = [room == goal for room in range(len(neighbours))]
        for first in range(goal):
            room = first
            while not inside[room]:
                exits[room] = neighbours[room][int(next(draws) * len(neighbours[room]))]
                room = exits[room][0]
            room = first
            while not inside[room]:
                inside[room], cells[exits[room][1]] = True, 1
                room = exits[room][0]
        route: list[int] = []
        room = 0
        while room != goal:
            room, _, action = exits[room]
            route += (action, action)
        return Instance(bytes(cells), tuple(route))

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


def _uniform(rng: np.random.Generator) -> Iterator[float]:
    """Numbers from [0, 1), one by one: drawn in blocks, which is much faster."""
    while True:
        yield from rng.random(64).tolist()
