"""Recipes and tuned rates: ours wherever an experiment lies, a plug-in's own, and those beside it over both."""

from __future__ import annotations

import dataclasses
import json
import os
import types
from pathlib import Path
from typing import Any

import fuzz_run
import pytest

from maxrl_bench import plugins
from maxrl_bench.cli import main as cli
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import experiment, tabulate
from maxrl_bench.sweeps.experiment import experiments_in, find_experiments, load_experiment, load_experiments
from maxrl_bench.sweeps.recipes import BUILT_IN, LEARNING_RATES, RECIPES, of_run
from maxrl_bench.tasks import make_task

ROOT = Path(__file__).parents[2]
STUDY = (
    'question = "Which?"\n[[grid]]\ntask = ["fourrooms", "programs-1"]\nobjective = "grpo"\nlearning_rate = "tuned"\n'
)
RUN = "fuzz_run:run"


@pytest.fixture
def away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory without experiments."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def plug_in(monkeypatch: pytest.MonkeyPatch, recipe: Any) -> None:
    """Installs a plug-in task `mine`, whose factory has this recipe."""

    def make(size: int = 9) -> Any:
        return make_task("maze-7", size=size)

    make.recipe = recipe
    module = types.ModuleType("plugged_in")
    module.make = make
    monkeypatch.setitem(__import__("sys").modules, "plugged_in", module)
    ours, real = "maxrl_bench.tasks", plugins.installed
    monkeypatch.setattr(
        plugins,
        "installed",
        lambda group, folders: [("mine", "plugged_in:make")] if group == ours else real(group, folders),
    )


def settings(path: Path) -> dict[str, tuple[Any, ...]]:
    return {
        run.task_label: (run.warm_start_steps, run.warm_start_batch_size, run.steps, run.learning_rate)
        for run in load_experiment(path).runs
    }


def test_ours_count_wherever_an_experiment_lies_and_those_beside_it_go_before(away: Path) -> None:
    path = away / "far" / "study.toml"
    path.parent.mkdir()
    path.write_text(STUDY)
    assert settings(path) == {"fourrooms": (50, 16, 1000, 0.003), "programs-1": (50, 32, 600, 0.001)}
    (path.parent / RECIPES).write_text("[fourrooms]\nsteps = 7\n[empty-8]\nsteps = 9\n")
    (path.parent / LEARNING_RATES).write_text("[fourrooms]\ngrpo = 0.5\n")
    assert settings(path) == {"fourrooms": (50, 16, 7, 0.5), "programs-1": (50, 32, 600, 0.001)}
    (away / RECIPES).write_text("[fourrooms]\nsteps = 8\n")  # lies beside nothing
    assert settings(path)["fourrooms"][2] == 7


def test_what_counts_of_a_recipe_is_told_and_nothing_else(away: Path) -> None:
    path = away / "study.toml"
    path.write_text(STUDY + "seed = [0, 1]\n[defaults]\nwarm_start_batch_size = 8\n[task.fourrooms]\nsteps = 4\n")
    assert load_experiment(path).recipes == (
        "recipe of fourrooms: warm_start_steps = 50, eval_every = 50",
        "recipe of programs-1: warm_start_steps = 50, steps = 600, eval_every = 30",
    )
    path.write_text(path.read_text().replace("programs-1", "maze-17").replace('"tuned"', "1e-3"))
    assert load_experiment(path).recipes[1] == (
        "recipe of maze-17: policy = { layers = 4, width = 256, mlp = 1024 }, warm_start_steps = 1500, "
        "warm_start_learning_rate = 0.0005, batch_size = 32"
    )


