"""Learning rates are chosen by the stated rule, and never on the test split."""

import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest
from tuning_curves import CURVES

from maxrl_bench.analysis import tune
from maxrl_bench.config import RunConfig
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps.experiment import load_experiment
from maxrl_bench.sweeps.tabulate import write_tables

EXPERIMENT = """
question = "Which learning rate?"
[defaults]
eval_split = "validation"
steps = 20
[[grid]]
task = "fourrooms"
objective = ["grpo", "ml"]
learning_rate = [0.001, 0.01, 0.1]
seed = [0, 1]
"""


def finished(
    folder: Path,
    text: str = EXPERIMENT,
    curves: Callable[[RunConfig], tuple[float, ...]] = lambda run: CURVES[
        run.objective["name"], run.learning_rate, run.seed
    ],
) -> Path:
    """An experiment whose runs are done, with the curves above."""
    path = folder / "experiments" / "rates.toml"
    path.parent.mkdir()
    path.write_text(text)
    store = Store(folder / "results" / "store")
    experiment = load_experiment(path)
    for config in experiment.runs:
        values = curves(config)
        rows = [{"step": 10 * i, "rollouts": 0, "seconds": 0.0, "pass@1": v} for i, v in enumerate(values)]
        rates = pd.DataFrame({"step": [0], "instance": [0], "pass_rate": [0.5], "n": [0]})
        store.finish(config, rows, rates, {})
    write_tables(experiment, store, folder / "results")
    return path


def test_tuned_rates_are_written_and_read_back_by_experiments(tmp_path: Path) -> None:
    path = finished(tmp_path)
    rates = path.parent / "learning_rates.toml"
    rates.write_text('["maze-9"]\ngrpo = 0.5\n["fourrooms"]\nrloo = 0.25\n')
    summary = tune.tune(load_experiment(path), tmp_path / "results")
    assert "2 learning rates chosen" in summary
    assert "fourrooms ml N=64, pass@1: 0.1 is the highest rate tried" in summary
    assert "is not sure: +0.05 with too few seeds for an interval to 0.01" in summary
    assert tomllib.loads(rates.read_text()) == {
        "maze-9": {"grpo": 0.5},
        "fourrooms": {"rloo": 0.25, "grpo": 0.01, "ml": 0.1},
    }
    user = path.parent / "user.toml"
    user.write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = ["grpo", "ml"]\nlearning_rate = "tuned"\n'
    )
    assert [run.learning_rate for run in load_experiment(user).runs] == [0.01, 0.1]


def test_rates_of_another_optimizer_have_entries_of_their_own(tmp_path: Path) -> None:
    """Rates of SGD are of another scale than Adam's: neither stands in for the other."""
    path = finished(tmp_path, EXPERIMENT.replace("[defaults]", '[defaults]\noptimizer = "sgd"'))
    rates = path.parent / "learning_rates.toml"
    rates.write_text("[fourrooms]\ngrpo = 0.5\nml = 0.25\nreinforce = 0.125\n")
    tune.tune(load_experiment(path), tmp_path / "results")
    assert tomllib.loads(rates.read_text())["fourrooms"] == {
        "grpo": 0.5, "ml": 0.25, "reinforce": 0.125, "grpo sgd": 0.01, "ml sgd": 0.1,
    }  # fmt: skip
    user = path.parent / "user.toml"
    text = 'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = "ml"\nlearning_rate = "tuned"\n'
    user.write_text(text + 'optimizer = ["sgd", "adam"]\n')
    assert [run.learning_rate for run in load_experiment(user).runs] == [0.1, 0.25]
    user.write_text(text.replace('"ml"', '"reinforce"') + 'optimizer = "sgd"\n')
    with pytest.raises(ValueError, match="has none for task 'fourrooms', objective 'reinforce', optimizer 'sgd'"):
        load_experiment(user)


def test_tuning_on_the_test_split_is_refused(tmp_path: Path) -> None:
    path = finished(tmp_path, EXPERIMENT.replace('"validation"', '"test"'))
    with pytest.raises(ValueError, match='set eval_split = "validation"'):
        tune.tune(load_experiment(path), tmp_path / "results")
    shutil.rmtree(tmp_path / "results")
    path.write_text(EXPERIMENT)
    with pytest.raises(ValueError, match="no results of experiment 'rates'"):
        tune.tune(load_experiment(path), tmp_path / "results")


