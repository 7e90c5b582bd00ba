"""Mutated input of every kind: each ends well or in one line, never in a traceback, never waiting for ever.

A short seeded part runs with the other tests; `make fuzz` runs all of it, with a limit of five seconds for each.
"""

from __future__ import annotations

import contextlib
import io
import os
import random
import re
import resource
import shutil
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import fuzz_run
import mutate
import psutil
import pytest

from maxrl_bench.cli import commands, publish
from maxrl_bench.cli import main as cli
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import tabulate
from maxrl_bench.sweeps.driver import make_plan
from maxrl_bench.sweeps.experiment import load_experiment

ROOT = Path(__file__).parent.parent
RUN = "fuzz_run:run"
STUDY = """
question = "Which is best?"
figures = ["coverage", "entropy"]
order = 3
[defaults]
num_rollouts = 8
steps = 4
[task.add-2]
batch_size = 3
[[grid]]
task = ["fourrooms", { name = "maze-7", size = 9 }]
objective = ["grpo", { name = "maxrl_order", order = 4 }]
seed = [0, 1, 2]
[[grid]]
task = "add-2"
objective = "rloo"
policy = { width = 8 }
learning_rate = "tuned"
profiles = ["laptop", "smoke"]
[profiles.smoke]
steps = 2
seed = 7
[[claims]]
id = "first"
statement = "MaxRL beats GRPO"
metric = ["pass@1", "pass@8"]
compare = { objective = { name = "maxrl_order", order = 4 } }
against = [{ objective = "grpo" }]
where = { num_rollouts = 8 }
tasks = ["fourrooms"]
direction = "higher"
margin = 0.01
[[claims]]
id = "second"
statement = "GRPO needs more rollouts"
metric = "pass@1"
when = "rollouts_to"
level = 0.5
compare = { objective = "grpo" }
against = { objective = "maxrl_order" }
direction = "lower"
"""
RECIPES = "[fourrooms]\nwarm_start_steps = 3\n[maze-7]\nbatch_size = 5\n"
RATES = '[add-2]\nrloo = 0.01\n"maxrl_order(order=4)" = 0.001\n'


class Stuck(BaseException):
    """A case took longer than it may."""


class Cases:
    """Runs cases, and collects those that ended otherwise than they should."""

    def __init__(self, seconds: float):
        self.seconds, self.problems, self.slowest = seconds, [], (0.0, "")
        self.refused = self.accepted = self.deep = 0

    def run(self, what: str, call: Callable[[], Any]) -> Any:
        """The result of a call; None where it is refused in one line, or ends badly."""
        started = time.process_time()
        signal.setitimer(signal.ITIMER_PROF, self.seconds)
        signal.setitimer(signal.ITIMER_REAL, 12 * self.seconds)  # what waits takes no processor time
        try:
            result = call()
            self.accepted += 1
            return result
        except (ValueError, OSError) as error:
            self.refused += 1
            if not str(error).isprintable() or len(str(error)) > 1500:
                self.problems.append(f"{what}: more than a line: {str(error)[:300]!r}")
        except BaseException as error:  # whatever it is, it is what this looks for
            if isinstance(error, KeyboardInterrupt):
                raise
            last = traceback.format_exception(error)[-2:]
            self.problems.append(f"{what}: {type(error).__name__}: {str(error)[:200]!r} {last[0].strip()[-300:]}")
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
            signal.setitimer(signal.ITIMER_REAL, 0)
            seconds = time.process_time() - started
            self.slowest = max(self.slowest, (seconds, what))
            if seconds > self.seconds and not (self.problems and self.problems[-1].startswith(f"{what}: Stuck")):
                self.problems.append(f"{what}: takes {seconds:.1f} s")

    def command(self, what: str, *arguments: str) -> bool:
        """A command line, in this process: its exit code tells the truth, its error is one line.

        Returns whether it was not refused.
        """
        out, err = io.StringIO(), io.StringIO()

        def call() -> int:
            with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
                try:
                    return cli.main(arguments)
                except SystemExit as ended:  # argparse
                    return int(ended.code or 0) + 100

        code, error = self.run(what, call), err.getvalue()
        if code in (2, 102):  # our own refusal, argparse's
            self.accepted, self.refused = self.accepted - 1, self.refused + 1
        if "Traceback" in out.getvalue() + error:
            self.problems.append(f"{what}: a traceback is printed: {error[-400:]!r}")
        elif code == 2 and (error.count("\n") != 1 or not error.strip().isprintable() or len(error) > 1500):
            self.problems.append(f"{what}: the error is not one line: {error[:400]!r}")
        return code in (0, 1)

    def check(self, number: int) -> None:
        shown = "\n".join(self.problems[:40])
        print(
            f"{number} cases, {self.deep} of them got past the door; {self.accepted} steps were accepted and "
            f"{self.refused} refused; the slowest took {self.slowest[0]:.1f} s: {self.slowest[1]}"
        )
        assert not self.problems, f"{len(self.problems)} of {self.accepted + self.refused} cases:\n{shown}"
        assert self.deep > number / 10  # else what lies behind the door has not been tried


