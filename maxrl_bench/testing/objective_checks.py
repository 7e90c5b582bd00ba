"""What every objective promises (`objectives.formula.Formula`), as checks of a row. CHECKS has them all.

Each raises AssertionError with a counter-example (N, knobs, counts or pass rates), unittest.SkipTest where it does not
apply. Nothing is simulated: expectations are sums over all outcomes.
"""

from __future__ import annotations

import itertools
import math
import unittest
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from maxrl_bench.objectives.formula import MAX_ROLLOUTS, REQUIRED, Formula, Knob, Objective
from maxrl_bench.objectives.population import Scores, least_second_moment, second_moment
from maxrl_bench.objectives.table import bind_row

PASS_RATES = np.array([1e-3, 0.1, 0.37, 0.5, 0.8, 0.99])
FEW = (1, 2, 3, 4, 8)  # rollouts, all of whose outcomes are enumerated
MANY = 2**20


def within(rule: Knob, value: float, num_rollouts: int) -> int | float:
    """The value that a knob allows which lies nearest."""
    high = num_rollouts if rule.high is None else rule.high
    return rule.kind(min(max(value, rule.low), high))


def knob_settings(row: Formula, num_rollouts: int) -> list[dict[str, Any]]:
    """Knob values worth testing: for each knob 1, 2, the middle and N, or its default and beyond; within its bounds."""
    settings: list[dict[str, Any]] = [{}]
    for knob, rule in row.knobs.items():
        wanted: list[Any] = [rule.low, rule.default, rule.high if rule.kind is int else 2.5]
        if rule.default is REQUIRED:
            wanted = [1, 2, (num_rollouts + 1) // 2, num_rollouts]
        wanted = [num_rollouts if value is None else value for value in wanted]
        values = sorted({within(rule, value, num_rollouts) for value in wanted})
        settings = [{**setting, knob: value} for setting in settings for value in values]
    return settings


def bound(row: Formula, sizes: Sequence[int], name: str = "it") -> Iterator[Objective]:
    """The row at every knob setting for groups of these sizes, if it takes so few rollouts; see `remembering`."""
    for size in sizes:
        if size >= row.min_rollouts:
            for knobs in knob_settings(row, size):
                yield from remembering(bind_row(name, row, size, **knobs))


def remembering(objective: Objective) -> list[Objective]:
    """The objective as it is, and if it remembers batches, after one, two and three that differ."""
    states = [objective]
    if objective.row.remember is not None:
        n = objective.num_rollouts
        for batch in (_some_counts(n), np.minimum(_some_counts(n), n // 2), np.full(3, (n + 1) // 2)):
            states.append(states[-1].after(batch))
    return states


def _some_counts(n: int) -> np.ndarray:
    """Counts of successes from 0 to n, all of them if they are few."""
    return np.arange(n + 1) if n <= 64 else np.r_[0, np.unique(np.geomspace(1, n, 60).astype(int))]


def enumerated_weight(objective: Objective, pass_rates: np.ndarray) -> np.ndarray:
    """w(p) with E[g] = w(p) grad p, the expectation taken over all 2^N outcomes of N rollouts of a coin.

    The coin has one logit: its score is r - p, and grad p = p (1-p). In groups of at most 20 rollouts.
    """
    n = objective.num_rollouts
    rewards = np.array(list(itertools.product([0.0, 1.0], repeat=n)))  # [2^N, N]
    successes = rewards.sum(1).astype(int)
    on_success, on_failure = objective.weights(successes)
    weights = np.where(rewards == 1, on_success[:, None], on_failure[:, None])
    of_each_rate = []
    for p in pass_rates:
        probability = p**successes * (1 - p) ** (n - successes)
        gradient = (weights * (rewards - p)).mean(1)
        of_each_rate.append(probability @ gradient / (p * (1 - p)))
    return np.array(of_each_rate)


def _told(objective: Objective) -> str:
    """N and the knobs, for messages."""
    known = [] if objective.memory is None else ["with batches remembered"]
    knobs = (f"{knob} = {v:g}" for knob, v in objective.knobs.items())
    return ", ".join([f"N = {objective.num_rollouts}", *knobs, *known])


def _count_based(row: Formula, sizes: Sequence[int]) -> list[Objective]:
    """The row bound, where an instance is weighed by itself. Raises unittest.SkipTest on other rows."""
    if row.on_success is None:
        raise unittest.SkipTest("it samples no rollouts")
    if row.pooled:
        raise unittest.SkipTest("it weighs an instance by its whole batch")
    return list(bound(row, sizes)) or list(bound(row, (row.min_rollouts,)))


def _compare(objective: Objective, what: str, told: np.ndarray, expected: np.ndarray, p: np.ndarray) -> None:
    """Raises AssertionError with the first pass rate at which two curves differ."""
    told = np.broadcast_to(np.asarray(told, np.float64), p.shape)
    for rate, one, other in zip(p, told, expected, strict=True):
        if not abs(one - other) <= 1e-12 + 1e-9 * abs(other):
            raise AssertionError(
                f"{_told(objective)}, p = {rate:g}: {what} is {one:.9g}, over all outcomes {other:.9g}"
            )


def check_weights(objective: Objective) -> None:
    """Raises AssertionError unless each count of successes has finite weights; so do batches of none and of all."""
    n = objective.num_rollouts
    for counts in (_some_counts(n), np.zeros(3, int), np.full(3, n)):
        for name, weights in zip(("success", "failure"), objective.weights(counts), strict=True):
            if weights.shape != counts.shape:
                raise AssertionError(f"{_told(objective)}: {len(counts)} counts get weights {list(weights.shape)}")
            wrong = np.flatnonzero(~np.isfinite(weights))
            if len(wrong):
                where = f"{_told(objective)}, K = {counts[wrong[0]]}"
                raise AssertionError(f"{where}: the weight of a {name} is {weights[wrong[0]]}")


def weights_are_finite(row: Formula) -> None:
    """Every count of successes, none and all among them, has finite weights, a number for each instance."""
    if row.on_success is None:
        raise unittest.SkipTest("it samples no rollouts")
    for objective in bound(row, (*FEW, row.min_rollouts, 64, 4096)):
        check_weights(objective)


def weights_are_pure(row: Formula) -> None:
    """The weights of an instance depend on its own successes alone, whatever the batch, and are the same each time."""
    for objective in _count_based(row, (*FEW, 64)):
        counts = np.arange(objective.num_rollouts + 1)
        together = np.array(objective.weights(counts))
        for how, order in {"again": counts, "in another order": counts[::-1]}.items():
            again = np.array(objective.weights(order))
            if not np.array_equal(again, together[:, order]):
                raise AssertionError(f"{_told(objective)}: asked {how}, other weights come back")
        for k in {0, 1, len(counts) // 2, len(counts) - 1}:
            alone = np.array(objective.weights(np.array([k])))[:, 0]
            if not np.allclose(alone, together[:, k], rtol=1e-12, atol=0):
                told = f"alone s, f = {alone.tolist()}, in a batch {together[:, k].tolist()}"
                raise AssertionError(f"{_told(objective)}, K = {k}: {told}")


def memory_is_pure(row: Formula) -> None:
    """What is remembered of the same batches is the same, finite, and leaves what was remembered before as it was."""
    if row.remember is None:
        raise unittest.SkipTest("it remembers nothing")
    for first, again in zip(bound(row, (*FEW, 64)), bound(row, (*FEW, 64)), strict=True):
        before = None if first.memory is None else first.memory.copy()
        memory = first.after(np.arange(first.num_rollouts + 1)).memory
        told = f"{_told(first)}: a batch of all counts is remembered"
        if memory is None or not np.isfinite(memory).all():
            raise AssertionError(f"{told} by other than finite numbers")
        same = again.after(np.arange(first.num_rollouts + 1)).memory
        unchanged = before is None or (first.memory is not None and np.array_equal(before, first.memory))
        if same is None or not np.array_equal(memory, same) or not unchanged:
            raise AssertionError(f"{told} otherwise the second time")


def expected_gradient_is_the_population_weight(row: Formula) -> None:
    """E[gradient] over all outcomes of N rollouts is the population weight w(p) times the gradient of p."""
    for objective in _count_based(row, FEW):
        if objective.num_rollouts > max(FEW):
            raise unittest.SkipTest("it needs more rollouts than can be enumerated")
        expected = enumerated_weight(objective, PASS_RATES)
        _compare(objective, "w(p)", objective.population_weight(PASS_RATES), expected, PASS_RATES)
        closed = objective.closed_form(PASS_RATES)
        if closed is not None:
            _compare(objective, "the closed form", closed, expected, PASS_RATES)


def stated_limit_is_approached(row: Formula) -> None:
    """The stated limit of w(p) is what a million rollouts come close to."""
    p = np.array([0.2, 0.7])
    stated = False
    for objective in _count_based(row, (MANY,)):
        limit = objective.limit(p)
        if limit is None or any(row.knobs[knob].high is None and v > 4 for knob, v in objective.knobs.items()):
            continue  # a knob that grows with N has another limit
        stated = True
        for rate, near, far in zip(p, objective.population_weight(p), limit, strict=True):
            if not abs(near - far) <= 1e-3 * abs(far) + 1e-9:
                raise AssertionError(f"{_told(objective)}, p = {rate}: w is {near:.6g}, the stated limit {far:.6g}")
    if not stated:
        raise unittest.SkipTest("no limit is stated")


def no_pass_rate_is_pushed_down(row: Formula) -> None:
    """The population weight is nowhere negative, and somewhere positive: what succeeds is learned, at any pass rate."""
    weights = {}
    for objective in _count_based(row, [size for size in (*FEW, 64) if size > 1]):
        w = objective.population_weight(PASS_RATES)
        wrong = np.flatnonzero(~(w >= -1e-12))
        if len(wrong):
            raise AssertionError(f"{_told(objective)}, p = {PASS_RATES[wrong[0]]:g}: w is {w[wrong[0]]:.6g}")
        weights[_told(objective)] = w
    if not any((w > 0).any() for w in weights.values()):
        raise AssertionError(f"w is 0 at every pass rate, for {'; '.join(weights)}")


def noise_is_finite_and_above_its_bound(row: Formula) -> None:
    """The noise E|g|^2 is finite, and no less than any estimator with this w(p) must have."""
    for objective in _count_based(row, (2, 8, 64)):
        for p in PASS_RATES.tolist():
            noise, least = second_moment(objective, Scores(p)), least_second_moment(objective, p)
            if not (math.isfinite(noise) and noise >= least * (1 - 1e-9) - 1e-300):
                raise AssertionError(f"{_told(objective)}, p = {p:g}: E|g|^2 = {noise:.6g}, the least is {least:.6g}")


def wrong_knobs_are_refused(row: Formula) -> None:
    """Knobs that are unknown, missing or out of bounds are refused with a ValueError of one line."""
    n = max(8, row.min_rollouts)
    good = knob_settings(row, n)[0]
    wrong: list[tuple[int, dict[str, Any]]] = [(n, {**good, "no_such_knob": 1}), (0, good), (MAX_ROLLOUTS + 1, good)]
    if row.min_rollouts > 1:
        wrong.append((row.min_rollouts - 1, good))
    for knob, rule in row.knobs.items():
        bad: list[Any] = [True, None, "1", math.nan, math.inf, -math.inf, rule.low - 1]
        bad += [] if rule.high == math.inf else [(n if rule.high is None else rule.high) + 1]
        bad += [rule.low + 0.5] if rule.kind is int else []
        wrong += [(n, {**good, knob: value}) for value in bad]
        if rule.default is REQUIRED:
            wrong.append((n, {other: value for other, value in good.items() if other != knob}))
    for size, knobs in wrong:
        try:
            bind_row("it", row, size, **knobs)
        except ValueError as told:
            if "\n" in str(told):
                raise AssertionError(f"N = {size}, {knobs} is refused in several lines") from None
        else:
            raise AssertionError(f"N = {size}, {knobs} is accepted")


def every_knob_changes_something(row: Formula) -> None:
    """Each knob changes weights, the smoothing or the entropy bonus: none is read in vain."""
    if not row.knobs:
        raise unittest.SkipTest("it has no knobs")
    n = max(8, row.min_rollouts)
    others = {k: within(rule, 4 if rule.default is REQUIRED else rule.default, n) for k, rule in row.knobs.items()}
    for knob, rule in row.knobs.items():
        values = sorted({within(rule, rule.low + step, n) for step in (0, 1, 2)})
        seen = set()
        for value in values:
            objective = bind_row("it", row, n, **{**others, knob: value})
            weights = np.concatenate(remembering(objective)[-1].weights(np.arange(n + 1))).tobytes()
            seen.add((weights, objective.smoothing, objective.entropy_bonus))
        if len(values) > 1 and len(seen) == 1:
            raise AssertionError(f"N = {n}: nothing differs between {knob} = {' and '.join(map(str, values))}")


CHECKS: tuple[Callable[[Formula], None], ...] = (
    weights_are_finite,
    weights_are_pure,
    memory_is_pure,
    expected_gradient_is_the_population_weight,
    stated_limit_is_approached,
    no_pass_rate_is_pushed_down,
    noise_is_finite_and_above_its_bound,
    wrong_knobs_are_refused,
    every_knob_changes_something,
)
