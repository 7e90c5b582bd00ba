"""All rows of the table at once: a figure, a page with sliders, and the table of those that are alike."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from maxrl_bench.objectives.alike import alike, excess_noise, weighed
from maxrl_bench.objectives.formula import Objective
from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment, tabulated
from maxrl_bench.report.palette import style_of
from maxrl_bench.report.style import GREY, WIDTH, Drawing, save, style
from maxrl_bench.storage.files import write_file

ROLLOUTS = 16  # of the figure and of the table
_SLIDER = (4, 16, 64, 256)
_POINTS = 31
_NOISE_AT = (0.001, 0.1, 0.9)
_PALEST_NOISE = 100.0
_TEMPLATES = PackageLoader("maxrl_bench.report")


def rates(points: int = _POINTS) -> np.ndarray:
    """Pass rates from 0.0001 to 0.99, even in the log-odds."""
    odds = np.linspace(math.log(1e-4 / (1 - 1e-4)), math.log(0.99 / 0.01), points)
    return 1 / (1 + np.exp(-odds))


def rows(folder: Path) -> Path:
    """Weight, bias and noise of every row that weighs by its own count, as colours."""
    objectives, p = [tabulated(one) for one in weighed(ROLLOUTS)], rates(61)
    weight = np.array([one.population_weight(p) for one in objectives])
    noise = np.array([[excess_noise(one, float(x)) for x in p] for one in objectives])
    panels = (
        ("weight w(p)", weight, LogNorm(0.01, 100), "viridis"),
        ("share of ML's weight, p w(p)", p * weight, LogNorm(0.01, 1), "viridis"),
        ("noise, times the least", noise, LogNorm(1, _PALEST_NOISE), "cividis_r"),
    )
    with style():
        figure = Figure(figsize=(WIDTH, 1.4 + 0.2 * len(objectives)), layout="constrained")
        for axes, (title, values, norm, colors) in zip(figure.subplots(1, 3, sharey=True), panels, strict=True):
            mesh = axes.pcolormesh(p, np.arange(len(objectives)), values, norm=norm, cmap=colors, shading="nearest")
            axes.set(xscale="logit", xlabel="pass rate p")
            axes.set_xticks([0.001, 0.01, 0.1, 0.5, 0.9], ["0.001", "0.01", "0.1", "0.5", "0.9"])
            axes.set_xticks([], minor=True)
            axes.set_title(title, loc="left", fontweight="bold")
            axes.grid(visible=False)
            figure.colorbar(mesh, ax=axes, location="bottom", extend="both", shrink=0.9)
        axes.set_yticks(np.arange(len(objectives)), [one.label for one in objectives])
        axes.invert_yaxis()
        note = (
            f"N = {ROLLOUTS}, exact sums; an order at N, k = 4, other knobs at their defaults. Lines that are alike in "
            "the left two panels are the same in expectation."
        )
        figure.supxlabel(note, fontsize=7.5, color=GREY, x=0.01, ha="left")
        alt = "Three panels of colours, one line per objective, against the pass rate: weight, bias and noise."
        return save(Drawing(figure, "All objectives at once.", alt), folder / "rows")


def page(folder: Path) -> Path:
    """theory.html: the same as curves, with sliders for N and p; self-contained, no network."""
    p = rates()
    data = {
        "rates": [_digits(x) for x in p],
        "sizes": _SLIDER,
        "rows": [
            {"name": one.name, "label": one.row.label, "color": style_of(one.name)["color"], "formula": one.row.formula}
            for one in weighed(_SLIDER[0])
        ],
        "at": [[_numbers(one, p) for one in weighed(n)] for n in _SLIDER],
    }
    # "<" would end the script that holds it.
    text = json.dumps(data, separators=(",", ":"), ensure_ascii=False).replace("<", "\\u003c")
    environment = Environment(loader=_TEMPLATES, autoescape=True, keep_trailing_newline=True, undefined=StrictUndefined)
    path = folder / "theory.html"
    write_file(path, environment.get_template("theory.html").render(data=Markup(text)).encode())
    return path


def table(num_rollouts: int = ROLLOUTS) -> str:
    """The objectives that are the same in expectation, in Markdown: who, by which factor, and who makes least noise."""
    head = ["the same in expectation", *(f"least noise at p = {p:g}" for p in _NOISE_AT)]
    lines = [head, ["---"] * len(head)]
    for members, factors in alike(num_rollouts):
        who = ", ".join(_member(one, factor) for one, factor in zip(members, factors, strict=True))
        best = []
        for p in _NOISE_AT:
            noise = [excess_noise(one, p) for one in members]
            least = min(noise)
            names: dict[bytes, str] = {}  # by their weights: of those that are the same estimator, the first
            for one, value in zip(members, noise, strict=True):
                if value <= least * (1 + 1e-9):
                    names.setdefault(_weights(one), _call(one))
            best.append(f"{', '.join(names.values())}: {least:.3g}")
        lines.append([who, *best])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _weights(objective: Objective) -> bytes:
    """An objective's weights, up to a factor and to rounding."""
    n = objective.num_rollouts
    both = np.concatenate([objective.weights(np.arange(1, n + 1))[0], objective.weights(np.arange(n))[1]])
    return np.round(both / np.abs(both).max(), 9).tobytes()


def _member(objective: Objective, factor: float) -> str:
    return _call(objective) + ("" if abs(factor - 1) < 1e-9 else f" × {factor:.4g}")


def _call(objective: Objective) -> str:
    knobs = ", ".join(f"{knob}={value:g}" for knob, value in objective.knobs.items())
    return f"`{objective.name}({knobs})`" if knobs else f"`{objective.name}`"


def _numbers(objective: Objective, p: np.ndarray) -> dict[str, Any]:
    objective = tabulated(objective)
    noise = [second_moment(objective, Scores(float(x))) for x in p]
    least = [least_second_moment(objective, float(x)) for x in p]
    return {
        "label": objective.label,
        "weight": [_digits(x) for x in objective.population_weight(p)],
        "noise": [_digits(x) for x in noise],
        "excess": [_digits(a / b) if b else None for a, b in zip(noise, least, strict=True)],
    }


def _digits(value: float) -> float:
    return float(f"{value:.3g}")


FIGURES: Sequence[Any] = (rows, page)
