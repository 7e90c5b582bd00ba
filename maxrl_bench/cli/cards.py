"""What an objective is, on one page: its weights, exact population weight and noise, as text, JSON or figure."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from maxrl_bench.names import shorten
from maxrl_bench.objectives import outside
from maxrl_bench.objectives.formula import REQUIRED, Objective
from maxrl_bench.objectives.population import Scores, effective_order, least_second_moment, second_moment
from maxrl_bench.objectives.table import OBJECTIVES, bind, find_row
from maxrl_bench.storage.files import write_file

PASS_RATES = (1e-6, 1e-4, 0.001, 0.003, 0.01, 0.03, 0.1, 0.2, 0.3, 0.5, 0.7, 0.9, 0.99)
_MAX_ROWS = 17  # of the text table of weights; the JSON has every count

_NOTES: tuple[tuple[Callable[[Objective], bool], str], ...] = (
    (lambda o: o.is_likelihood, "samples no rollouts, so that it has neither weights nor noise"),
    (
        lambda o: bool(o.row.pooled),
        "weighs an instance by the successes of its whole batch: no table of its own, no w(p)",
    ),
    (
        lambda o: o.row.remember is not None,
        "remembers earlier batches: the tables below are those of the first batch",
    ),
    (
        lambda o: o.row.entropy_bonus is not None,
        "not count-based: the tables below are its reward part, without the bonus",
    ),
    (
        lambda o: o.row.smoothing is not None,
        "not count-based: the tables below are its reward part, without the smoothing",
    ),
)


REASONS = {
    "maxrl": (
        "the paper trains with it; its weights sum to 0 in every group, so that what is nearly",
        "solved makes little noise (at p = 0.9 about a tenth of eq. 9's), and a group without a success",
        "changes nothing; the price is order N-1 instead of N",
    ),
    "pkpo": (
        "the paper recommends a baseline; pkpo_plain has none, and pushes failures up, too: the same",
        "w(p), but at N = 64 and k = 16 it has 7 times the noise at p = 0.01, and 110 times at p = 0.1",
    ),
}


def card(name: str, num_rollouts: int, knobs: dict[str, Any], as_json: bool, figure: str | Path | None) -> str:
    """The card of an objective for groups of `num_rollouts`, as text or one JSON object; with a figure if asked.

    `figure` is the file to write it to, a .png or .svg. Raises ValueError as `objectives.bind` does and on other files.
    """
    objective = bind(name, num_rollouts, **knobs)
    if figure is not None and Path(figure).suffix.lower() not in (".png", ".svg"):
        raise ValueError(f"a figure's file ends in .png or .svg, got {shorten(str(figure))}")
    facts = _facts(objective)
    if figure is not None:
        from maxrl_bench.report.objective_figures import draw_card
        from maxrl_bench.report.style import render  # matplotlib is slow to load

        write_file(Path(figure), render(draw_card(objective), Path(figure).suffix.lower()))
    return json.dumps(facts, allow_nan=False) if as_json else _text(objective, facts)


def list_objectives(report: Callable[[str], None], as_json: bool) -> str:
    """Every objective with its paper and knobs: a text table, or a JSON list of objects.

    `report` is called with one line on each plug-in that cannot be used; the others are listed.
    """
    known = dict(OBJECTIVES)
    plugged_in = outside.names(OBJECTIVES)
    for name in plugged_in:
        try:
            known[name] = find_row(name)
        except ValueError as error:
            report(str(error))
    for problem in outside.left_out(OBJECTIVES):
        report(problem)
    rows = [
        {
            "name": name,
            "label": row.label,
            "recommended_as": _alias(name),
            "paper": row.paper,
            "formula": row.formula,
            "edges": row.edges,
            "count_based": row.count_based,
            "exact_pass_rates": row.on_success is None,
            "plug_in": plugged_in.get(name),
            "knobs": {
                knob: {
                    "type": rule.kind.__name__,
                    "minimum": rule.low,
                    "maximum": _maximum(rule.high),
                    "default": rule.default,
                }
                for knob, rule in row.knobs.items()
            },
        }
        for name, row in known.items()
    ]
    if as_json:
        return json.dumps(rows, allow_nan=False)
    lines = [("name", "knobs", "count-based", "from", "paper")]
    for name, row in known.items():
        shown = ", ".join(k if r.default is REQUIRED else f"{k}={r.default:g}" for k, r in row.knobs.items())
        source = "plug-in" if name in plugged_in else "built in"
        alias = _alias(name)
        lines.append(
            (
                f"{name} (or {alias})" if alias else name,
                shown or "-",
                "yes" if row.count_based else "no",
                source,
                row.paper,
            )
        )
    return _columns(lines, left=5)


def _maximum(high: float | None) -> float | str | None:
    """A knob's upper bound for JSON: a number, "rollouts", or null for none."""
    if high is None:
        return "rollouts"
    return high if math.isfinite(high) else None


