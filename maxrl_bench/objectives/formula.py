"""What an objective is: two weight formulas with knobs (`Formula`), and the same fixed for N rollouts (`Objective`)."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from maxrl_bench.names import is_name, shorten
from maxrl_bench.objectives.binomials import binomial_mean

MAX_ROLLOUTS = 2**20  # the largest N: the tests go up to it, and text cards and batches still fit in memory
_TAKEN = ("name", "objective", "rewards", "groups", "mask", "memory", "K", "J", "N", "p")  # what no knob is called
REQUIRED = None  # stands for the default of a knob that must be given


@dataclass(frozen=True)
class Knob:
    """A parameter of an objective: its type, its bounds (`high=None`: the number of rollouts N), its default.

    symbol: its name in legends. Raises ValueError on another type, on bounds that are none, on a default beyond them.
    """

    kind: type[int] | type[float]
    low: float
    high: float | None
    symbol: str
    default: int | float | None = REQUIRED

    def __post_init__(self) -> None:
        if self.kind not in (int, float):
            raise ValueError(f"a knob's kind must be int or float, got {shorten(self.kind)}")
        if not isinstance(self.symbol, str) or not self.symbol.strip():
            raise ValueError(f"a knob's symbol must be a text, got {shorten(self.symbol)}")
        for bound in (self.low,) if self.high is None else (self.low, self.high):
            if isinstance(bound, bool) or not isinstance(bound, int | float) or math.isnan(bound):
                raise ValueError(f"knob {self.symbol}: a bound must be a number, got {shorten(bound)}")
        if self.high is not None and self.low > self.high:
            raise ValueError(f"knob {self.symbol}: its bounds, {self.low} and {self.high}, leave no value")
        if self.default is not REQUIRED:
            self.check(f"knob {self.symbol}: its default", self.default, MAX_ROLLOUTS)

    def check(self, where: str, value: object, num_rollouts: int) -> int | float:
        """The value as int or float. Raises ValueError on another type or a value out of bounds."""
        high = num_rollouts if self.high is None else self.high
        value = value.item() if isinstance(value, np.generic) else value
        kinds = int if self.kind is int else (int, float)
        if isinstance(value, kinds) and not isinstance(value, bool) and self.low <= value <= high:
            with contextlib.suppress(OverflowError):  # an integer that no float can hold
                if math.isfinite(value):
                    return self.kind(value)
        wanted = f"{'an integer' if self.kind is int else 'a number'} of at least {self.low}"
        if math.isfinite(high):
            wanted += f" and at most {high}" + (" (the number of rollouts)" if self.high is None else "")
        raise ValueError(f"{where} must be {wanted}, got {shorten(value)}")


Weight = Callable[..., Any]  # (counts [B] float64, N, **knobs) -> weights [B]


@dataclass(frozen=True)
class Formula:
    """A row of OBJECTIVES: the weights of a success and of a failure, given K successes among N rollouts.

    Of another package, it is offered by an entry point NAME = "module:attribute" in the group `maxrl_bench.objectives`:

        from maxrl_bench import Formula, Knob

        centred = Formula(
            label="Centred",  # in legends; then a source, and the formula and its edge cases, for readers
            paper="Doe 2031",
            formula="s = 1 - c K/N; f = -c K/N",
            edges="K = 0: no update; K = N: weight 1 - c; N = 1: 1 - c on success",
            on_success=lambda K, N, share: 1 - share * K / N,
            on_failure=lambda K, N, share: -share * K / N,
            knobs={"share": Knob(float, 0, 1, symbol="c", default=0.5)},
        )

    on_success and on_failure take counts K [B] float64, N, and each knob by its name; they return weights [B]. The
    first is called with K = 1..N only, the second with K = 0..N-1 only. gap(J) = s(J+1) - f(J) is given where the
    subtraction would lose digits. order: the T of the MaxRL family, which gives the closed form of w_N (None: not of
    the family). closed_form: w_N of other objectives, where it is known. limit: w_N as N grows. edges: what happens at
    K = 0, K = N and N = 1, for readers. remember(K [B], N, memory, **knobs) -> array: what is kept of the batches so
    far, given the counts of one more; all formulas of N then take `memory` by name, which is None before the first
    batch. Raises ValueError on a part that no objective can have.
    """

    label: str
    paper: str
    formula: str
    edges: str
    on_success: Weight | None
    on_failure: Weight | None
    knobs: Mapping[str, Knob] = field(default_factory=dict)
    order: Callable[..., float | None] | None = None  # (N, **knobs)
    closed_form: Callable[..., np.ndarray] | None = None  # (p, N, **knobs)
    limit: Callable[..., np.ndarray] | None = None  # (p, **knobs)
    gap: Weight | None = None
    min_rollouts: int = 1
    count_based: bool = True  # the weights of an instance depend on its own success count alone
    pooled: Callable[..., float] | None = None  # (K [B], N) -> the share that divides all weights; 0: no update
    remember: Weight | None = None  # (K [B], N, memory, **knobs) -> the memory of a next batch
    smoothing: str | None = None  # the knob that is differential smoothing's gamma
    entropy_bonus: str | None = None  # the knob that is the entropy bonus

    def __post_init__(self) -> None:
        for part in ("label", "paper", "formula", "edges"):
            text = getattr(self, part)
            if not isinstance(text, str) or not text.strip() or not text.isprintable():
                raise ValueError(f"an objective's '{part}' must be a text of one line, got {shorten(text)}")
        where = f"objective labelled {shorten(self.label)}"
        if (self.on_success is None) != (self.on_failure is None):
            raise ValueError(f"{where}: give both 'on_success' and 'on_failure', or none of them")
        for part in ("on_success", "on_failure", "order", "closed_form", "limit", "gap", "pooled", "remember"):
            if not (getattr(self, part) is None or callable(getattr(self, part))):
                raise ValueError(f"{where}: '{part}' must be a function, got {shorten(getattr(self, part))}")
        if not isinstance(self.knobs, Mapping) or not all(isinstance(rule, Knob) for rule in self.knobs.values()):
            raise ValueError(f"{where}: 'knobs' must be a table of Knob by name, got {shorten(self.knobs)}")
        for knob in self.knobs:
            if not (is_name(knob) and knob.isidentifier()) or knob in _TAKEN:
                raise ValueError(f"{where}: a knob's name must be a word other than {', '.join(_TAKEN)}, got {knob!r}")
        if type(self.min_rollouts) is not int or not 1 <= self.min_rollouts <= MAX_ROLLOUTS:
            raise ValueError(f"{where}: 'min_rollouts' must be from 1 to {MAX_ROLLOUTS}, got {self.min_rollouts!r}")
        for part in ("smoothing", "entropy_bonus"):
            if getattr(self, part) not in (None, *self.knobs):
                raise ValueError(f"{where}: '{part}' must name one of its knobs, got {shorten(getattr(self, part))}")


@dataclass(frozen=True)
class Objective:
    """A formula with its knobs, fixed for groups of `num_rollouts` = N rollouts. Made by `objectives.bind`.

    memory: what is remembered of earlier batches, for the few objectives that do (`after`); None before the first.
    """

    name: str
    knobs: Mapping[str, int | float]
    num_rollouts: int
    row: Formula
    memory: np.ndarray | None = field(default=None, compare=False)

    @property
    def label(self) -> str:
        """A short name for legends, with the knobs that have no default or differ from it."""
        shown = [(self.row.knobs[k], v) for k, v in self.knobs.items() if v != self.row.knobs[k].default]
        return " ".join([self.row.label, *(f"{knob.symbol}={value:g}" for knob, value in shown)])

    @property
    def is_likelihood(self) -> bool:
        """True for exact maximum likelihood, whose loss is the mean of -log p: it draws no rollouts."""
        return self.row.on_success is None

    @property
    def smoothing(self) -> float:
        """The gamma of differential smoothing; 0 for other objectives."""
        return float(self.knobs[self.row.smoothing]) if self.row.smoothing else 0.0

    @property
    def entropy_bonus(self) -> float:
        """The coefficient of the mean policy entropy that is added to the surrogate; 0 for most objectives."""
        return float(self.knobs[self.row.entropy_bonus]) if self.row.entropy_bonus else 0.0

    @property
    def needs(self) -> str:
        """What its weights need besides the rewards of a batch, in words; empty for most objectives."""
        if self.row.smoothing or self.row.entropy_bonus:
            return "log-probabilities of the policy"
        return "the batches before (bind it, and use `weights`, then `after`)" if self.row.remember else ""

    @property
    def order(self) -> int | float | None:
        """The T with w_N(p) = (1 - (1-p)^T) / p: 1 for REINFORCE, inf for maximum likelihood, None if there is none."""
        return self.row.order(self.num_rollouts, **self._count_knobs) if self.row.order else None

    def closed_form(self, p: np.ndarray) -> np.ndarray | None:
        """w_N(p) from its formula, for pass rates of any shape; None where only the binomial sum is known."""
        p = _pass_rates(p)
        if self.order is not None:
            return maxrl_weight(p, self.order)
        return self.row.closed_form(p, self.num_rollouts, **self._count_knobs) if self.row.closed_form else None

    def limit(self, p: np.ndarray) -> np.ndarray | None:
        """w_N(p) as N goes to infinity; None if unknown. Without a `limit`, the closed form, which then has no N."""
        if self.row.limit is None:
            return self.closed_form(p)
        return self.row.limit(_pass_rates(p), **self._count_knobs)

    def weights(self, successes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(s(K), f(K)): the weight of every success and of every failure, per instance, [B] and [B] float64.

        `successes` [B] are the integers K in 0..N. A weight that no rollout can have is 0: s at K = 0, f at K = N.
        Raises ValueError on other counts, and for maximum likelihood, which has no weights.
        """
        if self.row.on_success is None or self.row.on_failure is None:
            raise ValueError(f"objective '{self.name}' samples no rollouts, so that it has no weights")
        K, n = self._counts(successes), self.num_rollouts
        on_success = np.where(K > 0, self.row.on_success(np.maximum(K, 1), n, **self._count_knobs), 0.0)
        on_failure = np.where(n > K, self.row.on_failure(np.minimum(K, n - 1), n, **self._count_knobs), 0.0)
        if self.row.pooled:
            share = float(self.row.pooled(K, n)) if K.size else 0.0
            on_success, on_failure = (w / share if share else np.zeros_like(w) for w in (on_success, on_failure))
        return on_success + 0.0, on_failure + 0.0  # adding 0 turns -0.0 into 0.0

    def after(self, successes: np.ndarray) -> Objective:
        """The objective of the next batch, which remembers the successes [B] of this one; most stay the same.

        Raises ValueError on counts as `weights` does.
        """
        K = self._counts(successes)
        if self.row.remember is None:
            return self
        kept = self.row.remember(K, self.num_rollouts, **self._count_knobs)
        return replace(self, memory=np.array(kept, np.float64))

    def with_memory(self, memory: np.ndarray | None) -> Objective:
        """The objective with a memory that `after` made before; None: as it begins.

        Raises an error of any kind, a ValueError mostly, if that is none of its own.
        """
        recalled = replace(self, memory=memory)
        if memory is not None:
            if self.row.remember is None or memory.dtype != np.float64 or not np.isfinite(memory).all():
                raise ValueError(f"the memory is not one of objective '{self.name}'")
            if not np.isfinite(recalled.weights(np.arange(self.num_rollouts + 1))).all():
                raise ValueError(f"objective '{self.name}' has weights that are not finite with this memory")
        return recalled

    def gap(self, others: np.ndarray) -> np.ndarray:
        """s(J+1) - f(J) for J = 0..N-1 successes among the other N-1 rollouts: the Bernstein coefficients of w_N.

        Raises ValueError where the weights of an instance depend on the successes of the whole batch.
        """
        if self.row.pooled:
            raise ValueError(
                f"objective '{self.name}' weighs an instance by its whole batch: no weight of p alone exists"
            )
        if self.row.gap is not None:
            return self.row.gap(np.asarray(others, np.float64), self.num_rollouts, **self._count_knobs)
        return self.weights(others + 1)[0] - self.weights(others)[1]

    def population_weight(self, p: np.ndarray) -> np.ndarray:
        """w_N(p) with E[g] = w_N(p) grad p, by the exact binomial sum (1/p for maximum likelihood); p of any shape.

        Without an entropy bonus or smoothing, which are not functions of p. Relative error below 1e-12 for N up to a
        million. Raises ValueError on pass rates outside [0, 1], and as `gap` does.
        """
        p = _pass_rates(p)
        if self.is_likelihood:
            return maxrl_weight(p, math.inf)
        sums = [binomial_mean(self.gap, self.num_rollouts - 1, float(rate)) for rate in p.ravel()]
        return np.array(sums, np.float64).reshape(p.shape)

    def _counts(self, successes: np.ndarray) -> np.ndarray:
        counts, n = np.asarray(successes), self.num_rollouts
        wrong = counts[(counts < 0) | (counts > n)] if counts.dtype.kind in "iu" else counts
        if wrong.size or counts.dtype.kind not in "iu":
            what = f"{wrong.flat[0]!s}" if wrong.dtype.kind in "iuf" and wrong.size else f"type {counts.dtype}"
            raise ValueError(f"successes must be integers from 0 to {n} (the number of rollouts), got {what}")
        return counts.astype(np.float64)

    @property
    def _count_knobs(self) -> dict[str, Any]:
        """The knobs that the weight formulas read, and the memory of those that have one."""
        apart = (self.row.smoothing, self.row.entropy_bonus)
        memory = {"memory": self.memory} if self.row.remember else {}
        return {**memory, **{knob: value for knob, value in self.knobs.items() if knob not in apart}}


def _pass_rates(p: np.ndarray) -> np.ndarray:
    p = np.asarray(p, np.float64)
    wrong = p[~((p >= 0) & (p <= 1))]
    if wrong.size:
        raise ValueError(f"pass rates must lie in [0, 1], got {wrong.flat[0]:g}")
    return p


def power_of(p: np.ndarray, exponent: float) -> np.ndarray:
    """p^exponent, infinite at 0 for a negative exponent."""
    with np.errstate(divide="ignore", over="ignore"):
        return p**exponent


def maxrl_weight(p: np.ndarray, order: float) -> np.ndarray:
    """(1 - (1-p)^T) / p, the population weight of MaxRL of order T (T = inf: maximum likelihood); T at p = 0."""
    p = np.asarray(p, np.float64)
    inner = np.clip(p, np.finfo(float).tiny, 0.5)
    upper = np.clip(p, 0.5, 1.0)
    if math.isinf(order):
        with np.errstate(divide="ignore"):
            return 1 / p
    power = np.where(p < 0.5, -np.expm1(order * np.log1p(-inner)), 1 - (1 - upper) ** order)
    return np.where(p < np.finfo(float).tiny, order, power / np.maximum(p, np.finfo(float).tiny))
