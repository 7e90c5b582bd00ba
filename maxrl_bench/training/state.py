"""The state of a run besides its policy, and checks that a checkpoint belongs to the run."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import torch

from maxrl_bench.config import RunConfig

_COLUMNS = {"step", "rollouts", "seconds", "pass@1", "log_p", "entropy", "cosine_ml", "hard_gradient"}


@dataclass
class Tally:
    """Sums over the training steps since the last evaluation."""

    steps: int = 0
    grad_norm: float = 0.0
    clipped: int = 0
    instances: int = 0
    with_success: int = 0
    pass_rate: float = 0.0
    contexts_evaluated: int = 0
    contexts_named: int = 0

    def row(self, sampled: bool) -> dict[str, float]:
        """The columns of the metrics table about training; NaN before the first step."""
        mean = 1 / self.steps if self.steps else math.nan
        per_instance = 1 / self.instances if self.instances else math.nan
        return {
            "grad_norm": self.grad_norm * mean,
            "clipped_share": self.clipped * mean,
            "success_share": self.with_success * per_instance if sampled else math.nan,
            "train_pass_rate": self.pass_rate * per_instance,
            "contexts_evaluated": self.contexts_evaluated,
            "contexts_named": self.contexts_named,
        }


@dataclass
class State:
    """What a checkpoint holds, with the policy, the optimiser and the generator, so that a run can be resumed."""

    step: int = 0
    rollouts: int = 0
    successes: int = 0
    seconds: float = 0.0
    rows: list[dict[str, float]] = field(default_factory=list)
    pass_rates: list[torch.Tensor] = field(default_factory=list)  # one per row: [RunConfig.instances_at(step)] float64
    grad_norms: list[torch.Tensor] = field(default_factory=list)  # likewise, NaN where not measured
    tally: Tally = field(default_factory=Tally)


def is_due(config: RunConfig, step: int) -> bool:
    """Whether a run evaluates its policy after this step (0: before the first)."""
    return step % config.eval_every == 0 or step == config.steps


def restore(saved: dict[str, Any], config: RunConfig) -> State:
    """The state that a checkpoint holds. Raises an error of any kind if it is not one of this run."""
    state = State(**{**saved, "tally": Tally(**saved["tally"])})
    if type(state.step) is not int or not 0 <= state.step <= config.steps:
        raise ValueError(f"its step is not one of this run's {config.steps}")
    due = [step for step in range(state.step + 1) if is_due(config, step)]
    if [row["step"] for row in state.rows] != due:
        raise ValueError(f"its evaluations are not those of {state.step} steps")
    columns = _COLUMNS | set(Tally().row(sampled=True))
    for row in state.rows:
        if not columns <= set(row) or not all(isinstance(value, int | float) for value in row.values()):
            raise ValueError("its evaluations lack columns, or hold something else than numbers")
    wanted = [(torch.float64, (config.instances_at(step),)) for step in due]
    for kept in (state.pass_rates, state.grad_norms):
        if [(rates.dtype, tuple(rates.shape)) for rates in kept] != wanted:
            raise ValueError("its pass rates are not those of its evaluations")
    for name, value in {**vars(state), **vars(state.tally)}.items():
        if name not in ("rows", "pass_rates", "grad_norms", "tally") and not isinstance(value, int | float):
            raise ValueError(f"its '{name}' is not a number")
    return state
