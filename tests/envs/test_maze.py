"""Mazes, judged by walking on the grid that the prompt spells out."""

import numpy as np
import pytest

from maxrl_bench.envs.maze import ACTIONS, TOKENS
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import SPLITS, make_task

MOVES = {"UP": (-1, 0), "DOWN": (1, 0), "LEFT": (0, -1), "RIGHT": (0, 1)}
SIZES = (7, 9, 17)


def grid_of(batch: TokenBatch, row: int) -> list[list[str]]:
    """The grid that the prompt spells out; fails unless the prompt has the paper's form."""
    words = [TOKENS[token] for token in batch.prompts[row].tolist()]
    assert (words[0], words[-2], words[-1]) == ("GRID_START", "GRID_END", "PATH_START")
    rows = " ".join(words[1:-2]).split(" NEWLINE")
    assert rows.pop() == ""
    return [line.split() for line in rows]


def walk(grid: list[list[str]], actions: list[int], horizon: int) -> int:
    """The rules, in plain words."""
    row, column = 1, 1
    for taken, action in enumerate(actions):
        if taken == horizon or ACTIONS[action] == "DONE":
            return FAILED
        down, right = MOVES[ACTIONS[action]]
        row, column = row + down, column + right
        if grid[row][column] == "WALL":
            return FAILED
        if grid[row][column] == "GOAL":
            return SUCCEEDED
    return RUNNING


def distances(grid: list[list[str]]) -> dict[tuple[int, int], int]:
    """Breadth-first distances from the start."""
    reached, border = {(1, 1): 0}, [(1, 1)]
    while border:
        row, column = border.pop(0)
        for down, right in MOVES.values():
            there = row + down, column + right
            if grid[there[0]][there[1]] != "WALL" and there not in reached:
                reached[there] = reached[row, column] + 1
                border.append(there)
    return reached


@pytest.mark.parametrize("size", SIZES)
def test_mazes_are_perfect_and_demonstrations_are_shortest(size: int) -> None:
    task = make_task("maze-9", size=size)
    batch = task.batch("train", range(40))
    rooms = (size // 2) ** 2
    for row in range(batch.num_instances):
        grid = grid_of(batch, row)
        assert [len(line) for line in grid] == [size] * size
        assert (grid[1][1], grid[size - 2][size - 2]) == ("START", "GOAL")
        reached = distances(grid)
        # A spanning tree: all rooms connected, and one opening fewer than rooms.
        assert len(reached) == sum(word != "WALL" for line in grid for word in line) == 2 * rooms - 1
        route = [action for action in batch.demonstrations[row].tolist() if action >= 0]  # type: ignore[index]
        assert len(route) == reached[size - 2, size - 2] <= task.horizon
        assert walk(grid, route, task.horizon) == SUCCEEDED


@pytest.mark.parametrize("size", SIZES)
def test_verifier_agrees_with_the_rules(size: int) -> None:
    task = make_task("maze-9", size=size)
    batch = task.batch("validation", range(64))
    rng = np.random.default_rng(size)
    seen = []
    for _ in range(12):
        # Demonstrations with a few detours and slips, so that every outcome and long rollouts occur.
        tried = [
            [a for a in row if a >= 0]
            for row in batch.demonstrations.tolist()  # type: ignore[union-attr]
        ]
        for actions in tried:
            if rng.random() < 0.7:
                actions[int(rng.integers(len(actions)))] = int(rng.integers(len(ACTIONS)))
            if rng.random() < 0.3:
                first = actions[0]
                actions[:0] = [first, (1, 0, 3, 2)[first]] if first < 4 else [first]
        states, outcome = batch.verifier.start(), np.full(64, RUNNING)
        for step in range(max(map(len, tried))):
            going = np.array([r for r in range(64) if outcome[r] == RUNNING and step < len(tried[r])], int)
            if len(going):
                states[going], outcome[going] = batch.verifier.advance(
                    states[going], np.array([tried[r][step] for r in going])
                )
        expected = [walk(grid_of(batch, r), tried[r], 10**6) for r in range(64)]
        assert outcome.tolist() == expected
        seen += expected
    assert min(seen.count(kind) for kind in (SUCCEEDED, FAILED, RUNNING)) > 5


def test_small_mazes_are_nearly_all_drawn_and_lie_in_one_split() -> None:
    task = make_task("maze-7")
    prompts = {split: {row.numpy().tobytes() for row in task.batch(split, range(1200)).prompts} for split in SPLITS}
    together = len(set.union(*prompts.values()))
    assert sum(map(len, prompts.values())) == together
    # A 3 x 3 lattice of rooms has 192 spanning trees; Prim's algorithm draws some of them rarely.
    assert 150 < together <= 192


def test_a_short_horizon_leaves_only_mazes_that_can_be_solved() -> None:
    task = make_task("maze-9", horizon=12)
    batch = task.batch("test", range(50))
    assert all(distances(grid_of(batch, row))[7, 7] == 12 for row in range(50))


def test_frames_show_every_step_and_the_agent_moves() -> None:
    task = make_task("maze-9")
    batch = task.batch("test", [5])
    route = [action for action in batch.demonstrations[0].tolist() if action >= 0]  # type: ignore[index]
    frames = task.render("test", 5, route)
    assert len(frames) == len(route) + 1
    tile = len(frames[0]) // 9
    row, column = 1, 1
    for frame, action in zip(frames, [*route, None], strict=True):
        assert isinstance(frame, np.ndarray)
        square = frame[row * tile : (row + 1) * tile, column * tile : (column + 1) * tile].astype(int)
        # The agent is MiniGrid's red arrow.
        assert ((square[..., 0] > 200) & (square[..., 1] < 60)).any()
        if action is not None:
            down, right = MOVES[ACTIONS[action]]
            row, column = row + down, column + right
    assert (row, column) == (7, 7)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 8}, "'size' must be odd, from 7 to 17, got 8"),
        ({"size": 5}, "'size' must be a whole number from 7 to 17, got 5"),
        ({"size": 19}, "'size' must be a whole number from 7 to 17, got 19"),
        ({"size": "9"}, "'size' must be a whole number"),
        ({"horizon": 0}, "'horizon' must be a whole number from 12 to 81, got 0"),
        ({"horizon": 11}, "'horizon' must be a whole number from 12 to 81, got 11"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_task("maze-9", **options)
    assert "\n" not in str(caught.value)
