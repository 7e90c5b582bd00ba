"""Tasks of other packages: what is broken is named in one line and skipped, and nothing else suffers from it."""

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from maxrl_bench import plugins
from maxrl_bench.cli import main as cli
from maxrl_bench.config import RunConfig
from maxrl_bench.tasks import all_tasks, broken_plugins, make_task
from maxrl_bench.training.feasible import check_runs


def fails() -> None:
    raise RuntimeError("no such dataset")


def leaves() -> None:
    sys.exit("no licence")


def half() -> Any:
    return types.SimpleNamespace(family="mine", horizon=3, num_actions=2, exact=True)


def good(size: int = 9) -> Any:
    return make_task("maze-7", size=size)


BROKEN = {
    "no-module": ("no_such_module_at_all:Task", r"ModuleNotFoundError: No module named 'no_such_module_at_all'"),
    "no-factory": (f"{__name__}:missing", "has no attribute 'missing'"),
    "raising": (f"{__name__}:fails", "RuntimeError: no such dataset"),
    "leaving": (f"{__name__}:leaves", "SystemExit: no licence"),
    "a-list": ("builtins:list", "is no task: its 'family' must be str"),
    "a-number": ("sys:maxsize", "TypeError: "),
    "half": (f"{__name__}:half", "is no task: its 'contexts' must be one of TokenContexts, "),
}
LEFT_OUT = {
    "fourrooms": (f"{__name__}:good", "this name is built in"),
    "../up": (f"{__name__}:good", "a name has at most 100 characters"),
    "no-colon": ("json", "it must be given as module:attribute"),
}


@pytest.fixture
def offered(monkeypatch: pytest.MonkeyPatch) -> None:
    points = [(name, value) for name, (value, _) in {**BROKEN, **LEFT_OUT}.items()]
    points += [("twice", f"{__name__}:{name}") for name in "ab"]
    points += 2 * [("mine", f"{__name__}:good")]  # found on two paths
    real, ours = plugins.installed, "maxrl_bench.tasks"
    monkeypatch.setattr(plugins, "installed", lambda group, folders: points if group == ours else real(group, folders))


@pytest.mark.usefixtures("offered")
def test_what_cannot_be_a_task_is_left_out_by_name() -> None:
    names = all_tasks()
    assert names["mine"].family == "plug-in"
    assert names["fourrooms"].family == "navigation"
    problems = broken_plugins()
    assert len(problems) == len(LEFT_OUT) + 1
    for name, (_, reason) in {**LEFT_OUT, "twice": ("", "more than one package offers this name")}.items():
        (line,) = [line for line in problems if f"'{name}'" in line]
        assert reason in line
        assert name == "fourrooms" or name not in names


@pytest.mark.usefixtures("offered")
@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_one_line(name: str) -> None:
    value, reason = BROKEN[name]
    with pytest.raises(ValueError, match=reason) as told:
        make_task(name)
    assert f"plug-in task '{name}' ({value})" in str(told.value)
    assert "\n" not in str(told.value)


@pytest.mark.usefixtures("offered")
def test_the_others_are_listed_and_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "metrics.csv.xz").write_text("not,ours\n")
    assert cli.main(["list", "tasks", "--json", "--results", str(tmp_path)]) == 0
    captured = capsys.readouterr()
    listed = {row["task"]: row for row in json.loads(captured.out)}
    assert {"mine", "fourrooms", "maze-9"} <= set(listed)
    assert not set(BROKEN) & set(listed)
    for name in (*BROKEN, *LEFT_OUT, "twice", "foreign"):
        assert [line for line in captured.err.splitlines() if name in line]
    assert len(captured.err.splitlines()) == len(BROKEN) + len(LEFT_OUT) + 2
    assert listed["mine"]["horizon"] == make_task("maze-7", size=9).horizon
    assert cli.main(["list", "tasks", "--results", str(tmp_path)]) == 0
    assert "fourrooms" in capsys.readouterr().out
    check_runs([RunConfig(task={"name": "mine", "size": 11}, objective="rloo")])


def test_experiments_are_listed_past_a_broken_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "experiments"
    folder.mkdir()
    (folder / "broken.toml").write_text("question = ")
    (folder / "whole.toml").write_text(
        'question = "Which?"\n[defaults]\ntask = "empty-8"\n[[grid]]\nobjective = "rloo"\n[profiles.laptop]\n'
    )
    monkeypatch.chdir(tmp_path)
    assert cli.main(["list", "experiments", "--json"]) == 0
    captured = capsys.readouterr()
    listed = {row["experiment"] for row in json.loads(captured.out)}
    assert listed > {"whole", "objectives"}  # built-in ones, too
    assert "broken" not in listed
    assert "broken.toml" in captured.err


def test_nothing_is_offered_where_nothing_is_installed() -> None:
    assert plugins.find("maxrl_bench.no_such_group", {}) == ({}, [])
