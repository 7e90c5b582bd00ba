"""Three sentences of advice, and what each rests on."""

from __future__ import annotations

import math

from maxrl_bench.advice.measured import Measured
from maxrl_bench.advice.result import REACH, Advice, AtN, percent

_FIRST = "objectives-reference"  # the experiment to quote: the most tasks


def sentences(advice: Advice) -> tuple[str, str, str]:
    """What the prompts allow, which objective suits the goal, and what was measured."""
    return _signal(advice), _choice(advice), _evidence(advice.at[-1])


def _signal(advice: Advice) -> str:
    signal = ", ".join(f"{at.mixed} at N = {at.num_rollouts}" for at in advice.at)
    whole = f"the share of these prompts with both successes and failures, which most objectives need, is {signal}"
    return (
        f"1. Theory: {whole}; MaxRL has {percent(REACH)} of maximum likelihood's weight with {advice.reach} rollouts."
    )


def _choice(advice: Advice) -> str:
    at = advice.at[-1]
    ranked = sorted(at.effects, key=lambda one: -one.gain)
    best, first = ranked[0], at.effects[0]
    if not best.gain > 0:
        return f"2. Theory: none of these objectives can raise {advice.goal}: no prompt has both outcomes."
    factor = at.step(best)
    others = next((one for one in ranked[1:] if one.objective.name != best.objective.name), None)
    lead = f", {best.gain / others.gain:.2f} times {others.objective.label}'s" if others and others.gain > 0 else ""
    rate = (
        f"; its steps are as long as {first.objective.label}'s at {factor:.2g} times the learning rate (plain SGD)"
        if best is not first and math.isfinite(factor)
        else ""
    )
    return (
        f"2. Theory, exact under the proxy: for {advice.goal} at N = {at.num_rollouts}, a step of a given length gains "
        f"most under {best.objective.label}{lead}{rate}."
    )


def _evidence(at: AtN) -> str:
    decided = [one for one in at.measured if one.agrees is not None]
    if not at.measured:
        return "3. Measured: no reference experiment of this suite has compared objectives for this goal."
    quoted = [one for one in at.measured if one.experiment == _FIRST] or at.measured
    pairs = dict.fromkeys((one.ours.label, one.theirs.label) for one in quoted)
    shown = "; ".join(
        f"{ours} against {theirs} "
        + ", ".join(_in_words(one) for one in quoted if (one.ours.label, one.theirs.label) == (ours, theirs))
        for ours, theirs in pairs
    )
    agree = sum(bool(one.agrees) for one in decided)
    where = ", ".join(dict.fromkeys(one.experiment for one in decided))
    agreed = f"of {len(decided)} comparisons that somebody won ({where}), theory names the winner of {agree}"
    advice = "" if agree == len(decided) else "; where the two disagree, trust the measurement"
    return f"3. Measured, experiment '{quoted[0].experiment}' of this suite: {shown}; {agreed}{advice}."


def _in_words(one: Measured) -> str:
    return f"{one.metric} {one.effect:+.3f} [{one.low:+.3f}, {one.high:+.3f}] ({one.outcome})"