def test_a_sweep_and_a_run_say_it_once(away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in ("a", "b"):
        (away / f"{name}.toml").write_text(STUDY)
    line = "recipe of fourrooms: warm_start_steps = 50, warm_start_batch_size = 16, steps = 1000, eval_every = 50\n"
    assert cli.main(["sweep", "a.toml", "b.toml", "--no-plots", "--run-function", RUN, "--workers", "1"]) == 0
    assert capsys.readouterr().out.count(line) == 1
    assert cli.main(["sweep", "a.toml", "--dry-run"]) == 0
    assert line in capsys.readouterr().out
    assert cli.main(["run", "task=fourrooms", "objective=grpo", "seed=3", "--run-function", RUN]) == 0
    told = capsys.readouterr().out
    tuned = "tuned learning rate of fourrooms, grpo: 0.003 (with learning_rate=tuned)\n"
    assert told.startswith(f"{line}{tuned}fourrooms grpo(ddof=0) N=64 lr=0.001 ")
    (stored,) = [path for path in Path("results/store").glob("*/config.json") if '"seed": 3' in path.read_text()]
    assert cli.main(["run", "--config", str(stored), "--run-function", RUN]) == 0  # which is complete
    assert "recipe" not in capsys.readouterr().out


def test_the_settings_of_a_run(away: Path) -> None:
    assert of_run({"task": "maze-17", "objective": "grpo", "steps": 3}) == (
        {
            **{"task": "maze-17", "objective": "grpo", "steps": 3, "warm_start_steps": 1500, "learning_rate": 1e-4},
            **{"policy": {"layers": 4, "width": 256, "mlp": 1024}, "warm_start_learning_rate": 5e-4, "batch_size": 32},
        },
        [
            "recipe of maze-17: policy = { layers = 4, width = 256, mlp = 1024 }, warm_start_steps = 1500, "
            "warm_start_learning_rate = 0.0005, batch_size = 32, learning_rate = 0.0001"
        ],
    )
    given = {"task": {"name": "digits-2"}, "objective": "grpo"}
    assert of_run(given) == (given, [])
    for odd in ({}, {"task": "fourrooms"}, {"task": "fourroms", "objective": "grpo"}, {"task": 3, "objective": []}):
        assert of_run(odd) == (odd, [])  # RunConfig says what is wrong
    own = {"task": "fourrooms", "objective": "grpo", "learning_rate": 0.5}
    assert of_run(own)[0]["learning_rate"] == 0.5
    with pytest.raises(ValueError, match="has none for task 'digits-2', objective 'grpo'"):
        of_run({**given, "learning_rate": "tuned"})
    Path("experiments").mkdir()
    Path("experiments", RECIPES).write_text("[digits-2]\nsteps = [1, 2]\nlearning_rate = 0.25\n")
    Path("experiments", LEARNING_RATES).write_text("[digits-2]\ngrpo = 0.125\n")
    assert of_run({**given, "steps": 1})[0]["learning_rate"] == 0.25
    assert of_run({**given, "steps": 1, "learning_rate": "tuned"})[0]["learning_rate"] == 0.125
    with pytest.raises(
        ValueError, match=r"recipes.toml: \[digits-2\]: key 'steps' has several values; give the run one"
    ):
        of_run(given)


def test_a_plug_in_task_brings_its_recipe(
    away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    plug_in(monkeypatch, {"steps": 3, "learning_rate": 0.5})
    path = away / "study.toml"
    path.write_text('question = "Which?"\n[[grid]]\ntask = [{ name = "mine", size = 11 }]\nobjective = "grpo"\n')
    assert [(run.steps, run.learning_rate) for run in load_experiment(path).runs] == [(3, 0.5)]
    (away / RECIPES).write_text("[mine]\nsteps = 4\n")
    assert [(run.steps, run.learning_rate) for run in load_experiment(path).runs] == [(4, 0.5)]
    assert of_run({"task": "mine", "objective": "grpo"})[0]["steps"] == 3
    assert cli.main(["show", "task", "mine", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["recipe"] == {"steps": 3, "learning_rate": 0.5}


@pytest.mark.parametrize(
    ("recipe", "reason"),
    [
        ({"warm_start": 3}, "recipe: [mine]: key 'warm_start' is unknown; did you mean 'warm_start_steps'"),
        ({"steps": 0}, "recipe: [mine]: key 'steps': input should be greater than 0"),
        ({"task": "mine"}, "recipe: [mine]: key 'task' is not accepted here"),
        ([3], "its 'recipe' must be a mapping of settings, got [3]"),
    ],
)
def test_a_bad_recipe_of_a_plug_in_is_one_line(
    away: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], recipe: Any, reason: str
) -> None:
    plug_in(monkeypatch, recipe)
    for command in (["run", "task=mine", "objective=grpo"], ["show", "task", "mine"]):
        assert cli.main(command) == 2
        told = capsys.readouterr().err
        assert "plug-in task 'mine' (plugged_in:make)" in told
        assert reason in told
        assert told.count("\n") == 1


def test_built_in_experiments_are_found_by_name_behind_ones_own(away: Path) -> None:
    names = experiments_in(ROOT / "experiments")
    assert experiments_in(BUILT_IN).keys() == names.keys()
    assert find_experiments(["objectives"]) == [BUILT_IN / "objectives.toml"]
    assert find_experiments([]) == [BUILT_IN / f"{name}.toml" for name in names]
    Path("objectives.toml").write_text(STUDY)
    assert find_experiments(["objectives"]) == [Path("objectives.toml")]
    Path("experiments").mkdir()
    Path("experiments/objectives.toml").write_text(STUDY)
    assert find_experiments(["objectives", "exact"]) == [Path("experiments/objectives.toml"), BUILT_IN / "exact.toml"]
    assert find_experiments([]) == [Path("experiments/objectives.toml")]


def test_tables_of_a_built_in_experiment_are_its_own_wherever_the_package_lies(
    away: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def made() -> None:
        (study,) = load_experiments(["exact"])
        store = Store("results/store")
        for config in study.runs[:4]:
            fuzz_run.run(config, store)
        tabulate.write_tables(study, store, "results")

    made()
    assert json.loads(Path("results/exact/provenance.json").read_text())["path"] == "built-in"
    assert cli.main(["plot"]) == 0
    assert "exact: plots/exact/" in capsys.readouterr().out
    Path("experiments").mkdir()
    Path("experiments/exact.toml").write_bytes((BUILT_IN / "exact.toml").read_bytes())
    with pytest.raises(ValueError, match="holds those of the built-in exact.toml; rename the file"):
        made()


def test_rates_tuned_by_a_built_in_sweep_are_written_here_and_never_into_the_package(
    away: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (whole,) = load_experiments(["learning_rate"], "tune")
    few = [run for run in whole.runs if (run.task.name, run.objective.name) == ("fourrooms", "grpo")]
    study = dataclasses.replace(whole, runs=tuple(few))
    monkeypatch.setattr(experiment, "load_experiments", lambda *_: [study])
    store = Store("results/store")
    before = (BUILT_IN / LEARNING_RATES).read_bytes()
    for config in study.runs:
        fuzz_run.run(config, store)
    tabulate.write_tables(study, store, "results")
    assert cli.main(["tune"]) == 0
    assert (BUILT_IN / LEARNING_RATES).read_bytes() == before
    assert Path("experiments", LEARNING_RATES).is_file()
    Path("experiments", LEARNING_RATES).write_text("[fourrooms]\ngrpo = 0.5\n")
    (objectives,) = load_experiments(["objectives"])
    chosen = {(run.task.name, run.objective.name): run.learning_rate for run in objectives.runs}
    assert (chosen["fourrooms", "grpo"], chosen["fourrooms", "rloo"]) == (0.5, 0.001)


def test_the_card_of_a_task(away: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["show", "task", "fourrooms"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "fourrooms"
    shown = {line[2:16].strip(): line[18:] for line in lines[1:]}
    assert shown["horizon"] == "48 actions"
    assert shown["pass rates"] == "exact: no sampling noise in evaluations"
    assert shown["demonstrations"] == "yes: it can be warm-started"
    assert shown["recipe"] == "warm_start_steps = 50, warm_start_batch_size = 16, steps = 1000, eval_every = 50"
    assert "grpo 0.003" in shown["tuned rates"]
    assert "grpo sgd 0.03" in shown["tuned rates"]
    facts = {}
    for name in ("maze-9", "digits-2", "programs-1"):
        assert cli.main(["show", "task", name, "--json"]) == 0
        facts[name] = json.loads(capsys.readouterr().out)
        task = make_task(name)
        assert (facts[name]["horizon"], facts[name]["actions"]) == (task.horizon, task.num_actions)
    assert [facts[name]["exact"] for name in facts] == [False, True, True]
    assert facts["digits-2"]["recipe"] == {}
    assert cli.main(["show", "task", "maze-9", "size=11", "colour=3"]) == 2
    assert "task 'maze-9' has no option 'colour'" in capsys.readouterr().err
    assert os.listdir(away) == []
