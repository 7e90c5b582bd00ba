"""From tables to plots/: one experiment's figures and verdicts, and the page that shows them all.

`draw` reads results/<experiment>/ and nothing else, and writes plots/<experiment>/: the figures, summary.csv (final
scores), claims.csv, and figures.json, which holds what the page says of them and the checksums of the tables they were
drawn from. `write_report` joins these into plots/index.html and plots/README.md. The same tables give the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from maxrl_bench import results, stats
from maxrl_bench.claim_model import Claim
from maxrl_bench.claims import Comparison, Verdict, judge
from maxrl_bench.config import did_you_mean
from maxrl_bench.evidence import Evidence
from maxrl_bench.experiment import Experiment
from maxrl_bench.figures import FIGURES
from maxrl_bench.figures_style import NotDrawable, save, style
from maxrl_bench.files import write_file
from maxrl_bench.formats import checksum, to_csv, to_json
from maxrl_bench.report_page import html_page, markdown_page

INDEX = "figures.json"
PRODUCTS = (".png", ".svg", ".csv")
THRESHOLD = 0.5  # of pass@1, for the rollouts that a run needs to reach it
Row = dict[str, Any]


def draw(experiment: Experiment | str, results_root: str | Path, plots_root: str | Path) -> list[Path]:
    """Redraw plots/<experiment>/ from results/<experiment>/, and the report; returns the experiment's files.

    Draws the figures that the experiment asks for (all, if it names none) and judges its claims; of an experiment given
    by its name alone, all figures and no claims. What cannot be drawn is listed with the reason. Raises ValueError, in
    one line, where the tables are missing or damaged or a claim is malformed.
    """
    name = experiment if isinstance(experiment, str) else experiment.name
    asked, claims, order = ((), (), 0) if isinstance(experiment, str) else _plan(experiment)
    evidence = Evidence.load(name, Path(results_root))
    folder = Path(plots_root) / name
    written: list[Path] = []
    figures, not_drawn = [], []
    for figure in asked or FIGURES:
        if figure not in FIGURES:
            not_drawn.append({"name": figure, "reason": f"there is no such figure; {did_you_mean(figure, FIGURES)}"})
            continue
        try:
            with style():
                drawing = FIGURES[figure](evidence)
        except NotDrawable as reason:
            not_drawn.append({"name": figure, "reason": str(reason)})
            continue
        written += save(drawing, folder / figure)
        figures.append({"name": figure, "caption": drawing.caption, "alt": drawing.alt})
    verdicts = judge(evidence, claims)
    summary = summarise(evidence)
    index = {
        "experiment": name,
        "question": evidence.provenance.get("question", ""),
        "order": order,
        "notes": evidence.notes,
        "figures": figures,
        "not_drawn": not_drawn,
        "claims": [_claim_entry(verdict) for verdict in verdicts],
        "summary": summary,
        "provenance": _origin(evidence.provenance),
        "drawn_from": evidence.provenance.get("checksums", {}),
    }
    tables = {"summary.csv": _flat(summary), "claims.csv": [row for v in verdicts for row in _claim_rows(v)]}
    for file, rows in tables.items():
        if rows:
            write_file(folder / file, to_csv(pd.DataFrame(rows).map(plain_cell)))
            written.append(folder / file)
    index["files"] = {path.name: checksum(path.read_bytes()) for path in written}
    write_file(folder / INDEX, to_json(index))
    written.append(folder / INDEX)
    for old in set(folder.iterdir()) - set(written):  # figures that are no longer asked for
        if old.suffix in PRODUCTS:
            old.unlink()
    write_report(results_root, plots_root)
    return written


def plain_cell(value: Any) -> Any:
    """A cell of a CSV table; text that spreadsheets would run as a formula gets an apostrophe before it.

    Source: OWASP, "CSV Injection".
    """
    runs = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    return f"'{value}" if runs else value


def _plan(experiment: Experiment) -> tuple[tuple[str, ...], tuple[Claim, ...], int]:
    return experiment.figures, experiment.claims, experiment.order


def write_report(results_root: str | Path, plots_root: str | Path) -> list[Path]:
    """Write plots/index.html and plots/README.md from what `draw` left; returns the two paths.

    Experiments that have tables but no figures, or figures of other tables, are named on the page.
    """
    results_root, plots_root = Path(results_root), Path(plots_root)
    found = {name: _page(plots_root / name) for name in results.experiments(results_root)}
    pages = [page for page in found.values() if page is not None]
    stale = stale_figures(results_root, plots_root)
    problems = [
        f"{name}: {'not drawn yet' if found[name] is None else 'not of the present tables'}; `make plots` draws it"
        for name in stale
    ]
    pages.sort(key=lambda page: (page["order"], page["experiment"]))
    written = {"index.html": html_page, "README.md": markdown_page}
    for file, render in written.items():
        write_file(plots_root / file, render(pages, problems, results_root, plots_root).encode())
    return [plots_root / file for file in written]


def stale_figures(results_root: str | Path, plots_root: str | Path) -> list[str]:
    """The experiments whose figures are not those of the present tables: absent, of other tables, or since changed."""
    stale = []
    for name in results.experiments(results_root):
        folder = Path(plots_root) / name
        page = _page(folder)
        if (
            page is None
            or page["drawn_from"] != _checksums(Path(results_root) / name)
            or page["files"] != {file: checksum((folder / file).read_bytes()) for file in _present(folder)}
        ):
            stale.append(name)
    return stale


def _present(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.suffix in PRODUCTS]


def _page(folder: Path) -> Row | None:
    """What `draw` left; None if nothing, or nothing whole."""
    try:
        page: Row = json.loads((folder / INDEX).read_bytes())
    except (FileNotFoundError, ValueError):
        return None
    return page


def _checksums(folder: Path) -> dict[str, str] | None:
    try:
        found: dict[str, str] = json.loads((folder / "provenance.json").read_bytes())["checksums"]
    except (FileNotFoundError, ValueError, KeyError):
        return None
    return found


def summarise(evidence: Evidence) -> list[Row]:
    """Final scores of every series on every task, as estimates, and the rollouts to reach pass@1 = THRESHOLD."""
    rows = []
    metrics = [f"pass@{k}" for k in sorted({1, evidence.high_k})]
    for panel in evidence.panels():
        for series in evidence.series(panel):
            runs = evidence.members(series, panel)
            row: Row = {"task": panel.task, "objective": series.label, "seeds": len(runs)}
            for metric in (*metrics, "log_p"):
                row[metric] = _numbers(stats.estimate([evidence.scores(runs, metric)]))
            row["area of pass@1"] = _numbers(stats.estimate([evidence.scores(runs, "pass@1", "area")]))
            needed = evidence.scores(runs, "pass@1", "rollouts_to", THRESHOLD)
            row["reached"] = int(np.isfinite(needed).sum())
            # The median over seeds is known as long as more than half of them get there.
            middle = float(np.sort(needed)[len(needed) // 2])
            sampled = evidence.curves(runs, "rollouts")[1][:, -1].max() > 0
            row["rollouts"] = middle if sampled and math.isfinite(middle) else None
            rows.append(row)
    return rows


def _numbers(found: stats.Estimate) -> list[float] | None:
    """Value and limits; None where there is no value (log p of a sampled task), limits None for one seed."""
    if math.isnan(found.value):
        return None
    return [_rounded(v) for v in found[:3]]  # type: ignore[misc]


def _rounded(value: float) -> float | None:
    return float(f"{value:.6g}") if math.isfinite(value) else None


def _flat(summary: list[Row]) -> list[Row]:
    """Estimates as three columns each, for a CSV."""
    rows = []
    for row in summary:
        flat: Row = {}
        for key, value in row.items():
            if isinstance(value, list):
                flat |= {key: value[0], f"{key} low": value[1], f"{key} high": value[2]}
            else:
                flat[f"rollouts to pass@1 = {THRESHOLD}" if key == "rollouts" else key] = value
        rows.append(flat)
    return rows


def _claim_rows(verdict: Verdict) -> list[Row]:
    found = verdict.comparisons + verdict.per_task
    shared: Row = {
        "claim": verdict.id,
        "statement": verdict.statement,
        "test": verdict.test,
        "verdict": verdict.verdict,
    }
    shared["p_holm"] = _rounded(verdict.p_value)
    return [{**shared, **_comparison(c)} for c in found] or [shared]


def _comparison(one: Comparison) -> Row:
    effect = one.effect
    return {
        "task": one.task or "all",
        "metric": one.metric,
        "compare": one.ours,
        "against": one.theirs,
        "effect": _rounded(effect.value),
        "low": _rounded(effect.low),
        "high": _rounded(effect.high),
        "seeds": effect.seeds,
        "p": _rounded(one.p_value),
        "outcome": one.verdict,
    }


def _claim_entry(verdict: Verdict) -> Row:
    return {
        "id": verdict.id,
        "statement": verdict.statement,
        "test": verdict.test,
        "verdict": verdict.verdict,
        "p": _rounded(verdict.p_value),
        "comparisons": [_comparison(c) for c in verdict.comparisons],
        "per_task": [_comparison(c) for c in verdict.per_task],
        "notes": list(dict.fromkeys(verdict.notes)),
    }


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
