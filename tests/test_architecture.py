"""The house: which wing may import which, read off the sources. docs/architecture.md says it in words."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import shutil
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
# An import goes up this list or stays in its line. Single modules of the package's root are named; the rest are wings.
ORDER = (
    ("names", "inputs", "import_path", "console", "plugins"),  # text, files and processes; know nothing of what we do
    ("objectives",),
    ("integrations",),
    ("tasks", "config", "own"),
    ("rollouts",),
    ("testing",),
    ("storage",),
    ("training",),
    ("sweeps",),
    ("analysis",),
    ("advice",),
    ("report",),
    ("plot",),
    ("bench",),
    ("cli",),
)
RANK = {name: rank for rank, line in enumerate(ORDER) for name in line}
WINGS = ("objectives", "rollouts", "testing", "storage", "training", "sweeps", "analysis", "advice", "report", "bench")
WINGS += ("cli", "integrations")
# What reads tables must run where torch is not installed, and must not be able to train anything.
WITHOUT_TORCH = ("objectives", "storage", "analysis", "advice", "report", "tasks", "config")
DOORS_OF_TASKS = ("maxrl_bench.tasks", "maxrl_bench.rollouts")
FACE = "maxrl_bench"  # is loaded before any of its modules, and imports some: no ring of theirs
LONGEST = 350
# Longer files, each with its reason.
LONGER: dict[str, str] = {}
GLOBAL_DRAWS = [
    "seed",
    "rand",
    "randn",
    "randint",
    "choice",
    "shuffle",
    "permutation",
    "normal",
    "uniform",
    "manual_seed",
]


class Import(NamedTuple):
    """One imported module or name, as it stands in a file."""

    target: str  # a module; for `from a import b` both "a" and "a.b" are given
    deferred: bool  # inside a function
    line: int


def sources(root: Path, *packages: str) -> list[Path]:
    return sorted(path for package in packages for path in (root / package).rglob("*.py"))


def module_of(path: Path, root: Path) -> str:
    parts = path.relative_to(root).with_suffix("").parts
    parts = ("maxrl_bench", *parts) if parts[0] == "envs" else parts  # to which maxrl_bench/envs is a link
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imports(path: Path) -> tuple[Import, ...]:
    """All imports of a file but typing-only ones."""
    assert not any(isinstance(node, ast.ImportFrom) and node.level for node in nodes(path)), f"{path}: relative import"
    return imported(path.read_text(encoding="utf-8"))


@functools.cache
def imported(source: str) -> tuple[Import, ...]:
    def visit(node: ast.AST, deferred: bool) -> Iterator[Import]:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.Import):
            yield from (Import(alias.name, deferred, node.lineno) for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            yield Import(str(node.module), deferred, node.lineno)
            yield from (Import(f"{node.module}.{alias.name}", deferred, node.lineno) for alias in node.names)
        deferred = deferred or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            yield from visit(child, deferred)

    return tuple(visit(parsed(source), False))


def nodes(path: Path) -> tuple[ast.AST, ...]:
    return walked(path.read_text(encoding="utf-8"))


def tree(path: Path) -> ast.Module:
    return parsed(path.read_text(encoding="utf-8"))


parsed = functools.cache(ast.parse)


@functools.cache
def walked(source: str) -> tuple[ast.AST, ...]:
    return tuple(ast.walk(parsed(source)))


@functools.cache
def private_uses(source: str) -> tuple[tuple[str, str], ...]:
    """Of every `name._attribute` with a plain name: the name, and the whole."""
    uses = (
        re.fullmatch(r"(\w+)\._[^_]\w*", ast.unparse(node))
        for node in walked(source)
        if isinstance(node, ast.Attribute)
    )
    return tuple((use[1], use[0]) for use in uses if use)


def modules(root: Path) -> dict[str, Path]:
    return {module_of(path, root): path for path in sources(root, "maxrl_bench", "envs")}


def part(module: str) -> str:
    """The wing of a module of the library, or its own name where it is in none; "" for the package itself."""
    return [*module.split("."), ""][1]


def upward(root: Path) -> list[str]:
    """Imports against the order, and modules that have no place in it."""
    known = modules(root)
    wrong = []
    for module, path in known.items():
        own = part(module)
        if not module.startswith("maxrl_bench.") or own in ("__main__", "envs"):
            continue  # the tasks have a rule of their own; the package itself and __main__ are faces
        if own not in RANK:
            wrong.append(f"{module} is in no line of the order")
            continue
        for target, _, line in imports(path):
            there = part(target)
            if target.startswith("maxrl_bench.") and RANK.get(there, -1) > RANK[own]:
                wrong.append(f"{module}:{line} imports {target}")
    return wrong


def private(root: Path) -> list[str]:
    """Imports and uses of another module's private names."""
    wrong, known = [], modules(root)
    for module, path in known.items():
        ours = {target for target, _, _ in imports(path) if target.split(".")[0] == "maxrl_bench"}
        wrong += [f"{module} imports {target}" for target in ours if re.match("_[^_]", target.split(".")[-1])]
        names = {target.split(".")[-1] for target in ours if target in known}
        uses = private_uses(path.read_text(encoding="utf-8"))
        wrong += [f"{module} uses {use}" for name, use in uses if name in names]
    return wrong


