"""The command line as a user meets it: what it prints, its exit codes, and one line for every mistake."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from maxrl_bench.cli import commands
from maxrl_bench.cli import main as cli
from maxrl_bench.cli.commands import SweepOptions
from maxrl_bench.config import RunConfig
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.store import Store

ROOT = Path(__file__).parents[2]
RUN = "fake_run:run"
STUDY = """
question = "Is it whole?"
[[grid]]
task = "fourrooms"
objective = ["grpo", "rloo"]
seed = [0, 1]
num_rollouts = 8
steps = 4
eval_every = 2
[profiles.smoke]
steps = 2
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project folder with one experiment, as the working directory."""
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "study.toml").write_text(STUDY)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line that a refused command prints."""
    capsys.readouterr()
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1, captured.err
    return captured.err


def sweep(**options: object) -> int:
    return commands.sweep(SweepOptions(**{"no_plots": True, "run_function": RUN, "workers": 1, **options}))


def test_a_sweep_writes_tables_tells_its_state_and_is_idempotent(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["sweep", "--dry-run"]) == 0
    told = capsys.readouterr().out
    assert "study: 4 runs" in told
    assert "objective (2): GRPO, RLOO" in told
    assert "seed (2): 0, 1" in told
    assert "to do: 4 runs; time on" in told
    assert not results.experiments()

    assert sweep() == 0
    captured = capsys.readouterr()
    assert "4 of 4 runs done (4 now)" in captured.out
    assert "% of worker time in runs; at most" in captured.out
    assert captured.err.count("\n") == 4  # plain lines, one for each run
    tables = results.load("study")
    assert len(tables.metrics) == 4 * 3
    assert tables.provenance["missing"] == {}
    before = (here / "results/study" / results.METRICS).read_bytes()

    assert sweep() == 0
    assert "4 of 4 runs done (0 now)" in capsys.readouterr().out
    assert (here / "results/study" / results.METRICS).read_bytes() == before
    assert cli.main(["export", "study", "all.csv"]) == 0
    assert (here / "all.csv").read_bytes() == results.unpack(results.METRICS, before)

    # The other profile's runs are others, in a folder of their own.
    assert sweep(profile="smoke") == 0
    assert results.experiments() == ["study", "study-smoke"]
    assert (here / "results/study" / results.METRICS).read_bytes() == before


