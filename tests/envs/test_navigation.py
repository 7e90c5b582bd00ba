"""Navigation tasks: instances, splits, options, and pass rates against the package's own episodes."""

import subprocess
import sys
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import maxrl_bench.envs.registration  # noqa: F401  the import registers the environments
from maxrl_bench.envs.minigrid_graph import compile_graphs, shortest_solution
from maxrl_bench.envs.minigrid_simulator import EMPTY, TRIPLES, WALL, Level, Levels
from maxrl_bench.envs.navigation import Navigation
from maxrl_bench.envs.navigation_env import NavigationEnv
from maxrl_bench.rollouts.graphs import SUCCESS, StateGraphs
from maxrl_bench.rollouts.policies import ObservationPolicy, make_policy
from maxrl_bench.tasks import SPLITS, TASKS, make_task
from maxrl_bench.testing import walking

NAVIGATION = [name for name, entry in TASKS.items() if entry.family == "navigation"]


def levels_of(task: Navigation, split: str, count: int) -> Levels:
    return task.levels(task.draw(split, range(count)))


@pytest.mark.parametrize("name", NAVIGATION)
def test_every_level_can_be_solved_within_the_horizon(name: str) -> None:
    task = make_task(name)
    assert isinstance(task, Navigation)
    levels = levels_of(task, "test", 30)
    for level in levels.levels:
        assert shortest_solution(level, task.horizon, open_to_win=levels.open_to_win) is not None


def test_levels_that_cannot_be_solved_in_time_are_not_drawn() -> None:
    lengths = {
        horizon: [
            shortest_solution(v, 100) or 0 for v in levels_of(Navigation("fourrooms", horizon), "train", 40).levels
        ]
        for horizon in (12, 60)
    }
    assert max(lengths[12]) <= 12
    assert max(lengths[60]) > 12


@pytest.mark.parametrize("options", [{"level": "fourrooms"}, {"level": "empty", "size": 5}, {"level": "multiroom"}])
def test_splits_share_no_level(options: dict[str, Any]) -> None:
    task = Navigation(**options)
    keys = {split: {task.instance(split, i)[1].key() for i in range(150)} for split in SPLITS}
    assert not keys["train"] & keys["validation"]
    assert not keys["train"] & keys["test"]
    assert not keys["validation"] & keys["test"]


def test_rooms_that_are_only_shifted_are_the_same_instance() -> None:
    """To the agent they are: they must not be in two splits."""
    levels = levels_of(Navigation("multiroom"), "train", 20).levels
    level = next(v for v in levels if (v.cells[-1] == EMPTY).all())
    shifted = Level(np.roll(level.cells, 1, axis=0), level.x + 1, level.y, level.direction)
    assert shifted.key() == level.key()
    graphs = [compile_graphs(Levels([v]), 40) for v in (level, shifted)]
    assert torch.equal(graphs[0].observations, graphs[1].observations)
    assert (graphs[0].successor == graphs[1].successor).all()
    turned = Level(level.cells, level.x, level.y, (level.direction + 1) % 4)
    assert turned.key() != level.key()


def test_crossings_that_differ_behind_closed_walls_are_the_same_instance() -> None:
    """No policy can tell them apart: they must not be in two splits."""
    task = make_task("simple-crossing-11")
    assert isinstance(task, Navigation)
    closed = 0
    for level in levels_of(task, "train", 40).levels:
        x, y = np.nonzero(level.cells == EMPTY)
        walks = compile_graphs(Levels([level]), task.horizon)
        for spot in zip(x.tolist(), y.tolist(), strict=True):
            cells = level.cells.copy()
            cells[spot] = WALL
            if spot == (level.x, level.y):
                continue
            walled = Level(cells, level.x, level.y, level.direction)
            if walled.key() == level.key():
                closed += 1
                others = compile_graphs(Levels([walled]), task.horizon)
                assert walking.questions(others) == walking.questions(walks)
    assert closed > 5
    turned = Level(level.cells, level.x, level.y, (level.direction + 1) % 4)
    assert turned.key() != level.key()


