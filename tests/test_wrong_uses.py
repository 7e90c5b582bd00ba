"""Wrong uses: each is one clear line with what would be accepted, and before any training where that can be known.

A row is how something is used (a command line, or a call) and what the line says.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import wrong_plugins

import maxrl_bench
from maxrl_bench import advantages, bind, compare, load, make_task, plot, plug_in, run
from maxrl_bench.cli import main as cli

RUN = ["run", "task=empty-8", "objective=grpo"]
COMMANDS: dict[str, tuple[list[str], str]] = {
    "task": (["run", "task=fourroms", "objective=grpo"], r"unknown task 'fourroms'; did you mean 'fourrooms'\?"),
    "objective": (["run", "task=empty-8", "objective=grop"], r"unknown objective 'grop'; did you mean 'grpo'"),
    "no task": (["run", "objective=grpo"], "key 'task' is missing"),
    "key": ([*RUN, "step=3"], r"key 'step' is unknown; did you mean 'steps'\?"),
    "twice": ([*RUN, "steps=3", "steps=4"], "'steps' is given twice"),
    "no pair": (["run", "fourrooms"], "'fourrooms' must have the form KEY=VALUE"),
    "text for a number": ([*RUN, "steps=ten"], "key 'steps': input should be a valid integer; got 'ten'"),
    "nan": ([*RUN, "learning_rate=nan"], "key 'learning_rate': input should be a finite number; got nan"),
    "no rollouts": ([*RUN, "num_rollouts=0"], "key 'num_rollouts': input should be greater than 0; got 0"),
    "no knob": (["run", "task=empty-8", "objective=maxrl_order"], r"needs the knob 'order' \(1 to 64\)"),
    "order above N": (
        ["run", "task=empty-8", "objective=maxrl_order", "order=99"],
        "'order' must be an integer of at least 1 and at most 64",
    ),
    "no exact rates": (
        ["run", "task=maze-7", "objective=ml"],
        "objective 'ml' needs exact pass rates; task 'maze-7' has",
    ),
    "absent device": ([*RUN, "device=cuda:9"], "'cuda:9' is not on this machine; it has"),
    "no device": (
        [*RUN, "device=gpu"],
        "key 'device': must be 'cpu', 'mps', 'cuda' or one of several such as 'cuda:1'",
    ),
    "size of a network": ([*RUN, "policy={depth=3}"], "the policy has no size 'depth'; did you mean 'width'"),
    "no file": (["run", "--config", "nowhere.json"], "nowhere.json: no such file"),
    "no JSON": (["run", "--config", "half.json"], "half.json: is not JSON: .* line 1 column 2"),
    "results": ([*RUN, "--results", "half.json"], "half.json/store cannot be used: Not a directory"),
    "experiment": (["sweep", "objetives"], r"unknown experiment 'objetives'; did you mean 'objectives'\?"),
    "no TOML": (["sweep", "bad.toml"], "bad.toml: is not TOML: Invalid value"),
    "profile": (["sweep", "good.toml", "--profile", "lptop"], r"has no profile 'lptop'; did you mean 'laptop'\?"),
    "workers": (["sweep", "good.toml", "--workers", "0"], "--workers must be 1 or more, and at most 1024, got 0"),
    "knob": (["card", "grpo", "ddof=7"], "knob 'ddof' must be an integer of at least 0 and at most 1, got 7"),
    "stored run": (["watch", "--run", "01"], "results/store holds no run 01"),
    "split": (["watch", "empty-8", "--split", "trian"], "unknown split 'trian'; accepted: train, validation, test"),
    "ending": (["export", "objectives", "a.txt"], "a.txt: cannot export to '.txt'; accepted: .csv, .parquet"),
}

CALLS: dict[str, tuple[Callable[[], Any], str]] = {
    "one reward per instance": (lambda: advantages([1, 0], "grpo"), r"shape \[instances, rollouts\], got \[2\]"),
    "half a reward": (lambda: advantages([[0.5, 0]], "grpo"), "exactly 0 or 1, got 0.5"),
    "a negative reward": (lambda: advantages([[-1, 1]], "grpo"), "exactly 0 or 1, got -1"),
    "nan for a reward": (lambda: advantages([[float("nan"), 1]], "grpo"), "exactly 0 or 1, got NaN"),
    "text for rewards": (
        lambda: advantages([["a", "b"]], "grpo"),
        "an array, a tensor or nested lists of zeros and ones",
    ),
    "one rollout": (lambda: advantages([[1], [0]], "rloo"), "'rloo' needs at least 2 rollouts, got 1"),
    "an unread knob": (lambda: advantages([[1, 0]], "grpo", dof=1), "does not read the knob 'dof'; accepted: ddof"),
    "half a rollout": (lambda: bind("grpo", 2.5), "rollouts must be an integer of at least 1 .*got 2.5"),  # type: ignore[arg-type]
    "an option": (lambda: make_task("maze-7", sise=3), r"has no option 'sise'; did you mean 'size'\?"),
    "an even maze": (lambda: make_task("maze-7", size=8), "option 'size' must be odd, from 7 to 17, got 8"),
    "an index": (lambda: make_task("add-2").batch("train", [-1]), "index must be 0 or more, got -1"),
    "no seeds": (lambda: run("empty-8", "grpo", seeds=0), "seeds must be 1 or more, or a list of seeds, got 0"),
    "half a step": (lambda: run("empty-8", "grpo", steps=1.5), "key 'steps': .*valid integer; got 1.5"),  # type: ignore[arg-type]
    "a class": (lambda: run(wrong_plugins.Echo, "grpo"), r"takes names, which maxrl_bench.plug_in\(tasks="),  # type: ignore[arg-type]
    "a folder": (lambda: run("empty-8", "grpo", name="../up"), "folder of results '../up' is not accepted: a name has"),
    "no tables": (lambda: load("nowhere"), "no results of experiment 'nowhere' in results"),
    "a data frame": (lambda: plot.pareto(3), "load takes an experiment's name, its folder or its tables, got 3"),  # type: ignore[arg-type]
    "a figure": (lambda: plot.draw(reference(), "parreto"), r"no figure 'parreto'; did you mean 'pareto'\?"),
    "a metric": (lambda: compare(reference(), "grpo", "rloo", metric="pasS@1"), r"did you mean 'pass@1'"),
    "a margin": (lambda: compare(reference(), "grpo", "rloo", margin=0), "margin must be above 0"),
    "empty tables": (lambda: compare(reference(rows=0), "grpo", "rloo"), "metrics.csv.xz has no rows"),
    "tables without columns": (lambda: plot.pareto(reference(columns=2)), "metrics.csv.xz has no column"),
    "a list": (lambda: plug_in(tasks=["mine"]), "tasks must be a mapping such as"),  # type: ignore[arg-type]
    "a built-in name": (lambda: plug_in(objectives={"maxrl": "wrong_plugins:NAN"}), "'maxrl': this name is built in"),
    "no row": (lambda: plug_in(objectives={"mine": "wrong_plugins:NO_FORMULA"}), "it must be a Formula, got int"),
}

TASKS = {
    "Raises": r"fails: KeyError: 'no such.*letter' \(wrong_plugins.py, line \d+\)",
    "Nothing": r"the verifier's advance must return \(states, outcomes\), got None",
    "Shape": "the verifier's outcomes must be 0, 1 or 2, one for each",
    "Outcome": "the verifier's outcomes must be 0, 1 or 2, one for each",
    "Vocabulary": "prompts hold tokens from 8 to 10, the vocabulary is 0 to 3",
    "Floats": "prompts must be int64, are torch.float32",
    "Flat": r"prompts must be a torch tensor \[instances, tokens\], got Tensor of shape \[\d\]",
    "Long": "prompt and answer take 4 tokens, max_length is 3",
    "NoDemonstrations": "has no demonstrations; key 'warm_start_steps' must be 0 without demonstrations, got 2",
    "StrangeDemonstrations": r"a demonstration takes action \d+, the last one is 3",
    "FailingDemonstrations": r"the demonstration \[\d, \d\] fails",
    "Solutions": r"the listed solution \[\d, \d\] is not accepted",
    "Actions": "the batch has 4 actions, the task's num_actions is 9",
    "AList": r"`batch` must return a TokenBatch or StateGraphs, got \[1, 2\]",
    "NoHorizon": "'horizon' must be at least 1, is 0",
    "Construct": "cannot be made: TypeError: .*missing 1 required positional argument: 'size'",
    "Random": "two batches of the same indices",
    "Few": r"a batch of \d indices has 1 instances",
}
OBJECTIVES = {
    "NAN": "N = 8, K = 1: the weight of a success is nan",
    "INFINITE": "N = 8, K = 0: the weight of a failure is -inf",
    "WRONG_SHAPE": "ValueError: operands could not be broadcast together",
    "NOT_NUMBERS": "DType|could not convert|ufunc",
    "RAISES": "ZeroDivisionError: division by zero",
    "NO_KNOB": "missing 1 required positional argument: 'c'",
}
SMALL = ["steps=2", "eval_instances=2", "batch_size=2", "num_rollouts=8", "warm_start_steps=2"]


def reference(rows: int | None = None, columns: int | None = None) -> Any:
    tables = load(Path(__file__).parents[1] / "results" / "objectives-reference")
    return tables._replace(metrics=tables.metrics.iloc[:rows, :columns])


@pytest.fixture(autouse=True)
def here(outside: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "half.json").write_text("{")
    (tmp_path / "bad.toml").write_text("question = ")
    (tmp_path / "good.toml").write_text('question = "?"\n[[grid]]\ntask = "empty-8"\nobjective = "grpo"\n')


def refused(command: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(command) == 2
    printed = capsys.readouterr()
    (line,) = printed.err.splitlines()
    assert line.startswith("maxrl-bench: ")
    assert re.search(message, line), line
    assert not list(Path("results/store").glob("[0-9a-f]*"))


def test_there_are_forty_and_more() -> None:
    assert len(COMMANDS) + len(CALLS) + len(TASKS) + len(OBJECTIVES) >= 40


@pytest.mark.parametrize("use", COMMANDS)
def test_a_command(use: str, capsys: pytest.CaptureFixture[str]) -> None:
    refused(*COMMANDS[use], capsys)


@pytest.mark.parametrize("use", CALLS)
def test_a_call(use: str) -> None:
    call, message = CALLS[use]
    with pytest.raises(ValueError, match=message) as told:
        call()
    assert "\n" not in str(told.value)
    assert not list(Path("results/store").glob("[0-9a-f]*"))


@pytest.mark.parametrize("name", TASKS)
def test_a_task_of_somebody_elses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plug_in(tasks={f"their-{name}": f"wrong_plugins:{name}"})
    refused(["run", f"task=their-{name}", "objective=grpo", *SMALL], TASKS[name], capsys)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_an_objective_of_somebody_elses(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    plug_in(objectives={f"their-{name}": f"wrong_plugins:{name}"})
    refused(["run", "task=empty-8", f"objective=their-{name}", *SMALL], OBJECTIVES[name], capsys)
    if name != "WRONG_SHAPE":  # which fits as many instances as it has numbers
        with pytest.raises(ValueError, match=f"objective 'their-{name}' gives") as told:
            maxrl_bench.advantages([[1, 0, 0], [1, 1, 0], [0, 0, 0]], f"their-{name}")
        assert "\n" not in str(told.value)
