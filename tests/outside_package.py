"""A package of somebody else's, as pip would leave it: modules, and the entry points that they offer."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path

OBJECTIVES = """
from maxrl_bench import Formula, Knob

centred = Formula(
    label="Centred",
    paper="Doe 2031",
    formula="s = 1 - c K/N; f = -c K/N",
    edges="K = 0: no update; K = N: weight 1 - c; N = 1: 1 - c on success",
    on_success=lambda K, N, share: 1 - share * K / N,
    on_failure=lambda K, N, share: -share * K / N,
    knobs={"share": Knob(float, 0, 1, symbol="c", default=0.5)},
)
"""


def forget() -> None:
    """Nothing is known any more of what packages offer, nor of their code: as in a process of its own."""
    from maxrl_bench import plugins
    from maxrl_bench.config import find_task
    from maxrl_bench.objectives import table
    from maxrl_bench.storage import fingerprint, provenance

    for cached in (plugins.installed, find_task, table._plugged_in, provenance._plug_in, provenance.code_fingerprint):
        cached.cache_clear()
    for cached in (fingerprint._code, fingerprint._spec, fingerprint._rows):
        cached.cache_clear()


def install(
    folder: Path, files: Mapping[str, str], groups: Mapping[str, Mapping[str, str]], name: str = "theirs"
) -> Path:
    """Write a distribution into `folder`: files by path, entry points by group and name. Returns the folder."""
    entries = "".join(
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in points.items())
        for group, points in groups.items()
    )
    about = {"METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "entry_points.txt": entries}
    about["RECORD"] = "".join(f"{path},,\n" for path in files)
    for path, text in {**files, **{f"{name}-1.0.dist-info/{key}": text for key, text in about.items()}}.items():
        target = folder / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder


def install_project(project: Path, folder: Path) -> Path:
    """Put a project's modules and entry points into `folder`, as pip does by its pyproject.toml. Returns the folder."""
    about = tomllib.loads((project / "pyproject.toml").read_text(encoding="utf-8"))
    modules = [f"{module}.py" for module in about["tool"]["setuptools"]["py-modules"]]
    files = {module: (project / module).read_text(encoding="utf-8") for module in modules}
    return install(folder, files, about["project"]["entry-points"], about["project"]["name"].replace("-", "_"))
