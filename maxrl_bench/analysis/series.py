"""Series (the entries of a legend) and panels, and how their labels write the values of settings."""

from __future__ import annotations

from dataclasses import dataclass
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

    @property
    def title(self) -> str:
        """The title above the panel."""
        return ", ".join([self.task, *in_words(self.settings)])
