"""What MiniGrid's agent sees, in numpy, for many states of many levels at once.

Agrees with minigrid 3.2 (tests/envs/test_minigrid_simulator.py). A view is seven lines of seven cells, and a line is
one integer: what many states show is then a few operations on arrays.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pandas as pd

from maxrl_bench.envs.minigrid_simulator import DIRECTIONS, DOOR, EMPTY, KEY, OPEN, VIEW, WALL, Levels
from maxrl_bench.rollouts.counts import distinct

# A packed line of a view: seven cell codes of BITS bits, the leftmost lowest, and above them one bit per opaque cell.
BITS = 5  # NUM_CODES is 29
OPAQUE = BITS * VIEW
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd, and its bits are as good as random


def observe(levels: Levels, states: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The distinct observations of states [M]: [O, 50] uint8, and which of them each state shows, [M].

    An observation is the codes of the 7 x 7 view by [x, y], then the direction.
    """
    base, key = np.divmod(states, levels.radices[-1])
    # A key stands in nobody's way: all but one cell of a view depends on the rest of the state alone.
    bases, base_of = distinct(base, levels.num_codes // levels.radices[-1])
    lines = _views_without_key(levels, bases * levels.radices[-1])
    first, shown = distinct_columns(lines)
    seen, index = _unpack(lines[:, first]), shown[base_of]
    return (seen, index) if levels.keys is None else _add_keys(levels, seen, index, base, key)


def _add_keys(
    levels: Levels, seen: np.ndarray, index: np.ndarray, base: np.ndarray, key: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """`observe`, from the observations without keys, which of them each state shows, and the states but for their keys.

    An observation with a key is one without it and the key's place and colour: different ones differ in these.
    """
    level, pose = np.divmod(base // 3 ** levels.doors.shape[1], 4 * levels.num_cells)
    place = _places(levels)[pose, key]
    colors, color = np.unique(levels.key_colors, return_inverse=True)
    # In sight, a key lies on an empty cell. 0 stands for no key in sight.
    sight = (place < VIEW**2) & (seen[index, place] == EMPTY)
    look = np.where(sight, 1 + place * len(colors) + color[level], 0)
    looks = 1 + VIEW**2 * len(colors)
    kinds, kind_of = distinct(index * looks + look, len(seen) * looks)
    without, look_of = np.divmod(kinds, looks)
    rows = seen[without]
    with_key = np.flatnonzero(look_of)
    place, color = np.divmod(look_of[with_key] - 1, len(colors))
    rows[with_key, place] = KEY + colors[color]
    return rows, kind_of


def _places(levels: Levels) -> np.ndarray:
    """In which place of the view a key is, by the agent's cell and direction, and the key: [4 * cells, cells + 1].

    A carried one is where the agent stands; the number of cells, for one outside of the view.
    """
    cell, direction, key = np.indices((levels.num_cells, 4, levels.num_cells + 1)).reshape(3, -1)
    place = np.full(len(cell), VIEW**2)
    rows, depth, bit = _in_view(levels, cell, direction, key)
    place[rows] = bit // BITS * VIEW + VIEW - 1 - depth
    place[key == levels.carried] = VIEW // 2 * VIEW + VIEW - 1
    return place.reshape(4 * levels.num_cells, -1)


def _views_without_key(levels: Levels, states: np.ndarray) -> np.ndarray:
    """What the agent would see in states [M] without the key: [8, M] packed lines, the nearest first; the direction."""
    level, cell, direction, *doors, _ = levels.decode(states)
    x, y = np.divmod(cell, levels.height)
    width, height = levels.width + 2 * VIEW, levels.height + 2 * VIEW
    half = VIEW - VIEW // 2
    along_y = direction % 2 == 0  # looking east or west, its lines run from north to south
    corner = ((direction * len(levels.levels) + level) * width + x + np.where(along_y, VIEW, half)) * height
    corner += y + np.where(along_y, half, VIEW)
    places = corner + np.arange(VIEW)[:, None] * (DIRECTIONS @ (height, 1))[direction]
    lines = _lines(levels)[places]
    for door, state in enumerate(doors):
        rows, depth, place = _in_view(levels, cell, direction, levels.doors[level, door])
        shown = DOOR + 3 * levels.door_colors[level[rows], door] + state[rows]
        closed = (state[rows] != OPEN) * 1
        lines[depth, rows] += (shown - EMPTY << place) + (closed << OPAQUE + place // BITS)
    if levels.see_through:
        lines &= 2**OPAQUE - 1
    else:
        _hide(lines)
    agent = BITS * (VIEW // 2)
    lines[0] += EMPTY - (lines[0] >> agent & 2**BITS - 1) << agent  # it does not see what it stands on
    return np.concatenate([lines, direction[None]])


def _lines(levels: Levels) -> np.ndarray:
    """All packed lines as an agent sees them, by its direction: [4 * B * (width + 14) * (height + 14)].

    By the place of a line's first cell, in grids with a margin of walls, which minigrid shows outside of the grid.
    """
    grid = levels.fixed.reshape(-1, levels.width, levels.height).astype(np.int64)
    grid = np.pad(grid, ((0, 0), (VIEW, VIEW), (VIEW, VIEW)), constant_values=WALL)
    # To the agent's right lies: south, if it looks to the east; then west, north, east.
    along_x, along_y = grid.shape[2], 1
    ways = ((along_y, 1), (along_x, -1), (along_y, -1), (along_x, 1))
    return np.concatenate([_pack(grid.reshape(-1), stride, order) for stride, order in ways])


def _in_view(
    levels: Levels, cell: np.ndarray, direction: np.ndarray, shown: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which views [M] show the cells `shown` [M], in which of their lines, and at which bit; none a carried key."""
    (x, y), (shown_x, shown_y) = np.divmod(cell, levels.height), np.divmod(shown, levels.height)
    ahead = DIRECTIONS[direction]
    dx, dy = shown_x - x, shown_y - y
    depth = dx * ahead[:, 0] + dy * ahead[:, 1]
    right = dy * ahead[:, 0] - dx * ahead[:, 1]
    within = (depth >= 0) & (depth < VIEW) & (np.abs(right) <= VIEW // 2) & (shown < levels.num_cells)
    rows = np.flatnonzero(within)
    return rows, depth[rows], BITS * (right[rows] + VIEW // 2)


def _unpack(seen: np.ndarray) -> np.ndarray:
    """Packed lines of views and directions [8, M] -> observations [M, 50] uint8."""
    cells = np.empty((seen.shape[1], VIEW**2 + 1), np.uint8)
    lines = seen[VIEW - 1 :: -1].T  # the nearest has y = 6
    for x in range(VIEW):
        cells[:, VIEW * x : VIEW * (x + 1)] = lines >> BITS * x & 2**BITS - 1
    cells[:, -1] = seen[-1]
    return cells


def _pack(grid: np.ndarray, stride: int, order: int) -> np.ndarray:
    """Each seven cells of a flat grid at a stride as a packed line, at the place of the first.

    order: 1 if the first cell is the leftmost in the view, -1 if it is the rightmost.
    """
    packed = np.zeros(len(grid), np.int64)
    length = len(grid) - (VIEW - 1) * stride
    lines, opaque, walls = packed[:length], np.zeros(length, np.uint8), (grid == WALL).view(np.uint8)
    for i in range(VIEW)[::-order]:  # from the rightmost to the leftmost
        cells = slice(i * stride, i * stride + length)
        lines <<= BITS
        lines += grid[cells]
        opaque <<= 1
        opaque += walls[cells]
    lines += opaque.astype(np.int64) << OPAQUE
    return packed


@lru_cache
def _sweeps() -> tuple[np.ndarray, np.ndarray]:
    """Visibility within a row of the view: [row mask, opaque cells] -> what of its line is seen, and the next mask.

    minigrid looks along each row from left to right and back; what is transparent lights its neighbours beside, above
    and diagonally above. Both arguments have 7 bits, so the two sweeps are a table of 128 x 128, given flat.
    """
    lit = np.zeros((2**VIEW, 2**VIEW), np.int64)
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
    cells = (opaque[:, None] >> np.arange(VIEW) & 1) @ (2**BITS - 1 << BITS * np.arange(VIEW))
    return cells[lit].reshape(-1), above.reshape(-1)


def _hide(lines: np.ndarray) -> None:
    """Set what the agent cannot see to UNSEEN (0), in views of packed lines [7, M], and clear their opaque bits."""
    shown, above = _sweeps()
    mask = np.full(lines.shape[1], 1 << (VIEW // 2))
    for line in lines:
        row = mask << VIEW | line >> OPAQUE
        line &= shown[row]
        mask = above[row]


def distinct_columns(columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where each distinct column of integers [F, M] occurs first [O], and which of them each column is [M].

    By 64-bit fingerprints; a clash of fingerprints is seen and resolved.
    """
    fingerprint = np.zeros(columns.shape[1], np.uint64)
    for row in columns.astype(np.uint64, copy=False):
        fingerprint = (fingerprint ^ row) * FACTOR
        fingerprint ^= fingerprint >> np.uint64(32)
    index, distinct = pd.factorize(fingerprint)
    first = np.full(len(distinct), -1)
    first[index[::-1]] = np.arange(len(index))[::-1]
    if all((row[first][index] == row).all() for row in columns):
        return first, index
    _, first, index = np.unique(columns, axis=1, return_index=True, return_inverse=True)
    return first, index.reshape(-1)
