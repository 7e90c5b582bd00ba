"""What a task is, how one is found by name, and how its instances are drawn.

A task hands out *batches*: B instances, a pure function of (task, split, index). A batch samples rollouts
(`Batch.sample`), computes exact pass rates where that is tractable (`Batch.log_pass_rate`), and has demonstrations.
The library ships the two kinds of batch, in `maxrl_bench.rollouts.graphs` and `tokens`; a task only builds them.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.metadata
import inspect
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, SupportsIndex, TypeVar, runtime_checkable

import numpy as np

from maxrl_bench import plugins
from maxrl_bench.names import did_you_mean as did_you_mean  # these two for the messages of tasks, too
from maxrl_bench.names import label
from maxrl_bench.names import shorten as shorten

if TYPE_CHECKING:
    import torch

    from maxrl_bench.rollouts.counts import Rollouts

SPLITS = ("train", "validation", "test")
ENTRY_POINTS = "maxrl_bench.tasks"
# Cumulative shares of the instance space; held-out splits are large so that tiny instance spaces still fill them.
_SPLIT_BOUNDS = {"train": 0.6, "validation": 0.8, "test": 1.0}
_MAX_PROPOSALS = 10_000

T = TypeVar("T")


@dataclass(frozen=True)
class TokenContexts:
    """The policy conditions on a token prefix of at most `max_length` tokens (prompt and answer)."""

    vocabulary: int
    max_length: int


@dataclass(frozen=True)
class CategoricalContexts:
    """The policy conditions on an observation of categorical features; `cardinalities[f]` values for feature f."""

    cardinalities: tuple[int, ...]


@dataclass(frozen=True)
class PixelContexts:
    """The policy conditions on an array of floats in [0, 1] of this shape."""

    shape: tuple[int, ...]


Contexts = TokenContexts | CategoricalContexts | PixelContexts


class Batch(Protocol):
    """B instances of one task, ready to be rolled out."""

    @property
    def num_instances(self) -> int: ...

    def sample(
        self,
        policy: torch.nn.Module,
        num_rollouts: int,
        rng: np.random.Generator,
        *,
        grad: bool = True,
        paths: bool = False,
    ) -> Rollouts:
        """N independent rollouts of every instance; `paths`: rollouts of different histories are counted apart."""
        ...

    def log_pass_rate(self, policy: torch.nn.Module) -> torch.Tensor:
        """Exact log p per instance, [B] float64, differentiable. Raises ValueError where it is not tractable."""
        ...

    def demonstration_loss(self, policy: torch.nn.Module) -> torch.Tensor:
        """Mean negative log-likelihood of the demonstrated actions, a scalar. Raises ValueError without a solver."""
        ...


class Task(Protocol):
    """A family of procedural instances with a binary verifier; what it promises: `maxrl_bench.testing.task_checks`."""

    name: str
    family: str
    horizon: int
    num_actions: int
    exact: bool
    contexts: Contexts

    def batch(self, split: str, indices: Sequence[int]) -> Batch:
        """Instances, a pure function of split and index. Raises ValueError, in one line, on a bad one of either."""

    def render(self, split: str, index: int, actions: Sequence[int]) -> str | list[np.ndarray]:
        """One rollout for human eyes: text, or RGB frames [H, W, 3] uint8."""


@runtime_checkable
class DrawingTask(Task, Protocol):
    """A task whose instances take long to draw: they are arrays, which can be kept and made a batch of again.

    `batch(split, indices)` is `build(draw(split, indices))`. Arrays of one name have one shape and type in all batches
    of a size, and no objects in them.
    """

    def draw(self, split: str, indices: Sequence[int]) -> dict[str, np.ndarray]:
        """The instances at these indices of a split."""
        ...

    def build(self, drawn: Mapping[str, np.ndarray]) -> Batch:
        """A batch of instances that were drawn."""
        ...


@dataclass(frozen=True)
class TaskEntry:
    """A row of TASKS: the factory as "module:callable", and the options that this name stands for."""

    family: str
    factory: str
    options: dict[str, Any]


# Family and factory of the built-in tasks, which the library knows by name only.
_NAVIGATION = ("navigation", "maxrl_bench.envs.navigation:Navigation")
_ARITHMETIC = ("arithmetic", "maxrl_bench.envs.arithmetic:Arithmetic")
_PROGRAMS = ("programs", "maxrl_bench.envs.programs:Programs")
_MAZE = ("maze", "maxrl_bench.envs.maze:Maze")
_DIGITS = ("digits", "maxrl_bench.envs.digits:Digits")

TASKS: dict[str, TaskEntry] = {
    **{f"empty-{size}": TaskEntry(*_NAVIGATION, {"level": "empty", "size": size}) for size in (8, 16)},
    "fourrooms": TaskEntry(*_NAVIGATION, {"level": "fourrooms"}),
    **{
        f"{level}-{size}": TaskEntry(*_NAVIGATION, {"level": level, "size": size, "crossings": crossings})
        for level in ("simple-crossing", "lava-crossing")
        for size, crossings in ((9, 2), (11, 5))
    },
    **{
        f"multiroom-{rooms}": TaskEntry(*_NAVIGATION, {"level": "multiroom", "rooms": rooms, "room_size": room_size})
        for rooms, room_size in ((2, 4), (4, 5))
    },
    "unlock": TaskEntry(*_NAVIGATION, {"level": "unlock"}),
    **{f"doorkey-{size}": TaskEntry(*_NAVIGATION, {"level": "doorkey", "size": size}) for size in (5, 6, 8)},
    "add-2": TaskEntry(*_ARITHMETIC, {"operation": "+", "digits": 2}),
    "add-3": TaskEntry(*_ARITHMETIC, {"operation": "+", "digits": 3}),
    "subtract-2": TaskEntry(*_ARITHMETIC, {"operation": "-", "digits": 2}),
    "multiply-1": TaskEntry(*_ARITHMETIC, {"operation": "*", "digits": 1, "operands": 3}),
    "multiply-2": TaskEntry(*_ARITHMETIC, {"operation": "*", "digits": 2}),
    "modular-97": TaskEntry(*_ARITHMETIC, {"digits": 2, "modulus": 97}),
    "expression-1": TaskEntry(*_ARITHMETIC, {"operation": "mixed", "digits": 1, "operands": 3}),
    "add-2-scratchpad": TaskEntry(*_ARITHMETIC, {"digits": 2, "scratchpad": True}),
    "multiply-2-scratchpad": TaskEntry(*_ARITHMETIC, {"operation": "*", "digits": 2, "scratchpad": True}),
    **{f"programs-{lines}": TaskEntry(*_PROGRAMS, {"lines": lines}) for lines in (1, 2, 3)},
    "programs-2-functions": TaskEntry(*_PROGRAMS, {"lines": 2, "split_by": "function"}),
    **{f"maze-{size}": TaskEntry(*_MAZE, {"size": size}) for size in range(7, 18, 2)},
    "maze-9-wilson": TaskEntry(*_MAZE, {"size": 9, "generator": "wilson"}),
    "digits-2": TaskEntry(*_DIGITS, {"places": 2}),
    "digits": TaskEntry(*_DIGITS, {"places": 3}),
}


def all_tasks() -> dict[str, TaskEntry]:
    """The built-in tasks and those that installed packages offer through the entry-point group `maxrl_bench.tasks`.

    An entry point `NAME = "module:factory"` adds a task NAME of the family "plug-in". One that cannot be a task is left
    out; `broken_plugins` says why.
    """
    plugged_in = plugins.find(ENTRY_POINTS, TASKS)[0]
    return TASKS | {name: TaskEntry("plug-in", factory, {}) for name, factory in plugged_in.items()}


def broken_plugins() -> list[str]:
    """One line for each plug-in that `all_tasks` leaves out, with the reason."""
    return plugins.find(ENTRY_POINTS, TASKS)[1]


def check_task_name(name: str) -> TaskEntry:
    """The entry of a task name. Raises ValueError that lists the near matches."""
    tasks = all_tasks()
    if name not in tasks:
        raise ValueError(f"unknown task {shorten(name)}; {did_you_mean(name, tasks)}")
    return tasks[name]


def make_task(name: str, **options: Any) -> Task:
    """Build a task by name; `options` override those of its TASKS row.

    Raises ValueError on an unknown name, an option that the task does not have, or a value that it refuses, and on a
    plug-in that fails or is no task.
    """
    entry = check_task_name(name)
    try:
        factory = _factory(entry)
        accepted = inspect.signature(factory).parameters
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in accepted.values()):
            for option in options:
                if option not in accepted:
                    raise ValueError(f"task '{name}' has no option '{option}'; {did_you_mean(option, accepted)}")
        task: Task = factory(**{**entry.options, **options})
    except (Exception, SystemExit) as error:  # a plug-in is foreign code: any error of it becomes one line
        if isinstance(error, ValueError) or entry.family != "plug-in":
            raise
        raise _cannot_be_made(name, entry, error) from error
    _check_task(name, entry, task)
    task.name = label({"name": name, **options})
    return task


def recipe_of(name: str) -> tuple[str, Mapping[str, Any]]:
    """The settings of runs that a plug-in task's factory recommends as its attribute `recipe`; and whose they are.

    Of built-in tasks none: theirs are in recipes.toml. Raises ValueError on an unknown name, a plug-in that does not
    import, and a recipe that is no mapping.
    """
    entry = check_task_name(name)
    if entry.family != "plug-in":
        return "", {}
    try:
        recipe = getattr(_factory(entry), "recipe", {})
    except (Exception, SystemExit) as error:
        raise _cannot_be_made(name, entry, error) from error
    if not isinstance(recipe, Mapping):
        raise ValueError(f"{_plugin(name, entry)}: its 'recipe' must be a mapping of settings, got {shorten(recipe)}")
    return f"{_plugin(name, entry)}: recipe", dict(recipe)


def _plugin(name: str, entry: TaskEntry) -> str:
    return f"plug-in task '{name}' ({entry.factory})"


def _cannot_be_made(name: str, entry: TaskEntry, error: BaseException) -> ValueError:
    reason = " ".join(str(error).split())
    return ValueError(f"{_plugin(name, entry)} cannot be made: {type(error).__name__}: {reason}")


def _factory(entry: TaskEntry) -> Callable[..., Any]:
    module, _, attribute = entry.factory.partition(":")
    factory: Callable[..., Any] = operator.attrgetter(attribute)(importlib.import_module(module))
    return factory


def _check_task(name: str, entry: TaskEntry, task: Any) -> None:
    """Raises ValueError if a plug-in's factory did not return a `Task`."""
    if entry.family != "plug-in":
        return
    kinds: dict[str, Any] = {"family": str, "horizon": int, "num_actions": int, "exact": bool, "contexts": Contexts}
    for attribute, kind in kinds.items():
        if not isinstance(getattr(task, attribute, None), kind):
            wanted = getattr(kind, "__name__", "one of TokenContexts, CategoricalContexts, PixelContexts")
            raise ValueError(f"{_plugin(name, entry)} is no task: its '{attribute}' must be {wanted}")
    for method in ("batch", "render"):
        if not callable(getattr(task, method, None)):
            raise ValueError(f"{_plugin(name, entry)} is no task: it has no method '{method}'")


