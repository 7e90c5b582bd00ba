"""What the package says of itself, and that the tools around it run what the repository pins."""

from __future__ import annotations

import importlib.metadata
import importlib.resources
import os
import re
import runpy
import shutil
import subprocess
import sys
import tomllib
import zipfile
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


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The built wheel, unpacked."""
    source, built = (tmp_path_factory.mktemp(name) for name in ("source", "built"))
    for name in ("maxrl_bench", "envs", "examples", "experiments"):
        shutil.copytree(ROOT / name, source / name, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    shutil.copytree(ROOT / "plots" / "claims", source / "plots" / "claims")  # to which a link in the package leads
    code = f"import setuptools.build_meta as build; build.build_wheel({str(built)!r})"
    subprocess.run([sys.executable, "-c", code], cwd=source, capture_output=True, check=True)
    (path,) = built.glob("*.whl")
    with zipfile.ZipFile(path) as archive:
        archive.extractall(built / "unpacked")
    return built / "unpacked"


def test_an_installation_has_one_top_level_name(wheel: Path) -> None:
    assert [path.name for path in wheel.iterdir() if path.suffix != ".dist-info"] == ["maxrl_bench"]
    sources = {path.name: path.read_bytes() for path in (ROOT / "envs").glob("*.py")}
    assert {path.name: path.read_bytes() for path in (wheel / "maxrl_bench" / "envs").iterdir()} == sources


def test_an_installation_has_what_was_measured(wheel: Path) -> None:
    table = (ROOT / "plots" / "claims" / "claims.csv").read_bytes()
    assert (wheel / "maxrl_bench" / "advice" / "claims.csv").read_bytes() == table
    words = (ROOT / "experiments" / "findings.toml").read_bytes()
    assert (wheel / "maxrl_bench" / "experiments" / "findings.toml").read_bytes() == words


@pytest.mark.parametrize("kind", ["task", "graph-task", "objective", "experiment"])
def test_an_installation_can_write_a_start(kind: str, wheel: Path, tmp_path: Path) -> None:
    code = f"from maxrl_bench.cli import main; raise SystemExit(main.main(['new', {kind!r}, 'mine']))"
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, check=True)
    assert sorted(path.name for path in tmp_path.rglob("mine.*")) == [
        f"mine.{'toml' if kind == 'experiment' else 'py'}"
    ]


# What the working directory holds of the user's own.
FOLDERS = {
    "package": {"envs/__init__.py": "MINE = 1\n", "envs/navigation.py": "MINE = 2\n"},
    "folder": {"envs/navigation.py": "MINE = 2\n"},
    "file": {"envs.py": "MINE = 1\n"},
    "broken": {"envs/__init__.py": "raise RuntimeError('imported')\n"},
    "not code": {"envs": "a file\n"},
}
OWN_RUN = """\
import envs.navigation as own
def run(config, store):
    raise ValueError(f"this is mine: {own.MINE}")
"""


@pytest.mark.parametrize("files", FOLDERS.values(), ids=FOLDERS)
def test_envs_of_the_user_and_ours_do_not_meet(files: dict[str, str], wheel: Path, tmp_path: Path) -> None:
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    code = "import maxrl_bench; print(maxrl_bench.make_task('fourrooms').horizon, maxrl_bench.__file__)\n"
    if "envs/navigation.py" in files:
        code += "import envs.navigation; print(envs.navigation.MINE)"
    # As an installation: behind the working directory.
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, env=environment, capture_output=True, text=True, check=True
    )
    where, *mine = done.stdout.splitlines()
    assert where.split()[1] == str(wheel / "maxrl_bench" / "__init__.py")
    assert mine == ["2"] * ("envs/navigation.py" in files)


@pytest.mark.parametrize("installed", [True, False])
def test_a_run_function_in_envs_of_the_user(installed: bool, wheel: Path, tmp_path: Path) -> None:
    for name, text in {**FOLDERS["package"], "envs/mine.py": OWN_RUN}.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    command = ["-m", "maxrl_bench", "run", "task=empty-8", "objective=grpo", "--run-function", "envs.mine:run"]
    environment = {**os.environ, "PYTHONPATH": str(wheel) if installed else ""}
    done = subprocess.run(
        [sys.executable, *command], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert "this is mine: 2" in done.stderr


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
        "print(len(maxrl_bench.load('objectives-reference').metrics) > 0, "
        "set(maxrl_bench.__all__) - set(dir(maxrl_bench)))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set()\nTrue set()\n"
    assert all(getattr(maxrl_bench, name) is not None for name in maxrl_bench.__all__)
    with pytest.raises(AttributeError, match="no attribute 'result'"):
        maxrl_bench.__getattr__("result")
