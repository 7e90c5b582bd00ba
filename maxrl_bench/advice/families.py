"""Which order T, k or power q gains most towards a goal: the members of three families, compared by their steps."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

from maxrl_bench.advice.effects import Prompts
from maxrl_bench.objectives.formula import Objective
from maxrl_bench.objectives.table import bind

POWERS = (0.0, 0.25, 0.5, 0.75, 1.0)


class Member(NamedTuple):
    """The member of a family that gains most: of `knob`, the value `value`."""

    knob: str
    value: float
    objective: Objective
    gain: float


def best_members(num_rollouts: int, prompts: Prompts, ks: Sequence[int]) -> list[Member]:
    """Of order T (`maxrl_order_loo`), of k (`maxpo`) and of q (`power`), who gains most towards a goal.

    Of T and k the powers of two up to N, and N. Each family by its member of little noise; ties go to the smallest.
    """
    found = []
    for knob, members in _families(num_rollouts):
        gains = [(value, objective, prompts.gain(objective, ks)) for value, objective in members]
        top = max(gains, key=lambda one: one[2])[2]
        value, objective, gained = next(one for one in gains if one[2] >= top * (1 - 1e-9))
        found.append(Member(knob, value, objective, gained))
    return found


def _families(n: int) -> Iterator[tuple[str, list[tuple[float, Objective]]]]:
    sizes = sorted({*(2**i for i in range(n.bit_length()) if 2**i <= n), n})
    makers: tuple[tuple[str, Callable[[float], Objective], list[float]], ...] = (
        ("T", lambda T: bind("maxrl_order_loo", n, order=int(T)), [*sizes]),
        ("k", lambda k: bind("maxpo", n, k=int(k)), [*sizes]),
        ("q", lambda q: bind("power", n, q=q), [*POWERS]),
    )
    for knob, make, values in makers:
        yield knob, [(value, make(value)) for value in values]