def _stuck(signum: int, frame: Any) -> None:
    raise Stuck("still at it")


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project folder with one experiment, as the working directory."""
    if request.node.get_closest_marker("fuzz") and "fuzz" not in request.config.option.markexpr:
        pytest.skip("takes minutes; `make fuzz` runs it")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments").mkdir()
    for name, text in (("study", STUDY), ("recipes", RECIPES), ("learning_rates", RATES)):
        (tmp_path / "experiments" / f"{name}.toml").write_text(text)
    previous = {number: signal.signal(number, _stuck) for number in (signal.SIGALRM, signal.SIGPROF)}
    # What is read without end must end in a MemoryError here, and not take the machine down.
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (psutil.Process().memory_info().vms + 6 * 2**30, hard))
    yield tmp_path
    resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
    for number, handler in previous.items():
        signal.signal(number, handler)


def fill(here: Path) -> None:
    """results/ and plots/ of the experiment."""
    study = load_experiment(here / "experiments" / "study.toml")
    plan = make_plan([study], "results", run_function=RUN)
    for number, config in enumerate(study.runs):
        store = Store(plan.store.root, plan.code(config.hash))
        if number:
            fuzz_run.run(config, store)
        else:
            store.fail(config, "Traceback\nValueError: as it should")
    tabulate.write_tables(study, plan.store, "results")
    (here / "plots" / "theory").mkdir(parents=True)  # else the first drawing would draw the theory, which takes long


def amounts(short: int, full: int) -> Any:
    """How many cases, and the seconds that each may take; a hang is found by either."""
    whole = pytest.param(full, 5.0, id="full", marks=pytest.mark.fuzz)
    return pytest.mark.parametrize(("number", "seconds"), [pytest.param(short, 60.0, id="short"), whole])


@amounts(20, 2000)
def test_experiment_files(here: Path, number: int, seconds: float) -> None:
    cases, path = Cases(seconds), here / "experiments" / "case.toml"
    shipped = [p.read_text() for p in sorted((ROOT / "experiments").glob("*.toml"))]
    unclaimed = STUDY[: STUDY.index("[[claims]]")]  # a claim refuses most changes of a grid
    recipes, rates = (ROOT / "experiments" / "recipes.toml").read_text(), RATES
    for seed in range(number):
        rng = random.Random(seed)
        valid = rng.choice([STUDY, unclaimed, unclaimed, rng.choice(shipped)])
        which = rng.choice(["text", "tables", "tables", "tables", "beside"])
        change = mutate.text if which == "text" else mutate.tables
        texts = {path.name: valid, "recipes.toml": recipes, "learning_rates.toml": rates}
        mutated = rng.choice(["recipes.toml", "learning_rates.toml"]) if which == "beside" else path.name
        for name, text in texts.items():
            file = path.parent / name
            if file.is_dir() and not file.is_symlink():
                file.rmdir()
            file.unlink(missing_ok=True)
            file.write_text(change(text, rng) if name == mutated else text, errors="replace")
        if rng.random() < 0.05:
            mutate.file(path.parent / mutated, rng)
        profile = rng.choice(["laptop"] * 5 + ["smoke", "full", "../x"])
        cases.command(f"experiment {seed}", "sweep", str(path), "--dry-run", "--profile", profile)
        experiment = cases.run(f"experiment {seed}, loading", lambda profile=profile: load_experiment(path, profile))
        if experiment is not None:
            cases.deep += 1
            runs = experiment.runs
            cases.run(f"experiment {seed}, tasks", lambda runs=runs: commands.check_tasks(runs, str(path)))
    cases.check(number)


@amounts(60, 500)
def test_claims(here: Path, number: int, seconds: float) -> None:
    cases, path = Cases(seconds), here / "experiments" / "case.toml"
    fill(here)
    tables = results.load("study", "results")
    start = STUDY.index("[[claims]]")
    for seed in range(number):
        rng = random.Random(seed)
        if rng.random() < 0.25:
            text = STUDY[:start] + mutate.text(STUDY[start:], rng)
        else:
            text = mutate.tables(STUDY, rng, "claims")
        path.write_text(text, errors="replace")
        experiment = cases.run(f"claims {seed}, loading", lambda: load_experiment(path))
        if experiment is not None and experiment.claims:
            cases.deep += 1
            cases.run(f"claims {seed}, checking", lambda e=experiment: publish.check(e))
            cases.run(f"claims {seed}, judging", lambda e=experiment: judge(e, tables))
    cases.check(number)


def judge(experiment: Any, tables: Any) -> None:
    from maxrl_bench.analysis.claims import judge as judge_claims
    from maxrl_bench.analysis.evidence import Evidence

    with contextlib.suppress(ValueError):  # refused by now
        publish.check(experiment)
        for verdict in judge_claims(Evidence("study", *tables), experiment.claims):
            assert verdict.verdict


RUNS = ["0" * 16, "../../x", "x", "", "0123456789ABCDEF", "a" * 300, "\n", "."]
WORDS = [
    "",
    "x",
    "study",
    "../x",
    "-1",
    "0",
    "1",
    "2",
    "7",
    "1e9",
    "nan",
    "99999999999999999999",
    mutate.DIGITS,
    "é",
    "\n",
]
WORDS += [
    "a=b",
    "=",
    "/dev/null/x",
    "file",
    "fifo",
    "[",
    "'",
    "a" * 300,
    "--help",
    "--json",
    "grpo",
    "fourrooms",
    "\ud800",
]
SETTINGS = [
    "task=fourrooms",
    "task=add-2",
    "objective=grpo",
    "objective=ml",
    "steps=2",
    "num_rollouts=4",
    "seed=1",
    "x=1",
]
SETTINGS += [f"{key}={value}" for key in ("task", "objective", "steps", "policy") for value in mutate.TOML_VALUES]
OPTIONS: dict[str, tuple[list[str], list[str]]] = {
    "list": (["--json", "--results"], ["tasks", "objectives", "experiments"]),
    "run": (["--config", "--results"], SETTINGS),
    "sweep": (
        ["--profile", "--workers", "--memory", "--scheduler", "--keep-stale", "--no-plots", "--results"],
        ["study"],
    ),
    "status": (["--profile", "--results", "--run-function"], ["study", "experiments/study.toml"]),
    "plot": (["--profile", "--results"], ["study", "experiments/study.toml"]),
    "tune": (["--profile", "--results"], ["study"]),
    "export": (["--results"], ["study", "out.csv", "out.parquet"]),
    "card": (["--rollouts", "--json", "--figure"], ["grpo", "maxrl_order", "order=2", "order=x", "pkpo", "k=1"]),
    "watch": (["--split", "--index", "--run", "--base", "--out", "--results"], ["fourrooms", "add-2", "maze-7"]),
    "nonsense": (["--x"], ["y"]),
}


FLAGS = ("--json", "--keep-stale", "--no-plots", "--base")
GOOD = {
    "--profile": ["laptop", "smoke"],
    "--workers": ["1", "1024"],
    "--memory": ["1", "0.5"],
    "--results": ["results", "other"],
    "--rollouts": ["1", "2", "4", "1000"],
    "--split": ["train", "validation", "test"],
    "--index": ["0", "3", str(2**62)],
    "--out": ["out.txt", "out.gif"],
    "--figure": ["card.svg", "card.png"],
    "--run-function": [RUN],
    "--config": ["good.json"],
}


@amounts(40, 500)
def test_option_lines(here: Path, number: int, seconds: float) -> None:
    cases = Cases(seconds)
    study = re.sub("figures = .*", 'figures = ["entropy"]', STUDY)  # one figure is drawn quickly
    (here / "experiments" / "study.toml").write_text(study)
    fill(here)
    (here / "file").write_text("{")
    (here / "good.json").write_text('{"task": "fourrooms", "objective": "grpo", "steps": 3}')
    os.mkfifo(here / "fifo")
    for seed in range(number):
        rng = random.Random(seed)
        command = rng.choice(list(OPTIONS))
        options, words = OPTIONS[command]
        arguments = [
            command,
            *(["task=fourrooms", "objective=grpo"] if command == "run" and rng.random() < 0.5 else []),
        ]
        for _ in range(rng.randint(1, 3)):
            arguments.append(rng.choice(words if rng.random() < 0.8 else WORDS))
        for _ in range(rng.randint(0, 2)):
            option = rng.choice(options)
            good = GOOD.get(option)
            word = rng.choice(good if good and rng.random() < 0.6 else RUNS if option == "--run" else WORDS)
            arguments += [option] if option in FLAGS or rng.random() < 0.1 else [option, word]
        if command == "run":
            arguments += ["--run-function", RUN]
        if command == "sweep":
            arguments += ["--dry-run"]
        if command == "plot" and not any("study" in word for word in arguments[1:]):
            arguments.append("study")  # else it draws the theory, which takes long
        (here / "out.csv").unlink(missing_ok=True)
        cases.deep += cases.command(f"options {seed} {arguments!r:.200}", *arguments)
    cases.check(number)


@amounts(5, 300)
def test_files_of_results_and_plots(here: Path, number: int, seconds: float) -> None:
    cases = Cases(seconds)
    fill(here)
    whole = here.parent / "whole"
    # One figure is drawn quickly; what is read is the same.
    (here / "experiments" / "study.toml").write_text(re.sub("figures = .*", 'figures = ["entropy"]', STUDY))
    with contextlib.redirect_stdout(io.StringIO()):
        cli.main(["plot", "study"])
    shutil.copytree(here, whole)
    targets = sorted(
        path.relative_to(here)
        for folder in ("results", "plots")
        for path in (here / folder).rglob("*")
        if path.is_file() and path.suffix in (".json", ".csv", ".gz", "") and ".locks" not in path.parts
    )
    assert {path.name for path in targets} >= {
        "provenance.json",
        "figures.json",
        "config.json",
        "failed.json",
        "manifest.json",
    }
    for seed in range(number):
        rng = random.Random(seed)
        for folder in ("results", "plots"):
            shutil.rmtree(here / folder)
            shutil.copytree(whole / folder, here / folder)
        target = rng.choice(targets)
        mutate.file(here / target, rng)
        if rng.random() < 0.7:
            mutate.with_checksums(here / target)
        (here / "out.csv").unlink(missing_ok=True)
        run = target.parts[2] if target.parts[1] == "store" and len(target.parts) > 3 else "0" * 16
        what = f"file {seed} {target}"
        for arguments in (
            ("status", "study", "--run-function", RUN),
            ("sweep", "study", "--dry-run", "--run-function", RUN),
            ("export", "study", "out.csv"),
            ("list", "tasks"),
            ("watch", "--run", run),
            ("run", "--config", str(target), "--run-function", RUN),
            ("plot", "study"),
        ):
            accepted = cases.command(f"{what}: {arguments[0]}", *arguments)
        cases.deep += accepted  # by plot, which reads most
    cases.check(number)


def test_the_checksums_of_what_cannot_be_read_stay(tmp_path: Path) -> None:
    for content in (b"[" * 100_000, b"", b"[1]", b"\xff"):
        (tmp_path / "manifest.json").write_bytes(content)
        mutate.with_checksums(tmp_path / "manifest.json")
        assert (tmp_path / "manifest.json").read_bytes() == content


def fail(message: str) -> None:
    raise ValueError(message)


def test_a_bad_end_is_seen(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cases = Cases(0.2)
    cases.run("fine", lambda: 1)
    cases.run("refused", lambda: int("x"))
    assert not cases.problems
    cases.run("traceback", lambda: [][0])
    cases.run("lines", lambda: fail("a\nb"))
    cases.run("stuck", lambda: time.sleep(10))
    assert [problem.partition(":")[0] for problem in cases.problems] == ["traceback", "lines", "stuck"]
    monkeypatch.setattr(cli, "main", lambda arguments: print("Traceback") or 1)
    cases.command("printed", "x")
    assert "a traceback is printed" in cases.problems[-1]
