"""The report as an HTML page beside its figures, and as Markdown for code hosts: what templates/ show.

Nothing is computed here.
"""

from __future__ import annotations

import functools
import os
import re
import struct
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from maxrl_bench.report.findings import Table, markdown_table
from maxrl_bench.report.folder import (
    CLAIMS_FOLDER,
    MARK,
    THEORY_FOLDER,
    TITLE,
    Collapses,
    Comparison,
    Origin,
    Page,
    Reached,
    Room,
    Scores,
    read_drawing,
    read_png,
)
from maxrl_bench.report.forest import AT_EVERY_LOOK, LOGARITHMS, SIGNS, measure
from maxrl_bench.report.registry import settled
from maxrl_bench.storage.tables import METRICS, PASS_RATES

RULE = (
    "Each test is written in the experiment file, before the runs. A comparison is better where its 95 % interval lies "
    "beyond 0 (or, where the claim says so, beyond the margin) on the claimed side, worse on the other, practically "
    "equal inside the margin. A claim is supported if all comparisons are as claimed, contradicted if one is worse, "
    "practically equal if all are better or practically equal, and undecided if its p value, by Holm's correction over "
    "all claims of the profile, is not below 0.05. Cannot be judged: runs, values or seeds are lacking. Effects are "
    "paired by seed (and held-out instance); intervals are Student's, over what each line says; tasks are averaged, as "
    "independent, unless a line names one. claims.csv has all that the verdicts follow from."
)
ROOM = (
    "means over seeds; in brackets the share of exact maximum likelihood's gain over the base policy. Last fifth: the "
    "most that one of the objectives gained in pass@1 over the last fifth of the training; below 0.01 learning is over."
)
ADVICE = "Differences are of final scores, with 95 % intervals; single numbers are means over seeds."
# Figures of `objective_figures.draw_all`, shown where it has drawn them.
THEORY = {
    "rows": "Weight, bias and noise of every row, exactly, at 16 rollouts; as curves with sliders: theory.html.",
    "weights": "How much each objective weighs an instance of pass rate p, exactly. Maximum likelihood is 1/p.",
    "bias_variance_pass_rate": "Bias and noise of each objective's gradient, exactly, against the pass rate.",
    "bias_variance_rollouts": "Bias and noise of each objective's gradient, exactly, against the number of rollouts.",
    "rollouts_needed": "The rollouts that each objective needs for an equally exact gradient.",
}
TABLES = (METRICS, PASS_RATES, "provenance.json")
_TEMPLATES = PackageLoader("maxrl_bench.report")
_LAYOUT: dict[str, Any] = {
    "trim_blocks": True,
    "lstrip_blocks": True,
    "keep_trailing_newline": True,
    "undefined": StrictUndefined,
}


class Content(NamedTuple):
    """What the page is about: the advice that the results allow, the experiments, and what is wrong with others."""

    advice: Table
    pages: Sequence[Page]
    problems: Sequence[str]
    results_root: Path
    plots_root: Path


def html_page(content: Content) -> str:
    """index.html: advice, claims, then each experiment's figures, scores, provenance; needs no network."""
    environment = Environment(loader=_TEMPLATES, autoescape=True, **_LAYOUT)
    return environment.get_template("index.html").render(_content(content))


def markdown_page(content: Content) -> str:
    """README.md: the advice, the claims table, and the figures with their captions."""
    environment = Environment(loader=_TEMPLATES, autoescape=False, finalize=_md, **_LAYOUT)
    return environment.get_template("README.md").render(_content(content))


def _content(content: Content) -> dict[str, Any]:
    """What the templates show. All text in it is escaped by them, but for `Markup`."""
    advice, pages, problems, results_root, plots_root = content
    return {
        "mark": MARK,
        "title": TITLE,
        "rule": f"{RULE} {AT_EVERY_LOOK}" if _at_every_look(pages) else RULE,
        "signs": SIGNS,
        "plain": Markup,  # text of ours, which needs no escape
        "opening": _opening(pages),
        "advice": advice,
        "advice_note": f"{ADVICE} {_left_out(advice)}".strip(),
        "advice_in_markdown": Markup(markdown_table(advice, "")),
        "prose": _prose,
        "pages": pages,
        "problems": problems,
        "caveats": _caveats(pages),
        "claims": settled(pages),
        "forest": read_drawing(plots_root, CLAIMS_FOLDER) if read_png(plots_root, CLAIMS_FOLDER, "claims") else None,
        "claims_folder": CLAIMS_FOLDER,
        "collapsed": _collapsed,
        "tables": TABLES,
        "results": _link(Path(os.path.relpath(results_root, plots_root)).as_posix()),
        "theory": {name: text for name, text in THEORY.items() if read_png(plots_root, THEORY_FOLDER, name)},
        "theory_folder": THEORY_FOLDER,
        "link": _link,
        "picture": functools.partial(_picture, plots_root),
        "effect": _effect,
        "scores": _summary,
        "room": _room,
        "room_note": ROOM,
        "not_drawn": _not_drawn,
        "own_tables": _own_tables,
        "origin": _origin,
    }


