"""The one-way flow of data, read off the imports."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
LIBRARY = sorted((ROOT / "maxrl_bench").rglob("*.py"))
TASKS = sorted((ROOT / "envs").rglob("*.py"))
# What reads tables must run where torch is not installed, and must not be able to train anything.
WITHOUT_TORCH = ("results", "stats", "figures", "claims", "report", "palette", "experiment", "objectives", "population")


def imported(path: Path, *, anywhere: bool) -> set[str]:
    """Modules that a file imports on loading, or (`anywhere`) also inside functions; typing-only ones excepted."""
    found: set[str] = set()

    def visit(node: ast.AST) -> None:
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            return
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda) and not anywhere:
            return
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            found.update(f"{node.module}.{alias.name}" for alias in node.names)
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text()))
    return found


def loaded_with(path: Path) -> set[str]:
    """All modules loaded along with a library file, through other library files as well."""
    seen: set[str] = set()
    waiting = [path]
    while waiting:
        for module in imported(waiting.pop(), anywhere=False) - seen:
            seen.add(module)
            base = ROOT / Path(*module.split("."))
            waiting += [file for file in (base.with_suffix(".py"), base / "__init__.py") if file.exists()]
    return seen


@pytest.mark.parametrize("path", LIBRARY, ids=lambda p: p.stem)
def test_library_never_imports_the_tasks(path: Path) -> None:
    assert not [m for m in imported(path, anywhere=True) if m.split(".")[0] == "envs"]


@pytest.mark.parametrize("path", [p for p in LIBRARY if p.stem.split("_")[0] in WITHOUT_TORCH], ids=lambda p: p.stem)
def test_what_reads_tables_never_loads_torch(path: Path) -> None:
    assert "torch" not in {module.split(".")[0] for module in loaded_with(path)}


@pytest.mark.parametrize("path", TASKS, ids=lambda p: p.stem)
def test_tasks_use_only_the_seam(path: Path) -> None:
    later = {"train", "sweep", "results", "experiment", "figures", "report", "stats", "objectives", "cli"}
    used = {m.split(".")[1] for m in imported(path, anywhere=True) if m.startswith("maxrl_bench.")}
    assert not used & later


@pytest.mark.parametrize("path", LIBRARY + TASKS, ids=lambda p: p.stem)
def test_no_global_randomness(path: Path) -> None:
    forbidden = {
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
    }
    calls = [ast.unparse(n.func) for n in ast.walk(ast.parse(path.read_text())) if isinstance(n, ast.Call)]
    assert not [
        c for c in calls if c.startswith(("np.random.", "numpy.random.", "random.")) and c.split(".")[-1] in forbidden
    ]
    assert "torch.manual_seed" not in calls
