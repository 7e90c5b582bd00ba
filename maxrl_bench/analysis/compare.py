"""What a difference declares, and what several declare of a claim. All words of verdicts live here.

    compare(ours, theirs, margin=0.02) -> Comparison

A comparison declares, at 95 %, that ours is *better* (the interval lies above 0, or above +margin where that is asked),
*worse* (below 0), *practically equal* (inside +-margin, whatever its sign), or nothing: *undecided*. It *cannot be
judged* with fewer than FEWEST_SEEDS seeds. "practically equal" is two one-sided tests (Schuirmann 1987) at 2.5 % each:
the level at which the 95 % interval decides, so that the interval that is drawn and the test always agree.

Where seeds are added until there is a declaration (`first`), interval and p values are those of `sequential`, which
hold at every look, over seeds alone.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import special

from maxrl_bench.analysis.crossed import FEWEST_SEEDS, LEVEL, mean_of
from maxrl_bench.analysis.sequential import confidence_sequence, p_value
from maxrl_bench.analysis.stats import by_seed, holm
from maxrl_bench.sweeps.claim_model import MARGIN

BETTER, WORSE, EQUAL, UNDECIDED, CANNOT = "better", "worse", "practically equal", "undecided", "cannot be judged"
SUPPORTED, CONTRADICTED = "supported", "contradicted"  # of claims, beside the last three above
SIGNIFICANCE = 1 - LEVEL
COLLAPSE_SEEDS = 10  # where a run has collapsed: with fewer seeds no interval holds its level
Direction = Literal["higher", "lower", "equal"]
Scores = np.ndarray | Sequence[np.ndarray]  # of one task, or of each


@dataclass(frozen=True)
class Comparison:
    """Ours minus theirs: effect, interval, test, and declaration. NaN: not to be had from so few seeds."""

    effect: float
    low: float
    high: float
    error: float  # standard error of the effect
    df: float  # degrees of freedom of Student's t; of neither there is any at every look
    p: float  # two-sided, of the declaration that lies nearest; below 0.05 where there is one
    seeds: int  # of the task that has the fewest
    instances: int  # held-out instances per task that the interval is over, too; 0: seeds alone
    margin: float | None  # None: no difference is too small to count
    verdict: str
    direction: Direction = "higher"
    by_margin: bool = False
    collapsed: int = 0  # runs on either side that collapsed
    first: int | None = None  # judged at every number of seeds from this one on; None: the number was fixed
    by_seed: tuple[float, ...] = ()  # then: the difference of each seed, in their order

    def p_at(self, value: float) -> float:
        """The two-sided p value of a mean difference of `value`."""
        if self.first is not None:
            return p_value(self.by_seed, value, self.first)
        return p_at(self.effect, self.error, self.df, value)

    @property
    def p_values(self) -> dict[str, float]:
        """The p value of each declaration that can be made."""
        return p_values(self.effect, self.p_at, self.margin, self.direction, self.by_margin)


def compare(
    ours: Scores,
    theirs: Scores | None = None,
    margin: float | None = MARGIN,
    direction: Direction = "higher",
    by_margin: bool = False,
    collapsed: int = 0,
    first: int | None = None,
) -> Comparison:
    """Compare scores on common seeds (and common held-out instances), which are paired.

    ours, theirs: one array, or one per task, [S] or [S, I] each; theirs None: ours are differences already. The effect
    is the mean over tasks. direction: what "better" is, "higher" or "lower"; "equal": both better and worse are
    differences beyond the margin. by_margin: better by more than the margin. collapsed: how many of the runs collapsed;
    with any, nothing is declared below COLLAPSE_SEEDS seeds. first: where seeds were added one by one, from how many on
    they were judged; seeds are then in their order, and the same for all tasks. Raises ValueError where shapes differ,
    a score is not finite, or the margin is not above 0.
    """
    check_margin(margin, direction, by_margin)
    tasks = _tasks(ours)
    if theirs is not None:
        others = _tasks(theirs)
        if [a.shape for a in tasks] != [b.shape for b in others]:
            raise ValueError(
                "scores that are paired have one shape on both sides, [S] or [S, I] per task; "
                f"got {[a.shape for a in tasks]} and {[b.shape for b in others]}"
            )
        tasks = [a - b for a, b in zip(tasks, others, strict=True)]
    if not all(np.isfinite(scores).all() for scores in tasks):
        raise ValueError("scores must be finite numbers")
    if first is not None:
        return _at_every_look(tasks, margin, direction, by_margin, collapsed, first)
    mean = mean_of(tasks)
    low, high = map(float, mean.limits())
    effect, error, df = float(mean.value), float(mean.error), float(mean.df)
    if mean.seeds < FEWEST_SEEDS:
        verdict, p = CANNOT, math.nan
    else:
        by_declaration = p_values(effect, lambda value: p_at(effect, error, df, value), margin, direction, by_margin)
        p = min(by_declaration.values())
        verdict = UNDECIDED if collapsed and mean.seeds < COLLAPSE_SEEDS else declare(by_declaration)
    counts = mean.seeds, mean.instances
    return Comparison(effect, low, high, error, df, p, *counts, margin, verdict, direction, by_margin, collapsed)


def _at_every_look(
    tasks: Sequence[np.ndarray],
    margin: float | None,
    direction: Direction,
    by_margin: bool,
    collapsed: int,
    first: int,
) -> Comparison:
    if len({len(scores) for scores in tasks}) > 1:
        raise ValueError("where seeds were added one by one, all tasks must have the same")
    differences = np.mean([by_seed(scores) for scores in tasks], axis=0)
    # Looks at fewer seeds prove nothing once a run has collapsed.
    first = max(first, COLLAPSE_SEEDS) if collapsed else first
    effect, seeds = float(differences.mean()), len(differences)
    low = high = p = math.nan
    verdict = CANNOT
    if seeds >= FEWEST_SEEDS:
        low, high = confidence_sequence(differences, first=first)
        values = p_values(effect, lambda value: p_value(differences, value, first), margin, direction, by_margin)
        p, verdict = min(values.values()), declare(values)
    limits = low, high, math.nan, math.nan
    own = tuple(map(float, differences))
    return Comparison(effect, *limits, p, seeds, 0, margin, verdict, direction, by_margin, collapsed, first, own)


def check_margin(margin: float | None, direction: Direction, by_margin: bool) -> None:
    """Raises ValueError, in one line, where a margin is not above 0, or is lacking where the claim needs one."""
    if margin is not None and not 0 < margin < math.inf:
        raise ValueError(f"margin must be above 0, the smallest difference worth the name; got {margin:g}")
    if margin is None and (direction == "equal" or by_margin):
        need = 'direction = "equal"' if direction == "equal" else "by_margin"
        raise ValueError(f"{need} needs a margin, the smallest difference worth the name")
    if direction == "equal" and by_margin:
        raise ValueError('by_margin goes with direction = "higher" or "lower"')


def p_at(effect: float, error: float, df: float, value: float) -> float:
    """The two-sided p value, by Student's t, of an effect seen where the mean is `value`; without error 0 or 1."""
    if error == 0:
        return float(math.isclose(effect, value, rel_tol=1e-12, abs_tol=1e-12))
    return 2 * float(special.stdtr(df, -abs(effect - value) / error))


