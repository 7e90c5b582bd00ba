"""Which code a run's numbers depend on, in a few digits: read from the sources, without importing any of them.

Starting from the modules of the task and of the run function, everything that they import is counted, in their own
distributions and in files that belong to no installed distribution (a user's own). The digits are the same on every
Python: they are of the syntax tree, without comments, docstrings and layout.

Not seen: other installed packages (a result's provenance names the versions of those that matter), data files, compiled
modules, names that are put together at run time (`import_module(f"levels.{name}")` counts the whole package instead).
"""

from __future__ import annotations

import ast
import functools
import hashlib
import importlib.metadata
import importlib.util
import pkgutil
import sys
from collections.abc import Iterable, Iterator, Sequence
from importlib.machinery import ModuleSpec, PathFinder
from typing import NamedTuple

LIBRARY = "maxrl_bench"
# What training imports but what cannot change a number: reading configurations, checking tasks, keeping results.
NOT_COUNTED = {f"{LIBRARY}.{name}" for name in ("storage", "config", "console", "inputs", "names", "testing")}
# Tables with a row for each of many: a row is counted for its own runs only.
OBJECTIVES = f"{LIBRARY}.objectives.table"
OBJECTIVE_TABLES = {OBJECTIVES: "OBJECTIVES", f"{LIBRARY}.objectives.recent": "RECENT"}
TASKS = (f"{LIBRARY}.tasks", "TASKS")
# The parts of an objective's row that describe it. Knobs are resolved into the run's configuration.
CAPTIONS = {
    "label",
    "paper",
    "formula",
    "edges",
    "knobs",
    "order",
    "closed_form",
    "limit",
    "gap",
    "min_rollouts",
    "count_based",
}
_Path = tuple[str, ...] | None


class Code(NamedTuple):
    """The part of a module that can change numbers: its syntax tree as text, and the modules that it imports."""

    meaning: str
    imports: tuple[str, ...]


def fingerprint(
    roots: Sequence[str], objective: str, task: str, path: Sequence[str] | None = None, *, plug_in: str = ""
) -> str:
    """The code that modules `roots` run, under one row of OBJECTIVES; `task` stands for the row of TASKS.

    A row of another package is the "module:attribute" `plug_in`: then that module counts besides, and all of the table.

    16 hex digits, and if the objectives are among that code, "-" and 16 more of them and what they alone need: so that
    what does not depend on the objective (see `shared_part`) stands apart. Top-level modules are looked up on
    `path` (by default as an import would). What has been read once is kept for the life of the process, as imported
    modules are.
    """
    places = None if path is None else tuple(path)
    shared = _reached(roots, {OBJECTIVES}, "", places)
    known = any(objective in _rows(module, places) for module in OBJECTIVE_TABLES)
    rest = _reached(roots, set(), objective if known else "", places)
    if plug_in and OBJECTIVES in rest:
        rest = _reached([*roots, plug_in.partition(":")[0]], set(), "", places)
    parts = [_digest(shared, task), _digest({name: code for name, code in rest.items() if name not in shared}, plug_in)]
    return "-".join(parts if rest.keys() > shared.keys() else parts[:1])


def shared_part(code: str) -> str:
    """The part of a fingerprint that does not depend on the objective."""
    return code.partition("-")[0]


def _reached(roots: Sequence[str], but: set[str], objective: str, path: _Path) -> dict[str, str]:
    """The syntax tree as text of every module that counts, by name, except those in `but`."""
    own = frozenset({LIBRARY, *(_top(root) for root in roots)})
    reached: dict[str, str] = {}
    waiting = [name for root in roots for name in _with_parents(root)]
    while waiting:
        module = waiting.pop()
        if module in reached or module in but or not _is_own(_top(module), own) or not _is_counted(module, path):
            continue
        code = _code(module, objective if module in OBJECTIVE_TABLES else "", path)
        if code is not None:
            reached[module] = code.meaning
            waiting += code.imports
    return reached


def _is_counted(module: str, path: _Path) -> bool:
    """Whether a module can change a number; this library's packages hold names alone, no code."""
    if not NOT_COUNTED.isdisjoint(_with_parents(module)):
        return False
    spec = _spec(module, path) if _top(module) == LIBRARY else None
    return spec is None or spec.submodule_search_locations is None


def _digest(modules: dict[str, str], first: str = "") -> str:
    digest = hashlib.blake2b(first.encode(), digest_size=8)
    for module in sorted(modules):
        digest.update(f"\0{module}\0{modules[module]}".encode())
    return digest.hexdigest()


def _top(module: str) -> str:
    return module.partition(".")[0]


def _with_parents(module: str) -> Iterator[str]:
    """A module and the packages around it, whose `__init__` runs before it."""
    while module:
        yield module
        module = module.rpartition(".")[0]


