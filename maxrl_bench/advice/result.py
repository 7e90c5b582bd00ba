"""What `maxrl_bench.advise` returns, as text, as a table and as JSON."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pandas as pd

from maxrl_bench.advice.effects import EASY, HARD, PROXY, Effect
from maxrl_bench.advice.families import Member
from maxrl_bench.advice.measured import Measured
from maxrl_bench.advice.mixture import PassRates

REACH = 0.9  # of maximum likelihood's weight
MOST = 2**20  # rollouts, beyond which nobody goes
Limits = tuple[float, float] | None


@dataclass(frozen=True)
class Share:
    """A share of prompts, or a mean over them, with its 95 % limits where pass rates are inferred."""

    value: float
    limits: Limits = None

    def __str__(self) -> str:
        return f"{percent(self.value)}{_between(self.limits, percent)}"


@dataclass(frozen=True)
class Reach:
    """How many rollouts bring MaxRL to 90 % of maximum likelihood's weight, on average; inf: more than 2^20."""

    rollouts: float
    limits: Limits = None

    def __str__(self) -> str:
        return f"{_rollouts(self.rollouts)}{_between(self.limits, _rollouts)}"


@dataclass(frozen=True)
class AtN:
    """What N rollouts do: who has any signal, and the effect of every objective."""

    num_rollouts: int
    some_success: Share  # P(K >= 1), over prompts
    mixed: Share  # P(0 < K < N), over prompts
    effects: list[Effect]  # of the objectives asked for, then of the best of each family that is not among them
    hard: list[Limits]  # 95 % limits of each one's `hard`
    members: list[Member]  # the best of each family for the goal
    measured: list[Measured]

    def step(self, one: Effect) -> float:
        """The factor on the learning rate that makes an objective's steps as long as those of the first."""
        return self.effects[0].length / one.length if one.length else math.inf


@dataclass(frozen=True, repr=False)
class Advice:
    """What `advise` found: the prompts, what each N does, and three sentences. Printed, it is what the command prints.

    ks: the goal is the mean of pass@k over these. prompts: how many were counted; None where pass rates are given.
    shares: of prompts that are unsolvable (p = 0), hard, middling and easy, and their mean pass rate.
    """

    ks: tuple[int, ...]
    prompts: int | None
    pass_rates: PassRates
    shares: Mapping[str, Share]
    reach: Reach
    at: list[AtN]
    sentences: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return "\n\n".join([_prompts(self), *(_at(at, self) for at in self.at), "\n".join(self.sentences)])

    @property
    def goal(self) -> str:
        """The goal in words: "pass@1 and pass@128"."""
        return " and ".join(f"pass@{k}" for k in self.ks)

    @property
    def table(self) -> pd.DataFrame:
        """A row for each N and objective: what is printed, with full digits."""
        return pd.DataFrame([row for at in self.at for row in _rows(at)])

    def to_json(self) -> str:
        """All of it as one JSON object; a number that is not finite is null."""
        rates = self.pass_rates
        found = {
            "goal": self.goal,
            "prompts": self.prompts,
            "proxy": PROXY,
            "pass_rates": {"rate": rates.rates[rates.support], "share": rates.shares[rates.support]},
            "shares": {name: _limited(share.value, share.limits) for name, share in self.shares.items()},
            "reach": {"of": REACH, "rollouts": _limited(self.reach.rollouts, self.reach.limits)},
            "at": [
                {
                    "rollouts": at.num_rollouts,
                    "some_success": _limited(at.some_success.value, at.some_success.limits),
                    "mixed": _limited(at.mixed.value, at.mixed.limits),
                    "objectives": [
                        row | {"hard_limits": limits} for row, limits in zip(_rows(at), at.hard, strict=True)
                    ],
                    "best": [
                        {"knob": m.knob, "value": m.value, **_who(m.objective), "gain": m.gain} for m in at.members
                    ],
                    "measured": [
                        asdict(m) | {"ours": _who(m.ours), "theirs": _who(m.theirs), "agrees": m.agrees}
                        for m in at.measured
                    ],
                }
                for at in self.at
            ],
            "advice": self.sentences,
        }
        return json.dumps(_plain(found), allow_nan=False)


def percent(value: float) -> str:
    """A share in words: "4.2 %"."""
    return f"{100 * value:.2g} %" if value < 0.1 else f"{100 * value:.0f} %"


def _rollouts(value: float) -> str:
    return f"{value:,.0f}" if math.isfinite(value) else f"more than {MOST:,}"


def _between(limits: Limits, shown: Any) -> str:
    return "" if limits is None else f" [{shown(limits[0])}, {shown(limits[1])}]"


def _who(objective: Any) -> dict[str, Any]:
    return {"objective": objective.name, "label": objective.label, "knobs": dict(objective.knobs)}


def _limited(value: float, limits: Limits) -> dict[str, Any]:
    return {"value": value, "low": limits and limits[0], "high": limits and limits[1]}


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, list | tuple):
        return [_plain(part) for part in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _rows(at: AtN) -> list[dict[str, Any]]:
    return [
        {
            "rollouts": at.num_rollouts,
            **_who(one.objective),
            "hard": one.hard,
            "middling": one.middling,
            "easy": one.easy,
            "ml_weight": one.ml_weight,
            "ml_cosine": one.ml_cosine,
            "noise": one.noise,
            "signal_to_noise": one.signal_to_noise,
            "step": at.step(one),
            "gain": one.gain,
        }
        for one in at.effects
    ]


def _prompts(advice: Advice) -> str:
    of = f"{advice.prompts:,} prompts, pass rates inferred" if advice.prompts else "Pass rates as given"
    odd = (
        ""
        if not advice.prompts or advice.shares["pass rate"].limits
        else ("\nNo intervals: no distribution of pass rates makes counts such as these; are attempts independent?")
    )
    shares = {name: str(share) for name, share in advice.shares.items()}
    return (
        f"{of}: mean {shares['pass rate']}; hard (p < {HARD:g}) {shares['hard']} of the prompts, middling "
        f"{shares['middling']}, easy (p > {EASY:g}) {shares['easy']}; never solved (p = 0) {shares['unsolvable']}.\n"
        f"MaxRL reaches {percent(REACH)} of maximum likelihood's weight with N = {advice.reach}.{odd}"
    )


def _at(at: AtN, advice: Advice) -> str:
    head = (
        f"N = {at.num_rollouts}: a success in {at.some_success} of the prompts, successes and failures in {at.mixed}.\n"
    )
    best = ", ".join(f"{m.knob} = {m.value:g} ({m.objective.name})" for m in at.members)
    columns = {
        "objective": [f"{one.objective.label}" for one in at.effects],
        "hard": [_cell(one.hard, ".0%") for one in at.effects],
        "middling": [_cell(one.middling, ".0%") for one in at.effects],
        "easy": [_cell(one.easy, ".0%") for one in at.effects],
        "ML weight": [_cell(one.ml_weight, ".3g") for one in at.effects],
        "ML cosine": [_cell(one.ml_cosine, ".3f") for one in at.effects],
        "noise": [_cell(one.noise, ".3g") for one in at.effects],
        "signal/noise": [_cell(one.signal_to_noise, ".3g") for one in at.effects],
        "step": [_cell(at.step(one), ".3g") for one in at.effects],
        "gain": [_cell(one.gain, ".3g") for one in at.effects],
    }
    return f"{head}{pd.DataFrame(columns).to_string(index=False)}\nBest for {advice.goal}: {best}."


def _cell(value: float, form: str) -> str:
    return format(value, form) if math.isfinite(value) else "-"
