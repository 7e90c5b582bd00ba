"""What MiniGrid's agent sees, in numpy, for many states of many levels at once.

Agrees with minigrid 3.2 (tests/envs/test_minigrid_simulator.py). A view is seven lines of seven cells, and a line is
one integer: what many states show is then a few operations on arrays.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from envs.minigrid_simulator import DIRECTIONS, DOOR, EMPTY, KEY, OPEN, VIEW, WALL, Levels

# A packed line of a view: seven cell codes of BITS bits, the leftmost lowest, and above them one bit per opaque cell.
BITS = 5  # NUM_CODES is 29
OPAQUE = BITS * VIEW


def views(levels: Levels, states: np.ndarray) -> np.ndarray:
    """What the agent sees in states [M]: [8, M] int64, the lines of its view from the nearest, then its direction.

    `unpack` spreads the lines out.
    """
    base, key = np.divmod(states, levels.radices[-1])
    # A key stands in nobody's way: all but one cell of a view depends on the rest of the state alone.
    used = np.zeros(levels.num_codes // levels.radices[-1], bool)
    used[base] = True
    seen = _views_without_key(levels, np.flatnonzero(used) * levels.radices[-1])
    seen = seen[:, (np.cumsum(used) - 1)[base]]
    if levels.keys is None:
        return seen
    level, cell, direction = levels.decode(states)[:3]
    added = KEY + levels.key_colors[level] - EMPTY
    rows, depth, place = _in_view(levels, cell, direction, key)
    visible = (seen[depth, rows] >> place) & (2**BITS - 1) == EMPTY
    seen[depth, rows] += np.where(visible, added[rows] << place, 0)
    seen[0] += np.where(key == levels.carried, added << BITS * (VIEW // 2), 0)
    return seen


def _views_without_key(levels: Levels, states: np.ndarray) -> np.ndarray:
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
    return np.concatenate([_pack(grid, axis, order) for axis, order in ((2, 1), (1, -1), (2, -1), (1, 1))])


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


def unpack(seen: np.ndarray) -> np.ndarray:
    """Packed views [8, M] -> [M, 50] uint8: the codes of the 7 x 7 view by [x, y], then the direction."""
    cells = np.empty((seen.shape[1], VIEW**2 + 1), np.uint8)
    lines = seen[VIEW - 1 :: -1].T  # the nearest has y = 6
    for x in range(VIEW):
        cells[:, VIEW * x : VIEW * (x + 1)] = lines >> BITS * x & 2**BITS - 1
    cells[:, -1] = seen[-1]
    return cells


def _pack(grid: np.ndarray, axis: int, order: int) -> np.ndarray:
    """Each seven neighbours along an axis of grids [B, X, Y] as a packed line, at the place of the first; flat.

    order: 1 if the first neighbour is the leftmost in the view, -1 if it is the rightmost.
    """
    packed = np.zeros_like(grid)
    inner = np.moveaxis(packed, axis, 0)[: packed.shape[axis] - VIEW + 1]  # a view: `packed` is filled through it
    neighbours = np.moveaxis(grid, axis, 0)
    opaque = (neighbours == WALL).astype(np.int64)
    for i, place in enumerate(range(VIEW)[::order]):
        part = slice(i, i + len(inner))
        inner += (neighbours[part] << BITS * place) + (opaque[part] << OPAQUE + place)
    return packed.reshape(-1)


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
