"""What an experiment file stands for: counted before it is made, made cheaply, named by what it holds."""

from __future__ import annotations

import copy
import json
import os
import pickle
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from maxrl_bench.config import FIELDS, MAX_HISTORIES, RunConfig, label
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import claim_check, experiment, grid
from maxrl_bench.sweeps.experiment import find_experiments, load_experiment, load_experiments
from maxrl_bench.tasks import make_task
from maxrl_bench.training.loop import train

SMALL = 'question = "Which?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\n'
WIDE = """
question = "Which?"
[defaults]
learning_rate = "tuned"
steps = [5, 6]
[task.add-2]
batch_size = [3, 4]
[[grid]]
task = ["fourrooms", { name = "fourrooms", horizon = 30 }, "add-2"]
objective = ["grpo", { name = "maxrl_order", order = 2 }, { name = "grpo", ddof = 1 }]
num_rollouts = [2, 4]
policy = [{ width = 8 }, {}]
[[grid]]
task = "add-2"
objective = "rloo"
max_grad_norm = [1, 2]
[profiles.more]
seed = [3, 4]
"""
RATES = "[fourrooms]\ngrpo = 1\nmaxrl_order = 0.5\n[add-2]\ngrpo = 0.25\n'maxrl_order(order=2)' = 2\nrloo = 1e-4\n"


def write(path: Path, text: str = SMALL) -> Path:
    path.write_text(text)
    return path


def refused(path: Path, profile: str | None = None) -> str:
    with pytest.raises(ValueError, match="^[^\n]*$") as caught:
        load_experiment(path, profile)
    assert str(caught.value).startswith(str(path.parent))
    return str(caught.value)


def test_runs_are_made_as_if_each_had_been_checked_by_itself(tmp_path: Path) -> None:
    write(tmp_path / "learning_rates.toml", RATES)
    runs = load_experiment(write(tmp_path / "wide.toml", WIDE), "more").runs
    assert len(runs) == 2 * 2 * (2 * 3 * 2 * 2 + 2 * 3 * 2 * 2 + 2 * 2)
    for run in runs:
        again = RunConfig(**run.model_dump())
        assert again == run
        assert again.hash == run.hash == RunConfig(**json.loads(run.model_dump_json())).hash
    assert {run.learning_rate for run in runs if run.task_label == "fourrooms(horizon=30)"} == {1.0, 0.5}
    assert {type(run.learning_rate) for run in runs} == {type(run.max_grad_norm) for run in runs} == {float}


def test_what_is_wrong_in_combination_is_the_objectives(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml", SMALL.replace('"grpo"', '{ name = "maxrl_order", order = 3 }'))
    path.write_text(path.read_text() + "num_rollouts = [8, 2]\n")  # the first run is well, the second is not
    assert "x.toml: [[grid]] 1: objective 'maxrl_order': knob 'order'" in refused(path)


@pytest.mark.parametrize(
    "axes",
    [
        "task = [" + '"fourrooms", ' * 1000 + "]\nseed = [" + ", ".join(map(str, range(101))) + "]",
        'task = "fourrooms"\n' + "\n".join(f"{key} = {[*range(1, 100)]}" for key in ("seed", "steps", "batch_size")),
        'task = "fourrooms"\nseed = [' + "1," * 100_001 + "]",
    ],
    ids=["tasks", "product", "long"],
)
def test_too_many_runs_are_counted_and_none_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, axes: str) -> None:
    monkeypatch.setattr(grid.Block, "runs", lambda *_: pytest.fail("a run was made"))
    path = write(tmp_path / "x.toml", f'question = "Which?"\n[[grid]]\nobjective = "grpo"\n{axes}\n')
    assert "at most 100000 are accepted" in refused(path)


