"""What every task promises, checked for every row of TASKS; a new task needs no test of its own for this."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from functools import cache

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import maxrl_bench.envs.registration  # noqa: F401  the import registers the environments
from maxrl_bench.rollouts.graphs import FAILURE, SUCCESS, StateGraphs
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.tokens import FAILED, RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import (
    SPLITS,
    TASKS,
    CategoricalContexts,
    DrawingTask,
    PixelContexts,
    Task,
    TokenContexts,
    make_task,
)

NAMES = list(TASKS)
# Small networks: the contract is about tasks.
TOKEN_SIZES = {"width": 32, "layers": 1}
OUTCOMES = {SUCCESS: SUCCEEDED, FAILURE: FAILED}

task_of = cache(make_task)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices are slower on several threads, the more so where other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@cache
def batch_of(name: str, split: str, count: int) -> TokenBatch | StateGraphs:
    batch = task_of(name).batch(split, range(count))
    assert isinstance(batch, TokenBatch | StateGraphs)
    return batch


def content(batch: object) -> bytes:
    """All that a batch of one instance asks, as bytes."""
    if isinstance(batch, TokenBatch):
        return batch.prompts.numpy().tobytes()
    assert isinstance(batch, StateGraphs)
    return batch.observations.numpy().tobytes() + batch.successor.tobytes() + batch.start.tobytes()


def demonstrations_of(batch: TokenBatch | StateGraphs) -> list[list[int]]:
    """The demonstrated actions of every instance."""
    if isinstance(batch, TokenBatch):
        assert batch.demonstrations is not None
        return [[action for action in row if action >= 0] for row in batch.demonstrations.tolist()]
    states, actions = (np.asarray(part) for part in batch.demonstrations)
    step = dict(zip(states.tolist(), actions.tolist(), strict=True))
    routes = []
    for state in batch.start.tolist():
        route: list[int] = []
        while state >= 0 and len(route) < batch.horizon:
            route.append(step[state])
            state = int(batch.successor[state, route[-1]])
        routes.append(route)
    return routes


class Simulation:
    """All instances of a batch, walked at once, one action each."""

    def __init__(self, batch: TokenBatch | StateGraphs):
        self.batch = batch
        self.states = batch.verifier.start() if isinstance(batch, TokenBatch) else np.asarray(batch.start)
        self.outcome = np.full(batch.num_instances, RUNNING)

    def step(self, actions: np.ndarray) -> None:
        """Actions [B]; those of rollouts that have ended are ignored."""
        going = np.flatnonzero(self.outcome == RUNNING)
        if isinstance(self.batch, TokenBatch):
            after, outcome = self.batch.verifier.advance(self.states[going], actions[going])
            assert after.shape == self.states[going].shape
            assert after.dtype == np.int64
            assert set(np.unique(outcome)) <= {RUNNING, SUCCEEDED, FAILED}
        else:
            after = np.asarray(self.batch.successor)[self.states[going], actions[going]]
            outcome = np.array([OUTCOMES.get(state, RUNNING) for state in after.tolist()], int)
        self.states = self.states.copy()
        self.states[going], self.outcome[going] = after, outcome


def replay(batch: TokenBatch | StateGraphs, routes: list[list[int]]) -> np.ndarray:
    """How rollouts of these actions end."""
    simulation = Simulation(batch)
    for step in range(max(map(len, routes))):
        for row, route in enumerate(routes):
            assert step < len(route) or simulation.outcome[row] != RUNNING
        simulation.step(np.array([route[step] if step < len(route) else 0 for route in routes]))
    return simulation.outcome


def tried_actions(batch: TokenBatch | StateGraphs, num_actions: int, rng: np.random.Generator) -> np.ndarray:
    """[B, horizon]: demonstrations that slip at a random step into random actions, so that every outcome occurs."""
    tried = rng.integers(0, num_actions, (batch.num_instances, batch.horizon))
    for row, route in enumerate(demonstrations_of(batch)):
        kept = int(rng.integers(len(route) + 1))
        tried[row, :kept] = route[:kept]
    return tried


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_as_the_table_says(name: str) -> None:
    task: Task = task_of(name)
    assert task.name == name
    assert task.family == TASKS[name].family
    assert task.horizon >= 1
    assert task.num_actions >= 2


@pytest.mark.parametrize("name", NAMES)
def test_instances_are_pure_and_independent_of_their_batch(name: str) -> None:
    alone = {(split, i): content(task_of(name).batch(split, [i])) for split in SPLITS for i in (0, 1, 2**40 + 7)}
    again = make_task(name)
    assert alone == {(split, i): content(again.batch(split, [i])) for split, i in reversed(alone)}
    assert len(set(alone.values())) > len(SPLITS)  # the smallest spaces may repeat an instance
    together = task_of(name).batch("train", [2**40 + 7, 1, 0])
    if isinstance(together, TokenBatch):
        rows = [row.numpy().tobytes() for row in together.prompts]
        assert rows == [alone["train", i] for i in (2**40 + 7, 1, 0)]
    else:
        assert isinstance(together, StateGraphs)
        for row, i in enumerate((2**40 + 7, 1, 0)):
            single = task_of(name).batch("train", [i])
            assert isinstance(single, StateGraphs)
            seen = [b.observations[b.observation_of[b.start[r]]] for b, r in ((together, row), (single, 0))]
            assert torch.equal(*seen)


@pytest.mark.parametrize("name", NAMES)
def test_instances_that_are_drawn_as_arrays_make_the_batch_again(name: str) -> None:
    task = task_of(name)
    if not isinstance(task, DrawingTask):
        pytest.skip("draws and builds in one step")
    first, second = (task.draw("train", indices) for indices in ([3, 1, 4], [1, 5, 9]))
    assert {key: (a.shape, a.dtype) for key, a in first.items()} == {k: (a.shape, a.dtype) for k, a in second.items()}
    assert not any(values.dtype.hasobject for values in first.values())
    assert content(task.build(first)) == content(task.batch("train", [3, 1, 4])) != content(task.build(second))


@pytest.mark.parametrize("name", NAMES)
def test_splits_share_no_instance(name: str) -> None:
    count = 30 if isinstance(task_of(name).contexts, CategoricalContexts) else 150
    seen = {split: {content(task_of(name).batch(split, [i])) for i in range(count)} for split in SPLITS}
    assert sum(map(len, seen.values())) == len(set.union(*seen.values()))


@pytest.mark.parametrize("name", NAMES)
def test_shapes_and_ranges(name: str) -> None:
    task, batch = task_of(name), batch_of(name, "validation", 6)
    assert batch.num_instances == 6
    assert batch.horizon == task.horizon
    if isinstance(batch, TokenBatch):
        assert isinstance(task.contexts, TokenContexts)
        actions = torch.arange(task.contexts.vocabulary) if batch.actions is None else batch.actions
        assert len(actions) == task.num_actions
        assert len(set(actions.tolist())) == len(actions)
        assert batch.prompts.shape[0] == 6
        assert batch.prompts.dtype == actions.dtype == torch.int64
        assert batch.prompts.shape[1] + task.horizon <= task.contexts.max_length
        for tokens in (batch.prompts, actions):
            assert 0 <= int(tokens.min()) <= int(tokens.max()) < task.contexts.vocabulary
        assert batch.demonstrations is not None
        assert batch.demonstrations.shape[1] <= task.horizon
        assert int(batch.demonstrations.max()) < task.num_actions
        assert (batch.solutions is not None) == task.exact
        return
    assert batch.successor.shape[1] == task.num_actions
    assert len(batch.observation_of) == len(batch.successor)
    assert batch.successor.min() >= FAILURE
    assert batch.successor.max() < len(batch.successor)
    assert batch.observation_of.max() < len(batch.observations)
    if isinstance(task.contexts, CategoricalContexts):
        assert batch.observations.shape[1] == len(task.contexts.cardinalities)
        assert (batch.observations >= 0).all()
        assert (batch.observations < torch.tensor(task.contexts.cardinalities)).all()
    else:
        assert isinstance(task.contexts, PixelContexts)
        assert batch.observations.shape[1:] == task.contexts.shape
        assert 0 <= float(batch.observations.min()) <= float(batch.observations.max()) <= 1


@pytest.mark.parametrize("name", NAMES)
def test_demonstrations_succeed_within_the_horizon(name: str) -> None:
    batch = batch_of(name, "test", 24)
    routes = demonstrations_of(batch)
    assert max(map(len, routes)) <= batch.horizon
    assert (replay(batch, routes) == SUCCEEDED).all()


@pytest.mark.parametrize("name", NAMES)
def test_every_sequence_of_actions_has_an_outcome(name: str) -> None:
    rng = np.random.default_rng(0)
    batch = batch_of(name, "test", 24)
    for _ in range(5):
        simulation = Simulation(batch)
        for actions in rng.integers(0, task_of(name).num_actions, (batch.horizon, 24)):
            simulation.step(actions)  # checks what comes back


@pytest.mark.parametrize("name", NAMES)
def test_the_everyday_view_agrees_with_the_batched_simulator(name: str) -> None:
    rng = np.random.default_rng(1)
    batch = batch_of(name, "validation", 6)
    tried = tried_actions(batch, task_of(name).num_actions, rng)
    tried[0, : len(demonstrations_of(batch)[0])] = demonstrations_of(batch)[0]
    env = gymnasium.make(f"maxrl_bench/{name}-v0", disable_env_checker=True)
    simulation = Simulation(batch)
    outcomes = np.empty((6, batch.horizon), int)
    for step in range(batch.horizon):
        simulation.step(tried[:, step])
        outcomes[:, step] = simulation.outcome
    for row in range(6):
        first, _ = env.reset(options={"split": "validation", "index": row})
        assert env.observation_space.contains(first)
        for step, action in enumerate(tried[row]):
            observation, reward, terminated, truncated, _ = env.step(action)
            assert env.observation_space.contains(observation)
            assert (float(reward) > 0) == (outcomes[row, step] == SUCCEEDED)
            assert terminated == (outcomes[row, step] != RUNNING)
            assert truncated == (not terminated and step + 1 == batch.horizon)
            if terminated or truncated:
                break
    assert SUCCEEDED in outcomes


@pytest.mark.parametrize("name", NAMES)
def test_the_everyday_view_passes_gymnasiums_checker(name: str) -> None:
    env = gymnasium.make(f"maxrl_bench/{name}-v0", disable_env_checker=True)
    with warnings.catch_warnings():
        # What the checker only finds unusual is ours to decide; what it finds wrong, it raises.
        warnings.simplefilter("ignore")
        check_env(env.unwrapped)
        check_env(env.unwrapped)


@pytest.mark.parametrize("name", NAMES)
def test_the_everyday_view_renders_as_its_render_mode_says(name: str) -> None:
    shown = {"ansi": str, "rgb_array": np.ndarray}
    (mode,) = gymnasium.spec(f"maxrl_bench/{name}-v0").make(disable_env_checker=True).metadata["render_modes"]
    env = gymnasium.make(f"maxrl_bench/{name}-v0", render_mode=mode, disable_env_checker=True)
    env.reset(options={"split": "test", "index": 0})
    assert isinstance(env.render(), shown[mode])
    env.step(0)
    assert isinstance(env.render(), shown[mode])
    (other,) = set(shown) - {mode}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # gymnasium warns before we refuse
        with pytest.raises(ValueError, match=f"accepted: {mode}"):
            gymnasium.make(f"maxrl_bench/{name}-v0", render_mode=other, disable_env_checker=True)


@pytest.mark.parametrize("name", NAMES)
def test_rendering_is_for_human_eyes(name: str) -> None:
    task = task_of(name)
    route = demonstrations_of(batch_of(name, "test", 24))[3]
    shown = task.render("test", 3, route)
    if isinstance(shown, str):
        assert shown.strip()
        assert all(character.isprintable() or character == "\n" for character in shown)
        assert max(map(len, shown.split("\n"))) <= 160
        assert task.render("test", 3, []) != shown
        return
    assert len(shown) == len(route) + 1
    assert {(frame.dtype, frame.ndim, frame.shape[2]) for frame in shown} == {(np.dtype(np.uint8), 3, 3)}
    assert all(not np.array_equal(a, b) for a, b in itertools.pairwise(shown))


@pytest.mark.parametrize("name", NAMES)
def test_bad_requests_are_refused_with_one_line(name: str) -> None:
    task = task_of(name)
    with pytest.raises(ValueError, match="accepted: train, validation, test") as caught:
        task.batch("tests", [0])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="index must be 0 or more, got -1") as caught:
        task.batch("test", [-1])
    assert "\n" not in str(caught.value)
    with pytest.raises(ValueError, match="no_such_option") as caught:
        make_task(name, no_such_option=1)
    assert "\n" not in str(caught.value)


def accepted(batch: TokenBatch, row: int, num_actions: int) -> set[tuple[int, ...]]:
    """All answers that the verifier accepts, by trying every action at every prefix that it has not refused."""
    answers: set[tuple[int, ...]] = set()
    states, prefixes = batch.verifier.start()[row : row + 1], np.zeros((1, 0), np.int64)
    for _ in range(batch.horizon):
        if not len(states):
            break
        actions = np.tile(np.arange(num_actions), len(states))
        longer = np.column_stack([np.repeat(prefixes, num_actions, axis=0), actions])
        states, outcome = batch.verifier.advance(np.repeat(states, num_actions, axis=0), actions)
        answers |= {tuple(answer) for answer in longer[outcome == SUCCEEDED].tolist()}
        states, prefixes = states[outcome == RUNNING], longer[outcome == RUNNING]
    return answers


EXACT_TOKENS = [name for name in NAMES if TASKS[name].family in ("arithmetic", "programs") and task_of(name).exact]


@pytest.mark.parametrize("name", EXACT_TOKENS)
def test_solutions_are_all_that_the_verifier_accepts(name: str) -> None:
    rows = 2 if name == "programs-3" else 8
    batch = batch_of(name, "test", rows)
    assert isinstance(batch, TokenBatch)
    assert batch.solutions is not None
    instance, answers = batch.solutions()
    for row in range(rows):
        listed = [tuple(a for a in answer if a >= 0) for answer in answers[instance == row].tolist()]
        assert len(listed) == len(set(listed))
        assert set(listed) == accepted(batch, row, task_of(name).num_actions)


@pytest.mark.parametrize("name", NAMES)
def test_exact_pass_rates_are_those_of_sampling(name: str) -> None:
    task, batch = task_of(name), batch_of(name, "train", 3)
    sizes = TOKEN_SIZES if isinstance(batch, TokenBatch) else {"width": 32}
    policy = make_policy(task.contexts, task.num_actions, np.random.default_rng(2), **sizes)
    if not task.exact:
        with pytest.raises(ValueError, match=r"\S"):
            batch.log_pass_rate(policy)
        return
    # Lean on the demonstrations of these very instances, so that successes are common enough to be counted.
    optimizer = torch.optim.Adam(policy.parameters(), lr=2e-2)
    p = np.zeros(batch.num_instances)
    for _ in range(20):
        if p.mean() > 0.1:
            break
        for _ in range(3):
            optimizer.zero_grad()
            batch.demonstration_loss(policy).backward()
            optimizer.step()
        with torch.no_grad():
            p = batch.log_pass_rate(policy).exp().numpy()
    assert 0.1 < p.mean() < 0.99
    drawn = 4000
    successes = batch.sample(policy, drawn, np.random.default_rng(3), grad=False).successes
    # Five standard deviations and two counts: a false alarm in ten thousand runs over all tasks.
    assert (np.abs(successes - drawn * p) <= 5 * np.sqrt(drawn * p * (1 - p)) + 2).all()