def test_failures_are_summarised_with_the_command_that_reproduces_them(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = here / "experiments/study.toml"
    path.write_text(STUDY + '[[grid]]\ntask = "fourrooms"\nobjective = "ml"\nsteps = 4\npolicy = { fail_at = 3 }\n')
    assert sweep() == 1
    told = capsys.readouterr().out
    recipe = {"warm_start_steps": 50, "warm_start_batch_size": 16, "eval_every": 50}
    failed = RunConfig(task="fourrooms", objective="ml", steps=4, policy={"fail_at": 3}, **recipe).hash
    command = f"maxrl-bench run --config results/store/{failed}/config.json --run-function {RUN}"
    assert "FAILED fourrooms ml N=64 lr=0.001 seed=0: FloatingPointError: the surrogate became nan" in told
    assert command in told
    assert "4 of 5 runs done" in told
    assert list(results.load("study").provenance["missing"]) == [failed]

    # The command does that run again, and shows its traceback.
    assert cli.main(command.split()[1:]) == 1
    assert "fake_run.py" in capsys.readouterr().err
    assert cli.main([*command.split()[1:], "policy={}"]) == 0
    assert "done in" in capsys.readouterr().out
    assert cli.main([*command.split()[1:], "policy={}"]) == 0
    assert "done already" in capsys.readouterr().out


def test_status_says_what_is_done_missing_running_and_failed_and_why(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    status = ["status", "--run-function", RUN]
    assert cli.main(status) == 0
    assert "study: 4 runs: 4 missing" in capsys.readouterr().out
    assert sweep() == 0
    store = Store(here / "results/store")
    runs = list(results.load("study").provenance["runs"])
    shutil.rmtree(here / "results/study")  # from which they would come back
    store.fail(store.config(runs[0]), "Traceback\nValueError: no\n")
    (here / "results/store" / runs[1] / "metrics.csv").write_text("step\n1\n")
    (here / "results/store" / runs[2] / "DONE").unlink()
    capsys.readouterr()
    with store.lock(runs[2]):
        assert cli.main(status) == 0
    told = capsys.readouterr().out
    first = told.splitlines()[0]
    assert all(part in first for part in ("1 done", "1 failed", "1 corrupt", "1 running", "time left"))
    assert ": ValueError: no" in told
    assert f"maxrl-bench run --config results/store/{runs[0]}/config.json" in told
    assert "metrics.csv does not match its checksum" in told


def test_mistakes_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown experiment 'studi'; did you mean 'study'" in refused(capsys, "sweep", "studi")
    assert "has no profile 'smok'; did you mean 'smoke'" in refused(capsys, "sweep", "study", "--profile", "smok")
    assert "no experiment has the profile 'full'" in refused(capsys, "sweep", "--profile", "full")
    assert "--workers must be 1 or more" in refused(capsys, "sweep", "--workers", "-1")
    assert "--workers must be 1 or more" in refused(capsys, "sweep", "--workers", "0")
    for memory in ("0", "-1", "nan", "inf"):
        assert "--memory must be a number of GB above 0" in refused(capsys, "sweep", "--memory", memory)
    assert "did you mean 'fourrooms'" in refused(capsys, "run", "task=fourroms", "objective=grpo")
    assert "key 'objective' is missing" in refused(capsys, "run", "task=fourrooms")
    assert "must have the form KEY=VALUE" in refused(capsys, "run", "fourrooms")
    assert "absent.json: no such file" in refused(capsys, "run", "--config", "absent.json")
    (here / "bad.json").write_text("{")
    assert "bad.json: is not JSON" in refused(capsys, "run", "--config", "bad.json")
    (here / "deep.json").write_text("[" * 100_000)
    assert "deep.json: is nested more than 32 deep" in refused(capsys, "run", "--config", "deep.json")
    assert "no tables in results" in refused(capsys, "plot")
    assert "no results of experiment 'study'" in refused(capsys, "plot", "study")
    assert "no results of experiment 'study'" in refused(capsys, "export", "study", "x.csv")
    assert "run function 'nowhere:run' cannot be imported" in refused(capsys, "sweep", "--run-function", "nowhere:run")
    assert "name a task" in refused(capsys, "watch")
    assert "holds no run" in refused(capsys, "watch", "fourrooms", "--run", "0" * 16)
    assert "holds no run" in refused(capsys, "watch", "--base", "--run", "0" * 16)
    (here / "experiments/study.toml").write_text(STUDY.replace("seed", "sed"))
    assert refused(capsys, "sweep").startswith("maxrl-bench: experiments/study.toml: [[grid]] 1: key 'sed' is unknown")
    (here / "experiments/study.toml").write_text(STUDY.replace("[[grid]]", 'figures = ["coverag"]\n[[grid]]'))
    assert "experiments/study.toml: key 'figures': no figure 'coverag'; did you mean 'coverage'" in refused(
        capsys, "sweep"
    )
    (here / "experiments/study.toml").write_text(STUDY + '[[claims]]\nid = "a"\n')
    assert "experiments/study.toml: claim 'a': key 'statement' is missing" in refused(capsys, "sweep")


def test_task_options_are_refused_before_anything_runs(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STUDY.replace('"fourrooms"', '{ name = "fourrooms", horizn = 3 }')
    (here / "experiments/study.toml").write_text(text)
    error = refused(capsys, "sweep")
    assert "experiments/study.toml: " in error
    assert "horizn" in error


def test_folders_that_cannot_be_used_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "file").write_text("x")
    assert "cannot be used" in refused(capsys, "sweep", "--results", "file")
    Store(here / "old" / "store")
    (here / "old" / "store" / "FORMAT").write_text("maxrl_bench results, format 0\n")
    assert "incompatible version" in refused(capsys, "sweep", "--results", "old")
    assert "incompatible version" in refused(capsys, "status", "--results", "old")
    if os.geteuid() != 0:  # root may write anywhere
        (here / "shut").mkdir(mode=0o500)
        assert "cannot be used" in refused(capsys, "sweep", "--results", "shut")


def test_a_full_disk_is_one_line_with_the_way_to_go_on(here: Path) -> None:
    (here / "experiments/study.toml").write_text(
        STUDY + "policy = { full_at = 1 }\n".replace("policy", "\n[defaults]\npolicy")
    )
    with pytest.raises(ValueError, match=r"the disk is full .*No space left.* make room and repeat: maxrl-bench"):
        sweep()


def test_tables_that_cannot_be_written_do_not_cost_the_runs(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (here / "results").mkdir()
    (here / "results/study").write_text("in the way")
    with pytest.raises(ValueError, match="results/study is not a folder; remove it"):
        sweep()
    monkeypatch.setattr(commands.sources, "check", lambda *_: None)  # as if it had come while the runs went on
    assert sweep() == 1
    captured = capsys.readouterr()
    assert "study: tables or figures FAILED: " in captured.err
    assert "results/study is not a folder; remove it" in captured.err
    assert "4 of 4 runs done" in captured.out


def test_settings_are_toml_values_or_text() -> None:
    given = ["steps=3", "task=fourrooms", 'objective={name="pkpo", k=2}', "learning_rate=1e-3", "policy={}"]
    assert cli.settings(given) == {
        "steps": 3,
        "task": "fourrooms",
        "objective": {"name": "pkpo", "k": 2},
        "learning_rate": 1e-3,
        "policy": {},
    }


def test_plot_draws_whatever_has_tables_and_the_objectives(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from maxrl_bench.report import objective_figures

    drawn: list[Path] = []

    def draw_all(folder: Path) -> None:
        drawn.append(folder)
        (folder / "weights.png").write_bytes(b"drawn")

    monkeypatch.setattr(objective_figures, "draw_all", draw_all)
    assert sweep() == 0
    assert cli.main(["plot", "study"]) == 0
    assert Path("plots/theory/weights.png").read_bytes() == b"drawn"
    assert cli.main(["plot", "study"]) == 0  # they are there
    assert len(drawn) == 1
    assert sweep(profile="smoke") == 0
    assert cli.main(["plot"]) == 0
    assert len(drawn) == 2
    capsys.readouterr()
    assert cli.main(["plot", "--profile", "smoke"]) == 0  # the others have no tables under it, or none of it
    assert capsys.readouterr().out.splitlines() == ["study-smoke: plots/study-smoke/"]
    assert "no tables in results under profile 'full'" in refused(capsys, "plot", "--profile", "full")
    page = (here / "plots/index.html").read_text()
    assert '<h2 id="study">' in page
    assert '<h2 id="study-smoke">' in page


def test_experiments_without_the_default_profile_are_listed_too(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = STUDY.split("[profiles")[0].replace("[[grid]]", '[[grid]]\nprofiles = ["survey"]')
    (here / "experiments/other.toml").write_text(text + "[profiles.survey]\nseed = 0\n")
    assert cli.main(["list", "experiments"]) == 0
    listed = capsys.readouterr().out
    assert "\nstudy " in listed
    assert "\nother-survey " in listed


def test_lists_of_objectives_and_experiments(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["list", "objectives", "--json"]) == 0
    assert "grpo" in json.dumps(json.loads(capsys.readouterr().out))
    assert cli.main(["list", "experiments"]) == 0
    assert ["study", "4", "Is", "it", "whole?"] in [line.split() for line in capsys.readouterr().out.splitlines()]
    assert cli.main(["card", "maxrl_order", "order=4", "--rollouts", "8"]) == 0
    assert "4" in capsys.readouterr().out


def test_help_needs_neither_torch_nor_pandas() -> None:
    code = (
        "import sys; from maxrl_bench.cli import main as cli\n"
        "try: cli.main(['--help'])\n"
        "except SystemExit: pass\n"
        "print({'torch', 'pandas', 'matplotlib'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.endswith("set()\n")
    for command in ("list", "run", "sweep", "status", "plot", "card", "watch", "bench"):
        assert f"\n    {command} " in done.stdout


def test_the_package_runs_as_a_module(here: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "maxrl_bench", "sweep", "studi"]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    assert done.returncode == 2
    assert done.stderr == "maxrl-bench: unknown experiment 'studi'; did you mean 'study'?\n"
