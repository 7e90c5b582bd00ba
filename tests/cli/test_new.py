"""`maxrl-bench new`: what it writes works as it is, under the name that it was given, and replaces nothing."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest
from documents import ROOT, in_small
from outside_package import install_project

from maxrl_bench.cli import main as cli
from maxrl_bench.cli.new import EXAMPLES
from maxrl_bench.inputs import read_toml


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("kind", ["task", "graph-task", "objective"])
def test_a_package_works_as_it_is_and_what_is_to_be_done_next_does(
    kind: str, here: Path, outside: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", kind, "my-own.start"]) == 0
    told = capsys.readouterr().out.splitlines()
    folder = here / "my-own.start"
    assert set(told[0].partition(": ")[2].split(", ")) == {path.name for path in folder.iterdir()}
    texts = "".join(path.read_text(encoding="utf-8") for path in folder.iterdir())
    example = EXAMPLES[kind]
    assert not [old for old in (example.name, example.module, example.words) if old in texts]
    install_project(folder, outside)
    commands = [shlex.split(line) for line in told[2:]]
    assert commands[0] == ["pip", "install", "--editable", "my-own.start"]
    for command in commands[1:]:
        assert command[0] == "maxrl-bench"
        assert cli.main(in_small(command[1:]) if command[1] == "run" else command[1:]) == 0
    # But for the name it is the example, whose test the suite runs.
    for path in (ROOT / "examples" / example.folder).iterdir():
        if path.is_file():
            words = "My Own Start" if " " in example.words else "MyOwnStart"
            text = path.read_text(encoding="utf-8").replace(example.name, "my-own.start")
            text = text.replace(example.module, "my_own_start").replace(example.words, words)
            assert (folder / path.name.replace(example.module, "my_own_start")).read_text(encoding="utf-8") == text


def test_an_experiment_is_one_under_all_its_profiles(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["new", "experiment", "mine"]) == 0
    assert "maxrl-bench sweep mine.toml --profile smoke" in capsys.readouterr().out
    for profile in ("laptop", *read_toml(here / "mine.toml")["profiles"]):
        assert cli.main(["sweep", "mine", "--profile", profile, "--dry-run"]) == 0
        assert "my-experiment" not in capsys.readouterr().out


@pytest.mark.parametrize("kind", EXAMPLES)
def test_nothing_is_overwritten(kind: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = here / ("mine.toml" if kind == "experiment" else "mine")
    path.symlink_to(here / "nowhere")
    assert cli.main(["new", kind, "mine"]) == 2
    assert capsys.readouterr().err == f"maxrl-bench: {path.name} is there already; nothing was written\n"
    assert [entry.name for entry in here.iterdir()] == [path.name]


@pytest.mark.parametrize(
    ("kind", "name", "reason"),
    [
        ("task", "fourrooms", "there is one of this name already"),
        ("objective", "grpo", "there is one of this name already"),
        ("objective", "pass-at-k-training", "there is one of this name already"),
        ("task", "json", "there is a module 'json' already"),
        ("graph-task", "maxrl-bench", "there is a module 'maxrl_bench' already"),
        ("task", "3-sums", "it must begin with a letter"),
        ("task", "class", "is a word of Python's"),
        ("experiment", "../up", "a name has at most"),
        ("task", "a b", "a name has at most"),
    ],
)
def test_a_name_that_cannot_be(
    kind: str, name: str, reason: str, here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["new", kind, name]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert reason in line
    assert not list(here.iterdir())