_distributions = functools.cache(importlib.metadata.packages_distributions)


@functools.cache
def _is_own(top: str, own: frozenset[str]) -> bool:
    if top in own:
        return True
    if top in sys.stdlib_module_names:
        return False
    made_by = set(_distributions().get(top, ()))
    return not made_by or any(made_by & set(_distributions().get(name, ())) for name in own)


@functools.cache
def _spec(module: str, path: _Path) -> ModuleSpec | None:
    parent = module.rpartition(".")[0]
    try:
        if parent:  # not importlib.util.find_spec, which runs the packages around a module
            around = _spec(parent, path)
            return _inside(module, _places(around)) if around is not None else None
        return PathFinder.find_spec(module, path) if path is not None else importlib.util.find_spec(module)
    except (ImportError, ValueError):
        return None


def _inside(module: str, folders: Iterable[str]) -> ModuleSpec | None:
    """A module of a package, as PathFinder finds it but for namespace packages, which it needs imported parents for."""
    portions: list[str] = []
    for folder in folders:
        finder = pkgutil.get_importer(folder)
        spec = finder.find_spec(module) if finder is not None else None
        if spec is not None and spec.loader is not None:
            return spec
        portions += spec.submodule_search_locations or () if spec is not None else ()
    if not portions:
        return None
    space = ModuleSpec(module, None, is_package=True)
    space.submodule_search_locations = portions
    return space


def _places(package: ModuleSpec | None) -> list[str]:
    return list((package.submodule_search_locations if package is not None else None) or ())


@functools.cache
def _code(module: str, objective: str, path: _Path) -> Code | None:
    """A module's `Code`; None if there is no such module, or it has no source."""
    spec = _spec(module, path)
    try:
        source = spec.loader.get_source(module)  # type: ignore[union-attr]
    except (AttributeError, ImportError, OSError):
        return None
    if spec is None or source is None:
        return None
    package = module if spec.submodule_search_locations is not None else module.rpartition(".")[0]
    meaning, names = _said(source, module, package, objective)
    imports: dict[str, None] = {}
    for name in names:
        if name is not None:
            imports.update(dict.fromkeys(_with_parents(name)))
        elif _top(module) != LIBRARY:  # the library's own are of the task and the run function: roots
            imports.update(dict.fromkeys(_submodules(_top(module), path)))
    return Code(meaning, tuple(imports))


@functools.cache
def _said(source: str, module: str, package: str, objective: str) -> tuple[str, tuple[str | None, ...]]:
    """The syntax tree of a source as text, and the names that it imports, as `_imports` gives them."""
    try:
        body = ast.parse(source).body
    except (SyntaxError, ValueError, RecursionError):  # of a newer Python, or broken, as its import will tell
        return source, ()
    statements: Sequence[ast.AST] = body
    if module in OBJECTIVE_TABLES:
        statements = _for_row(body, OBJECTIVE_TABLES[module], objective)
    elif module == TASKS[0]:
        statements = [statement for statement in body if TASKS[1] not in _bound(statement)]
    names = dict.fromkeys(name for statement in statements for name in _imports(statement, package))
    return _meaning(statements), tuple(names)


def _submodules(package: str, path: _Path) -> Iterator[str]:
    for module in pkgutil.iter_modules(_places(_spec(package, path))):
        yield f"{package}.{module.name}"
        yield from _submodules(f"{package}.{module.name}", path)


def _imports(statement: ast.AST, package: str) -> Iterator[str | None]:
    """The modules that a statement imports; None for one whose name the source does not tell."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = _absolute("." * node.level + (node.module or ""), package)
            yield base
            yield from (f"{base}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.Call):
            name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if name in ("import_module", "__import__"):
                first = node.args[0] if node.args else None
                literal = isinstance(first, ast.Constant) and isinstance(first.value, str)
                yield _absolute(first.value, package) if literal else None  # type: ignore[union-attr]


def _absolute(name: str, package: str) -> str:
    rest = name.lstrip(".")
    level = len(name) - len(rest)
    base = package.split(".")[: len(package.split(".")) - level + 1] if level else []
    return ".".join([*base, rest] if rest else base)


def _bound(statement: ast.stmt) -> list[str]:
    """The names that a top-level statement defines; none for a statement that does anything else."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return [statement.name]
    if isinstance(statement, ast.Import | ast.ImportFrom):
        return [alias.asname or _top(alias.name) for alias in statement.names]
    targets = statement.targets if isinstance(statement, ast.Assign) else [getattr(statement, "target", None)]
    plain = isinstance(statement, ast.Assign | ast.AnnAssign) and all(isinstance(t, ast.Name) for t in targets)
    return [target.id for target in targets] if plain else []  # type: ignore[union-attr]


