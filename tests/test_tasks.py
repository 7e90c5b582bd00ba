import copy
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench import tasks


def propose(rng: np.random.Generator) -> int:
    return int(rng.integers(0, 500))


def key(instance: int) -> bytes:
    return instance.to_bytes(4, "little")


def draw(split: str, count: int, task: str = "numbers") -> list[int]:
    return [tasks.draw_instance(task, split, index, propose, key) for index in range(count)]


def test_splits_never_overlap_even_when_the_instance_space_is_exhausted() -> None:
    drawn = {split: set(draw(split, 2000)) for split in tasks.SPLITS}
    assert not drawn["train"] & drawn["validation"]
    assert not drawn["train"] & drawn["test"]
    assert not drawn["validation"] & drawn["test"]
    assert len(set.union(*drawn.values())) > 480  # nearly the whole space: the check above has teeth


def test_split_shares() -> None:
    splits = [tasks.split_of("numbers", key(i)) for i in range(20_000)]
    for split, share in (("train", 0.6), ("validation", 0.2), ("test", 0.2)):
        # five standard deviations: a false alarm in two million
        assert abs(splits.count(split) / 20_000 - share) < 5 * (share * (1 - share) / 20_000) ** 0.5


def test_instances_are_a_pure_function_in_every_process() -> None:
    code = "from tests.test_tasks import draw; print(draw('test', 5))"
    for hash_seed in ("0", "1"):
        out = subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, env={"PYTHONHASHSEED": hash_seed}
        ).stdout
        assert out.strip() == str(draw("test", 5))


def test_neighbouring_indices_and_tasks_share_nothing() -> None:
    def stream(rng: np.random.Generator) -> tuple[float, ...]:
        return tuple(rng.random(8))

    def content(values: tuple[float, ...]) -> bytes:
        return np.array(values).tobytes()

    seen: set[float] = set()
    for task in ("a", "b"):
        for split in tasks.SPLITS:
            for index in range(50):
                seen |= set(tasks.draw_instance(task, split, index, stream, content))
    assert len(seen) == 2 * 3 * 50 * 8


def test_bad_draws_are_refused_with_what_is_accepted() -> None:
    with pytest.raises(ValueError, match="accepted: train, validation, test"):
        draw("tset", 1)
    with pytest.raises(ValueError, match="0 or more, got -1"):
        tasks.draw_instance("numbers", "train", -1, propose, key)
    other = next(split for split in ("train", "test") if tasks.split_of("numbers", b"x") != split)
    with pytest.raises(ValueError, match="none of 10000 proposed instances"):
        tasks.draw_instance("numbers", other, 0, propose, lambda _: b"x")


@pytest.mark.parametrize("index", [np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)])
def test_an_integer_of_any_library_is_an_index(index: Any) -> None:
    assert tasks.draw_instance("numbers", "train", index, propose, key) == draw("train", 4)[3]


@pytest.mark.parametrize("index", [1.0, 1.5, True, np.bool_(True), np.float64(1), "1", None, float("nan"), [1]])
def test_what_is_no_whole_number_is_no_index(index: Any) -> None:
    """str(1.0), str(True) and str(1) differ, so each would silently have been an instance of its own."""
    with pytest.raises(ValueError, match="an instance's index must be a whole number, got ") as told:
        tasks.draw_instance("numbers", "train", index, propose, key)
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("index", [2**63, 10**5000], ids=["limit", "huge"])
def test_an_index_has_a_limit(index: int) -> None:
    with pytest.raises(ValueError, match=r"must be below 2\^63"):
        tasks.draw_instance("numbers", "train", index, propose, key)
    tasks.draw_instance("numbers", "train", 2**63 - 1, propose, key)


FAMILIES = ("empty-8", "maze-7", "add-2", "programs-1", "digits-2")


@pytest.mark.parametrize("name", FAMILIES)
def test_no_task_takes_a_bad_batch(name: str) -> None:
    task = tasks.make_task(name)
    for indices, message in (
        ([], "a batch needs at least one instance"),
        (3, "a batch is asked for by a list of indices, got 3"),
        ([0, 1.0], "must be a whole number, got 1.0"),
        ([True], "must be a whole number, got True"),
        ([10**400], "must be below"),
    ):
        with pytest.raises(ValueError, match=message) as told:
            task.batch("test", indices)  # type: ignore[arg-type]
        assert "\n" not in str(told.value)
        assert "[" not in str(told.value)  # no name of ours for a space of instances, such as fourrooms[]
    assert task.batch("test", np.arange(2)).num_instances == 2  # type: ignore[arg-type]


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("action", [-1, 10**6, 0.0, True, "0"])
def test_no_task_shows_an_action_that_it_does_not_have(name: str, action: Any) -> None:
    task = tasks.make_task(name)
    with pytest.raises(ValueError, match=f"an action must be a whole number from 0 to {task.num_actions - 1}, got "):
        task.render("test", 0, [action])


@pytest.mark.parametrize("name", [*FAMILIES, "fourrooms", "unlock"])
def test_tasks_can_be_pickled_and_copied(name: str) -> None:
    task = tasks.make_task(name)
    for again in (pickle.loads(pickle.dumps(task)), copy.deepcopy(task), copy.copy(task)):
        assert (again.name, again.horizon, again.num_actions) == (task.name, task.horizon, task.num_actions)
        np.testing.assert_equal(again.render("test", 1, [0]), task.render("test", 1, [0]))
        first, second = (made.batch("test", [5]) for made in (task, again))
        shown = "prompts" if hasattr(first, "prompts") else "observations"
        assert torch.equal(getattr(first, shown), getattr(second, shown))
    resized = tasks.make_task("empty-8", size=6, horizon=20)
    again = pickle.loads(pickle.dumps(resized))
    assert (again.name, again.horizon) == (resized.name, 20)


def test_an_unknown_task_lists_the_near_matches() -> None:
    with pytest.raises(ValueError, match="unknown task 'four-rooms'; did you mean 'fourrooms'"):
        tasks.make_task("four-rooms")
    with pytest.raises(ValueError, match="accepted: .*fourrooms"):
        tasks.make_task("qqqq")


def test_an_option_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="fourrooms.*sise"):
        tasks.make_task("fourrooms", sise=3)
