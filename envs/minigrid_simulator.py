"""MiniGrid's transitions and its egocentric view, in numpy, for many states of many levels at once.

Agrees with minigrid 3.2 step by step (tests/envs/test_minigrid_simulator.py) for levels of walls, lava, goals, doors
and at most one key. A state is a row of integers: level, cell, direction, key, and one door state per door. A cell is
x * height + y; the key lies on a cell, is CARRIED, or is absent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
from minigrid.core.constants import COLOR_TO_IDX, OBJECT_TO_IDX
from minigrid.minigrid_env import MiniGridEnv

ACTIONS = ("left", "right", "forward", "pickup", "drop", "toggle", "done")
LEFT, RIGHT, FORWARD, PICKUP, DROP, TOGGLE, DONE = range(7)
RUNNING, SUCCESS, FAILURE = 0, -1, -2  # the latter two as in maxrl_bench.rollouts.graphs
VIEW = 7
DIRECTIONS = np.array([(1, 0), (0, 1), (-1, 0), (0, -1)])  # east, south, west, north; y points down
OPEN, CLOSED, LOCKED = range(3)

# Every cell as one code: the (object, colour, state) triples that minigrid's image can show in these levels.
UNSEEN, EMPTY, WALL, GOAL, LAVA, DOOR = range(6)
KEY = DOOR + 3 * len(COLOR_TO_IDX)
TRIPLES = np.array(
    [
        (OBJECT_TO_IDX["unseen"], 0, 0),
        (OBJECT_TO_IDX["empty"], 0, 0),
        (OBJECT_TO_IDX["wall"], COLOR_TO_IDX["grey"], 0),
        (OBJECT_TO_IDX["goal"], COLOR_TO_IDX["green"], 0),
        (OBJECT_TO_IDX["lava"], COLOR_TO_IDX["red"], 0),
        *((OBJECT_TO_IDX["door"], color, state) for color in range(len(COLOR_TO_IDX)) for state in range(3)),
        *((OBJECT_TO_IDX["key"], color, 0) for color in range(len(COLOR_TO_IDX))),
    ]
)
NUM_CODES = len(TRIPLES)
CARDINALITIES = (NUM_CODES,) * VIEW**2 + (len(DIRECTIONS),)
_CODE_OF = {tuple(triple): code for code, triple in enumerate(TRIPLES.tolist())}
_NOTHING = tuple(TRIPLES[EMPTY].tolist())
_BLOCK = 2048  # states whose views are built together: small enough for the processor's cache
_AGENT = (VIEW // 2) * VIEW + VIEW - 1  # where the agent stands in its own view: [3, 6], looking up


@dataclass(frozen=True)
class Level:
    """One level at its start: cell codes [width, height] uint8, and where the agent stands and looks."""

    cells: np.ndarray
    x: int
    y: int
    direction: int

    def key(self) -> bytes:
        """Its content as bytes, wherever in the grid it stands: MultiRoom's rooms, shifted, look the same."""
        xs, ys = (np.flatnonzero((self.cells != EMPTY).any(axis)) for axis in (1, 0))
        used = self.cells[xs[0] : xs[-1] + 1, ys[0] : ys[-1] + 1]
        return used.tobytes() + bytes((self.x - int(xs[0]), self.y - int(ys[0]), self.direction))


def encode_grid(image: np.ndarray) -> np.ndarray:
    """Cell codes [W, H] of a view or grid as minigrid encodes it, [W, H, 3]. Raises ValueError on unknown objects."""
    return _encode([tuple(triple) for triple in image.reshape(-1, 3).tolist()]).reshape(image.shape[:2])


def encode_level(env: MiniGridEnv) -> Level:
    """The level in which the package's environment now stands. Raises ValueError on objects not simulated here.

    Asks each object for its code: ten times faster than `grid.encode()`, and levels are read at every training step.
    """
    grid = env.grid  # lists its cells row by row
    codes = _encode([_NOTHING if cell is None else cell.encode() for cell in grid.grid])
    cells = np.ascontiguousarray(codes.reshape(grid.height, grid.width).T)
    return Level(cells, int(env.agent_pos[0]), int(env.agent_pos[1]), int(env.agent_dir))


def _encode(triples: list[tuple[int, ...]]) -> np.ndarray:
    try:
        return np.array([_CODE_OF[triple] for triple in triples], np.uint8)
    except KeyError as error:
        raise ValueError(f"the level holds an object that is not simulated: {error}") from None