def _one_name_each(statements: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Statements with imports taken apart, so that each name comes alone."""
    for statement in statements:
        if isinstance(statement, ast.Import):
            yield from (ast.Import([alias]) for alias in statement.names)
        elif isinstance(statement, ast.ImportFrom):
            yield from (ast.ImportFrom(statement.module, [alias], statement.level) for alias in statement.names)
        else:
            yield statement


@functools.cache
def _rows(module: str, path: _Path) -> frozenset[str]:
    """The names of the literal rows of a module's table of objectives."""
    try:
        source = _spec(module, path).loader.get_source(module)  # type: ignore[union-attr]
        statements = [s for s in ast.parse(source).body if OBJECTIVE_TABLES[module] in _bound(s)]
        keys = statements[-1].value.keys
        return frozenset(str(key.value) for key in keys if isinstance(key, ast.Constant))
    except (AttributeError, ImportError, OSError, SyntaxError, TypeError, ValueError, IndexError):
        return frozenset()


def _for_row(statements: Sequence[ast.stmt], table: str, key: str) -> list[ast.AST]:
    """What counts of a module for one row of its table: the row, the names of `__all__`, and all that these mention.

    A row that is none of its own comes from the tables that it includes (`**OTHERS`). Everything counts if there is
    neither, for no row (""), or if there is no `__all__`.
    """
    apart = list(_one_name_each(statements))
    definitions: dict[str, list[ast.stmt]] = {}
    for statement in apart:
        for name in _bound(statement):
            definitions.setdefault(name, []).append(statement)
    try:
        value = definitions[table][-1].value  # type: ignore[attr-defined]
        rows = {k.value: row for k, row in zip(value.keys, value.values, strict=True) if isinstance(k, ast.Constant)}
        included = [value for key, value in zip(value.keys, value.values, strict=True) if key is None]
        row = rows[key] if key in rows or not (key and included) else ast.Tuple(included)
        public = [name for statement in definitions["__all__"] for name in ast.literal_eval(statement.value)]  # type: ignore[attr-defined]
    except (KeyError, AttributeError, ValueError):
        return list(statements)
    if isinstance(row, ast.Call):
        row = ast.Call(row.func, row.args, [word for word in row.keywords if word.arg not in CAPTIONS])
    of_row = _mentioned([row], definitions)
    if table in of_row:
        return list(statements)
    others = [statement for statement in apart if not _bound(statement)]
    names = of_row | _mentioned(
        [*others, *(s for name in public if name != table for s in definitions.get(name, ()))], definitions, table
    )
    names |= {name for name in public if name != table}
    return [row, *(s for s in apart if not _bound(s) or names.intersection(_bound(s)))]


def _mentioned(nodes: Iterable[ast.AST], definitions: dict[str, list[ast.stmt]], but: str = "") -> set[str]:
    """The names of definitions that nodes mention, and those that these mention in turn, `but` one."""
    names: set[str] = set()
    waiting = list(nodes)
    while waiting:
        for node in ast.walk(waiting.pop()):
            if isinstance(node, ast.Name) and node.id in definitions and node.id not in names and node.id != but:
                names.add(node.id)
                waiting += definitions[node.id]
    return names


def _meaning(value: object) -> str:
    """A syntax tree as text that every Python writes alike: no empty fields, comments, docstrings or layout."""
    if isinstance(value, list):
        return f"[{','.join(_meaning(item) for item in value if not _does_nothing(item))}]"
    if isinstance(value, ast.Constant):
        plain = value.value
        return f"{type(plain).__name__}:{hex(plain) if type(plain) is int else ascii(plain)}"
    if isinstance(value, ast.JoinedStr):
        value = ast.JoinedStr(_joined(value.values))
    if isinstance(value, ast.AST):
        fields = ((name, _meaning(field)) for name, field in ast.iter_fields(value) if name not in _IGNORED)
        return f"{type(value).__name__}({','.join(f'{k}={v}' for k, v in fields if v not in ('None', '[]'))})"
    return ascii(value)


def _joined(parts: Sequence[ast.expr]) -> list[ast.expr]:
    """The parts of an f-string with neighbouring texts as one, and no empty ones, in which Pythons differ."""
    joined: list[ast.expr] = []
    for part in parts:
        if isinstance(part, ast.Constant) and joined and isinstance(joined[-1], ast.Constant):
            joined[-1] = ast.Constant(str(joined[-1].value) + str(part.value))
        elif not (isinstance(part, ast.Constant) and part.value == ""):
            joined.append(part)
    return joined


_IGNORED = ("ctx", "kind", "type_comment", "type_ignores")


def _does_nothing(node: object) -> bool:
    return isinstance(node, ast.Pass) or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
