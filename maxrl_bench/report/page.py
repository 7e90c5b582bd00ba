"""The report as one self-contained HTML page, and as Markdown for code hosts. Nothing is computed here."""

from __future__ import annotations

import base64
import os
import re
import struct
from collections.abc import Sequence
from html import escape
from pathlib import Path
from urllib.parse import quote

from maxrl_bench.inputs import read_bytes
from maxrl_bench.report.folder import Claim, Comparison, Origin, Page, Scores, read_png
from maxrl_bench.storage.files import inside
from maxrl_bench.storage.tables import METRICS, PASS_RATES

MARK = "Written by maxrl-bench: what is edited here is lost."  # by which the next drawing knows its own pages
TITLE = "Which objective for binary rewards?"
RULE = (
    "Each test is written in the experiment file, before the runs. Supported: every comparison's 95 % interval lies "
    "beyond the threshold on the claimed side, and a paired t test over seeds, Holm-corrected over the experiment's "
    "claims, has p < 0.05. Not supported: some comparison's interval lies wholly on the other side. Cannot be judged: "
    "runs, values or seeds are lacking. Inconclusive: all else. Effects are paired by seed and held-out instance; "
    "intervals are bootstrapped over both."
)
# Figures of `objective_figures.draw_all`, shown where it has drawn them.
THEORY_FOLDER = "theory"
THEORY = {
    "weights": "How much each objective weighs an instance of pass rate p, exactly. Maximum likelihood is 1/p.",
    "bias_variance_pass_rate": "Bias and noise of each objective's gradient, exactly, against the pass rate.",
    "bias_variance_rollouts": "Bias and noise of each objective's gradient, exactly, against the number of rollouts.",
    "rollouts_needed": "The rollouts that each objective needs for an equally exact gradient.",
}
TABLES = (METRICS, PASS_RATES, "provenance.json")
_SIGNS = {"supported": "✔", "not supported": "✘", "inconclusive": "?", "cannot be judged": "–"}
_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.5 system-ui, "DejaVu Sans", sans-serif; color: #1a1a1a; background: #fff; max-width: 1040px;
  margin: 0 auto; padding: 1rem; overflow-wrap: anywhere; }
