"""Optimisers and schedules: the updates of a run against their formulas, step by step; and resumed to the same bits."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.training import loop as train

STEPS = 4
SETTINGS: dict[str, Any] = {
    "task": "digits-2",
    "objective": "rloo",
    "num_rollouts": 64,
    "batch_size": 2,
    "steps": STEPS,
    "eval_every": 2,
    "eval_instances": 3,
    "policy": {"width": 8},
    "dtype": "float64",
    "learning_rate": 0.1,
}
FACTORS = {"constant": [1.0] * STEPS, "cosine": [(1 + math.cos(math.pi * t / STEPS)) / 2 for t in range(STEPS)]}


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def sgd(gradients: list[np.ndarray]) -> np.ndarray:
    """The direction of the last of these steps, by the textbook."""
    momentum = np.zeros_like(gradients[0])
    for gradient in gradients:
        momentum = 0.9 * momentum + gradient
    return momentum


def adam(gradients: list[np.ndarray]) -> np.ndarray:
    first = second = np.zeros_like(gradients[0])
    for gradient in gradients:
        first, second = 0.9 * first + 0.1 * gradient, 0.999 * second + 0.001 * gradient**2
    steps = len(gradients)
    return np.asarray(first / (1 - 0.9**steps) / (np.sqrt(second / (1 - 0.999**steps)) + 1e-8))


@pytest.mark.parametrize("schedule", FACTORS)
@pytest.mark.parametrize("optimizer", [sgd, adam])
def test_updates_are_those_of_the_formulas(optimizer: Any, schedule: str, tmp_path: Path) -> None:
    settings = RunConfig(**SETTINGS, optimizer=optimizer.__name__, schedule=schedule)
    run = train.Run(settings, Store(tmp_path))
    gradients: list[np.ndarray] = []
    for factor in FACTORS[schedule]:
        before = flat(p for p in run.parameters)
        run.step()
        gradients.append(flat(p.grad for p in run.parameters))
        expected = before - 0.1 * factor * optimizer(gradients)
        np.testing.assert_allclose(flat(p for p in run.parameters), expected, rtol=1e-9, atol=1e-12)
    assert np.abs(gradients[0]).max() > 0


def flat(tensors: Any) -> np.ndarray:
    return np.concatenate([t.detach().numpy().ravel() for t in tensors])


@pytest.mark.parametrize(("optimizer", "schedule"), [("sgd", "cosine"), ("sgd", "constant"), ("adam", "cosine")])
def test_a_killed_run_ends_in_the_same_bits(optimizer: Any, schedule: Any, tmp_path: Path) -> None:
    settings = RunConfig(**SETTINGS, optimizer=optimizer, schedule=schedule)
    train.train(settings, Store(tmp_path / "whole"))
    run = train.Run(settings, Store(tmp_path / "killed"))
    run.evaluate()
    for _ in range(3):
        run.step()
        if run.state.step == 2:
            run.evaluate()
    run.save()
    del run
    notes: list[str] = []
    store = Store(tmp_path / "killed", report=notes.append)
    resumed = train.Run(settings, store)
    assert resumed.resume(), notes
    assert resumed.state.step == 3
    train.train(settings, store)
    assert not notes
    tables = [Store(tmp_path / name).tables(settings.hash)[0].drop(columns="seconds") for name in ("whole", "killed")]
    pd.testing.assert_frame_equal(*tables, check_exact=True)


def test_a_checkpoint_of_another_optimiser_is_thrown_away(tmp_path: Path) -> None:
    stores = {name: Store(tmp_path / name) for name in ("adam", "sgd")}
    settings = {name: RunConfig(**SETTINGS, optimizer=name) for name in stores}
    run = train.Run(settings["adam"], stores["adam"])
    run.evaluate()
    run.step()
    run.save()
    saved = stores["adam"].read(settings["adam"].hash, train.CHECKPOINT)
    assert saved is not None
    stores["sgd"].write(settings["sgd"].hash, train.CHECKPOINT, saved)
    assert not train.Run(settings["sgd"], stores["sgd"]).resume()


def test_names_of_earlier_runs_stay() -> None:
    plain = RunConfig(**SETTINGS)
    assert plain.hash == RunConfig(**SETTINGS, optimizer="adam", schedule="constant").hash
    others = {RunConfig(**SETTINGS, optimizer="sgd").hash, RunConfig(**SETTINGS, schedule="cosine").hash, plain.hash}
    assert len(others) == 3
