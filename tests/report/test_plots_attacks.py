"""Drawing replaces and deletes what it made and nothing else, and says before the runs what would stop it."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from maxrl_bench.cli import main as cli
from maxrl_bench.report.folder import replace_files

TEXT = 'question = "Which?"\nfigures = ["training"]\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nsteps = 2\n'


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.toml").write_text(TEXT)
    return tmp_path


@pytest.mark.parametrize(
    "file",
    ["plots/x/training.png", "plots/x/summary.csv", "plots/README.md", "plots/index.html"],
)
def test_files_in_the_way_are_told_before_the_runs(here: Path, capsys: pytest.CaptureFixture[str], file: str) -> None:
    path = here / file
    path.parent.mkdir(parents=True)
    path.write_text("mine\n")
    assert cli.main(["sweep", "x.toml"]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"maxrl-bench: {file} was not ")
    assert error.count("\n") == 1
    assert path.read_text() == "mine\n"
    assert not (here / "results/store").exists()


@pytest.mark.parametrize(
    "link",
    [
        "plots/x",
        "plots/x/training.png",
        "plots/x/figures.json",
        "plots/README.md",
        "results/x",
        "results/x/metrics.csv.xz",
        "results/x/provenance.json",
    ],
)
def test_links_are_told_before_the_runs(here: Path, capsys: pytest.CaptureFixture[str], link: str) -> None:
    (here / "elsewhere").mkdir()
    path = here / link
    path.parent.mkdir(parents=True, exist_ok=True)
    os.symlink(here / "elsewhere", path)
    assert cli.main(["sweep", "x.toml"]) == 2
    assert f"{link} is a symbolic link" in capsys.readouterr().err
    assert path.is_symlink()
    assert not list((here / "elsewhere").iterdir())
    assert not (here / "results/store").exists()


def test_figures_do_not_go_into_the_store(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["sweep", "x.toml", "--plots", "results/store/plots"]) == 2
    assert "lies in the run store" in capsys.readouterr().err
    assert not (here / "results").exists()


def test_a_list_from_elsewhere_deletes_nothing_of_the_users(tmp_path: Path) -> None:
    replace_files(tmp_path, "x", {"old.png": b"old", "kept.png": b"kept"}, {})
    (tmp_path / "x/holiday.png").write_bytes(b"mine")
    (tmp_path / "outside.png").write_bytes(b"mine")
    (tmp_path / "x/link.png").symlink_to(tmp_path / "outside.png")
    (tmp_path / "x/folder.png").mkdir()
    index = json.loads((tmp_path / "x/figures.json").read_bytes())
    names = ("holiday.png", "link.png", "folder.png", "../outside.png", str(tmp_path / "outside.png"))
    index["files"] |= dict.fromkeys(names, "0" * 32)
    (tmp_path / "x/figures.json").write_text(json.dumps(index))
    replace_files(tmp_path, "x", {"kept.png": b"kept"}, {})
    assert {path.name for path in (tmp_path / "x").iterdir()} == {
        "kept.png",
        "holiday.png",
        "link.png",
        "folder.png",
        "figures.json",
    }
    assert (tmp_path / "outside.png").read_bytes() == b"mine"
    assert list(json.loads((tmp_path / "x/figures.json").read_bytes())["files"]) == ["kept.png"]
