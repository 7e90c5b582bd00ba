"""An experiment file: the question it asks, validated and expanded into runs.

An experiment is TOML. Any run setting may be a list, which makes it an axis; a run is made for each combination:

    question = "Does MaxRL keep pass@k where GRPO loses it?"     # required
    caveat = "The base policy solves half of the instances."     # optional; the page shows it before the verdicts
    figures = ["coverage", "pareto"]
    margin = 0.02                 # optional: the smallest difference of pass@k worth the name, for all claims
    [defaults]                    # settings of every run
    seed = [0, 1, 2, 3, 4]        # or { first = 5, most = 20, until = "decided" }: seeds follow the claims
    [task.fourrooms]              # settings of the runs on one task
    steps = 300
    [[grid]]                      # one or more blocks
    task = ["fourrooms", { name = "maze", size = 9 }]
    objective = ["grpo", { name = "maxrl_order", order = 4 }]
    profiles = ["laptop"]         # optional: only under these profiles
    [profiles.smoke]              # settings that replace those of every block under `--profile smoke`
    steps = 5

Later wins: RunConfig's defaults, recipes.toml's table of the task, [defaults], [task.NAME], [[grid]], [profiles.NAME].
`learning_rate = "tuned"` looks the rate up in learning_rates.toml by task and objective. Both files are ours; those of
the same names beside the experiment go before them, see `maxrl_bench.sweeps.recipes`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from maxrl_bench import inputs
from maxrl_bench.config import RunConfig
from maxrl_bench.names import check_name, did_you_mean, shorten
from maxrl_bench.storage.store import STORE
from maxrl_bench.sweeps.claim_check import check_claims
from maxrl_bench.sweeps.claim_model import MARGIN, Claim, read_claims
from maxrl_bench.sweeps.grid import MAX_RUNS, Block, Layer, common_rule, extends, layer, many_objects, task_layers
from maxrl_bench.sweeps.recipes import BUILT_IN, HERE, NO_EXPERIMENTS, Recipes, beside, lines_of
from maxrl_bench.sweeps.seeds import SeedRule

DEFAULT_PROFILE = "laptop"
MAX_BLOCKS, MAX_PROFILES = 1000, 100


def _not_empty(text: str) -> str:
    if not text:
        raise ValueError("must be the question that the experiment answers, as text")
    return text


Text = Annotated[str, AfterValidator(str.strip)]


class _File(BaseModel):
    """The top of an experiment file; its tables of settings and its claims are checked by `_Grid` and `read_claims`."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    question: Annotated[Text, AfterValidator(_not_empty)]
    caveat: Text = ""
    figures: list[str] = []
    claims: list[dict[str, Any]] = []
    margin: Annotated[float, Field(gt=0, le=1)] = MARGIN
    order: int = 0
    defaults: dict[str, Any] = {}
    task: dict[str, Any] = {}
    grid: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MAX_BLOCKS)]
    profiles: Annotated[dict[str, Any], Field(max_length=MAX_PROFILES)] = {}


@dataclass(frozen=True)
class Experiment:
    """A question and the runs that answer it."""

    name: str  # of its folder in results/: the file's, and the profile's where that is not the default
    path: Path
    profile: str
    question: str
    figures: tuple[str, ...]
    claims: tuple[Claim, ...]
    order: int  # experiments are run in this order, then by name
    runs: tuple[RunConfig, ...]
    caveat: str = ""  # a warning for readers of the results; shown before the verdicts
    recipes: tuple[str, ...] = ()  # a line per task on what of its recipe counts here
    seeds: SeedRule | None = None  # by which seeds follow the claims; `runs` are then those asked for by now
    extends: bool = False  # learning rates are added until the best is inside; `runs` likewise

    @property
    def grows(self) -> bool:
        """Whether results may ask for more runs."""
        return self.extends or self.seeds is not None


class NoSuchProfile(ValueError):
    """The experiment file does not have the profile asked for."""


def _read(path: Path) -> dict[str, Any]:
    try:
        return inputs.read_toml(path)
    except FileNotFoundError as error:
        raise ValueError(str(error)) from None


def _read_file(path: Path) -> _File:
    try:
        return _File.model_validate(_read(path))
    except ValidationError as error:
        raise ValueError(f"{path}: {inputs.one_line(error, known=_File.model_fields)}") from None


def load_experiment(path: str | Path, profile: str | None = None) -> Experiment:
    """Read, validate and expand an experiment file under a profile ("laptop" if None).

    Raises ValueError with one line that names the file, the table, the key and what is accepted.
    """
    path = Path(path)
    profile = DEFAULT_PROFILE if profile is None else profile
    name = folder_name(path, profile)
    file = _read_file(path)
    grid = _Grid(path, file)
    runs = grid.runs(profile)
    try:
        claims = read_claims(file.claims, file.margin)
        check_claims(claims, runs, lambda: grid.elsewhere(profile))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    blocks = grid.blocks(profile)
    seeds, extended = common_rule(blocks, bool(claims)), extends(blocks)
    if extended and (seeds is not None or any(run.eval_split != "validation" for run in runs)):
        what = 'a list of seeds and eval_split = "validation"'
        raise ValueError(f'{path}: learning rates that follow the results (until = "inside") need {what}')
    recipes = lines_of(used for block in blocks for used in block.recipes())
    told = file.question, tuple(file.figures), claims, file.order
    return Experiment(name, path, profile, *told, runs, file.caveat, recipes, seeds, extended)


