"""What a legend and a panel's title name, and how they write the values of settings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# How legends and titles write the values of settings, where "name = value" is not how the field says it.
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
Settings = tuple[tuple[str, Any], ...]


def in_words(settings: Settings) -> list[str]:
    """Settings as legends and titles write them: ["N = 64", "max grad norm = 0.5"]."""
    return [_WORDS.get(name, name.replace("_", " ") + " = {}").format(exactly(value)) for name, value in settings]


def exactly(value: Any) -> str:
    """A value in as few digits as tell it from every other."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return f"{value:g}" if float(f"{value:g}") == value else repr(value)
    return str(value)


@dataclass(frozen=True)
class Series:
    """Runs that differ in nothing but task and seed: an objective's label and the varied settings that it has."""

    objective: str
    objective_name: str
    settings: Settings = ()

    @property
    def label(self) -> str:
        """As the legend writes it."""
        return ", ".join([self.objective, *in_words(self.settings)])


@dataclass(frozen=True)
class Panel:
    """One of a figure's small multiples: a task, under certain settings where several objectives vary them."""

    task: str
    settings: Settings = ()

    @property
    def title(self) -> str:
        """As the panel is headed."""
        return ", ".join([self.task, *in_words(self.settings)])
