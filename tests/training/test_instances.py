"""Instances are drawn once for all runs that train on the same; without the files nothing changes but the time."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.envs.digits import Digits
from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import make_task
from maxrl_bench.testing import first_look
from maxrl_bench.training import instances
from maxrl_bench.training.instances import TrainingBatches
from maxrl_bench.training.loop import Run, train


def config(**changes: Any) -> RunConfig:
    small = {"num_rollouts": 4, "batch_size": 2, "steps": 10, "eval_every": 5, "eval_instances": 3}
    return RunConfig(**{"task": "digits", "objective": "maxrl_alg1", **small, **changes})


@pytest.fixture(autouse=True)
def short_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setattr(instances, "CHUNK", 4)


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[list[int]]:
    """The indices of all training instances that are drawn from now on."""
    first_look.look(config().task)  # which is done once in a process
    calls: list[list[int]] = []
    original = Digits.draw

    def draw(self: Digits, split: str, indices: Any) -> Any:
        if split == "train":
            calls.append(list(indices))
        return original(self, split, indices)

    monkeypatch.setattr(Digits, "draw", draw)
    return calls


def files(root: Path) -> list[Path]:
    return sorted(root.glob("base-*/drawn-*.npz"))


def pictures(batches: TrainingBatches, steps: range) -> list[np.ndarray]:
    made = [batches(step) for step in steps]
    assert all(isinstance(batch, StateGraphs) for batch in made)
    return [batch.observations.numpy() for batch in made if isinstance(batch, StateGraphs)]


def test_the_second_run_draws_nothing_that_the_first_has_left(tmp_path: Path, drawn: list[list[int]]) -> None:
    train(config(), Store(tmp_path))
    assert len(drawn) == 10
    assert len(files(tmp_path)) == 2  # the last two steps are no whole chunk
    train(config(objective="grpo"), Store(tmp_path))
    assert len(drawn) == 12


def test_results_are_those_of_a_run_that_draws_for_itself(tmp_path: Path) -> None:
    for objective in ("maxrl_alg1", "grpo"):
        train(config(objective=objective), Store(tmp_path / "shared"))
    train(config(objective="grpo"), Store(tmp_path / "alone"))
    run = config(objective="grpo").hash
    shared, alone = (Store(tmp_path / name).tables(run) for name in ("shared", "alone"))
    assert shared[0].drop(columns="seconds").equals(alone[0].drop(columns="seconds"))
    assert shared[1].equals(alone[1])
    assert not files(tmp_path / "shared" / run)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"batch_size": 3}, {"train_instances": 5}, {"task": {"name": "digits", "places": 2}}]
)
def test_runs_that_train_on_other_instances_share_nothing(tmp_path: Path, changes: Any) -> None:
    first, second = config(), config(**changes)
    for one in (first, second):
        batches = TrainingBatches(one, make_task(**one.task), Store(tmp_path))
        for step in range(4):
            batches(step)
    assert len(files(tmp_path)) == 2


def test_other_code_shares_nothing(tmp_path: Path) -> None:
    for code in ("a-1", "a-2", "b-1"):  # the part after the dash depends on the objective
        batches = TrainingBatches(config(), make_task("digits"), Store(tmp_path, code))
        for step in range(4):
            batches(step)
    assert len(files(tmp_path)) == 2


@pytest.mark.parametrize("damage", [b"", b"no archive", b"half"])
def test_a_damaged_file_is_drawn_again(tmp_path: Path, drawn: list[list[int]], damage: bytes) -> None:
    task, reports = make_task("digits"), list[str]()
    store = Store(tmp_path, report=reports.append)
    before = pictures(TrainingBatches(config(), task, store), range(4))
    (path,) = files(tmp_path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2] if damage == b"half" else damage)
    drawn.clear()
    after = pictures(TrainingBatches(config(), task, store), range(4))
    assert all(np.array_equal(a, b) for a, b in zip(before, after, strict=True))
    assert len(drawn) == 4
    assert "is not used" in reports[0]
    assert len(pictures(TrainingBatches(config(), task, store), range(4))) == len(drawn)  # whole again


def test_a_file_of_other_arrays_is_drawn_again(tmp_path: Path, drawn: list[list[int]]) -> None:
    """With a true checksum, as another program may write it: too few steps, no archive, objects."""
    batches = TrainingBatches(config(), make_task("digits"), store := Store(tmp_path))
    for data in (b"no archive", b""):
        store.write(batches.folder, "drawn-000000.npz", data)
        assert len(pictures(TrainingBatches(config(), make_task("digits"), store), range(3))) == 3
    assert len(drawn) == 6


def test_a_run_that_begins_within_a_chunk_leaves_only_whole_ones(tmp_path: Path, drawn: list[list[int]]) -> None:
    batches = TrainingBatches(config(), make_task("digits"), Store(tmp_path))
    for step in range(2, 9):
        batches(step)
    assert [path.name for path in files(tmp_path)] == ["drawn-000001.npz"]
    assert len(drawn) == 7


def test_all_files_together_keep_the_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store(tmp_path)
    for seed in range(3):
        batches = TrainingBatches(config(seed=seed), make_task("digits"), store)
        for step in range(4):
            batches(step)
        size = files(tmp_path)[0].stat().st_size
        monkeypatch.setattr(instances, "LIMIT", int(2.5 * size))
    assert len(files(tmp_path)) == 2


def test_nothing_is_removed_or_written_through_a_link(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, elsewhere = Store(tmp_path / "store"), tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "drawn-000000.npz").write_bytes(b"of the user")
    first, second = (TrainingBatches(config(seed=seed), make_task("digits"), store) for seed in (0, 1))
    pictures(first, range(4))
    (store.root / second.folder).symlink_to(elsewhere)
    monkeypatch.setattr(instances, "LIMIT", 0)
    with pytest.warns(UserWarning, match="is not used"):
        pictures(second, range(4))
    for path in files(store.root):
        path.touch()
    pictures(TrainingBatches(config(seed=2), make_task("digits"), store), range(4))
    assert [path.name for path in elsewhere.iterdir()] == ["drawn-000000.npz"]
    assert (elsewhere / "drawn-000000.npz").read_bytes() == b"of the user"


def test_a_disk_that_takes_nothing_stops_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: Store, run: str, name: str, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    batches = TrainingBatches(config(), make_task("digits"), Store(tmp_path))
    monkeypatch.setattr(Store, "write", full)
    assert len(pictures(batches, range(4))) == 4


def test_held_out_batches_are_made_once_for_a_task(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = (Run(config(objective=name), Store(tmp_path)) for name in ("grpo", "rloo"))
    assert first.held_out.batches[0] is second.held_out.batches[0]
    for changes in ({"eval_instances": 2}, {"eval_split": "validation"}, {"task": {"name": "digits", "places": 2}}):
        assert Run(config(**changes), Store(tmp_path)).held_out.batches[0] is not first.held_out.batches[0]


def test_what_the_last_evaluation_adds_is_drawn_once_for_a_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = Run(config(objective="grpo", eval_instances=200), Store(tmp_path))
    expected = first.held_out.evaluate(first.policy, first.config.steps)
    assert len(expected.pass_rates) == 200
    second = Run(config(objective="rloo", eval_instances=200), Store(tmp_path))
    monkeypatch.setattr(Digits, "draw", lambda *_: pytest.fail("drawn again"))
    again = second.held_out.evaluate(second.policy, second.config.steps)
    assert again.pass_rates.equal(expected.pass_rates)
    assert again.entropy == expected.entropy