def past_the_face(root: Path) -> list[str]:
    """Imports from another wing of a module that its face does not name."""
    faces = {wing: face(root, wing) for wing in WINGS}
    wrong = []
    for module, path in modules(root).items():
        for target, _, line in imports(path):
            _, wing, *inner = [*target.split("."), ""]
            elsewhere = target.startswith("maxrl_bench.") and wing in faces and wing != part(module)
            if elsewhere and inner[0] and inner[0] not in faces[wing]:
                wrong.append(f"{module}:{line} imports {target}")
    return wrong


def face(root: Path, wing: str) -> list[str]:
    """The modules that a wing's `__init__` names, which holds nothing else but words."""
    text, *rest = tree(root / "maxrl_bench" / wing / "__init__.py").body
    assert isinstance(text, ast.Expr)
    (names,) = rest
    assert isinstance(names, ast.Assign)
    assert ast.unparse(names.targets[0]) == "__all__"
    return list(ast.literal_eval(names.value))


def cycles(root: Path) -> list[str]:
    """A ring of imports on loading, if there is one; `from package import module` is an import of the module."""
    known = modules(root)
    graph = {
        module: {target for target, deferred, _ in imports(path) if target in known and not deferred} - {module, FACE}
        for module, path in known.items()
    }
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return [" <- ".join(error.args[1])]
    return []


def torch_where_it_is_not_to_be(root: Path) -> list[str]:
    """Modules of torch-free wings that load torch, through other modules as well."""
    known = modules(root)
    wrong = []
    for module in known:
        if part(module) not in WITHOUT_TORCH or not module.startswith("maxrl_bench."):
            continue
        seen, waiting = {module}, [module]
        while waiting:
            loaded = {target for target, deferred, _ in imports(known[waiting.pop()]) if not deferred}
            wrong += [f"{module} loads {target}" for target in loaded if target.split(".")[0] == "torch"]
            new = {target for target in loaded if target in known} - seen
            seen |= new
            waiting += new
    return wrong


def tasks_past_the_door(root: Path) -> list[str]:
    """Imports of tasks from elsewhere than their doors, and of tasks by the library."""
    wrong = []
    for path in sources(root, "envs"):
        ours = (target for target, _, _ in imports(path) if target.startswith("maxrl_bench."))
        wrong += [f"{path.name} imports {t}" for t in ours if not t.startswith((*DOORS_OF_TASKS, "maxrl_bench.envs"))]
    for path in sources(root, "maxrl_bench"):
        wrong += [f"{path.name} imports {t}" for t, _, _ in imports(path) if t.startswith("maxrl_bench.envs")]
    return wrong


def too_long(root: Path) -> list[str]:
    lengths = {
        path.relative_to(root).as_posix(): len(path.read_text(encoding="utf-8").splitlines())
        for path in sources(root, "maxrl_bench", "envs", "examples")
    }
    return [f"{name}: {lines} lines" for name, lines in lengths.items() if lines > LONGEST and name not in LONGER]


