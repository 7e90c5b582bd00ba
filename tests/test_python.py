"""maxrl_bench from Python: run, load, compare, plot, as a user's script, notebook or prompt calls them."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
from documents import blocks
from matplotlib.figure import Figure
from nbclient import NotebookClient

import maxrl_bench
from maxrl_bench import plugins
from maxrl_bench.objectives.binomials import pass_at_k

ROOT = Path(__file__).parents[1]
TINY: dict[str, Any] = {
    "num_rollouts": 8,
    "batch_size": 2,
    "eval_instances": 8,
    "warm_start_steps": 2,
    "warm_start_batch_size": 2,
}
WITHOUT_TIME = ["seconds"]


HALVED = next(block.text for block in blocks("docs/python.md") if block.file == "halved.py")


def tiny(results: Path, **asked: Any) -> Any:
    return maxrl_bench.run(
        **{"task": "empty-8", "objective": "rloo", "steps": 2, "seeds": 1, "progress": False, **TINY, **asked},
        results=results / "results",
    )


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Two objectives on two tasks with three seeds."""
    return tiny(tmp_path_factory.mktemp("two"), task=["empty-8", "digits-2"], objective=["maxrl_alg1", "grpo"], seeds=3)


def test_a_call_makes_the_grid_and_is_not_done_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: dict[str, Any] = {"objective": ["rloo", {"name": "maxrl_order", "order": np.int64(2)}], "seeds": (3, 5)}
    tables = tiny(tmp_path, **asked, progress=True)
    err = capsys.readouterr().err
    assert [line.split()[0] for line in err.splitlines() if line.startswith("[")] == [f"[{i}/4]" for i in range(1, 5)]
    assert set(zip(tables.metrics["objective_name"], tables.metrics["seed"], strict=True)) == {
        (name, seed) for name in ("rloo", "maxrl_order") for seed in (3, 5)
    }
    (folder,) = [path for path in (tmp_path / "results").iterdir() if path.name != "store"]
    assert re.fullmatch("empty-8-2-objectives-[0-9a-f]{6}", folder.name)
    monkeypatch.setattr("maxrl_bench.training.loop.train", None)  # nothing is trained any more
    again = tiny(tmp_path, **asked)
    pd.testing.assert_frame_equal(again.metrics, tables.metrics)
    loaded = maxrl_bench.load(folder)
    pd.testing.assert_frame_equal(loaded.metrics, tables.metrics)
    assert maxrl_bench.load(loaded) is loaded


def test_more_seeds_and_names_share_the_store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tiny(tmp_path, name="mine")
    stored = sorted(path.name for path in (tmp_path / "results" / "store").iterdir())
    monkeypatch.setattr("maxrl_bench.training.loop.train", None)
    tiny(tmp_path)
    assert sorted(path.name for path in (tmp_path / "results" / "store").iterdir()) == stored
    assert {"mine", "store"} < {path.name for path in (tmp_path / "results").iterdir()}


def test_a_script_without_a_main_guard_may_have_workers(tmp_path: Path, outside: Path) -> None:
    lines = [
        "import os, sys, maxrl_bench",
        "def process(): return sys.path, {key: os.environ.get(key) for key in ('OMP_NUM_THREADS', 'PYTHONSAFEPATH')}",
        "before = process()",
        "maxrl_bench.plug_in(objectives={'halved': 'halved:HALVED'})",
        f"tables = maxrl_bench.run('empty-8', 'halved', steps=2, seeds=2, workers=2, name='mine', **{TINY!r})",
        "print(len(tables.metrics), process() == before)",
    ]
    (tmp_path / "script.py").write_text("\n".join(lines))
    for folder in (tmp_path, outside):
        (folder / "halved.py").write_text(HALVED)
    done = subprocess.run([sys.executable, "script.py"], cwd=tmp_path, capture_output=True, text=True)
    assert done.stdout == "4 True\n", done.stderr
    assert "2/2" in done.stderr
    maxrl_bench.plug_in(objectives={"halved": "halved:HALVED"})
    there, here = maxrl_bench.load("mine", tmp_path / "results"), tiny(tmp_path / "here", objective="halved", seeds=2)
    pd.testing.assert_frame_equal(
        there.metrics.drop(columns=WITHOUT_TIME), here.metrics.drop(columns=WITHOUT_TIME), check_exact=True
    )


