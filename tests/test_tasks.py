import subprocess
import sys

import numpy as np
import pytest

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


def test_an_unknown_task_lists_the_near_matches() -> None:
    with pytest.raises(ValueError, match="unknown task 'four-rooms'; did you mean fourrooms"):
        tasks.make_task("four-rooms")
    with pytest.raises(ValueError, match="known tasks: .*fourrooms"):
        tasks.make_task("qqqq")


def test_an_option_that_the_task_does_not_have_is_refused() -> None:
    with pytest.raises(ValueError, match="fourrooms.*sise"):
        tasks.make_task("fourrooms", sise=3)


def test_a_package_that_shadows_envs_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(tasks.TASKS, "shadowed", tasks.TaskEntry("x", "email.message:NoSuchTask", {}))
    with pytest.raises(ValueError, match="another package of that name shadows it"):
        tasks.make_task("shadowed")
