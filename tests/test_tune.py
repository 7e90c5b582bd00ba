"""Learning rates are chosen by the stated rule, and never on the test split."""

import shutil
import tomllib
from pathlib import Path

import pandas as pd
import pytest

from maxrl_bench import tune
from maxrl_bench.experiment import load_experiment
from maxrl_bench.results import write_tables
from maxrl_bench.store import Store

# pass@1 at steps 0, 10, 20 by (objective, rate, seed). By its end point 0.1 would win for grpo; by its area, 0.01 does.
CURVES = {
    ("grpo", 0.001, 0): (0.9, 0.1, 0.2),
    ("grpo", 0.001, 1): (0.9, 0.1, 0.2),
    ("grpo", 0.01, 0): (0.1, 0.5, 0.5),
    ("grpo", 0.01, 1): (0.1, 0.3, 0.5),
    ("grpo", 0.1, 0): (0.1, 0.0, 0.8),
    ("grpo", 0.1, 1): (0.1, 0.0, 0.9),
    ("ml", 0.001, 0): (0.1, 0.2, 0.2),
    ("ml", 0.001, 1): (0.1, 0.2, 0.2),
    ("ml", 0.01, 0): (0.1, 0.3, 0.3),
    ("ml", 0.01, 1): (0.1, 0.3, 0.3),
    ("ml", 0.1, 0): (0.1, 0.6, 0.6),
    ("ml", 0.1, 1): (0.1, 0.1, 0.1),
}
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


def metrics() -> pd.DataFrame:
    rows = [
        {"task": "t", "objective_name": name, "learning_rate": rate, "seed": seed, "step": 10 * i, "pass@1": value}
        for (name, rate, seed), values in CURVES.items()
        for i, value in enumerate(values)
    ]
    return pd.DataFrame(rows)


def test_the_score_is_the_area_after_the_first_evaluation() -> None:
    table = tune.scores(metrics()).set_index(["objective_name", "learning_rate"])
    assert table.loc[("grpo", 0.001), "area"] == pytest.approx(0.15)
    assert table.loc[("grpo", 0.01), "area"] == pytest.approx((0.5 + 0.4) / 2)
    assert table.loc[("grpo", 0.1), "area"] == pytest.approx(0.425)
    assert table.loc[("grpo", 0.01), "seeds"] == 2


def test_the_choice_is_the_largest_area_and_says_where_it_is_an_edge() -> None:
    chosen = tune.choose(tune.scores(metrics())).set_index("objective_name")
    assert chosen.loc["grpo", "learning_rate"] == 0.01
    assert not chosen.loc["grpo", "edge"]
    assert chosen.loc["ml", "learning_rate"] == 0.1
    assert chosen.loc["ml", "edge"]


def test_unequal_seeds_are_refused() -> None:
    table = metrics()
    table = table[(table["learning_rate"] != 0.1) | (table["seed"] == 0)]
    with pytest.raises(ValueError, match="different numbers of seeds"):
        tune.choose(tune.scores(table))


def finished(folder: Path, text: str = EXPERIMENT) -> Path:
    """An experiment whose runs are done, with the curves above."""
    path = folder / "experiments" / "rates.toml"
    path.parent.mkdir()
    path.write_text(text)
    store = Store(folder / "results" / "store")
    experiment = load_experiment(path)
    for config in experiment.runs:
        values = CURVES[config.objective["name"], config.learning_rate, config.seed]
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
    assert "fourrooms ml: 0.1 is the end of the range tried" in summary
    assert tomllib.loads(rates.read_text()) == {
        "maze-9": {"grpo": 0.5},
        "fourrooms": {"rloo": 0.25, "grpo": 0.01, "ml": 0.1},
    }
    user = path.parent / "user.toml"
    user.write_text(
        'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = ["grpo", "ml"]\nlearning_rate = "tuned"\n'
    )
    assert [run.learning_rate for run in load_experiment(user).runs] == [0.01, 0.1]


def test_tuning_on_the_test_split_is_refused(tmp_path: Path) -> None:
    path = finished(tmp_path, EXPERIMENT.replace('"validation"', '"test"'))
    with pytest.raises(ValueError, match='set eval_split = "validation"'):
        tune.tune(load_experiment(path), tmp_path / "results")
    shutil.rmtree(tmp_path / "results")
    path.write_text(EXPERIMENT)
    with pytest.raises(ValueError, match="no results of experiment 'rates'"):
        tune.tune(load_experiment(path), tmp_path / "results")