def test_a_failed_run_costs_only_itself(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match=r"1 of 2 runs failed, the first \(.*lr=1e\+30.*became nan.*load\('some'\)"):
        tiny(tmp_path, learning_rate=[1e-3, 1e30], steps=3, name="some")
    assert len(maxrl_bench.load("some", tmp_path / "results").metrics) == 2


def test_ctrl_c_stops_and_the_same_call_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from maxrl_bench.training import loop

    done = []

    def stop(config: Any, store: Any, **keywords: Any) -> None:
        if done:
            raise KeyboardInterrupt
        done.append(config)
        train(config, store, **keywords)

    train = loop.train
    with monkeypatch.context() as patched:
        patched.setattr(loop, "train", stop)
        with pytest.raises(KeyboardInterrupt):
            tiny(tmp_path, seeds=2)
    assert len(tiny(tmp_path, seeds=2).metrics) == 4


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"task": "fourroms"}, r"unknown task 'fourroms'; did you mean 'fourrooms'\?"),
        ({"objective": "grop"}, r"unknown objective 'grop'; did you mean 'grpo'"),
        ({"objective": "maxrl_order"}, "needs the knob 'order'"),
        ({"objective": []}, "key 'objective' is an empty list"),
        ({"step": 3}, r"key 'step' is unknown; did you mean 'steps'"),
        ({"steps": 0}, "key 'steps': input should be greater than 0; got 0"),
        ({"steps": "ten"}, "key 'steps': input should be a valid integer; got 'ten'"),
        ({"learning_rate": float("nan")}, "key 'learning_rate'"),
        ({"seeds": 0}, "seeds must be 1 or more, or a list of seeds, got 0"),
        ({"seeds": [1, 1]}, "asks for a run twice: .* seed=1"),
        ({"seeds": "all"}, "key 'seed': input should be a valid integer; got 'all'"),
        ({"workers": 0}, "workers must be a whole number from 1 to 1024, got 0"),
        ({"name": "../up"}, "folder of results '../up' is not accepted"),
        ({"name": "store"}, "is the run store's"),
        ({"device": "cuda:7"}, "key 'device': 'cuda:7' is not on this machine"),
        ({"objective": "ml", "task": "maze-7"}, "objective 'ml' needs exact pass rates; task 'maze-7' has none"),
    ],
    ids=str,
)
def test_what_cannot_be_is_one_line_and_leaves_nothing(asked: dict[str, Any], message: str, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=message) as told:
        tiny(tmp_path, **asked)
    assert str(told.value).startswith(("maxrl_bench.run: ", "folder of results"))
    assert "\n" not in str(told.value)
    assert not (tmp_path / "results" / "store").exists() or not list((tmp_path / "results" / "store").glob("[0-9a-f]*"))


def test_the_tables_of_an_experiment_are_not_replaced(tmp_path: Path) -> None:
    folder = tmp_path / "results" / "mine"
    folder.mkdir(parents=True)
    (folder / "metrics.csv.xz").write_text("mine\n")
    with pytest.raises(ValueError, match="was not written by maxrl-bench and is not replaced"):
        tiny(tmp_path, name="mine")
    assert (folder / "metrics.csv.xz").read_text() == "mine\n"


