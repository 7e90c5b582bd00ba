"""A run with a number that is not finite fails at once, and says in one line where and what it was."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts import finite
from maxrl_bench.rollouts.graphs import StateGraphs
from maxrl_bench.rollouts.policies import make_policy
from maxrl_bench.rollouts.tokens import TokenBatch
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps.worker import TRAIN, Job, execute
from maxrl_bench.tasks import make_task
from maxrl_bench.training import loop as train
from maxrl_bench.training.warm_start import base_policy

SIZES = {
    "digits-2": {"width": 8},
    "add-2": {"layers": 1, "width": 8, "heads": 1, "kv_heads": 1, "mlp": 8},
}
SIZES["maze-7"] = SIZES["add-2"]
LAST = {"digits-2": "last.weight", "add-2": "embedding.weight", "maze-7": "embedding.weight"}
DTYPES = ("float32", "float64", "bfloat16")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def config(task: str = "digits-2", **changes: Any) -> RunConfig:
    settings: dict[str, Any] = {
        "task": task,
        "objective": "reinforce",
        "num_rollouts": 4,
        "batch_size": 2,
        "steps": 4,
        "eval_every": 2,
        "eval_instances": 2,
        "eval_rollouts": 4,
        "policy": SIZES[task],
    }
    return RunConfig(**{**settings, **changes})


def started(folder: Path, task: str = "digits-2", **changes: Any) -> train.Run:
    return train.Run(config(task, **changes), Store(folder))


def spoil(parameter: torch.Tensor, value: float) -> None:
    with torch.no_grad():
        parameter.view(-1)[0] = value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("task", SIZES)
def test_a_policy_that_is_not_finite_neither_trains_nor_is_evaluated(
    task: str, dtype: str, value: float, tmp_path: Path
) -> None:
    run = started(tmp_path, task, dtype=dtype)
    spoil(dict(run.named)[LAST[task]], value)
    with train.precision(run.config):
        with pytest.raises(FloatingPointError, match=r"^evaluation at step 0: ") as told:
            run.evaluate()
        assert "\n" not in str(told.value)
        with pytest.raises(FloatingPointError, match=r"^step 1: "):
            run.step()


@pytest.mark.parametrize("count", [1, 1000])
@pytest.mark.parametrize("task", SIZES)
def test_no_action_is_drawn_from_probabilities_that_are_nan(task: str, count: int) -> None:
    """Neither where rollouts are drawn one by one, nor where they are drawn as counts."""
    made = make_task(task)
    policy = make_policy(made.contexts, made.num_actions, np.random.default_rng(0), **SIZES[task])
    spoil(dict(policy.named_parameters())[LAST[task]], float("nan"))
    batch = made.batch("train", [0, 1])
    assert isinstance(batch, StateGraphs | TokenBatch)
    for grad in (True, False):
        with pytest.raises(FloatingPointError, match=r"the policy's probabilities became nan in \d+ of \d+ contexts"):
            batch.sample(policy, count, np.random.default_rng(0), grad=grad)  # type: ignore[arg-type]


@pytest.mark.parametrize("rows", [[[0.0, np.nan]], [[0.0, np.inf]], [[-np.inf, -np.inf]], [[-1.0, -1.0], [np.nan, 0]]])
def test_probabilities_are_checked_row_by_row(rows: list[list[float]]) -> None:
    with pytest.raises(FloatingPointError, match=f"1 of {len(rows)} contexts"):
        finite.probabilities(np.array(rows))


def test_an_action_of_probability_zero_is_no_fault() -> None:
    assert finite.probabilities(np.array([[0.0, -np.inf]])).tolist() == [[1.0, 0.0]]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_is_named(dtype: str, value: float, tmp_path: Path) -> None:
    run = started(tmp_path, dtype=dtype)
    force_gradient(run, 1.0)
    run.named["hidden.bias"].register_hook(lambda gradient: torch.full_like(gradient, value))
    with pytest.raises(FloatingPointError, match=rf"^step 1: the gradient of parameter 'hidden\.bias' became {value}"):
        run.step()
    assert all(torch.isfinite(p).all() for p in run.parameters)


def force_gradient(run: train.Run, value: float) -> None:
    """Every step's gradient of one parameter is `value` everywhere, whatever the rollouts were."""

    def surrogate(batch: Any, rng: Any) -> Any:
        rollouts = batch.sample(run.policy, 4, rng)
        return run.named["hidden.bias"].sum() * value, rollouts

    run._surrogate = surrogate  # type: ignore[method-assign]


