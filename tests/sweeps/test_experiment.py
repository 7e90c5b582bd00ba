"""Run configurations and experiment files: what is accepted, what it stands for, and how what is not is told."""

import json
import random
import re
from pathlib import Path

import pytest
from pydantic import ValidationError

from maxrl_bench.cli import publish
from maxrl_bench.config import RunConfig, one_line, read_config
from maxrl_bench.sweeps.experiment import find_experiments, load_experiment, load_experiments

ROOT = Path(__file__).parents[2]
VALID = """
question = "Which is best?"
figures = ["coverage", "pareto"]
order = 3

[defaults]
seed = [0, 1]
num_rollouts = 16
steps = 40
learning_rate = 1e-3
policy = { width = 32 }

[task.lava-crossing-9]
steps = 80

[[grid]]
task = ["fourrooms", "lava-crossing-9"]
objective = ["grpo", { name = "grpo", ddof = 1 }, { name = "maxrl_order", order = 4 }]

[[grid]]
task = "simple-crossing-9"
objective = "ml"
learning_rate = "tuned"
profiles = ["laptop"]

[profiles.smoke]
seed = 7
steps = 2

[[claims]]
id = "is"
statement = "It is."
metric = "pass@1"
compare = { objective = "maxrl_order" }
against = { name = "grpo", ddof = 1 }
"""
RATES = '[simple-crossing-9]\nml = 0.01\n"grpo(ddof=1)" = 0.5\ngrpo = 0.25\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "learning_rates.toml").write_text(RATES)
    (tmp_path / "recipes.toml").write_text("[fourrooms]\nbatch_size = 5\nsteps = 10\n")
    (tmp_path / "study.toml").write_text(VALID)
    return tmp_path


def error_of(path: Path, profile: str | None = None) -> str:
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the message is what the callers look at
        load_experiment(path, profile)
    message = str(caught.value)
    assert message.startswith(str(path.parent))
    assert "\n" not in message
    return message


def edited(folder: Path, old: str, new: str) -> Path:
    assert old in VALID
    path = folder / "edited.toml"
    path.write_text(VALID.replace(old, new))
    return path


BASE = {"task": "fourrooms", "objective": "grpo"}
CHANGES = {
    "task": "lava-crossing-9",
    "objective": "rloo",
    "seed": 1,
    "num_rollouts": 65,
    "batch_size": 17,
    "steps": 201,
    "learning_rate": 2e-3,
    "optimizer": "sgd",
    "schedule": "cosine",
    "max_grad_norm": 2.0,
    "warm_start_steps": 1,
    "warm_start_batch_size": 33,
    "warm_start_learning_rate": 2e-3,
    "train_instances": 64,
    "eval_every": 21,
    "eval_instances": 129,
    "eval_split": "validation",
    "eval_rollouts": 1025,
    "policy": {"width": 8},
    "device": "cuda",
    "dtype": "float64",
    "estimator": "visited",
}


def test_any_change_of_a_value_changes_the_hash() -> None:
    assert CHANGES.keys() == RunConfig.model_fields.keys()
    hashes = [RunConfig(**BASE).hash, *(RunConfig(**{**BASE, key: value}).hash for key, value in CHANGES.items())]
    hashes += [RunConfig(**{**BASE, "objective": {"name": "grpo", "ddof": 1}}).hash]
    assert len(set(hashes)) == len(CHANGES) + 2
    assert all(re.fullmatch("[0-9a-f]{16}", value) for value in hashes)


def test_defaults_spelled_out_do_not_change_the_hash() -> None:
    config = RunConfig(**BASE)
    spelled = {
        **json.loads(config.model_dump_json()),
        "task": {"name": "fourrooms", "level": "fourrooms"},
        "objective": {"ddof": 0, "name": "grpo"},
        "max_grad_norm": 1,
    }
    assert RunConfig(**spelled).hash == config.hash


def test_a_stored_configuration_reads_back_as_itself() -> None:
    config = RunConfig(task="fourrooms", objective={"name": "pkpo_plain", "k": 4}, learning_rate=0.1 + 0.2)
    again = read_config(config.model_dump_json(), "config.json")
    assert again == config
    assert again.hash == config.hash


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"learning_rte": 1}, "key 'learning_rte' is unknown; did you mean 'learning_rate'"),
        ({"steps": 0}, "key 'steps'"),
        ({"steps": True}, "key 'steps'"),
        ({"steps": 1.5}, "key 'steps'"),
        ({"steps": "many"}, "key 'steps'"),
        ({"learning_rate": float("nan")}, "key 'learning_rate'"),
        ({"task": "fourroms"}, "did you mean 'fourrooms'"),
        ({"task": {"size": 3}}, "key 'task'"),
        ({"objective": "gpro"}, "grpo"),
        ({"objective": {"name": "rloo", "k": 3}}, "'k'"),
        ({"objective": {"name": "maxrl_order", "order": 65}}, "64"),
        ({"objective": {"name": "maxrl_order"}}, "'order'"),
        ({"policy": {"width": 0}}, "key 'policy.width'"),
        ({"device": "gpu"}, "key 'device'"),
        ({"eval_split": "train"}, "'validation' or 'test'"),
    ],
)
def test_a_bad_configuration_is_one_line_that_names_the_key(change: dict, expected: str) -> None:
    with pytest.raises(ValidationError) as caught:
        RunConfig(**{**BASE, **change})
    message = one_line(caught.value)
    assert expected in message
    assert "\n" not in message


