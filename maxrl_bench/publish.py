"""From stored runs to what people read: the tables of an experiment, and its figures."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from maxrl_bench import results, sources
from maxrl_bench.config import did_you_mean
from maxrl_bench.experiment import Experiment, find_experiments, load_experiment
from maxrl_bench.report_page import THEORY_FOLDER
from maxrl_bench.store import Store


def publish(experiment: Experiment, root: str, plots: str | None, done: Mapping[str, str] | None = None) -> str:
    """Write the tables of an experiment from its runs, and draw its figures unless `plots` is None.

    `done` names the runs to take, each with the code that must have made it, as `results.write_tables` has it.

    Returns a line that says what there is now. Raises ValueError, when all that is written, if some of `done` are not
    what they were any more.
    """
    tables = results.write_tables(experiment, Store(Path(root) / "store"), root, only=done)
    lost = [run for run in done or () if tables is None or run in tables.provenance["missing"]]
    if lost:
        if plots is not None and tables is not None:
            draw(experiment, root, plots)
        raise ValueError(
            f"{len(lost)} of its runs are no longer this sweep's: another version of the code, or another hand, is at "
            f"{Path(root) / 'store'}"
        )
    if tables is None:
        return f"{experiment.name}: no finished run, so no tables and no figures"
    missing = len(tables.provenance["missing"])
    line = f"{experiment.name}: {Path(root) / experiment.name}/" + f" ({missing} runs missing)" * bool(missing)
    return line if plots is None else f"{line}, {draw(experiment, root, plots)}"


def draw(experiment: Experiment, root: str, plots: str) -> str:
    """Draw the figures of an experiment from its tables alone. Returns a line that says what there is now."""
    from maxrl_bench import report  # here, since it loads matplotlib

    sources.check(experiment, root)
    report.draw(experiment, root, plots)
    if not (Path(plots) / THEORY_FOLDER).exists():
        draw_theory(root, plots)
    return f"{Path(plots) / experiment.name}/"


def draw_theory(root: str, plots: str) -> str:
    """Draw the figures of the objectives themselves, which need no run, and the report; returns their folder."""
    from maxrl_bench import objective_figures, report

    folder = Path(plots) / THEORY_FOLDER
    objective_figures.draw_all(folder)
    report.write_report(root, plots)
    return f"{folder}/"


def with_tables(root: str, profile: str | None = None) -> list[Experiment]:
    """The experiments that have tables (under a profile, if one is given), each under its tables' profile, by `order`.

    Raises ValueError if there are none, or where tables are damaged or of a file that is not in experiments/.
    """
    found = []
    for name in results.experiments(root):
        made = results.load(name, root).provenance
        if profile in (None, made["profile"]):
            [path] = find_experiments([str(made["file"]).removesuffix(".toml")])
            found.append(load_experiment(path, made["profile"]))
    if not found:
        of = f" under profile '{profile}'" if profile else ""
        raise ValueError(f"no tables in {root}{of}; `maxrl-bench sweep` makes them")
    return sorted(found, key=lambda experiment: (experiment.order, experiment.name))


def check(experiment: Experiment) -> None:
    """Raises ValueError if an experiment asks for a figure that there is not, or makes a malformed claim."""
    from maxrl_bench.claim_check import check_columns
    from maxrl_bench.figures import FIGURES

    for figure in experiment.figures:
        if figure not in FIGURES:
            raise ValueError(f"{experiment.path}: key 'figures': no figure '{figure}'; {did_you_mean(figure, FIGURES)}")
    check_columns(experiment)
