"""Which learning rate suits whom: chosen by two criteria on validation curves, with how sure each choice is.

The objectives' weights differ in scale by up to a factor N, so one learning rate for all would favour some. Which one
is best hangs on what is asked of it, so there are two criteria, registered here, and both are published: the area under
pass@1, and the area under the mean of pass@1 and pass@128. An area (the mean over the evaluations after the first) and
no end point, because onsets of learning vary from seed to seed. Each is asked of every task, objective (with its knobs)
and number of rollouts by itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from maxrl_bench.analysis.crossed import mean_of
from maxrl_bench.sweeps.rate_rule import Group, beyond

CRITERIA = {"pass@1": "area under pass@1", "both": "area under the mean of pass@1 and pass@{}"}
WIDENS = "pass@1"  # the criterion whose best rate must lie inside of those tried
GROUP = ["task", "objective_name", "num_rollouts"]


class Choice(NamedTuple):
    """The best rate of a task, an objective and a number of rollouts by one criterion, and how sure that is."""

    task: str
    objective: str
    num_rollouts: int
    criterion: str
    rate: float
    area: float  # mean over seeds
    next: float  # the second best rate; NaN where there is one rate
    difference: float  # of their areas, paired over seeds
    low: float  # its 95 % interval; NaN for fewer than three seeds
    high: float
    seeds: int
    tried: tuple[float, ...]  # ascending

    @property
    def edge(self) -> str:
        """ "lowest" or "highest" of the rates tried, beyond which a better one may lie; "" inside."""
        if len(self.tried) < 2:
            return "only"
        return {self.tried[0]: "lowest", self.tried[-1]: "highest"}.get(self.rate, "")

    @property
    def is_sure(self) -> bool:
        """Whether the interval of the difference to the next rate is above 0."""
        return self.low > 0


def second_k(metrics: pd.DataFrame) -> int:
    """The k of the second criterion: 128, or the largest below it that every run has."""
    whole = [c for c in map(str, metrics) if c.startswith("pass@") and not metrics[c].isna().any()]
    return max([k for k in (int(c.removeprefix("pass@")) for c in whole) if k <= 128], default=1)


def criterion_columns(metrics: pd.DataFrame) -> dict[str, list[str]]:
    """The columns whose mean each criterion takes."""
    return {"pass@1": ["pass@1"], "both": ["pass@1", f"pass@{second_k(metrics)}"]}


def areas(metrics: pd.DataFrame) -> pd.DataFrame:
    """One row per run: GROUP, learning_rate, seed, and the area by each of CRITERIA.

    Raises ValueError where values are missing.
    """
    after = metrics[metrics["step"] > 0]
    if not len(after) or "pass@1" not in after or not np.isfinite(after["pass@1"].astype(float)).all():
        raise ValueError("learning rates are chosen by pass@1 after the first step; values of it are missing")
    scored = after.assign(**{name: after[columns].mean(axis=1) for name, columns in criterion_columns(metrics).items()})
    return scored.groupby([*GROUP, "learning_rate", "seed"], sort=False)[list(CRITERIA)].mean().reset_index()


def choose(table: pd.DataFrame, criterion: str) -> list[Choice]:
    """The best rate of each group of `areas`, by the mean over seeds; of equally good ones the smallest.

    Raises ValueError where rates of a group were tried on different seeds, which would be unfair.
    """
    found = []
    for (task, objective, num_rollouts), rows in table.groupby(GROUP, sort=True):
        by_seed = rows.pivot(index="seed", columns="learning_rate", values=criterion).sort_index(axis=1)
        if by_seed.isna().any(axis=None):
            whose = f"{objective} on {task}"
            raise ValueError(
                f"learning rates of {whose} were tried on different numbers of seeds; finish the sweep first"
            )
        means = by_seed.mean()
        best = float(means.idxmax())
        rest = means.drop(best)
        second = float(rest.idxmax()) if len(rest) else np.nan
        paired = mean_of([(by_seed[best] - by_seed[second]).to_numpy() if len(rest) else np.full(len(by_seed), np.nan)])
        low, high = (float(limit) for limit in paired.limits())
        group = str(task), str(objective), int(num_rollouts)
        tried, seeds, area, apart = (
            tuple(map(float, by_seed.columns)),
            len(by_seed),
            float(means[best]),
            float(paired.value),
        )
        found.append(Choice(*group, criterion, best, area, second, apart, low, high, seeds, tried))
    return found


def choices(metrics: pd.DataFrame) -> list[Choice]:
    """What `choose` finds by each of CRITERIA. Raises ValueError as `areas` and `choose` do."""
    table = areas(metrics)
    return [choice for criterion in CRITERIA for choice in choose(table, criterion)]


def wanted(found: Iterable[Choice], walls: Mapping[Group, Iterable[float]]) -> dict[Group, list[float]]:
    """The rates to try next, by group: beyond each end at which the choice by WIDENS stands.

    Not by the other criterion: at ever lower rates a policy keeps more of the base policy's pass@k, so that where
    training loses it no range would ever be wide enough. walls: by group, rates with which runs fail; nothing is tried
    beyond those.
    """
    more: dict[Group, list[float]] = {}
    for choice in (choice for choice in found if choice.criterion == WIDENS):
        group = choice[:3]
        for edge in ("lowest", "highest") if choice.edge == "only" else (choice.edge,) if choice.edge else ():
            rate = beyond(choice.rate, edge)
            failed = [wall for wall in walls.get(group, ()) if (wall > choice.rate) == (edge == "highest")]
            if rate is not None and not failed and rate not in more.get(group, ()):
                more.setdefault(group, []).append(rate)
    return more


def row_of(choice: Choice) -> dict[str, Any]:
    """A choice as a row of rates.csv."""
    row = {key: float(f"{v:.6g}") if isinstance(v, float) else v for key, v in choice._asdict().items()}
    row["tried"] = " ".join(f"{rate:g}" for rate in choice.tried)
    return {**row, "edge": choice.edge, "sure": choice.is_sure}
