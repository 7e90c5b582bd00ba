"""From tables to plots/: one experiment's figures and verdicts, and the page that shows them all.

`draw` reads results/<experiment>/ and nothing else, and writes plots/<experiment>/: the figures, summary.csv (final
scores), collapse.csv, room.csv (shares of exact maximum likelihood's gain), and figures.json, which holds what the page
says of them and the checksums of the tables they were drawn from. `write_report` joins these into plots/claims/,
plots/index.html and plots/README.md. The same tables give the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from maxrl_bench.analysis.claims import judge, readable
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.rates import row_of
from maxrl_bench.inputs import read_json
from maxrl_bench.names import check_name, did_you_mean
from maxrl_bench.report import room as rooms
from maxrl_bench.report.figures import FIGURES
from maxrl_bench.report.findings import Findings
from maxrl_bench.report.folder import Page, changed_files, check_own, page_paths, read_page, replace_files
from maxrl_bench.report.fronts import choices_of
from maxrl_bench.report.numbers import collapses, flat, summarise
from maxrl_bench.report.page import Content, html_page, markdown_page
from maxrl_bench.report.registry import claim_entry, csv_table, write_claims
from maxrl_bench.report.style import NotDrawable, render, style
from maxrl_bench.storage import tables as results
from maxrl_bench.storage.files import inside, write_file
from maxrl_bench.sweeps.experiment import Experiment

Row = dict[str, Any]


class Drawn(NamedTuple):
    """The files of a drawing, and the figures that failed through a fault of ours, with the error."""

    files: list[Path]
    failed: dict[str, str]


def draw(experiment: Experiment | str, results_root: str | Path, plots_root: str | Path) -> Drawn:
    """Redraw plots/<experiment>/ from results/<experiment>/, and the report.

    Draws the figures that the experiment asks for (all, if it names none) and judges its claims; of an experiment given
    by its name alone, all figures and no claims. What cannot be drawn is listed with the reason. Files that the last
    drawing does not list are neither replaced nor deleted. Raises ValueError, in one line, where the tables are missing
    or damaged, a claim is malformed, or a file is in the way.
    """
    name = check_name(experiment if isinstance(experiment, str) else experiment.name, "experiment")
    check_own(name)
    asked, claims = ((), ()) if isinstance(experiment, str) else (experiment.figures, experiment.claims)
    evidence = Evidence.load(name, Path(results_root), readable(claims))
    files: dict[str, bytes] = {}
    figures, not_drawn = [], []
    failed: dict[str, str] = {}
    for figure in asked or FIGURES:
        try:
            drawing, rendered = _figure(figure, evidence)
        except NotDrawable as reason:
            not_drawn.append({"name": figure, "reason": str(reason)})
            continue
        except Exception as error:  # a fault in one figure costs neither the others nor the claims; the exit code tells
            failed[figure] = f"{type(error).__name__}: {error}"
            not_drawn.append({"name": figure, "reason": f"failed, which is a fault: {failed[figure]}"})
            continue
        files[f"{figure}.png"] = rendered
        figures.append({"name": figure, "caption": drawing.caption, "alt": drawing.alt})
    verdicts = judge(evidence, claims)
    summary, collapse, room = summarise(evidence), collapses(evidence), rooms.room(evidence)
    index = {
        "experiment": name,
        "question": str(evidence.provenance.get("question", "")),
        "caveat": "" if isinstance(experiment, str) else experiment.caveat,
        "order": 0 if isinstance(experiment, str) else experiment.order,
        "notes": evidence.notes,
        "figures": figures,
        "not_drawn": not_drawn,
        "claims": [claim_entry(verdict) for verdict in verdicts],
        "summary": summary,
        "collapse": collapse,
        "room": room,
        "provenance": _origin(evidence.provenance),
        "drawn_from": evidence.provenance.get("checksums", {}),
    }
    tables = {
        "summary.csv": flat(summary),
        "collapse.csv": collapse,
        "rates.csv": _rates(asked or FIGURES, evidence),
        "room.csv": rooms.flat(room),
    }
    for file, rows in tables.items():
        if rows:
            files[file] = csv_table(rows)
    written = replace_files(plots_root, name, files, index)
    write_report(results_root, plots_root)
    return Drawn(written, failed)


def _rates(asked: Iterable[str], evidence: Evidence) -> list[dict[str, Any]]:
    """The rows of rates.csv, where `fronts` is asked for and rates can be chosen, also more than it draws."""
    try:
        return [row_of(choice) for choice in choices_of(evidence)] if "fronts" in asked else []
    except ValueError:
        return []


def _figure(name: str, evidence: Evidence) -> tuple[Any, bytes]:
    if name not in FIGURES:
        raise NotDrawable(f"there is no such figure; {did_you_mean(name, FIGURES)}")
    with style():
        drawing = FIGURES[name](evidence)
    return drawing, render(drawing)


def write_report(results_root: str | Path, plots_root: str | Path) -> list[Path]:
    """Write plots/claims/, plots/index.html and plots/README.md from what `draw` left; returns the two pages' paths.

    Experiments that have tables but no figures, or figures of other tables, are named on the page, and so are those
    whose files are damaged. Raises ValueError if a file of these names is there that was not written so.
    """
    pages: list[Page] = []
    problems = []
    for name in results.experiments(results_root):
        problem, page = _look(name, Path(results_root), Path(plots_root))
        if problem:
            problems.append(f"{name}: {problem}")
        if page is not None:
            pages.append(page)
    pages.sort(key=lambda page: (page.order, page.experiment))
    paths = page_paths(plots_root)
    write_claims(pages, plots_root)
    advice = Findings(results_root, plots_root).table("advice")
    content = Content(advice, pages, problems, Path(results_root), Path(plots_root))
    for path, render_page in zip(paths, (html_page, markdown_page), strict=True):
        write_file(path, render_page(content).encode())
    return paths


def _look(name: str, results_root: Path, plots_root: Path) -> tuple[str, Page | None]:
    """What is wrong with an experiment's figures ("" if nothing), and its page if there is one."""
    try:
        page = read_page(plots_root, check_name(name, "experiment"))
        if page is None or page.drawn_from != _tables(results_root, name):
            damage = _damage(results_root, name)
            state = "not of the present tables" if page else "not drawn yet"
            return (f"{state}: {damage}" if damage else f"{state}; `maxrl-bench plot` draws it"), page
        changed = changed_files(plots_root, name)
    except ValueError as error:
        return str(error), None
    return (f"{changed[0]} is not as it was drawn; `maxrl-bench plot` draws it" if changed else ""), page


