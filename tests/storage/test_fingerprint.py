"""The fingerprint of the code: what makes stored runs stale, and what does not, by edits of each kind."""

import dataclasses
import itertools
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from outside_package import OBJECTIVES as WEIGHTS
from outside_package import install

from maxrl_bench import tasks
from maxrl_bench.config import RunConfig
from maxrl_bench.objectives.formula import Formula
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.storage import fingerprint as fingerprint_module
from maxrl_bench.storage import provenance
from maxrl_bench.storage.fingerprint import fingerprint, shared_part
from maxrl_bench.storage.provenance import code_fingerprint
from maxrl_bench.sweeps.driver import make_plan
from maxrl_bench.sweeps.experiment import Experiment
from maxrl_bench.sweeps.worker import execute

HERE = Path(__file__).parents[2]
NUMBERS = itertools.count()
# A plug-in's package: what is reached from mine.run, and how.
PACKAGE = {
    "mine/__init__.py": "RATE = 1\n",
    "mine/run.py": (
        "import importlib\nimport mine.plain\nimport own_file\nimport json, installed\n"
        "from .helper import SCALE\nfrom . import sibling\nfrom .inner import deep\n"
        "named = importlib.import_module('mine.named')\nrelative = importlib.import_module('.relative', __package__)\n"
    ),
    "mine/plain.py": "X = 1\n",
    "mine/helper.py": "SCALE = 1\n",
    "mine/sibling.py": "X = 1\n",
    "mine/named.py": "X = 1\n",
    "mine/relative.py": "X = 1\n",
    "mine/inner/__init__.py": "from ..above import Y\n",
    "mine/inner/deep.py": "X = 1\n",
    "mine/above.py": "Y = 1\n",
    "mine/space/module.py": "X = 1\n",  # a namespace package
    "mine/unused.py": "X = 1\n",
    "own_file.py": "from mine.space import module\n",
    "installed.py": "X = 1\n",
    "json.py": "X = 1\n",
}


@pytest.fixture
def _one_installed_package(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(fingerprint_module, "_distributions", lambda: {"installed": ["installed"]})
    fingerprint_module._is_own.cache_clear()
    yield
    fingerprint_module._is_own.cache_clear()


def of(tmp_path: Path, files: dict[str, str], *roots: str) -> str:
    folder = tmp_path / str(next(NUMBERS))
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return fingerprint(roots, "", "", [str(folder)])


@pytest.mark.usefixtures("_one_installed_package")
def test_every_module_that_is_imported_counts_and_no_other(tmp_path: Path) -> None:
    counted = {name for name in PACKAGE if name not in ("mine/unused.py", "installed.py", "json.py")}
    before = of(tmp_path, PACKAGE, "mine.run")
    assert of(tmp_path, PACKAGE, "mine.run") == before
    for name in PACKAGE:
        after = of(tmp_path, {**PACKAGE, name: PACKAGE[name] + "ADDED = 1\n"}, "mine.run")
        assert (after != before) == (name in counted), name


@pytest.mark.usefixtures("_one_installed_package")
def test_where_a_name_is_put_together_at_run_time_the_whole_package_counts(tmp_path: Path) -> None:
    dynamic = {**PACKAGE, "mine/named.py": "import importlib\nimportlib.import_module('mine.' + input())\n"}
    before = of(tmp_path, dynamic, "mine.run")
    for name in ("mine/unused.py", "mine/space/module.py", "mine/inner/deep.py"):
        assert of(tmp_path, {**dynamic, name: "X = 2\n"}, "mine.run") != before
    assert of(tmp_path, {**dynamic, "installed.py": "X = 2\n"}, "mine.run") == before


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ('"""Doc."""\n\n\ndef f(x):\n    """Doc."""\n    return x * 1.5  # why\n', True),
        ("def f( x ):\n\n    return (x*1.50)\n", True),
        ("def f(x):\n    return x * 1.25\n", False),
        ("def f(x):\n    return x * 1.5\n\n\nf = abs\n", False),
        ("def f(x=None):\n    return x * 1.5\n", False),
        ("def f(x):\n    x * 1.5\n", False),
    ],
)
def test_comments_docstrings_and_layout_do_not_count(tmp_path: Path, text: str, same: bool) -> None:
    before = of(tmp_path, {"mine.py": "def f(x):\n    return x * 1.5\n"}, "mine")
    assert (of(tmp_path, {"mine.py": text}, "mine") == before) == same


