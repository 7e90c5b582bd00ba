"""Seeds that follow the claims: how an experiment file says it, what it refuses, and which runs come next."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest

import maxrl_bench
from maxrl_bench.analysis import crossed
from maxrl_bench.analysis.sequential import confidence_sequence
from maxrl_bench.cli import main as cli
from maxrl_bench.sweeps import grid
from maxrl_bench.sweeps.experiment import Experiment, load_experiment
from maxrl_bench.sweeps.seeds import FEWEST, grown, later_runs, next_runs

RULE = '{ first = 5, most = 20, until = "decided" }'
STUDY = """
question = "?"
{top}
[defaults]
{seed}
steps = 2
[[grid]]
task = ["fourrooms", "digits"]
objective = ["rloo", "grpo", "maxrl_alg1"]
num_rollouts = [16, 64]
[[grid]]
task = "fourrooms"
objective = "ml"
{block}
[profiles.smoke]
{smoke}
"""
CLAIM = """
[[claims]]
id = "{id}"
statement = "A claim"
metric = "pass@1"
compare = { objective = "maxrl_alg1" }
against = {against}
{more}
"""


def load(folder: Path, *claims: dict[str, str], profile: str | None = None, **changes: str) -> Experiment:
    path = folder / "study.toml"
    text = STUDY.format_map({"top": "", "seed": f"seed = {RULE}", "block": "", "smoke": "", **changes})
    for number, claim in enumerate(claims):
        table = {"id": str(number), "against": '{ objective = "grpo" }', "more": "where = { num_rollouts = 64 }"}
        text += CLAIM.replace("{ objective", "{{ objective").replace('1" }', '1" }}').format_map({**table, **claim})
    path.write_text(text)
    return load_experiment(path, profile)


def cells(experiment: Experiment, runs=None) -> dict[tuple[str, str, int], list[int]]:
    found: dict[tuple[str, str, int], list[int]] = {}
    for config in experiment.runs if runs is None else runs:
        key = config.task.name, config.objective.name, config.num_rollouts
        found.setdefault(key, []).append(config.seed)
    return found


def test_every_cell_has_the_first_seeds_and_a_list_is_what_it_was(tmp_path: Path) -> None:
    following = load(tmp_path, {})
    assert len(cells(following)) == 13
    assert all(seeds == [0, 1, 2, 3, 4] for seeds in cells(following).values())
    fixed = load(tmp_path, {}, seed="seed = [0, 1, 2, 3, 4]")
    assert fixed.seeds is None
    assert {config.hash for config in fixed.runs} == {config.hash for config in following.runs}
    assert later_runs(fixed) == next_runs(fixed, "0") == ()


def test_a_profile_may_replace_the_rule_by_a_list_or_a_list_by_the_rule(tmp_path: Path) -> None:
    assert load(tmp_path, {}, profile="smoke", smoke="seed = [0, 1]").seeds is None
    assert load(tmp_path, {}, profile="smoke", smoke=f"seed = {RULE}", seed="seed = 0").seeds.most == 20


def test_the_next_seed_goes_to_what_the_claim_compares(tmp_path: Path) -> None:
    study = load(tmp_path, {}, {"more": 'where = { num_rollouts = 16 }\ntasks = ["digits"]'})
    assert cells(study, next_runs(study, "0")) == {
        (task, objective, 64): [5] for task in ("fourrooms", "digits") for objective in ("maxrl_alg1", "grpo")
    }
    assert cells(study, next_runs(study, "1")) == {("digits", name, 16): [5] for name in ("maxrl_alg1", "grpo")}
    assert cells(study, later_runs(study))["digits", "grpo", 16] == list(range(5, 20))
    assert len(later_runs(study)) == 6 * 15


def test_a_gain_takes_all_four_sides_and_all_opponents_count(tmp_path: Path) -> None:
    against = '[{ objective = "grpo" }, { objective = "rloo" }]'
    study = load(tmp_path, {"more": "gain = { num_rollouts = [16, 64] }", "against": against})
    assert len(next_runs(study, "0")) == 2 * 3 * 2


def test_seeds_catch_up_one_by_one_and_end_at_the_most(tmp_path: Path) -> None:
    rule = RULE.replace("20", "8")
    study = load(tmp_path, {}, {"against": '{ objective = "rloo" }'}, seed=f"seed = {rule}")
    for count in (6, 7):
        study = grown(study, next_runs(study, "0"))
        assert {len(own) for key, own in cells(study).items() if key[1] in ("grpo", "maxrl_alg1") and key[2] == 64} == {
            count
        }
    more = cells(study, next_runs(study, "1"))  # MaxRL has the seeds already
    assert more == {("fourrooms", "rloo", 64): [5], ("digits", "rloo", 64): [5]}
    study = grown(study, next_runs(study, "0"))
    assert next_runs(study, "0") == ()
    for _ in range(3):
        study = grown(study, next_runs(study, "1"))
    assert next_runs(study, "1") == ()
    found = cells(study)
    assert {len(own) for key, own in found.items() if key[2] == 64 and key[1] != "ml"} == {8}
    assert all(own == list(range(len(own))) for own in found.values())
    assert len(found) == 13  # and rows of a cell are together
    assert not later_runs(study)


def test_the_fewest_first_seeds_are_those_that_have_an_interval() -> None:
    numbers = np.array([0.3, 0.1, 0.2, 0.25])
    assert np.isfinite(confidence_sequence(numbers[:FEWEST])).all()
    assert not np.isfinite(confidence_sequence(numbers[: FEWEST - 1])).any()
    assert FEWEST >= crossed.FEWEST_SEEDS


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"seed": 'seed = { first = 3, most = 20, until = "decided" }'}, "key 'first': input should be greater than"),
        ({"seed": 'seed = { first = -5, most = 20, until = "decided" }'}, "key 'first': input should be greater than"),
        ({"seed": 'seed = { first = 5, most = 4, until = "decided" }'}, "most = 4 lies below first = 5"),
        ({"seed": 'seed = { first = 5.5, most = 20, until = "decided" }'}, "key 'first': input should be a valid int"),
        ({"seed": 'seed = { first = true, most = 20, until = "decided" }'}, "key 'first': input should be a valid int"),
        ({"seed": 'seed = { first = 5, most = "20", until = "decided" }'}, "key 'most': input should be a valid int"),
        ({"seed": 'seed = { first = 5, most = 2000000, until = "decided" }'}, "key 'most': input should be less than"),
        ({"seed": 'seed = { first = 5, most = 20, until = "bored" }'}, "key 'until': input should be 'decided'"),
        ({"seed": "seed = { first = 5, most = 20 }"}, "key 'until' is missing"),
        ({"seed": 'seed = { first = 5, until = "decided" }'}, "key 'most' is missing"),
        ({"seed": 'seed = { first = 5, mots = 20, until = "decided" }'}, "key 'mots' is unknown; did you mean 'most'"),
        ({"seed": "seed = {}"}, "key 'first' is missing"),
        ({"seed": f"seed = [{RULE}]"}, "key 'seed': input should be a valid integer"),
        ({"seed": f"seeds = {RULE}"}, "key 'seeds' is unknown; did you mean 'seed'"),
        ({"seed": f"batch_size = {RULE}"}, "key 'batch_size': input should be a valid integer"),
        ({"block": "seed = [0, 1]"}, "seeds that follow the claims are the same for all runs, not so in"),
        ({"block": f"seed = {RULE.replace('20', '30')}"}, "the same for all runs, not so in"),
        ({"seed": "", "block": f"seed = {RULE}"}, "the same for all runs, not so in"),
        ({"top": "margin = -0.02"}, "key 'margin': input should be greater than 0"),
        ({"top": "[seeds]\nfirst = 5"}, "key 'seeds' is unknown"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line_before_any_run(
    changes: dict[str, str], says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(ValueError, match=re.escape(says)) as error:
        load(tmp_path, {}, **changes)
    assert str(error.value).startswith(f"{tmp_path / 'study.toml'}: ")
    assert cli.main(["sweep", str(tmp_path / "study.toml"), "--results", str(tmp_path / "r")]) == 2
    assert capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "r").exists()


def test_margins_of_the_wrong_sign_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="claim '0': key 'margin': input should be greater than 0"):
        load(tmp_path, {"more": "where = { num_rollouts = 64 }\nmargin = -0.01"})


def test_without_claims_there_is_nothing_to_decide(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"\[defaults\]: key 'seed': until = \"decided\" needs claims to decide"):
        load(tmp_path)
    with pytest.raises(ValueError, match="maxrl_bench.run: key 'seed': until = \"decided\" needs claims"):
        maxrl_bench.run("fourrooms", "grpo", seeds={"first": 5, "most": 9, "until": "decided"})


def test_the_most_runs_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maxrl_bench.sweeps.experiment.MAX_RUNS", 13 * 20 - 1)
    with pytest.raises(ValueError, match="stands for 260 runs; at most 259"):
        load(tmp_path, {})
    assert grid.MAX_RUNS == 100_000
