"""Two experiment files never write one folder of results, not even in separate commands."""

from __future__ import annotations

import json
from pathlib import Path

import fuzz_run
import pytest

from maxrl_bench.cli import main as cli
from maxrl_bench.cli import publish
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.experiment import load_experiment

TEXT = 'question = "Which?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nsteps = 2\n[profiles.y]\nseed = 1\n'


def made(path: Path, profile: str | None = None) -> None:
    """The tables of an experiment, in results/ beside its folder."""
    study = load_experiment(path, profile)
    store = Store("results/store")
    for config in study.runs:
        fuzz_run.run(config, store)
    tabulate.write_tables(study, store, "results")


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a").mkdir()
    path = Path("a/x.toml")
    path.write_text(TEXT)
    return path


def test_a_profile_and_a_file_of_the_same_name(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made(file, "y")
    other = Path("a/x-y.toml")
    other.write_text(TEXT)
    before = Path("results/x-y/provenance.json").read_bytes()
    for command in ("sweep", "plot"):
        assert cli.main([command, str(other)]) == 2
        assert "results/x-y, holds those of 'x.toml' under profile 'y'; rename the file" in capsys.readouterr().err
    with pytest.raises(ValueError, match="holds those of 'x.toml' under profile 'y'"):
        made(other)
    assert Path("results/x-y/provenance.json").read_bytes() == before
    made(file, "y")


def test_two_files_of_one_name(file: Path) -> None:
    made(file)
    other = Path("b/x.toml")
    other.parent.mkdir()
    other.write_text(TEXT)
    with pytest.raises(ValueError, match="b/x.toml: its folder of results, results/x, holds those of a/x.toml"):
        made(other)
    with pytest.raises(ValueError, match="holds those of a/x.toml"):
        publish.draw(load_experiment(other), "results", "plots")
    file.unlink()  # moved, then, and still the same
    made(other)
    assert json.loads(Path("results/x/provenance.json").read_bytes())["path"] == "../b/x.toml"


@pytest.mark.parametrize("content", ["{", "[]", '{"file": 3, "profile": []}', '{"path": "\\u0000"}', '{"path": 3}'])
def test_what_cannot_be_read_is_nobodys(file: Path, content: str) -> None:
    made(file)
    Path("results/x/provenance.json").write_text(content)
    made(file)
    assert results.load("x").provenance["file"] == "x.toml"
