"""The configuration of one run: checked, resolved, and named by the hash of its values."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    TypeAdapter,
    ValidationError,
    model_validator,
)

from maxrl_bench.objectives import bind
from maxrl_bench.tasks import check_task_name, did_you_mean


def _named(value: Any) -> Any:
    """A bare name stands for a table with nothing but the name."""
    if isinstance(value, str):
        return {"name": value}
    if not isinstance(value, Mapping) or not isinstance(value.get("name"), str):
        raise ValueError('must be a name or a table such as { name = "..." }')
    if not all(isinstance(key, str) for key in value):
        raise ValueError("must be a table with words for keys")
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        raise ValueError("holds a value other than text, finite numbers, booleans and lists of them") from None
    return dict(value)


# Looking a name up scans the installed packages for plug-ins; a sweep validates thousands of configurations.
_entry = functools.cache(check_task_name)


def _resolve_task(task: dict[str, Any]) -> dict[str, Any]:
    """Drop the options that only repeat what the task's name stands for."""
    standing = _entry(task["name"]).options
    return {key: value for key, value in task.items() if key not in standing or standing[key] != value}


Count = Annotated[int, Field(gt=0, le=2**40)]
CountOrZero = Annotated[int, Field(ge=0, le=2**40)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Named = Annotated[dict[str, Any], BeforeValidator(_named)]


class RunConfig(BaseModel):
    """One run: a task, an objective, a seed, and how to train and evaluate. Immutable; `hash` names it.

    `task` and `objective` may be given as a bare name. The objective's knobs are resolved (defaults filled in) and
    checked by `objectives.bind`. Raises pydantic.ValidationError, a ValueError; `one_line` makes a message of it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    task: Annotated[Named, AfterValidator(_resolve_task)]
    objective: Named
    seed: Annotated[int, Field(ge=0, lt=2**20)] = 0
    num_rollouts: Count = 64
    batch_size: Count = 16  # instances per step
    steps: Count = 200
    learning_rate: Positive = 1e-3
    max_grad_norm: Positive = 1.0
    warm_start_steps: CountOrZero = 0
    warm_start_batch_size: Count = 32
    warm_start_learning_rate: Positive = 1e-3
    train_instances: CountOrZero = 0  # 0: fresh instances for ever; n: a fixed set of n, in epochs
    eval_every: Count = 20
    eval_instances: Count = 128
    eval_split: Literal["validation", "test"] = "test"
    eval_rollouts: Count = 1024  # of each instance, where the pass rate has to be sampled
    policy: dict[str, Annotated[int, Field(gt=0)]] = {}  # sizes of the network
    device: Annotated[str, Field(pattern=r"^(cpu|mps|cuda(:\d+)?)$")] = "cpu"
    dtype: Literal["float32", "float64", "bfloat16"] = "float32"  # bfloat16: mixed precision

    @model_validator(mode="after")
    def _resolve_objective(self) -> RunConfig:
        knobs = {key: value for key, value in self.objective.items() if key != "name"}
        bound = bind(self.objective["name"], self.num_rollouts, **knobs)
        self.objective.update(bound.knobs)
        return self

    @property
    def hash(self) -> str:
        """16 hex digits of the resolved configuration: changed by any change of a value, not by spelling a default."""
        canonical = json.dumps(self.model_dump(mode="json"), sort_keys=True, allow_nan=False)
        return hashlib.blake2b(canonical.encode(), digest_size=8).hexdigest()

    @property
    def task_label(self) -> str:
        """The task as one word, the same as `Task.name`."""
        return label(self.task)

    @property
    def objective_label(self) -> str:
        """The objective as legends name it."""
        knobs = {key: value for key, value in self.objective.items() if key != "name"}
        return bind(self.objective["name"], self.num_rollouts, **knobs).label

    def describe(self) -> str:
        """The run in a few words, for progress lines and failure reports."""
        how = f"N={self.num_rollouts} lr={self.learning_rate:g} seed={self.seed}"
        return f"{self.task_label} {label(self.objective)} {how}"


FIELDS: dict[str, TypeAdapter[Any]] = {
    name: TypeAdapter(Annotated[info.annotation, info], config=ConfigDict(strict=True))  # type: ignore[arg-type]
    for name, info in RunConfig.model_fields.items()
}


def label(named: Mapping[str, Any]) -> str:
    """`name(knob=value, ...)`, or the bare name if nothing is set."""
    options = ", ".join(f"{key}={value}" for key, value in sorted(named.items()) if key != "name")
    return f"{named['name']}({options})" if options else str(named["name"])


def one_line(error: ValidationError, of: str = "") -> str:
    """The first thing wrong with a configuration (or with the value of its key `of`), as one line."""
    first = error.errors(include_url=False)[0]
    key = ".".join([of] * bool(of) + [str(part) for part in first["loc"]])
    if first["type"] == "extra_forbidden":
        return f"key '{key}' is unknown; {did_you_mean(key, RunConfig.model_fields)}"
    if first["type"] == "missing":
        return f"key '{key}' is missing"
    cause = first.get("ctx", {}).get("error")
    message = str(cause) if cause is not None else first["msg"][0].lower() + first["msg"][1:]
    if not key:
        return message
    shown = repr(first["input"])
    return f"key '{key}': {message}; got {shown if len(shown) <= 60 else shown[:57] + '...'}"


def read_config(text: str, source: str) -> RunConfig:
    """A RunConfig from JSON. Raises ValueError with one line that names `source` and the key."""
    try:
        return RunConfig.model_validate(json.loads(text))
    except ValidationError as error:
        raise ValueError(f"{source}: {one_line(error)}") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{source}: not JSON: {error}") from None