def _tables(results_root: Path, name: str) -> Any:
    """The checksums of an experiment's present tables; None where their provenance cannot be read."""
    try:
        return read_json(inside(results_root, name, "provenance.json"), dict[str, Any]).get("checksums")
    except (OSError, ValueError):
        return None


def _damage(results_root: Path, name: str) -> str:
    """Why an experiment cannot be drawn from its tables as they are; "" if it can."""
    try:
        Evidence.load(name, results_root)
    except (OSError, ValueError) as error:
        return str(error)
    return ""


def stale_figures(results_root: str | Path, plots_root: str | Path) -> list[str]:
    """The experiments whose figures are not those of the present tables: absent, of other tables, or since changed."""
    names = results.experiments(results_root)
    return [name for name in names if _look(name, Path(results_root), Path(plots_root))[0]]


def _origin(provenance: Mapping[str, Any]) -> Row:
    """What the page tells of where the results come from."""
    runs = provenance.get("runs", {})
    seconds = [run["wall_seconds"] for run in runs.values() if run.get("wall_seconds") is not None]
    return {
        "profile": provenance.get("profile"),
        "file": provenance.get("file"),
        "runs": len(runs),
        "missing": len(provenance.get("missing", [])),
        "seconds": float(f"{sum(seconds):.6g}") if seconds else None,
        "made_by": provenance.get("made_by", []),
    }