h1 { font-size: 1.7rem; line-height: 1.2; } h2 { margin-top: 3rem; border-top: 1px solid #bbb; padding-top: 1rem; }
figure { margin: 1.5rem 0; } img { max-width: 100%; height: auto; display: block; }
figcaption, .small { font-size: .9rem; color: #333; } .note { border-left: 4px solid #b45f06; padding-left: .8rem; }
.caveat { border: 3px solid #b45f06; padding: .6rem .8rem; font-weight: bold; }
table { border-collapse: collapse; width: 100%; font-size: .88rem; }
th, td { text-align: left; vertical-align: top; padding: .35rem .5rem; border-bottom: 1px solid #ddd; }
td.n { font-variant-numeric: tabular-nums; overflow-wrap: normal; }
.verdict { font-weight: bold; white-space: nowrap; } nav a { margin-right: 1em; } a { color: #00508a; }
details { margin: .8rem 0; } summary { cursor: pointer; }
@media (max-width: 720px) {
  thead { position: absolute; left: -9999px; } table, tbody, tr, td { display: block; width: 100%; }
  tr { border-bottom: 2px solid #999; padding: .4rem 0; } td { border: 0; padding: .1rem 0; white-space: normal; }
  td[data-label]::before { content: attr(data-label) ": "; font-weight: 600; }
}
"""


def html_page(pages: Sequence[Page], problems: Sequence[str], results_root: Path, plots_root: Path) -> str:
    """index.html: claims first, then each experiment's figures, scores and provenance; images embedded, no network."""
    tables = _link(Path(os.path.relpath(results_root, plots_root)).as_posix())
    links = "".join(f'<a href="#{escape(p.experiment)}">{escape(p.experiment)}</a> ' for p in pages)
    parts = [
        f'<!DOCTYPE html>\n<!-- {MARK} -->\n<html lang="en">\n<head>\n<meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f'<title>{TITLE}</title>\n<link rel="icon" href="data:,">\n<style>{_STYLE}</style>\n</head>\n<body>',
        f"<h1>{TITLE}</h1>",
        f"<p>{escape(_opening(pages))}</p>",
        f"<nav>{links}</nav>",
        *(f'<p class="note">{escape(problem)}</p>' for problem in problems),
    ]
    parts += [f'<p class="caveat">{escape(caveat)}</p>' for caveat in _caveats(pages)]
    rows = [(page, claim) for page in pages for claim in page.claims]
    if rows:
        parts.append(f'<h2 id="claims">Claims</h2>\n<p class="small">{escape(RULE)}</p>')
        parts.append(_table(("claim", "verdict", "measured", "test"), [_claim_cells(*row) for row in rows]))
    for page in pages:
        parts += _section(page, tables, plots_root)
    theory = [name for name in THEORY if read_png(plots_root, THEORY_FOLDER, name)]
    if theory:
        parts.append('<h2 id="theory">The objectives themselves</h2>\n<p>Exact: no run is behind these figures.</p>')
        parts += [_figure(plots_root, THEORY_FOLDER, name, THEORY[name], THEORY[name]) for name in theory]
    return "\n".join([*parts, "</body>\n</html>\n"])


def page_paths(plots_root: str | Path) -> list[Path]:
    """Where index.html and README.md go. Raises ValueError if there is one that was not written by this module."""
    paths = [inside(plots_root, name) for name in ("index.html", "README.md")]
    for path in paths:
        if os.path.lexists(path):
            head = read_bytes(path)[:2000].decode(errors="replace")
            # Pages of before the mark are known by their title.
            if MARK not in head and not head.startswith(f"# {TITLE}\n") and f"<title>{TITLE}</title>" not in head:
                raise ValueError(f"{path} was not written by maxrl-bench and is not replaced; draw into another folder")
    return paths


def _link(*parts: str) -> str:
    """A relative link to a file; no part of it can be taken for a scheme (javascript:), markup, or the link's end."""
    return quote("/".join(parts), safe="/.-_~")


def _caveats(pages: Sequence[Page]) -> list[str]:
    """The experiments' caveats, each once, with the names of the experiments that state it."""
    names: dict[str, list[str]] = {}
    for page in pages:
        if page.caveat:
            names.setdefault(page.caveat, []).append(page.experiment)
    return [f"{', '.join(own)}: {caveat}" for caveat, own in names.items()]


def _opening(pages: Sequence[Page]) -> str:
    runs = sum(page.provenance.runs for page in pages)
    return (
        f"{len(pages)} experiment{'s' if len(pages) != 1 else ''}, {runs} runs. `make plots` makes every figure and "
        "number here from the tables in results/; captions state the number of seeds and what the intervals are over. "
        "pass@k is the share of held-out instances that at least one of k rollouts solves."
    )


def _section(page: Page, tables: str, plots_root: Path) -> list[str]:
    name = escape(page.experiment)
    parts = [f'<h2 id="{name}">{name}</h2>', f"<p><strong>{escape(page.question)}</strong></p>"]
    parts += [f'<p class="note">{escape(note)}</p>' for note in page.notes]
    for figure in page.figures:
        parts.append(_figure(plots_root, page.experiment, figure.name, figure.caption, figure.alt))
    if page.not_drawn:
        reasons = "; ".join(f"{entry.name} ({entry.reason})" for entry in page.not_drawn)
        parts.append(f'<p class="small">Not drawn: {escape(reasons)}.</p>')
    heads, rows = _summary(page.summary)
    scores = _table(heads, [[(escape(cell), "n" if i > 1 else "") for i, cell in enumerate(row)] for row in rows])
    parts.append(f"<details><summary>Final scores, with 95 % intervals</summary>{scores}</details>")
    detail = [(claim, comparison) for claim in page.claims for comparison in claim.per_task]
    if detail:
        cells = [[(escape(cell), kind) for cell, kind in _detail(c.id, comparison)] for c, comparison in detail]
        inner = _table(("claim", "task", "effect", "interval alone"), cells)
        parts.append(f"<details><summary>Claims task by task (uncorrected)</summary>{inner}</details>")
    origin = "".join(f"<li>{escape(line)}</li>" for line in _origin(page.provenance))
    folder = page.experiment
    links = ", ".join(f'<a href="{tables}/{_link(folder, file)}">{file}</a>' for file in TABLES)
    own = ", ".join(f'<a href="{_link(folder, file)}">{file}</a>' for file in _own_tables(page))
    parts.append(f"<details><summary>Provenance and tables</summary><ul>{origin}<li>{links}, {own}</li></ul></details>")
    return parts


def _detail(claim: str, comparison: Comparison) -> list[tuple[str, str]]:
    return [(claim, ""), (comparison.task, ""), (_effect(comparison), "n"), (comparison.outcome, "")]


def _figure(plots_root: Path, folder: str, name: str, caption: str, alt: str) -> str:
    png = read_png(plots_root, folder, name)
    if png is None:
        return (
            f'<p class="note">The figure {escape(name)} is not as it was drawn; `maxrl-bench plot` draws it anew.</p>'
        )
    width, height = struct.unpack(">II", png[16:24])
    return (
        f'<figure id="{escape(folder)}-{escape(name)}"><a href="{_link(folder, f"{name}.png")}">'
        f'<img src="data:image/png;base64,{base64.b64encode(png).decode()}" width="{width}" height="{height}" '
        f'alt="{escape(alt)}"></a><figcaption>{escape(caption)}</figcaption></figure>'
    )


def _table(heads: Sequence[str], rows: Sequence[Sequence[tuple[str, str]]]) -> str:
    """A table of (HTML, class) cells; on narrow screens each row becomes a list with the heads as labels."""
    head = "".join(f'<th scope="col">{escape(h)}</th>' for h in heads)
    body = "\n".join(
        "<tr>"
        + "".join(
            f'<td data-label="{escape(h)}" class="{c}">{cell}</td>' for h, (cell, c) in zip(heads, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    return f"<table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table>"


def _claim_cells(page: Page, claim: Claim) -> list[tuple[str, str]]:
    measured = "<br>".join(escape(_effect(comparison)) for comparison in claim.comparisons) or "no data"
    notes = "".join(f'<br><span class="small">Note: {escape(note)}.</span>' for note in claim.notes)
    name = escape(page.experiment)
    return [
        (f"{escape(claim.statement)}", ""),
        (f"{_SIGNS.get(claim.verdict, '?')} {escape(claim.verdict)}", "verdict"),
        (measured + (f"<br>p = {claim.p:.2g}" if claim.p is not None else "") + notes, "n"),
        (f'{escape(claim.test)} (<a href="#{name}">{name}</a>)', ""),
    ]


def _effect(comparison: Comparison) -> str:
    if comparison.effect is None:
        return f"{comparison.metric} against {comparison.against}: no value"
    limits = (
        f" [{comparison.low:+.3f}, {comparison.high:+.3f}]"
        if comparison.low is not None and comparison.high is not None
        else ""
    )
    seeds = f"{comparison.seeds} seed{'s' if comparison.seeds > 1 else ''}"
    return f"{comparison.metric} against {comparison.against}: {comparison.effect:+.3f}{limits}, {seeds}"


def _summary(summary: Sequence[Scores]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of final scores: metrics without any value are left out."""
    names = dict.fromkeys(name for row in summary for name, score in (row.model_extra or {}).items() if score)
    rows = []
    for row in summary:
        scores = row.model_extra or {}
        needed = f"{row.rollouts:,.0f}" if row.rollouts is not None else "–"
        cells = [_estimate(scores[name]) if scores.get(name) else "" for name in names]
        identity = [row.task, row.objective, str(row.seeds)]
        rows.append([*identity, *cells, f"{needed} ({row.reached} of {row.seeds} seeds)"])
    return ["task", "objective", "seeds", *names, "rollouts to pass@1 = 0.5, median"], rows


def _estimate(estimate: Sequence[float | None]) -> str:
    value, low, high = estimate
    return f"{value:.3f}" + (f" [{low:.3f}, {high:.3f}]" if low is not None and high is not None else "")


def _own_tables(page: Page) -> list[str]:
    return ["summary.csv"] + (["claims.csv"] if page.claims else [])


def _origin(origin: Origin) -> list[str]:
    lines = [f"{origin.runs} runs" + (f", {origin.missing} more without a result" if origin.missing else "")]
    if origin.profile:
        lines.append(f"profile {origin.profile} of {origin.file or 'the experiment file'}")
    if origin.seconds and origin.runs:
        per_run = origin.seconds / origin.runs
        lines.append(f"{origin.seconds:,.0f} seconds of computing, {per_run:.1f} per run on average")
    for made in origin.made_by:
        versions = made.get("packages")
        versions = versions if isinstance(versions, dict) else {}  # the file may come from anywhere
        packages = ", ".join(f"{k} {v}" for k, v in versions.items() if v)
        machine = ", ".join(
            str(made[key]) + unit
            for key, unit in (("processor", ""), ("cores", " cores"), ("memory_gb", " GB"), ("platform", ""))
            if made.get(key)
        )
        commit = f"commit {str(made.get('commit'))[:12]}" + (" with uncommitted changes" if made.get("dirty") else "")
        lines.append(f"{made.get('runs', '?')} runs: {commit}; Python {made.get('python')}; {packages}; {machine}")
    return lines


def _md(text: str) -> str:
    """Text with all Markdown and HTML escaped, on one line."""
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", escape(" ".join(text.split()), quote=False))


def markdown_page(pages: Sequence[Page], problems: Sequence[str], results_root: Path, plots_root: Path) -> str:
    """README.md: the claims table and the figures with their captions."""
    tables = _link(Path(os.path.relpath(results_root, plots_root)).as_posix())
    parts = [
        f"# {TITLE}",
        f"<!-- {MARK} -->",
        _opening(pages),
        "[index.html](index.html) shows the same on one page that needs no network.",
    ]
    parts += [f"> {_md(problem)}" for problem in problems]
    parts += [f"> **{_md(caveat)}**" for caveat in _caveats(pages)]
    rows = [(page, claim) for page in pages for claim in page.claims]
    if rows:
        lines = ["| claim | verdict | measured | test |", "|---|---|---|---|"]
        for page, claim in rows:
            measured = "<br>".join(_md(_effect(comparison)) for comparison in claim.comparisons) or "no data"
            measured += f"<br>p = {claim.p:.2g}" if claim.p is not None else ""
            measured += "".join(f"<br>Note: {_md(note)}." for note in claim.notes)
            name = page.experiment
            test = f"{_md(claim.test)} ([{_md(name)}](#{name}))"
            verdict = f"{_SIGNS.get(claim.verdict, '?')} **{_md(claim.verdict)}**"
            lines.append(f"| {' | '.join((_md(claim.statement), verdict, measured, test))} |")
        parts += ["## Claims", RULE, "\n".join(lines)]
    for page in pages:
        name = page.experiment
        parts += [f"## {_md(name)}", f"**{_md(page.question)}**", *(f"> {_md(note)}" for note in page.notes)]
        for figure in page.figures:
            parts += [f"![{_md(figure.alt)}]({_link(name, figure.name)}.png)", _md(figure.caption)]
        if page.not_drawn:
            reasons = "; ".join(f"{entry.name} ({entry.reason})" for entry in page.not_drawn)
            parts.append(f"Not drawn: {_md(reasons)}.")
        own = [f"[{file}]({_link(name, file)})" for file in _own_tables(page)]
        raw = [f"[{file}]({tables}/{_link(name, file)})" for file in TABLES]
        parts.append(f"Tables: {', '.join(own + raw)}. {_md('. '.join(_origin(page.provenance)[:3]))}.")
    theory = [name for name in THEORY if read_png(plots_root, THEORY_FOLDER, name)]
    if theory:
        parts += ["## The objectives themselves", "Exact: no run is behind these figures."]
        parts += [f"![{THEORY[name]}]({THEORY_FOLDER}/{name}.png)\n\n{THEORY[name]}" for name in theory]
    return "\n\n".join(parts) + "\n"