def p_values(
    effect: float,
    p_of: Callable[[float], float],
    margin: float | None,
    direction: Direction = "higher",
    by_margin: bool = False,
) -> dict[str, float]:
    """The p value of each declaration: {BETTER, WORSE, and with a margin EQUAL}; 1 where the effect speaks against it.

    p_of: the two-sided p value of a mean difference, however it is had (`p_at`; or 1 / E of an e-process, which holds
    at every look).
    """
    sign = -1.0 if direction == "lower" else 1.0
    limit = (margin or 0.0) if direction == "equal" else 0.0
    above = (margin or 0.0) if by_margin or direction == "equal" else 0.0
    values = {
        BETTER: p_of(sign * above) if sign * effect > above else 1.0,
        WORSE: p_of(-sign * limit) if sign * effect < -limit else 1.0,
    }
    if margin is not None:
        values[EQUAL] = max(p_of(-margin), p_of(margin)) if abs(effect) < margin else 1.0
    return values


def declare(p: dict[str, float], level: float = SIGNIFICANCE) -> str:
    """What p values of `p_values` declare: a difference that is certain but below the margin is practically none."""
    return next((word for word in (EQUAL, BETTER, WORSE) if p.get(word, 1.0) < level), UNDECIDED)


def combine(comparisons: Sequence[Comparison]) -> tuple[str, float]:
    """What the comparisons of one claim say of it, each by its own 95 % interval; and the p value of that.

    *supported*: all are as claimed (better; of a claim of equality practically equal), p the largest. *contradicted*:
    one is worse (or beyond the margin), p the smallest times their number. *practically equal*: all are better or
    practically equal. *undecided*: all else, p that of the least certain.
    """
    if not comparisons or any(c.verdict == CANNOT for c in comparisons):
        return CANNOT, math.nan
    claimed = EQUAL if comparisons[0].direction == "equal" else BETTER
    against = {BETTER, WORSE} - {claimed}
    found = {c.verdict for c in comparisons}
    largest = max(c.p for c in comparisons)
    if found & against:
        p = len(comparisons) * min(c.p for c in comparisons if c.verdict in against)
        return (CONTRADICTED if p < SIGNIFICANCE else UNDECIDED), min(1.0, p)
    if UNDECIDED in found:
        return UNDECIDED, largest
    return (SUPPORTED if found == {claimed} else EQUAL), largest


def settle(claims: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """The verdicts of one family of claims, from what `combine` says of each: with p values adjusted by Holm's method.

    What is not below 0.05 after it is undecided. Claims that cannot be judged count among those tested, so that
    verdicts do not change as their runs come in.
    """
    adjusted = holm([1.0 if math.isnan(p) else p for _, p in claims])
    return [
        (word, math.nan) if word == CANNOT else (word if q < SIGNIFICANCE else UNDECIDED, float(q))
        for (word, _), q in zip(claims, adjusted, strict=True)
    ]


def _tasks(scores: Scores) -> list[np.ndarray]:
    arrays = [np.asarray(s, np.float64) for s in ([scores] if isinstance(scores, np.ndarray) else scores)]
    if arrays and all(a.ndim == 0 for a in arrays):  # one list of numbers
        arrays = [np.array(arrays)]
    for array in arrays:
        if array.ndim not in (1, 2) or not array.size:
            raise ValueError(f"scores of a task are [seeds] or [seeds, instances], not of shape {array.shape}")
    return arrays