def _digest(*parts: bytes) -> int:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little") + part)
    return int.from_bytes(digest.digest(), "little")


def split_of(task: str, key: bytes) -> str:
    """The split that an instance belongs to, by its content: 60 % train, 20 % validation, 20 % test.

    Deciding by content and not by index is what makes overlap impossible, even in small instance spaces.
    """
    position = _digest(b"split", task.encode(), key) / 2.0**128
    return next(split for split in SPLITS if position < _SPLIT_BOUNDS[split])


def check_split(split: str) -> None:
    """Raises ValueError unless `split` is one of SPLITS."""
    if split not in SPLITS:
        raise ValueError(f"unknown split {shorten(split)}; accepted: {', '.join(SPLITS)}")


def check_index(index: object) -> int:
    """An instance's index as an int; integers of numpy and torch count. Raises ValueError on anything else."""
    try:
        if isinstance(index, bool | np.bool_):
            raise TypeError
        whole = operator.index(index)  # type: ignore[arg-type]
    except TypeError:
        raise ValueError(f"an instance's index must be a whole number, got {shorten(index)}") from None
    if whole < 0:
        raise ValueError(f"an instance's index must be 0 or more, got {shorten(whole)}")
    if whole >= 2**63:
        raise ValueError("an instance's index must be below 2^63")
    return whole


