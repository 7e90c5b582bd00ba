"""Which objective the others are compared with in a figure, and the differences, paired by seed and instance."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from maxrl_bench.analysis.evidence import Evidence
from maxrl_bench.analysis.series import Panel, Series

Shown = Mapping[Panel, Sequence[Series]]


def reference(evidence: Evidence, shown: Shown) -> Series | None:
    """The series that differences of a figure are taken to; None where no panel has two.

    The first that a claim about pass@k compares with; else GRPO; else the first. One that more panels have goes before.
    """
    every = list(dict.fromkeys(series for present in shown.values() for series in present))
    sides = [claim.against[0] for claim in evidence.claims if claim.metric[0].startswith("pass@")]
    rows = {
        s: [evidence.runs[r] for p, own in shown.items() if s in own for r in evidence.members(s, p)] for s in every
    }
    claimed = [series for side in sides for series in every if any(side.matches(row) for row in rows[series])]
    usual = [series for series in every if series.objective_name == "grpo"]

    def panels(series: Series) -> int:
        return sum(series in present and len(present) > 1 for present in shown.values())

    best = max([*claimed, *usual, *every], key=panels, default=None)  # of equals the first
    return best if best is not None and panels(best) else None


def pairs(evidence: Evidence, shown: Shown, to: Series | None) -> dict[Panel, dict[Series, list[list[str]]]]:
    """By panel and series: its runs and those of the reference, on the seeds that both have; without any, left out."""
    found: dict[Panel, dict[Series, list[list[str]]]] = {}
    for panel, present in shown.items():
        for series in present if to in present else ():
            if series != to and to is not None:
                groups = evidence.in_common([evidence.members(s, panel) for s in (series, to)])
                if groups[0]:
                    found.setdefault(panel, {})[series] = groups
    return found


def seeds_in(found: Mapping[Panel, Mapping[Series, list[list[str]]]]) -> dict[str, dict[str, int]]:
    """The number of seeds of each pair, as `style.count_seeds` takes them."""
    return {panel.title: {s.label: len(groups[0]) for s, groups in own.items()} for panel, own in found.items()}


def difference(ours: np.ndarray, theirs: np.ndarray, points: int = 0) -> np.ndarray:
    """Ours minus theirs, [S] or [S, I], followed by `points` more axes.

    Where the two have other instances, only the seeds are common, and scores are averaged over instances first.
    """
    if ours.shape != theirs.shape:
        ours, theirs = (s.mean(axis=1) if s.ndim - points == 2 else s for s in (ours, theirs))
    return np.asarray(ours - theirs)


def along_training(evidence: Evidence, groups: Sequence[Sequence[str]], metric: str) -> tuple[np.ndarray, np.ndarray]:
    """The difference in a metric at the steps at which both were evaluated: steps [X], differences [S, X]."""
    ours, theirs = groups
    steps, a = evidence.curves(ours, metric, "step", theirs)
    other_steps, b = evidence.curves(theirs, metric, "step", ours)
    common, i, j = np.intersect1d(steps, other_steps, return_indices=True)
    return common, a[:, i] - b[:, j]