class _Grid:
    """The tables of an experiment file that define its runs; all are checked once, under every profile."""

    def __init__(self, path: Path, file: _File):
        self._path = path
        self.profiles = _profiles(path, file.profiles)
        self._tables = _grid(path, file.grid, list(self.profiles))
        self._defaults = layer(file.defaults, f"{path}: [defaults]")
        self._recipes = Recipes(beside(path))
        self._own = task_layers(file.task, path, "task.")

    def blocks(self, profile: str) -> list[Block]:
        """The blocks that take part in a profile. Raises NoSuchProfile where there are none."""
        if profile not in self.profiles:
            hint = did_you_mean(profile, self.profiles)
            raise NoSuchProfile(f"{self._path}: has no profile {shorten(profile)}; {hint}")
        upper = self.profiles[profile]
        blocks = [
            Block(where, self._recipes.of, self._defaults, self._own, {**table, **upper})
            for where, table, only in self._tables
            if profile in only
        ]
        if not blocks:
            raise NoSuchProfile(f"{self._path}: no [[grid]] table takes part in profile {shorten(profile)}")
        return blocks

    @many_objects()
    def runs(self, profile: str) -> tuple[RunConfig, ...]:
        """The runs that the tables define under a profile."""
        blocks = self.blocks(profile)
        count = sum(len(block) for block in blocks)
        if count > MAX_RUNS:
            raise ValueError(f"{self._path}: stands for {count} runs; at most {MAX_RUNS} are accepted")
        runs: dict[str, RunConfig] = {}
        origin: dict[str, str] = {}
        for block in blocks:
            for config in block.runs(self._recipes.rates):
                # A profile that replaces an axis can make blocks meet; in the file itself a repetition is a mistake.
                if config.hash in runs and (not self.profiles[profile] or origin[config.hash] == block.where):
                    first = origin[config.hash].rpartition(": ")[2]
                    raise ValueError(f"{block.where}: repeats a run of {first}: {config.describe()}")
                runs.setdefault(config.hash, config)
                origin.setdefault(config.hash, block.where)
        return tuple(runs.values())

    def elsewhere(self, profile: str) -> Iterator[tuple[RunConfig, ...]]:
        """The runs under each of the other profiles; one that cannot be expanded (its rates are to be tuned) has none.

        Raises ValueError if all of them together are too many.
        """
        others = []
        for other in self.profiles:
            with contextlib.suppress(ValueError):
                others += [(other, sum(map(len, self.blocks(other))))] if other != profile else []
        count = sum(count for _, count in others)
        if count > MAX_RUNS:
            raise ValueError(
                f"a claim has no runs under profile {shorten(profile)}, and the others stand for {count} runs, too "
                f"many to look for it there; at most {MAX_RUNS} are accepted"
            )
        for other, _ in others:
            with contextlib.suppress(ValueError):
                yield self.runs(other)


@many_objects()
def from_settings(settings: Mapping[str, Any], source: Path, name: str | None = None) -> Experiment:
    """The experiment of one grid: each setting is a value or a list of them, and recipes apply as for a file.

    `source` stands for its file, in errors and in the provenance. Without a `name`, the folder of results is named
    after the tasks and objectives, and six digits of a hash of the runs. Raises ValueError as `load_experiment` does.
    """
    recipes = Recipes(beside(None))
    block = Block(str(source), recipes.of, {}, {}, layer(settings, str(source)))
    common_rule([block], has_claims=False)
    if len(block) > MAX_RUNS:
        raise ValueError(f"{source}: stands for {len(block)} runs; at most {MAX_RUNS} are accepted")
    runs: dict[str, RunConfig] = {}
    for config in block.runs(recipes.rates):
        if config.hash in runs:
            raise ValueError(f"{source}: asks for a run twice: {config.describe()}")
        runs[config.hash] = config
    if name is None:
        digest = hashlib.blake2b("".join(sorted(runs)).encode(), digest_size=3).hexdigest()
        name = "-".join([*_several(runs, "task"), *_several(runs, "objective"), digest])
    check_name(name, "folder of results")
    if name.casefold() == STORE:
        raise ValueError(f"{source}: the folder of results '{name}' is the run store's; give another name")
    told = lines_of(block.recipes())
    return Experiment(name, source, DEFAULT_PROFILE, "", (), (), 0, tuple(runs.values()), recipes=told)