def test_compare_has_effect_interval_and_verdict(two: Any) -> None:
    result = maxrl_bench.compare(two, "maxrl_alg1", "grpo", metric="pass@10")
    assert result.interval[0] <= result.effect <= result.interval[1]
    assert list(result.per_task) == ["empty-8", "digits-2"]
    assert repr(result).splitlines()[0].startswith("final pass@10, MaxRL (Alg. 1) minus GRPO: ")
    assert "3 seeds" in repr(result)
    with pytest.raises(dataclasses.FrozenInstanceError):
        result.metric = "pass@1"  # type: ignore[misc]
    # pass@10 is in no column: it is that of the stored pass rates, instance by instance.
    last = two.pass_rates[two.pass_rates["step"] == 2].merge(
        two.metrics[["run", "objective_name", "task"]].drop_duplicates()
    )
    last = last.assign(pass_at_10=pass_at_k(last["pass_rate"].to_numpy(), 0, 10))
    means = last.groupby(["task", "objective_name"])["pass_at_10"].mean().unstack()
    expected = means["maxrl_alg1"] - means["grpo"]
    for task, one in result.per_task.items():
        assert one.effect == pytest.approx(expected[task], abs=1e-12)
    assert result.effect == pytest.approx(expected.mean(), abs=1e-12)
    opposite = maxrl_bench.compare(two, "grpo", "maxrl_alg1", metric="pass@10", tasks="digits-2")
    assert opposite.effect == pytest.approx(-expected["digits-2"], abs=1e-12)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"ours": "maxrl_alg2"}, "no run has objective 'maxrl_alg2'; did you mean 'maxrl_alg1'"),
        ({"ours": "grpo"}, "compares a side with itself"),
        ({"metric": "entropi"}, "the tables have no column 'entropi'; did you mean 'entropy'"),
        ({"metric": "pass@x"}, "pass@k needs a whole number k"),
        ({"metric": ["pass@1"]}, "must be one metric"),
        (
            {"metric": "pass@10", "when": "best"},
            "has? ?.*pass@10 at the end of training only; along it, pass@1, pass@2",
        ),
        ({"when": "last"}, "key 'when'"),
        ({"tasks": ["maze-9"]}, "no run is on 'maze-9'"),
        ({"where": {"num_rollouts": 64}}, "no run has num_rollouts = 64; the runs have 8"),
        ({"where": 3}, "key 'where'"),
        ({"margin": -0.1}, "compare: margin must be above 0"),
    ],
    ids=str,
)
def test_compare_says_what_there_is(two: Any, asked: dict[str, Any], message: str) -> None:
    asked = {"ours": "maxrl_alg1", "theirs": "grpo", **asked}
    with pytest.raises(ValueError, match=message) as told:
        maxrl_bench.compare(two, asked.pop("ours"), asked.pop("theirs"), **asked)
    assert "\n" not in str(told.value)


def test_pass_at_more_than_was_sampled_is_refused() -> None:
    tables = maxrl_bench.load(ROOT / "results" / "objectives-reference")
    maze = {"tasks": ["maze-9"], "metric": "pass@5000"}
    with pytest.raises(ValueError, match="no values of pass@5000 on maze-9"):
        maxrl_bench.compare(tables, "maxrl_alg1", "grpo", **maze)  # type: ignore[arg-type]


def test_plots_are_figures_and_pyplot_is_not_touched(two: Any, tmp_path: Path) -> None:
    for draw in (maxrl_bench.plot.pareto, maxrl_bench.plot.coverage, maxrl_bench.plot.training):
        figure = draw(two)
        assert isinstance(figure, Figure)
    assert figure._repr_png_().startswith(b"\x89PNG")  # type: ignore[attr-defined]
    figure.savefig(tmp_path / "figure.pdf")
    with pytest.raises(ValueError, match=r"no figure 'parreto'; did you mean 'pareto'"):
        maxrl_bench.plot.draw(two, "parreto")
    code = (
        "import sys, maxrl_bench; light = {'torch', 'pandas', 'matplotlib'} & sys.modules.keys();"
        "maxrl_bench.plot.pareto(maxrl_bench.load('results/objectives-reference'));"
        "print(light, 'matplotlib.pyplot' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout == "set() False False\n"


def test_the_notebook_runs(tmp_path: Path) -> None:
    notebook = nbformat.read(ROOT / "examples" / "own_task.ipynb", as_version=4)
    nbformat.validate(notebook)
    assert not [cell for cell in notebook.cells if cell.cell_type == "code" and cell.outputs]  # as it is committed
    for cell in notebook.cells:
        for key, few in {"steps": 2, "warm_start_steps": 2, "eval_every": 1, "seeds": 1, "eval_instances": 4}.items():
            cell.source = re.sub(rf"\b{key}=\d+", f"{key}={few}", cell.source)
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(tmp_path)}}).execute()
    outputs = [output for cell in notebook.cells if cell.cell_type == "code" for output in cell.outputs]
    shown = [output.data for output in outputs if output.output_type == "execute_result"]
    assert [data for data in shown if "MaxRL (Alg. 1) minus GRPO" in data["text/plain"]]
    assert len([data for data in shown if "image/png" in data]) == 2
    assert (tmp_path / "results" / "store").is_dir()


