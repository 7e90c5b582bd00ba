"""Output, signals and the import path: nothing about a terminal or a working directory costs a run."""

import io
import os
import shlex
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
from sweep_cases import RUN, Serial, config, experiment, run_sweep

from maxrl_bench import console, import_path
from maxrl_bench.cli import commands, listing
from maxrl_bench.cli import main as cli
from maxrl_bench.storage import locks
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps import driver as sweep
from maxrl_bench.sweeps import executors, progress, worker

ROOT = Path(__file__).parents[2]
BENCH = "from maxrl_bench.cli.main import main; raise SystemExit(main())"
STUDY = (
    'question = "?"\n[[grid]]\ntask = "fourrooms"\nobjective = "grpo"\nnum_rollouts = 2\nsteps = 1\n'
    "batch_size = 1\neval_instances = 1\nwarm_start_steps = 0\n"
)


class Failing(io.StringIO):
    def __init__(self, error: Exception):
        super().__init__()
        self.failure = error

    def write(self, text: str) -> int:
        raise self.failure


@pytest.mark.parametrize(
    ("error", "code"),
    [(BrokenPipeError(32, "Broken pipe"), 0), (OSError(28, "No space left on device"), 1), (ValueError("closed"), 1)],
)
def test_output_that_cannot_be_written_is_told_by_the_exit_code(
    error: Exception, code: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdout", Failing(error))
    assert cli.main(["list", "objectives"]) == code


def test_letters_that_a_terminal_lacks_become_escapes(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "cp1252"))
    with console.tolerant_output():
        print("γ é \udc80")
    sys.stdout.flush()
    assert raw.getvalue().decode("cp1252").strip() == "\\u03b3 é \\udc80"


@pytest.mark.parametrize("stream", ["stdout", "stderr"])
def test_a_missing_or_failing_stream_costs_no_run(stream: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for place in (None, Failing(BrokenPipeError(32, "Broken pipe"))):
        monkeypatch.setattr(sys, stream, place)
        with console.tolerant_output():
            report = run_sweep(tmp_path / str(place is None), experiment(config(0), config(1)))
        assert len(report.done) == 2


def test_a_sweep_whose_output_is_closed_full_or_broken_does_all_its_runs(tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY.replace("steps = 1", "steps = 1\nseed = [0, 1, 2]"))
    redirected = {
        "| head -c 1": 0,
        ">/dev/full": 1,
        "2>/dev/full": 1,  # whoever reads warnings there is to know
        ">&- 2>&-": 0,  # nobody is to read it
    }
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parents[1]}"}
    program = f"{shlex.quote(sys.executable)} -c {shlex.quote(BENCH)} sweep study.toml --no-plots --workers 1"
    started = []
    for number, where in enumerate(redirected):
        command = f"set -o pipefail; {program} --run-function {RUN} --results {number} {where}"
        started.append(
            subprocess.Popen(["bash", "-c", command], cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True)
        )
    for number, (where, process) in enumerate(zip(redirected, started, strict=True)):
        told = process.communicate(timeout=300)[1]
        assert process.returncode == redirected[where], (where, told)
        assert len(list((tmp_path / str(number)).glob("store/*/DONE"))) == 3, where
        assert "Traceback" not in told
        assert "Exception ignored" not in told


