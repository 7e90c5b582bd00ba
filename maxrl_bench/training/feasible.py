"""Whether a run can start: checks of a configuration against its task and the machine, made before any run."""

from __future__ import annotations

from collections.abc import Iterable

import psutil
import torch

from maxrl_bench.config import RunConfig
from maxrl_bench.rollouts import policies
from maxrl_bench.tasks import Task, TokenContexts, make_task
from maxrl_bench.testing import first_look
from maxrl_bench.training.streams import training_indices, warm_start_indices

# A parameter, its gradient and Adam's two moments.
_COPIES = 4


def check_runs(configs: Iterable[RunConfig], *, here: bool = True) -> None:
    """Raises ValueError, in one line, if one of these runs would fail from its start.

    Looked at are the task and its options, whether it contradicts itself (`first_look`), the objective against the
    task, the policy's sizes, instances of the splits, demonstrations where there is a warm start, the learning rates
    in the run's precision, and, if the runs are to be done `here`, the device and the memory for the policy. Nothing
    large is built, and each check is made once.
    """
    tasks: dict[str, Task] = {}
    seen: set[str] = set()
    for config in configs:
        label = config.task_label
        settings = config.model_dump(include={"policy", "device", "dtype", "learning_rate", "warm_start_learning_rate"})
        if label not in tasks:
            tasks[label] = make_task(**config.task)
            first_look.look(config.task)
        check_objective(config, tasks[label])
        if _is_new(seen, [config.objective.text, config.num_rollouts]):
            first_look.look_at_weights(config.bound)
        if _is_new(seen, [label, settings]):
            _check_sizes(config, tasks[label], here)
            _check_rates(config)
            if here:
                check_device(config.device, config.dtype)
        if _is_new(seen, [label, config.eval_split, config.warm_start_steps > 0]):
            _check_instances(config, tasks[label])


def _is_new(seen: set[str], key: object) -> bool:
    known = len(seen)
    seen.add(repr(key))
    return len(seen) > known


def check_objective(config: RunConfig, task: Task) -> None:
    """Raises ValueError if the objective or the estimator needs what the task has not."""
    if config.bound.is_likelihood and not task.exact:
        name = config.objective.name
        raise ValueError(f"objective '{name}' needs exact pass rates; task '{config.task_label}' has none")
    if config.estimator == "visited" and not isinstance(task.contexts, TokenContexts):
        raise ValueError(f"estimator 'visited' needs a task of tokens; task '{config.task_label}' is none")


def _check_sizes(config: RunConfig, task: Task, here: bool) -> None:
    try:
        parameters = policies.num_parameters(task.contexts, task.num_actions, **config.policy)
    except ValueError as error:
        raise ValueError(f"key 'policy': task '{config.task_label}': {error}") from None
    width = 8 if config.dtype == "float64" else 4
    if here and config.device == "cpu" and _COPIES * width * parameters > psutil.virtual_memory().total:
        needed = _COPIES * width * parameters / 2**30
        raise ValueError(f"key 'policy': {parameters:,} parameters need {needed:,.0f} GB, more than this machine has")


def _check_rates(config: RunConfig) -> None:
    # Adam's first step divides the rate by 1 - beta1 = 0.1.
    greatest = torch.finfo(torch.float64 if config.dtype == "float64" else torch.float32).max / 10
    for key in ("learning_rate", "warm_start_learning_rate"):
        if getattr(config, key) > greatest:
            raise ValueError(f"key '{key}': must be at most {greatest:.2g} in {config.dtype}")


def check_device(device: str, dtype: str) -> None:
    """Raises ValueError if this machine lacks the device, or the device the precision."""
    kind, _, index = device.partition(":")
    if kind == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if int(index or 0) >= count:
            raise ValueError(f"key 'device': '{device}' is not on this machine; it has {count} CUDA devices")
    elif kind == "mps":
        if not torch.backends.mps.is_available():
            raise ValueError("key 'device': 'mps' is not on this machine")
        if dtype == "float64":
            raise ValueError("key 'dtype': 'float64' is not accepted on 'mps'")


def _check_instances(config: RunConfig, task: Task) -> None:
    try:
        task.batch(config.eval_split, [0])
        task.batch("train", training_indices(config, 0)[:1])
        first = task.batch("train", warm_start_indices(config, 0)[:1])
    except (ValueError, NotImplementedError) as error:
        raise ValueError(f"task '{config.task_label}': {error}") from None
    if config.warm_start_steps:
        try:
            first.demonstration_loss(policies.smallest(task.contexts, task.num_actions))
        except (ValueError, NotImplementedError) as error:
            raise ValueError(
                f"task '{config.task_label}': {error}; key 'warm_start_steps' must be 0 without demonstrations, "
                f"got {config.warm_start_steps}"
            ) from None