KNOBS = (
    EXPERIMENT.replace(
        'objective = ["grpo", "ml"]',
        'objective = [{ name = "maxrl_order", order = 2 }, { name = "maxrl_order", order = 8 }, "grpo",'
        ' { name = "grpo", ddof = 1 }]',
    )
    .replace("[0.001, 0.01, 0.1]", "[0.000316227766, 0.01, 0.1]")
    .replace('"fourrooms"', '{ name = "maze-9", size = 7 }')
)
BEST = {"order": {2: 0.000316227766, 8: 0.1}, "ddof": {0: 0.01, 1: 0.1}}


def peaked(run: RunConfig) -> tuple[float, ...]:
    """Each variant has its own best rate; 0.01 is the second best of all of them."""
    (knob, value), *_ = [(k, v) for k, v in run.objective.items() if k != "name"]
    score = 0.9 if run.learning_rate == BEST[knob][value] else 0.8 if run.learning_rate == 0.01 else 0.1
    return (0.0, score, score)


def test_every_variant_has_its_own_rate_exactly_as_it_was_run(tmp_path: Path) -> None:
    path = finished(tmp_path, KNOBS, peaked)
    rates = path.parent / "learning_rates.toml"
    rates.write_text("# mine\n[fourrooms]\nrloo = 0.25 # a guess\n")
    tune.tune(load_experiment(path), tmp_path / "results")
    assert rates.read_text().startswith("# mine\n[fourrooms]\nrloo = 0.25 # a guess\n")
    assert tomllib.loads(rates.read_text())["maze-9(size=7)"] == {
        "maxrl_order(order=2)": 0.000316227766,
        "maxrl_order(order=8)": 0.1,
        "maxrl_order": 0.01,  # for orders that were not tried: the best mean over those that were
        "grpo": 0.01,
        "grpo(ddof=1)": 0.1,
    }
    user = path.parent / "user.toml"
    user.write_text(KNOBS.replace("[0.000316227766, 0.01, 0.1]", '"tuned"').replace("order = 8", "order = 4"))
    tuned = {run.objective_label: run.learning_rate for run in load_experiment(user).runs}
    assert list(tuned.values()) == [0.000316227766, 0.01, 0.01, 0.1]


def test_knobs_that_were_not_tried_get_a_rate_that_all_others_were_tried_with(tmp_path: Path) -> None:
    """0.001 is best of all, but for one order alone; of the common ones 0.02 has the better mean, 0.01 the best run."""
    common = {0.01: (0.95, 0.05), 0.02: (0.6, 0.6)}  # by the order, 2 or 8

    def curve(run: RunConfig) -> tuple[float, ...]:
        own = {**common, 0.001: (0.99, 0), 0.3: (0, 0.5)}[run.learning_rate]
        return (0.0, *[own[run.objective["order"] == 8]] * 2)

    grids = [
        f"""
[[grid]]
task = "fourrooms"
objective = {{ name = "maxrl_order", order = {order} }}
learning_rate = [{alone}, 0.01, 0.02]
seed = [0, 1]
"""
        for order, alone in ((2, 0.001), (8, 0.3))
    ]
    path = finished(tmp_path, EXPERIMENT.split("[[grid]]")[0] + "".join(grids), curve)
    tune.tune(load_experiment(path), tmp_path / "results")
    assert tomllib.loads((path.parent / "learning_rates.toml").read_text())["fourrooms"] == {
        "maxrl_order(order=2)": 0.001,
        "maxrl_order(order=8)": 0.02,
        "maxrl_order": 0.02,
    }


def test_the_file_stays_as_it_was_where_nothing_can_be_chosen(tmp_path: Path) -> None:
    path = finished(tmp_path)
    rates = path.parent / "learning_rates.toml"
    for old, hint in [
        ("fourrooms = { grpo = 0.5 }\n", "cannot be edited"),
        ('[fourrooms]\n"grpo(ddof=0)" = 0.5\n', "another entry stands before"),
    ]:
        rates.write_text(old)
        with pytest.raises(ValueError, match=f"learning_rates.toml: {hint}"):
            tune.tune(load_experiment(path), tmp_path / "results")
        assert rates.read_text() == old
    path.write_text(EXPERIMENT.replace("seed = [0, 1]", "seed = [0, 1, 2]"))
    with pytest.raises(ValueError, match="rates.toml: 6 of 18 runs have no result; finish the sweep"):
        tune.tune(load_experiment(path), tmp_path / "results")
    path.write_text(EXPERIMENT.replace("steps = 20", "steps = [20, 40]"))
    with pytest.raises(ValueError, match="key 'steps' must have one value"):
        tune.tune(load_experiment(path), tmp_path / "results")
    assert rates.read_text() == old