def test_layers_of_settings_from_defaults_to_grid(folder: Path) -> None:
    runs = load_experiment(folder / "study.toml").runs
    assert len(runs) == 2 * 3 * 2 + 2
    steps = {run.task["name"]: run.steps for run in runs}
    # fourrooms: [defaults] wins over the recipe; lava-crossing-9: [task.NAME] wins over [defaults].
    assert steps == {"fourrooms": 40, "lava-crossing-9": 80, "simple-crossing-9": 40}
    assert {run.batch_size for run in runs if run.task["name"] == "fourrooms"} == {5}
    assert {run.batch_size for run in runs if run.task["name"] != "fourrooms"} == {16}
    assert {run.learning_rate for run in runs if run.task["name"] == "simple-crossing-9"} == {0.01}


def test_a_profile_replaces_settings_and_chooses_blocks(folder: Path) -> None:
    smoke = load_experiment(folder / "study.toml", "smoke")
    assert smoke.name == "study-smoke"
    assert [run.seed for run in smoke.runs] == [7] * 6
    assert {run.steps for run in smoke.runs} == {2}
    # What a profile says wins over the grid; blocks that come to mean the same are one.
    path = edited(folder, "[profiles.smoke]", '[profiles.smoke]\nobjective = "grpo"\ntask = "fourrooms"')
    assert [(run.task["name"], run.objective["name"]) for run in load_experiment(path, "smoke").runs] == [
        ("fourrooms", "grpo")
    ]
    assert "no profile 'full'" in error_of(folder / "study.toml", "full")


def test_tuned_learning_rates_go_by_knobs_first(folder: Path) -> None:
    path = edited(folder, 'objective = "ml"', 'objective = ["grpo", { name = "grpo", ddof = 1 }]')
    rates = [run.learning_rate for run in load_experiment(path).runs if run.task["name"] == "simple-crossing-9"]
    assert sorted(rates) == [0.25, 0.25, 0.5, 0.5]
    path = edited(folder, 'objective = "ml"', 'objective = "rloo"')
    assert "none for task 'simple-crossing-9', objective 'rloo'" in error_of(path)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("num_rollouts", "num_rolouts", "[defaults]: key 'num_rolouts' is unknown; did you mean 'num_rollouts'"),
        (
            "[profiles.smoke]\nseed",
            "[profiles.smoke]\nsed",
            "[profiles.smoke]: key 'sed' is unknown; did you mean 'seed'",
        ),
        ("order = 4", "order = 99", "[[grid]] 1: "),
        ("ddof", "dof", "[[grid]] 1: objective 'grpo' does not read the knob 'dof'"),
        (
            '["grpo",',
            '["grpo", "grpo",',
            "[[grid]] 1: repeats a run of [[grid]] 1: fourrooms grpo(ddof=0) N=16 lr=0.001 seed=0",
        ),
        ("[0, 1]", "[]", "[defaults]: key 'seed' is an empty list"),
        ("1e-3", "0", "[defaults]: key 'learning_rate'"),
        ("question", "qestion", "key 'qestion' is unknown; did you mean 'question'"),
        ('"Which is best?"', "3", "key 'question'"),
        ('["laptop"]', '["laptp"]', "[[grid]] 2: profile 'laptp' is unknown; did you mean 'laptop'"),
        ("[task.lava-crossing-9]", "[task.lava]", "[task.lava]: unknown task 'lava'; did you mean 'lava-crossing-9'"),
        ("[0, 1]", "[0, 1", "is not TOML"),
        (
            "seed = [0, 1]",
            "seed = [0, 1]\nbatch_size = [1,2,3,4,5,6,7,8,9,10]\neval_every = " + str([*range(1, 9999)]),
            "stands for",
        ),
    ],
)
def test_a_mistake_in_a_file_is_one_line_that_names_table_and_key(
    folder: Path, old: str, new: str, expected: str
) -> None:
    message = error_of(edited(folder, old, new))
    assert message.startswith(f"{folder / 'edited.toml'}: ")
    assert expected in message


def test_mistakes_in_the_files_beside_it_name_those_files(folder: Path) -> None:
    (folder / "recipes.toml").write_text("[fourroms]\nsteps = 1\n")
    assert error_of(folder / "study.toml").startswith(f"{folder / 'recipes.toml'}: [fourroms]: unknown task 'fourroms'")
    (folder / "recipes.toml").write_text("[fourrooms]\nsteps = 0\n")
    assert error_of(folder / "study.toml").startswith(f"{folder / 'recipes.toml'}: [fourrooms]: key 'steps'")
    (folder / "recipes.toml").unlink()
    (folder / "learning_rates.toml").write_text("[simple-crossing-9]\nml = -1\n")
    assert "learning_rates.toml: [simple-crossing-9]: key 'ml'" in error_of(folder / "study.toml")


