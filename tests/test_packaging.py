"""What the package says of itself, and that the tools around it run what the repository pins."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import re
import runpy
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
import yaml

import maxrl_bench
from maxrl_bench.cli import main as cli

ROOT = next(folder for folder in Path(__file__).parents if (folder / "pyproject.toml").exists())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def test_version_is_that_of_the_project(capsys: pytest.CaptureFixture[str]) -> None:
    assert maxrl_bench.__version__ == PROJECT["project"]["version"]
    with pytest.raises(SystemExit) as stopped:
        cli.main(["--version"])
    assert stopped.value.code == 0
    assert capsys.readouterr().out == f"maxrl-bench {PROJECT['project']['version']}\n"


def test_a_checkout_that_is_not_installed_has_no_version(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(importlib.metadata, "version", absent)
    assert runpy.run_path(str(ROOT / "maxrl_bench" / "__init__.py"))["__version__"] == "unknown"


def test_types_are_part_of_the_package() -> None:
    assert (importlib.resources.files("maxrl_bench") / "py.typed").is_file()
    assert "py.typed" in PROJECT["tool"]["setuptools"]["package-data"]["maxrl_bench"]


def test_links_of_the_project_are_those_of_the_readme() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    assert all(link in readme for link in PROJECT["project"]["urls"].values())


def test_pre_commit_runs_the_pinned_ruff() -> None:
    pinned = re.search(r"^ruff==(.+)$", (ROOT / "constraints.txt").read_text(encoding="utf-8"), re.MULTILINE)
    (repository,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text(encoding="utf-8"))["repos"]
    assert pinned
    assert repository["rev"] == f"v{pinned[1]}"
    assert [hook["id"] for hook in repository["hooks"]] == ["ruff-check", "ruff-format"]


def test_hosted_ci_runs_what_everybody_runs() -> None:
    (job,) = yaml.safe_load((ROOT / ".github/workflows/ci.yml").read_text(encoding="utf-8"))["jobs"].values()
    assert [step["run"] for step in job["steps"] if "run" in step] == [".ci/run"]
    assert os.access(ROOT / ".ci/run", os.X_OK)
    oldest = PROJECT["project"]["requires-python"].removeprefix(">=")
    assert job["strategy"]["matrix"]["python-version"][0] == oldest


def test_the_public_face_is_there_and_cheap() -> None:
    code = (
        "import sys, maxrl_bench; print({'torch', 'pandas', 'matplotlib'} & set(sys.modules)); "
        "print(len(maxrl_bench.load('objectives').metrics) > 0, set(maxrl_bench.__all__) - set(dir(maxrl_bench)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue set()\n"
    assert all(getattr(maxrl_bench, name) is not None for name in maxrl_bench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'result'"):
        maxrl_bench.__getattr__("result")