def _facts(objective: Objective) -> dict[str, Any]:
    p, n = np.array(PASS_RATES), objective.num_rollouts
    weighed, of_p_alone = not (objective.is_likelihood or objective.row.pooled), not objective.row.pooled
    closed, limit = objective.closed_form(p), objective.limit(p)
    order = objective.order
    return {
        "objective": objective.name,
        "label": objective.label,
        "knobs": dict(objective.knobs),
        "rollouts": n,
        "paper": objective.row.paper,
        "formula": objective.row.formula,
        "edges": objective.row.edges,
        "count_based": objective.row.count_based,
        "recommended_as": _alias(objective.name),
        "note": next((note for applies, note in _NOTES if applies(objective)), None),
        "on_success": objective.weights(np.arange(1, n + 1))[0].tolist() if weighed else [],
        "on_failure": objective.weights(np.arange(n))[1].tolist() if weighed else [],
        "pass_rate": p.tolist(),
        "weight": _finite(objective.population_weight(p)) if of_p_alone else None,
        "closed_form": None if closed is None else _finite(closed),
        "limit": None if limit is None else _finite(limit),
        "order": order if order is None or math.isfinite(order) else None,
        "effective_order": _finite(effective_order(objective, p)) if of_p_alone else None,
        "second_moment": _finite([second_moment(objective, Scores(x)) for x in PASS_RATES]) if weighed else None,
        "least_second_moment": _finite([least_second_moment(objective, x) for x in PASS_RATES]) if weighed else None,
    }


def _alias(name: str) -> str | None:
    """The name that stands for an objective, too, if there is one."""
    return next((alias for alias, of in outside.ALIASES.items() if of == name), None)


def _finite(values: Iterable[float]) -> list[float | None]:
    """For JSON, which has no infinity and no NaN: null."""
    return [float(value) if math.isfinite(value) else None for value in values]


def _text(objective: Objective, facts: Mapping[str, Any]) -> str:
    parts = [f"{objective.label}  ({objective.name}, {objective.num_rollouts} rollouts)"]
    lines = [("paper", facts["paper"]), ("formula", facts["formula"]), ("edges", facts["edges"])]
    lines.append(("order", _order_phrase(objective)))
    if facts["recommended_as"]:
        first, *others = REASONS[facts["recommended_as"]]
        lines += [("name", f"'{facts['recommended_as']}' stands for it: {first}"), *(("", line) for line in others)]
    if facts["note"]:
        lines.append(("note", facts["note"]))
    parts.append("\n".join(f"  {key:<8} {value}" for key, value in lines))
    if facts["on_success"]:
        parts.append(_weight_table(objective, facts))
    if facts["weight"] is not None:
        parts.append(_population_table(facts))
    return "\n\n".join(parts)


def _order_phrase(objective: Objective) -> str:
    order = objective.order
    if order is None:
        return "none: not a member of the MaxRL family"
    if math.isinf(order):
        return "infinite: maximum likelihood, w(p) = 1/p"
    return f"{order}: w(p) = (1 - (1-p)^{order}) / p"


def _weight_table(objective: Objective, facts: Mapping[str, Any]) -> str:
    n = objective.num_rollouts
    counts = range(n + 1) if n < _MAX_ROWS else sorted({*range(5), *np.geomspace(5, n, 10).astype(int), n - 1, n})
    rows = [("successes K", "on success s(K)", "on failure f(K)")]
    for k in counts:
        on_success = f"{facts['on_success'][k - 1]:.6g}" if k else "-"
        rows.append((f"{k}", on_success, f"{facts['on_failure'][k]:.6g}" if k < n else "-"))
    return _columns(rows)


def _population_table(facts: Mapping[str, Any]) -> str:
    p = facts["pass_rate"]
    header = ["pass rate p", "weight w(p)", "closed form", "rel. difference", "effective order"]
    closed = facts["closed_form"] or [None] * len(p)
    differences = [
        abs(w - c) / c if c and w is not None else None for w, c in zip(facts["weight"], closed, strict=True)
    ]
    columns = [p, facts["weight"], closed, differences, facts["effective_order"]]
    notes = [
        "w(p) by the exact binomial sum; effective order: that of MaxRL with the same weight at p (-: at or beyond ML)."
    ]
    if facts["second_moment"] is not None:
        header += ["noise E|g|^2", "times the least"]
        least = facts["least_second_moment"]
        ratios = [m / b if b and m is not None else None for m, b in zip(facts["second_moment"], least, strict=True)]
        columns += [facts["second_moment"], ratios]
        notes.append("noise: for orthogonal scores of norm 1; the least: of any count-based estimator with this w(p).")
    formats = [".6g", ".8g", ".8g", ".1e", ".6g", ".4g", ".4g"]
    rows = [tuple(header)]
    for row in zip(*columns, strict=True):
        rows.append(tuple("-" if x is None else format(x, form) for x, form in zip(row, formats, strict=False)))
    return "\n".join([_columns(rows), *(f"  {note}" for note in notes)])


def _columns(rows: Sequence[Sequence[str]], left: int = 0) -> str:
    """A table in aligned columns, the first `left` of them flush left, the others flush right."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    aligned = [
        [
            cell.ljust(width) if i < left else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        for row in rows
    ]
    return "\n".join(("  " + "   ".join(row)).rstrip() for row in aligned)