def _link(*parts: str) -> Markup:
    """A relative link to a file; no part of it can be taken for a scheme (javascript:), markup, or the link's end."""
    return Markup(quote("/".join(parts), safe="/.-_~"))


def _prose(text: str) -> Markup:
    """A text of ours in HTML: escaped, but for its `code` and **bold**."""
    text = re.sub(r"`([^`]+)`", r"<code>\1</code>", escape(text))
    return Markup(re.sub(r"\*\*(.+?)\*\*", r"<strong>\1</strong>", text))


def _left_out(table: Table) -> str:
    """How many rows of a table are left out and why; "" where none is."""
    number, every = len(table.left_out), len(table.left_out) + len(table.rows)
    return f"{number} of {every} rows are left out here: {'; '.join(table.left_out)}." if number else ""


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


def _at_every_look(pages: Sequence[Page]) -> bool:
    return any(c.first is not None for page in pages for claim in page.claims for c in claim.comparisons)


def _picture(plots_root: Path, folder: str, name: str) -> dict[str, Any] | None:
    """The size of a drawn PNG in pixels; None if it is absent or damaged."""
    png = read_png(plots_root, folder, name)
    if png is None:
        return None
    width, height = struct.unpack(">II", png[16:24])
    return {"width": width, "height": height}


def _not_drawn(page: Page) -> str:
    return "; ".join(f"{entry.name} ({entry.reason})" for entry in page.not_drawn)


def _effect(comparison: Comparison, task: bool = True) -> str:
    """A comparison in numbers; task: its task is named, if it is of one."""
    on = f" on {comparison.task}" if task and comparison.task != "all" else ""
    what = f"{'log2 of ' * (comparison.when in LOGARITHMS)}{measure(comparison)} against {comparison.against}{on}"
    if comparison.effect is None:
        return f"{what}: no value"
    limits = (
        f" [{comparison.low:+.3f}, {comparison.high:+.3f}]"
        if comparison.low is not None and comparison.high is not None
        else ""
    )
    seeds = f"{comparison.seeds} seed{'s' if comparison.seeds > 1 else ''}"
    if comparison.instances:
        seeds += f" x {comparison.instances} instances"
    if comparison.first is not None:
        seeds += ", at every look"
    return f"{what}: {comparison.effect:+.3f}{limits}, {seeds}"


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


def _room(rooms: Sequence[Room]) -> tuple[list[str], list[list[str]]]:
    """Heads and rows of the table of what each objective reaches of exact maximum likelihood's gain."""
    objectives = dict.fromkeys(one.objective for room in rooms for one in room.reached)
    rows = []
    for room in rooms:
        reached = {one.objective: one for one in room.reached}
        cells = [_reached(reached[name]) if name in reached else "" for name in objectives]
        late = "" if room.last_fifth is None else f"{room.last_fifth:+.3f} ({room.slowest})"
        rows.append([room.task, _in_a_row(room.base, "{:.3f}"), *cells, f"{room.steps:,}", late])
    return ["task", "base policy", *objectives, "steps", "last fifth"], rows


def _reached(one: Reached) -> str:
    known = any(share is not None for share in one.shares.values())
    return _in_a_row(one.scores, "{:.3f}") + (f" ({_in_a_row(one.shares, '{:.0%}')})" if known else "")


def _in_a_row(values: Mapping[str, float | None], form: str) -> str:
    return " / ".join("–" if value is None else form.format(value) for value in values.values())


def _collapsed(collapses: Sequence[Collapses]) -> str:
    """Who collapsed and how often, in words; "" where nobody did."""
    fallen = [c for c in collapses if c.collapsed]
    return "; ".join(
        f"{c.objective} {c.collapsed} of {c.runs} runs, {c.rate:.0%} [{c.low:.0%}, {c.high:.0%}]" for c in fallen
    )


def _own_tables(page: Page) -> list[str]:
    return ["summary.csv"] + ["collapse.csv"] * bool(page.collapse) + ["room.csv"] * bool(page.room)


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


def _md(value: Any) -> str:
    """Text with all Markdown and HTML escaped, on one line; `Markup` as it is."""
    if isinstance(value, Markup):
        return str(value)
    return re.sub(r"([\\`*_\[\]|~#$])", r"\\\1", escape(" ".join(str(value).split()), quote=False))
