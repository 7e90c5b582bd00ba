"""Intervals by resampling, for what has none in closed form: samples saved, performance profiles, chances to win.

Seeds are redrawn, and, where they are stored, held-out instances too, independently, since they are crossed; tasks
never are. What seeds and instances do together then counts three times (Owen 2007): intervals over both err on the wide
side. Percentile intervals of few seeds are too narrow (five cover about 84 % instead of 95), so the percentiles are the
expanded ones of Hesterberg 2015 (arXiv 1411.5279, section 5.3), at which the interval for a mean of normal values has
the width of Student's. At five seeds that is the outermost 0.1 %: 190 of RESAMPLES on either side, which puts the Monte
Carlo error of a limit at about 1 % of the interval's width. Below five seeds no resample lies so far out: it is their
whole range.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
from scipy import special

from maxrl_bench.analysis.crossed import FEWEST_SEEDS, LEVEL

RESAMPLES = 200_000
CHUNK = 2_000  # resamples held at once: few, so that they stay in the processor's cache
Task = tuple[np.ndarray, ...]  # scores [S, ...] or [S, I, ...] on common seeds and instances, redrawn together


def resamples(
    tasks: Sequence[Task],
    statistic: Callable[[list[Task]], np.ndarray],
    points: int = 0,
    number: int | None = None,
    seed: int = 0,
) -> np.ndarray:
    """A statistic of every resample, [R, ...].

    tasks: per task the arrays that are redrawn together, [S] or [S, I] each, followed by `points` more axes. statistic:
    of the same arrays with the seeds redrawn, [n, S, ...], averaged over redrawn instances, to [n, ...].
    """
    number = RESAMPLES if number is None else number
    draws = [_redraw(task, points, np.random.default_rng((seed, t))) for t, task in enumerate(tasks)]
    sizes = [min(CHUNK, number - start) for start in range(0, number, CHUNK)]
    return np.concatenate([statistic([draw(n) for draw in draws]) for n in sizes])


def _redraw(task: Task, points: int, rng: np.random.Generator) -> Callable[[int], Task]:
    """A function that makes n redraws of a task, other ones at every call."""
    seeds = len(task[0])
    # Single precision holds six digits of a mean of pass rates; sums of equal whole numbers are exact in it.
    by_instance = [
        np.moveaxis(scores, 1, 0).reshape(scores.shape[1], -1).astype(np.float32) for scores in task if scores.ndim > 1
    ]

    def draw(n: int) -> Task:
        chosen = rng.integers(seeds, size=(n, seeds))
        if task[0].ndim - points == 1:
            return tuple(scores[chosen] for scores in task)
        counts = _counts(n, task[0].shape[1], rng)
        totals = counts.sum(axis=1, keepdims=True)
        means = (
            ((counts @ columns) / totals).reshape(n, seeds, *scores.shape[2:])
            for columns, scores in zip(by_instance, task, strict=True)
        )
        return tuple(mean[np.arange(n)[:, None], chosen] for mean in means)

    return draw


def _counts(n: int, instances: int, rng: np.random.Generator) -> np.ndarray:
    """Which instances are in each of n resamples, [n, I] of 0 and 1: each is, with even odds (Owen & Eckles 2012).

    Counted twice or not at all, they vary as much as a multinomial's counts, and cost a bit each.
    """
    packed = np.frombuffer(rng.bytes(n * -(-instances // 8)), np.uint8).reshape(n, -1)
    counts = np.unpackbits(packed, axis=1, count=instances).astype(np.float32)
    counts[counts.sum(axis=1) == 0] = 1  # of few instances
    return counts


def limits(samples: np.ndarray, num_seeds: int) -> tuple[np.ndarray, np.ndarray]:
    """The interval that bootstrap samples [R, ...] give: two [...] arrays, NaN for fewer than FEWEST_SEEDS.

    Expanded percentiles (see the module). Samples may be infinite (censored); the limits are then values that occur.
    """
    if num_seeds < FEWEST_SEEDS:
        return np.full(samples.shape[1:], np.nan), np.full(samples.shape[1:], np.nan)
    quantile = special.stdtrit(num_seeds - 1, (1 - LEVEL) / 2) * math.sqrt(num_seeds / (num_seeds - 1))
    tail = float(special.ndtr(quantile))
    low, high = np.quantile(samples, [tail, 1 - tail], axis=0, method="inverted_cdf")
    return low, high