def test_the_limit_is_that_of_all_blocks_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(experiment, "MAX_RUNS", 6)
    block = '[[grid]]\ntask = ["fourrooms", "maze-7"]\nobjective = "%s"\nseed = [1, 2]\n'
    text = 'question = "Which?"\n' + block % "grpo"
    one_more = block.replace("[1, 2]", "1") % "rloo"
    assert len(load_experiment(write(tmp_path / "x.toml", text + one_more)).runs) == 6
    assert "stands for 8 runs; at most 6" in refused(write(tmp_path / "x.toml", text + block % "rloo"))


@pytest.mark.parametrize(("kind", "most"), [("grid", experiment.MAX_BLOCKS), ("profiles", experiment.MAX_PROFILES)])
def test_tables_have_limits_too(tmp_path: Path, kind: str, most: int) -> None:
    def text(number: int) -> str:
        if kind == "profiles":
            return SMALL + "[profiles]\n" + "".join(f"p{i} = {{ seed = {i} }}\n" for i in range(number))
        block = SMALL.partition("[[grid]]\n")[2]
        return 'question = "Which?"\n' + "".join(f"[[grid]]\n{block}seed = {i}\n" for i in range(number))

    path = write(tmp_path / "x.toml", text(most))
    assert len(load_experiment(path).runs) == (1 if kind == "profiles" else most)
    message = refused(write(path, text(most + 1)))
    assert f"key '{kind}': " in message
    assert f"at most {most} items" in message


CLAIM = """
[[claims]]
id = "c"
statement = "one is better"
metric = "pass@1"
compare = { objective = "rloo" }
against = { objective = "grpo" }
direction = "higher"
"""


def test_what_claims_ask_of_the_runs_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL.replace('"grpo"', '["grpo", "rloo"]') + "seed = [1, 2, 3]\n" + CLAIM
    monkeypatch.setattr(claim_check, "MOST_PAIRS", 2)  # seeds do not count
    assert load_experiment(write(tmp_path / "x.toml", text)).claims
    monkeypatch.setattr(claim_check, "MOST_PAIRS", 1)
    assert "1 comparisons, each among 2 runs" in refused(tmp_path / "x.toml")


def test_other_profiles_are_expanded_within_the_limit_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = SMALL + CLAIM + '[profiles.a]\nobjective = ["grpo", "rloo"]\n[profiles.b]\nseed = [1, 2, 3]\n'
    monkeypatch.setattr(experiment, "MAX_RUNS", 5)
    assert load_experiment(write(tmp_path / "x.toml", text)).claims  # judged under a, with its two runs and b's three
    monkeypatch.setattr(experiment, "MAX_RUNS", 4)
    assert "the others stand for 5 runs, too many to look for it there" in refused(tmp_path / "x.toml")


@pytest.mark.parametrize(
    "stem", ["..", ".", ".hidden", "-x", "con", "a b", "a\nb", "mаze", "é", "x" * 101, "javascript:alert(1)", "a."]
)
def test_the_name_of_a_file_is_the_name_of_a_folder(tmp_path: Path, stem: str) -> None:
    path = tmp_path / f"{stem}.toml"
    write(path)
    message = refused(path)
    assert "a name has at most 100 characters" in message or "ends in .toml" in message
    assert message.isprintable()


@pytest.mark.parametrize("profile", ["../x", "a/b", "", "..", "a\nb", "con", "ｆull", "x" * 101, "x" * 98])
def test_so_is_the_name_of_a_profile(tmp_path: Path, profile: str) -> None:
    assert "a name has at most 100 characters" in refused(write(tmp_path / "own.toml"), profile)
    if len(profile) != 98:  # which is too long with the file's only
        write(tmp_path / "own.toml", SMALL + f"[profiles.{json.dumps(profile)}]\nsteps = 1\n")
        message = refused(tmp_path / "own.toml")
        assert "has characters that cannot be printed" in message or "a name has at most 100 characters" in message


