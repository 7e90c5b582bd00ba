"""Scores of pairs of runs, ours and theirs of one task and seed: what a run alone does not have."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from maxrl_bench.analysis import stats
from maxrl_bench.analysis.evidence import Evidence

Runs = Sequence[str]


def front(evidence: Evidence, ours: Runs, theirs: Runs, metric: str) -> tuple[np.ndarray, list[str]]:
    """At equal pass@1 along training, how much higher ours was in a metric (`stats.front_gap`), [S]; and notes."""
    gaps = np.array(
        [stats.front_gap(*evidence.beside_pass_at_1(pair, metric)) for pair in zip(ours, theirs, strict=True)]
    )
    apart = int(np.isnan(gaps).sum())
    return gaps, [f"{apart} of {len(gaps)} pairs have no equal pass@1 above the base policy's"] * (apart > 0)


def samples(evidence: Evidence, ours: Runs, theirs: Runs, metric: str) -> tuple[np.ndarray, list[str]]:
    """log2 of how many times fewer samples ours needs for theirs' final pass@k (`stats.samples_saved`), [S]; and notes.

    Where it needs less than the fewest or more than the most that were measured, these stand for it, and are noted.
    """
    k, ks = int(metric.removeprefix("pass@")), np.array(evidence.ks, np.float64)
    if k not in ks:
        return np.full(len(ours), np.nan), [f"{metric} is not measured at every evaluation of all tasks"]
    curves = [evidence.final_pass_curves(runs) for runs in (ours, theirs)]
    a, b = (c.mean(axis=1) if c.ndim == 3 else c for c in curves)
    saved = stats.samples_saved(ks, a, b, k)
    who, whom = (evidence.runs[runs[0]]["objective"] for runs in (ours, theirs))
    bounds = {
        f"cover more with {ks[0]:g} sample than {whom} with {k}": np.isinf(saved),
        f"do not reach {metric} of {whom} with {ks[-1]:g} samples": saved == 0,
    }
    notes = [
        f"{int(found.sum())} of {len(saved)} runs of {who} {words}: the effect is a bound"
        for words, found in bounds.items()
        if found.any()
    ]
    return np.log2(np.clip(saved, k / ks[-1], k / ks[0])), notes


PAIRS: dict[str, Callable[[Evidence, Runs, Runs, str], tuple[np.ndarray, list[str]]]] = {
    "front": front,
    "samples": samples,
}
