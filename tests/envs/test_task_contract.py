"""What every task promises, checked for every row of TASKS; a new task needs no test of its own for this."""

from __future__ import annotations

import functools
import itertools
import unittest
import warnings
from collections.abc import Callable, Iterator

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium.utils.env_checker import check_env

import maxrl_bench.envs.registration  # noqa: F401  the import registers the environments
from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.rollouts.tokens import RUNNING, SUCCEEDED, TokenBatch
from maxrl_bench.tasks import TASKS, DrawingTask, Task, make_task
from maxrl_bench.testing import task_checks
from maxrl_bench.testing.walking import Walk, demonstrations

NAMES = list(TASKS)


@functools.cache
def subject_of(name: str) -> task_checks.Subject:
    return task_checks.Subject(functools.partial(make_task, name), rollouts=1000, stages=3)


def task_of(name: str) -> Task:
    return subject_of(name).task


def demonstrated(batch: TokenBatch | StateGraphs) -> list[list[int]]:
    routes = demonstrations(batch)
    assert routes is not None
    return routes


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small matrices are slower on several threads, the more so where other tests run beside these."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


def tried_actions(batch: TokenBatch | StateGraphs, num_actions: int, rng: np.random.Generator) -> np.ndarray:
    """[B, horizon]: demonstrations that slip at a random step into random actions, so that every outcome occurs."""
    tried = rng.integers(0, num_actions, (batch.num_instances, batch.horizon))
    for row, route in enumerate(demonstrated(batch)):
        kept = int(rng.integers(len(route) + 1))
        tried[row, :kept] = route[:kept]
    return tried


def excused(name: str, check: Callable[[task_checks.Subject], None]) -> bool:
    """Whether a check need not apply to a task, so that none passes by applying to nobody."""
    task = task_of(name)
    lists = task.exact and isinstance(task.batch("train", [0]), TokenBatch)
    return {
        task_checks.sampled_rollouts_succeed_at_the_exact_pass_rate: not task.exact,
        task_checks.log_pass_rates_have_their_gradient: not task.exact,
        task_checks.sampled_tasks_refuse_exact_pass_rates: task.exact,
        task_checks.drawn_instances_make_the_batch_again: not isinstance(task, DrawingTask),
        task_checks.listed_solutions_are_accepted: not lists,
        task_checks.answers_like_the_listed_are_listed: not lists,
        task_checks.accepted_answers_are_listed: not lists,
    }.get(check, False)


@pytest.mark.parametrize("check", task_checks.CHECKS)
@pytest.mark.parametrize("name", NAMES)
def test_every_task_keeps_its_promises(name: str, check: Callable[[task_checks.Subject], None]) -> None:
    skipped = None
    try:
        check(subject_of(name))
    except unittest.SkipTest as reason:
        skipped = str(reason)
    assert skipped is None or excused(name, check), skipped


@pytest.mark.parametrize("name", NAMES)
def test_fields_are_as_the_table_says(name: str) -> None:
    assert task_of(name).name == name
    assert task_of(name).family == TASKS[name].family


@pytest.mark.parametrize("name", NAMES)
def test_the_everyday_view_agrees_with_the_batched_simulator(name: str) -> None:
    rng = np.random.default_rng(1)
    batch = subject_of(name).known("validation", 6)
    tried = tried_actions(batch, task_of(name).num_actions, rng)
    tried[0, : len(demonstrated(batch)[0])] = demonstrated(batch)[0]
    env = gymnasium.make(f"maxrl_bench/{name}-v0", disable_env_checker=True)
    simulation = Walk(batch)
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
    route = demonstrated(subject_of(name).known("test", 4))[3]
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
