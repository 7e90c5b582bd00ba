"""Learning rates that follow the results: more until the best is inside, the same whatever happened on the way."""

from __future__ import annotations

import functools
import tomllib
from pathlib import Path

import pandas as pd
import pytest
from sweep_cases import Serial

from maxrl_bench.analysis.tune import tune
from maxrl_bench.cli import listing, publish
from maxrl_bench.cli import main as cli
from maxrl_bench.cli.looks import Looks
from maxrl_bench.storage import tables as results
from maxrl_bench.sweeps.driver import Report, Sweep, make_plan
from maxrl_bench.sweeps.experiment import load_experiment
from maxrl_bench.sweeps.progress import Progress
from maxrl_bench.sweeps.rate_rule import LADDER, beyond

RUN = "rate_run:run"
STUDY = """
question = "Which rates?"
[defaults]
task = "fourrooms"
learning_rate = { first = [3e-4, 1e-3, 3e-3], until = "inside" }
seed = 100
steps = 2
eval_every = 1
eval_split = "validation"
[[grid]]
objective = ["grpo", "rloo", "maxrl_alg1"]
num_rollouts = [8, 64]
"""
# What is tried in the end: one rate beyond the best by pass@1, or as far as it goes.
TRIED = {
    ("grpo", 8): (3e-4, 3e-3),
    ("grpo", 64): (3e-4, 1e-1),
    ("rloo", 8): (1e-5, 3e-3),  # by the other criterion the best is lower still
    ("rloo", 64): (3e-4, 3e-3),
    ("maxrl_alg1", 8): (3e-4, 1e-2),  # 3e-2 fails
    ("maxrl_alg1", 64): (1e-6, 3e-3),
}


def written(folder: Path, text: str = STUDY) -> Path:
    path = folder / "rates.toml"
    path.write_text(text)
    return path


def follow(path: Path, pool: Serial | None = None) -> tuple[Report, list[str]]:
    """A sweep as the command does it, but for figures."""
    root = path.parent / "results"
    plan = make_plan([load_experiment(path)], root, run_function=RUN)
    looks, told, published = Looks(plan), [], []
    looks.follow()
    progress = Progress(len(plan.wanted), len(plan.wanted) - len(plan.todo))
    ask = functools.partial(looks.next_runs, told.append)
    report = Sweep(plan, pool or Serial(), progress, lambda *ended: published.append(ended), ask).carry_out()
    ((experiment, done),) = published
    publish.publish(experiment, str(root), None, {run: plan.code(run) for run in done})
    return report, told


def bare(path: Path) -> str:
    return results.load("rates", path.parent / "results").metrics.drop(columns="seconds").to_csv()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = written(tmp_path_factory.mktemp("whole"))
    _, told = follow(path)
    (path.parent / "told.txt").write_text("\n".join(told))
    return path


def test_rates_are_added_beyond_an_end_until_the_best_is_inside(whole: Path) -> None:
    metrics = results.load("rates", whole.parent / "results").metrics
    for (name, n), rows in metrics.groupby(["objective_name", "num_rollouts"]):
        tried = sorted(set(rows["learning_rate"]))
        assert (tried[0], tried[-1]) == TRIED[name, n], (name, n)
        assert tried == [rate for rate in LADDER if tried[0] <= rate <= tried[-1]]  # in steps of about 3, none left out
        assert (rows.groupby("learning_rate")["seed"].nunique() == 1).all()
    told = (whole.parent / "told.txt").read_text()
    assert "fourrooms grpo N=64: tries 0.01" in told
    assert told.endswith("is inside the range, or at its end for good")


class Killed(Serial):
    """A pool that is stopped by Ctrl-C after some jobs."""

    def __init__(self, after: int):
        super().__init__()
        self.left = after

    def submit(self, function, job):
        if not self.left:
            raise KeyboardInterrupt
        self.left -= 1
        return super().submit(function, job)


def test_a_sweep_that_is_stopped_again_and_again_ends_with_the_same_tables(whole: Path, tmp_path: Path) -> None:
    path, stops = written(tmp_path), 0
    while True:
        try:
            follow(path, Killed(after=11))
            break
        except KeyboardInterrupt:
            stops += 1
    assert stops == 2
    assert bare(path) == bare(whole)


