"""What belongs to a task, whatever an experiment says: its recipe (settings of runs) and its tuned learning rates.

The built-in tasks' are two files among the built-in experiments, recipes.toml and learning_rates.toml; a plug-in task
may bring a recipe as an attribute `recipe` of its factory. Files of the same names beside an experiment go before both,
per task and key. Built-in experiments and single runs take those in ./experiments.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from maxrl_bench import inputs
from maxrl_bench.config import FIELDS, RunConfig
from maxrl_bench.names import label
from maxrl_bench.sweeps.grid import OPTIMIZER, TUNED, Layer, Rates, Setting, find_rate, task_layers, tuned_rate
from maxrl_bench.tasks import recipe_of

BUILT_IN = Path(__file__).parents[1] / "experiments"  # in a checkout a link to the folder at its root
HERE = Path("experiments")  # where a user's own are looked for
RECIPES = "recipes.toml"
LEARNING_RATES = "learning_rates.toml"
FINDINGS = "findings.toml"  # what the results say, in words: see `report.findings`
NO_EXPERIMENTS = (RECIPES, LEARNING_RATES, FINDINGS)  # files beside them


def beside(experiment: Path | None) -> Path:
    """The folder whose files go before the built-in ones: the experiment's; ./experiments for a built-in one, or none.

    It is also where tuned rates are written: never into an installed package.
    """
    return HERE if experiment is None or experiment.parent == BUILT_IN else experiment.parent


class Recipes:
    """The recipes and tuned rates that count in a folder. Raises ValueError where one of its files is no good."""

    def __init__(self, folder: Path):
        same = os.path.realpath(folder) == os.path.realpath(BUILT_IN)
        folders = [folder] if same else [folder, BUILT_IN]
        self.rates = [Rates(_read(path / LEARNING_RATES), path / LEARNING_RATES) for path in folders]
        self._layers = [task_layers(_read(path / RECIPES), path / RECIPES) for path in folders]
        self._plugged_in: dict[str, Layer] = {}

    def of(self, task: str) -> Layer:
        """The recipe of a task, by its name. Raises ValueError where that of a plug-in task is no good."""
        if task not in self._plugged_in:
            whose, recipe = recipe_of(task)
            self._plugged_in[task] = task_layers({task: recipe}, whose)[task]
        merged = dict(self._plugged_in[task])
        for layers in reversed(self._layers):
            merged.update(layers.get(task, {}))
        return merged


def _read(path: Path) -> dict[str, Any]:
    """A file that need not be there."""
    try:
        return inputs.read_toml(path) if os.path.lexists(path) else {}
    except FileNotFoundError as error:  # a link to nowhere
        raise ValueError(str(error)) from None


def told(task: str, recipe: Mapping[str, Setting]) -> str:
    """The line that says what of a task's recipe counts; "" if nothing does."""
    settings = ", ".join(f"{key} = {as_toml(setting.values)}" for key, setting in recipe.items())
    return f"recipe of {task}: {settings}" if settings else ""


def as_toml(value: Any) -> str:
    """A setting as it stands in a file; a list of one value is that value."""
    if isinstance(value, Mapping):
        return f"{{ {', '.join(f'{key} = {as_toml(part)}' for key, part in value.items())} }}"
    if isinstance(value, list):
        return as_toml(value[0]) if len(value) == 1 else f"[{', '.join(map(as_toml, value))}]"
    return json.dumps(value)


def of_run(settings: Mapping[str, Any], folder: Path = HERE) -> tuple[dict[str, Any], list[str]]:
    """The settings of one run, with its task's recipe for what they do not say; and the lines that tell of it.

    `learning_rate = "tuned"` becomes the tuned rate. Settings without a good task or objective are returned as they
    are: `RunConfig` says what is wrong with them. Raises ValueError where a recipe is no good, or gives several values,
    and where there is no tuned rate and it is asked for.
    """
    try:
        task, objective = (FIELDS[key].validate_python(settings[key]) for key in ("task", "objective"))
    except (KeyError, ValidationError):
        return dict(settings), []
    recipes = Recipes(folder)
    recipe = {key: setting for key, setting in recipes.of(task.name).items() if key not in settings}
    for key, setting in recipe.items():
        if len(setting.values) > 1:
            raise ValueError(f"{setting.where}: key '{key}' has several values; give the run one: {key}=VALUE")
    filled = {**settings, **{key: setting.values[0] for key, setting in recipe.items()}}
    lines = [told(task.name, recipe)]
    num_rollouts = settings.get("num_rollouts", RunConfig.model_fields["num_rollouts"].default)
    wanted = recipes.rates, task, objective, num_rollouts, str(filled.get("optimizer", OPTIMIZER))
    rate = find_rate(*wanted)
    if settings.get("learning_rate") == TUNED:
        filled["learning_rate"] = tuned_rate(*wanted)
    elif "learning_rate" not in settings and rate is not None:
        lines.append(f"tuned learning rate of {label(task)}, {label(objective)}: {rate:g} (with learning_rate=tuned)")
    return filled, [line for line in lines if line]


def lines_of(used: Iterable[tuple[str, Mapping[str, Setting]]]) -> tuple[str, ...]:
    """One line per task on what counts of its recipe, in any of the blocks that `used` lists with it."""
    merged: dict[str, dict[str, Setting]] = {}
    for task, recipe in used:
        merged.setdefault(task, {}).update(recipe)
    return tuple(line for line in (told(task, recipe) for task, recipe in merged.items()) if line)