def test_instances_are_pure_in_every_process_and_order() -> None:
    code = (
        "from maxrl_bench.envs.navigation import Navigation; "
        "print([Navigation().instance('test', i)[0] for i in (3, 1)])"
    )
    task = Navigation()
    expected = str([task.instance("test", 3)[0], task.instance("test", 1)[0]])
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == expected  # another process hashes with another PYTHONHASHSEED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"level": "four-rooms"}, "option 'level': unknown 'four-rooms'; did you mean 'fourrooms'?"),
        ({"level": "fourrooms", "size": 9}, "level 'fourrooms' has no option 'size'; accepted: level, horizon"),
        ({"level": "doorkey", "size": 16}, "option 'size' must be a whole number from 5 to 8, got 16"),
        ({"level": "simple-crossing", "size": 8}, "option 'size' must be odd for crossings, got 8"),
        ({"level": "simple-crossing", "size": 7, "crossings": 4}, "'crossings' must be at most size - 4 = 3, got 4"),
        ({"level": "doorkey", "horizon": 2}, "none of 100 levels can be solved within a horizon of 2 actions"),
        ({"level": "fourrooms", "horizon": 0}, "option 'horizon' must be a whole number from 1 to 100, got 0"),
        ({"level": "fourrooms", "horizon": 101}, "option 'horizon' must be a whole number from 1 to 100, got 101"),
        ({"level": "fourrooms", "horizon": True}, "option 'horizon' must be a whole number"),
    ],
)
def test_bad_options_are_refused_in_one_line(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message.replace("?", r"\?")) as caught:
        Navigation(**options)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "rounds"),
    [
        ({"level": "empty", "size": 6, "horizon": 20}, 2),
        ({"level": "lava-crossing", "size": 7, "crossings": 2}, 20),
        ({"level": "doorkey", "size": 5, "horizon": 40}, 20),
    ],
    ids=["empty", "lava-crossing", "doorkey"],
)
def test_exact_pass_rate_against_episodes_of_the_package(options: dict[str, Any], rounds: int) -> None:
    """3 levels, 120 episodes each of the package, with its images; five standard errors: 1 false alarm in 100,000.

    The policy leans on the demonstrations a little, so that pass rates are neither 0 nor 1.
    """
    torch.set_num_threads(1)
    task = Navigation(**options)
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(0), width=16)
    assert isinstance(policy, ObservationPolicy)
    batch = task.batch("test", range(3))
    optimizer = torch.optim.Adam(policy.parameters(), lr=1e-2)
    for _ in range(rounds):
        optimizer.zero_grad()
        batch.demonstration_loss(policy).backward()
        optimizer.step()
    with torch.no_grad():
        exact = batch.log_pass_rate(policy).exp().numpy()
    assert exact.min() > 0.02
    assert exact.max() < 0.98
    code_of = {tuple(triple): code for code, triple in enumerate(TRIPLES.tolist())}
    cache: dict[bytes, np.ndarray] = {}

    def act(obs: dict[str, Any], rng: np.random.Generator) -> int:
        key = obs["image"].tobytes() + bytes([obs["direction"]])
        if key not in cache:
            codes = [code_of[tuple(t)] for t in obs["image"].reshape(-1, 3).tolist()]
            with torch.no_grad():
                log_probs = policy.log_probs(torch.tensor([[*codes, int(obs["direction"])]]))
            cache[key] = log_probs[0].double().softmax(0).numpy()
        return int(rng.choice(7, p=cache[key]))

    env, rng, episodes = task.make_env(), np.random.default_rng(1), 120
    for index in range(3):
        successes = 0
        for _ in range(episodes):
            obs, _ = env.reset(seed=task.instance("test", index)[0])
            for _ in range(task.horizon):
                obs, reward, terminated, _, _ = env.step(act(obs, rng))
                successes += reward > 0
                if terminated:
                    break
        error = np.sqrt(exact[index] * (1 - exact[index]) / episodes)
        assert abs(successes / episodes - exact[index]) < 5 * error