@dataclass(frozen=True)
class Levels:
    """B levels of equal size and equal numbers of doors and keys, side by side.

    `see_through` lifts the walls' and doors' occlusion; `open_to_win` makes opening a door the success (Unlock).
    Raises ValueError, once read, on unequal sizes or numbers of doors and on more than one key in a level.
    """

    levels: Sequence[Level]
    see_through: bool = False
    open_to_win: bool = False

    @cached_property
    def width(self) -> int:
        return int(self.levels[0].cells.shape[0])

    @cached_property
    def height(self) -> int:
        return int(self.levels[0].cells.shape[1])

    @property
    def num_cells(self) -> int:
        return self.width * self.height

    @property
    def carried(self) -> int:
        """The value of a state's key column while the agent carries it."""
        return self.num_cells

    @cached_property
    def codes(self) -> np.ndarray:
        """All cells as the levels begin, [B, cells]."""
        return np.stack([level.cells.reshape(-1) for level in self.levels])

    @cached_property
    def doors(self) -> np.ndarray:
        """The cells of the doors, [B, D]."""
        level, cell = np.nonzero((self.codes >= DOOR) & (self.codes < KEY))
        counts = np.bincount(level, minlength=len(self.levels))
        if len(set(counts.tolist())) > 1:
            raise ValueError("levels of one batch must have equal numbers of doors")
        return cell.reshape(len(self.levels), -1)

    @cached_property
    def door_colors(self) -> np.ndarray:
        return (np.take_along_axis(self.codes, self.doors, 1).astype(np.int64) - DOOR) // 3

    @cached_property
    def keys(self) -> np.ndarray | None:
        """The cell of each level's key, [B]; None if the levels have no keys."""
        level, cell = np.nonzero(self.codes >= KEY)
        if not len(level):
            return None
        if level.tolist() != list(range(len(self.levels))):
            raise ValueError("levels of one batch must have one key each, or none")
        return cell

    @cached_property
    def key_colors(self) -> np.ndarray:
        if self.keys is None:
            return np.full(len(self.levels), -1)
        return self.codes[np.arange(len(self.levels)), self.keys].astype(np.int64) - KEY

    @cached_property
    def fixed(self) -> np.ndarray:
        """The cells' fixed content [B, cells]: walls, goals and lava; empty where a door or the key is."""
        return np.where(self.codes >= DOOR, EMPTY, self.codes).astype(np.uint8)

    @cached_property
    def _padded(self) -> np.ndarray:
        """`fixed`, with the grey wall that minigrid shows outside of the grid, as one flat array."""
        grid = self.fixed.reshape(-1, self.width, self.height)
        return np.pad(grid, ((0, 0), (VIEW, VIEW), (VIEW, VIEW)), constant_values=WALL).reshape(-1)

    def starts(self) -> np.ndarray:
        """The state in which each level begins, [B, 4 + D]."""
        poses = [(i, v.x * self.height + v.y, v.direction) for i, v in enumerate(self.levels)]
        key = np.full(len(poses), -1) if self.keys is None else self.keys
        doors = (np.take_along_axis(self.codes, self.doors, 1).astype(np.int64) - DOOR) % 3
        return np.column_stack([np.array(poses), key, doors])

    def front(self, states: np.ndarray) -> np.ndarray:
        """The cell before the agent, [M]. There always is one: levels are walled in."""
        step = DIRECTIONS @ (self.height, 1)
        return states[:, 1] + step[states[:, 2]]

    def step(self, states: np.ndarray, actions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """States [M, 4 + D] and actions [M] -> next states, outcomes [M] (RUNNING, SUCCESS, FAILURE)."""
        states = states.copy()
        level, direction, key = states[:, 0], states[:, 2], states[:, 3]
        front = self.front(states)
        fixed = self.fixed[level, front]
        at_door = self.doors[level] == front[:, None]  # [M, D]
        door_states = np.where(at_door, states[:, 4:], -1).max(1, initial=-1)
        at_key = key == front
        outcome = np.zeros(len(states), np.int64)

        states[:, 2] = (direction + (actions == RIGHT) - (actions == LEFT)) % 4
        forward = actions == FORWARD
        goes = forward & (fixed != WALL) & ~at_key & (door_states <= OPEN)
        states[goes, 1] = front[goes]
        outcome[forward & (fixed == GOAL)] = SUCCESS
        outcome[forward & (fixed == LAVA)] = FAILURE
        if self.keys is not None:
            states[(actions == PICKUP) & at_key, 3] = self.carried
            drops = (actions == DROP) & (key == self.carried) & (fixed == EMPTY) & (door_states < 0)
            states[drops, 3] = front[drops]
        if self.doors.shape[1]:
            fits = (key == self.carried)[:, None] & (self.key_colors[level][:, None] == self.door_colors[level])
            before = states[:, 4:]
            after = np.where(before == LOCKED, np.where(fits, OPEN, LOCKED), CLOSED - before)
            toggles = (actions == TOGGLE)[:, None] & at_door
            states[:, 4:] = np.where(toggles, after, before)
            if self.open_to_win:
                outcome[(toggles & (after == OPEN)).any(1)] = SUCCESS
        return states, outcome

    def observe(self, states: np.ndarray) -> np.ndarray:
        """What the agent sees: [M, 50] uint8, the codes of the 7 x 7 view by [x, y], then the direction."""
        seen = np.empty((len(states), VIEW**2 + 1), np.uint8)
        for first in range(0, len(states), _BLOCK):
            block = slice(first, first + _BLOCK)
            seen[block, :-1] = self._views(states[block])
        seen[:, -1] = states[:, 2]
        return seen

    def _views(self, states: np.ndarray) -> np.ndarray:
        level, direction, key = states[:, 0], states[:, 2], states[:, 3]
        x, y = np.divmod(states[:, 1], self.height)
        stride = self.height + 2 * VIEW
        corner = (level * (self.width + 2 * VIEW) + x + VIEW) * stride + y + VIEW
        view = self._padded[corner[:, None] + _view_offsets(stride)[direction]]
        opaque = view == WALL
        for door in range(self.doors.shape[1]):
            rows, place = self._in_view(x, y, direction, self.doors[level, door])
            state = states[rows, 4 + door]
            view[rows, place] = DOOR + 3 * self.door_colors[level[rows], door] + state
            opaque[rows, place] = state != OPEN
        if self.keys is not None:
            rows, place = self._in_view(x, y, direction, key)
            view[rows, place] = KEY + self.key_colors[level[rows]]
        if not self.see_through:
            view *= _visible(opaque)  # UNSEEN is 0
        view[:, _AGENT] = np.where(key == self.carried, KEY + self.key_colors[level], EMPTY)
        return view

    def _in_view(
        self, x: np.ndarray, y: np.ndarray, direction: np.ndarray, cell: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Which views show this cell, and in which place of the 49; a carried key's cell is in none."""
        cell_x, cell_y = np.divmod(cell, self.height)
        ahead = DIRECTIONS[direction]
        dx, dy = cell_x - x, cell_y - y
        depth = dx * ahead[:, 0] + dy * ahead[:, 1]
        right = dy * ahead[:, 0] - dx * ahead[:, 1]
        within = (depth >= 0) & (depth < VIEW) & (np.abs(right) <= VIEW // 2) & (cell < self.num_cells)
        rows = np.flatnonzero(within)
        return rows, (right[rows] + VIEW // 2) * VIEW + VIEW - 1 - depth[rows]


@lru_cache
def _view_offsets(stride: int) -> np.ndarray:
    """Where the cells of the view lie relative to the agent's, by direction, in a flat grid: [4, 49]."""
    i, j = np.divmod(np.arange(VIEW**2), VIEW)
    ahead, right = DIRECTIONS, np.stack([-DIRECTIONS[:, 1], DIRECTIONS[:, 0]], 1)
    cells = (VIEW - 1 - j)[:, None] * ahead[:, None] + (i - VIEW // 2)[:, None] * right[:, None]
    return cells @ (stride, 1)


@lru_cache
def _sweeps() -> tuple[np.ndarray, np.ndarray]:
    """Visibility within a row of the view: [row mask, opaque cells] -> the row's final mask, and the next row's first.

    minigrid looks along each row from left to right and back; what is transparent lights its neighbours beside, above
    and diagonally above. Both arguments have 7 bits, so the two sweeps are a table of 128 x 128.
    """
    lit = np.zeros((2**VIEW, 2**VIEW), np.uint8)
    above = np.zeros_like(lit)
    opaque = np.arange(2**VIEW)
    for mask in range(2**VIEW):
        row, up = np.full(2**VIEW, mask), np.zeros(2**VIEW, np.int64)
        for cells, beside in ((range(VIEW - 1), 1), (range(VIEW - 1, 0, -1), -1)):
            for i in cells:
                passes = ((row >> i) & 1) & ~(opaque >> i) & 1
                row |= passes << (i + beside)
                up |= (passes << (i + beside)) | (passes << i)
        lit[mask], above[mask] = row, up
    return lit, above


def _visible(opaque: np.ndarray) -> np.ndarray:
    """Which cells of each view the agent sees, given which are opaque: [M, 49] bool -> [M, 49] uint8, 0 or 1."""
    lit, above = _sweeps()
    columns = opaque.reshape(-1, VIEW, VIEW).view(np.uint8)  # [M, x, y]
    bits = np.zeros((len(opaque), VIEW), np.uint8)  # per y, one bit per x
    for x in range(VIEW):
        bits |= columns[:, x] << x
    mask = np.full(len(opaque), 1 << (VIEW // 2), np.uint8)
    rows = np.empty_like(bits)
    for y in range(VIEW - 1, -1, -1):
        rows[:, y] = lit[mask, bits[:, y]]
        mask = above[mask, bits[:, y]]
    seen = (rows[:, None, :] >> np.arange(VIEW, dtype=np.uint8)[:, None]) & 1
    return seen.reshape(-1, VIEW**2)