def _several(runs: Mapping[str, RunConfig], key: str) -> list[str]:
    """The one name of all runs, or how many there are."""
    names = {getattr(config, key).name for config in runs.values()}
    return sorted(names) if len(names) == 1 else [f"{len(names)}-{key}s"]


def folder_name(path: Path, profile: str) -> str:
    """The name of an experiment's folders in results/ and plots/. Raises ValueError, with the rule, if it cannot be."""
    try:
        check_name(profile, "profile")
        if path.suffix != ".toml":
            raise ValueError("an experiment file's name ends in .toml")
        check_name(path.stem, "experiment file")
        return check_name(path.stem if profile == DEFAULT_PROFILE else f"{path.stem}-{profile}", "folder of results")
    except ValueError as error:
        raise ValueError(f"{shorten(str(path), 200).strip(chr(39))}: {error}") from None


def _profiles(path: Path, tables: Mapping[str, Any]) -> dict[str, Layer]:
    """The settings that each profile imposes. All profiles are checked, whichever is asked for."""
    profiles: dict[str, Layer] = {DEFAULT_PROFILE: {}}
    for name, table in tables.items():
        try:
            check_name(name, "profile")
        except ValueError as error:
            raise ValueError(f"{path}: [profiles]: {error}") from None
        profiles[name] = layer(table, f"{path}: [profiles.{name}]")
    return profiles


def _grid(path: Path, grid: list[dict[str, Any]], names: list[str]) -> list[tuple[str, Layer, list[str]]]:
    """The [[grid]] tables: where each stands, its settings, and the profiles that it takes part in."""
    tables = []
    for number, table in enumerate(grid, 1):
        where = f"{path}: [[grid]] {number}"
        table = dict(table)
        only = table.pop("profiles", names)
        if not isinstance(only, list) or not all(isinstance(name, str) for name in only):
            raise ValueError(f"{where}: key 'profiles' must be a list of names of profiles, got {shorten(only)}")
        for name in only:
            if name not in names:
                raise ValueError(f"{where}: profile {shorten(name)} is unknown; {did_you_mean(name, names)}")
        tables.append((where, layer(table, where), only))
    return tables


def experiments_in(folder: Path) -> dict[str, Path]:
    """The experiment files of a folder, by name."""
    return {p.stem: p for p in sorted(folder.glob("*.toml")) if p.name not in NO_EXPERIMENTS}


def find_experiments(names: list[str], folder: Path = HERE) -> list[Path]:
    """The files of experiments given by name or path; if none is given all of `folder`, or all built-in ones.

    A name is looked for in `folder`, then in the working directory, then among the built-in experiments. Raises
    ValueError on a name without a file, with the near matches.
    """
    own, built_in = experiments_in(folder), experiments_in(BUILT_IN)
    if not names:
        return list((own or built_in).values())
    paths = []
    for name in names:
        path = Path(name) if name.endswith(".toml") else Path(f"{name}.toml")
        if name in own:
            path = own[name]
        elif not os.path.lexists(path) and not name.endswith(".toml"):
            if name not in built_in:
                raise ValueError(f"unknown experiment {shorten(name)}; {did_you_mean(name, {**built_in, **own})}")
            path = built_in[name]
        paths.append(path)
    return paths


def under_its_first_profile(path: Path) -> Experiment:
    """An experiment under the default profile, or, without runs under that, under its first profile with runs.

    Raises ValueError as `load_experiment` does.
    """
    try:
        return load_experiment(path)
    except NoSuchProfile:
        grid = _Grid(path, _read_file(path))
        for profile in grid.profiles:
            with contextlib.suppress(NoSuchProfile):
                grid.blocks(profile)
                return load_experiment(path, profile)
        raise


def load_experiments(names: list[str], profile: str | None = None) -> list[Experiment]:
    """Experiments by name or path, each once, all that have the profile if none is given; by their
    `order`, then by name.

    Raises ValueError as `load_experiment` and `find_experiments` do, if no experiment has the profile, and if two files
    would write the same folder of results/, or one the run store's.
    """
    loaded = []
    paths = {os.path.realpath(path): path for path in find_experiments(names)}
    for path in paths.values():
        try:
            loaded.append(load_experiment(path, profile))
        except NoSuchProfile:
            if names:
                raise
    if not loaded:
        raise ValueError(f"no experiment has the profile '{profile}'")
    owners: dict[str, Path] = {STORE: Path(STORE)}
    for experiment in loaded:
        # Some file systems do not distinguish upper and lower case.
        owner = owners.setdefault(experiment.name.casefold(), experiment.path)
        if os.path.realpath(owner) != os.path.realpath(experiment.path):
            whose = "is the run store's" if owner == Path(STORE) else f"is that of {owner}"
            raise ValueError(f"{experiment.path}: its folder of results, '{experiment.name}', {whose}; rename the file")
    return sorted(loaded, key=lambda experiment: (experiment.order, experiment.name))
