"""Claims are compared with the grid and the columns before any run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from maxrl_bench.analysis.claims import CANNOT, judge
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.cli import publish
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps.driver import make_plan
from maxrl_bench.sweeps.experiment import Experiment, NoSuchProfile, load_experiment
from maxrl_bench.sweeps.recipes import NO_EXPERIMENTS
from maxrl_bench.sweeps.tabulate import write_tables

GRID = """
question = "?"
[defaults]
seed = [0, 1, 2]
steps = 2
[[grid]]
task = ["fourrooms", { name = "maze-9", size = 7 }]
objective = ["rloo", "grpo", { name = "maxrl_order", order = 2 }, { name = "maxrl_order", order = 8 }]
num_rollouts = [16, 64]
[[grid]]
task = "digits"
objective = "ml"
policy = { width = 8 }
[profiles.smoke]
seed = 0
num_rollouts = 32
"""
CLAIM = """
[[claims]]
id = "a"
statement = "A"
metric = {metric}
compare = {compare}
against = {against}
{more}
"""


def load(folder: Path, profile: str | None = None, **changes: str) -> Experiment:
    texts = {"metric": '"pass@1"', "compare": '{ objective = "rloo" }', "against": '{ objective = "grpo" }'}
    more = "where = { num_rollouts = 64 }"
    path = folder / "study.toml"
    path.write_text(GRID + CLAIM.format_map({**texts, "more": more, **changes}))
    return load_experiment(path, profile)


ORDER_8 = '{ name = "maxrl_order", order = 8 }'


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"compare": ORDER_8},
        {"compare": '{ objective = { name = "maxrl_order", order = 8 } }'},
        {"compare": ORDER_8, "against": '{ name = "maxrl_order", order = 2 }'},
        {"compare": '{ objective = "MaxRL T=8" }'},
        {"compare": '{ objective_name = "rloo" }'},
        {"more": "where = { num_rollouts = 64, steps = 2 }"},
        {"more": 'where = { num_rollouts = 64 }\ntasks = ["maze-9(size=7)", "fourrooms"]'},
        {"more": 'where = { num_rollouts = 64 }\ntasks = [{ name = "maze-9", size = 7 }]'},
        {"more": "gain = { num_rollouts = [16, 64] }"},
        {
            "compare": '{ objective = "rloo", num_rollouts = 64 }',
            "against": '{ objective = "rloo", num_rollouts = 16 }',
            "more": "",
        },
    ],
)
def test_the_grids_own_ways_are_accepted(tmp_path: Path, changes: dict[str, str]) -> None:
    experiment = load(tmp_path, **changes)
    publish.check(experiment)
    load(tmp_path, "smoke", **changes)  # whose rollouts no claim names: judged under no profile but the first


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"metric": '"pass@1O"'}, "key 'metric.*whole number"),
        ({"against": '{ objective = "rlooo" }'}, "key 'against': no run has objective 'rlooo'; did you mean 'rloo'"),
        ({"against": '{ name = "rlooo" }'}, "key 'against': no run has objective 'rlooo'; did you mean 'rloo'"),
        ({"against": '{ name = "maxrl_order", order = 9 }'}, r"no run has objective 'maxrl_order\(order=9\)'"),
        ({"against": '{ name = "maxrl_order", ordr = 8 }'}, "does not read the knob 'ordr'; accepted: order"),
        ({"against": '{ name = "maxrl_order" }'}, "needs the knob 'order'"),
        ({"against": '{ objective = "pkpo" }'}, "no run has objective 'pkpo_loo'"),
        ({"more": "where = { num_rollouts = 65 }"}, "key 'where': no run has num_rollouts = 65; the runs have 16, 64"),
        ({"more": "where = { num_rollouts = '64' }"}, "key 'where'.*valid integer; got '64'"),
        ({"more": "gain = { num_rollouts = [16, 65] }"}, "key 'gain': no run has num_rollouts = 65"),
        ({"more": 'tasks = "fourrooms"'}, "key 'tasks'.*list"),
        ({"more": 'tasks = ["fourroms"]'}, "key 'tasks': no run is on 'fourroms'; did you mean 'fourrooms'"),
        ({"more": 'margin = "0.1"'}, "key 'margin'.*number; got '0.1'"),
        ({"more": "margin = -0.1"}, "key 'margin'.*greater than 0; got -0.1"),
        ({"more": ""}, "several runs per seed on fourrooms; tell them apart by num_rollouts"),
        (
            {"against": '{ objective = "maxrl_order" }'},
            "several runs per seed on fourrooms; tell them apart by objective",
        ),
        ({"against": '{ objective = "ml" }'}, "rloo and ml have no runs on a common task and seed"),
        (
            {"against": '{ objective = "ml" }', "more": "where = { num_rollouts = 16 }"},
            "no run is of ml, num_rollouts = 16",
        ),
    ],
)
def test_what_the_grid_does_not_have_is_refused(tmp_path: Path, changes: dict[str, str], message: str) -> None:
    with pytest.raises(ValueError, match=f"study.toml: claim 'a': .*{message.removeprefix('.*')}") as refused:
        load(tmp_path, **changes)
    assert len(str(refused.value).splitlines()) == 1


@pytest.mark.parametrize(("metric", "hint"), [("entrpy", "did you mean 'entropy'"), ("pass@3", "did you mean 'pass@")])
def test_a_metric_that_training_does_not_write_is_refused_before_the_first_run(
    tmp_path: Path, metric: str, hint: str
) -> None:
    experiment = load(tmp_path, metric=f'"{metric}"')
    for check in (publish.check, lambda asked: make_plan([asked], tmp_path / "results")):
        with pytest.raises(
            ValueError, match=f"study.toml: claim 'a': key 'metric': there is no column '{metric}'; {hint}"
        ):
            check(experiment)


def test_a_claim_without_runs_under_one_profile_cannot_be_judged_there(tmp_path: Path) -> None:
    experiment = load(tmp_path, "smoke")
    store = Store(tmp_path / "results" / "store")
    for config in experiment.runs:
        rates = pd.DataFrame({"step": [0, 2], "instance": 0, "pass_rate": 0.5, "n": 0})
        store.finish(config, [{"step": s, "rollouts": s, "seconds": 0.0, "pass@1": 0.5} for s in (0, 2)], rates, {})
    write_tables(experiment, store, tmp_path / "results")
    (verdict,) = judge(Evidence.load(experiment.name, tmp_path / "results"), experiment.claims)
    assert verdict.verdict == CANNOT
    assert verdict.notes


def test_shipped_claims_can_be_judged_under_every_profile() -> None:
    for path in sorted(Path(__file__).parents[2].glob("experiments/*.toml")):
        if path.name not in NO_EXPERIMENTS:
            for profile in ("laptop", "reference", "smoke", "full", "tune", "sgd", "survey"):
                try:
                    publish.check(load_experiment(path, profile))
                except NoSuchProfile:
                    continue


def test_an_experiments_margin_is_that_of_its_claims_on_pass_at_k(tmp_path: Path) -> None:
    path = tmp_path / "study.toml"
    load(tmp_path)
    text = path.read_text()
    for margin, expected in (("", 0.02), ("margin = 0.1\n", 0.1)):
        path.write_text(margin + text)
        assert load_experiment(path).claims[0].margin_of("pass@1") == expected
    for wrong in ("-0.1", "0", "2", '"0.1"', "true", "nan"):
        path.write_text(f"margin = {wrong}\n{text}")
        with pytest.raises(ValueError, match=r"study\.toml: key 'margin'") as refused:
            load_experiment(path)
        assert len(str(refused.value).splitlines()) == 1