def test_an_own_module_that_changes_is_refused(tmp_path: Path, outside: Path) -> None:
    (outside / "mine.py").write_text(HALVED)
    for _ in range(2):  # as a cell that is run again
        maxrl_bench.plug_in(objectives={"mine": "mine:HALVED"})
    before = tiny(tmp_path, objective="mine").provenance["runs"]
    (outside / "mine.py").write_text(HALVED.replace("0.5", "0.25"))
    with pytest.raises(ValueError, match=r"mine\.py has changed since.*restart Python"):
        tiny(tmp_path, objective="mine", steps=3)
    with pytest.raises(ValueError, match=r"'mine' is there already, and .*has changed since"):
        maxrl_bench.plug_in(objectives={"mine": "mine:HALVED"})
    # As another process sees it: other code, so that the stored run does not count.
    lines = [
        "import maxrl_bench",
        "from maxrl_bench.storage.provenance import code_fingerprint",
        "maxrl_bench.plug_in(objectives={'mine': 'mine:HALVED'})",
        "print(code_fingerprint('empty-8', 'mine', 'maxrl_bench.training.loop:train'))",
    ]
    command = [sys.executable, "-c", "\n".join(lines)]
    done = subprocess.run(command, cwd=outside, capture_output=True, text=True, check=True)
    ((code,),) = [{run["code"] for run in before.values()}]
    assert done.stdout.strip().partition("-")[0] == code.partition("-")[0]
    assert done.stdout.strip() != code


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"tasks": {"fourrooms": "mine:Task"}}, "'fourrooms': this name is built in"),
        ({"objectives": {"grpo": "mine:HALVED"}}, "'grpo': this name is built in"),
        ({"objectives": {"a b": "mine:HALVED"}}, "a name has at most 100 characters"),
        ({"tasks": {"mine": "mine"}}, 'must be given as "module:attribute"'),
        ({"tasks": {"mine": 3}}, 'must be given as "module:attribute"'),
        ({"tasks": {"mine": "__main__:Task"}}, "must be a Python file.*%%writefile"),
        ({"tasks": {"mine": "nowhere:Task"}}, "must be a Python file"),
        ({"tasks": {"mine": "math:sin"}}, "must be a Python file"),
        ({"tasks": {"mine": "mine:Task"}}, "AttributeError: module 'mine' has no attribute 'Task'"),
        ({"tasks": {"mine": "broken:Task"}}, "cannot be loaded: ZeroDivisionError"),
        ({"objectives": {"mine": "mine:Formula"}}, "is no objective: it must be a Formula, got type"),
    ],
    ids=str,
)
def test_what_cannot_be_plugged_in_is_one_line(asked: dict[str, Any], message: str, outside: Path) -> None:
    (outside / "mine.py").write_text(HALVED)
    (outside / "broken.py").write_text("1 / 0")
    with pytest.raises(ValueError, match=message) as told:
        maxrl_bench.plug_in(**asked)
    assert "\n" not in str(told.value)
    assert not plugins._added


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    lines = [
        "import maxrl_bench",
        "from matplotlib.figure import Figure",
        'tables = maxrl_bench.run(task="fourrooms", objective=["grpo", {"name": "maxrl_order", "order": 2}], seeds=2)',
        'rate: float = maxrl_bench.compare(tables, "maxrl_order", "grpo", metric="pass@10").effect',
        "figure: Figure = maxrl_bench.plot.pareto(tables)",
        'columns = list(maxrl_bench.load("objectives").metrics)',
        'maxrl_bench.run(task="fourrooms", objective="grpo", learnin_rate=1e-3)',
        'maxrl_bench.run(task="fourrooms", objective="grpo", num_rollouts="many")',
    ]
    script = tmp_path / "script.py"
    script.write_text("\n".join(lines))
    # In the checkout, for its configuration and its cache.
    done = subprocess.run([sys.executable, "-m", "mypy", str(script)], cwd=ROOT, capture_output=True, text=True)
    errors = [line for line in done.stdout.splitlines() if ": error: " in line]
    assert [int(line.split(":")[1]) for line in errors] == [7, 8], done.stdout
