"""All claims of all experiments as one registry: plots/claims/claims.csv, from which every verdict can be recomputed.

The claims of a profile are one family, in whatever files they stand: their p values are adjusted together.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import pandas as pd

from maxrl_bench.analysis.claims import Compared, Verdict
from maxrl_bench.analysis.compare import settle
from maxrl_bench.report.folder import CLAIMS_FOLDER, Claim, Page, own_files, replace_files
from maxrl_bench.report.forest import Entry, forest
from maxrl_bench.report.numbers import rounded
from maxrl_bench.report.style import render, style
from maxrl_bench.storage.formats import to_csv

Row = dict[str, Any]


class Settled(NamedTuple):
    """A claim with the verdict that it has in its family, its adjusted p value, and how many claims the family has."""

    page: Page
    claim: Claim
    verdict: str
    p: float | None
    family: int


def settled(pages: Sequence[Page]) -> list[Settled]:
    """All claims of all pages, in their order, those of one profile as one family."""
    claims = [(page, claim) for page in pages for claim in page.claims]
    families: dict[str | None, list[int]] = {}
    for position, (page, _) in enumerate(claims):
        families.setdefault(page.provenance.profile, []).append(position)
    results: list[Settled | None] = [None] * len(claims)
    for positions in families.values():
        own = [claims[i][1] for i in positions]
        verdicts = settle([(claim.verdict, math.nan if claim.p is None else claim.p) for claim in own])
        for i, (word, p) in zip(positions, verdicts, strict=True):
            results[i] = Settled(*claims[i], word, rounded(p), len(positions))
    return [result for result in results if result is not None]


def write_claims(pages: Sequence[Page], plots_root: str | Path) -> None:
    """Write plots/claims/: claims.csv, and the forest plot claims.png; remove them where no page has a claim.

    Raises ValueError where files that were not written so are in the way.
    """
    registry = settled(pages)
    if not registry and not own_files(plots_root, CLAIMS_FOLDER):
        return
    files: dict[str, bytes] = {}
    index: Row = {"caption": "", "alt": ""}
    if registry:
        files["claims.csv"] = csv_table([row for entry in registry for row in _rows(entry)])
        entries = [Entry(s.page.experiment, s.claim, s.verdict, s.p) for s in registry]
        with style():
            drawing = forest(entries)
        if drawing is not None:
            files["claims.png"] = render(drawing)
            index = {"caption": drawing.caption, "alt": drawing.alt}
    replace_files(plots_root, CLAIMS_FOLDER, files, index)


def _rows(entry: Settled) -> Iterator[Row]:
    page, claim = entry.page, entry.claim
    shared: Row = {"profile": page.provenance.profile, "experiment": page.experiment, "claim": claim.id}
    shared |= {"statement": claim.statement, "test": claim.test, "verdict": entry.verdict}
    shared |= {"p_claim": claim.p, "p_adjusted": entry.p, "family": entry.family}
    parts = {"claim": claim.comparisons, "task alone": claim.per_task, "other moment": claim.other_moment}
    rows = [{"part": part, **comparison.model_dump()} for part, own in parts.items() for comparison in own]
    rows = [row | {"by_seed": json.dumps(row["by_seed"]) if row["by_seed"] else ""} for row in rows]
    yield from ({**shared, **row} for row in rows or [{}])


def claim_entry(verdict: Verdict) -> Row:
    """A claim as figures.json holds it, before its family is known."""
    return {
        "id": verdict.id,
        "statement": verdict.statement,
        "test": verdict.test,
        "verdict": verdict.verdict,
        "p": rounded(verdict.p_value),
        "comparisons": [_comparison(c) for c in verdict.comparisons],
        "per_task": [_comparison(c) for c in verdict.per_task],
        "other_moment": [_comparison(c) for c in verdict.other_moment],
        "notes": list(dict.fromkeys(verdict.notes)),
    }


def _comparison(compared: Compared) -> Row:
    result = compared.result
    row: Row = {"task": compared.task or "all", "when": compared.when, "metric": compared.metric}
    row |= {"compare": compared.ours, "against": compared.theirs}
    row |= {"direction": result.direction, "margin": result.margin, "by_margin": result.by_margin}
    row |= {name: rounded(getattr(result, name)) for name in ("effect", "low", "high", "df")}
    row |= {"seeds": result.seeds, "instances": result.instances, "collapsed": result.collapsed}
    row |= {"p": rounded(result.p), "outcome": result.verdict}
    return row | {"first": result.first, "by_seed": [rounded(value) for value in result.by_seed]}


def csv_table(rows: Sequence[Row]) -> bytes:
    """Rows as CSV, of which no cell runs as a formula."""
    return to_csv(pd.DataFrame(rows).map(plain_cell))


def plain_cell(value: Any) -> Any:
    """A cell of a CSV table; text that spreadsheets would run as a formula gets an apostrophe before it.

    Source: OWASP, "CSV Injection".
    """
    runs = isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r", "\n", "＝", "＋", "－", "＠"))
    return f"'{value}" if runs else value