@pytest.mark.parametrize(("dtype", "value"), [("float32", 1e30), ("bfloat16", 1e30), ("float64", 1e200)])
def test_a_norm_that_overflows_is_no_update_of_zero(dtype: str, value: float, tmp_path: Path) -> None:
    """All entries are finite; their squares are not. Clipping would have divided by infinity, and the run gone on."""
    run = started(tmp_path, dtype=dtype)
    force_gradient(run, value)
    with pytest.raises(FloatingPointError, match=r"step 1: the norm of the gradient overflowed; .* 'hidden\.bias'"):
        run.step()


def test_an_update_to_infinity_names_the_parameter(tmp_path: Path) -> None:
    run = started(tmp_path, learning_rate=1e37)
    spoil(run.named["hidden.bias"], 3.4e38)  # finite, and the largest float32 is 3.403e38
    force_gradient(run, 1.0)
    with pytest.raises(FloatingPointError, match=r"step 1: parameter 'hidden\.bias' became inf in 1 of 8 places"):
        run.step()


def test_large_but_finite_numbers_pass() -> None:
    """The sum of all overflows; no number does."""
    finite.check_tensors({"a": torch.full((4,), 3e38), "b": torch.full((4,), -3e38)}, "parameter")


@pytest.mark.parametrize("weights", [(np.nan, 0.0), (0.0, np.inf)])
def test_a_weight_that_is_not_finite_is_the_objectives_fault(weights: tuple[float, float], tmp_path: Path) -> None:
    run = started(tmp_path)

    class Broken:
        name, is_likelihood, smoothing, entropy_bonus = "mine", False, 0.0, 0.0

        def weights(self, successes: np.ndarray) -> tuple[np.ndarray, ...]:
            return tuple(np.full(len(successes), weight) for weight in weights)

    object.__setattr__(run, "objective", Broken())
    with pytest.raises(FloatingPointError, match=r"^step 1: a weight of 'mine' became (nan|inf)"):
        run.step()


@pytest.mark.parametrize("task", ["digits-2", "maze-7"])
def test_a_warm_start_that_is_not_finite_fails(task: str, tmp_path: Path) -> None:
    settings = config(task, warm_start_steps=3, warm_start_batch_size=2, warm_start_learning_rate=1e37)
    with pytest.raises(FloatingPointError, match=r"^step \d of the warm start: the \w+.* (became|overflowed)"):
        base_policy(settings, make_task(task), Store(tmp_path))
    assert not list(tmp_path.glob("base-*/*.pt"))


@pytest.mark.parametrize("dtype", DTYPES)
def test_the_run_ends_as_failed_with_one_line(dtype: str, tmp_path: Path) -> None:
    rate = 1e308 if dtype == "float64" else 1e37
    settings = config(warm_start_steps=3, warm_start_batch_size=2, warm_start_learning_rate=rate, dtype=dtype)
    code = code_fingerprint("digits-2", "reinforce", TRAIN)
    outcome = execute(Job(settings.model_dump_json(), str(tmp_path), code))
    assert outcome.state == "failed"
    check = Store(tmp_path, code).check(settings.hash)
    assert check.state == "failed"
    assert re.fullmatch(r"FloatingPointError: step \d of the warm start: .*", check.why)
