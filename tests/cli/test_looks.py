"""Seeds that follow the claims: who gets more, when it ends, and that nothing but the results decides it."""

from __future__ import annotations

import functools
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from sweep_cases import HERE, RUN, Serial
from synthetic_tables import make_tables

from maxrl_bench.analysis.claims import judge
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.sequential import confidence_sequence, p_value
from maxrl_bench.cli import listing, publish
from maxrl_bench.cli import main as cli
from maxrl_bench.cli.looks import Look, Looks
from maxrl_bench.storage import tables as results
from maxrl_bench.sweeps.driver import Report, Sweep, make_plan
from maxrl_bench.sweeps.executors import DaskPool
from maxrl_bench.sweeps.experiment import load_experiment
from maxrl_bench.sweeps.progress import Progress
from maxrl_bench.sweeps.seeds import next_runs
from maxrl_bench.sweeps.worker import execute

# MaxRL stands far above GRPO, which is decided at once; between REINFORCE and GRPO is nothing but noise; RLOO is in no
# claim.
STUDY = """
question = "How many seeds does each claim take?"
[defaults]
task = "fourrooms"
seed = {{ first = 4, most = {most}, until = "decided" }}
num_rollouts = 8
steps = 2
eval_every = 1
[[grid]]
objective = ["grpo", "rloo"]
[[grid]]
objective = "reinforce"
policy = {{ lift = 1{reinforce} }}
[[grid]]
objective = "maxrl_alg1"
policy = {{ lift = 3000{maxrl} }}
[[claims]]
id = "clear"
statement = "MaxRL ends higher than GRPO"
metric = "pass@1"
compare = {{ objective = "maxrl_alg1" }}
against = {{ objective = "grpo" }}
[[claims]]
id = "open"
statement = "REINFORCE ends higher than GRPO"
metric = "pass@1"
compare = {{ objective = "reinforce" }}
against = {{ objective = "grpo" }}
"""


def study(folder: Path, *, most: int = 7, reinforce: str = "", maxrl: str = "", name: str = "study") -> Path:
    path = folder / f"{name}.toml"
    path.write_text(STUDY.format(most=most, reinforce=reinforce, maxrl=maxrl))
    return path


def follow(path: Path, root: Path, pool=None, told: list[str] | None = None) -> tuple[Report, list[str]]:
    """A sweep of one experiment as the command does it, but for figures; its report, and its runs in order."""
    plan = make_plan([load_experiment(path)], root, run_function=RUN)
    looks = Looks(plan)
    looks.follow()
    pool = pool or Serial()
    progress = Progress(len(plan.wanted), len(plan.wanted) - len(plan.todo))
    tell = told.append if told is not None else lambda line: None
    published: list = []
    report = Sweep(
        plan, pool, progress, lambda *ended: published.append(ended), functools.partial(looks.next_runs, tell)
    ).carry_out()
    ((experiment, done),) = published
    publish.publish(experiment, str(root), None, {run: plan.code(run) for run in done})
    return report, getattr(pool, "jobs", [])


def seeds(root: Path, name: str = "study") -> dict[tuple[str, str], list[int]]:
    """The seeds of each cell of the tables."""
    metrics = results.load(name, root).metrics.drop_duplicates("run")
    return {cell: sorted(rows["seed"]) for cell, rows in metrics.groupby(["task", "objective_name"])}