@pytest.mark.parametrize("how", ["module", "python path"])
def test_files_in_the_working_directory_are_never_imported(how: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    for name in ("signal", "struct", "random", "numpy", "torch", "selectors", "envs"):
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r})\n")
    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    program = str(Path(sys.executable).parent / "maxrl-bench")
    command = [sys.executable, "-m", "maxrl_bench"] if how == "module" else [program]
    if how == "python path":
        if not Path(program).exists():
            pytest.skip("the program is not installed")
        # Without the last, Python itself would take its own modules from there before any of ours is begun.
        environment["PYTHONPATH"] = "."
        for name in ("signal", "struct", "random", "selectors"):
            (tmp_path / f"{name}.py").unlink()
    command += ["sweep", "study.toml", "--no-plots", "--workers", "1"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("checkout_last", [False, True])
def test_the_working_directory_comes_last_and_only_for_an_own_run_function(
    checkout_last: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkout that is used from within stands last on the path, and the folder then just before it."""
    monkeypatch.chdir(tmp_path)
    others = [entry for entry in sys.path if entry != str(ROOT)]
    path = [*others, str(ROOT)] if checkout_last else [str(ROOT), *others]
    monkeypatch.setattr(sys, "path", ["", str(tmp_path), *path])
    monkeypatch.setenv("PYTHONPATH", f".{os.pathsep}{ROOT}{os.pathsep}")
    monkeypatch.setenv("PYTHONSAFEPATH", "")
    import_path.close()
    assert not {"", str(tmp_path)} & set(sys.path)
    assert os.environ["PYTHONPATH"] == str(ROOT)
    assert os.environ["PYTHONSAFEPATH"] == "1"
    worker.find_own(worker.TRAIN)
    assert str(tmp_path) not in sys.path
    worker.find_own(RUN)
    assert sys.path[-1 - checkout_last] == str(tmp_path)


def own_function(folder: Path, name: str, body: str, monkeypatch: pytest.MonkeyPatch) -> str:
    (folder / f"{name}.py").write_text(f"def run(config, store):\n    {body}\n")
    monkeypatch.syspath_prepend(folder)
    return f"{name}:run"


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("raise SystemExit(3)", "SystemExit: 3"),
        ("raise KeyboardInterrupt", "KeyboardInterrupt"),
        ("raise GeneratorExit('x')", "GeneratorExit: x"),
        ("raise ValueError('a\\udc80\\x1bb')", "ValueError: a\\udc80\\x1bb"),
        ("raise MemoryError", "MemoryError: the run needs more memory than a worker may take"),
        ("raise SystemExit('bye\\nbye')", "SystemExit: bye bye"),
        ("raise ValueError('a\\x00' + 'x' * 10**6)", "ValueError: a\\x00xxx"),
        ("raise ExceptionGroup('several', [ValueError('inner')])", "ExceptionGroup: several"),
        ("raise BrokenPipeError(32, 'gone')", "BrokenPipeError: [Errno 32] gone"),
        ("raise type('Odd', (Exception,), {'__str__': lambda self: 1 / 0})", "Odd: <exception str() failed>"),
    ],
)
def test_whatever_a_run_function_raises_is_a_failed_run(
    body: str, told: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    function = own_function(tmp_path, f"own_{abs(hash(body))}", body, monkeypatch)
    plan = sweep.make_plan([experiment(config(0), config(1))], tmp_path, run_function=function)
    report = sweep.Sweep(plan, Serial(), sweep.Progress(2, 0)).carry_out()
    assert len(report.failed) == 2
    assert all(told in why and len(why) <= 500 and why.isprintable() for why in report.failed.values()), report.failed
    kept = plan.store.failure(config(0).hash)
    assert "Traceback" in kept
    assert len(kept) < 25_000


def test_exceptions_of_futures_that_are_no_errors_do_not_end_the_sweep(tmp_path: Path) -> None:
    class Leaving(Serial):
        def submit(self, function, job):
            future = super().submit(lambda job: None, job)
            future._exception = SystemExit(1)
            return future

    report = run_sweep(tmp_path, experiment(config(0), config(1)), pool=Leaving())
    assert set(report.failed.values()) == {"SystemExit: 1"}


def test_a_worker_with_other_code_gets_no_runs_and_is_named_once(tmp_path: Path, capsys) -> None:
    class Mixed(Serial):
        excluded: list[str] = []  # noqa: RUF012
        others = True

        def submit(self, function, job):
            if not self.excluded:
                return super().submit(lambda job: worker.Outcome("foreign", "other code", worker="tcp://bad:1"), job)
            return super().submit(function, job)

        def exclude(self, name):
            self.excluded = [name]
            return self.others

    report = run_sweep(tmp_path / "a", experiment(config(0), config(1)), pool=Mixed())
    assert report.failed == {}
    assert len(report.done) == 2
    assert capsys.readouterr().err.count("tcp://bad:1") == 1
    none_left = Mixed()
    none_left.others = False
    with pytest.raises(executors.PoolLost, match=r"no worker has the driver's code \(tcp://bad:1: other code\)"):
        run_sweep(tmp_path / "b", experiment(config(0)), pool=none_left)


def test_a_held_run_is_told_once_with_its_holder(tmp_path: Path) -> None:
    plan = sweep.make_plan([experiment(config())], tmp_path, run_function=RUN)
    job = plan.job(config().hash)
    assert worker.execute(job).state == "done"
    with Store(tmp_path / "store").lock(config().hash):
        assert worker.execute(job).message == locks.this_process()
        assert str(os.getpid()) in locks.this_process()


@pytest.mark.skipif(not hasattr(signal, "SIGSTOP"), reason="needs POSIX signals")
def test_a_stopped_worker_can_be_killed() -> None:
    pool = executors.LocalPool(1)
    process = pool.submit(os.getpid).result(timeout=30)
    pool.submit(time.sleep, 60)
    os.kill(process, signal.SIGSTOP)
    pool.kill()  # returns
    assert not psutil.pid_exists(process)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads signal masks from /proc")
def test_a_hang_up_does_not_reach_what_stands_beside_the_workers() -> None:
    program = (
        "import os\n"
        "from multiprocessing import resource_tracker\n"
        "from maxrl_bench.sweeps.executors import LocalPool\n"
        "if __name__ == '__main__':\n"
        "    LocalPool(1).kill()\n"
        "    status = open(f'/proc/{resource_tracker._resource_tracker._pid}/status').read()\n"
        "    print(status.partition('SigBlk:')[2].split()[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert int(done.stdout, 16) & 1 << (signal.SIGHUP - 1)


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="needs POSIX signals")
def test_a_hang_up_is_ctrl_c_unless_it_is_ignored() -> None:
    with pytest.raises(KeyboardInterrupt), commands._signals_are_ctrl_c():
        signal.raise_signal(signal.SIGHUP)
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with commands._signals_are_ctrl_c():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_memory_is_shared_by_the_processes_that_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    monkeypatch.setattr(commands, "LocalPool", lambda *arguments: made.append(arguments))
    plan = sweep.make_plan([experiment(config(0), config(1))], tmp_path, run_function=RUN)
    commands._pool(commands.SweepOptions(), plan, 100, more=False)
    commands._pool(commands.SweepOptions(), plan, 2, more=False)
    assert made[0] == made[1]
    assert made[0][0] == 2


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"memory": 1.0, "scheduler": "tcp://a:1"}, "--memory limits local workers"),
        ({"workers": 2, "scheduler": "tcp://a:1"}, "--workers is of local workers"),
        ({"workers": 10**9}, "at most 1024"),
    ],
)
def test_options_that_would_be_ignored_are_refused(options: dict, told: str, tmp_path: Path) -> None:
    (tmp_path / "study.toml").write_text(STUDY)
    with pytest.raises(ValueError, match=told):
        commands.sweep(commands.SweepOptions([str(tmp_path / "study.toml")], results=str(tmp_path / "r"), **options))


def test_the_command_that_reproduces_a_failure_is_quoted(tmp_path: Path) -> None:
    root = tmp_path / "my results; rm *"
    plan = sweep.make_plan([experiment(config())], root, run_function=RUN)
    command = listing.reproduce(plan, config().hash)
    words = shlex.split(command)
    assert words[words.index("--results") + 1] == str(root)
    assert cli.parser().parse_args(words[1:]).config == str(root / "store" / config().hash / "config.json")


@pytest.mark.parametrize("folder", ["my 'results' \"here\"; touch no $(touch no) *", "-r"])
def test_the_command_that_reproduces_a_failure_does(
    folder: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    failing = config(policy={"fail_at": 1})
    run_sweep(folder, experiment(failing))
    command = listing.reproduce(sweep.make_plan([experiment(failing)], folder, run_function=RUN), failing.hash)
    environment = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{Path(__file__).parents[1]}"}
    program = f'maxrl-bench() {{ {shlex.quote(sys.executable)} -c {shlex.quote(BENCH)} "$@"; }}'
    script = f"{program}\n{command}"
    done = subprocess.run(["bash", "-c", script], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.rstrip().endswith("FloatingPointError: the surrogate became nan")
    assert [path.name for path in tmp_path.iterdir()] == [folder]


def test_a_long_wait_for_a_lock_is_told_once_with_its_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(locks, "PATIENCE_SECONDS", 0.1)
    told: list[str] = []
    first, second = Store(tmp_path / "store"), Store(tmp_path / "store", report=told.append)
    entered, leave = threading.Event(), threading.Event()

    def hold() -> None:
        with locks.held(first, "base-1"):
            entered.set()
            leave.wait(20)

    threading.Thread(target=hold).start()
    entered.wait(20)
    threading.Timer(0.5, leave.set).start()
    with locks.held(second, "base-1"):
        assert leave.is_set()
    assert told == [f"waits for 'base-1' in {tmp_path / 'store'}, which {locks.this_process()} is at"]


@pytest.mark.parametrize("option", ["--results", "--plots"])
def test_an_empty_folder_is_not_the_working_directory(option: str, tmp_path: Path, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(["plot", "study", option, ""])
    assert left.value.code == 2
    assert f"argument {option}: names no folder" in capsys.readouterr().err


@pytest.mark.parametrize("option", ["sweep --workers=--", "status --results=--", "card --rollouts=--"])
def test_two_dashes_are_no_value(option: str, capsys) -> None:
    with pytest.raises(SystemExit) as left:
        cli.main(option.split())
    assert left.value.code == 2
    assert capsys.readouterr().err.endswith(f"argument {option.split()[1][:-3]}: '--' is no value\n")


def test_run_shows_its_evaluations(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    settings = {"batch_size": 1, "num_rollouts": 2, "eval_instances": 1, "steps": 2, "eval_every": 1}
    assert commands.run(None, config(**settings).model_dump(), str(tmp_path)) == 0
    told = capsys.readouterr().err.splitlines()
    assert [line.partition(": pass@1 ")[0] for line in told if line.startswith("step ")] == [
        "step 0 of 2",
        "step 1 of 2",
        "step 2 of 2",
    ]

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    with progress.shown_steps(2, terminal) as show:
        show({"step": 0, "pass@1": 0.25})
        show({"step": 2, "pass@1": 0.5})
    assert "2/2" in terminal.getvalue()
    assert "pass@1 0.5" in terminal.getvalue()


@pytest.mark.parametrize("place", ["file", "file/below"])
def test_folders_that_cannot_be_used_are_told_before_any_run(
    place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    (tmp_path / "file").write_text("mine")
    run = ["run", "task=fourrooms", "objective=grpo", "--run-function", RUN]
    for command in (["sweep", "study.toml", "--plots", place, "--run-function", RUN], [*run, "--results", place]):
        assert cli.main(command) == 2
        captured = capsys.readouterr()
        assert captured.out == ""
        assert captured.err.count("\n") == 1
        assert place in captured.err
        assert not list(tmp_path.glob("results/store/*/DONE"))
    assert (tmp_path / "file").read_text() == "mine"


def test_run_ends_with_its_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    assert commands.run(None, config().model_dump(), "results", RUN) == 0
    last = capsys.readouterr().out.splitlines()
    for line, what in zip(last[-3:-1], ("base policy", "after 6 steps"), strict=True):
        assert line.startswith(f"{what}: pass@1 0.")
        assert "mean log p -" in line
    assert last[-1] == f"tables: results/store/{config().hash}/ (metrics.csv, pass_rates.csv)"


def test_looking_creates_no_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study.toml").write_text(STUDY)
    assert cli.main(["status", "study.toml"]) == 0
    assert cli.main(["sweep", "study.toml", "--dry-run"]) == 0
    assert capsys.readouterr().out.count("1 missing") == 2
    assert [path.name for path in tmp_path.iterdir()] == ["study.toml"]


def test_a_run_without_any_success_says_so_at_once(tmp_path: Path, capsys) -> None:
    settings = {"batch_size": 1, "num_rollouts": 1, "eval_instances": 1, "steps": 4, "eval_every": 1}
    never = config(**settings, task="maze-17")
    assert commands.run(None, never.model_dump(), str(tmp_path)) == 0
    told = capsys.readouterr().err
    assert told.count("none of 1 rollouts has succeeded in 1 steps") == 1
