"""The checks of objectives hold for every row that there is, and find what each of many wrong rows does wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from new_rows import ROWS

from maxrl_bench.cli.main import main
from maxrl_bench.config import RunConfig
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.formula import Formula, Knob
from maxrl_bench.objectives.table import OBJECTIVES, find_row
from maxrl_bench.storage.store import Store
from maxrl_bench.testing import objective_checks
from maxrl_bench.testing.results import DOES_NOT_APPLY, FAILS, HOLDS, run_checks
from maxrl_bench.training.loop import train

BASE, POOLED, RLOO = OBJECTIVES["reinforce"], OBJECTIVES["raft"], OBJECTIVES["rloo"]
CALLS = iter(range(10**9))
ORDERED = OBJECTIVES["maxrl_order"]
WRONG: dict[str, tuple[Formula, str, str]] = {
    "NaN at K = N": (
        replace(BASE, on_success=lambda K, N: np.where(K == N, np.nan, 1.0)),
        "weights_are_finite", "N = 1, K = 1: the weight of a success is nan",
    ),
    "infinite at K = 0": (
        replace(BASE, on_failure=lambda K, N: -np.divide(1.0, K, where=K > 0, out=np.full_like(K, np.inf))),
        "weights_are_finite", "N = 1, K = 0: the weight of a failure is -inf",
    ),
    "one weight for the batch": (
        replace(BASE, on_success=lambda K, N: K / K.mean()),
        "weights_are_pure", "in a batch",
    ),
    "a counter": (
        replace(BASE, on_success=lambda K, N: np.ones_like(K) + 1e-3 * next(CALLS)),
        "weights_are_pure", "N = 1: asked again, other weights come back",
    ),
    "a memory that counts calls": (
        replace(BASE, remember=lambda K, N, memory: np.array([next(CALLS)]), on_success=lambda K, N, memory: 1 + 0 * K,
                on_failure=lambda K, N, memory: 0 * K),
        "memory_is_pure", "N = 1: a batch of all counts is remembered otherwise the second time",
    ),
    "a memory that is written over": (
        replace(BASE, remember=lambda K, N, memory: np.ones(1) if memory is None else np.add(memory, 1, out=memory),
                on_success=lambda K, N, memory: 1 + 0 * K, on_failure=lambda K, N, memory: 0 * K),
        "memory_is_pure", "otherwise the second time",
    ),
    "a weight that a memory spoils": (
        replace(BASE, remember=lambda K, N, memory: K, on_failure=lambda K, N, memory: 0 * K,
                on_success=lambda K, N, memory: 1 / K if memory is None else np.full_like(K, 1 / len(memory) - np.inf)),
        "weights_are_finite", "N = 1, with batches remembered, K = 1: the weight of a success is -inf",
    ),
    "a wrong order": (
        replace(OBJECTIVES["maxrl_alg1"], order=lambda N: N),
        "expected_gradient_is_the_population_weight", "the closed form is",
    ),
    "a wrong closed form": (
        replace(RLOO, order=None, closed_form=lambda p, N: p),
        "expected_gradient_is_the_population_weight", "N = 2, p = 0.001: the closed form is 0.001, over all outcomes 1",
    ),
    "a wrong gap": (
        replace(RLOO, gap=lambda J, N: 2 + 0 * J),
        "expected_gradient_is_the_population_weight", "N = 2, p = 0.001: w(p) is 2, over all outcomes 1",
    ),
    "a wrong limit": (
        replace(OBJECTIVES["maxrl_eq9"], limit=lambda p: 1 / p**2),
        "stated_limit_is_approached", "p = 0.2: w is 5, the stated limit 25",
    ),
    "the wrong sign": (
        replace(RLOO, on_success=lambda K, N: -(N - K) / (N - 1), on_failure=lambda K, N: K / (N - 1), order=None),
        "no_pass_rate_is_pushed_down", "N = 2, p = 0.001: w is -1",
    ),
    "nothing is learned": (
        replace(BASE, on_success=lambda K, N: np.zeros_like(K), order=None),
        "no_pass_rate_is_pushed_down", "w is 0 at every pass rate",
    ),
    "a knob read in vain": (
        replace(
            BASE, on_success=lambda K, N, size: 0 * K + 1, on_failure=lambda K, N, size: 0 * K, order=None,
            knobs={"size": Knob(float, 0, 1, "a", 0.5)},
        ),
        "every_knob_changes_something", "N = 8: nothing differs between size = 0.0 and 1.0",
    ),
    "a knob not read": (
        replace(BASE, knobs={"size": Knob(float, 0, 1, "a", 0.5)}),
        "weights_are_finite", "TypeError",
    ),
}  # fmt: skip


@pytest.mark.parametrize("check", objective_checks.CHECKS)
@pytest.mark.parametrize("name", [*OBJECTIVES, *(name for name in ROWS if name not in OBJECTIVES)])
def test_every_row_holds(name: str, check: Any) -> None:
    check({**ROWS, **OBJECTIVES}[name])  # as a user's own test would


@pytest.mark.parametrize("name", outside.names(OBJECTIVES))
def test_every_row_of_an_installed_package_holds(name: str) -> None:
    """Of this environment; in most there is none."""
    found = run_checks(objective_checks.CHECKS, find_row(name))
    assert not [result.why for result in found if result.state == FAILS]


@pytest.mark.parametrize("what", WRONG)
def test_a_wrong_row_is_found_with_the_counter_example(what: str) -> None:
    row, check, told = WRONG[what]
    results = run_checks(objective_checks.CHECKS, row)
    by_name = dict(zip([check.__name__ for check in objective_checks.CHECKS], results, strict=True))
    assert by_name[check].state == FAILS
    assert told in by_name[check].why


def test_only_these_rows_escape_a_check() -> None:
    """A check that applies to nothing cannot fail."""
    escaped = {
        name: {
            check.__name__
            for check in objective_checks.CHECKS
            if run_checks([check], OBJECTIVES[name])[0].state == DOES_NOT_APPLY
        }
        for name in ("grpo", "maxrl_eq9", "maxrl_order", "raft", "curverl")
    }
    assert escaped["grpo"] == escaped["maxrl_order"] == {"memory_is_pure"}
    assert escaped["maxrl_eq9"] == {"memory_is_pure", "every_knob_changes_something"}
    assert escaped["curverl"] == {"stated_limit_is_approached"}
    assert {check.__name__ for check in objective_checks.CHECKS} - escaped["raft"] == {
        "weights_are_finite",
        "wrong_knobs_are_refused",
    }
    assert run_checks(objective_checks.CHECKS, ORDERED)[0].state == HOLDS


@pytest.mark.parametrize(
    ("what", "told"),
    [
        ("NaN at K = N", "objective 'wrong' cannot be trained with: N = 8, K = 8: the weight of a success is nan"),
        ("a knob not read", "objective 'wrong' cannot be trained with: TypeError: "),
    ],
)
def test_a_run_under_weights_that_are_none_does_not_start(
    what: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(OBJECTIVES, "wrong", WRONG[what][0])  # type: ignore[arg-type]
    assert main(["run", "task=empty-8", "objective=wrong", "num_rollouts=8", "--results", str(tmp_path)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"maxrl-bench: run: {told}")
    assert line.endswith("(see: maxrl-bench check objective wrong)")
    with pytest.raises(ValueError, match="cannot be trained with"):
        train(RunConfig(task="empty-8", objective="wrong", num_rollouts=8), Store(tmp_path))


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["check", "objective", "maxrl_alg1"]) == 0
    assert "7 of 9 checks hold, 0 fail" in capsys.readouterr().out
    assert main(["check", "objective", "maxrl_alg"]) == 2
    assert "did you mean 'maxrl_alg1'" in capsys.readouterr().err
    assert main(["check", "objective", "maxrl_order", "order=2"]) == 2
    assert "takes no options" in capsys.readouterr().err
    assert main(["check", "task", "maze-7", "size=8"]) == 2
    assert "'size' must be odd" in capsys.readouterr().err
