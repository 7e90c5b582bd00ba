"""MiniGrid's transitions in numpy, for many states of many levels at once.

Agrees with minigrid 3.2 step by step (tests/envs/test_minigrid_simulator.py) for levels of walls, lava, goals, doors
and at most one key. A cell is x * height + y; the key lies on a cell or is carried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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


@dataclass(frozen=True)
class Level:
    """One level at its start: cell codes [width, height] uint8, and where the agent stands and looks."""

    cells: np.ndarray
    x: int
    y: int
    direction: int

    def key(self) -> bytes:
        """What can be seen of it, as bytes, wherever in the grid it stands.

        MultiRoom's rooms, shifted, look the same; and so do crossings that differ behind walls without an opening.
        """
        cells = np.where(self._in_sight(), self.cells, np.uint8(EMPTY))
        xs, ys = (np.flatnonzero((cells != EMPTY).any(axis)) for axis in (1, 0))
        used = cells[xs[0] : xs[-1] + 1, ys[0] : ys[-1] + 1]
        return used.tobytes() + bytes((self.x - int(xs[0]), self.y - int(ys[0]), self.direction))

    def _in_sight(self) -> np.ndarray:
        """Which cells are connected to the agent's without a wall between, or touch such a cell: [width, height] bool.

        Lava and doors connect, as they can be seen through or opened. Sets of cells are bits of an integer: levels are
        drawn at every training step, and have walls all around, so that no shift wraps.
        """
        width, height = self.cells.shape
        passable = int.from_bytes(np.packbits(self.cells.reshape(-1) != WALL, bitorder="little").tobytes(), "little")
        before, reached = 0, 1 << (self.x * height + self.y)
        while reached != before:
            before = reached
            reached |= (reached << height | reached >> height | reached << 1 | reached >> 1) & passable
        reached |= reached << 1 | reached >> 1
        reached |= reached << height | reached >> height
        seen = np.frombuffer(reached.to_bytes((width * height + 7) // 8, "little"), np.uint8)
        return np.unpackbits(seen, count=width * height, bitorder="little").astype(bool).reshape(width, height)


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

    A state is one integer, its *code*: level, cell, direction, door states and key are its digits, of mixed radix.
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
        """The value of a state's key digit while the agent carries it."""
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

    # --- states as integers -----------------------------------------------------------------------------------------

    @cached_property
    def radices(self) -> tuple[int, ...]:
        """How many values each digit has, the most significant first: level, cell, direction, doors, key."""
        keys = 1 if self.keys is None else self.num_cells + 1  # a cell, or carried
        return (len(self.levels), self.num_cells, 4, *[3] * self.doors.shape[1], keys)

    @cached_property
    def weights(self) -> np.ndarray:
        """What each digit counts for, [4 + D]."""
        return np.cumprod([1, *self.radices[:0:-1]])[::-1]

    @property
    def num_codes(self) -> int:
        """The codes of states are below this."""
        return math.prod(self.radices)

    def decode(self, states: np.ndarray) -> list[np.ndarray]:
        """The digits of states [M]: level, cell, direction, one state per door, key (0 where there is none)."""
        digits = []
        for radix in self.radices[:0:-1]:
            states, digit = np.divmod(states, radix)
            digits.append(digit)
        return [states, *digits[::-1]]

    def starts(self) -> np.ndarray:
        """The state in which each level begins, [B]."""
        poses = [(i, v.x * self.height + v.y, v.direction) for i, v in enumerate(self.levels)]
        key = np.zeros(len(poses), np.int64) if self.keys is None else self.keys
        doors = (np.take_along_axis(self.codes, self.doors, 1).astype(np.int64) - DOOR) % 3
        return np.asarray(np.column_stack([np.array(poses), doors, key]) @ self.weights)

    def poses(self) -> np.ndarray:
        """All states of levels in which nothing but the agent moves, [M]."""
        level, cell = np.nonzero(self.fixed == EMPTY)
        pose = level * self.weights[0] + cell * self.weights[1]
        return np.asarray((pose[:, None] + np.arange(4) * self.weights[2]).reshape(-1))

    # --- transitions ------------------------------------------------------------------------------------------------

    def step(self, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Where each action leads from each state [M]: states [M, A], outcomes [M, A] (RUNNING, SUCCESS, FAILURE)."""
        level, cell, direction, *doors, key = self.decode(states)
        ahead = (DIRECTIONS @ (self.height, 1))[direction]
        front = cell + ahead  # there always is a cell before the agent: levels are walled in
        fixed = self.fixed.reshape(-1)[level * self.num_cells + front]
        following = np.repeat(states[:, None], len(ACTIONS), 1)
        outcome = np.zeros(following.shape, np.int64)
        following[:, LEFT] += ((direction + 3) % 4 - direction) * self.weights[2]
        following[:, RIGHT] += ((direction + 1) % 4 - direction) * self.weights[2]
        blocked, at_door = fixed == WALL, np.zeros(len(states), bool)
        carries = np.zeros(len(states), bool)
        if self.keys is not None:
            at_key, carries = key == front, key == self.carried
            blocked |= at_key
            following[:, PICKUP] += np.where(at_key, self.carried - key, 0)
        for door, state in enumerate(doors):
            here = self.doors[level, door] == front
            fits = carries & (self.key_colors[level] == self.door_colors[level, door])
            after = np.where(state == LOCKED, np.where(fits, OPEN, LOCKED), CLOSED - state)
            following[:, TOGGLE] += np.where(here, after - state, 0) * self.weights[3 + door]
            blocked |= here & (state != OPEN)
            at_door |= here
            if self.open_to_win:
                outcome[here & (after == OPEN), TOGGLE] = SUCCESS
        if self.keys is not None:
            drops = carries & (fixed == EMPTY) & ~at_door
            following[:, DROP] += np.where(drops, front - self.carried, 0)
        following[:, FORWARD] += np.where(blocked, 0, ahead) * self.weights[1]
        outcome[fixed == GOAL, FORWARD] = SUCCESS
        outcome[fixed == LAVA, FORWARD] = FAILURE
        return following, outcome
