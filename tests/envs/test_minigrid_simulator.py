"""The batched simulator against the minigrid package, step by step."""

from collections import Counter
from typing import Any

import numpy as np
import pytest
from minigrid.core.constants import OBJECT_TO_IDX
from minigrid.envs import DoorKeyEnv

from maxrl_bench.envs.minigrid_graph import can_be_solved, compile_graphs, shortest_solution
from maxrl_bench.envs.minigrid_simulator import (
    ACTIONS,
    DOOR,
    DROP,
    EMPTY,
    KEY,
    PICKUP,
    SUCCESS,
    TOGGLE,
    TRIPLES,
    Level,
    Levels,
    encode_grid,
    encode_level,
)
from maxrl_bench.envs.minigrid_view import FACTOR, distinct_columns, observe
from maxrl_bench.envs.navigation import LEVELS, Navigation

KINDS: list[dict[str, Any]] = [
    {"level": "empty", "size": 6},
    {"level": "fourrooms"},
    {"level": "simple-crossing", "size": 11, "crossings": 4},
    {"level": "lava-crossing", "size": 9, "crossings": 3},
    {"level": "multiroom", "rooms": 2},
    {"level": "multiroom", "rooms": 4, "room_size": 6},
    {"level": "unlock"},
    {"level": "doorkey", "size": 5},
    {"level": "doorkey", "size": 7},
]
NAMES = ["-".join(str(v) for v in kind.values()) for kind in KINDS]
STEPS = 800  # per kind


def levels_of(task: Navigation, count: int, split: str = "train") -> Levels:
    return task.levels(task.draw(split, range(count)))


def views(levels: Levels, states: np.ndarray) -> np.ndarray:
    """What each state shows: [M, 50]."""
    observations, index = observe(levels, states)
    assert len(np.unique(observations, axis=0)) == len(observations) == len(np.unique(index))
    return observations[index]


def whole_grid(levels: Levels, doors: list[int], key: int) -> np.ndarray:
    """All cells of a one-level state, as minigrid encodes them: [W, H, 3]."""
    codes = levels.fixed[0].astype(np.int64)
    codes[levels.doors[0]] = DOOR + 3 * levels.door_colors[0] + doors
    if levels.keys is not None and key < levels.carried:
        codes[key] = KEY + levels.key_colors[0]
    return TRIPLES[codes].reshape(levels.width, levels.height, 3)


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_every_step_is_the_packages(kind: dict[str, Any]) -> None:
    """Position, direction, image, whole grid, load, termination and success; half of the actions lead to the goal."""
    task, rng = Navigation(**kind), np.random.default_rng(0)
    env = task.make_env()
    seen: Counter[str] = Counter()
    index = 0
    while seen["steps"] < STEPS:
        levels = task.levels(task.draw("test", [index]))
        obs, _ = env.reset(seed=task.instance("test", index)[0])
        index += 1
        graphs = compile_graphs(levels, task.horizon)
        distance = np.r_[graphs.distances, task.horizon + 1, 0]  # the sinks come last: failure, success
        node, state = int(graphs.start[0]), levels.starts()
        for _ in range(env.max_steps):
            view = views(levels, state)[0]
            _, cell, _, *doors, key = (int(digit[0]) for digit in levels.decode(state))
            assert (TRIPLES[view[:-1]].reshape(7, 7, 3) == obs["image"]).all()
            assert view[-1] == obs["direction"] == env.agent_dir
            assert (graphs.observations[graphs.observation_of[node]].numpy() == view).all()
            assert divmod(cell, levels.height) == tuple(int(v) for v in env.agent_pos)
            assert (whole_grid(levels, doors, key) == env.grid.encode()).all()
            assert (levels.keys is not None and key == levels.carried) == (env.carrying is not None)

            towards = int(distance[graphs.successor[node]].argmin())
            action = towards if rng.random() < 0.5 else int(rng.choice(7, p=[0.15, 0.15, 0.3, 0.1, 0.1, 0.15, 0.05]))
            before = state
            following, outcomes = levels.step(state)
            state, outcome = following[:, action], outcomes[:, action]
            obs, reward, terminated, truncated, _ = env.step(action)
            assert (outcome[0] == SUCCESS) == (reward > 0)
            assert (outcome[0] != 0) == terminated
            node = int(graphs.successor[node, action])
            seen["steps"] += 1
            seen[ACTIONS[action]] += bool((before != state).any())
            seen["success" if outcome[0] == SUCCESS else "failure"] += bool(terminated)
            if terminated or truncated:
                assert (node < 0) == terminated
                assert not terminated or node == outcome[0]
                break
    assert seen["success"] > 10
    if task.kind.build is LEVELS["lava-crossing"].build:
        assert seen["failure"] > 10
    for action, needs in ((PICKUP, "key"), (DROP, "key"), (TOGGLE, "door")):
        present = (encode_grid(env.grid.encode()) >= (KEY if needs == "key" else DOOR)).any()
        assert (seen[ACTIONS[action]] > 5) == bool(present or (needs == "key" and env.carrying))


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_batch_is_its_levels_side_by_side(kind: dict[str, Any]) -> None:
    """The same steps and views in a batch of four as one by one, for 80 random steps each."""
    task, rng = Navigation(**kind), np.random.default_rng(1)
    levels = levels_of(task, 4)
    singles = [Levels([v], levels.see_through, levels.open_to_win) for v in levels.levels]
    states, alone = levels.starts(), [single.starts() for single in singles]
    for _ in range(80):
        actions = rng.integers(0, len(ACTIONS), 4)
        seen = views(levels, states)
        following, outcomes = levels.step(states)
        for i, single in enumerate(singles):
            assert (views(single, alone[i])[0] == seen[i]).all()
            stepped, outcome = single.step(alone[i])
            _, *poses = levels.decode(following[i])
            assert np.array_equal(single.decode(stepped[0])[1:], poses)
            assert (outcome[0] == outcomes[i]).all()
            alone[i] = single.starts() if outcome[0, actions[i]] else stepped[:, actions[i]]
        chosen = np.arange(4), actions
        states = np.where(outcomes[chosen] != 0, levels.starts(), following[chosen])


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_a_batch_of_graphs_is_its_graphs_side_by_side(kind: dict[str, Any]) -> None:
    task = Navigation(**kind)
    together = compile_graphs(levels_of(task, 3), task.horizon)
    alone = [compile_graphs(task.levels(task.draw("train", [i])), task.horizon) for i in range(3)]
    assert len(together.successor) == sum(len(graph.successor) for graph in alone)
    for i, graph in enumerate(alone):
        rng, node, single = np.random.default_rng(i), int(together.start[i]), int(graph.start[0])
        for _ in range(300):
            assert (
                together.observations[together.observation_of[node]] == graph.observations[graph.observation_of[single]]
            ).all()
            action = int(rng.integers(0, len(ACTIONS)))
            node, single = int(together.successor[node, action]), int(graph.successor[single, action])
            assert (node < 0) == (single < 0)
            if node < 0:
                assert node == single
                node, single = int(together.start[i]), int(graph.start[0])