def mutations(text: str, rng: random.Random) -> str:
    """One to three random edits of a valid file: of characters, words, values and lines."""
    values = [
        "0",
        "-1",
        "1e999",
        "nan",
        "true",
        '""',
        '"grpo"',
        "[]",
        "[[]]",
        "{}",
        "{ name = 3 }",
        "1979-05-27",
        "99999999999999999999",
    ]
    for _ in range(rng.randint(1, 3)):
        lines = text.split("\n")
        kind, position = rng.randrange(6), rng.randrange(len(text))
        line = rng.randrange(len(lines))
        if kind == 0:
            text = text[:position] + text[position + rng.randint(1, 4) :]
        elif kind == 1:
            text = text[:position] + rng.choice("[]{}=\"'#,.\n\\\x00é9a ") + text[position:]
        elif kind == 2:
            text = "\n".join([*lines[:line], *lines[line + 1 :]])
        elif kind == 3:
            text = "\n".join([*lines[: line + 1], lines[rng.randrange(len(lines))], *lines[line + 1 :]])
        elif kind == 4:
            text = "\n".join(
                re.sub(r"= .*", f"= {rng.choice(values)}", x) if i == line else x for i, x in enumerate(lines)
            )
        else:
            words = list(re.finditer(r"[a-z_]{3,}", text))
            word = rng.choice(words)
            text = (
                text[: word.start()]
                + rng.choice([word.group()[:-1], "x", rng.choice(words).group()])
                + text[word.end() :]
            )
    return text


def test_hundreds_of_malformed_files_never_end_in_a_traceback(folder: Path) -> None:
    rng = random.Random(0)
    path = folder / "mutated.toml"
    messages = []
    for _ in range(600):
        path.write_text(mutations(VALID, rng))
        try:
            load_experiment(path, rng.choice([None, "smoke", "full"]))
        except ValueError as error:  # anything else ends the test with its traceback
            messages.append("" if isinstance(error, ValidationError) else str(error))
    assert len(messages) >= 200
    assert all(str(folder) in message and "\n" not in message for message in messages)


def test_nor_do_malformed_copies_of_the_experiments_of_this_project(tmp_path: Path) -> None:
    rng = random.Random(0)
    files = {path.name: path.read_text() for path in sorted((ROOT / "experiments").glob("*.toml"))}
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    # The two files beside the experiments are read through an experiment that uses both.
    used_by = {"recipes.toml": "objectives.toml", "learning_rates.toml": "objectives.toml"}
    messages = []
    for name, text in files.items():
        for _ in range(15):
            (tmp_path / name).write_text(mutations(text, rng))
            try:
                publish.check(load_experiment(tmp_path / used_by.get(name, name), rng.choice([None, "smoke", "full"])))
            except ValueError as error:
                messages.append("" if isinstance(error, ValidationError) else str(error))
        (tmp_path / name).write_text(text)
    assert len(messages) >= 100
    assert all(str(tmp_path) in message and "\n" not in message for message in messages)


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"\x00", b"", b"[" * 5000, b"a = " + b"[" * 5000])
def test_what_is_no_text_or_nested_without_end_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "odd.toml"
    path.write_bytes(content)
    error_of(path)
    (tmp_path / "folder.toml").mkdir()
    assert "not a regular file" in error_of(tmp_path / "folder.toml")
    assert "no such file" in error_of(tmp_path / "absent.toml")


def test_experiments_are_found_by_name_with_near_matches(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_experiments([], folder) == [folder / "study.toml"]
    assert find_experiments(["study"], folder) == [folder / "study.toml"]
    with pytest.raises(ValueError, match="unknown experiment 'studi'; did you mean 'study'"):
        find_experiments(["studi"], folder)


def test_two_files_never_share_a_folder_of_results(folder: Path) -> None:
    (folder / "b").mkdir()
    other = folder / "b" / "study.toml"
    other.write_text(VALID.replace('"tuned"', "1e-3"))
    study = str(folder / "study.toml")
    with pytest.raises(ValueError, match=f"{other}: its folder of results, 'study', is that of {study}"):
        load_experiments([study, str(other)])
    assert len(load_experiments([study, study])) == 1
    (folder / "store.toml").write_text(VALID)
    with pytest.raises(ValueError, match="'store', is the run store's; rename the file"):
        load_experiments([str(folder / "store.toml")])


@pytest.mark.parametrize("profile", ["smoke", "laptop", "reference", "full", "tune", "sgd"])
def test_the_experiments_of_this_project_are_valid(profile: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    for experiment in load_experiments([], profile):
        assert experiment.runs
        assert experiment.question.endswith("?")