def test_what_lies_beside_must_be_readable_or_absent(tmp_path: Path) -> None:
    path = write(tmp_path / "x.toml")
    for name in ("recipes.toml", "learning_rates.toml"):
        beside = tmp_path / name
        beside.symlink_to(beside)
        assert f"{beside}: cannot be read" in refused(path)
        beside.unlink()
        os.mkfifo(beside)
        assert f"{beside}: is not a regular file" in refused(path)
        beside.unlink()
    write(tmp_path / "learning_rates.toml", "fourrooms = 3\n")
    path.write_text(SMALL + 'learning_rate = "tuned"\n')
    assert "learning_rates.toml: [fourrooms]: must be a table, got 3" in refused(path)


def test_a_byte_order_mark_is_accepted(tmp_path: Path) -> None:
    for name, text in (("x.toml", SMALL), ("recipes.toml", "[fourrooms]\nsteps = 7\n")):
        (tmp_path / name).write_bytes(("\ufeff" + text.replace("\n", "\r\n")).encode())
    assert [run.steps for run in load_experiment(tmp_path / "x.toml").runs] == [7]


def test_an_experiment_is_named_by_its_file_in_the_folder_or_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    write(tmp_path / "mine.toml")
    assert find_experiments(["mine"]) == find_experiments(["mine.toml"]) == [Path("mine.toml")]
    with pytest.raises(ValueError, match="unknown experiment 'yours'; accepted: baselines, "):
        find_experiments(["yours"])


