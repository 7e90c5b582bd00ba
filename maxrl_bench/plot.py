"""Figures of an experiment's tables as matplotlib Figures, for notebooks and papers; pyplot is not touched.

>>> import maxrl_bench
>>> maxrl_bench.plot.pareto(maxrl_bench.load("objectives")).savefig("pareto.pdf")

`tables` is what `maxrl_bench.run` and `maxrl_bench.load` return, or what `load` takes. All raise ValueError, one line,
where the tables do not allow the figure, with the reason.
"""

from __future__ import annotations

import os

from matplotlib.figure import Figure

from maxrl_bench.advice.result import Advice
from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.names import did_you_mean, shorten
from maxrl_bench.report.advice_figure import draw_advice
from maxrl_bench.report.figures import FIGURES
from maxrl_bench.report.style import style
from maxrl_bench.storage.tables import Tables, load

__all__ = ["advice", "coverage", "draw", "pareto", "training"]


def pareto(tables: Tables | str | os.PathLike[str]) -> Figure:
    """pass@1 against pass@k along training, with the frontier and paired differences at the end; a panel per task."""
    return draw(tables, "pareto")


def coverage(tables: Tables | str | os.PathLike[str]) -> Figure:
    """pass@k against k after training, and paired differences."""
    return draw(tables, "coverage")


def training(tables: Tables | str | os.PathLike[str]) -> Figure:
    """pass@1 and pass@k on held-out instances along training, and paired differences."""
    return draw(tables, "training")


def advice(found: Advice) -> Figure:
    """What `maxrl_bench.advise` found: the prompts, the signal against N, shares of the gradient, gains."""
    if not isinstance(found, Advice):
        raise ValueError(f"plot.advice takes what maxrl_bench.advise returns, got {shorten(found)}")
    return draw_advice(found).figure


def draw(tables: Tables | str | os.PathLike[str], figure: str) -> Figure:
    """Any figure by name: those of the pages that `maxrl-bench plot` draws."""
    if figure not in FIGURES:
        raise ValueError(f"there is no figure {shorten(figure)}; {did_you_mean(figure, FIGURES)}")
    evidence = Evidence.of(load(tables))
    with style():
        return FIGURES[figure](evidence).figure
