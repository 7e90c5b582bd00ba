"""A stored blob that is not what it should be is thrown away with a note, and the run begins anew."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.tasks import make_task
from maxrl_bench.training import loop as train
from maxrl_bench.training import parameters
from maxrl_bench.training.warm_start import POLICY, base_name, base_policy

SETTINGS: dict[str, Any] = {
    "task": "digits-2",
    "objective": "rloo",
    "num_rollouts": 64,
    "batch_size": 2,
    "steps": 4,
    "eval_every": 2,
    "eval_instances": 3,
    "policy": {"width": 8},
}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config(**changes: Any) -> RunConfig:
    return RunConfig(**{**SETTINGS, **changes})


def metrics(store: Store, settings: RunConfig) -> pd.DataFrame:
    return store.tables(settings.hash)[0].drop(columns="seconds")


def checkpoint(folder: Path) -> dict[str, Any]:
    """What a run has saved after two of its steps."""
    store = Store(folder)
    run = train.Run(config(), store)
    run.evaluate()
    run.step()
    run.step()
    run.evaluate()
    run.save()
    stored = store.read(config().hash, train.CHECKPOINT)
    assert stored is not None
    return parameters.unpack(stored)


def changed(*path: Any, to: Any) -> Callable[[dict[str, Any]], Any]:
    """A checkpoint with one value replaced."""

    def change(saved: dict[str, Any]) -> dict[str, Any]:
        place: Any = saved
        for key in path[:-1]:
            place = place[key]
        place[path[-1]] = to
        return saved

    return change


def without(*path: Any) -> Callable[[dict[str, Any]], Any]:
    """A checkpoint that lacks something."""

    def change(saved: dict[str, Any]) -> dict[str, Any]:
        place: Any = saved
        for key in path[:-1]:
            place = place[key]
        del place[path[-1]]
        return saved

    return change


FOREIGN: dict[str, Callable[[dict[str, Any]], Any]] = {
    "bytes": lambda _: b"what is this?",
    "nothing": lambda _: b"",
    "a list": lambda _: [1, 2],
    "a tensor": lambda _: torch.zeros(3),
    "an empty table": lambda _: {},
    "no policy": without("policy"),
    "a lost parameter": without("policy", "last.bias"),
    "a parameter of another shape": changed("policy", "last.bias", to=torch.zeros(7)),
    "a parameter of another precision": changed("policy", "last.bias", to=torch.zeros(100, dtype=torch.float64)),
    "a parameter that is a number": changed("policy", "last.bias", to=1.0),
    "a parameter that is not finite": changed("policy", "last.bias", to=torch.full((100,), torch.nan)),
    "a policy too large": changed("policy", "more", to=torch.zeros(2)),
    "another optimiser": changed("optimizer", "state", 0, to={"momentum_buffer": torch.zeros(8, 128)}),
    "an optimiser with another rate": changed("optimizer", "param_groups", 0, "lr", to=0.5),
    "an optimiser of other parameters": without("optimizer", "state", 3),
    "moments of another shape": changed("optimizer", "state", 2, "exp_avg", to=torch.zeros(3)),
    "moments that are not finite": changed("optimizer", "state", 3, "exp_avg_sq", to=torch.full((8,), torch.inf)),
    "a generator of another kind": changed("rng", "bit_generator", to="MT19937"),
    "no generator": changed("rng", to=None),
    "a step too far": changed("state", "step", to=5),
    "a step that is text": changed("state", "step", to="2"),
    "a lost evaluation": without("state", "rows", 1),
    "a row of text": changed("state", "rows", 1, "pass@1", to="good"),
    "a row without a column": without("state", "rows", 1, "entropy"),
    "pass rates of other instances": changed("state", "pass_rates", 0, to=torch.zeros(4, dtype=torch.float64)),
    "a memory of an objective that has none": changed("memory", to=torch.zeros(3, 2, dtype=torch.float64)),
    "no memory": without("memory"),
    "an unknown field": changed("state", "epoch", to=1),
    "a tally of text": changed("state", "tally", "grad_norm", to="large"),
    "no tally": without("state", "tally"),
}


@pytest.fixture(scope="module")
def expected(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    torch.set_num_threads(1)
    store = Store(tmp_path_factory.mktemp("whole"))
    train.train(config(), store)
    return metrics(store, config())


def test_a_whole_checkpoint_is_taken_up(tmp_path: Path, expected: pd.DataFrame) -> None:
    checkpoint(tmp_path)
    notes: list[str] = []
    store = Store(tmp_path, report=notes.append)
    run = train.Run(config(), store)
    assert run.resume()
    assert run.state.step == 2
    train.train(config(), store)
    assert not notes
    pd.testing.assert_frame_equal(metrics(store, config()), expected, check_exact=True)


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_checkpoint_is_thrown_away_and_the_run_begins_anew(
    kind: str, tmp_path: Path, expected: pd.DataFrame
) -> None:
    foreign = FOREIGN[kind](checkpoint(tmp_path))
    notes: list[str] = []
    store = Store(tmp_path, report=notes.append)
    store.write(config().hash, train.CHECKPOINT, foreign if isinstance(foreign, bytes) else parameters.pack(foreign))
    train.train(config(), store)
    assert len(notes) == 1
    assert "checkpoint.pt does not load (" in notes[0]
    assert "\n" not in notes[0]
    assert store.status(config().hash) == "done"
    pd.testing.assert_frame_equal(metrics(store, config()), expected, check_exact=True)


def test_a_killed_run_that_remembers_ends_in_the_same_bits(tmp_path: Path) -> None:
    settings = config(objective={"name": "curverl", "window": 2}, steps=6)
    train.train(settings, Store(tmp_path / "whole"))
    run = train.Run(settings, Store(tmp_path / "killed"))
    run.evaluate()
    for step in range(1, 4):
        run.step()
        if step == 2:
            run.evaluate()
    memory = run.objective.memory
    assert memory is not None
    assert set(memory[:, 1]) == {0, 1}  # the last two batches, each with a mixed group
    run.save()
    del run  # as after kill -9: nothing but the store is left
    store = Store(tmp_path / "killed")
    resumed = train.Run(settings, store)
    assert resumed.objective.memory is None
    assert resumed.resume()
    np.testing.assert_array_equal(resumed.objective.memory, memory)
    train.train(settings, store)
    whole = metrics(Store(tmp_path / "whole"), settings)
    pd.testing.assert_frame_equal(metrics(store, settings), whole, check_exact=True)


def test_a_run_given_the_contexts_visited(tmp_path: Path) -> None:
    """The same rollouts in the first step, another gradient; and the same bits again, after an interruption, too."""
    # An objective that learns without a success, too: an untrained policy has none here.
    common = {"task": "maze-7", "objective": "maxrl_eq10", "num_rollouts": 8, "eval_rollouts": 8}
    settings = config(**common, estimator="visited")
    plain = train.Run(config(**common), Store(tmp_path / "plain"))
    run = train.Run(settings, Store(tmp_path / "first"))
    for one in (plain, run):
        one.evaluate()
        one.step()
    assert plain.state.successes == run.state.successes
    gradients = [np.concatenate([p.grad.flatten() for p in one.parameters]) for one in (plain, run)]  # type: ignore[union-attr]
    assert np.abs(gradients[0]).max() > 0
    assert np.abs(gradients[0] - gradients[1]).max() > 1e-4 * np.abs(gradients[0]).max()
    run.save()
    for name in ("first", "second"):
        train.train(settings, Store(tmp_path / name))
    tables = [metrics(Store(tmp_path / name), settings) for name in ("first", "second")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_evaluations_are_not_remembered(tmp_path: Path) -> None:
    """Gradients of held-out instances are estimated with rollouts, too, at the first and the last evaluation."""
    run = train.Run(config(objective="curverl"), Store(tmp_path))
    run.evaluate()
    assert run.objective.memory is None
    run.step()
    once = run.objective.memory
    run.gradient_norms()
    run.evaluate()
    assert run.objective.memory is once


@pytest.mark.parametrize(
    "memory", ["none", torch.zeros(2), torch.zeros(2, 2), torch.full((1, 2), torch.nan, dtype=torch.float64)], ids=str
)
def test_a_memory_that_is_none_of_its_own_is_found(memory: Any, tmp_path: Path) -> None:
    settings, notes = config(objective="curverl"), []  # type: ignore[var-annotated]
    store = Store(tmp_path, report=notes.append)
    run = train.Run(settings, store)
    run.evaluate()
    run.step()
    run.save()
    saved = parameters.unpack(store.read(settings.hash, train.CHECKPOINT) or b"")
    store.write(settings.hash, train.CHECKPOINT, parameters.pack({**saved, "memory": memory}))
    again = train.Run(settings, store)
    assert not again.resume()
    assert again.objective.memory is None
    assert "checkpoint.pt does not load (" in notes[0]


@pytest.mark.parametrize("foreign", [b"", b"x" * 99, [1], {}, {"last.bias": torch.zeros(3)}], ids=str)
def test_a_foreign_base_policy_is_made_again(foreign: Any, tmp_path: Path) -> None:
    settings, task = config(warm_start_steps=2), make_task("digits-2")
    good = base_policy(settings, task, Store(tmp_path / "good"))
    notes: list[str] = []
    store = Store(tmp_path / "bad", report=notes.append)
    store.write(base_name(settings), POLICY, foreign if isinstance(foreign, bytes) else parameters.pack(foreign))
    again = base_policy(settings, task, store)
    assert len(notes) == 1
    assert "does not load (" in notes[0]
    assert all(torch.equal(a, b) for a, b in zip(good.parameters(), again.parameters(), strict=True))
    once_more = base_policy(settings, task, store)
    assert len(notes) == 1
    assert all(torch.equal(a, b) for a, b in zip(good.parameters(), once_more.parameters(), strict=True))


def test_a_base_policy_belongs_to_all_that_shaped_it(tmp_path: Path) -> None:
    """The warm start is clipped: under another limit the policy is another one, whichever run came first."""
    task, store = make_task("digits-2"), Store(tmp_path)
    loose, tight = (config(warm_start_steps=3, max_grad_norm=limit) for limit in (1.0, 1e-6))
    first = base_policy(loose, task, store)
    alone = base_policy(tight, task, Store(tmp_path / "alone"))
    shared = base_policy(tight, task, store)
    assert all(torch.equal(a, b) for a, b in zip(alone.parameters(), shared.parameters(), strict=True))
    assert not np.array_equal(first.last.weight.detach(), shared.last.weight.detach())  # type: ignore[union-attr]


def test_a_policy_file_opens_with_the_public_tool(tmp_path: Path) -> None:
    store, tensors = Store(tmp_path), {"weight": torch.arange(6.0).view(2, 3)}
    store.write("base-0", POLICY, parameters.pack(tensors))
    for mmap in (False, True):
        opened = torch.load(store.file("base-0", POLICY), weights_only=True, mmap=mmap)
        assert torch.equal(opened["weight"], tensors["weight"])
