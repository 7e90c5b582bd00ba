"""How a run's gradient becomes an update: Adam, or SGD with momentum, at a constant or a decaying rate."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch

from maxrl_bench.config import RunConfig

MOMENTUM = 0.9
_MOMENTS = {"adam": ("exp_avg", "exp_avg_sq"), "sgd": ("momentum_buffer",)}  # tensors kept of each parameter


def make_optimizer(config: RunConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """The optimiser of a run, at its learning rate."""
    if config.optimizer == "sgd":
        return torch.optim.SGD(parameters, lr=config.learning_rate, momentum=MOMENTUM, fused=True)
    return torch.optim.Adam(parameters, lr=config.learning_rate, fused=True)


def set_rate(optimizer: torch.optim.Optimizer, config: RunConfig, step: int) -> None:
    """Give the optimiser the rate of a step, 1 to `config.steps`: under "cosine" half a cosine from the rate to 0."""
    if config.schedule == "cosine":
        share = (step - 1) / config.steps
        for group in optimizer.param_groups:
            group["lr"] = config.learning_rate * (1 + math.cos(math.pi * share)) / 2


def check_optimizer(saved: dict[str, Any], own: torch.optim.Optimizer, config: RunConfig, step: int) -> None:
    """Raises an error, of many kinds, if a stored state is not that of this run's optimiser after so many steps.

    own: the run's optimiser at the rate of that step.
    """
    parameters = [parameter for group in own.param_groups for parameter in group["params"]]
    if saved["param_groups"] != own.state_dict()["param_groups"]:
        raise ValueError("its optimiser is another one, or has other settings")
    if sorted(saved["state"]) != (list(range(len(parameters))) if step else []):
        raise ValueError("its optimiser knows other parameters")
    names = _MOMENTS[config.optimizer]
    for index, moments in saved["state"].items():
        for name in names:
            moment = moments[name]
            if moment.shape != parameters[index].shape or not bool(torch.isfinite(moment).all()):
                raise ValueError(f"its optimiser's '{name}' is not that of parameter {index}")
        counter = {"step"} if config.optimizer == "adam" else set()
        if set(moments) != {*names, *counter} or any(moments[name].numel() != 1 for name in counter):
            raise ValueError("its optimiser is another one")