def test_names_that_some_file_systems_take_for_one(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    files = [str(write(tmp_path / "mine.toml")), str(write(tmp_path / "b" / "Mine.toml"))]
    with pytest.raises(ValueError, match="its folder of results, 'Mine', is that of"):
        load_experiments(files)
    (tmp_path / "mine.toml").write_text(SMALL + "[profiles.x]\nseed = 1\n")
    write(tmp_path / "mine-x.toml", SMALL + "[profiles.x]\n")
    assert load_experiment(tmp_path / "mine.toml", "x").name == load_experiment(tmp_path / "mine-x.toml").name


def test_a_configuration_stays_as_it_is() -> None:
    task, objective, policy = {"name": "fourrooms"}, {"name": "grpo"}, {"width": 8}
    config = RunConfig(task=task, objective=objective, policy=policy)
    assert (task, objective, policy) == ({"name": "fourrooms"}, {"name": "grpo"}, {"width": 8})
    task["name"] = policy["width"] = "changed"
    before = config.hash
    for table in (config.task, config.objective, config.policy):
        for change in (
            lambda t: t.update(x=1),
            lambda t: t.__setitem__("x", 1),
            lambda t: t.pop("name", None),
            lambda t: t.clear(),
            lambda t: t.setdefault("x", 1),
            lambda t: t.__ior__({"x": 1}),
        ):
            with pytest.raises(TypeError, match="cannot be changed"):
                change(table)
    assert RunConfig(**config.model_dump()).hash == before
    for again in (pickle.loads(pickle.dumps(config)), copy.deepcopy(config), config.model_copy(deep=True)):
        assert again == config
        assert again.hash == before
    assert config.model_copy(update={"seed": 1}).hash == RunConfig(**{**config.model_dump(), "seed": 1}).hash != before


def test_a_setting_that_came_later_names_only_the_runs_that_use_it() -> None:
    config = RunConfig(task="maze-7", objective="grpo")
    assert config.hash == "ee02432520265e8a"
    assert RunConfig(task="maze-7", objective="grpo", estimator="sampled").hash == config.hash
    assert RunConfig(task="maze-7", objective="grpo", estimator="visited").hash != config.hash


@pytest.mark.parametrize(
    ("objective", "rollouts", "told"),
    [
        ("ml", 64, "must be 'sampled' with objective 'ml', which weighs by more than counts"),
        ("raft", 64, "must be 'sampled' with objective 'raft'"),
        ("differential_smoothing", 64, "must be 'sampled' with objective 'differential_smoothing'"),
        ("grpo", 257, "must be 'sampled' with more than 256 rollouts, got 257"),
    ],
)
def test_an_estimator_that_cannot_be_is_refused(objective: str, rollouts: int, told: str) -> None:
    with pytest.raises(ValueError, match="estimator") as caught:
        RunConfig(task="maze-7", objective=objective, num_rollouts=rollouts, estimator="visited")
    assert told in str(caught.value)


VALUES = st.one_of(
    st.integers(-3, 12),
    st.booleans(),
    st.floats(-2, 2),
    st.text("ab1-, =()\"'.Te", max_size=6),
    st.sampled_from(["True", "1", "1.0", "nan", "a, b=1", "[1]", "-1", "None"]),
    st.lists(st.integers(0, 2), max_size=2),
    st.lists(st.text("a,'", max_size=3), max_size=2),
)
OPTIONS = st.dictionaries(st.sampled_from(["a", "b", "c"]), VALUES, max_size=3)


@settings(max_examples=300, deadline=None)
@given(OPTIONS, OPTIONS)
def test_different_options_have_different_labels(first: dict[str, Any], second: dict[str, Any]) -> None:
    same = json.dumps(first, sort_keys=True) == json.dumps(second, sort_keys=True)
    assert (label({"name": "x", **first}) == label({"name": "x", **second})) == same


def test_labels_are_plain_where_they_can_be() -> None:
    assert label({"name": "maze", "size": 9}) == "maze(size=9)"
    task = {"name": "add-2", "operation": "*", "scratchpad": True}
    assert label(task) == "add-2(operation=*, scratchpad=True)" == make_task(**task).name


def test_a_knob_cannot_be_taken_for_an_argument() -> None:
    for knob in ("num_rollouts", "self", "objective"):
        with pytest.raises(ValueError, match=f"does not read the knob '{knob}'"):
            RunConfig(task="fourrooms", objective={"name": "grpo", knob: 5})


@pytest.mark.parametrize(
    ("key", "most"),
    [
        ("num_rollouts", 2**20),
        ("eval_rollouts", 2**20),
        ("batch_size", 2**12),
        ("eval_instances", 2**12),
        ("warm_start_batch_size", 2**12),
        ("train_instances", 2**20),
        ("steps", 10**7),
        ("eval_every", 10**7),
        ("warm_start_steps", 10**7),
        ("seed", 2**20 - 1),
    ],
)
def test_limits_of_counts(key: str, most: int) -> None:
    assert FIELDS[key].validate_python(most) == most
    with pytest.raises(ValueError, match="Input should be less than"):
        FIELDS[key].validate_python(most + 1)


@pytest.mark.parametrize(
    "limits",
    [
        {"task": "fourrooms", "num_rollouts": 2**20},
        {"task": "add-2", "num_rollouts": 2**20, "eval_rollouts": 2**20},
        {"task": "fourrooms", "train_instances": 2**20, "steps": 2},
        {"task": "modular-97", "batch_size": 2**12, "eval_instances": 2**12},
    ],
    ids=lambda limits: ", ".join(limits),
)
def test_what_is_accepted_works(limits: dict[str, Any], tmp_path: Path) -> None:
    small = {"objective": "maxrl_alg1", "steps": 1, "batch_size": 2, "eval_instances": 2, "eval_rollouts": 8}
    config = RunConfig(**{**small, **limits})
    store = Store(tmp_path)
    train(config, store)
    assert store.status(config.hash) == "done"


def test_paths_kept_apart_have_a_limit_of_their_own() -> None:
    objective = {"name": "differential_smoothing"}
    RunConfig(task="fourrooms", objective=objective, num_rollouts=MAX_HISTORIES)
    with pytest.raises(ValueError, match=f"'num_rollouts' must be at most {MAX_HISTORIES} with it"):
        RunConfig(task="fourrooms", objective=objective, num_rollouts=MAX_HISTORIES + 1)
