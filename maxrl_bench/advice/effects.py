"""What an objective does to prompts of given pass rates: exactly, under one stated proxy for the scores.

**The proxy.** A prompt moves by its log-odds: grad p = p (1-p) v, where the vectors v of different prompts are
orthogonal and equally long; the score of each rollout has norm 1, and SHARED of its square is what the outcome shares
(|v|^2 = SHARED), so that two successes of a prompt agree a little and all else is noise. Weights, shares of prompts and
orders are exact without it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from maxrl_bench.advice.mixture import PassRates
from maxrl_bench.objectives.binomials import pass_at_k
from maxrl_bench.objectives.formula import Objective
from maxrl_bench.objectives.population import Scores, second_moment, tabulated

HARD, EASY = 0.2, 0.8  # a prompt is hard below, easy above, and middling from one to the other
SHARED = 0.01
PROXY = (
    "grad p = p (1-p) v with orthogonal v of one length for all prompts; scores of norm 1, of which the outcome "
    f"shares |v|^2 = {SHARED:g}"
)


@dataclass(frozen=True)
class Effect:
    """What an objective does to a distribution of pass rates; gradients are those of a mean over all prompts."""

    objective: Objective
    hard: float  # shares of the expected gradient (of its norms on single prompts)
    middling: float
    easy: float
    ml_weight: float  # mean of w(p) / (1/p) over the prompts that can be solved: 1 is maximum likelihood
    ml_cosine: float  # of the angle between the expected gradient and that of maximum likelihood: 1 is no bias
    length: float  # root mean square length of a prompt's gradient estimate: what decides a step's length
    noise: float  # root mean square deviation of it from its expectation
    signal_to_noise: float  # of the whole batch's gradient; the number of prompts cancels
    gain: float  # towards the goal: `Prompts.gain`


class Prompts:
    """Prompts of some pass rates, and what objectives do to each: `p` [S], and `shares` [S] of the prompts."""

    def __init__(self, pass_rates: PassRates):
        at = pass_rates.support
        self.p, self.shares = pass_rates.rates[at], pass_rates.shares[at]
        self.pull = _pull(self.p)
        self._known: dict[tuple[Any, ...], tuple[np.ndarray, float]] = {}

    def length(self, weight: np.ndarray) -> float:
        """Of the expected gradient, for weights at p, in units of |v|."""
        return math.sqrt(float(self.shares @ (weight * self.pull) ** 2))

    def of(self, objective: Objective) -> tuple[np.ndarray, float]:
        """An objective's population weights at p, and its mean E|g|^2 (of maximum likelihood |E g|^2); kept."""
        key = objective.name, objective.num_rollouts, *sorted(objective.knobs.items())
        if key not in self._known:
            objective = tabulated(objective)
            weight = _weights(objective, self.p)
            moment = SHARED * self.length(weight) ** 2
            if not objective.is_likelihood:
                signals = SHARED * self.pull**2
                scores = [Scores(float(p), signal=float(one)) for p, one in zip(self.p, signals, strict=True)]
                moment = float(self.shares @ [second_moment(objective, one) for one in scores])
            self._known[key] = weight, moment
        return self._known[key]

    def gain(self, objective: Objective, ks: Sequence[int]) -> float:
        """How much a step raises the mean pass@k, per length of the step; a step along its own gradient has 1.

        That is E[g] . u / sqrt(E|g|^2), with u the gradient of pass@k divided by its length. Of several k the geometric
        mean: what does nothing for one of them gains nothing.
        """
        weight, moment = self.of(objective)
        gains = [self._towards(weight, k * (1 - self.p) ** (k - 1)) for k in ks]
        if not moment or min(gains) <= 0:
            return 0.0
        return math.sqrt(SHARED / moment) * math.exp(sum(map(math.log, gains)) / len(gains))

    def _towards(self, weight: np.ndarray, wanted: np.ndarray) -> float:
        """The expected gradient along that of a goal, in units of |v|."""
        length = self.length(wanted)
        return float(self.shares @ (weight * wanted * self.pull**2)) / length if length else 0.0


def effect(objective: Objective, prompts: Prompts, ks: Sequence[int]) -> Effect:
    """What `objective` does to prompts. Raises ValueError where it weighs a prompt by the whole batch."""
    p, shares = prompts.p, prompts.shares
    weight, moment = prompts.of(objective)
    pull = np.abs(weight * prompts.pull)
    total = float(shares @ pull) or math.nan
    solvable = p > 0
    likelihood = np.where(solvable, 1 / np.where(solvable, p, 1), 0.0)
    lengths = prompts.length(weight) * prompts.length(likelihood) or math.nan
    signal = math.sqrt(SHARED) * prompts.length(weight)
    noise = 0.0 if objective.is_likelihood else math.sqrt(max(moment - signal**2, 0.0))
    hard, middling, easy = (float(shares[which] @ pull[which]) / total for which in classes(p))
    return Effect(
        objective,
        hard=hard,
        middling=middling,
        easy=easy,
        ml_weight=float(shares[solvable] @ (p * weight)[solvable]) / (float(shares[solvable].sum()) or math.nan),
        ml_cosine=float(shares @ (weight * likelihood * prompts.pull**2)) / lengths,
        length=math.sqrt(moment),
        noise=noise,
        signal_to_noise=signal / noise if noise else math.inf if signal else 0.0,
        gain=prompts.gain(objective, ks),
    )


def hard_share(objective: Objective, pass_rates: PassRates) -> tuple[float, float] | None:
    """95 % limits of `Effect.hard`."""
    p = pass_rates.rates
    pull = np.abs(_weights(tabulated(objective), p) * _pull(p))
    return pass_rates.interval(np.where(classes(p)[0], pull, 0.0), pull)


def classes(p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Which pass rates are hard, middling and easy."""
    return p < HARD, (p >= HARD) & (p <= EASY), p > EASY


def some_success(p: np.ndarray, num_rollouts: int) -> np.ndarray:
    """P(K >= 1): that a prompt has a success among N rollouts."""
    return pass_at_k(p, 0, num_rollouts)


def mixed(p: np.ndarray, num_rollouts: int) -> np.ndarray:
    """P(0 < K < N): that a prompt has successes and failures, without which most objectives give it no gradient."""
    p = np.asarray(p, np.float64)
    return np.maximum(pass_at_k(p, 0, num_rollouts) - p**num_rollouts, 0.0)


def _pull(p: np.ndarray) -> np.ndarray:
    """|grad p| in units of |v|."""
    return p * (1 - p)


def _weights(objective: Objective, p: np.ndarray) -> np.ndarray:
    """The population weight; 0 where p = 0, whose gradient vanishes whatever it is weighed by."""
    return np.where(p > 0, objective.population_weight(np.where(p > 0, p, 1.0)), 0.0)
