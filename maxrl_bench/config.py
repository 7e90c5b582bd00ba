"""The configuration of one run: checked, resolved, and named by the hash of its values."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    PlainValidator,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
    field_validator,
)

from maxrl_bench import inputs
from maxrl_bench.names import from_label, is_name, label, shorten
from maxrl_bench.objectives.formula import MAX_ROLLOUTS
from maxrl_bench.objectives.outside import ALIASES
from maxrl_bench.objectives.table import Objective, bind, find_row
from maxrl_bench.tasks import check_task_name

_encode = json.JSONEncoder(sort_keys=True, allow_nan=False).encode
# Typed, so that 1, 1.0 and True differ; large, since a grid may have very many seeds.
_encode_scalar = functools.lru_cache(2**16, typed=True)(_encode)


class Frozen(dict[str, Any]):
    """An immutable dict: runs share their settings and are named by a hash of them."""

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise TypeError("a configuration cannot be changed; make another: RunConfig(**{**config.model_dump(), ...})")

    __setitem__ = __delitem__ = __ior__ = update = setdefault = pop = popitem = clear = _refuse

    @functools.cached_property
    def text(self) -> str:
        """The dict as JSON."""
        return _encode(self)

    def __reduce__(self) -> tuple[type[Frozen], tuple[dict[str, Any]]]:
        return type(self), (dict(self),)


class Named(Frozen):
    """A task or an objective as a table: its `name`, and its options (of an objective: knobs)."""

    @property
    def name(self) -> str:
        """Its name."""
        return str(self["name"])

    @property
    def options(self) -> dict[str, Any]:
        """All but its name."""
        return {key: value for key, value in self.items() if key != "name"}


def _named(value: Any) -> Named:
    """A bare name stands for a table with nothing but the name, a label for one with options."""
    if isinstance(value, str):
        value = from_label(value)
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError('must be a name or a table such as { name = "..." }')
    for key in value:
        if not (isinstance(key, str) and key.isidentifier() and is_name(key.lstrip("_"))):
            raise ValueError(f"must be a table with words for keys; {shorten(key)} is none")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ValueError("holds a value other than text, finite numbers, booleans and lists of them") from None
    return Named(value)


def _objective(value: Any) -> Named:
    """As `_named`; a name that stands for another becomes that other, so that runs under both are the same runs."""
    named = _named(value)
    return Named({**named, "name": ALIASES.get(named.name, named.name)}) if named.name in ALIASES else named


# Looking a name up scans the installed packages for plug-ins; a sweep validates thousands of configurations.
find_task = functools.cache(check_task_name)


def _resolve_task(task: Named) -> Named:
    """Drop the options that only repeat what the task's name stands for."""
    standing = find_task(task.name).options
    # A value of another type (7.0, true) is no repetition: the task is to refuse it.
    repeats = {key for key, value in task.items() if type(value) is type(standing.get(key)) and standing[key] == value}
    return Named({key: value for key, value in task.items() if key not in repeats})


# What only takes time (steps) may be long; what is in memory at once has limits that a machine of 16 GB serves on the
# largest task. With these, no two uses of train instances meet (see `streams`).
Steps = Annotated[int, Field(gt=0, le=10**7)]
StepsOrZero = Annotated[int, Field(ge=0, le=10**7)]
Rollouts = Annotated[int, Field(gt=0, le=MAX_ROLLOUTS)]
Instances = Annotated[int, Field(gt=0, le=2**12)]
InstancesOrZero = Annotated[int, Field(ge=0, le=2**20)]
Size = Annotated[int, Field(gt=0, le=2**12)]
MAX_VISITED = 256  # rollouts of an instance with estimator = "visited", whose time and memory grow with their square
MAX_HISTORIES = 2**14  # rollouts of an instance whose paths are kept apart (differential smoothing)
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]


def _device(value: str) -> str:
    if not re.fullmatch(r"cpu|mps|cuda(:[0-9]{1,2})?", value):
        raise ValueError("must be 'cpu', 'mps', 'cuda' or one of several such as 'cuda:1'")
    return value


INTERIM = 128  # held-out instances of an evaluation that is not the last


