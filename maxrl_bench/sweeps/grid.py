"""The tables of settings in an experiment file, checked value by value, and the runs that they define together."""

from __future__ import annotations

import contextlib
import gc
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from maxrl_bench.config import FIELDS, RunConfig, brief, find_task, one_line, resolve_objective
from maxrl_bench.names import did_you_mean, label, shorten
from maxrl_bench.sweeps.rate_rule import RateRule, read_rate_rule
from maxrl_bench.sweeps.seeds import SeedRule, read_rule

MAX_RUNS = 100_000
TUNED = "tuned"
OPTIMIZER: str = RunConfig.model_fields["optimizer"].default  # the one that tuned rates are for where none is named


class Setting(NamedTuple):
    """The values that a layer gives to a key (one, or an axis), and the layer's name for error messages."""

    values: list[Any]
    where: str
    rule: SeedRule | RateRule | None = None  # of seeds or rates to which more are added; the values are the first


Layer = Mapping[str, Setting]


class Rates(NamedTuple):
    """The tuned learning rates by task and objective, as the file `path` gives them."""

    tables: Mapping[str, Any]
    path: Path


@contextlib.contextmanager
def many_objects() -> Iterator[None]:
    """Within it, cyclic garbage is not looked for: 100,000 runs have none, and each look goes over all of them."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def check_table(value: Any, where: str) -> dict[str, Any]:
    """A table. Raises ValueError on anything else."""
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be a table, got {shorten(value)}")
    return value


def layer(table: Any, where: str) -> Layer:
    """Check every value of a table of run settings by itself, so that errors name the table and the key."""
    checked = {}
    for key, value in check_table(table, where).items():
        if key not in FIELDS:
            raise ValueError(f"{where}: key {shorten(key)} is unknown; {did_you_mean(key, FIELDS)}")
        if key == "seed" and isinstance(value, Mapping):
            rule = read_rule(value, where)
            checked[key] = Setting(list(range(rule.first)), where, rule)
            continue
        if key == "learning_rate" and isinstance(value, Mapping):
            rates = read_rate_rule(value, where)
            checked[key] = Setting(list(rates.first), where, rates)
            continue
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"{where}: key '{key}' is an empty list, which leaves no run")
        if len(values) > MAX_RUNS:
            raise ValueError(f"{where}: key '{key}' has {len(values)} values; at most {MAX_RUNS} are accepted")
        try:
            good = [v if (key, v) == ("learning_rate", TUNED) else FIELDS[key].validate_python(v) for v in values]
        except ValidationError as error:
            raise ValueError(f"{where}: {one_line(error, key)}") from None
        checked[key] = Setting(good, where)
    return checked


def task_layers(tables: Any, path: Path | str, prefix: str = "") -> dict[str, Layer]:
    """Tables of run settings by task name (recipes.toml, [task.NAME])."""
    layers = {}
    for name, table in check_table(tables, f"{path}: [{prefix.rstrip('.')}]").items():
        try:
            find_task(name)
        except ValueError as error:
            raise ValueError(f"{path}: [{prefix}{shorten(name).strip(chr(39))}]: {error}") from None
        layers[name] = layer(table, f"{path}: [{prefix}{name}]")
        if "task" in layers[name]:
            raise ValueError(f"{path}: [{prefix}{name}]: key 'task' is not accepted here")
    return layers


def rate_name(objective: str, num_rollouts: int | None = None, optimizer: str = OPTIMIZER) -> str:
    """The entry of learning_rates.toml for these: "grpo", "grpo N=4", "grpo N=4 sgd"."""
    at = [] if num_rollouts is None else [f"N={num_rollouts}"]
    under = [] if optimizer == OPTIMIZER else [optimizer]
    return " ".join([objective, *at, *under])


def find_rate(
    files: Sequence[Rates],
    task: Mapping[str, Any],
    objective: Mapping[str, Any],
    num_rollouts: int,
    optimizer: str = OPTIMIZER,
) -> float | None:
    """The tuned learning rate of a task (with its options, else by name) and an objective (likewise, by knobs).

    An entry for the number of rollouts goes before the objective's own. An optimizer other than the default has entries
    of its own, and no others count: its rates are of another scale.

    It is that of the first file that has one; None if none has. Raises ValueError on one that is no learning rate.
    """
    for rates, task_name in itertools.product(files, (label(task), task["name"])):
        table = check_table(rates.tables.get(task_name, {}), f"{rates.path}: [{task_name}]")
        names = dict.fromkeys((label(objective), label(brief(objective)), objective["name"]))
        entries = [rate_name(name, n, optimizer) for name in names for n in (num_rollouts, None)]
        for objective_name in entries:
            if objective_name in table:
                try:
                    return float(FIELDS["learning_rate"].validate_python(table[objective_name]))
                except ValidationError as error:
                    raise ValueError(f"{rates.path}: [{task_name}]: {one_line(error, objective_name)}") from None
    return None


def tuned_rate(
    files: Sequence[Rates],
    task: Mapping[str, Any],
    objective: Mapping[str, Any],
    num_rollouts: int,
    optimizer: str = OPTIMIZER,
) -> float:
    """What `find_rate` finds. Raises ValueError where it finds nothing."""
    rate = find_rate(files, task, objective, num_rollouts, optimizer)
    if rate is None:
        names = f"task '{task['name']}', objective '{objective['name']}'"
        names += f", optimizer '{optimizer}'" if optimizer != OPTIMIZER else ""
        where = files[0].path.name
        raise ValueError(f'learning_rate = "tuned", but {where} has none for {names}; tune it or give a number')
    return rate


def extends(blocks: Iterable[Block]) -> bool:
    """Whether learning rates are added to the runs. Raises ValueError, one line, where that is so for some alone."""
    settings = [setting for block in blocks for setting in block.settings("learning_rate")]
    extended = next((setting for setting in settings if setting.rule is not None), None)
    fixed = next((setting for setting in settings if setting.rule is None), None)
    if extended is not None and fixed is not None:
        where = f"{extended.where}: key 'learning_rate'"
        raise ValueError(f'{where}: until = "inside" holds for all runs of a profile, not so in {fixed.where}')
    return extended is not None


def common_rule(blocks: Iterable[Block], has_claims: bool) -> SeedRule | None:
    """The rule by which the seeds of all blocks follow the claims; None if they are fixed.

    Raises ValueError, in one line that names the table, where there are no claims, or another rule for some runs.
    """
    seeds = [setting for block in blocks for setting in block.settings("seed")]
    following = next((setting for setting in seeds if setting.rule is not None), None)
    if following is None:
        return None
    where = f"{following.where}: key 'seed'"
    if not has_claims:
        raise ValueError(f'{where}: until = "decided" needs claims to decide, [[claims]]; or give a list of seeds')
    other = next((setting for setting in seeds if setting.rule != following.rule), None)
    if other is not None:
        raise ValueError(f"{where}: seeds that follow the claims are the same for all runs, not so in {other.where}")
    return following.rule if isinstance(following.rule, SeedRule) else None


def _size(setting: Setting) -> int:
    return len(setting.values) if setting.rule is None else setting.rule.most


class Block:
    """One [[grid]] table with the layers of settings that apply to it; later ones win. `where`: its name in errors."""

    def __init__(
        self, where: str, recipes: Callable[[str], Layer], below: Layer, own: Mapping[str, Layer], above: Layer
    ):
        self.where, self._recipes, self._below, self._own, self._above = where, recipes, below, own, above
        tasks = {**below, **above}.get("task")
        if tasks is None:
            raise ValueError(f"{where}: key 'task' is missing")
        self._tasks = tasks
        self._layers = {task["name"]: self._layer(task["name"]) for task in tasks.values}

    def _layer(self, task: str) -> Layer:
        merged = {**self._recipes(task), **self._below, **self._own.get(task, {}), **self._above}
        merged.pop("task")
        return merged

    def recipes(self) -> Iterator[tuple[str, Layer]]:
        """Of the recipe of each task, what no other layer replaces."""
        for task, merged in self._layers.items():
            recipe = self._recipes(task)
            yield task, {key: setting for key, setting in merged.items() if recipe.get(key) is setting}

    def __len__(self) -> int:
        """How many runs the block defines at most, without making any."""
        sizes = {name: math.prod(map(_size, merged.values())) for name, merged in self._layers.items()}
        return sum(sizes[task["name"]] for task in self._tasks.values)

    def settings(self, key: str) -> Iterator[Setting]:
        """The values of a key that has a default, on each task."""
        for merged in self._layers.values():
            yield merged.get(key, Setting([RunConfig.model_fields[key].default], self.where))

    def runs(self, rates: Sequence[Rates]) -> Iterator[RunConfig]:
        """The runs, one after the other: the product over all axes, per task. Raises ValueError on a bad one."""
        for task in self._tasks.values:
            merged = self._layers[task["name"]]
            axes = {key: setting.values for key, setting in merged.items() if len(setting.values) > 1}
            single = {key: setting.values[0] for key, setting in merged.items() if key not in axes}
            yield from self._product({**single, "task": task}, axes, merged, rates)

    def _product(
        self, single: dict[str, Any], axes: Mapping[str, Sequence[Any]], merged: Layer, rates: Sequence[Rates]
    ) -> Iterator[RunConfig]:
        template: RunConfig | None = None
        # What depends on several settings at once is worked out once for each combination of these.
        objectives: dict[tuple[int, int], dict[str, Any]] = {}
        tuned: dict[tuple[int, int, str], float] = {}
        default = RunConfig.model_fields["num_rollouts"].default
        for values in itertools.product(*axes.values()):
            changed = dict(zip(axes, values, strict=True))
            settings = {**single, **changed} if template is None else changed
            objective = changed.get("objective", single.get("objective"))
            if changed.get("learning_rate", single.get("learning_rate")) == TUNED and objective is not None:
                both = {**single, **changed}
                case = id(objective), both.get("num_rollouts", default), both.get("optimizer", OPTIMIZER)
                if case not in tuned:
                    tuned[case] = self._tuned(rates, single["task"], objective, *case[1:])
                settings["learning_rate"] = tuned[case]
            if template is None:
                template = self._checked(settings, merged)
                objectives[id(objective), template.num_rollouts] = template.objective
                yield template
                continue
            num_rollouts = changed.get("num_rollouts", template.num_rollouts)
            key = id(objective), num_rollouts
            if key not in objectives:
                objectives[key] = self._resolved(objective, num_rollouts, merged)
            yield template.model_copy(update={**settings, "objective": objectives[key]})

    def _tuned(
        self,
        rates: Sequence[Rates],
        task: Mapping[str, Any],
        objective: Mapping[str, Any],
        num_rollouts: int,
        optimizer: str,
    ) -> float:
        try:
            return tuned_rate(rates, task, objective, num_rollouts, optimizer)
        except ValueError as error:
            raise ValueError(f"{self.where}: {error}") from None

    def _checked(self, settings: Mapping[str, Any], merged: Layer) -> RunConfig:
        try:
            return RunConfig(**settings)
        except ValidationError as error:
            raise ValueError(f"{self._blamed(merged)}: {one_line(error)}") from None

    def _resolved(self, objective: Any, num_rollouts: int, merged: Layer) -> dict[str, Any]:
        try:
            return resolve_objective(objective, num_rollouts)
        except ValueError as error:
            raise ValueError(f"{self._blamed(merged)}: {error}") from None

    def _blamed(self, merged: Layer) -> str:
        """Where to report an error of several settings together (an order above N): at the objective."""
        return merged["objective"].where if "objective" in merged else self.where
