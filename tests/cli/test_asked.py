"""What is asked for on a command line: knobs and options by themselves, labels, aliases, runs by their beginning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from sweep_cases import RUN

import maxrl_bench
from maxrl_bench.cli import main as cli
from maxrl_bench.cli.asked import placed, stored_run
from maxrl_bench.config import RunConfig
from maxrl_bench.names import from_label, label
from maxrl_bench.objectives.population import Scores, second_moment
from maxrl_bench.objectives.table import OBJECTIVES, bind
from maxrl_bench.sweeps.claim_model import read_claim

STUDY = 'question = "?"\n[[grid]]\ntask = "empty-8"\nobjective = ["grpo", "maxrl"]\nsteps = 3\n'
VALUES = st.one_of(
    st.text(), st.booleans(), st.integers(-(2**63), 2**63), st.floats(allow_nan=False), st.lists(st.text(), max_size=3)
)


@example(
    dict.fromkeys(("a", "b", "c"), "NaN") | {"d": "true", "e": "nullable", "f": "True", "g": True, "h": "Infinity"}
)
@given(st.dictionaries(st.from_regex(r"[a-z_]\w*", fullmatch=True).filter(lambda key: key != "name"), VALUES))
def test_a_label_reads_back_as_what_it_is_of(options: dict[str, Any]) -> None:
    if not any(isinstance(v, float) and np.isinf(v) for v in options.values()):
        assert from_label(label({"name": "maze-7", **options})) == {"name": "maze-7", **options}


@pytest.mark.parametrize(
    "text",
    ["a(", "a()", "a(b)", "a(b=)", "a(b=1", "a(b=1,c=2)", "a(b=1, )", "a(b=1, b=2)", "a(b=1)x", "MaxRL (Alg. 1)"],
)
def test_what_only_looks_like_a_label_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"such as maxrl_order\(order=8\), got"):
        from_label(text)


def test_knobs_and_options_by_themselves_are_put_where_they_belong() -> None:
    asked = {"task": "add-2", "objective": "maxrl_order", "order": 4, "digits": 1, "steps": 3}
    want = RunConfig(task={"name": "add-2", "digits": 1}, objective={"name": "maxrl_order", "order": 4}, steps=3)
    assert RunConfig(**placed(asked, {})).hash == want.hash
    assert RunConfig(task="add-2(digits=1)", objective="maxrl_order(order=4)", steps=3).hash == want.hash
    again = RunConfig(**placed({"order": 2}, want.model_dump()))  # on top of a stored run
    assert again.objective == {"name": "maxrl_order", "order": 2}
    assert again.task == want.task


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"oder": 4}, r"key 'oder' is unknown; did you mean 'order'"),
        ({"step": 4}, r"key 'step' is unknown; did you mean 'steps'"),
        ({"task": "add-2", "digit": 4}, r"did you mean 'digits'"),
        ({"objective": "maxrl_order(order=2)", "order": 4}, "key 'order' is given twice, once within 'objective'"),
        ({"task": "add-9", "digits": 4}, "unknown task 'add-9'"),
        ({"objective": "grop", "order": 4}, "unknown objective 'grop'"),
    ],
)
def test_what_belongs_nowhere_is_one_line(asked: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        placed({"task": "empty-8", "objective": "maxrl_order", **asked}, {})


def test_a_key_of_both_is_asked_about(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("maxrl_bench.cli.asked.option_names", lambda name: ["order"])
    with pytest.raises(
        ValueError, match=r"'order' is both knob of objective 'maxrl_order' and option of task 'empty-8'"
    ):
        placed({"task": "empty-8", "objective": "maxrl_order", "order": 4}, {})


def test_maxrl_stands_for_algorithm_1() -> None:
    config = RunConfig(task="empty-8", objective="maxrl")
    assert config.hash == RunConfig(task="empty-8", objective="maxrl_alg1").hash
    rewards = np.array([[1.0, 0, 0, 0]])
    assert (maxrl_bench.advantages(rewards, "maxrl") == [[3, -1, -1, -1]]).all()
    claim = read_claim(
        {
            "id": "a",
            "statement": "b",
            "metric": "pass@1",
            "compare": {"objective": "maxrl"},
            "against": {"objective": "grpo"},
        }
    )
    assert claim.compare.objective == "maxrl_alg1"
    assert "maxrl" not in OBJECTIVES
    with pytest.raises(ValueError, match=r"unknown objective 'maxrll'; did you mean 'maxrl'"):
        bind("maxrll", 8)


@pytest.mark.parametrize("num_rollouts", [8, 64, 1024])
def test_the_reason_for_it_is_true(num_rollouts: int, capsys: pytest.CaptureFixture[str]) -> None:
    weights = bind("maxrl", num_rollouts).weights(np.arange(1, num_rollouts + 1))
    successes = np.arange(1, num_rollouts + 1)
    assert np.allclose(successes * weights[0] + (num_rollouts - successes) * weights[1], 0)
    easy = Scores(0.9)
    ratio = second_moment(bind("maxrl", num_rollouts), easy) / second_moment(bind("maxrl_eq9", num_rollouts), easy)
    assert 0.09 < ratio < 0.12
    assert cli.main(["card", "maxrl"]) == 0
    assert "'maxrl' stands for it: the paper trains with it" in capsys.readouterr().out


def test_pkpo_stands_for_the_form_with_a_baseline(capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"name": "pkpo", "k": 16}
    config = RunConfig(task="empty-8", objective=asked)
    assert config.objective["name"] == "pkpo_loo"
    assert config.hash == RunConfig(task="empty-8", objective={**asked, "name": "pkpo_loo"}).hash
    rewards = np.array([[1.0, 1, 0, 0]])
    np.testing.assert_allclose(maxrl_bench.advantages(rewards, "pkpo", k=2), [[4 / 3, 4 / 3, 0, 0]])
    assert "pkpo" not in OBJECTIVES
    for p, times in ((0.01, 7), (0.1, 110)):
        plain, loo = (second_moment(bind(name, 64, k=16), Scores(p)) for name in ("pkpo_plain", "pkpo"))
        assert plain / loo == pytest.approx(times, rel=0.05)
    assert cli.main(["card", "pkpo", "k=16", "--rollouts", "64"]) == 0
    out = capsys.readouterr().out
    assert "'pkpo' stands for it: the paper recommends a baseline" in out
    assert "at N = 64 and k = 16 it has 7 times the noise at p = 0.01, and 110 times at p = 0.1" in out


def test_runs_are_found_by_how_their_names_begin(tmp_path: Path) -> None:
    for name in ("0123456789abcdef", "0129999999999999", "fedcba9876543210", "base-0123", "0999"):
        (tmp_path / name).mkdir()
    assert stored_run("01234", tmp_path) == "0123456789abcdef"
    assert stored_run("fedcba9876543210", tmp_path) == "fedcba9876543210"
    with pytest.raises(
        ValueError, match="holds 2 runs that begin with 012: 0123456789abcdef, 0129999999999999; give more"
    ):
        stored_run("012", tmp_path)
    for beginning, message in {
        "a": "holds no run a",
        "0999": "holds no run",
        "zz": "16 digits",
        "": "16 digits",
    }.items():
        with pytest.raises(ValueError, match=message):
            stored_run(beginning, tmp_path)
    with pytest.raises(ValueError, match="holds no run"):
        stored_run("0", tmp_path / "nowhere")


def test_a_dry_run_writes_nothing_and_finds_what_would_be_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("maxrl_bench.sweeps.executors.CONNECT_SECONDS", 1)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "file").write_text("mine")
    (tmp_path / "absent.toml").write_text(
        'question = "?"\n[[grid]]\ntask = "empty-8"\nobjective = "grpo"\ndevice = "cuda:9"\n'
    )
    before = sorted(tmp_path.rglob("*"))
    run = ["run", "task=empty-8", "objective=maxrl", "--dry-run"]
    study = ["sweep", "study.toml", "--run-function", RUN, "--dry-run"]
    for command in (run, study):
        assert cli.main(command) == 0
    assert "missing; nothing was done" in capsys.readouterr().out
    for command, message in (
        ([*run, "device=cuda:9"], "'cuda:9' is not on this machine"),
        ([*run, "--results", "file"], "file/store cannot be used: "),
        ([*study, "--results", "file/below"], "cannot be used: "),
        ([*study, "--plots", "file/below"], "Not a directory"),
        (["sweep", "absent.toml", "--dry-run"], "'cuda:9' is not on this machine"),
        ([*study, "--scheduler", "tcp://127.0.0.1:1"], "no Dask scheduler answers"),
    ):
        assert cli.main(command) == 2, command
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before