def bare(root: Path, name: str = "study") -> tuple[str, str]:
    """The tables but for seconds."""
    tables = results.load(name, root)
    return tables.metrics.drop(columns="seconds").to_csv(), tables.pass_rates.to_csv()


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The results of an undisturbed sweep, and its experiment beside them."""
    root = tmp_path_factory.mktemp("whole")
    told: list[str] = []
    report, _ = follow(study(root), root, told=told)
    assert not report.failed
    (root / "told.txt").write_text("\n".join(told))
    return root


def test_only_what_an_undecided_claim_compares_gets_more_seeds(whole: Path) -> None:
    assert {objective: len(own) for (_, objective), own in seeds(whole).items()} == {
        "grpo": 7,
        "reinforce": 7,
        "maxrl_alg1": 5,
        "rloo": 4,
    }
    assert all(own == list(range(len(own))) for own in seeds(whole).values())


def test_it_ends_at_the_first_look_that_decides(whole: Path) -> None:
    """Recomputed from the differences by seed: the claim is decided after five seeds, and not after four.

    With Holm's correction for two claims, of which the other is never certain; its margin is 0.02.
    """
    judged = judge(Evidence.load("study", whole), load_experiment(whole / "study.toml").claims)
    clear, still = (verdict.comparisons[0].result for verdict in judged)
    assert (clear.seeds, still.seeds) == (5, 7)
    assert 2 * p_value(clear.by_seed[:4], 0, first=4) >= 0.05 > 2 * p_value(clear.by_seed, 0, first=4)
    assert clear.verdict == "better"
    low, high = confidence_sequence(still.by_seed, first=4)
    assert (still.low, still.high) == (low, high)
    assert low < 0 < high
    assert max(-low, high) > 0.02
    assert (clear.instances, still.instances) == (0, 0)


def test_each_look_says_what_goes_on_and_the_last_what_came_out(whole: Path) -> None:
    *looks, clear, still = (whole / "told.txt").read_text().splitlines()
    assert [re.sub(r"\[.*?\]", "[]", line) for line in looks] == [
        "study: 3 runs more: claim clear: 4 seeds, interval [] of pass@1 against GRPO, goes on; "
        "claim open: 4 seeds, interval [] of pass@1 against GRPO, goes on",
        "study: 2 runs more: claim open: 5 seeds, interval [] of pass@1 against GRPO, goes on",
        "study: 2 runs more: claim open: 6 seeds, interval [] of pass@1 against GRPO, goes on",
    ]
    assert clear.startswith("study: claim clear: 5 seeds, interval [+0.")
    assert clear.endswith(" of pass@1 against GRPO, supported")
    assert still.startswith("study: claim open: 7 seeds, interval [-")
    assert still.endswith("undecided")


class Stop(BaseException):
    """Thrown into a sweep, as Ctrl-C is."""


class Stopping(Serial):
    """A pool in which a sweep is cut short after so many runs."""

    def __init__(self, after: int) -> None:
        super().__init__()
        self.after = after

    def submit(self, function, job):
        if len(self.jobs) == self.after:
            raise Stop
        return super().submit(function, job)


def test_a_sweep_that_is_cut_short_again_and_again_does_the_same_runs(whole: Path, tmp_path: Path) -> None:
    done: list[str] = []
    for _ in range(10):
        pool = Stopping(after=5)
        try:
            follow(study(tmp_path), tmp_path, pool=pool)
        except Stop:
            done += pool.jobs
        else:
            done += pool.jobs
            break
    assert bare(tmp_path) == bare(whole)
    assert len(done) == len(set(done)) == 23  # none twice, none in vain
    # What others have put into the store changes nothing either.
    extra = make_plan([load_experiment(study(tmp_path, most=9, name="other"))], tmp_path, run_function=RUN)
    for run in sorted(extra.may_come)[:5]:
        execute(extra.job(run))
    report, jobs = follow(tmp_path / "study.toml", tmp_path)
    assert (jobs, report.computed) == ([], 0)
    assert bare(tmp_path) == bare(whole)


@pytest.fixture
def patient(request: pytest.FixtureRequest) -> None:
    if "stress" not in request.config.option.markexpr:
        pytest.skip("takes long; `make stress` runs it")


@pytest.mark.stress
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
@pytest.mark.usefixtures("patient")
def test_killed_and_resumed_on_two_workers_it_ends_the_same(whole: Path, tmp_path: Path, number: int) -> None:
    path = study(tmp_path)
    environment = {**os.environ, "PYTHONPATH": f"{HERE}{os.pathsep}{HERE.parent}"}
    command = [sys.executable, str(HERE / "fake_driver.py"), str(path), str(tmp_path / "r"), "2"]
    with subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if "2 runs more" in line:  # one claim is decided by now, and one is not
                process.send_signal(number)
                break
        process.stderr.read()
    assert process.returncode == (130 if number == signal.SIGINT else -number)
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "23 of 23 runs done" in ended.stdout
    assert "23 of 23 runs done (23 now)" not in ended.stdout
    assert bare(tmp_path / "r") == bare(whole)


@pytest.mark.stress
@pytest.mark.usefixtures("patient")
def test_dask_ends_with_the_same(whole: Path, tmp_path: Path) -> None:
    pytest.importorskip("distributed")
    pool = DaskPool("local", 2)
    follow(study(tmp_path), tmp_path, pool=pool)
    pool.shutdown()
    assert bare(tmp_path) == bare(whole)


def test_dry_run_and_status_before_in_the_middle_and_after(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = str(study(tmp_path))
    command = ["sweep", path, "--dry-run", "--workers", "2", "--run-function", RUN, "--no-plots", "--results"]
    assert cli.main([*command, str(tmp_path / "r")]) == 0
    told = capsys.readouterr().out
    assert "study: at least 16 / at most 25 runs" in told
    assert "seeds: 4 come first, at most 7, until the claims are decided" in told
    assert "to do at least: 16 runs" in told
    assert "to do at most: 25 runs" in told
    with pytest.raises(Stop):
        follow(Path(path), tmp_path / "r", pool=Stopping(after=20))
    assert cli.main([*command, str(tmp_path / "r")]) == 0
    told = capsys.readouterr().out
    assert "study: at least 21 / at most 25 runs" in told
    assert re.search(r"claim open: 5 seeds, interval \[-0.\d+, \+0.\d+\] of pass@1 against GRPO, goes on\n", told)
    assert "21 different runs: 20 done, 1 missing" in told
    state = listing.status([load_experiment(path)], str(tmp_path / "r"), RUN)
    assert state.startswith("study: at least 21 / at most 25 runs: 20 done, 1 missing")
    assert "claim clear: 5 seeds" in state
    state = listing.status([load_experiment(whole / "study.toml")], str(whole), RUN)
    assert state.startswith("study: 23 runs: 23 done\n")
    assert "goes on" not in state
    assert cli.main(["sweep", str(whole / "study.toml"), *command[2:], str(whole)]) == 0
    told = capsys.readouterr().out
    assert "study: 23 runs\n" in told
    assert "to do: 0 runs" in told


def test_a_collapse_puts_a_verdict_off_until_ten_seeds(tmp_path: Path) -> None:
    path = study(tmp_path, most=5, maxrl=", collapse_seed = 2")
    told: list[str] = []
    follow(path, tmp_path, told=told)
    assert told[-2].startswith("study: claim clear: 5 seeds, no interval below 10 seeds of pass@1")
    assert told[-2].endswith("undecided")
    (verdict, _) = judge(Evidence.load("study", tmp_path), load_experiment(path).claims)
    result = verdict.comparisons[0].result
    assert (result.collapsed, result.first, result.p) == (1, 10, 1.0)
    assert "below 10" in verdict.notes[0]


def test_a_run_that_fails_ends_a_look_and_is_tried_again_by_the_next_sweep(tmp_path: Path) -> None:
    path = study(tmp_path, most=5, maxrl=", fail_seed = 1")
    report, _ = follow(path, tmp_path)
    assert len(report.failed) == 1
    assert seeds(tmp_path)["fourrooms", "maxrl_alg1"] == [0, 2, 3, 4]
    before = bare(tmp_path)
    again, retried = follow(path, tmp_path)
    assert again.failed.keys() == report.failed.keys() == set(retried)
    assert bare(tmp_path) == before
    assert "1 failed" in listing.status([load_experiment(path)], str(tmp_path), RUN).splitlines()[0]


def test_tables_that_cannot_be_judged_get_no_more_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def odd(*_: object) -> Evidence:
        raise ValueError("these tables: its metrics table has gaps in column 'step'")

    monkeypatch.setattr(Evidence, "of", odd)
    told: list[str] = []
    report, _ = follow(study(tmp_path), tmp_path, told=told)
    assert len(report.done) == 16
    assert told == ["study: nothing can be judged: these tables: its metrics table has gaps in column 'step'"]


def test_claims_of_other_tables_of_the_profile_count_in_the_family(whole: Path, tmp_path: Path) -> None:
    """With six claims more, of which nothing is known, five seeds do not decide the clear one."""
    other = study(tmp_path, name="other").read_text().replace('{ first = 4, most = 7, until = "decided" }', "[0]")
    extra = "".join(other[other.index("[[claims]]") :].replace('"\nstatement', f'{n}"\nstatement') for n in range(2))
    (tmp_path / "other.toml").write_text(other + extra)
    follow(tmp_path / "other.toml", tmp_path)
    follow(study(tmp_path), tmp_path)
    assert publish.claims_beside("laptop", [load_experiment(tmp_path / "study.toml")], str(tmp_path)) == 8
    assert len(seeds(tmp_path)["fourrooms", "maxrl_alg1"]) > 5


def test_a_claim_about_every_task_names_the_task_that_is_least_certain(tmp_path: Path) -> None:
    """Until it is decided, all tasks get the next seed, so that none is ahead."""
    path = study(tmp_path)
    text = path.read_text().replace('"fourrooms"', '["fourrooms", "empty-8"]')
    path.write_text(text.replace('id = "open"', 'id = "open"\nevery_task = true'))
    experiment = load_experiment(path)
    more = next_runs(experiment, "open")
    cells = {(config.task_label, config.objective.name, config.seed) for config in more}
    assert cells == {(task, name, 4) for task in ("fourrooms", "empty-8") for name in ("reinforce", "grpo")}
    labels = {"REINFORCE": ("reinforce", 2.0, 1.3), "GRPO": ("grpo", 0.0, 1.3)}
    tables = make_tables(
        {"fourrooms": ("f", 0.0), "empty-8": ("f", 0.0)}, labels, seeds=6, steps=(0, 1, 2), instances=8
    )
    rule = {"first": 4, "most": 7, "until": "decided"}
    (verdict,) = judge(Evidence("study", *tables, provenance={"seeds": rule}), experiment.claims[1:])
    least = max(verdict.comparisons, key=lambda c: c.result.p)
    assert [c.task for c in verdict.comparisons] == ["fourrooms", "empty-8"]
    (line,) = Look([(verdict, "undecided", more)]).lines()
    assert line.startswith(f"claim open: 6 seeds, interval [{least.result.low:+.3g}, ")
    assert line.endswith(f"] of pass@1 against GRPO on {least.task}, goes on")