def test_a_fresh_clone_takes_the_added_rates_from_the_tables_too(whole: Path, tmp_path: Path) -> None:
    path = written(tmp_path)
    for name in results.FILES:
        target = tmp_path / "results" / "rates" / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes((whole.parent / "results" / "rates" / name).read_bytes())
    pool = Serial()
    follow(path, pool)
    assert len(pool.jobs) == 1  # the run that fails is in no table
    assert bare(path) == bare(whole)


def test_the_choice_knows_the_added_rates_and_leaves_out_those_that_fail(whole: Path) -> None:
    summary = tune(load_experiment(whole), whole.parent / "results")
    chosen = tomllib.loads((whole.parent / "learning_rates.toml").read_text())["fourrooms"]
    assert chosen == {
        "grpo N=8": 1e-3, "grpo N=64": 3e-2, "grpo": 1e-3,  # of those that both tried, the best mean
        "rloo N=8": 3e-5, "rloo N=64": 1e-3, "rloo": 3e-4,
        "maxrl_alg1 N=8": 1e-2, "maxrl_alg1 N=64": 1e-6, "maxrl_alg1": 3e-4,
    }  # fmt: skip
    assert "fourrooms maxrl_alg1 N=8: runs fail at 0.03" in summary
    assert "fourrooms maxrl_alg1 N=8, pass@1: 0.01 is the highest rate tried" in summary
    user = whole.parent / "user.toml"
    user.write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = ["grpo", "rloo"]\nlearning_rate = "tuned"\n'
        "num_rollouts = [8, 16, 64]\n"
    )
    rates = {(run.objective.name, run.num_rollouts): run.learning_rate for run in load_experiment(user).runs}
    assert rates == {
        ("grpo", 8): 1e-3, ("grpo", 16): 1e-3, ("grpo", 64): 3e-2,
        ("rloo", 8): 3e-5, ("rloo", 16): 3e-4, ("rloo", 64): 1e-3,
    }  # fmt: skip
    tune(load_experiment(whole), whole.parent / "results", "both")
    assert tomllib.loads((whole.parent / "learning_rates.toml").read_text())["fourrooms"]["rloo N=8"] < 3e-5
    with pytest.raises(ValueError, match="no criterion 'pass@2'"):
        tune(load_experiment(whole), whole.parent / "results", "pass@2")


def test_an_unfinished_sweep_is_told_as_at_least_and_at_most(tmp_path: Path) -> None:
    path = written(tmp_path)
    plan = make_plan([load_experiment(path)], tmp_path / "results", run_function=RUN)
    shown = listing.dry_run(plan, 1, Looks(plan).follow())
    assert "at least 18 / at most 78 runs" in shown
    assert "learning rates: more come in steps of about 3" in shown


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("[3e-4, 1e-3, 3e-3]", "[3e-3, 1e-3]", "key 'first': must be different rates in ascending order"),
        ('"inside"', '"decided"', "key 'until': input should be 'inside'; got 'decided'"),
        (', until = "inside"', "", "key 'learning_rate': key 'until' is missing"),
        ('"validation"', '"test"', 'need a list of seeds and eval_split = "validation"'),
        ("num_rollouts = [8, 64]", "[[grid]]\nobjective = \"reinforce\"\nlearning_rate = 1e-3", "holds for all runs"),
    ],
)  # fmt: skip
def test_a_rule_that_cannot_hold_is_one_line(
    tmp_path: Path, old: str, new: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    path = written(tmp_path, STUDY.replace(old, new))
    assert cli.main(["sweep", str(path), "--dry-run", "--results", str(tmp_path / "results")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "rates.toml: " in line
    assert message in line


def test_the_ladder_goes_on_in_steps_of_about_3() -> None:
    assert [beyond(rate, "highest") for rate in (5e-5, 1e-4, 1.5e-4, 3e-4, 1.0)] == [1e-4, 3e-4, 3e-4, 1e-3, None]
    assert [beyond(rate, "lowest") for rate in (5e-5, 1e-4, 1.5e-4, 3e-4, 1e-6)] == [1e-5, 3e-5, 3e-5, 1e-4, None]
    assert pd.Series(LADDER).is_monotonic_increasing