def check_indices(indices: Iterable[int]) -> list[int]:
    """The indices of a batch as ints. Raises ValueError if there are none, or one of them cannot be an index."""
    try:
        checked = [check_index(index) for index in indices]
    except TypeError:
        raise ValueError(f"a batch is asked for by a list of indices, got {shorten(indices)}") from None
    if not checked:
        raise ValueError("a batch needs at least one instance, got no indices")
    return checked


def check_actions(actions: Iterable[SupportsIndex], num_actions: int) -> list[int]:
    """Actions as ints. Raises ValueError on one that is not a whole number from 0 to num_actions - 1."""
    checked = []
    for action in actions:
        try:
            whole = -1 if isinstance(action, bool | np.bool_) else operator.index(action)
        except TypeError:
            whole = -1
        if not 0 <= whole < num_actions:
            raise ValueError(f"an action must be a whole number from 0 to {num_actions - 1}, got {shorten(action)}")
        checked.append(whole)
    return checked


def draw_instance(
    task: str,
    split: str,
    index: int,
    propose: Callable[[np.random.Generator], T],
    key: Callable[[T], bytes],
) -> T:
    """Instance `index` of a split: the first proposal whose content belongs there; a pure function of its arguments.

    The generator is seeded with a hash of (task, split, index), so neighbouring indices share nothing; `task` names the
    instance space. Raises ValueError on an unknown split, an index that is not a whole number of 0 or more, or an
    instance space too small to fill the split.
    """
    check_split(split)
    index = check_index(index)
    rng = np.random.Generator(np.random.SFC64(_digest(b"instance", task.encode(), split.encode(), str(index).encode())))
    for _ in range(_MAX_PROPOSALS):
        instance = propose(rng)
        if split_of(task, key(instance)) == split:
            return instance
    raise ValueError(f"too few instances: none of {_MAX_PROPOSALS} proposed instances belongs to split '{split}'")