RULES = (upward, private, past_the_face, cycles, torch_where_it_is_not_to_be, tasks_past_the_door, too_long)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_the_house_stands(rule) -> None:
    assert rule(ROOT) == []


@pytest.mark.parametrize(
    ("rule", "file", "planted"),
    [
        (upward, "training/streams.py", "from maxrl_bench.sweeps import driver"),
        (upward, "storage/store.py", "def f():\n    from maxrl_bench.sweeps.experiment import Experiment"),
        (upward, "config.py", "import maxrl_bench.rollouts.counts"),
        (upward, "objectives/rewards.py", "from maxrl_bench import tasks"),
        (upward, "new_room.py", ""),
        (private, "analysis/stats.py", "from maxrl_bench.objectives.table import _anything"),
        (private, "report/folder.py", "x = inputs._anything"),
        (past_the_face, "cli/main.py", "from maxrl_bench.rollouts import hidden"),
        (
            cycles,
            "rollouts/finite.py",
            "from maxrl_bench.rollouts import tokens\nfrom maxrl_bench.rollouts import graphs",
        ),
        (torch_where_it_is_not_to_be, "analysis/stats.py", "import torch.nn"),
        (torch_where_it_is_not_to_be, "inputs.py", "from maxrl_bench.rollouts import transformer"),
        (tasks_past_the_door, "rollouts/counts.py", "def f():\n    import maxrl_bench.envs.maze"),
        (tasks_past_the_door, "../envs/maze.py", "from maxrl_bench.storage.store import Store"),
        (too_long, "cli/watch.py", "\n" * LONGEST + "x = 1"),
    ],
)
def test_the_rules_see_what_breaks_them(rule, file: str, planted: str, tmp_path: Path) -> None:
    for package in ("maxrl_bench", "envs"):
        shutil.copytree(ROOT / package, tmp_path / package, symlinks=True, ignore=shutil.ignore_patterns("__pycache__"))
    path = tmp_path / "maxrl_bench" / file
    before = path.read_text(encoding="utf-8") if path.exists() else ""
    path.write_text(f"{before}\n{planted}\n", encoding="utf-8")
    assert rule(tmp_path)


@pytest.mark.parametrize("wing", WINGS)
def test_faces_name_what_is_there_and_say_what_for(wing: str) -> None:
    folder = ROOT / "maxrl_bench" / wing
    names = face(ROOT, wing)
    assert names == sorted(set(names))
    assert all((folder / f"{name}.py").exists() for name in names)
    assert {path.name for path in (ROOT / "maxrl_bench").iterdir() if (path / "__init__.py").exists()} == {
        *WINGS,
        "envs",
    }
    text = ast.get_docstring(tree(folder / "__init__.py")) or ""
    assert "Comes in:" in text
    assert "Goes out:" in text


def test_the_page_on_the_architecture_names_what_there_is() -> None:
    page = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    for name in re.findall(r"`(maxrl_bench\.[\w.]+)`", page):
        module, _, attribute = name.rpartition(".")
        assert hasattr(importlib.import_module(module), attribute) or importlib.util.find_spec(name), name
    for name in re.findall(r"`((?:maxrl_bench|experiments|envs|tests)/[\w./]*)`", page):
        assert (ROOT / name).exists(), name
    assert all(f"`{name}" in page for line in ORDER for name in line)


def test_tests_mirror_the_wings() -> None:
    folders = {path.name for path in (ROOT / "tests").iterdir() if path.is_dir() and any(path.glob("test_*.py"))}
    assert folders == {*WINGS, "envs"}


@pytest.mark.parametrize("path", sources(ROOT, "maxrl_bench", "envs"), ids=lambda p: module_of(p, ROOT))
def test_no_global_randomness(path: Path) -> None:
    calls = [ast.unparse(node.func) for node in nodes(path) if isinstance(node, ast.Call)]
    drawn = [call for call in calls if call.startswith(("np.random.", "numpy.random.", "random."))]
    assert not [call for call in drawn if call.split(".")[-1] in GLOBAL_DRAWS]
    assert "torch.manual_seed" not in calls
