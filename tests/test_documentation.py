"""Every command and snippet of README.md, CONTRIBUTING.md and docs/ runs, page by page, from top to bottom.

A page is run in a folder of its own, which begins with experiments/, the tables of one experiment and one stored run.
Its TOML and Python blocks that begin with `# NAME` are written there. Commands run as they stand, but small: `run` with
SMALL, `sweep` of anything but a file of the page with --dry-run. Of `console` blocks the output shown must be printed.
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from pathlib import Path
from typing import Any

import pytest
from documents import PAGES, ROOT, SMALL, Block, blocks, in_small, prose, read, spans
from outside_package import install_project

from maxrl_bench.cli import commands
from maxrl_bench.cli import main as cli

LANGUAGES = {"sh", "console", "python", "toml", "text"}
# What a reader puts something else for.
PLACEHOLDERS = {"NAME": "maxrl_alg1", "FILE": "metrics.csv", "HOST": "localhost", "N": "8"}

# What does not run here, and why. Blocks by page and a line of theirs; commands by how they begin.
BLOCKS_ELSEWHERE = {
    ("README.md", "textbook = torch.autograd"): "an excerpt of examples/one_step.py; tests/test_one_step.py runs that",
    ("docs/objectives.md", "advantages(rewards"): "tests/objectives/test_documented_statements.py checks its loss",
    ("docs/trainers.md", "trainer.train()"): "tests/integrations/test_trl.py runs it on a tiny model",
    ("docs/sweeps.md", "SLURMCluster("): "needs a Slurm cluster",
}
COMMANDS_ELSEWHERE = {
    "pip install": "installs what is installed; that its extras exist is checked",
    "dask worker": "waits for a scheduler; tests/sweeps/test_executors.py starts workers",
    "maxrl-bench sweep --profile full --scheduler": "needs a scheduler that answers; that it is a command is checked",
    "pytest": "runs the tests",
    "python": "starts an interpreter of the reader's; files that it is given are run by name",
}
# Packages that are not installed here, as little of them as the pages use.
STAND_INS = {
    "wandb": "import contextlib\nrows = []\nlog = rows.append\ninit = lambda **_: contextlib.nullcontext()\n",
}


@pytest.fixture(scope="module")
def beginning(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What every page's folder begins with."""
    folder = tmp_path_factory.mktemp("documentation")
    shutil.copytree(ROOT / "experiments", folder / "experiments")
    shutil.copytree(ROOT / "results" / "objectives-reference", folder / "results" / "objectives-reference")
    shutil.copytree(ROOT / "plots" / "theory", folder / "plots" / "theory")  # which `plot` would take seconds to draw
    assert cli.main([*in_small(["run", "task=empty-8", "objective=grpo"]), "--results", str(folder / "results")]) == 0
    for name, text in STAND_INS.items():
        (folder / f"{name}.py").write_text(text, encoding="utf-8")
    return folder


class Here(Executor):
    """A pool that does its jobs at once, in this process: what workers need processes for, other tests see to."""

    def __init__(self, workers: int, memory_limit: int = 0):
        self.size = workers

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        future.set_result(fn(*args, **kwargs))
        return future

    def kill(self) -> None: ...


class Reader:
    """Somebody who follows a page in a folder."""

    def __init__(self, page: str, folder: Path, outside: Path, output: pytest.CaptureFixture[str]):
        self.page, self.folder, self.outside, self.output = page, folder, outside, output
        self.names: dict[str, Any] = {"__name__": page}
        self.written: list[str] = []  # files of the page, in order
        (self.run,) = (path.name for path in (folder / "results" / "store").iterdir() if len(path.name) == 16)

    def follow(self, block: Block) -> None:
        """Do what a block says."""
        if block.file:
            path = self.folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(block.text, encoding="utf-8")
            self.written.append(block.file)
        if block.language == "python":
            code = compile(small(block.text), str(block), "exec")
            with pytest.MonkeyPatch.context() as patch:
                patch.syspath_prepend(self.folder)
                exec(code, {"__name__": Path(block.file).stem} if block.file else self.names)
        elif block.language == "toml":
            self.read_toml(block)
        elif block.language == "sh":
            for line in block.text.replace("\\\n", " ").splitlines():
                self.do(line)
        elif block.language == "console":
            for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
                command, _, shown = part.partition("\n")
                printed = self.do(command)
                for expected in shown.splitlines():
                    assert expected.strip() in printed, f"{block}: {command} no longer prints: {expected}"

    def read_toml(self, block: Block) -> None:
        """An experiment is checked under all its profiles; a part of one is put under the page's last experiment."""
        tables = tomllib.loads(block.text)
        file = block.file
        if not file:
            file = [name for name in self.written if name.endswith(".toml")][-1]
            path = self.folder / file
            path.write_text(f"{path.read_text(encoding='utf-8')}\n{block.text}", encoding="utf-8")
            tables = tomllib.loads(path.read_text(encoding="utf-8"))
        if "question" in tables:
            for profile in {"laptop", *tables.get("profiles", ())}:
                assert cli.main(["sweep", file, "--profile", profile, "--dry-run"]) == 0

    def do(self, line: str) -> str:
        """Run a command line, in small; returns what it printed, on both streams."""
        words = [self.meant(word) for word in shlex.split(line, comments=True)]
        if not words or check_elsewhere(words):
            if words[:3] == ["pip", "install", "--editable"]:
                install_project(self.folder / words[3], self.outside)
            return ""
        assert words[0] == "maxrl-bench", f"{self.page}: how is this to be run? {line}"
        arguments = words[1:]
        if arguments[0] == "run" and "--config" not in arguments:
            arguments = in_small(arguments)
        if arguments[0] == "sweep" and "--dry-run" not in arguments:
            arguments += ["--workers", "1", "--no-plots"] if set(arguments) & set(self.written) else ["--dry-run"]
        self.output.readouterr()
        code = cli.main(arguments)
        printed = "".join(self.output.readouterr())
        assert code == 0, f"{self.page}: {line}\n{printed}"
        return printed

    def meant(self, word: str) -> str:
        """A word without placeholders."""
        word = word.replace("<run>", self.run)
        return re.sub(r"\b[A-Z]+\b", lambda match: PLACEHOLDERS.get(match[0], match[0]), word)