def test_nothing_is_run_and_what_cannot_be_read_counts_as_it_is(tmp_path: Path) -> None:
    broken = {"mine/__init__.py": "raise SystemExit\n", "mine/run.py": "def (\n"}
    first = of(tmp_path, broken, "mine.run")
    assert of(tmp_path, {**broken, "mine/run.py": "def ((\n"}, "mine.run") != first
    assert of(tmp_path, {}, "nowhere.run") == of(tmp_path, {}, "nowhere.run")


def edited(tmp_path: Path, objective: str, *edits: tuple[str, str, str], version: str = "") -> str:
    """The fingerprint of training when files of this library have been edited: (file, text, its replacement)."""
    folder = tmp_path / str(next(NUMBERS))
    shutil.copytree(HERE / "maxrl_bench", folder / "maxrl_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name, old, new in edits:
        text = (folder / name).read_text()
        assert old in text, (name, old)
        (folder / name).write_text(text.replace(old, new, 1))
    roots = ["maxrl_bench.envs.navigation", "maxrl_bench.training.loop"]
    if not version:
        return fingerprint(roots, objective, "", [str(folder)])
    code = f"import fingerprint; print(fingerprint.fingerprint({roots}, {objective!r}, '', [{str(folder)!r}]))"
    command = [version, "-S", "-c", code]
    done = subprocess.run(command, cwd=folder / "maxrl_bench" / "storage", capture_output=True, text=True, check=True)
    return done.stdout.strip()


TABLE = "maxrl_bench/objectives/table.py"
ROW = '    "reinforce": Formula('
NEW_ROW = (
    '    "mine": Formula(label="Mine", paper="", formula="", edges="", on_success=_mine, on_failure=None),\n' + ROW
)
NEW_HELPER = "import colorsys\n\n\ndef _mine(K, N):\n    return colorsys.ONE_THIRD * K\n\n\nOBJECTIVES:"


@pytest.mark.parametrize(
    ("objective", "edits", "stale"),
    [
        ("grpo", [(TABLE, 'label="GRPO"', 'label="Group"')], False),
        ("grpo", [(TABLE, 'label="RLOO"', 'label="Leave one out"')], False),
        ("grpo", [(TABLE, '"arXiv 2602.02710"', '"a paper"')], False),
        ("grpo", [(TABLE, ROW, NEW_ROW), (TABLE, "OBJECTIVES:", NEW_HELPER)], False),
        ("grpo", [(TABLE, "on_success=lambda K, N: N / K,", "on_success=lambda K, N: 2 * N / K,")], False),
        ("grpo", [(TABLE, "return N / K * hit(N, K, order)", "return N / K")], False),
        ("grpo", [(TABLE, "np.sqrt((N - K) / K * ", "np.cbrt((N - K) / K * ")], True),
        ("grpo", [("maxrl_bench/objectives/formula.py", "np.where(K > 0", "np.where(K > 1")], True),
        ("maxrl_eq9", [(TABLE, "on_success=lambda K, N: N / K,", "on_success=lambda K, N: 2 * N / K,")], True),
        ("maxrl_eq9", [(TABLE, "np.sqrt((N - K) / K * ", "np.cbrt((N - K) / K * ")], False),
        ("maxrl_order", [(TABLE, "return N / K * hit(N, K, order)", "return N / K")], True),
        ("grpo_entropy", [(TABLE, 'entropy_bonus="coefficient"', "entropy_bonus=None")], True),
        ("grpo", [("maxrl_bench/training/loop.py", "CHECKPOINT_SECONDS = 15.0", "CHECKPOINT_SECONDS = 15.5")], True),
        ("grpo", [("maxrl_bench/tasks.py", '"unlock": TaskEntry(', '"opened": TaskEntry(')], False),
        ("grpo", [("maxrl_bench/tasks.py", '"train": 0.6', '"train": 0.5')], True),
        ("grpo", [("maxrl_bench/analysis/stats.py", "from __future__", "import json\nfrom __future__")], False),
        ("grpo", [("maxrl_bench/envs/maze.py", "from __future__", "import json\nfrom __future__")], False),
        ("grpo", [("maxrl_bench/envs/navigation.py", "from __future__", "import json\nfrom __future__")], True),
        ("no such row", [(TABLE, 'label="RLOO"', 'label="Leave one out"')], True),  # where in doubt, all counts
    ],
)
def test_edits_of_this_library(tmp_path: Path, objective: str, edits: list[tuple[str, str, str]], stale: bool) -> None:
    assert (edited(tmp_path, objective, *edits) != edited(tmp_path, objective)) == stale


def test_every_row_counts_by_itself() -> None:
    train = "maxrl_bench.training.loop:train"
    whole_table = code_fingerprint("fourrooms", "no such row", train)
    codes = {name: code_fingerprint("fourrooms", name, train) for name in OBJECTIVES}
    assert whole_table not in codes.values()
    assert codes["grpo"] != codes["grpo_entropy"]
    fields = {field.name for field in dataclasses.fields(Formula)}
    assert fields >= fingerprint_module.CAPTIONS
    assert (
        not {"on_success", "on_failure", "pooled", "remember", "smoothing", "entropy_bonus"}
        & fingerprint_module.CAPTIONS
    )


@pytest.mark.parametrize("version", ["3.12", "3.13"])
def test_other_pythons_agree(tmp_path: Path, version: str) -> None:
    """They need nothing installed: `fingerprint` is read and run alone."""
    pythons = [*Path.home().glob(f".pyenv/versions/{version}.*/bin/python"), shutil.which(f"python{version}")]
    if not pythons[0]:
        pytest.skip(f"there is no Python {version} here")
    # Among them an f-string whose parts Pythons tell apart.
    edits = [
        (
            "maxrl_bench/envs/navigation.py",
            "from __future__",
            "def f(x):\n    return 'a' f'{x=!r:>{x}}' f''\nfrom __future__",
        )
    ]
    assert edited(tmp_path, "grpo", *edits, version=str(pythons[0])) == edited(tmp_path, "grpo", *edits)


def test_what_objectives_share_is_told_apart(tmp_path: Path) -> None:
    grpo, other = (edited(tmp_path, objective) for objective in ("grpo", "maxrl_order"))
    assert shared_part(grpo) == shared_part(other)
    formula = edited(tmp_path, "grpo", ("maxrl_bench/objectives/formula.py", "np.where(K > 0", "np.where(K > 1"))
    assert shared_part(formula) == shared_part(grpo) != formula
    network = edited(
        tmp_path, "grpo", ("maxrl_bench/rollouts/policies.py", "from __future__", "import json\nfrom __future__")
    )
    assert shared_part(network) != shared_part(grpo)


def test_a_task_is_what_its_name_stands_for(monkeypatch: pytest.MonkeyPatch) -> None:
    def code(**rows: tasks.TaskEntry) -> str:
        monkeypatch.setattr(tasks, "TASKS", {**tasks.TASKS, **rows})
        code_fingerprint.cache_clear()
        return code_fingerprint("fourrooms", "grpo", "maxrl_bench.training.loop:train")

    entry = tasks.TASKS["fourrooms"]
    first = code()
    assert code(another=entry) == first
    assert code(fourrooms=dataclasses.replace(entry, family="rooms")) == first
    assert code(fourrooms=dataclasses.replace(entry, options={**entry.options, "horizon": 9})) != first
    monkeypatch.undo()
    code_fingerprint.cache_clear()


def test_a_users_own_run_function_is_fresh_until_it_is_edited(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"mine_{next(NUMBERS)}"
    (tmp_path / f"{name}.py").write_text(
        "import pandas as pd\n\ndef run(config, store):\n"
        "    rates = pd.DataFrame({'step': [0], 'instance': [0], 'pass_rate': [0.5], 'n': [0]})\n"
        "    store.finish(config, [{'step': 0, 'pass@1': 0.5}], rates, {})\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = RunConfig(task="fourrooms", objective="grpo")
    study = Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, (config,))

    def state() -> str:
        return make_plan([study], tmp_path / "results", run_function=f"{name}:run").found[config.hash].state

    plan = make_plan([study], tmp_path / "results", run_function=f"{name}:run")
    assert execute(plan.job(config.hash)).state == "done"
    assert state() == "done"
    (tmp_path / f"{name}.py").write_text((tmp_path / f"{name}.py").read_text().replace("0.5", "0.25"))
    for cache in (code_fingerprint, fingerprint_module._code):  # as in a process of its own
        cache.cache_clear()
    assert state() == "stale"


def test_a_run_function_that_extends_the_import_path_is_of_one_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name = f"mine_{next(NUMBERS)}"
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / f"{name}_helper.py").write_text("RATE = 1\n")
    (tmp_path / f"{name}.py").write_text(
        f"import sys\nsys.path.insert(0, 'lib')\nimport {name}_helper\n\ndef run(config, store):\n    pass\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    config = RunConfig(task="fourrooms", objective="grpo")
    study = Experiment("study", Path("study.toml"), "laptop", "Why?", (), (), 0, (config,))
    codes = []
    for _ in range(2):  # the second with the module imported already
        codes.append(make_plan([study], "results", run_function=f"{name}:run").code(config.hash))
        for cached in (code_fingerprint, fingerprint_module._code, fingerprint_module._spec):
            cached.cache_clear()
    (tmp_path / "lib" / f"{name}_helper.py").write_text("RATE = 2\n")
    assert codes[0] == codes[1] != make_plan([study], "results", run_function=f"{name}:run").code(config.hash)


THEIRS = {
    "theirs/__init__.py": "",
    "theirs/rows.py": "from theirs.helper import weight\nfirst = second = weight\n",
    "theirs/helper.py": "weight = 1\n",
    "theirs/unused.py": "weight = 2\n",
}


def test_an_objective_of_another_package_counts_for_its_own_runs_only(tmp_path: Path) -> None:
    shutil.copytree(HERE / "maxrl_bench", tmp_path / "maxrl_bench", ignore=shutil.ignore_patterns("__pycache__"))
    for name, text in THEIRS.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)

    def code(objective: str, plug_in: str = "") -> str:
        for cached in (fingerprint_module._code, fingerprint_module._spec):  # as in a process of its own
            cached.cache_clear()
        roots = ["maxrl_bench.envs.navigation", "maxrl_bench.training.loop"]
        return fingerprint(roots, objective, "", [str(tmp_path)], plug_in=plug_in)

    ours, first, second = code("grpo"), code("centred", "theirs.rows:first"), code("centred", "theirs.rows:second")
    assert len({ours, first, second}) == 3
    assert shared_part(ours) == shared_part(first) == shared_part(second)
    for name, text in THEIRS.items():
        (tmp_path / name).write_text(f"{text}ADDED = 1\n")
        assert code("grpo") == ours
        assert (code("centred", "theirs.rows:first") == first) == (name == "theirs/unused.py"), name
        (tmp_path / name).write_text(text)
    assert code("centred", "theirs.rows:first") == first
    # A run function that weighs nothing depends on no objective.
    (tmp_path / "mine.py").write_text("def run(config, store): pass\n")
    assert fingerprint(["mine"], "centred", "", [str(tmp_path)], plug_in="theirs.rows:first") == fingerprint(
        ["mine"], "grpo", "", [str(tmp_path)]
    )


def test_installing_an_objective_leaves_the_runs_of_others_valid(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = "maxrl_bench.training.loop:train"

    def codes(*names: str) -> list[str]:
        for cached in (code_fingerprint, provenance._plug_in, fingerprint_module._code, fingerprint_module._spec):
            cached.cache_clear()
        return [code_fingerprint("fourrooms", name, train) for name in names]

    before = codes("grpo", "maxrl_alg1")
    install(tmp_path, {"their_weights.py": WEIGHTS}, {"maxrl_bench.objectives": {"centred": "their_weights:centred"}})
    monkeypatch.syspath_prepend(str(tmp_path))
    *after, first = codes("grpo", "maxrl_alg1", "centred")
    assert after == before
    (tmp_path / "their_weights.py").write_text(WEIGHTS.replace("1 - share", "2 - share"))
    *after, second = codes("grpo", "maxrl_alg1", "centred")
    assert after == before
    assert second != first
    assert "their_weights" not in sys.modules  # read, not run