class RunConfig(BaseModel):
    """One run: a task, an objective, a seed, and how to train and evaluate. Immutable; `hash` names it.

    `task` and `objective` may be given as a bare name. The objective's knobs are resolved (defaults filled in) and
    checked by `objectives.bind`. Raises pydantic.ValidationError, a ValueError; `one_line` makes a message of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    num_rollouts: Rollouts = 64  # first, since knobs of objectives are bounded by it
    task: Annotated[Named, PlainValidator(_named), AfterValidator(_resolve_task)]
    objective: Annotated[Named, PlainValidator(_objective)]
    seed: Annotated[int, Field(ge=0, lt=2**20)] = 0
    batch_size: Instances = 16  # instances per step
    steps: Steps = 200
    learning_rate: Positive = 1e-3
    optimizer: Literal["adam", "sgd"] = "adam"  # sgd: with momentum 0.9
    schedule: Literal["constant", "cosine"] = "constant"  # of the learning rate; cosine: down to 0 over the steps
    max_grad_norm: Positive = 1.0
    warm_start_steps: StepsOrZero = 0
    warm_start_batch_size: Instances = 32
    warm_start_learning_rate: Positive = 1e-3
    train_instances: InstancesOrZero = 0  # 0: fresh instances for ever; n: a fixed set of n, in epochs
    eval_every: Steps = 20
    eval_instances: Instances = 1024  # at the last evaluation; the others take the first INTERIM of them
    eval_split: Literal["validation", "test"] = "test"
    eval_rollouts: Rollouts = 1024  # of each instance, where the pass rate has to be sampled
    policy: Annotated[dict[str, Size], AfterValidator(Frozen)] = Frozen()  # sizes of the network
    device: Annotated[str, AfterValidator(_device)] = "cpu"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"  # bfloat16: mixed precision
    estimator: Literal["sampled", "visited"] = "sampled"  # visited: its mean given the contexts that were visited

    @field_validator("objective")
    @classmethod
    def _resolve_objective(cls, objective: Named, info: ValidationInfo) -> Named:
        known = "num_rollouts" in info.data  # it is not where it is no good itself
        return resolve_objective(objective, info.data["num_rollouts"]) if known else objective

    @field_validator("estimator")
    @classmethod
    def _check_estimator(cls, estimator: str, info: ValidationInfo) -> str:
        if estimator == "visited" and {"objective", "num_rollouts"} <= set(info.data):
            rollouts, objective = info.data["num_rollouts"], info.data["objective"]
            bound = bind(objective.name, rollouts, **objective.options)
            if bound.is_likelihood or bound.row.pooled or bound.smoothing:
                raise ValueError(f"must be 'sampled' with objective '{bound.name}', which weighs by more than counts")
            if rollouts > MAX_VISITED:
                raise ValueError(f"must be 'sampled' with more than {MAX_VISITED} rollouts, got {rollouts}")
        return estimator

    def model_copy(self, *, update: Mapping[str, Any] | None = None, deep: bool = False) -> Self:
        """A copy with some values replaced, which are not checked."""
        copied = super().model_copy(update=update, deep=deep)
        copied.__dict__.pop("hash", None)
        return copied

    @functools.cached_property
    def hash(self) -> str:
        """16 hex digits of the resolved configuration: changed by any change of a value, not by spelling a default."""
        values = [self.__dict__[name] for name in _SORTED]
        texts = [value.text if isinstance(value, Frozen) else _encode_scalar(value) for value in values]
        later = {name: v for name in _LATER if (v := getattr(self, name)) != type(self).model_fields[name].default}
        texts = [*texts, _encode(later) if later else ""]
        return hashlib.blake2b((_CANONICAL % tuple(texts)).encode(), digest_size=8).hexdigest()

    @property
    def task_label(self) -> str:
        """The task as one word, the same as `Task.name`."""
        return label(self.task)

    @property
    def objective_label(self) -> str:
        """The objective as legends name it."""
        return self.bound.label

    @property
    def bound(self) -> Objective:
        """The objective, bound to the number of rollouts and its knobs."""
        return bind(self.objective.name, self.num_rollouts, **self.objective.options)

    def instances_at(self, step: int) -> int:
        """How many held-out instances the evaluation after a training step has."""
        return self.eval_instances if step == self.steps else min(self.eval_instances, INTERIM)

    def describe(self, also: Iterable[str] = ()) -> str:
        """The run in a few words, for progress lines and failure reports; `also` names further settings to show."""
        how = "".join(f"{name}={cell(getattr(self, name))} " for name in also)
        how = f"N={self.num_rollouts} lr={self.learning_rate:g} {how}seed={self.seed}"
        return f"{self.task_label} {label(self.objective)} {how}"


# What else than task, objective and seed tells runs apart.
SETTINGS = tuple(name for name in RunConfig.model_fields if name not in ("task", "objective", "seed"))


def cell(value: Any) -> Any:
    """A setting as one cell of a table: a table of them ("policy") in words, "default" where nothing is set."""
    if isinstance(value, dict):
        return ", ".join(f"{key}={part}" for key, part in sorted(value.items())) or "default"
    return value


# Settings that came after the first results: their defaults leave the names of earlier runs as they were.
_LATER = ("estimator", "optimizer", "schedule")
_SORTED = sorted({*RunConfig.model_fields} - {*_LATER})
_CANONICAL = "{" + ", ".join(f'"{name}": %s' for name in _SORTED) + "}%s"  # JSON, and once more for what came later


FIELDS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(Annotated[info.annotation, info], config=ConfigDict(strict=True))  # type: ignore[arg-type]
    for name, info in RunConfig.model_fields.items()
}


def resolve_objective(objective: Mapping[str, Any], num_rollouts: int) -> Named:
    """An objective with all its knobs, checked by `objectives.bind`. Raises ValueError as that does."""
    named = Named(objective)
    bound = bind(named.name, num_rollouts, **named.options)
    if bound.smoothing and num_rollouts > MAX_HISTORIES:
        what = f"objective '{bound.name}' keeps the path of every rollout"
        raise ValueError(f"{what}; key 'num_rollouts' must be at most {MAX_HISTORIES} with it, got {num_rollouts}")
    return Named({**objective, **bound.knobs})


def brief(objective: Mapping[str, Any]) -> dict[str, Any]:
    """An objective without the knobs that have their default values: the shortest way to write it."""
    rules = find_row(objective["name"]).knobs
    return {key: v for key, v in objective.items() if key not in rules or rules[key].default != v}


def one_line(error: ValidationError, of: str = "") -> str:
    """The first thing wrong with a configuration (or with the value of its key `of`), as one line."""
    return inputs.one_line(error, of, RunConfig.model_fields)


def read_config(text: str, source: str) -> RunConfig:
    """A RunConfig from JSON. Raises ValueError with one line that names `source` and the key."""
    try:
        return RunConfig.model_validate(inputs.from_json(text, source))
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error)}") from None