def small(code: str) -> str:
    """Python that asks for few steps, seeds and processes."""
    given = ", ".join(f"{key}={value}" for key, value in SMALL.items())
    code = re.sub(r"\bsteps=\d+", given, code)
    return re.sub(r"\b(workers|seeds)=(\d+|\[[\d, ]+\])", r"\1=1", code)


def check_elsewhere(words: list[str]) -> bool:
    """Whether a command is none of ours, or listed above; what can be checked of it without running it is."""
    line = " ".join(words)
    if words[0] == "make":
        targets = [word for word in words[1:] if "=" not in word]
        subprocess.run(["make", "--dry-run", *targets], cwd=ROOT, check=True, capture_output=True)
        return True
    if words[:2] == ["pip", "install"]:
        extras = tomllib.loads(read("pyproject.toml"))["project"]["optional-dependencies"]
        assert {name for group in re.findall(r"\[([\w,]+)\]", line) for name in group.split(",")} <= set(extras), line
    if words[0] == "python" and words[1].endswith(".py"):
        assert (ROOT / words[1]).is_file(), line
    elsewhere = any(line.startswith(start) for start in COMMANDS_ELSEWHERE)
    if elsewhere and words[0] == "maxrl-bench":
        assert not cli.parser().parse_known_args(words[1:])[1], line
    return elsewhere


@pytest.fixture
def reader(
    request: pytest.FixtureRequest,
    beginning: Path,
    outside: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Iterator[Reader]:
    folder = tmp_path / "work"
    shutil.copytree(beginning, folder)
    monkeypatch.chdir(folder)
    monkeypatch.setattr(commands, "LocalPool", Here)
    before = set(sys.modules)
    yield Reader(request.param, folder, outside, capsys)
    for name in set(sys.modules) - before:
        if str(getattr(sys.modules[name], "__file__", None) or "").startswith(str(folder)):
            del sys.modules[name]


@pytest.mark.parametrize("reader", [page for page in PAGES if blocks(page)], indirect=True)
def test_the_page_runs(reader: Reader) -> None:
    for block in blocks(reader.page):
        assert block.language in LANGUAGES, f"{block}: say what this is: {', '.join(sorted(LANGUAGES))}"
        if any(page == block.page and part in block.text for page, part in BLOCKS_ELSEWHERE):
            compile(block.text, str(block), "exec")
        else:
            reader.follow(block)


@pytest.mark.parametrize("page", PAGES)
def test_commands_within_sentences_are_commands(page: str) -> None:
    for span in spans(page):
        words = [PLACEHOLDERS.get(word, word) for word in shlex.split(span)] if re.match(r"[\w-]+ ", span) else []
        if words and words[0] == "maxrl-bench" and len(words) == 2:  # a command is spoken of
            assert re.search(rf"^    {words[1]}\b", cli.parser().format_help(), re.MULTILINE) or words[1][0] == "-", (
                span
            )
        elif words and words[0] == "maxrl-bench":
            _, rest = cli.parser().parse_known_args(words[1:])
            assert not [word for word in rest if word.startswith("-")], span
        elif words and words[0] in ("make", "pip", "python"):
            assert check_elsewhere(words), span


@pytest.mark.parametrize("page", PAGES)
def test_code_is_fenced(page: str) -> None:
    assert not re.findall(r"^    (?:maxrl-bench|make|pip|python|import|from) .*", prose(page), re.MULTILINE)


def test_what_runs_elsewhere_is_there() -> None:
    for page, part in BLOCKS_ELSEWHERE:
        assert len([block for block in blocks(page, "python") if part in block.text]) == 1, part
