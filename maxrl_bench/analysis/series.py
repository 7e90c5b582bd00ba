"""Series (the entries of a legend) and panels, and how their labels write the values of settings."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

# How legends and titles write settings for which the field has another way than "name = value".
_WORDS = {
    "num_rollouts": "N = {}",
    "batch_size": "{} instances per step",
    "learning_rate": "learning rate {}",
    "steps": "{} steps",
    "train_instances": "{} training instances",
    "warm_start_steps": "{} warm-start steps",
    "policy": "policy: {}",
    "eval_split": "{} split",
}
_ONE = {
    ("batch_size", 1): "1 instance per step",
    ("max_grad_norm", 1e9): "no clipping",
    ("optimizer", "sgd"): "SGD",
    ("schedule", "cosine"): "cosine schedule",
    ("steps", 1): "1 step",
    ("train_instances", 0): "unlimited training instances",
    ("train_instances", 1): "1 training instance",
    ("warm_start_steps", 1): "1 warm-start step",
}
Settings = tuple[tuple[str, Any], ...]


def in_words(settings: Settings) -> list[str]:
    """Settings as legends and titles write them: ["N = 64", "max grad norm = 0.5"]."""
    return [
        _ONE.get((name, value)) or _WORDS.get(name, name.replace("_", " ") + " = {}").format(exactly(value))
        for name, value in settings
    ]


def in_order(settings: Settings) -> list[Any]:
    """The values of settings, to sort by: without a limit comes after every limit."""
    return [math.inf if (name, value) == ("train_instances", 0) else value for name, value in settings]


def exactly(value: Any) -> str:
    """A value in the fewest digits that identify it."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


@dataclass(frozen=True)
class Series:
    """Runs that differ only in task and seed: an objective's label, and its values of the settings that vary."""

    objective: str
    objective_name: str
    settings: Settings = ()

    @property
    def label(self) -> str:
        """The entry in the legend."""
        return ", ".join([self.objective, *in_words(self.settings)])


@dataclass(frozen=True)
class Panel:
    """One panel of a figure: a task, and the values of settings that vary within several objectives."""

    task: str
    settings: Settings = ()
    named: Settings | None = field(default=None, compare=False)  # those that its title names; all if None

    @property
    def title(self) -> str:
        """The title above the panel."""
        return ", ".join([self.task, *in_words(self.settings if self.named is None else self.named)])


def one_at_a_time(task: str, settings: Iterable[Settings]) -> list[Panel]:
    """The panels of a task, whose settings have the same names.

    Where each departs in one setting from what most have, its title names that setting only.
    """
    cells = list(settings)
    usual = [Counter(pairs).most_common(1)[0][0] for pairs in zip(*cells, strict=True)]
    departing = [tuple(pair for pair, most in zip(cell, usual, strict=True) if pair != most) for cell in cells]
    alone = len(cells) > 2 and all(len(pairs) == 1 for pairs in departing)
    return [Panel(task, cell, own if alone else None) for cell, own in zip(cells, departing, strict=True)]
