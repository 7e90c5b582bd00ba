"""Mazes, judged by walking on the grid that the prompt spells out."""

import itertools
from collections import Counter

import numpy as np
import pytest
from scipy import stats

from maxrl_bench.envs.maze import ACTIONS, GENERATORS, TOKENS
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


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("size", SIZES)
def test_mazes_are_perfect_and_demonstrations_are_shortest(size: int, generator: str) -> None:
    task = make_task("maze-9", size=size, generator=generator)
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


def spanning_trees() -> set[frozenset[tuple[int, int]]]:
    """All spanning trees of 3 x 3 rooms, each as the cells (row, column) of a 7 x 7 grid that it opens."""
    rooms = [(row, column) for row in (1, 3, 5) for column in (1, 3, 5)]
    walls = [(r, c) for r in range(1, 6) for c in range(1, 6) if (r + c) % 2]
    trees = set()
    for opened in itertools.combinations(walls, len(rooms) - 1):
        joined = {room: {room} for room in rooms}
        for row, column in opened:
            ends = [(row, column - 1), (row, column + 1)] if row % 2 else [(row - 1, column), (row + 1, column)]
            both = joined[ends[0]] | joined[ends[1]]
            joined |= dict.fromkeys(both, both)
        if len(joined[rooms[0]]) == len(rooms):
            trees.add(frozenset(opened))
    return trees


@pytest.mark.parametrize(("generator", "uniform"), [("wilson", True), ("prim", False)])
def test_wilson_draws_every_spanning_tree_alike_and_prim_does_not(generator: str, uniform: bool) -> None:
    task, trees = make_task("maze-7", generator=generator), spanning_trees()
    assert len(trees) == 192  # Kirchhoff's theorem
    seen: set[frozenset[tuple[int, int]]] = set()
    for split, count in (("train", 3000), ("validation", 1000), ("test", 1000)):
        batch = task.batch(split, range(count))
        grid = batch.prompts[:, 1:-2].reshape(count, 7, 8)[:, :, :7].numpy()
        open_walls = grid != TOKENS.index("WALL")
        open_walls[:, 1::2, 1::2] = False
        drawn = [frozenset(map(tuple, np.argwhere(maze).tolist())) for maze in open_walls]
        # Within a split each of its trees is as likely as any other; five standard deviations, as elsewhere.
        counts = list(Counter(drawn).values())
        assert (stats.chisquare(counts).pvalue > 3e-7) == uniform
        assert set(drawn) <= trees
        seen |= set(drawn)
    if uniform:
        assert seen == trees


def test_the_longest_route_of_a_wilson_maze_fits_into_its_horizon() -> None:
    """Of 3 x 3 rooms all trees are known: the longest way through one is 8 rooms, 16 moves."""
    assert [make_task("maze-9", size=size, generator="wilson").horizon for size in (7, 9, 11)] == [16, 28, 48]
    routes = make_task("maze-7", generator="wilson").batch("train", range(3000)).demonstrations
    assert routes is not None
    assert int((routes >= 0).sum(1).max()) == 16


@pytest.mark.parametrize(("name", "share"), [("maze-9", 0.9325), ("maze-9-wilson", 0.7177)])
def test_as_many_mazes_need_only_right_and_down_as_documented(name: str, share: float) -> None:
    routes = make_task(name).batch("test", range(1000)).demonstrations
    assert routes is not None
    straight = ~np.isin(routes.numpy(), (ACTIONS.index("UP"), ACTIONS.index("LEFT"))).any(1)
    assert abs(straight.mean() - share) < 5 * (share * (1 - share) / 1000) ** 0.5


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
        ({"generator": "wilsen"}, "option 'generator': unknown 'wilsen'; did you mean 'wilson'"),
        ({"size": "9"}, "'size' must be a whole number"),
        ({"horizon": 0}, "'horizon' must be a whole number from 12 to 81, got 0"),
        ({"horizon": 11}, "'horizon' must be a whole number from 12 to 81, got 11"),
    ],
)
def test_bad_options_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        make_task("maze-9", **options)
    assert "\n" not in str(caught.value)
