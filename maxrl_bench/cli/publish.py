"""From stored runs to what people read: the tables of an experiment, and its figures."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
from collections.abc import Container, Iterable, Mapping
from pathlib import Path

from maxrl_bench.names import did_you_mean, is_name, shorten
from maxrl_bench.report.folder import CLAIMS_FOLDER, THEORY_FOLDER, page_paths
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.locks import held
from maxrl_bench.storage.store import STORE, Store
from maxrl_bench.sweeps import sources, tabulate
from maxrl_bench.sweeps.experiment import Experiment, load_experiment, load_experiments
from maxrl_bench.sweeps.recipes import BUILT_IN


def publish(experiment: Experiment, root: str, plots: str | None, done: Mapping[str, str] | None = None) -> str:
    """Write the tables of an experiment from its runs, and draw its figures unless `plots` is None.

    `done` names the runs to take, each with the code that must have made it, as `tabulate.write_tables` has it.

    Returns a line that says what there is now. Raises ValueError as `draw` does, and, when all that is written, if some
    of `done` are not what they were any more.
    """
    store = Store(Path(root) / STORE, report=lambda line: print(line, file=sys.stderr, flush=True))
    tables = tabulate.write_tables(experiment, store, root, only=done)
    drawn = ""
    if plots is not None and tables is not None:
        with held(store, "figures"):  # sweeps that draw into one folder take turns
            drawn = draw(experiment, root, plots)
    lost = [run for run in done or () if tables is None or run in tables.provenance["missing"]]
    if lost:
        raise ValueError(
            f"{len(lost)} of its runs are no longer this sweep's: another version of the code, or another hand, is at "
            f"{Path(root) / STORE}"
        )
    if tables is None:
        return f"{experiment.name}: no finished run, so no tables and no figures"
    missing = len(tables.provenance["missing"])
    line = f"{experiment.name}: {Path(root) / experiment.name}/" + f" ({missing} runs missing)" * bool(missing)
    return f"{line}, {drawn}" if drawn else line


def draw(experiment: Experiment, root: str, plots: str) -> str:
    """Draw the figures of an experiment from its tables alone. Returns a line that says what there is now.

    Raises ValueError if tables or figures are of another experiment file, if a file is in the way, and, after all else
    is drawn, if a figure failed.
    """
    from maxrl_bench.report import build as report

    sources.check(experiment, root)
    drawn = report.draw(experiment, root, plots)
    if not (Path(plots) / THEORY_FOLDER).exists():
        draw_theory(root, plots)
    if drawn.failed:
        which = "; ".join(f"{name}: {error}" for name, error in drawn.failed.items())
        raise ValueError(f"{experiment.name}: all is drawn but for figures that failed: {which}")
    return f"{Path(plots) / experiment.name}/"


def draw_theory(root: str, plots: str) -> str:
    """Draw the figures of the objectives themselves, which need no run, and the report; returns their folder."""
    from maxrl_bench.report import build as report
    from maxrl_bench.report import objective_figures
    from maxrl_bench.report.folder import replace_files

    with tempfile.TemporaryDirectory() as scratch:
        objective_figures.draw_all(Path(scratch))
        files = {path.name: path.read_bytes() for path in sorted(Path(scratch).iterdir())}
    replace_files(plots, THEORY_FOLDER, files, {})
    report.write_report(root, plots)
    return f"{Path(plots) / THEORY_FOLDER}/"


def plot(names: list[str], root: str, plots: str, profile: str | None = None) -> int:
    """Draw the named experiments (by file, by name, or by their folder of tables), or all that have tables.

    Says what there is now, and on stderr what could not be drawn; returns the exit code, 1 if there was such. Raises
    ValueError where one is named alone and cannot be drawn, and where there are no tables.
    """
    page_paths(plots)
    present = results.experiments(root)
    if not names and not present:
        raise ValueError(f"no tables in {root}; `maxrl-bench sweep` makes them")
    loaded: list[Experiment] = []
    problems: list[str] = []
    for name in names or present:
        try:
            loaded += _named(name, root, profile, present) if names else _of_profile(name, root, profile)
        except (ValueError, OSError) as error:
            if len(names) == 1:
                raise
            problems.append(f"{name}: {error}")
    if not loaded and not problems:
        raise ValueError(f"no tables in {root} under profile {shorten(profile)}; `maxrl-bench sweep` makes them")
    theory = "" if names or profile else draw_theory(root, plots)
    for experiment in sorted(loaded, key=lambda experiment: (experiment.order, experiment.name)):
        try:
            print(f"{experiment.name}: {draw(experiment, root, plots)}")
        except (ValueError, OSError) as error:
            if len(names) == 1:
                raise
            problems.append(str(error))
    if theory:
        print(f"the objectives themselves: {theory}")
    for problem in problems:
        print(f"maxrl-bench: not drawn: {problem}", file=sys.stderr)
    return 1 if problems else 0


def _named(name: str, root: str, profile: str | None, present: Container[str]) -> list[Experiment]:
    folder = f"{name}-{profile}" if profile else name
    if not name.endswith(".toml"):
        for candidate in (folder, name):
            if candidate in present and (own := _of_profile(candidate, root, profile)):
                return own
    return load_experiments([name], profile)


def _of_profile(name: str, root: str, profile: str | None) -> list[Experiment]:
    """The experiment that a folder of results has the tables of, unless they are of another profile.

    Raises ValueError where they are damaged or their file is not found.
    """
    made = results.load(name, root).provenance
    file, own = (str(made.get(key, "")) for key in ("file", "profile"))
    if profile not in (None, own):
        return []
    places = [Path("experiments") / file]
    if made.get("path") == sources.INSTALLED:
        places.insert(0, BUILT_IN / file)
    elif (recorded := sources.place(made, root)) is not None:
        places.insert(0, Path(os.path.relpath(recorded)))
    for place in places:
        if is_name(place.stem) and place.is_file():
            experiment = load_experiment(place, own)
            if experiment.name == name:
                return [experiment]
    raise ValueError(
        f"{Path(root) / name}/ has the tables of {shorten(file)}, which is not at {' nor at '.join(map(str, places))}; "
        "name the file: maxrl-bench plot PATH/TO/FILE.toml"
    )


def claims_beside(profile: str, experiments: Iterable[Experiment], root: str) -> int:
    """How many claims the family of a profile has: of these experiments, and of all that have tables in `root`.

    Tables that are damaged, or whose file is not found, have none: they cannot be judged.
    """
    own = {experiment.name: experiment for experiment in experiments}
    for name in results.experiments(root):
        if name not in own:
            with contextlib.suppress(ValueError, OSError):
                own.update((name, experiment) for experiment in _of_profile(name, root, profile))
    return sum(len(experiment.claims) for experiment in own.values() if experiment.profile == profile)


def check(experiment: Experiment) -> None:
    """Raises ValueError if an experiment asks for a figure that there is not, or makes a malformed claim."""
    from maxrl_bench.report.figures import FIGURES
    from maxrl_bench.sweeps.claim_check import check_columns

    if experiment.name in (CLAIMS_FOLDER, THEORY_FOLDER):
        raise ValueError(f"{experiment.path}: plots/{experiment.name}/ has other figures; rename the file")
    for figure in experiment.figures:
        if figure not in FIGURES:
            raise ValueError(
                f"{experiment.path}: key 'figures': no figure {shorten(figure)}; {did_you_mean(figure, FIGURES)}"
            )
    check_columns(experiment)


def check_places(experiment: Experiment, root: str, plots: str) -> None:
    """Raises ValueError if files that are not ours, or links, are where its figures would go; writes nothing."""
    from maxrl_bench.report.figures import FIGURES
    from maxrl_bench.report.folder import CLAIMS_FILES, TABLES, check_free

    store = Path(os.path.realpath(Path(root) / STORE))
    if Path(os.path.realpath(plots)).is_relative_to(store):
        raise ValueError(f"--plots {plots} lies in the run store, {store}; draw into another folder")
    page_paths(plots)
    figures = experiment.figures or tuple(FIGURES)
    check_free(plots, experiment.name, [*(f"{name}.png" for name in figures), *TABLES])
    check_free(plots, CLAIMS_FOLDER, CLAIMS_FILES)
