"""An objective of another package in a sweep: found by workers of their own processes, to the same bits as ours."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from outside_package import OBJECTIVES, forget, install
from sweep_cases import RUN, config, experiment, run_sweep, tables_without_seconds

from maxrl_bench.cli.main import main
from maxrl_bench.storage.store import Store
from maxrl_bench.sweeps.driver import make_plan
from maxrl_bench.sweeps.executors import DaskPool, LocalPool
from maxrl_bench.sweeps.worker import execute
from maxrl_bench.training.loop import train


@pytest.fixture
def theirs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    points = {"maxrl_bench.objectives": {"centred": "their_sweeps:centred"}}
    folder = install(tmp_path / "site", {"their_sweeps.py": OBJECTIVES}, points)
    monkeypatch.syspath_prepend(str(folder))
    forget()
    yield
    forget()


@pytest.mark.usefixtures("theirs")
def test_the_same_weights_train_to_the_same_bits(tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    tiny = {"task": "empty-8", "steps": 3, "eval_every": 3, "eval_instances": 4, "batch_size": 2}
    runs = [config(**tiny, objective=o) for o in ({"name": "centred", "share": 1}, "mean_baseline")]
    for run in runs:
        train(run, store)
    theirs, ours = (store.tables(run.hash)[0].drop(columns="seconds") for run in runs)
    assert theirs.equals(ours)


@pytest.mark.usefixtures("theirs")
@pytest.mark.parametrize("scheduler", ["processes", "dask"])
def test_workers_find_it(tmp_path: Path, scheduler: str) -> None:
    if scheduler == "dask":
        pytest.importorskip("distributed")
    runs = [config(objective="centred"), config(objective={"name": "centred", "share": 0.25}), config()]
    pool = LocalPool(1) if scheduler == "processes" else DaskPool("local", 1)
    try:
        report = run_sweep(tmp_path / "results", experiment(*runs), pool=pool)
    finally:
        pool.shutdown()
    assert not report.failed
    assert len(tables_without_seconds(tmp_path / "results", tuple(runs))) == 3


@pytest.mark.usefixtures("theirs")
def test_a_worker_that_lacks_it_gets_no_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = config(objective="centred")
    job = make_plan([experiment(run)], tmp_path / "results", run_function=RUN).job(run.hash)
    monkeypatch.setattr("importlib.metadata.entry_points", lambda **_: [])
    forget()
    outcome = execute(job)
    assert outcome.state == "foreign"
    assert "this worker cannot read the run: key 'objective': unknown objective 'centred'" in outcome.message


@pytest.mark.parametrize("key", ["task", "objective", "run_function", "path", "policy"])
@pytest.mark.parametrize("value", ["evil", "evil:row", "./evil.py", "centred"])
def test_an_experiment_file_runs_no_code_that_lies_beside_it(
    key: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It may name what installed packages offer; modules and packages beside it are none of these."""
    ran = f"open({str(tmp_path / 'ran')!r}, 'w')\n"
    files = {"evil.py": ran, "envs/__init__.py": ran, "maxrl_bench/__init__.py": ran}
    install(
        tmp_path, files, {"maxrl_bench.objectives": {"centred": "evil:row"}, "maxrl_bench.tasks": {"evil": "evil:T"}}
    )
    settings = {"task": "empty-8", "objective": "grpo", key: value}
    lines = [f'{name} = "{text}"' for name, text in settings.items()]
    for question in ("question = 'Which?'\n[defaults]\n", "question = 'Which?'\n[profiles.laptop]\n[[grid]]\n"):
        (tmp_path / "study.toml").write_text(question + "\n".join(lines) + "\n")
        monkeypatch.chdir(tmp_path)
        assert main(["sweep", "study.toml", "--dry-run"]) == 2
        error = capsys.readouterr().err
        assert error.startswith("maxrl-bench: study.toml: ")
        assert error.count("\n") == 1
    assert not (tmp_path / "ran").exists()
