"""An experiment file: the question it asks, validated and expanded into runs.

An experiment is TOML. Any run setting may be a list, which makes it an axis; a run is made for each combination:

    question = "Does MaxRL keep pass@k where GRPO loses it?"     # required
    figures = ["coverage", "pareto"]
    [defaults]                    # settings of every run
    seed = [0, 1, 2, 3, 4]
    [task.fourrooms]              # settings of the runs on one task
    steps = 300
    [[grid]]                      # one or more blocks
    task = ["fourrooms", { name = "maze", size = 9 }]
    objective = ["grpo", { name = "maxrl_order", order = 4 }]
    profiles = ["laptop"]         # optional: only under these profiles
    [profiles.smoke]              # settings that replace those of every block under `--profile smoke`
    steps = 5

Later wins: RunConfig's defaults, recipes.toml's table of the task, [defaults], [task.NAME], [[grid]], [profiles.NAME].
`learning_rate = "tuned"` looks the rate up in learning_rates.toml by task and objective. Both files lie beside the
experiment and are optional.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import ValidationError

from maxrl_bench.config import FIELDS, RunConfig, did_you_mean, label, one_line
from maxrl_bench.config import read_config as read_config  # part of this module's public face
from maxrl_bench.tasks import check_task_name

RECIPES = "recipes.toml"
LEARNING_RATES = "learning_rates.toml"
DEFAULT_PROFILE = "laptop"
MAX_RUNS = 100_000
STORE = "store"  # the folder of results/ that holds the runs themselves
_KEYS = ("question", "figures", "claims", "order", "defaults", "task", "grid", "profiles")


@dataclass(frozen=True)
class Experiment:
    """A question and the runs that answer it."""

    name: str  # of its folder in results/: the file's, and the profile's where that is not the default
    path: Path
    profile: str
    question: str
    figures: tuple[str, ...]
    claims: tuple[dict[str, Any], ...]
    order: int  # experiments are run in this order, then by name
    runs: tuple[RunConfig, ...]


class NoSuchProfile(ValueError):
    """The experiment file does not have the profile asked for."""


class Setting(NamedTuple):
    """The values that a layer gives to a key (one, or an axis), and the layer's name for error messages."""

    values: list[Any]
    where: str


