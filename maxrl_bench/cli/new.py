"""`maxrl-bench new`: a task, an objective or an experiment to begin with, which works as it is.

What is written are the examples of the documentation (examples/, installed as data) under another name.
"""

from __future__ import annotations

import importlib.util
import keyword
from importlib.resources import files
from pathlib import Path
from typing import NamedTuple

from maxrl_bench.names import check_name, shorten
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.table import OBJECTIVES
from maxrl_bench.storage.files import check_writable, write_file
from maxrl_bench.tasks import all_tasks


class Example(NamedTuple):
    """A folder of examples/, the spellings of its name in it, and what to do with what was written."""

    folder: str
    name: str  # of the package, and of the entry point of a task
    module: str
    words: str  # of the class of a task, or the label of an objective
    then: str


_TASK = """\
pip install --editable {place}
maxrl-bench check task {name}
maxrl-bench run task={name} objective=maxrl_alg1"""
_OBJECTIVE = """\
pip install --editable {place}
maxrl-bench check objective {module}
maxrl-bench run task=fourrooms objective={module} steps=50"""
_EXPERIMENT = """\
maxrl-bench sweep {place} --profile smoke
maxrl-bench sweep {place} --dry-run"""
EXAMPLES = {
    "task": Example("token_task", "word-reversal", "word_reversal", "WordReversal", _TASK),
    "graph-task": Example("graph_task", "thin-ice", "thin_ice", "ThinIce", _TASK),
    "objective": Example("objective", "capped-maxrl", "capped_maxrl", "Capped MaxRL", _OBJECTIVE),
    "experiment": Example("experiment", "my-experiment", "my_experiment", "My experiment", _EXPERIMENT),
}


def write(kind: str, name: str, folder: str = ".") -> str:
    """Write the start of a `kind` (a key of EXAMPLES) called `name` into `folder`; returns what it is, and what next.

    A task or an objective is a package in a folder of its own, an experiment is one file. Raises ValueError on a name
    that cannot be used, and where a file or folder is there already: nothing is overwritten.
    """
    example = EXAMPLES[kind]
    module = check_name(name, kind).replace("-", "_").replace(".", "_")
    words = (" " if " " in example.words else "").join(part.capitalize() for part in module.split("_"))
    place = Path(folder) / (f"{name}.toml" if kind == "experiment" else name)
    if kind != "experiment":
        _check_module(kind, name, module)
    if place.exists() or place.is_symlink():
        raise ValueError(f"{place} is there already; nothing was written")
    spelt = {example.name: name, example.module: module, example.words: words}
    texts = {}
    for source in sorted(files("maxrl_bench").joinpath("examples", example.folder).iterdir(), key=lambda s: s.name):
        if source.name.endswith((".py", ".toml")):
            texts[_renamed(source.name, spelt)] = _renamed(source.read_text(encoding="utf-8"), spelt)
    check_writable(place.parent)
    for file, text in texts.items():
        write_file(place if kind == "experiment" else place / file, text.encode())
    then = example.then.format(place=place, name=name, module=module).replace("\n", "\n  ")
    return f"{place}{'' if kind == 'experiment' else '/: ' + ', '.join(texts)}\nnext:\n  {then}"


def _renamed(text: str, spelt: dict[str, str]) -> str:
    for old, new in spelt.items():
        text = text.replace(old, new)
    return text


def _check_module(kind: str, name: str, module: str) -> None:
    """Raises ValueError if a package of this name would hide another, or its task or objective would be left out."""
    taken = {*OBJECTIVES, *outside.names(OBJECTIVES)} if kind == "objective" else {*all_tasks()}
    if {name, module} & taken:
        raise ValueError(f"{kind} {shorten(name)}: there is one of this name already; choose another")
    if not module.isidentifier():
        raise ValueError(f"{kind} {shorten(name)}: a module is called like it, so that it must begin with a letter")
    if keyword.iskeyword(module):
        raise ValueError(f"{kind} {shorten(name)}: a module cannot be called like it, which is a word of Python's")
    if importlib.util.find_spec(module) is not None:
        raise ValueError(f"{kind} {shorten(name)}: there is a module '{module}' already; choose another name")