@pytest.mark.parametrize("kind", KINDS, ids=NAMES)
def test_the_shortest_solution_is_that_of_the_graph(kind: dict[str, Any]) -> None:
    task = Navigation(**kind)
    levels = levels_of(task, 25)
    graphs = compile_graphs(levels, task.horizon)
    fewest = [shortest_solution(v, task.horizon, open_to_win=levels.open_to_win) for v in levels.levels]
    assert fewest == graphs.distances[graphs.start].tolist()
    for level, actions in zip(levels.levels, fewest, strict=True):
        for limit in range(1, task.horizon + 1):
            assert can_be_solved(level, limit, open_to_win=levels.open_to_win) == (limit >= (actions or 0))
    assert shortest_solution(levels.levels[0], int(fewest[0] or 0) - 1, open_to_win=levels.open_to_win) is None
    assert len(set(fewest)) > 3


def test_distinct_columns_and_clashes_of_their_fingerprints() -> None:
    columns = np.random.default_rng(0).integers(0, 2, (7, 500))
    first, index = distinct_columns(columns)
    assert len(first) == len(np.unique(columns, axis=1).T)
    assert (columns[:, first][:, index] == columns).all()

    def mixed(value: int) -> int:
        product = value * int(FACTOR) % 2**64
        return product ^ product >> 32

    other = mixed(1) ^ mixed(2)  # so that (1, 0) and (2, other) have the same fingerprint
    clash = np.array([[1, 2, 1], [0, other, 0]], np.uint64)
    first, index = distinct_columns(clash)
    assert len(first) == 2
    assert (clash[:, first][:, index] == clash).all()


def test_a_key_of_another_color_opens_nothing_and_a_load_is_shown_once() -> None:
    """Not among the package's levels, but its rules say so: 1,200 steps, half with a misfit, clear walls."""
    env, rng, steps, toggled = DoorKeyEnv(size=6, see_through_walls=True), np.random.default_rng(0), 0, Counter[bool]()
    for seed in range(40):
        obs, _ = env.reset(seed=seed)
        key = next(cell for cell in env.grid.grid if cell is not None and cell.type == "key")
        key.color = "blue" if seed % 2 else "yellow"
        obs = env.gen_obs()
        levels = Levels([encode_level(env)], see_through=True)
        state = levels.starts()
        for _ in range(50):
            assert (TRIPLES[views(levels, state)[0, :-1]].reshape(7, 7, 3) == obs["image"]).all()
            _, _, _, *doors, key = (int(digit[0]) for digit in levels.decode(state))
            assert (whole_grid(levels, doors, key) == env.grid.encode()).all()
            ahead = env.grid.get(*env.front_pos)
            usual = {"key": PICKUP, "door": TOGGLE}.get(ahead.type if ahead is not None else "", 2)
            action = usual if rng.random() < 0.4 else int(rng.integers(3))
            toggled[bool(seed % 2)] += action == TOGGLE and env.carrying is not None
            following, outcomes = levels.step(state)
            state, outcome = following[:, action], outcomes[:, action]
            obs, _, terminated, _, _ = env.step(action)
            assert (outcome[0] != 0) == terminated
            steps += 1
            if terminated:
                break
    assert steps > 1200
    assert min(toggled[False], toggled[True]) > 5


def test_levels_with_too_many_states_are_refused() -> None:
    env = DoorKeyEnv(size=16)
    env.reset(seed=0)
    with pytest.raises(ValueError, match="have more than 100000 states; choose a smaller size"):
        compile_graphs(Levels([encode_level(env)]), 100)


def test_levels_that_do_not_fit_side_by_side_are_refused() -> None:
    level = Navigation("doorkey").instance("train", 0)[1]
    for first, end, message in ((DOOR, KEY, "equal numbers of doors"), (KEY, 255, "one key each, or none")):
        without = np.where((level.cells >= first) & (level.cells < end), EMPTY, level.cells)
        with pytest.raises(ValueError, match=message):
            Levels([level, Level(without, level.x, level.y, level.direction)]).starts()


def test_an_object_that_is_not_simulated_is_named() -> None:
    with pytest.raises(ValueError, match="not simulated"):
        encode_grid(np.full((3, 3, 3), OBJECT_TO_IDX["ball"]))
