"""What the reference experiments of this suite measured: the comparisons of their claims, as plots/claims has them.

`claims.csv` beside this file is a link to plots/claims/claims.csv, so that an installed package has them too.
"""

from __future__ import annotations

import io
import re
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from maxrl_bench.advice.effects import Prompts
from maxrl_bench.inputs import read_bytes
from maxrl_bench.objectives.formula import REQUIRED, Objective
from maxrl_bench.objectives.table import OBJECTIVES, bind

PATH = Path(__file__).parent / "claims.csv"
_TEXTS = ("experiment", "claim", "part", "task", "when", "metric", "compare", "against", "outcome")
_CLEARLY = 0.01  # by which the gains of two objectives must differ for theory to tell them apart


@dataclass(frozen=True)
class Measured:
    """Two objectives at the end of an experiment: how much higher a metric was under `ours`, over all its tasks."""

    experiment: str
    claim: str
    metric: str
    ours: Objective
    theirs: Objective
    effect: float
    low: float
    high: float
    seeds: int
    outcome: str  # better, worse, practically equal, undecided
    theory: str  # what `gain` says of ours on the prompts at hand: better, worse, practically equal

    @property
    def agrees(self) -> bool | None:
        """Whether theory names the one that won; None where nobody did."""
        return self.theory == self.outcome if self.outcome in ("better", "worse") else None


def comparisons(ks: tuple[int, ...], num_rollouts: int, prompts: Prompts, path: Path = PATH) -> list[Measured]:
    """The reference experiments' final pass@1 and pass@k of two objectives, beside what theory says of prompts at hand.

    ks: those of the goal: pass@1 is taken for 1, the one other pass@k that was measured for all else. Labels that are
    no objective at N rollouts are passed over. Raises ValueError where the table is damaged.
    """
    try:
        table = pd.read_csv(io.BytesIO(read_bytes(path)))
        rows = table[(table["part"] == "claim") & (table["task"] == "all") & (table["when"] == "final")]
        texts = rows[list(_TEXTS)].astype(str).to_dict("records")
        numbers = rows[["effect", "low", "high", "seeds"]].astype(float).to_dict("records")
    except FileNotFoundError:
        return []
    except (KeyError, ValueError) as error:
        raise ValueError(f"{path} is damaged ({' '.join(str(error).split())})") from None
    found: dict[tuple[str, ...], Measured] = {}
    for text, number in zip(texts, numbers, strict=True):
        match = re.fullmatch(r"pass@(\d+)", text["metric"])
        sides = [_objective(text[side], num_rollouts) for side in ("compare", "against")]
        if match is None or not any((k == 1) == (match[1] == "1") for k in ks) or None in sides:
            continue
        ours, theirs = (side for side in sides if side is not None)
        key = (text["experiment"], text["metric"], ours.label, theirs.label)
        if key in found or ours == theirs:
            continue
        a, b = (prompts.gain(side, [k for k in ks if (k == 1) == (match[1] == "1")]) for side in (ours, theirs))
        near = abs(a - b) <= _CLEARLY * max(abs(a), abs(b))
        theory = "practically equal" if near else "better" if a > b else "worse"
        found[key] = Measured(
            text["experiment"], text["claim"], text["metric"], ours, theirs,
            number["effect"], number["low"], number["high"], int(number["seeds"]), text["outcome"], theory,
        )  # fmt: skip
    return list(found.values())


def _objective(label: str, num_rollouts: int) -> Objective | None:
    """The objective with a label such as "GRPO" or "MaxRL LOO T=8" (of more than N: T = N); None if there is none."""
    plain, _, order = label.partition(" T=")
    for name, row in OBJECTIVES.items():
        required = [knob for knob, rule in row.knobs.items() if rule.default is REQUIRED]
        if row.label != plain or row.pooled or row.on_success is None or row.min_rollouts > num_rollouts:
            continue
        if not order and not required:
            return bind(name, num_rollouts)
        if order.isdigit() and required == ["order"]:
            return bind(name, num_rollouts, order=min(int(order), num_rollouts))
    return None