Layer = dict[str, Setting]


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ValueError(f"{path}: cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise ValueError(f"{path}: is not UTF-8 text") from None
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise ValueError(f"{path}: is not TOML: {str(error) or 'nested too deeply'}") from None


def _table(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"{where}: must be a table, got {value!r}")
    return value


def _layer(table: Any, where: str) -> Layer:
    """Check every value of a table of run settings by itself, so that errors name the table and the key."""
    layer: Layer = {}
    for key, value in _table(table, where).items():
        if key not in FIELDS:
            raise ValueError(f"{where}: key '{key}' is unknown; {did_you_mean(key, FIELDS)}")
        values = value if isinstance(value, list) else [value]
        if not values:
            raise ValueError(f"{where}: key '{key}' is an empty list, which leaves no run")
        try:
            checked = [v if (key, v) == ("learning_rate", "tuned") else FIELDS[key].validate_python(v) for v in values]
        except ValidationError as error:
            raise ValueError(f"{where}: {one_line(error, key)}") from None
        layer[key] = Setting(checked, where)
    return layer


def _task_layers(tables: Any, path: Path, prefix: str = "") -> dict[str, Layer]:
    """Tables of run settings by task name (recipes.toml, [task.NAME])."""
    layers = {}
    for name, table in _table(tables, f"{path}: [{prefix.rstrip('.')}]").items():
        try:
            check_task_name(name)
        except ValueError as error:
            raise ValueError(f"{path}: [{prefix}{name}]: {error}") from None
        layers[name] = _layer(table, f"{path}: [{prefix}{name}]")
        if "task" in layers[name]:
            raise ValueError(f"{path}: [{prefix}{name}]: key 'task' is not accepted here")
    return layers


def _tuned(rates: Any, config: dict[str, Any], path: Path) -> float:
    """The tuned learning rate of a task (with its options, else by name) and an objective (likewise)."""
    for task in (label(config["task"]), config["task"]["name"]):
        for objective in (label(config["objective"]), config["objective"]["name"]):
            rate = rates.get(task, {}).get(objective) if isinstance(rates.get(task, {}), dict) else None
            if rate is not None:
                try:
                    return float(FIELDS["learning_rate"].validate_python(rate))
                except ValidationError as error:
                    raise ValueError(f"{path}: [{task}]: {one_line(error, objective)}") from None
    names = f"task '{config['task']['name']}', objective '{config['objective']['name']}'"
    raise ValueError(f'learning_rate = "tuned", but {path.name} has none for {names}; tune it or give a number')


def _expand(
    recipes: dict[str, Layer], defaults: Layer, own: dict[str, Layer], block: Layer, upper: Layer
) -> Iterator[Layer]:
    """The runs of one grid block as layers of single values: the product over all axes, per task. Later layers win."""
    tasks = {**defaults, **block, **upper}.get("task")
    if tasks is None:
        raise ValueError("key 'task' is missing")
    for task in tasks.values:
        name = task["name"]
        merged: Layer = {**recipes.get(name, {}), **defaults, **own.get(name, {}), **block, **upper}
        merged["task"] = Setting([task], tasks.where)
        count = math.prod(len(setting.values) for setting in merged.values())
        if count > MAX_RUNS:
            raise ValueError(f"stands for {count} runs; at most {MAX_RUNS} are accepted")
        for values in itertools.product(*(setting.values for setting in merged.values())):
            yield {
                key: Setting([value], setting.where)
                for (key, setting), value in zip(merged.items(), values, strict=True)
            }


def load_experiment(path: str | Path, profile: str | None = None) -> Experiment:
    """Read, validate and expand an experiment file under a profile ("laptop" if None).

    Raises ValueError with one line that names the file, the table, the key and what is accepted.
    """
    path = Path(path)
    profile = profile or DEFAULT_PROFILE
    data = _read_toml(path)
    for key in data:
        if key not in _KEYS:
            raise ValueError(f"{path}: key '{key}' is unknown; {did_you_mean(key, _KEYS)}")
    question, figures, claims, order = (
        data.get("question"),
        data.get("figures", []),
        data.get("claims", []),
        data.get("order", 0),
    )
    if not isinstance(question, str) or not question.strip():
        raise ValueError(f"{path}: key 'question' must be the question that the experiment answers, as text")
    if not isinstance(figures, list) or not all(isinstance(figure, str) for figure in figures):
        raise ValueError(f"{path}: key 'figures' must be a list of names of figures, got {figures!r}")
    if not isinstance(claims, list) or not all(isinstance(claim, dict) for claim in claims):
        raise ValueError(f"{path}: key 'claims' must be tables, [[claims]]")
    if type(order) is not int:
        raise ValueError(f"{path}: key 'order' must be a whole number, got {order!r}")

    upper, blocks = _profile(path, data, profile)
    defaults = _layer(data.get("defaults", {}), f"{path}: [defaults]")
    recipes_path, rates_path = path.parent / RECIPES, path.parent / LEARNING_RATES
    recipes = _task_layers(_read_toml(recipes_path), recipes_path) if recipes_path.exists() else {}
    own = _task_layers(data.get("task", {}), path, "task.")
    rates = _read_toml(rates_path) if rates_path.exists() else {}

    runs: dict[str, RunConfig] = {}
    origin: dict[str, str] = {}
    for where, block in blocks:
        try:
            expanded = list(_expand(recipes, defaults, own, block, upper))
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
        for settings in expanded:
            config = _resolve(settings, rates, rates_path, where)
            # A profile that replaces an axis can make blocks meet; in the file itself a repetition is a mistake.
            if config.hash in runs and (not upper or origin[config.hash] == where):
                raise ValueError(
                    f"{where}: repeats a run of {origin[config.hash].rpartition(': ')[2]}: {config.describe()}"
                )
            runs.setdefault(config.hash, config)
            origin.setdefault(config.hash, where)
            if len(runs) > MAX_RUNS:
                raise ValueError(f"{path}: stands for more than {MAX_RUNS} runs")
    name = path.stem if profile == DEFAULT_PROFILE else f"{path.stem}-{profile}"
    texts = (name, path, profile, question.strip())
    return Experiment(*texts, tuple(figures), tuple(claims), order, tuple(runs.values()))


def _profile(path: Path, data: dict[str, Any], profile: str) -> tuple[Layer, list[tuple[str, Layer]]]:
    """The settings that a profile imposes, and the grid blocks that take part in it. All profiles are checked."""
    profiles = {
        name: _layer(table, f"{path}: [profiles.{name}]")
        for name, table in _table(data.get("profiles", {}), f"{path}: [profiles]").items()
    }
    names = list(dict.fromkeys([DEFAULT_PROFILE, *profiles]))
    grid = data.get("grid")
    if not isinstance(grid, list) or not grid:
        raise ValueError(f"{path}: needs one or more [[grid]] tables")
    blocks = []
    for number, table in enumerate(grid, 1):
        where = f"{path}: [[grid]] {number}"
        table = dict(_table(table, where))
        only = table.pop("profiles", names)
        if not isinstance(only, list) or not all(isinstance(name, str) for name in only):
            raise ValueError(f"{where}: key 'profiles' must be a list of names of profiles, got {only!r}")
        for name in only:
            if name not in names:
                raise ValueError(f"{where}: profile '{name}' is unknown; {did_you_mean(name, names)}")
        layer = _layer(table, where)
        if profile in only:
            blocks.append((where, layer))
    if profile not in names:
        raise NoSuchProfile(f"{path}: has no profile '{profile}'; {did_you_mean(profile, names)}")
    if not blocks:
        raise NoSuchProfile(f"{path}: no [[grid]] table takes part in profile '{profile}'")
    return profiles.get(profile, {}), blocks


def _resolve(settings: Layer, rates: dict[str, Any], rates_path: Path, where: str) -> RunConfig:
    values = {key: setting.values[0] for key, setting in settings.items()}
    if values.get("learning_rate") == "tuned" and "objective" in values:
        try:
            values["learning_rate"] = _tuned(rates, values, rates_path)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from None
    try:
        return RunConfig(**values)
    except ValidationError as error:
        # What is only wrong in combination (a knob, an order above N) is the objective's.
        blamed = settings["objective"].where if "objective" in settings else where
        raise ValueError(f"{blamed}: {one_line(error)}") from None


def find_experiments(names: list[str], folder: Path = Path("experiments")) -> list[Path]:
    """The files of experiments given by name or path; all of `folder` if none is given.

    Raises ValueError on a name without a file, with the near matches.
    """
    known = {p.stem: p for p in sorted(folder.glob("*.toml")) if p.name not in (RECIPES, LEARNING_RATES)}
    if not names:
        if not known:
            raise ValueError(f"no experiment files in {folder}/")
        return list(known.values())
    found = []
    for name in names:
        path = Path(name)
        if path.suffix != ".toml" and name not in known:
            raise ValueError(f"unknown experiment '{name}'; {did_you_mean(name, known)}")
        found.append(known.get(name, path))
    return found


def under_its_first_profile(path: Path) -> Experiment:
    """An experiment under the default profile, or where it has no runs there, under the first that it has runs under.

    Raises ValueError as `load_experiment` does.
    """
    try:
        return load_experiment(path)
    except NoSuchProfile:
        for profile in _table(_read_toml(path).get("profiles", {}), f"{path}: [profiles]"):
            with contextlib.suppress(NoSuchProfile):
                return load_experiment(path, profile)
        raise


def load_experiments(names: list[str], profile: str | None = None) -> list[Experiment]:
    """Experiments by name or path, all that have the profile if none is given; by their `order`, then by name.

    Raises ValueError as `load_experiment` and `find_experiments` do, if no experiment has the profile, and if two files
    would write the same folder of results/, or one the run store's.
    """
    loaded = []
    for path in find_experiments(names):
        try:
            loaded.append(load_experiment(path, profile))
        except NoSuchProfile:
            if names:
                raise
    if not loaded:
        raise ValueError(f"no experiment has the profile '{profile}'")
    owners: dict[str, Path] = {STORE: Path(STORE)}
    for experiment in loaded:
        owner = owners.setdefault(experiment.name, experiment.path)
        if owner.resolve() != experiment.path.resolve():
            whose = "is the run store's" if owner == Path(STORE) else f"is that of {owner}"
            raise ValueError(f"{experiment.path}: its folder of results, '{experiment.name}', {whose}; rename the file")
    return sorted(loaded, key=lambda experiment: (experiment.order, experiment.name))