def test_render_shows_the_start_and_every_step() -> None:
    frames = Navigation("empty", size=5).render("test", 0, [0, 1, 0])
    assert len(frames) == 4
    assert frames[0].shape == (80, 80, 3)
    assert frames[0].dtype == np.uint8
    assert (frames[0] == frames[2]).all()
    assert (frames[0] != frames[1]).any()


def test_frames_end_with_the_rollout() -> None:
    task = Navigation("empty", size=5)
    way = shortest_way(task.batch("test", [0]), 0)
    assert len(task.render("test", 0, [*way, 0, 0])) == len(way) + 1
    assert len(task.render("test", 0, [0] * 99)) == task.horizon + 1


def test_a_success_on_the_last_action_is_not_truncated() -> None:
    graphs = Navigation("empty", horizon=6).batch("test", range(50))
    index = int(np.argmax(graphs.distances[graphs.start] == 6))
    env = gymnasium.make("maxrl_bench/empty-8-v0", horizon=6, disable_env_checker=True)
    env.reset(options={"split": "test", "index": index})
    ends = [env.step(np.int64(action))[1:4] for action in shortest_way(graphs, index)]
    assert ends == [(0.0, False, False)] * 5 + [(1.0, True, False)]


def shortest_way(graphs: StateGraphs, row: int) -> list[int]:
    """The actions of a shortest solution."""
    value = np.r_[graphs.distances, graphs.horizon + 1, 0]  # the sinks come last: failure, success
    node, actions = int(graphs.start[row]), []
    while node >= 0:
        actions.append(int(value[graphs.successor[node]].argmin()))
        node = int(graphs.successor[node, actions[-1]])
    return actions


@pytest.mark.parametrize("name", ["lava-crossing-9", "multiroom-2", "unlock", "doorkey-5"])
def test_the_everyday_view_shows_what_the_graph_says(name: str) -> None:
    """Observations, rewards and ends over 20 episodes of the package, half of the actions towards the goal."""
    task, rng = make_task(name), np.random.default_rng(0)
    env = gymnasium.make(f"maxrl_bench/{name}-v0", disable_env_checker=True)
    batch = task.batch("validation", range(20))
    assert isinstance(batch, StateGraphs)
    distance = np.r_[batch.distances, task.horizon + 1, 0]  # the sinks come last: failure, success
    ends = set()
    for index in range(20):
        node = int(batch.start[index])
        obs, info = env.reset(options={"split": "validation", "index": index})
        assert info == {"split": "validation", "index": index}
        for step in range(1, task.horizon + 1):
            assert obs.tolist() == batch.observations[batch.observation_of[node]].tolist()
            towards = int(distance[batch.successor[node]].argmin())
            action = towards if rng.random() < index / 20 else int(rng.integers(task.num_actions))
            node = int(batch.successor[node, action])
            obs, reward, terminated, truncated, _ = env.step(np.int64(action))
            assert reward == (node == SUCCESS)
            assert terminated == (node < 0)
            assert truncated == (not terminated and step == task.horizon)
            if terminated or truncated:
                ends.add((reward, terminated))
                break
    assert {(1.0, True), (0.0, False)} <= ends


@pytest.mark.filterwarnings("ignore")  # what the checker only finds unusual; what it finds wrong, it raises
def test_the_everyday_view_passes_gymnasiums_checker_with_frames() -> None:
    env = gymnasium.make("maxrl_bench/doorkey-5-v0", render_mode="rgb_array", disable_env_checker=True)
    check_env(env.unwrapped)
    env.reset(options={"split": "test", "index": 3})
    assert (np.asarray(env.render()) == make_task("doorkey-5").render("test", 3, [])[0]).all()


def test_the_everyday_view_refuses_other_tasks() -> None:
    with pytest.raises(ValueError, match="'digits' is not a navigation task"):
        NavigationEnv("digits")
